use super::*;
use crate::chain::AbsorbError;
use crate::events::EventKey;
use crate::tests::{Feed, spend, stranger};
use bitcoin::{Address, Transaction};

const PAYEE: PayeeRef = PayeeRef([7; 32]);

fn payee_address(feed: &mut Feed) -> Address {
    feed.state.address_for(PAYEE, u64::MAX / 2, 0).unwrap()
}

fn state(feed: &Feed, tx: &Transaction) -> Option<IncomingState> {
    let tip = feed.state.wallet.latest_checkpoint().height();
    let incoming = feed.state.incoming(OutPoint::new(tx.compute_txid(), 0), tip).unwrap()?;
    assert_eq!((incoming.payee, incoming.sat, incoming.tip_height), (PAYEE, 5_000, tip));
    Some(incoming.state)
}

fn depth(feed: &Feed, tx: &Transaction) -> u32 {
    match state(feed, tx) {
        Some(IncomingState::Confirmed { depth, .. }) => depth,
        _ => 0,
    }
}

#[test]
fn a_payment_is_reported_at_each_depth_until_final() {
    let mut feed = Feed::new();
    let to = payee_address(&mut feed);
    let tx = feed.gift(&to, 5_000);
    let key = EventKey::Incoming(OutPoint::new(tx.compute_txid(), 0));
    assert!(feed.show(&[&tx]).changed.contains(&key));
    assert_eq!(state(&feed, &tx), Some(IncomingState::Seen));
    assert!(!feed.show(&[&tx]).changed.contains(&key), "nothing changed");
    for expected in 1..=FINAL_DEPTH {
        let absorbed = if expected == 1 { feed.mine(&[&tx]) } else { feed.mine(&[]) };
        assert!(absorbed.changed.contains(&key));
        assert_eq!(depth(&feed, &tx), expected);
    }
    assert!(!feed.mine(&[]).changed.contains(&key), "final");
    let feed = feed.reopen();
    assert_eq!(depth(&feed, &tx), FINAL_DEPTH);
    assert_eq!(feed.state.recent_incoming(8, feed.now_ms()).unwrap().len(), 1);
}

#[test]
fn a_reorganisation_takes_the_depth_back() {
    for buried in 1..=FINAL_DEPTH {
        let mut feed = Feed::new();
        let to = payee_address(&mut feed);
        let tx = feed.gift(&to, 5_000);
        feed.mine(&[&tx]);
        (1..buried).for_each(|_| drop(feed.mine(&[])));
        assert_eq!(depth(&feed, &tx), buried);
        assert!(feed.reorg(buried as usize).reorged);
        assert_eq!(state(&feed, &tx), Some(IncomingState::Reorged));
        feed.mine(&[&tx]);
        assert_eq!(depth(&feed, &tx), 1);
    }
}

#[test]
fn what_vanishes_or_is_replaced_says_so() {
    let mut feed = Feed::new();
    let to = payee_address(&mut feed);
    let tx = feed.gift(&to, 5_000);
    feed.show(&[&tx]);
    feed.evict(&tx);
    assert_eq!(state(&feed, &tx), Some(IncomingState::Evicted));
    feed.show(&[&tx]);
    assert_eq!(state(&feed, &tx), Some(IncomingState::Seen));

    // The same coin again, to us with another amount: only that one counts now.
    let better = spend(tx.input[0].previous_output, &to, 4_000);
    feed.show(&[&better]);
    assert_eq!(state(&feed, &tx), Some(IncomingState::Replaced { by: better.compute_txid() }));
    let replacement = feed.state.incoming(OutPoint::new(better.compute_txid(), 0), 0).unwrap().unwrap();
    assert_eq!((replacement.payee, replacement.sat, replacement.state), (PAYEE, 4_000, IncomingState::Seen));
}

#[test]
fn only_payees_are_reported_and_coinbases_when_mature() {
    let mut feed = Feed::new();
    let to = payee_address(&mut feed);
    feed.fund(1_000);
    let elsewhere = feed.gift(&stranger(), 1_000);
    feed.show(&[&elsewhere]);
    assert_eq!(feed.state.open_incoming(0).unwrap(), []);

    let coinbase = spend(OutPoint::null(), &to, 5_000);
    feed.mine(&[&coinbase]);
    (2..COINBASE_MATURITY).for_each(|_| drop(feed.mine(&[])));
    assert_eq!(state(&feed, &coinbase), None);
    feed.mine(&[]);
    assert_eq!(depth(&feed, &coinbase), FINAL_DEPTH);
}

#[test]
fn invented_money_is_not_taken_in() {
    let mut feed = Feed::new();
    let to = payee_address(&mut feed);
    let too_much = feed.gift(&to, bitcoin::Amount::MAX_MONEY.to_sat() + 1);
    assert!(matches!(feed.try_show(&[&too_much]), Err(AbsorbError::Implausible)));
    let half = bitcoin::Amount::MAX_MONEY.to_sat() / 2;
    let invented: Vec<_> = (0..3).map(|_| feed.gift(&to, half)).collect();
    assert!(matches!(feed.try_show(&invented.iter().collect::<Vec<_>>()), Err(AbsorbError::Implausible)));
    assert_eq!(feed.state.wallet.balance().total().to_sat(), 0);
    // Little by little neither; and what was taken in is no reason to take in nothing any more.
    feed.show(&[&invented[0], &invented[1]]);
    assert!(matches!(feed.try_show(&[&invented[2]]), Err(AbsorbError::Implausible)));
    feed.evict(&invented[0]);
    feed.evict(&invented[1]);
    assert!(matches!(feed.try_show(&[&invented[0], &invented[1], &invented[2]]), Err(AbsorbError::Implausible)));
    let honest = feed.gift(&to, 1_000);
    feed.mine(&[&honest]);
    assert_eq!(feed.state.wallet.balance().total().to_sat(), 1_000);
}

#[test]
fn what_came_to_an_address_before_it_was_given_is_nobodys_payment() {
    let mut feed = Feed::new();
    // Of words with a past, whose addresses look new until it is found.
    let used = feed.state.wallet.peek_address(KeychainKind::External, 0).address;
    let old = feed.gift(&used, 50_000);
    feed.blocks_of(100);
    let to = payee_address(&mut feed);
    assert_eq!(to, used);
    feed.mine_at(94, &[&old]);
    assert_eq!(feed.state.wallet.balance().total().to_sat(), 50_000);
    assert!(feed.state.incoming(OutPoint::new(old.compute_txid(), 0), 100).unwrap().is_none());
    let new = feed.gift(&to, 5_000);
    feed.mine(&[&new]);
    assert_eq!(depth(&feed, &new), 1);
}
