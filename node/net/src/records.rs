//! Who provides what: the provider records that this node keeps for itself and for others.
//!
//! **Invariant:** strangers can't crowd out this node's own keys (kept apart), nor a peer or a subnet the others
//! (quotas), nor early providers of a key the late ones (random eviction, answers in turn). Value records are refused.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::HashMap,
    iter,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result},
    },
};

use crate::{
    Limits,
    addresses::{Scope, Subnet},
    gates::Tally,
};

/// Bytes of a key: all keys are BLAKE3 hashes.
pub(crate) const KEY_LEN: usize = 32;
/// How long a record of another peer is kept; three times the period of [`REPUBLISH`](crate::announce::REPUBLISH).
pub(crate) const RECORD_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Providers kept of one key; a random one makes room for the next.
const MAX_PROVIDERS_PER_KEY: usize = 200;
/// Providers told in one answer; with eight addresses each they fit kad's packet of 16 KiB.
const MAX_PROVIDERS_TOLD: usize = 20;
/// Keys that this node itself provides.
const MAX_OWN_KEYS: usize = 100_000;

/// Where random numbers come from; tests bring their own.
pub(crate) type Random = Box<dyn FnMut() -> u64 + Send>;

/// The record store that kad asks.
pub(crate) struct Records {
    local: PeerId,
    limits: Limits,
    random: Random,
    own: HashMap<RecordKey, ProviderRecord>,
    keys: HashMap<RecordKey, Slot>,
    /// The keys of `keys` in no order, to draw one at random.
    drawn: Vec<RecordKey>,
    peers: HashMap<PeerId, Provider>,
    by_subnet: Tally<Subnet>,
    total: usize,
}

/// The providers of a key, the key's place in `drawn`, and with whom the next answer begins.
struct Slot {
    place: usize,
    held: Vec<Held>,
    turn: Cell<usize>,
}

/// One provider of a key.
struct Held {
    peer: PeerId,
    expires: Instant,
}

/// What is known of a peer that provides something; its addresses are kept once, not per key.
struct Provider {
    records: usize,
    addrs: Vec<Multiaddr>,
    subnet: Option<Subnet>,
}

/// Why a record of another peer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("a key has 32 bytes")]
    Key,
    #[error("this peer has as many records here as a peer may have")]
    Peer,
    #[error("this subnet has as many records here as a subnet may have")]
    Subnet,
}

impl Records {
    pub(crate) fn new(local: PeerId, limits: Limits, random: Random) -> Self {
        Self {
            local,
            limits,
            random,
            own: HashMap::new(),
            keys: HashMap::new(),
            drawn: Vec::new(),
            peers: HashMap::new(),
            by_subnet: Tally::default(),
            total: 0,
        }
    }

    /// Keeps or renews the record that `peer`, connected from `ip`, announced for itself.
    ///
    /// # Errors
    /// [`Refused`] when the key is none or a quota is used up.
    pub(crate) fn admit(
        &mut self,
        key: &RecordKey,
        peer: PeerId,
        ip: Option<IpAddr>,
        now: Instant,
    ) -> std::result::Result<(), Refused> {
        if key.as_ref().len() != KEY_LEN {
            return Err(Refused::Key);
        }
        let expires = now + RECORD_TTL;
        if let Some(held) = self.held_by(key, &peer) {
            held.expires = expires;
            return Ok(());
        }
        let subnet = self.peers.get(&peer).map_or_else(|| far_subnet(ip), |provider| provider.subnet);
        if self.peers.get(&peer).is_some_and(|provider| provider.records >= self.limits.records_per_peer) {
            return Err(Refused::Peer);
        }
        if subnet.is_some_and(|subnet| self.by_subnet.of(&subnet) >= self.limits.records_per_subnet) {
            return Err(Refused::Subnet);
        }
        self.make_room(key);
        self.insert(key, Held { peer, expires }, subnet);
        Ok(())
    }

    /// Replaces the addresses told of `peer`, if it provides anything here.
    pub(crate) fn set_addrs(&mut self, peer: &PeerId, addrs: &[Multiaddr]) {
        if let Some(provider) = self.peers.get_mut(peer)
            && !addrs.is_empty()
        {
            provider.addrs = addrs.to_vec();
        }
    }

    /// Forgets what has expired.
    pub(crate) fn purge(&mut self, now: Instant) {
        let expired: Vec<(RecordKey, PeerId)> = self
            .keys
            .iter()
            .flat_map(|(key, slot)| slot.held.iter().map(move |held| (key, held)))
            .filter(|(_, held)| held.expires <= now)
            .map(|(key, held)| (key.clone(), held.peer))
            .collect();
        for (key, peer) in expired {
            self.forget(&key, &peer);
        }
    }

    /// Keeps a record of this node's own before it is announced.
    ///
    /// # Errors
    /// [`Error::MaxProvidedKeys`] when there are as many as may be.
    pub(crate) fn add_own(&mut self, key: &[u8; KEY_LEN]) -> Result<()> {
        self.add_provider(ProviderRecord::new(RecordKey::new(key), self.local, Vec::new()))
    }

    /// Records held for others.
    pub(crate) const fn total(&self) -> usize {
        self.total
    }

    fn held_by(&mut self, key: &RecordKey, peer: &PeerId) -> Option<&mut Held> {
        self.keys.get_mut(key)?.held.iter_mut().find(|held| held.peer == *peer)
    }

    fn make_room(&mut self, key: &RecordKey) {
        if self.held_of(key).len() >= MAX_PROVIDERS_PER_KEY {
            self.evict_one_of(key);
        } else if self.total >= self.limits.records {
            let at = self.below(self.drawn.len());
            if let Some(key) = self.drawn.get(at).cloned() {
                self.evict_one_of(&key);
            }
        }
    }

    fn evict_one_of(&mut self, key: &RecordKey) {
        let at = self.below(self.held_of(key).len());
        if let Some(peer) = self.held_of(key).get(at).map(|held| held.peer) {
            self.forget(key, &peer);
        }
    }

    fn insert(&mut self, key: &RecordKey, held: Held, subnet: Option<Subnet>) {
        let unknown = || Provider { records: 0, addrs: Vec::new(), subnet };
        self.peers.entry(held.peer).or_insert_with(unknown).records += 1;
        if let Some(subnet) = subnet {
            self.by_subnet.add(subnet);
        }
        let place = self.drawn.len();
        let slot = self.keys.entry(key.clone()).or_insert_with(|| Slot { place, held: Vec::new(), turn: Cell::new(0) });
        if slot.held.is_empty() {
            self.drawn.push(key.clone());
        }
        slot.held.push(held);
        self.total += 1;
    }

    fn forget(&mut self, key: &RecordKey, peer: &PeerId) {
        let Some(slot) = self.keys.get_mut(key) else { return };
        let Some(at) = slot.held.iter().position(|held| held.peer == *peer) else { return };
        slot.held.swap_remove(at);
        if slot.held.is_empty() {
            let place = slot.place;
            self.keys.remove(key);
            self.drawn.swap_remove(place);
            if let Some(moved) = self.drawn.get(place).and_then(|moved| self.keys.get_mut(moved)) {
                moved.place = place;
            }
        }
        self.total -= 1;
        self.uncount(peer);
    }

    fn uncount(&mut self, peer: &PeerId) {
        let Some(provider) = self.peers.get_mut(peer) else { return };
        if let Some(subnet) = provider.subnet {
            self.by_subnet.remove(&subnet);
        }
        provider.records -= 1;
        if provider.records == 0 {
            self.peers.remove(peer);
        }
    }

    fn held_of(&self, key: &RecordKey) -> &[Held] {
        self.keys.get(key).map_or(&[], |slot| &slot.held)
    }

    /// A random number below `n`, 0 for none.
    fn below(&mut self, n: usize) -> usize {
        let random = (self.random)();
        usize::try_from(random.checked_rem(n as u64).unwrap_or(0)).unwrap_or(0)
    }
}

impl RecordStore for Records {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    /// Keeps a record of this node's own; those of others enter by [`Records::admit`].
    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        let room = self.own.len() < MAX_OWN_KEYS || self.own.contains_key(&record.key);
        if record.provider != self.local || !room {
            return Err(Error::MaxProvidedKeys);
        }
        self.own.insert(record.key.clone(), record);
        Ok(())
    }

    /// This node if it provides `key`, then others in turn, so that each is told equally often.
    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let own = self.own.get(key).cloned();
        let room = MAX_PROVIDERS_TOLD - usize::from(own.is_some());
        let told = self.keys.get(key).into_iter().flat_map(|slot| slot.next(room));
        let told = told.map(|held| ProviderRecord {
            key: key.clone(),
            provider: held.peer,
            expires: Some(held.expires),
            addresses: self.peers.get(&held.peer).map_or_else(Vec::new, |provider| provider.addrs.clone()),
        });
        own.into_iter().chain(told).collect()
    }

    /// Nothing: the announcer republishes, at its own pace.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        if *peer == self.local {
            self.own.remove(key);
        } else {
            self.forget(key, peer);
        }
    }
}

impl Slot {
    /// The next `count` providers in turn.
    fn next(&self, count: usize) -> impl Iterator<Item = &Held> {
        let count = count.min(self.held.len());
        let start = self.turn.get().checked_rem(self.held.len()).unwrap_or(0);
        self.turn.set(start + count);
        self.held.iter().cycle().skip(start).take(count)
    }
}

/// The subnet that a quota counts; near machines have none.
fn far_subnet(ip: Option<IpAddr>) -> Option<Subnet> {
    ip.filter(|ip| !Scope::of(*ip).is_near()).map(Subnet::of)
}

#[cfg(test)]
#[path = "records/tests.rs"]
mod tests;
