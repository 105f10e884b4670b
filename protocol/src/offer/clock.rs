//! When a seller signs its next offer.

use std::time::Duration;

use super::MAX_LIFETIME;
use crate::time::Timestamp;

/// How long after one offer the next is due, if nothing changes.
const REFRESH: Duration = Duration::from_secs(40 * 60);
/// How far a refresh may be from that, either way: sellers started together must not shout together.
const JITTER: Duration = Duration::from_secs(5 * 60);
/// How long after one offer the next may come at the earliest: others ignore a seller that is faster.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// Says when the next offer is due, and stamps it.
#[derive(Clone, Debug)]
pub struct OfferClock {
    last: Option<Stamp>,
    due: Timestamp,
}

/// What sets one offer of a seller apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Above that of every earlier offer, also of earlier runs, since it is never behind the time of signing.
    pub sequence: u64,
    /// The time of signing.
    pub issued: Timestamp,
    /// The end of the longest life an offer may have.
    pub expires: Timestamp,
}

impl OfferClock {
    /// A clock whose first offer is due at once.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { last: None, due: now }
    }

    /// When the next offer is due: at once if the system's clock was set back behind the last one.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Timestamp {
        if self.last.is_some_and(|last| now < last.issued) { now } else { self.due }
    }

    /// Notes that prices, addresses or titles changed: the next offer is due as soon as the rate limit allows.
    pub fn changed(&mut self, now: Timestamp) {
        let allowed = self.last.map_or(now, |last| last.issued.saturating_add(MIN_INTERVAL));
        self.due = self.due.min(allowed.max(now));
    }

    /// Stamps the offer that is signed now, and sets the time of the next by any random number.
    pub fn stamp(&mut self, now: Timestamp, random: u64) -> Stamp {
        let after_last = self.last.map_or(0, |last| last.sequence.saturating_add(1));
        let stamp =
            Stamp { sequence: now.ms().max(after_last), issued: now, expires: now.saturating_add(MAX_LIFETIME) };
        self.last = Some(stamp);
        self.due = now.saturating_add(REFRESH.saturating_sub(JITTER)).saturating_add(jitter(random));
        stamp
    }
}

/// A part of twice [`JITTER`], in steps of a second.
fn jitter(random: u64) -> Duration {
    Duration::from_secs(random.checked_rem(JITTER.saturating_mul(2).as_secs()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    #[test]
    fn offers_are_refreshed_before_they_end() {
        let mut clock = OfferClock::new(START);
        assert_eq!(clock.due(START), START);
        for random in [0, 1, 599, 600, u64::MAX] {
            let stamp = clock.stamp(START, random);
            let wait = clock.due(START).since(START);
            assert!(wait >= Duration::from_secs(35 * 60) && wait < Duration::from_secs(45 * 60), "{wait:?}");
            assert_eq!(stamp.expires.since(stamp.issued), MAX_LIFETIME);
        }
    }

    #[test]
    fn a_change_waits_for_the_rate_limit_only() {
        let mut clock = OfferClock::new(START);
        clock.changed(START);
        assert_eq!(clock.due(START), START);
        clock.stamp(START, 0);
        clock.changed(START.saturating_add(Duration::from_secs(1)));
        assert_eq!(clock.due(START), START.saturating_add(MIN_INTERVAL));
        let later = START.saturating_add(Duration::from_secs(90));
        clock.stamp(START, 0);
        clock.changed(later);
        assert_eq!(clock.due(START), later);
    }

    #[test]
    fn sequences_grow_whatever_the_clock_does() {
        let mut clock = OfferClock::new(START);
        let first = clock.stamp(START, 0);
        let second = clock.stamp(START, 0);
        assert!(second.sequence > first.sequence);
        let set_back = START.saturating_sub(Duration::from_secs(86_400));
        assert_eq!(clock.due(set_back), set_back);
        assert!(clock.stamp(set_back, 0).sequence > second.sequence);
        assert!(clock.due(set_back) < START);
        let next_run = OfferClock::new(START).stamp(START.saturating_add(MIN_INTERVAL), 0);
        assert!(next_run.sequence > second.sequence);
    }
}
