use std::fs;

use bitcoin::{FeeRate, Transaction, Txid};

use super::*;
use crate::addresses::{ADDRESS_HOLD_BLOCKS, AddressError, PayeeRef};
use crate::payments::{Fee, PayError, Payment, PaymentId, PaymentState, Terms};
use crate::tests::{Feed, stranger};

const FEE: Fee =
    Fee { rate: FeeRate::from_sat_per_vb_u32(2), ceiling: FeeRate::from_sat_per_vb_u32(100), max_sat: 100_000 };
/// Until when an address is held that is not to be another's: longer than any test.
const FOREVER_MS: u64 = 1 << 50;

fn terms(id: u8) -> Terms {
    Terms { id: PaymentId([id; 32]), address: stranger(), sat: 10_000 }
}

fn pay(feed: &mut Feed, id: u8) -> Result<Payment, PayError> {
    let now_ms = feed.now_ms();
    feed.state.pay_all(&[terms(id)], &FEE, now_ms).map(|mut paid| paid.remove(0))
}

fn transaction(feed: &Feed, txid: Option<Txid>) -> Transaction {
    feed.state.live_transaction(txid.unwrap()).unwrap().unwrap().as_ref().clone()
}

fn address_for(feed: &mut Feed, payee: u8, expires_ms: u64) -> Result<bitcoin::Address, AddressError> {
    let now_ms = feed.now_ms();
    feed.state.address_for(PayeeRef([payee; 32]), expires_ms, now_ms)
}

#[test]
fn nothing_is_signed_or_given_out_until_the_chain_was_searched() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let (known, owners) = (pay(&mut feed, 1).unwrap(), feed.state.receive_address().unwrap());
    let held = address_for(&mut feed, 1, FOREVER_MS).unwrap();
    let copy = feed.copy();
    let mut feed = feed.back_from(copy).reopen();
    assert!(matches!(pay(&mut feed, 2), Err(PayError::Restoring)));
    assert!(matches!(address_for(&mut feed, 2, FOREVER_MS), Err(AddressError::Restoring)));
    assert!(feed.state.bump(known.txid.unwrap(), None, &FEE, 0).is_err());
    // What stands already is told.
    assert_eq!(pay(&mut feed, 1).unwrap(), known);
    assert_eq!(address_for(&mut feed, 1, FOREVER_MS).unwrap(), held);
    assert_eq!(feed.state.receive_address().unwrap(), owners);
    feed.state.end_search().unwrap();
    pay(&mut feed, 2).unwrap();
    address_for(&mut feed, 2, FOREVER_MS).unwrap();
}

#[test]
fn a_payment_that_the_copy_does_not_know_is_found_and_not_made_again() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let copy = feed.copy();
    let lost = pay(&mut feed, 1).unwrap();
    let tx = transaction(&feed, lost.txid);
    let mut feed = feed.back_from(copy);
    feed.mine(&[&tx]);
    feed.state.end_search().unwrap();
    let now_ms = feed.now_ms();
    let found = feed.state.adopt(&terms(1), now_ms).unwrap().unwrap();
    assert_eq!((found.txid, found.vout, found.fee_sat), (lost.txid, lost.vout, lost.fee_sat));
    assert_eq!(found.state, PaymentState::Confirmed { height: 2, depth: 1 });
    assert_eq!(pay(&mut feed, 1).unwrap(), found);
    // It is one payment's, and another that is alike is made.
    assert_eq!(feed.state.adopt(&terms(2), now_ms).unwrap(), None);
    assert_ne!(pay(&mut feed, 2).unwrap().txid, lost.txid);
}

#[test]
fn a_payment_that_was_bumped_since_is_its_newest_version() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let first = pay(&mut feed, 1).unwrap();
    let copy = feed.copy();
    let bump = feed.state.bump(first.txid.unwrap(), None, &FEE, 0).unwrap();
    let tx = transaction(&feed, bump.txid);
    let mut feed = feed.back_from(copy);
    feed.mine(&[&tx]);
    assert!(matches!(feed.state.payment(first.id).unwrap().unwrap().state, PaymentState::Conflicted { .. }));
    feed.state.end_search().unwrap();
    let payment = feed.state.payment(first.id).unwrap().unwrap();
    assert_eq!((payment.txid, payment.fee_sat), (bump.txid, Some(bump.fee_sat)));
    assert_eq!(payment.state, PaymentState::Confirmed { height: 2, depth: 1 });
}

#[test]
fn an_address_goes_to_nobody_else_and_back_to_whom_it_was_given() {
    let mut feed = Feed::new();
    let (held, expired) = (address_for(&mut feed, 2, FOREVER_MS).unwrap(), address_for(&mut feed, 1, 0).unwrap());
    let copy = feed.copy();
    let height = ADDRESS_HOLD_BLOCKS + 2;
    feed.blocks_of(height - 1);
    assert_eq!(address_for(&mut feed, 3, FOREVER_MS).unwrap(), expired, "the copy takes it for the first one's");
    let later = address_for(&mut feed, 4, FOREVER_MS).unwrap();
    let gifts = [&expired, &held, &later].map(|to| feed.gift(to, 1_000));
    let mut feed = feed.back_from(copy);
    let absorbed = feed.mine(&[&gifts[0], &gifts[1], &gifts[2]]);
    assert_eq!(feed.state.recent_incoming(height, 0).unwrap().len(), 1, "only the held one counts: {absorbed:?}");
    let early = feed.state.claim_address(PayeeRef([3; 32]), &expired, height);
    assert!(!early.unwrap(), "not while the chain is being searched");
    feed.state.end_search().unwrap();
    let mut claim = |payee: u8, address: &bitcoin::Address, height| {
        feed.state.claim_address(PayeeRef([payee; 32]), address, height).unwrap()
    };
    assert!(!claim(3, &expired, height - 1), "it was paid later than the first one's time");
    assert!(claim(3, &expired, height) && claim(3, &expired, height));
    assert!(!claim(1, &expired, height) && !claim(4, &held, height) && !claim(5, &stranger(), height));
    assert!(claim(2, &held, height) && claim(4, &later, height));
    feed.mine(&[]);
    let payees: Vec<u8> =
        feed.state.recent_incoming(height + 1, 0).unwrap().iter().map(|paid| paid.payee.0[0]).collect();
    assert_eq!((payees.len(), payees.contains(&3), payees.contains(&4)), (3, true, true));
    let free = address_for(&mut feed, 6, FOREVER_MS).unwrap();
    let index = feed.state.wallet.spk_index().index_of_spk(free.script_pubkey()).unwrap().1;
    assert!(index >= PASSED_OVER, "{index}: what may have been given out is passed over");
}

#[test]
fn what_is_no_wallet_of_these_words_does_not_revive() {
    let feed = Feed::new();
    let (copy, words) = (feed.copy(), crate::Words::generate().unwrap());
    let revived = |dir: &Path, keys| revive(dir, Network::Regtest, keys, 0);
    assert!(matches!(revived(copy.path(), words.keys()), Err(OpenError::OtherWords)));
    let file = copy.path().join("wallet.sqlite");
    let mut bytes = fs::read(&file).unwrap();
    bytes[5_000..9_000].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    assert!(revived(copy.path(), words.keys()).is_err());
}
