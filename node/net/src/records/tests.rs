//! The quotas of the record store, against strangers that try to use it up.

use std::collections::HashSet;

use super::*;

fn records(limits: Limits) -> (Records, PeerId) {
    let local = PeerId::random();
    let mut state = 7_u64;
    let random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (Records::new(local, limits, Box::new(random)), local)
}

fn key(n: u64) -> RecordKey {
    RecordKey::new(blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn far(n: u32) -> Option<IpAddr> {
    Some(IpAddr::from((0x0900_0000 + (n << 8)).to_be_bytes()))
}

fn told(records: &Records, key: &RecordKey) -> HashSet<PeerId> {
    records.providers(key).into_iter().map(|record| record.provider).collect()
}

/// The counts agree with what is held, whatever happened before.
fn assert_counts(records: &Records) {
    let held: usize = records.keys.values().map(|slot| slot.held.len()).sum();
    assert_eq!(held, records.total);
    assert_eq!(held, records.peers.values().map(|provider| provider.records).sum::<usize>());
    assert_eq!(records.drawn.len(), records.keys.len());
    for (place, key) in records.drawn.iter().enumerate() {
        assert_eq!(records.keys[key].place, place);
    }
}

#[test]
fn strangers_dont_crowd_out_own_keys() {
    let (mut records, local) = records(Limits { records: 100, ..Limits::default() });
    let now = Instant::now();
    for n in 0..5000_u32 {
        let _ = records.admit(&key(u64::from(n % 300)), PeerId::random(), far(n), now);
    }
    for n in 0..300 {
        records.add_provider(ProviderRecord::new(key(n), local, vec![])).unwrap();
        assert_eq!(records.providers(&key(n)).first().map(|record| record.provider), Some(local));
    }
    assert_eq!(records.total, 100);
    assert_counts(&records);
}

#[test]
fn a_key_keeps_200_and_tells_20_each_in_turn() {
    let (mut records, _) = records(Limits::default());
    let now = Instant::now();
    let early: Vec<PeerId> = (0..200).map(|_| PeerId::random()).collect();
    for (n, peer) in (0..).zip(&early) {
        records.admit(&key(1), *peer, far(n), now).unwrap();
    }
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let answer = told(&records, &key(1));
        assert_eq!(answer.len(), MAX_PROVIDERS_TOLD);
        seen.extend(answer);
    }
    assert_eq!(seen.len(), 200, "ten answers of twenty tell everybody");
    for n in 0..200 {
        records.admit(&key(1), PeerId::random(), far(1000 + n), now).unwrap();
    }
    let held: HashSet<PeerId> = records.held_of(&key(1)).iter().map(|held| held.peer).collect();
    let survivors = early.iter().filter(|peer| held.contains(peer)).count();
    assert_eq!(held.len(), MAX_PROVIDERS_PER_KEY);
    assert!((30..170).contains(&survivors), "eviction is random, {survivors} of 200 survived");
    assert_counts(&records);
}

#[test]
fn a_peer_and_a_subnet_have_quotas() {
    let (mut records, _) = records(Limits { records_per_peer: 3, records_per_subnet: 5, ..Limits::default() });
    let (now, greedy) = (Instant::now(), PeerId::random());
    for n in 0..3 {
        records.admit(&key(n), greedy, far(1), now).unwrap();
    }
    assert_eq!(records.admit(&key(3), greedy, far(1), now), Err(Refused::Peer));
    assert_eq!(records.admit(&key(0), greedy, far(1), now), Ok(()), "a renewal is no new record");
    let sybil = PeerId::random();
    records.admit(&key(0), sybil, far(1), now).unwrap();
    records.admit(&key(1), sybil, far(1), now).unwrap();
    assert_eq!(records.admit(&key(2), sybil, far(1), now), Err(Refused::Subnet));
    assert_eq!(records.admit(&key(2), PeerId::random(), far(2), now), Ok(()));
    assert_eq!(records.admit(&RecordKey::new(b"short"), sybil, far(3), now), Err(Refused::Key));
    assert_counts(&records);
}

#[test]
fn near_machines_have_no_subnet_quota() {
    let (mut records, _) = records(Limits { records_per_subnet: 1, ..Limits::default() });
    for n in 0..10 {
        records.admit(&key(n), PeerId::random(), Some(IpAddr::from([127, 0, 0, 1])), Instant::now()).unwrap();
    }
}

#[test]
fn records_expire_unless_renewed() {
    let (mut records, _) = records(Limits::default());
    let (start, faithful, gone) = (Instant::now(), PeerId::random(), PeerId::random());
    records.admit(&key(1), faithful, far(1), start).unwrap();
    records.admit(&key(1), gone, far(2), start).unwrap();
    records.admit(&key(1), faithful, far(1), start + RECORD_TTL / 3).unwrap();
    records.purge(start + RECORD_TTL);
    assert_eq!(told(&records, &key(1)), HashSet::from([faithful]));
    records.purge(start + RECORD_TTL * 2);
    assert!(records.keys.is_empty() && records.peers.is_empty());
    assert_counts(&records);
}

#[test]
fn addresses_are_told_with_every_key_of_the_peer() {
    let (mut records, _) = records(Limits::default());
    let peer = PeerId::random();
    records.admit(&key(1), peer, far(1), Instant::now()).unwrap();
    records.admit(&key(2), peer, far(1), Instant::now()).unwrap();
    let addr: Multiaddr = "/ip4/9.9.9.9/tcp/1".parse().unwrap();
    records.set_addrs(&peer, std::slice::from_ref(&addr));
    records.set_addrs(&PeerId::random(), std::slice::from_ref(&addr));
    for n in [1, 2] {
        assert_eq!(records.providers(&key(n))[0].addresses, std::slice::from_ref(&addr));
    }
    assert_eq!(records.peers.len(), 1, "addresses of peers that provide nothing are not kept");
}

#[test]
fn values_are_refused() {
    let (mut records, _) = records(Limits::default());
    assert!(records.put(Record::new(key(1), vec![1])).is_err());
    assert!(records.get(&key(1)).is_none());
}
