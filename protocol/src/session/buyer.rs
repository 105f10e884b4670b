//! The buyer's side of a session: which range to want next, and what the seller's frames must fit.

use std::collections::VecDeque;

use crate::content::{Groups, Size};
use crate::money::{Msat, Price};
use crate::session::{PIPELINED_WANTS, Window};

/// A frame of the seller that breaks the order: the stream ends, and another seller is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuyerViolation {
    /// It serves what was not wanted.
    #[error("the seller serves what was not asked for")]
    NotWanted,
}

/// Ranges on their way from one seller, and what verified.
#[derive(Debug)]
pub struct BuyerSession {
    size: Size,
    price: Price,
    limit: Option<Msat>,
    window: Window,
    cursor: u64,
    wanted: VecDeque<Groups>,
    serving: VecDeque<Groups>,
    verified: u64,
    pending: u64,
}

impl BuyerSession {
    /// A session under a quote for an object of this size and price, that may cost at most `limit` in all.
    #[must_use]
    pub fn new(size: Size, price: Price, limit: Option<Msat>, max_window: u64) -> Self {
        Self {
            size,
            price,
            limit,
            window: Window::up_to(max_window),
            cursor: size.group_count().saturating_sub(1),
            wanted: VecDeque::new(),
            serving: VecDeque::new(),
            verified: 0,
            pending: 0,
        }
    }

    /// The next range to want: nothing while enough is on its way, when nothing is missing, or when the limit leaves
    /// room for no further group. `missing_from` answers the first run of missing groups at or after an index.
    ///
    /// The last group is wanted first, alone: it proves the size, which is a claim until then (MONEY.md 6). Then the object
    /// is walked once from the front; what sellers left out is wanted when all else has come.
    #[must_use]
    pub fn poll_want(&mut self, missing_from: impl Fn(u64) -> Option<Groups>) -> Option<Groups> {
        if self.on_its_way().count() >= PIPELINED_WANTS {
            return None;
        }
        let ahead = missing_from(self.cursor);
        let missing = ahead.or_else(|| self.is_idle().then(|| missing_from(0)).flatten())?;
        let mut groups = missing.within(self.window.after(self.verified));
        if let Some(limit) = self.limit {
            let affordable = self.price.affordable(limit).saturating_sub(self.verified).saturating_sub(self.pending);
            if affordable < self.size.bytes_in(groups) {
                groups = groups.within(affordable);
                if self.size.bytes_in(groups) > affordable {
                    return None;
                }
            }
        }
        self.pending = self.pending.saturating_add(self.size.bytes_in(groups));
        self.wanted.push_back(groups);
        self.cursor = groups.end();
        Some(groups)
    }

    /// The seller says what the raw frames that follow hold; what it left out is wanted no more.
    ///
    /// # Errors
    /// [`BuyerViolation::NotWanted`] when it is no beginning of the oldest range that was wanted.
    pub fn handle_serving(&mut self, groups: Groups) -> Result<(), BuyerViolation> {
        let oldest = self.wanted.pop_front().ok_or(BuyerViolation::NotWanted)?;
        if groups.start() != oldest.start() || groups.end() > oldest.end() {
            return Err(BuyerViolation::NotWanted);
        }
        let left_out = self.size.bytes_in(oldest).saturating_sub(self.size.bytes_in(groups));
        self.pending = self.pending.saturating_sub(left_out);
        self.serving.push_back(groups);
        Ok(())
    }

    /// A group has verified and is written: it is owed from now on.
    pub fn handle_verified(&mut self, bytes: u64) {
        self.verified = self.verified.saturating_add(bytes);
        self.pending = self.pending.saturating_sub(bytes);
    }

    /// The oldest range that was being served is complete.
    pub fn handle_served(&mut self) {
        self.serving.pop_front();
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.on_its_way().next().is_none()
    }

    /// The ranges that are on their way, each until it is complete.
    pub(super) fn on_its_way(&self) -> impl Iterator<Item = Groups> + '_ {
        self.serving.iter().chain(&self.wanted).copied()
    }

    /// What the session may still cost, as far as ranges were wanted: also those that are on their way.
    pub(super) fn committed(&self) -> Msat {
        self.price.charge(self.verified.saturating_add(self.pending)).unwrap_or(Msat::MAX)
    }

    /// Changes what the session may cost in all.
    pub(super) const fn set_limit(&mut self, limit: Option<Msat>) {
        self.limit = limit;
    }

    /// Bytes verified in this session: the units of the next receipt.
    #[must_use]
    pub const fn verified(&self) -> u64 {
        self.verified
    }
}
