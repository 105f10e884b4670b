//! What a node spends by itself, where nobody said so: bounded for each day and each month, fees included.
//!
//! A spending is taken down before anything is paid, in the transaction that stores what it is for, so that no crash and
//! no second try makes room for more. Its time is never before that of the newest one: a clock that is set back frees
//! nothing.
//!
//! **Invariant:** in no 24 hours and in no 30 days of these times is more taken down than the limits at that moment.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::TopUpId;
use crate::time::Timestamp;

/// The shorter window.
pub const DAY: Duration = Duration::from_secs(86_400);

/// The longer window; what is older is forgotten.
pub const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// The limits that the owner set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// In any 24 hours, in sat; 0 where nothing is to be paid without a person's word.
    pub day_sat: u64,
    /// In any 30 days, in sat; 0 as above.
    pub month_sat: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { day_sat: 1_000, month_sat: 10_000 }
    }
}

/// Something that is spent without a person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spending {
    /// What it is for: an advance is one however often it is tried.
    pub id: TopUpId,
    /// When it was decided on.
    pub at: Timestamp,
    /// The amount with the largest fee that it may have, in sat.
    pub sat: u64,
}

/// Why something is not spent without a person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{need_sat} sat more are not spent without your word: {spent_sat} of {limit_sat} sat are used in {}", name(*.window))]
pub struct OverBudget {
    /// What it would take, in sat.
    pub need_sat: u64,
    /// Spent in the window, in sat.
    pub spent_sat: u64,
    /// The limit of the window, in sat.
    pub limit_sat: u64,
    /// [`DAY`] or [`MONTH`].
    pub window: Duration,
    /// From when on there is room; nothing where the limit itself is too small.
    pub frees: Option<Timestamp>,
}

impl OverBudget {
    /// The setting that says otherwise.
    #[must_use]
    pub fn key(&self) -> &'static str {
        if self.window == DAY { "day_sat" } else { "month_sat" }
    }
}

fn name(window: Duration) -> &'static str {
    if window == DAY { "24 hours" } else { "30 days" }
}

/// What was spent by itself in the last 30 days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spendings {
    rows: BTreeMap<TopUpId, Spending>,
}

impl Spendings {
    /// What was spent in the window before `now`, in sat.
    #[must_use]
    pub fn spent(&self, now: Timestamp, window: Duration) -> u64 {
        self.within(now, window).fold(0, |sum, row| sum.saturating_add(row.sat))
    }

    /// What is taken down for this as it turned out to be, where that is something else.
    #[must_use]
    pub fn come_to(&self, id: &TopUpId, sat: u64) -> Option<Spending> {
        self.rows.get(id).filter(|row| row.sat != sat).map(|row| Spending { sat, ..*row })
    }

    /// What is to be taken down before `sat` are spent for `id`.
    ///
    /// # Errors
    /// [`OverBudget`] where that is more than the limits allow.
    pub fn plan(&self, now: Timestamp, id: TopUpId, sat: u64, budget: &Budget) -> Result<Spending, OverBudget> {
        for (window, limit_sat) in [(MONTH, budget.month_sat), (DAY, budget.day_sat)] {
            // What is taken down for it already is replaced, not added to.
            let others = self.within(now, window).filter(|row| row.id != id);
            let spent_sat = others.fold(0, |sum: u64, row| sum.saturating_add(row.sat));
            if spent_sat.saturating_add(sat) > limit_sat {
                let frees = self.frees(now, window, limit_sat.checked_sub(sat));
                return Err(OverBudget { need_sat: sat, spent_sat, limit_sat, window, frees });
            }
        }
        Ok(Spending { id, at: self.at(now), sat })
    }

    /// Those that no window sees any more.
    pub fn expired(&self, now: Timestamp) -> impl Iterator<Item = TopUpId> {
        let now = self.at(now);
        self.rows.values().filter(move |row| now.since(row.at) >= MONTH).map(|row| row.id)
    }

    /// Takes a spending down, and forgets others.
    pub(crate) fn apply(&mut self, spending: Spending, forgets: &[TopUpId]) {
        self.rows.retain(|id, _| !forgets.contains(id));
        self.rows.insert(spending.id, spending);
    }

    fn within(&self, now: Timestamp, window: Duration) -> impl Iterator<Item = &Spending> {
        let now = self.at(now);
        self.rows.values().filter(move |row| now.since(row.at) < window)
    }

    /// The time that counts: the clock's, and never before the newest spending.
    fn at(&self, now: Timestamp) -> Timestamp {
        self.rows.values().map(|row| row.at).max().map_or(now, |newest| newest.max(now))
    }

    /// When no more than `rest_sat` are left in the window.
    fn frees(&self, now: Timestamp, window: Duration, rest_sat: Option<u64>) -> Option<Timestamp> {
        let rest_sat = rest_sat?;
        let mut rows: Vec<&Spending> = self.within(now, window).collect();
        rows.sort_by_key(|row| row.at);
        let mut spent_sat = self.spent(now, window);
        let enough = |row: &&&Spending| {
            spent_sat = spent_sat.saturating_sub(row.sat);
            spent_sat <= rest_sat
        };
        rows.iter().find(enough).map(|row| row.at.saturating_add(window))
    }
}

#[cfg(test)]
mod tests;
