//! Rate limits: of one thing in one number, and of all peers in one bounded map.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p_identity::PeerId;

use crate::time::Timestamp;

/// The most peers whose rates are remembered: ten times as many as can be connected.
const MAX_PEERS: usize = 4_096;

/// How often something may happen: once `every` so often, and up to `burst` times at once.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The mean distance of two events.
    pub every: Duration,
    /// How many may come at once after a long rest.
    pub burst: u32,
}

/// How much of a limit is used up, as the time at which none of it is: the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    rested_at: Timestamp,
}

impl Rate {
    /// Nothing used up.
    pub(crate) const FRESH: Self = Self { rested_at: Timestamp::EPOCH };

    /// The rate after one more event at `now`, `None` when that is one too many.
    ///
    /// A rate that is further used up than it can be was noted before the clock was set back; it starts afresh.
    pub(crate) fn spend(self, now: Timestamp, limit: Limit) -> Option<Self> {
        let exhausted = now.saturating_add(limit.every.saturating_mul(limit.burst));
        let used = if self.rested_at > exhausted { now } else { self.rested_at.max(now) };
        let rested_at = used.saturating_add(limit.every);
        (rested_at <= exhausted).then_some(Self { rested_at })
    }

    /// How long it is until one more event may be.
    fn wait(self, now: Timestamp, limit: Limit) -> Duration {
        match self.spend(now, limit) {
            Some(_) => Duration::ZERO,
            None => self
                .rested_at
                .saturating_add(limit.every)
                .since(now.saturating_add(limit.every.saturating_mul(limit.burst))),
        }
    }

    /// Whether nothing of it is used up any more.
    const fn is_rested(self, now: Timestamp) -> bool {
        self.rested_at.ms() <= now.ms()
    }
}

/// One limit for each peer on its own.
#[derive(Clone, Debug)]
pub struct PeerRates {
    limit: Limit,
    rates: BTreeMap<PeerId, Rate>,
}

impl PeerRates {
    /// Nothing used up by anybody.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        Self { limit, rates: BTreeMap::new() }
    }

    /// Counts one more event of a peer; whether it may be.
    ///
    /// Beyond 4,096 busy peers all start afresh: new identities are free, so those of a crowd must not lock out
    /// everybody else.
    pub fn spend(&mut self, now: Timestamp, peer: PeerId) -> bool {
        if self.rates.len() >= MAX_PEERS && !self.rates.contains_key(&peer) {
            self.rates.retain(|_, rate| !rate.is_rested(now));
            if self.rates.len() >= MAX_PEERS {
                self.rates.clear();
            }
        }
        let spent = self.rates.get(&peer).copied().unwrap_or(Rate::FRESH).spend(now, self.limit);
        let allowed = spent.is_some();
        if let Some(rate) = spent {
            self.rates.insert(peer, rate);
        }
        allowed
    }

    /// How long it is until one more event of a peer may be, at most [`Limit::every`].
    #[must_use]
    pub fn wait(&self, now: Timestamp, peer: &PeerId) -> Duration {
        self.rates.get(peer).copied().unwrap_or(Rate::FRESH).wait(now, self.limit)
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
    fn who_has_used_all_up_waits_for_one_more() {
        let now = Timestamp::from_ms(1 << 40);
        assert_eq!(Rate::FRESH.wait(now, LIMIT), Duration::ZERO);
        let (_, rate) = events_within(Rate::FRESH, now);
        let wait = rate.wait(now, LIMIT);
        assert_eq!(wait, LIMIT.every);
        assert_eq!(rate.wait(now.saturating_add(wait), LIMIT), Duration::ZERO);
        assert!(rate.spend(now.saturating_add(wait), LIMIT).is_some());
    }

    #[test]
    fn a_clock_set_back_blocks_nobody() {
        let now = Timestamp::from_ms(1 << 40);
        let (_, rate) = events_within(Rate::FRESH, now);
        assert_eq!(events_within(rate, Timestamp::from_ms(1 << 30)).0, LIMIT.burst);
    }

    #[test]
    fn each_peer_has_its_own_rate_and_a_crowd_is_bounded() {
        let peer = |n: usize| PeerId::from_bytes(&[&[0, 8], n.to_be_bytes().as_slice()].concat()).unwrap();
        let now = Timestamp::from_ms(1 << 40);
        let mut rates = PeerRates::new(LIMIT);
        assert_eq!((0..10).filter(|_| rates.spend(now, peer(0))).count(), 3);
        for n in 1..3 * MAX_PEERS {
            assert!(rates.spend(now, peer(n)));
            assert!(rates.rates.len() <= MAX_PEERS);
        }
        let later = now.saturating_add(LIMIT.every * 10);
        (0..=MAX_PEERS).for_each(|n| assert!(rates.spend(later, peer(n))));
    }
}
