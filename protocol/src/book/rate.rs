//! A rate limit in one number.

use std::time::Duration;

use crate::time::Timestamp;

/// How often something may happen: once `every` so often, and up to `burst` times at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// The mean distance of two events.
    pub(super) every: Duration,
    /// How many may come at once after a long rest.
    pub(super) burst: u32,
}

/// How much of a limit is used up, as the time at which none of it is: the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    rested_at: Timestamp,
}

impl Rate {
    /// Nothing used up.
    pub(super) const FRESH: Self = Self { rested_at: Timestamp::EPOCH };

    /// The rate after one more event at `now`, `None` when that is one too many.
    ///
    /// A rate that is further used up than it can be was noted before the clock was set back; it starts afresh.
    pub(super) fn spend(self, now: Timestamp, limit: Limit) -> Option<Self> {
        let exhausted = now.saturating_add(limit.every.saturating_mul(limit.burst));
        let used = if self.rested_at > exhausted { now } else { self.rested_at.max(now) };
        let rested_at = used.saturating_add(limit.every);
        (rested_at <= exhausted).then_some(Self { rested_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { every: Duration::from_secs(60), burst: 3 };

    fn events_within(mut rate: Rate, now: Timestamp) -> (u32, Rate) {
        let mut count = 0;
        while let Some(next) = rate.spend(now, LIMIT) {
            (rate, count) = (next, count + 1);
        }
        (count, rate)
    }

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let now = Timestamp::from_ms(1 << 40);
        let (count, rate) = events_within(Rate::FRESH, now);
        assert_eq!(count, LIMIT.burst);
        let (count, rate) = events_within(rate, now.saturating_add(LIMIT.every));
        assert_eq!(count, 1);
        assert_eq!(events_within(rate, now.saturating_add(LIMIT.every * 10)).0, LIMIT.burst);
    }

    #[test]
    fn a_clock_set_back_blocks_nobody() {
        let now = Timestamp::from_ms(1 << 40);
        let (_, rate) = events_within(Rate::FRESH, now);
        assert_eq!(events_within(rate, Timestamp::from_ms(1 << 30)).0, LIMIT.burst);
    }
}
