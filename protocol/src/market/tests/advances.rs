//! No word of a seller has us pay it twice, and none fills our books with money that is not there.

use super::world::{DEAR, START, World};
use crate::account::{Direction, OutPoint, Payment};
use crate::budget::{DAY, MONTH};
use crate::credit::Rules;
use crate::id::TopUpId;
use crate::market::{Books, Outgoing, Paying, audit_ledgers};
use crate::money::Msat;
use crate::session::MAX_WINDOW;

const BIG: u64 = 3_200_000;

fn world(buyers: u8) -> World {
    World::new(buyers, DEAR, Rules::default())
}

fn wanted(world: &mut World, amount_sat: u64) -> TopUpId {
    let seller = world.seller.id();
    world.buyers[0].market.handle_topup_wanted(world.now, seller, amount_sat, TopUpId([77; 32]))
}

#[test]
fn an_advance_that_does_not_count_yet_is_the_one_that_is_paid_again() {
    let mut world = world(1);
    let (coin, seller) = (world.pay(0, BIG), world.seller.id());
    let left = |world: &World| world.buyers[0].market.left_with(&seller).floor_sat();
    assert_eq!((wanted(&mut world, BIG), left(&world)), (coin.id, BIG), "in no block");
    world.wait(MONTH);
    assert_eq!(wanted(&mut world, BIG), coin.id, "stuck for a month");
    world.mine();
    assert_eq!(world.bought(0).paid(), Msat::ZERO, "two blocks are needed");
    assert_eq!((wanted(&mut world, BIG), left(&world)), (coin.id, BIG), "one of two blocks");
    world.mine();
    assert_eq!(world.bought(0).paid().floor_sat(), BIG);
    assert_eq!(left(&world), BIG, "it counts once");
    let (kept, tip) = (world.coins.clone(), world.tip);
    world.tip -= 2;
    world.coins[0].height = 0;
    world.tell_all();
    assert_eq!((wanted(&mut world, BIG), left(&world)), (coin.id, BIG), "a reorg took it back");
    (world.coins, world.tip) = (kept, tip);
    world.tell_all();
    assert_eq!(wanted(&mut world, BIG), TopUpId([77; 32]), "what counts was another advance");
}

#[test]
fn a_payment_whose_coins_were_spent_otherwise_is_given_up() {
    let mut world = world(1);
    let (coin, seller) = (world.pay(0, 1_000), world.seller.id());
    let gone = Outgoing {
        id: coin.id,
        outpoint: OutPoint { txid: coin.id.0, vout: 0 },
        amount_sat: 1_000,
        fee_sat: 1,
        height: 0,
        depth: 0,
        conflicted: true,
    };
    let market = &mut world.buyers[0].market;
    market.handle_outgoing(START, gone);
    assert_eq!((market.paying(&seller, &coin.id), market.left_with(&seller)), (Paying::Conflicted, Msat::ZERO));
    assert_eq!(market.handle_topup_wanted(START, seller, 1_000, TopUpId([9; 32])), TopUpId([9; 32]));
    // A reorg undoes that, too.
    market.handle_outgoing(START, Outgoing { conflicted: false, ..gone });
    assert_eq!(market.paying(&seller, &coin.id), Paying::Ours);
    world.buyers[0].store();
    world.mine();
    assert_eq!(world.bought(0).paid().floor_sat(), 1_000);
}

/// What a seller may say of a payment under this top-up.
fn told(topup: TopUpId, n: u8, amount_sat: u64, height: u64) -> Payment {
    Payment {
        outpoint: OutPoint { txid: [n; 32], vout: 3 },
        topup,
        amount_sat,
        height,
        depth: 0,
        needed: 0,
        repaid: None,
        fee_sat: 0,
        ours: false,
    }
}

#[test]
fn a_payment_that_only_the_seller_has_seen_ends_none_of_ours() {
    let mut world = world(1);
    let (coin, seller, now) = (world.pay(0, 1_000), world.seller.id(), world.now);
    let market = &mut world.buyers[0].market;
    market.handle_synced(now, seller, &[], None, &[told(coin.id, 5, 1_000, 1)]).unwrap();
    assert_eq!(market.paying(&seller, &coin.id), Paying::Ours);
    assert_eq!(wanted(&mut world, 1_000), coin.id);
}

#[test]
fn what_another_wallet_pays_is_waited_for() {
    let mut world = world(1);
    let coin = world.pay(0, 1_000);
    world.mine();
    let (seller, now, tip) = (world.seller.id(), world.now, world.tip);
    let id = wanted(&mut world, 2_000);
    assert_ne!(id, coin.id);
    let topup = {
        let us = world.buyers[0].id();
        let step = world.seller.market.handle_topup_request(now, us, id, 2_000).unwrap();
        let crate::market::TopUpStep::NeedAddress(payee) = step else { panic!("given before") };
        world.seller.market.handle_address(now, us, id, 2_000, payee, "bcrt1q0".into())
    };
    world.seller.store();
    let market = &mut world.buyers[0].market;
    market.handle_topup(now, seller, id, topup.signed().clone()).unwrap();
    assert_eq!(market.paying(&seller, &id), Paying::Unpaid);
    market.handle_synced(now, seller, &[], None, &[told(id, 6, 1_999, 0)]).unwrap();
    assert_eq!(market.paying(&seller, &id), Paying::Unpaid, "less than was asked for");
    market.handle_synced(now, seller, &[], None, &[told(id, 7, 2_000, 0)]).unwrap();
    assert_eq!(market.paying(&seller, &id), Paying::Others);
    market.handle_synced(now, seller, &[], None, &[told(id, 7, 2_000, tip)]).unwrap();
    assert_eq!(market.paying(&seller, &id), Paying::Counts);
}

#[test]
fn money_that_can_t_be_or_that_another_was_paid_is_not_taken_down() {
    let mut world = world(1);
    let (coin, seller, now) = (world.pay(0, 1_000), world.seller.id(), world.now);
    world.mine();
    let (liar, tip) = (super::world::key(9), world.tip);
    let liar = crate::wire::peer_id(&liar);
    let market = &mut world.buyers[0].market;
    let id = market.handle_topup_wanted(now, liar, 1_000, TopUpId([8; 32]));
    let mut topup = market.account(&seller, Direction::Bought).unwrap().topup(&coin.id).unwrap().topup.clone().unwrap();
    let mut says = topup.topup().clone();
    (says.id, says.seller) = (id, liar);
    topup = crate::settlement::SignedTopUp::sign(says, &super::world::key(9));
    market.handle_topup(now, liar, id, topup.signed().clone()).unwrap();
    let mine = Payment { outpoint: OutPoint { txid: coin.id.0, vout: 0 }, ..told(id, 0, 1_000, tip) };
    let much = (1..=200).map(|n| told(id, n, 2_100_000_000_000_000, 1));
    let lies: Vec<Payment> = [mine, told(id, 201, u64::MAX, 1)].into_iter().chain(much).collect();
    market.handle_synced(now, liar, &[], None, &lies).unwrap();
    let account = market.account(&liar, Direction::Bought).unwrap();
    let taken: Vec<u64> = account.payments().map(|payment| payment.amount_sat).collect();
    assert_eq!((taken, account.paid()), (vec![2_100_000_000_000_000], Msat::ZERO), "no more, and never deep enough");
    assert_eq!(audit_ledgers(&[Books { market, wallet: None }]), []);
    // The other way round: it was told before our own wallet's fact came.
    let early = told(id, 202, 0, 1);
    market.handle_synced(now, liar, &[], None, std::slice::from_ref(&early)).unwrap();
    let fact = Outgoing {
        id: coin.id,
        outpoint: early.outpoint,
        amount_sat: 1_000,
        fee_sat: 1,
        height: tip,
        depth: 1,
        conflicted: false,
    };
    market.handle_outgoing(now, fact);
    assert_eq!(audit_ledgers(&[Books { market, wallet: None }]), []);
}

#[test]
fn who_failed_is_trusted_as_one_that_has_served_nothing() {
    let mut world = world(1);
    world.pay_finally(0, 2_000);
    let (seller, stream) = (world.seller.id(), world.open(0).unwrap());
    while let Some(Ok(_)) = world.want(stream) {
        world.serve(stream, 64);
    }
    let spent = world.bought(0).spent();
    let market = &mut world.buyers[0].market;
    let held = |market: &crate::market::Market| market.believed_held(&seller, Msat::MAX, DEAR);
    assert_eq!(held(market), DEAR.charge(MAX_WINDOW * 2).unwrap(), "what was under way at most");
    assert_eq!(market.believed_held(&market.me(), Msat::MAX, DEAR), Msat::ZERO, "who never served holds nothing");
    assert_eq!(market.served_well(&seller), spent);
    market.handle_failed(&seller);
    assert!(spent > Msat::ZERO && market.served_well(&seller) == Msat::ZERO);
    world.buyers[0].store();
    world.crash_buyer(0);
    assert_eq!(world.buyers[0].market.served_well(&seller), Msat::ZERO, "also after a restart");
}

#[test]
fn what_nobody_asked_for_is_counted_once_whatever_dies_between() {
    let mut world = world(1);
    let (seller, now) = (world.seller.id(), world.now);
    let unasked = |world: &mut World, amount_sat, n| {
        world.buyers[0].market.handle_unasked_topup(now, seller, amount_sat, 50, TopUpId([n; 32]))
    };
    let spent = |world: &World| world.buyers[0].market.spendings().spent(now, DAY);
    let id = unasked(&mut world, 400, 1).unwrap();
    assert_eq!(world.buyers[0].market.poll_entries().1.len(), 2, "both in one transaction");
    world.buyers[0].store();
    for _ in 0..3 {
        // Killed before the payment.
        world.crash_buyer(0);
        assert_eq!((unasked(&mut world, 400, 9), spent(&world)), (Ok(id), 450));
    }
    let refused = unasked(&mut world, 600, 2).unwrap_err();
    assert_eq!((refused.need_sat, refused.spent_sat, refused.limit_sat), (650, 450, 1_000));
    assert_eq!(refused.frees, Some(now.saturating_add(DAY)));
    assert!(world.bought(0).topups().count() == 1, "nothing is asked for");
    let market = &mut world.buyers[0].market;
    market.handle_spent(&id, 0);
    market.handle_spent(&id, 410);
    assert_eq!(market.spendings().spent(now, DAY), 410, "the fee is known, whatever another try came to");
    market.handle_spent(&TopUpId([8; 32]), 410);
    assert_eq!(market.spendings().spent(now, DAY), 410, "what a person asked for is none of it");
    assert_eq!(market.handle_topup_wanted(now, seller, 9_000, TopUpId([3; 32])), TopUpId([3; 32]));
    assert_eq!(market.spendings().spent(now, DAY), 410, "a person's word is no part of it");
    world.buyers[0].store();
    world.crash_buyer(0);
    assert_eq!(spent(&world), 410);
    unasked(&mut world, 500, 4).unwrap();
    world.buyers[0].store();
    let later = now.saturating_add(MONTH);
    let market = &mut world.buyers[0].market;
    market.handle_unasked_topup(later, seller, 700, 50, TopUpId([5; 32])).unwrap();
    world.buyers[0].store();
    world.crash_buyer(0);
    assert_eq!(world.buyers[0].market.spendings().spent(now, MONTH), 750, "old rows have gone");
}

#[test]
fn what_was_counted_and_not_paid_counts_when_it_is_paid() {
    let mut world = world(1);
    let (seller, now) = (world.seller.id(), world.now);
    let unasked = |world: &mut World, now, amount_sat, n| {
        world.buyers[0].market.handle_unasked_topup(now, seller, amount_sat, 50, TopUpId([n; 32]))
    };
    let id = unasked(&mut world, now, 400, 1).unwrap();
    world.buyers[0].store();
    // Killed before the payment, and tried again on a day that has its own.
    world.crash_buyer(0);
    let later = now.saturating_add(DAY * 2);
    unasked(&mut world, later, 800, 2).unwrap();
    assert_eq!(unasked(&mut world, later, 400, 3).unwrap_err().spent_sat, 850, "its own day is over");
    let next = later.saturating_add(DAY);
    assert_eq!(unasked(&mut world, next, 400, 3), Ok(id));
    let spendings = world.buyers[0].market.spendings();
    assert_eq!((spendings.spent(next, DAY), spendings.spent(next, MONTH)), (450, 1_300), "once");
}
