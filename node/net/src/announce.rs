//! When each key that this node provides is announced, first and again.
//!
//! kad's own republishing is off: it would not notice that a key was announced to nobody because the node had no
//! peers yet, and it puts no bound on announcements of many new keys at once. A plain value without IO.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

/// A content root or a service key.
pub(crate) type Key = [u8; 32];

/// A record is announced again after this; well before it expires at its holders.
pub(crate) const REPUBLISH: Duration = Duration::from_secs(8 * 60 * 60);
/// The same while fewer than [`ENOUGH_TOLD`] peers hold it: a young network still grows past the first holders.
const REPUBLISH_SPARSE: Duration = Duration::from_secs(10 * 60);
/// A key that nobody could be told of is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// kad's replication factor.
const ENOUGH_TOLD: u32 = 20;
/// Announcements in progress; each asks about 20 peers.
const MAX_IN_PROGRESS: usize = 16;

/// The keys and when each is due.
#[derive(Default)]
pub(crate) struct Announcer {
    due: BTreeSet<(Instant, Key)>,
    when: HashMap<Key, Instant>,
    in_progress: HashSet<Key>,
}

impl Announcer {
    /// Announces `key` from now on.
    pub(crate) fn add(&mut self, key: Key, now: Instant) {
        self.remove(&key);
        self.when.insert(key, now);
        self.due.insert((now, key));
    }

    /// Announces `key` no more; what others hold of it expires there.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(at) = self.when.remove(key) {
            self.due.remove(&(at, *key));
        }
    }

    /// The next key to announce, if one is due and there is room; its end is told by [`Self::handle_told`].
    #[must_use]
    pub(crate) fn poll_due(&mut self, now: Instant) -> Option<Key> {
        let (at, key) = *self.due.first()?;
        if at > now || self.in_progress.len() >= MAX_IN_PROGRESS {
            return None;
        }
        self.due.pop_first();
        self.in_progress.insert(key);
        Some(key)
    }

    /// Notes that the announcement of `key` ended after it reached `told` peers.
    pub(crate) fn handle_told(&mut self, key: &Key, told: u32, now: Instant) {
        let again = match told {
            0 => RETRY,
            told if told < ENOUGH_TOLD => REPUBLISH_SPARSE,
            _ => REPUBLISH,
        };
        if self.in_progress.remove(key) && self.when.contains_key(key) {
            self.add(*key, now + again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_announced_until_somebody_heard_and_then_every_eight_hours() {
        let (mut announcer, now) = (Announcer::default(), Instant::now());
        announcer.add([1; 32], now);
        assert_eq!(announcer.poll_due(now), Some([1; 32]));
        assert_eq!(announcer.poll_due(now), None, "it is in progress");
        announcer.handle_told(&[1; 32], 0, now);
        assert_eq!(announcer.poll_due(now), None);
        assert_eq!(announcer.poll_due(now + RETRY), Some([1; 32]));
        announcer.handle_told(&[1; 32], 3, now);
        assert_eq!(announcer.poll_due(now + REPUBLISH_SPARSE), Some([1; 32]));
        announcer.handle_told(&[1; 32], ENOUGH_TOLD, now);
        assert_eq!(announcer.poll_due(now + REPUBLISH_SPARSE), None);
        assert_eq!(announcer.poll_due(now + REPUBLISH), Some([1; 32]));
    }

    #[test]
    fn a_removed_key_is_not_announced_again() {
        let (mut announcer, now) = (Announcer::default(), Instant::now());
        announcer.add([1; 32], now);
        assert_eq!(announcer.poll_due(now), Some([1; 32]));
        announcer.remove(&[1; 32]);
        announcer.handle_told(&[1; 32], 20, now);
        assert_eq!(announcer.poll_due(now + REPUBLISH), None);
    }

    #[test]
    fn many_keys_are_announced_a_few_at_a_time() {
        let (mut announcer, now) = (Announcer::default(), Instant::now());
        (0..100).for_each(|n| announcer.add([n; 32], now));
        let started: Vec<Key> = std::iter::from_fn(|| announcer.poll_due(now)).collect();
        assert_eq!(started.len(), MAX_IN_PROGRESS);
        started.iter().for_each(|key| announcer.handle_told(key, 20, now));
        assert_eq!(std::iter::from_fn(|| announcer.poll_due(now)).count(), MAX_IN_PROGRESS);
    }
}
