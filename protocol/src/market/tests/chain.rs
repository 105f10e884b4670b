//! Money on the chain: what counts, what never does, and what a reorg takes and gives back (I8, I11, I12, MONEY.md 4).

use std::time::Duration;

use proptest::prelude::*;

use super::world::{Coin, DEAR, World};
use crate::account::{Account, OutPoint, Payment};
use crate::credit::Rules;
use crate::id::TopUpId;
use crate::ledger::LedgerAccount;
use crate::market::{Incoming, MAX_OPEN_TOPUPS, NoTopUp, Outgoing, TOPUP_LIFE, TopUpStep};
use crate::money::{Msat, Price};
use crate::offer::Service;
use crate::refusal::Refusal;
use crate::settlement::{SignedTopUp, TopUp};

fn world(buyers: u8) -> World {
    World::new(buyers, DEAR, Rules::default())
}

fn books(world: &World) -> Vec<(Account, Account)> {
    (0..world.buyers.len()).map(|buyer| (world.sold(buyer), world.bought(buyer))).collect()
}

/// Buys as much as `paid` carries, in sessions that end in order.
fn spend(world: &mut World, buyer: usize) {
    let stream = world.open(buyer).unwrap();
    while let Some(Ok(_)) = world.want(stream) {
        world.serve(stream, u64::MAX >> 20);
    }
    world.sync(buyer);
}

#[test]
fn a_payment_counts_from_its_block_on_and_an_overpayment_is_balance() {
    let mut world = world(1);
    world.pay(0, 700);
    assert_eq!(world.sold(0).tab().paid, Msat::ZERO);
    world.mine();
    spend(&mut world, 0);
    world.pay(0, 1_000_000);
    world.mine();
    let tab = world.sold(0).tab();
    assert_eq!(tab.paid, Msat::from_sat(1_000_700).unwrap());
    assert_eq!((tab.debt(), tab.prepaid()), (Msat::ZERO, tab.paid.saturating_sub(tab.spent)));
    world.check_agreement(0);
    let (paid, spent) = (i128::from(tab.paid.msat()), i128::from(tab.spent.msat()));
    let (seller, buyer) = (world.seller.id(), world.buyers[0].id());
    let sold = world.seller.market.ledger();
    assert_eq!(sold.balance(LedgerAccount::RailChain), paid);
    assert_eq!(sold.balance(LedgerAccount::Income(Service::Chunks)), -spent);
    assert_eq!(sold.balance(LedgerAccount::PrepaidIn(buyer)), spent - paid);
    assert_eq!(sold.balance(LedgerAccount::Receivable(buyer)), 0);
    let bought = world.buyers[0].market.ledger();
    assert_eq!(bought.balance(LedgerAccount::Expense(Service::Chunks)), spent);
    assert_eq!(bought.balance(LedgerAccount::PrepaidOut(seller)), paid - spent);
    assert_eq!(bought.balance(LedgerAccount::Fees), 2_000, "1 sat for each payment");
    assert_eq!(bought.balance(LedgerAccount::RailChain), -paid - 2_000);
}

#[test]
fn a_peer_is_useful_once_there_was_trade_in_either_direction() {
    let mut world = world(1);
    let (seller, buyer) = (world.seller.id(), world.buyers[0].id());
    let useful = |world: &World| (world.seller.market.usefulness(&buyer), world.buyers[0].market.usefulness(&seller));
    world.pay_finally(0, 1_000);
    assert_eq!(useful(&world), (0, 0), "money alone is none");
    spend(&mut world, 0);
    assert_eq!(useful(&world), (50, 50));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// I8, I11, I12: blocks go and come back, with payments that were spent in between; facts are told twice.
    #[test]
    fn a_reorg_takes_what_it_took_and_gives_it_back(
        coins in proptest::collection::vec((0..3_usize, 1..4_000_u64, 0..3_u64), 1..8),
        depth in 1..6_u64,
    ) {
        let mut world = world(3);
        for (buyer, sat, blocks) in &coins {
            let before = books(&world).into_iter().map(|(sold, bought)| (sold.tab(), bought.tab())).collect::<Vec<_>>();
            world.pay(*buyer, *sat);
            let after = books(&world).into_iter().map(|(sold, bought)| (sold.tab(), bought.tab())).collect::<Vec<_>>();
            prop_assert_eq!(before, after);
            (0..*blocks).for_each(|_| world.mine());
        }
        (0..3).for_each(|buyer| spend(&mut world, buyer));
        let (kept, tip, mined) = (books(&world), world.tip, world.coins.clone());
        world.tip = tip - depth;
        let gone = |coin: &Coin| coin.height == 0 || coin.height > tip - depth;
        world.coins.iter_mut().filter(|coin| gone(coin)).for_each(|coin| coin.height = 0);
        world.tell_all();
        for (buyer, (before, _)) in kept.iter().enumerate() {
            let left: u64 = mined.iter().filter(|coin| coin.buyer == buyer && !gone(coin)).map(|coin| coin.sat).sum();
            prop_assert_eq!(world.sold(buyer).tab().paid.floor_sat(), left);
            prop_assert_eq!(world.sold(buyer).spent(), before.spent());
            world.check_agreement(buyer);
            prop_assert_eq!(world.seller.market.ledger().sum(), 0);
        }
        world.wait(Duration::from_secs(3_600));
        (world.tip, world.coins) = (tip, mined);
        world.tell_all();
        world.tell_all();
        prop_assert_eq!(books(&world), kept);
    }
}

#[test]
fn an_output_to_nobody_or_told_for_another_payee_changes_nothing() {
    let mut world = world(2);
    let coin = world.pay(0, 500);
    world.pay(1, 900);
    world.mine();
    let before = books(&world);
    let outpoint = OutPoint { txid: [9; 32], vout: 1 };
    let payee = crate::id::PayeeId([1; 32]);
    world.seller.market.handle_incoming(world.now, Incoming { payee, outpoint, amount_sat: 5, height: 101, depth: 1 });
    assert_eq!(books(&world), before);
    assert_eq!(world.sold(0).topup(&coin.id).map(|line| line.closed), Some(true));
}

#[test]
fn larger_money_waits_longer_and_what_is_final_stays() {
    let mut world = world(2);
    world.pay(0, 3_000_000);
    world.mine();
    assert_eq!(world.sold(0).paid().floor_sat(), 3_000_000);
    world.pay(1, 3_000_000);
    world.tip -= 1;
    world.coins.iter_mut().for_each(|coin| coin.height = 0);
    world.mine();
    assert_eq!((world.sold(0).paid(), world.sold(1).paid()), (Msat::ZERO, Msat::ZERO));
    world.mine();
    assert_eq!((world.sold(0).paid(), world.sold(1).paid()).0.floor_sat(), 3_000_000);
    (0..4).for_each(|_| world.mine());
    world.pay(1, 2_000_000_000);
    world.mine();
    assert_eq!(world.sold(0).paid().floor_sat(), 3_000_000);
    assert_eq!(world.sold(1).paid().floor_sat(), 3_000_000);
}

/// 2.24 rewards of a block: nine blocks cost a cheat more than it would get.
#[test]
fn what_is_worth_more_than_a_few_blocks_waits_for_more_than_six() {
    let mut world = world(2);
    world.pay_finally(1, 9_000);
    world.pay(0, 350_000_000);
    world.pay(0, 350_000_001);
    for depth in 1..9 {
        world.mine();
        assert_eq!((world.sold(0).paid(), world.bought(0).paid()), (Msat::ZERO, Msat::ZERO), "{depth} deep");
        assert_eq!(world.sold(1).paid_final().floor_sat(), 9_000, "what was final stays so");
    }
    world.mine();
    let both = [world.sold(0), world.bought(0)].map(|account| (account.paid().floor_sat(), account.paid_final()));
    let all = Msat::from_sat(700_000_001).unwrap();
    assert_eq!(both, [(700_000_001, all), (700_000_001, all)]);
    world.pay(1, 2_000_000_000);
    world.mine();
    assert_eq!(world.sold(0).paid_final(), all, "whatever comes after it");
    world.check_agreement(0);
    world.audit();
}

#[test]
fn asking_for_addresses_fills_neither_memory_nor_the_places_of_customers() {
    let mut world = world(103);
    world.pay_finally(0, 5_000);
    let ask = |world: &mut World, buyer: usize, id: u8| {
        let peer = world.buyers[buyer].id();
        let step = world.seller.market.handle_topup_request(world.now, peer, TopUpId([id; 32]), 10)?;
        if let TopUpStep::NeedAddress(payee) = step {
            let address = "bcrt1q0".to_owned();
            world.seller.market.handle_address(world.now, peer, TopUpId([id; 32]), 10, payee, address);
            world.seller.store();
        }
        Ok::<_, Refusal>(step)
    };
    let first = ask(&mut world, 1, 1).unwrap();
    for id in 2..200 {
        assert_eq!(ask(&mut world, 1, id), Ok(first.clone()), "the address stays");
    }
    assert_eq!(world.sold(1).topups().count(), 1);
    assert!(matches!(ask(&mut world, 1, 199), Ok(TopUpStep::Given(_))));
    for buyer in 2..=MAX_OPEN_TOPUPS {
        // The wallet has not answered any of them yet.
        let peer = world.buyers[buyer].id();
        world.seller.market.handle_topup_request(world.now, peer, TopUpId([7; 32]), 10).unwrap();
    }
    assert!(matches!(ask(&mut world, 101, 7), Err(Refusal::NotYet { .. })));
    assert!(matches!(ask(&mut world, 0, 7), Ok(TopUpStep::NeedAddress(_))), "a customer has a place");
    world.wait(TOPUP_LIFE);
    assert!(ask(&mut world, 101, 7).is_ok());
    let small = world.seller.market.handle_topup_request(world.now, world.buyers[102].id(), TopUpId([7; 32]), 0);
    assert!(matches!(small, Err(Refusal::PayFirst { min_topup_sat: 1, .. })));
}

#[test]
fn two_buyers_with_one_name_for_a_top_up_have_two() {
    let mut world = world(2);
    let payees: Vec<_> = (0..2)
        .map(|buyer| {
            let peer = world.buyers[buyer].id();
            world.seller.market.handle_topup_request(world.now, peer, TopUpId([1; 32]), 10).unwrap()
        })
        .collect();
    assert_ne!(payees[0], payees[1]);
}

/// A word of the seller for the first buyer's newest top-up, changed by `change`.
fn worded(world: &mut World, change: impl FnOnce(&mut TopUp)) -> Result<SignedTopUp, NoTopUp> {
    let (buyer, seller) = (world.buyers[0].id(), world.seller.id());
    let market = &mut world.buyers[0].market;
    let id = market.handle_topup_wanted(world.now, seller, 1_000, TopUpId([3; 32]));
    let mut topup = TopUp {
        id,
        network: market.network().clone(),
        buyer,
        seller,
        address: "bcrt1q0".into(),
        min_sat: 1_000,
        ceilings: [(Service::Chunks, DEAR)].into(),
        until_height: 1_000,
    };
    change(&mut topup);
    let signed = SignedTopUp::sign(topup, &super::world::key(1)).signed().clone();
    market.handle_topup(world.now, seller, id, signed)
}

#[test]
fn a_top_up_is_paid_only_as_it_was_asked_for() {
    let mut world = world(2);
    let other = world.buyers[1].id();
    worded(&mut world, |_| ()).unwrap();
    assert_eq!(worded(&mut world, |topup| topup.id = TopUpId([4; 32])), Err(NoTopUp::Other("id")));
    assert_eq!(worded(&mut world, |topup| topup.network = "signet".parse().unwrap()), Err(NoTopUp::Other("network")));
    assert_eq!(worded(&mut world, |topup| topup.buyer = other), Err(NoTopUp::Other("buyer")));
    assert_eq!(worded(&mut world, |topup| topup.until_height = 100), Err(NoTopUp::Other("height")));
    assert_eq!(worded(&mut world, |topup| topup.ceilings.clear()), Err(NoTopUp::Other("price")));
    assert_eq!(worded(&mut world, |topup| topup.min_sat = 1_001), Err(NoTopUp::TooSmall { min_sat: 1_001 }));
    assert!(matches!(worded(&mut world, |topup| topup.seller = other), Err(NoTopUp::Malformed(_))));
}

/// Else a seller could take the money and then raise the price that it was promised for, or send the next to elsewhere.
#[test]
fn a_word_under_which_was_paid_stands() {
    let mut world = world(1);
    let good = worded(&mut world, |_| ()).unwrap();
    worded(&mut world, |topup| topup.address = "bcrt1q1".into()).expect("nothing was paid under the first word");
    assert_eq!(worded(&mut world, |_| ()), Ok(good.clone()));
    let outpoint = OutPoint { txid: [6; 32], vout: 0 };
    let fact = Outgoing {
        id: good.topup().id,
        outpoint,
        amount_sat: 1_000,
        fee_sat: 1,
        height: 0,
        depth: 0,
        conflicted: false,
    };
    world.buyers[0].market.handle_outgoing(world.now, fact);
    assert_eq!(worded(&mut world, |topup| topup.address = "bcrt1q1".into()), Err(NoTopUp::Other("word")));
    assert_eq!(worded(&mut world, |_| ()), Ok(good));
}

#[test]
fn prices_stay_under_the_ceiling_until_its_money_is_used_up() {
    let mut world = world(1);
    world.pay(0, 5_000);
    world.mine();
    let (root, goods) = world.seller.market.shop().goods().next().map(|(root, goods)| (*root, goods.clone())).unwrap();
    let dearer = Price::per_gib(DEAR.msat_per_gib() * 3);
    let goods = crate::market::Goods { price: Some(dearer), ..goods };
    world.seller.market.handle_published(world.now, root, goods);
    let stream = world.open(0).unwrap();
    assert_eq!(world.streams[stream].quote.quote().price, DEAR);
    world.end(stream, 0, true);
    world.pay(0, 5_000);
    world.mine();
    spend(&mut world, 0);
    let stream = world.open(0).unwrap();
    assert_eq!(world.streams[stream].quote.quote().price, dearer);
    assert_eq!(world.sold(0).price_ceiling(Service::Chunks), Some(dearer));
}

#[test]
fn no_quote_is_dearer_than_the_live_offer() {
    let mut world = world(1);
    let offered = world.seller.market.poll_offer(world.now, &[], 7).unwrap().unwrap();
    assert_eq!(offered.offer().listing(Service::Chunks).unwrap().ceiling, DEAR);
    let (root, goods) = world.seller.market.shop().goods().next().map(|(root, goods)| (*root, goods.clone())).unwrap();
    let dearer = Price::per_gib(DEAR.msat_per_gib() * 3);
    let goods = crate::market::Goods { price: Some(dearer), ..goods };
    world.seller.market.handle_published(world.now, root, goods);
    let stream = world.open(0).unwrap();
    assert_eq!(world.streams[stream].quote.quote().price, DEAR);
    world.wait(std::time::Duration::from_secs(61));
    assert!(world.seller.market.poll_offer(world.now, &[], 7).unwrap().is_some());
    let stream = world.open(0).unwrap();
    assert_eq!(world.streams[stream].quote.quote().price, dearer);
}

#[test]
fn a_gift_buys_a_mebibyte_at_most() {
    let cheap = Price::per_gib(7_000);
    let mut world = World::new(1, cheap, Rules { grant: Msat::new(1_000), ..Rules::default() });
    world.open(0).unwrap();
    assert_eq!(world.sold(0).paid(), cheap.charge(1 << 20).unwrap());
}

/// I8: a bumped payment has several transactions, of which the chain takes one; after a reorg perhaps another.
#[test]
fn a_payment_whose_transaction_is_replaced_counts_once() {
    let mut world = world(1);
    let coin = world.pay(0, 5_000);
    let outpoint = |n| OutPoint { txid: [n; 32], vout: 0 };
    let (now, seller, id) = (world.now, world.seller.id(), coin.id);
    let tell = |world: &mut World, n: u8, height: u64, depth: u32| {
        let fact = Incoming { payee: coin.payee, outpoint: outpoint(n), amount_sat: 5_000, height, depth };
        world.seller.market.handle_incoming(now, fact);
        let fact = Outgoing {
            id,
            outpoint: outpoint(n),
            amount_sat: 5_000,
            fee_sat: n.into(),
            height,
            depth,
            conflicted: false,
        };
        world.buyers[0].market.handle_outgoing(now, fact);
        world.seller.store();
        world.buyers[0].store();
    };
    let paid = |world: &World| (world.sold(0).tab().paid, world.bought(0).tab().paid);
    let all = (Msat::from_sat(5_000).unwrap(), Msat::from_sat(5_000).unwrap());
    for n in 1..=3 {
        tell(&mut world, n, 0, 0);
        assert_eq!(paid(&world), (Msat::ZERO, Msat::ZERO));
    }
    // An older one is mined, and after a reorg the newest; the buyer is told only of the end.
    tell(&mut world, 2, 101, 1);
    assert_eq!(paid(&world), all);
    let gone = Incoming { payee: coin.payee, outpoint: outpoint(2), amount_sat: 5_000, height: 0, depth: 0 };
    world.seller.market.handle_incoming(now, gone);
    tell(&mut world, 3, 101, 1);
    assert_eq!(paid(&world), all, "never both");
    let ledger = world.buyers[0].market.ledger();
    assert_eq!((ledger.sum(), ledger.balance(LedgerAccount::Fees)), (0, 3_000), "one fee");
    // A seller that tells of a transaction that is no more adds nothing: it was ours.
    let told: Vec<_> = world.sold(0).payments().map(|p| Payment { height: 90, ..p.clone() }).collect();
    world.buyers[0].market.handle_synced(now, seller, &[], None, &told).unwrap();
    assert_eq!(paid(&world), all);
}
