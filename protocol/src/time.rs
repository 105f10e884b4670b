//! Points in time, as plain numbers: pure code is told the time and never asks for it.

use std::fmt;
use std::time::Duration;

/// How far the time of a block may be ahead of the clocks that take it: a rule of the network (validation.cpp of Bitcoin
/// Core, `MAX_FUTURE_BLOCK_TIME`).
pub const MAX_BLOCK_AHEAD: Duration = Duration::from_secs(2 * 3_600);

/// How old the newest block of a network with a block every ten minutes may be: as long a wait comes once in 10^15 blocks.
pub const MAX_BLOCK_AGE: Duration = Duration::from_secs(6 * 3_600);

const MS_PER_S: u64 = 1_000;
const S_PER_DAY: u64 = 86_400;

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The start of 1970: before everything.
    pub const EPOCH: Self = Self(0);

    /// The point `ms` milliseconds after the epoch.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, the unit of block times.
    #[must_use]
    pub const fn secs(self) -> u64 {
        self.0 / MS_PER_S
    }

    /// The point `span` later, `None` beyond the end of time; parts of a millisecond are dropped.
    #[must_use]
    pub fn checked_add(self, span: Duration) -> Option<Self> {
        u64::try_from(span.as_millis()).ok().and_then(|ms| self.0.checked_add(ms)).map(Self)
    }

    /// The point `span` later, at most the end of time.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        self.checked_add(span).unwrap_or(Self(u64::MAX))
    }

    /// The point `span` earlier, `None` before the epoch; parts of a millisecond are dropped.
    #[must_use]
    pub fn checked_sub(self, span: Duration) -> Option<Self> {
        u64::try_from(span.as_millis()).ok().and_then(|ms| self.0.checked_sub(ms)).map(Self)
    }

    /// The point `span` earlier, at least the epoch.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        self.checked_sub(span).unwrap_or(Self::EPOCH)
    }

    /// How long after `earlier` this is, zero when it is not: clocks are set back.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// How a clock can't be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// It is late by this much at least.
    Late(Duration),
    /// It is ahead by about this much, unless no block was found in all that time.
    Ahead(Duration),
}

/// Judges the clock that says `now` by the time of the newest block; `paced` where blocks come every ten minutes, and not
/// when somebody wants one.
#[must_use]
pub fn skew(now: Timestamp, block: Timestamp, paced: bool) -> Option<Skew> {
    let (late, age) = (block.since(now.saturating_add(MAX_BLOCK_AHEAD)), now.since(block));
    match late > Duration::ZERO {
        true => Some(Skew::Late(late)),
        false => (paced && age > MAX_BLOCK_AGE).then_some(Skew::Ahead(age)),
    }
}

/// Prints UTC as ISO 8601, `2026-11-22T09:30:00.250Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.secs() / S_PER_DAY);
        let second = self.secs() % S_PER_DAY;
        let (hour, minute, second, ms) = (second / 3_600, second / 60 % 60, second % 60, self.0 % MS_PER_S);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar.
///
/// Howard Hinnant's `civil_from_days` for days after the epoch: years begin on 1 March, so that the leap day comes last
/// and the lengths of months follow the straight line `(153 m + 2) / 5`.
#[expect(clippy::arithmetic_side_effects, reason = "days are below 2^38 and each difference is of a part of its whole")]
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_is_printed() {
        let shown = |secs: u64, ms: u64| Timestamp(secs * MS_PER_S + ms).to_string();
        assert_eq!(shown(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(shown(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(shown(951_868_800, 0), "2000-03-01T00:00:00.000Z");
        assert_eq!(shown(4_107_542_400, 7), "2100-03-01T00:00:00.007Z");
        assert_eq!(shown(1_795_339_800, 250), "2026-11-22T09:30:00.250Z");
        assert!(Timestamp(u64::MAX).to_string().ends_with('Z'));
    }

    #[test]
    fn a_clock_is_judged_by_the_newest_block() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let block = Timestamp::from_ms(1_795_339_800_000);
        for paced in [false, true] {
            assert_eq!(skew(block, block, paced), None);
            assert_eq!(skew(block.saturating_sub(MAX_BLOCK_AHEAD), block, paced), None);
            assert_eq!(skew(block.saturating_sub(hours(24)), block, paced), Some(Skew::Late(hours(22))));
            assert_eq!(skew(block.saturating_add(MAX_BLOCK_AGE), block, paced), None);
        }
        let later = block.saturating_add(hours(24 * 30));
        assert_eq!(skew(later, block, true), Some(Skew::Ahead(hours(24 * 30))));
        assert_eq!(skew(later, block, false), None, "regtest stands still as long as it likes");
    }

    #[test]
    fn time_stops_at_its_ends() {
        let (late, span) = (Timestamp(u64::MAX), Duration::from_secs(1));
        assert_eq!(late.checked_add(span), None);
        assert_eq!(late.saturating_add(Duration::MAX), late);
        assert_eq!(Timestamp(999).checked_sub(span), None);
        assert_eq!(Timestamp(999).saturating_sub(span), Timestamp::EPOCH);
        assert_eq!(Timestamp(1_500).since(Timestamp(500)), span);
        assert_eq!(Timestamp(500).since(Timestamp(1_500)), Duration::ZERO);
    }
}
