//! The audit finds what can't be, and names it.

use super::hostile::drop_tail;
use super::world::{DEAR, START, World, key};
use crate::account::{Change, Direction, Entry, Line, OutPoint, Payment};
use crate::credit::Rules;
use crate::id::TopUpId;
use crate::market::{Books, Finding, Outgoing, WalletBooks, WalletSays, audit_ledgers};
use crate::money::Msat;
use crate::session::quote::{SignedQuote, SignedReceipt};

/// A world with some trade in it: one stream, ended well, and its last word spoken.
fn traded() -> World {
    let mut world = World::new(2, DEAR, Rules::default());
    world.pay_finally(0, 2_000);
    let stream = world.open(0).unwrap();
    while world.streams[stream].sent < 1 << 20 {
        world.want(stream).unwrap().unwrap();
        world.serve(stream, 64);
    }
    world.end(stream, 0, true);
    world.sync(0);
    world.audit();
    world
}

/// What the audit of the seller says once this change is in its books.
fn after(world: &mut World, buyer: usize, change: Change) -> Vec<Finding> {
    let peer = world.buyers[buyer].id();
    world.seller.market.restore(&Entry { peer, direction: Direction::Sold, change });
    let wallet = world.wallet(world.seller.id());
    audit_ledgers(&[Books { market: &world.seller.market, wallet: Some(&wallet) }])
}

fn a_line(world: &World) -> Line {
    world.sold(0).lines().next().unwrap().clone()
}

#[test]
fn more_signed_than_sent_is_found() {
    let mut world = traded();
    let line = a_line(&world);
    let (signed, receipt) = (line.signed_units(), line.receipt().cloned());
    let found = after(&mut world, 0, Change::Line(line.restored(receipt, signed - 1, true, false)));
    assert!(
        matches!(found[..], [Finding::Counter { more, less, .. }] if (more, less) == (signed, signed - 1)),
        "{found:?}"
    );
}

#[test]
fn a_quote_between_others_is_found() {
    let mut world = traded();
    let line = a_line(&world);
    let found = after(&mut world, 1, Change::Line(line));
    let stranger = world.buyers[1].id();
    assert!(found.iter().any(|f| matches!(f, Finding::Parties { peer, .. } if *peer == stranger)), "{found:?}");
}

#[test]
fn service_that_nobody_paid_is_found() {
    let mut world = traded();
    let mut quote = a_line(&world).quote().quote().clone();
    (quote.buyer, quote.number) = (world.buyers[1].id(), quote.number + 1);
    let quote = SignedQuote::sign(quote, &key(1));
    let receipt = SignedReceipt::sign(quote.id(), 1 << 20, &key(3));
    let line = Line::new(Direction::Sold, quote, START).restored(Some(receipt), 1 << 20, true, false);
    let owed = line.spent();
    let found = after(&mut world, 1, Change::Line(line));
    let peer = world.buyers[1].id();
    assert!(found.iter().any(|f| matches!(f, Finding::Overdrawn { peer: p, owed: o, .. } if (*p, *o) == (peer, owed))));
}

#[test]
fn an_output_that_is_credited_to_two_is_found() {
    let mut world = traded();
    let payment = world.sold(0).payments().next().unwrap().clone();
    let (outpoint, first, second) = (payment.outpoint, world.buyers[0].id(), world.buyers[1].id());
    let found = after(&mut world, 1, Change::Payment(payment));
    let twice = |first, second| Finding::CreditedTwice { outpoint, first, second };
    let both = |f: &Finding| [twice(first, second), twice(second, first)].contains(f);
    assert!(found.iter().any(both), "{found:?}");
}

#[test]
fn a_payment_that_the_wallet_knows_otherwise_is_found() {
    let mut world = traded();
    world.pay(0, 3_000);
    world.mine();
    let payment = world.sold(0).payments().find(|payment| !payment.is_final()).unwrap().clone();
    let says = |found: &[Finding]| match found {
        [Finding::Wallet { says, .. }] => Some(*says),
        _ => None,
    };
    let more = Payment { amount_sat: 3_001, ..payment.clone() };
    assert_eq!(says(&after(&mut world, 0, Change::Payment(more))), Some(WalletSays::Amount { sat: 3_000 }));
    let other = Payment { outpoint: OutPoint { txid: [9; 32], vout: 0 }, ..payment.clone() };
    let mut unknown = traded();
    unknown.pay(0, 3_000);
    unknown.mine();
    assert_eq!(says(&after(&mut unknown, 0, Change::Payment(other))), Some(WalletSays::Unknown));
    // The chain has lost the block, and only the wallet has noticed.
    let mut reorged = traded();
    reorged.pay(0, 3_000);
    reorged.mine();
    reorged.coins.last_mut().unwrap().height = 0;
    assert_eq!(says(&after(&mut reorged, 0, Change::Payment(payment))), Some(WalletSays::Unconfirmed));
}

#[test]
fn a_wallet_that_paid_another_amount_is_found_on_the_buyer_s_side() {
    let world = traded();
    let buyer = &world.buyers[0].market;
    let honest = world.wallet(buyer.me());
    let lies = honest.outgoing.iter().map(|fact| Outgoing { id: TopUpId(fact.id.0), amount_sat: 1, ..*fact });
    let wallet = WalletBooks { outgoing: lies.collect(), ..honest };
    let found = audit_ledgers(&[Books { market: buyer, wallet: Some(&wallet) }]);
    assert!(matches!(found[..], [Finding::Wallet { says: WalletSays::Amount { sat: 1 }, .. }]), "{found:?}");
}

#[test]
fn two_nodes_that_do_not_agree_are_found() {
    let mut world = traded();
    let line = a_line(&world);
    let less = SignedReceipt::sign(line.id(), line.signed_units() - 1, &key(2));
    let admitted = line.admitted_units();
    assert_eq!(after(&mut world, 0, Change::Line(line.restored(Some(less), admitted, true, false))), []);
    let books = [&world.seller, &world.buyers[0]].map(|node| Books { market: &node.market, wallet: None });
    let found = audit_ledgers(&books);
    assert!(matches!(found[..], [Finding::Disagree { .. }]), "{found:?}");
}

/// A tail that was let go and is signed for after what was paid is used up is a debt: it uses the pool as before.
#[test]
fn tails_that_are_signed_for_late_do_not_empty_the_pool() {
    let rules = Rules { stake: Msat::from_sat(200).unwrap(), ..Rules::default() };
    let mut world = World::new(24, DEAR, rules);
    for buyer in 0..24 {
        world.pay(buyer, 300);
    }
    world.mine();
    let mut late = 0;
    for buyer in 0..24 {
        drop_tail(&mut world, buyer, 1, 4);
        if let Ok(stream) = world.open(buyer) {
            while let Some(Ok(_)) = world.want(stream) {
                world.serve(stream, 64);
            }
        }
        world.sync(buyer);
        late += u32::from(world.unsecured(buyer) > 0);
        world.audit();
    }
    assert!((1..24).contains(&late), "the pool carries some of them: {late}");
}
