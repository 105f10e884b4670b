use std::collections::HashSet;

use super::*;
use crate::tests::{Feed, spend, stranger};

const RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);

fn terms(id: u8, sat: u64) -> Terms {
    Terms { id: PaymentId([id; 32]), address: stranger(), sat, max_fee_sat: 1_000 }
}

fn pay(feed: &mut Feed, terms: &Terms) -> Result<Payment, PayError> {
    let now_ms = feed.now_ms();
    feed.state.pay(terms, RATE, now_ms)
}

fn transaction(feed: &Feed, id: u8) -> Transaction {
    feed.state.live_transaction(PaymentId([id; 32])).unwrap().unwrap().as_ref().clone()
}

fn state(feed: &Feed, id: u8) -> PaymentState {
    feed.state.payment(PaymentId([id; 32])).unwrap().unwrap().state
}

#[test]
fn an_id_is_paid_once() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let first = pay(&mut feed, &terms(1, 10_000)).unwrap();
    assert_eq!(first.state, PaymentState::Signed);
    assert_eq!(first.fee_sat, Some(281), "140.25 vB at 2 sat/vB");
    let mut feed = feed.reopen();
    assert_eq!(pay(&mut feed, &terms(1, 10_000)).unwrap(), first);
    assert_eq!(feed.state.live_transactions().unwrap().len(), 1);
    let other = pay(&mut feed, &terms(1, 10_001)).unwrap_err();
    assert!(matches!(other, PayError::OtherTerms { sat: 10_000, .. }), "{other}");
}

#[test]
fn what_cannot_be_paid_leaves_nothing_behind() {
    let mut feed = Feed::new();
    feed.fund(20_000);
    let short = pay(&mut feed, &terms(1, 50_000)).unwrap_err();
    assert!(matches!(short, PayError::Short { have_sat: 20_000, need_sat } if need_sat > 50_000), "{short}");
    let short = pay(&mut feed, &terms(1, u64::MAX)).unwrap_err();
    assert!(matches!(short, PayError::Short { have_sat: 20_000, need_sat: u64::MAX }), "{short}");
    let dear = pay(&mut feed, &Terms { max_fee_sat: 280, ..terms(1, 10_000) }).unwrap_err();
    assert!(matches!(dear, PayError::FeeAboveLimit { fee_sat: 281, max_fee_sat: 280 }), "{dear}");
    assert!(matches!(pay(&mut feed, &terms(1, 293)), Err(PayError::Dust { min_sat: 294 })));
    let signet = Network::Signet.parse_address("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx").unwrap();
    let elsewhere = pay(&mut feed, &Terms { address: signet, ..terms(1, 10_000) }).unwrap_err();
    assert!(matches!(elsewhere, PayError::OtherNetwork { expected: Network::Regtest }), "{elsewhere}");
    assert_eq!(feed.state.payment(PaymentId([1; 32])).unwrap(), None);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
}

#[test]
fn a_fee_is_known_before_there_are_coins() {
    let mut feed = Feed::new();
    assert_eq!(feed.state.estimate_fee(10_000, RATE).unwrap(), 282);
    for _ in 0..2 {
        feed.fund(10_000);
    }
    let two_coins = feed.state.estimate_fee(15_000, RATE).unwrap();
    assert!((2 * 200..2 * 220).contains(&two_coins), "{two_coins}");
    assert_eq!(feed.state.wallet.derivation_index(bdk_wallet::KeychainKind::Internal), None, "nothing was used up");
}

#[test]
fn no_coin_is_chosen_twice_whatever_the_server_says() {
    let mut feed = Feed::new();
    for _ in 0..5 {
        feed.fund(100_000);
    }
    let mut spent = HashSet::new();
    for id in 1..=40 {
        pay(&mut feed, &terms(id, 10_000)).unwrap();
        let tx = transaction(&feed, id);
        for input in &tx.input {
            assert!(spent.insert(input.previous_output), "payment {id} spends {} again", input.previous_output);
        }
        feed.evict(&tx);
    }
}

#[test]
fn strangers_coins_wait_for_a_block_and_own_change_does_not() {
    let mut feed = Feed::new();
    let address = feed.state.receive_address().unwrap();
    let gift = feed.gift(&address, 50_000);
    feed.show(&[&gift]);
    assert!(matches!(pay(&mut feed, &terms(1, 10_000)), Err(PayError::Short { have_sat: 0, .. })));
    feed.mine(&[&gift]);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    pay(&mut feed, &terms(2, 10_000)).unwrap();
    let parent = transaction(&feed, 1).compute_txid();
    assert_eq!(transaction(&feed, 2).input[0].previous_output.txid, parent);
}

#[test]
fn a_payment_goes_from_signed_to_final_and_back() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    let tx = transaction(&feed, 1);
    feed.mine(&[]);
    assert_eq!(state(&feed, 1), PaymentState::Signed, "no server named it yet");
    feed.show(&[&tx]);
    assert_eq!(state(&feed, 1), PaymentState::Broadcast);
    feed.evict(&tx);
    assert_eq!(state(&feed, 1), PaymentState::Broadcast, "it is sent again");
    for depth in 1..FINAL_DEPTH {
        if depth == 1 {
            feed.mine(&[&tx])
        } else {
            feed.mine(&[])
        };
        assert_eq!(state(&feed, 1), PaymentState::Confirmed { height: 3, depth });
    }
    feed.mine(&[]);
    assert_eq!(state(&feed, 1), PaymentState::Final { height: 3 });
    assert_eq!(feed.state.live_transactions().unwrap(), []);
    assert!(feed.reorg(FINAL_DEPTH as usize).reorged);
    assert_eq!(state(&feed, 1), PaymentState::Broadcast);
    assert_eq!(feed.state.live_transactions().unwrap().len(), 1, "to be sent again");
}

#[test]
fn coins_spent_elsewhere_end_a_payment() {
    let mut feed = Feed::new();
    let coin = feed.fund(100_000);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    let rival = spend(OutPoint::new(coin.compute_txid(), 0), &stranger(), 90_000);
    let by = rival.compute_txid();
    feed.show(&[&rival]);
    assert_eq!(state(&feed, 1), PaymentState::Replaced { by });
    feed.mine(&[&rival]);
    assert_eq!(state(&feed, 1), PaymentState::Conflicted { by });
    assert_eq!(feed.state.reserved_sat().unwrap(), 0);
    feed.reorg(1);
    assert_ne!(state(&feed, 1), PaymentState::Conflicted { by });
}
