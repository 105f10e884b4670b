use super::*;
use crate::tests::Feed;

const HOUR_MS: u64 = 3_600_000;

fn address_for(feed: &mut Feed, payee: u16, expires_ms: u64, now_ms: u64) -> Result<Address, AddressError> {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&payee.to_le_bytes());
    feed.state.address_for(PayeeRef(id), expires_ms, now_ms)
}

#[test]
fn each_payee_keeps_one_address() {
    let mut feed = Feed::new();
    let one = address_for(&mut feed, 1, HOUR_MS, 0).unwrap();
    let two = address_for(&mut feed, 2, HOUR_MS, 0).unwrap();
    let owner = feed.state.receive_address().unwrap();
    assert!(one != two && one != owner && two != owner);
    let mut feed = feed.reopen();
    assert_eq!(address_for(&mut feed, 1, HOUR_MS, 0).unwrap(), one);
    assert_eq!(feed.state.receive_address().unwrap(), owner);
    let gift = feed.gift(&owner, 1_000);
    feed.show(&[&gift]);
    assert_ne!(feed.state.receive_address().unwrap(), owner);
}

#[test]
fn only_what_expired_unpaid_goes_to_another() {
    let mut feed = Feed::new();
    let paid = address_for(&mut feed, 1, HOUR_MS, 0).unwrap();
    let unpaid = address_for(&mut feed, 2, HOUR_MS, 0).unwrap();
    let gift = feed.gift(&paid, 1_000);
    feed.show(&[&gift]);
    feed.evict(&gift);
    // A clock that jumped frees nothing.
    let early = address_for(&mut feed, 3, 9 * HOUR_MS, 99 * HOUR_MS).unwrap();
    feed.blocks_of(ADDRESS_HOLD_BLOCKS + 1);
    let before = address_for(&mut feed, 5, 9 * HOUR_MS, HOUR_MS - 1).unwrap();
    assert!([early, before].iter().all(|other| *other != paid && *other != unpaid));
    assert_eq!(address_for(&mut feed, 4, 9 * HOUR_MS, HOUR_MS).unwrap(), unpaid);
    assert_ne!(address_for(&mut feed, 2, 9 * HOUR_MS, HOUR_MS).unwrap(), unpaid, "its old payee gets a new one");
    assert_eq!(address_for(&mut feed, 1, 9 * HOUR_MS, HOUR_MS).unwrap(), paid);
}

#[test]
fn unpaid_addresses_stay_within_the_gap() {
    let mut feed = Feed::new();
    // The test is about the count: skip 800 syncs of the disk.
    feed.state.db.pragma_update(None, "synchronous", "OFF").unwrap();
    for payee in 0..MAX_UNPAID_ADDRESSES {
        address_for(&mut feed, payee as u16, HOUR_MS, 0).unwrap();
    }
    assert!(matches!(address_for(&mut feed, u16::MAX, HOUR_MS, 0), Err(AddressError::TooMany)));
    feed.blocks_of(ADDRESS_HOLD_BLOCKS + 1);
    address_for(&mut feed, u16::MAX, 2 * HOUR_MS, HOUR_MS).unwrap();
}
