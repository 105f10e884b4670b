//! Those who cheat, and what it gets them.

use proptest::prelude::*;

use super::trade::Fired;
use super::world::{DEAR, START, World, key};
use crate::account::{Direction, MAX_LINES, OutPoint, Payment, TAIL_FLOOR_BYTES, TAIL_SHARE};
use crate::content::{GROUP_LEN, Groups};
use crate::credit::{Rules, SignedGrant};
use crate::id::TopUpId;
use crate::market::{BuyError, SyncError};
use crate::money::{Msat, Price};
use crate::refusal::Refusal;
use crate::session::quote::{Quote, SignedQuote, SignedReceipt};
use crate::session::{FIRST_WINDOW, PIPELINED_WANTS, Request};

/// A round: open, have some groups served, drop the stream without a word. Bytes that left for good.
pub(super) fn drop_tail(world: &mut World, buyer: usize, wants: usize, served: u64) -> u64 {
    let Ok(stream) = world.open(buyer) else { return 0 };
    let mut sent = 0;
    for _ in 0..wants {
        match world.want(stream) {
            Some(Ok(_)) => world.serve(stream, served),
            Some(Err(_)) => return sent,
            None => break,
        }
        sent = world.streams[stream].sent;
    }
    world.end(stream, 0, false);
    sent
}

#[test]
fn dropping_the_last_receipt_for_ever_gets_no_more_than_the_tail() {
    for wants in 1..6 {
        let mut world = World::new(1, DEAR, Rules::default());
        world.pay(0, 2_000);
        world.mine();
        let paid_for = DEAR.affordable(Msat::from_sat(2_000).unwrap());
        let (mut got, mut idle) = (0, 0);
        while idle < 3 {
            // It shows no receipt but those of the Wants in between.
            let sent = drop_tail(&mut world, 0, wants, 4);
            (got, idle) = (got + sent, if sent == 0 { idle + 1 } else { 0 });
        }
        let signed = world.sold(0).lines().map(|line| line.signed_units()).sum::<u64>();
        let tail = TAIL_FLOOR_BYTES.max(signed / TAIL_SHARE);
        assert!(got <= paid_for + tail, "{got} bytes for {paid_for} with {wants} wants");
        assert!(got + 2 * GROUP_LEN >= paid_for, "an honest part of {got} was refused");
        assert!(matches!(world.open(0).map(|stream| world.want(stream)), Ok(Some(Err(Refusal::PayFirst { .. })))));
    }
}

#[test]
fn a_peer_with_large_tails_stays_at_the_first_window() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay(0, 1_000_000);
    world.mine();
    for _ in 0..5 {
        drop_tail(&mut world, 0, 1, 4);
    }
    assert!(!world.sold(0).tails_forgiven());
    let stream = world.open(0).unwrap();
    for _ in 0..8 {
        let groups = world.want(stream).unwrap().unwrap();
        assert!(groups.count() * GROUP_LEN <= FIRST_WINDOW * PIPELINED_WANTS as u64);
        world.serve(stream, groups.count());
        assert!(world.sold(0).lines().all(|line| line.unsigned_units() <= 2 * FIRST_WINDOW));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Strangers leave tails and then use up what they paid: together they get no more than the pool.
    #[test]
    fn strangers_together_get_no_more_than_the_pool(tails in proptest::collection::vec(1..5_u64, 24), stake in 0..900_u64) {
        let rules = Rules { stake: Msat::from_sat(stake).unwrap(), grant: Msat::new(1_000), ..Rules::default() };
        let mut world = World::new(24, DEAR, rules);
        for buyer in 0..24 {
            world.pay(buyer, 300);
        }
        world.mine();
        let mut fired = Fired::default();
        for (buyer, groups) in tails.iter().enumerate() {
            drop_tail(&mut world, buyer, 1, *groups);
        }
        for buyer in 0..24 {
            while let Ok(stream) = world.open(buyer) {
                while world.want_checked(stream, &mut fired) {
                    world.serve(stream, 64);
                }
                if fired.refused > 0 {
                    fired.refused = 0;
                    break;
                }
            }
        }
        prop_assert!(fired.admitted > 24);
        let unpaid = (0..24).map(|buyer| world.unsecured(buyer)).sum::<u64>();
        let given = (0..24).map(|buyer| world.sold(buyer).history().granted().msat()).sum::<u64>();
        prop_assert!(unpaid + given <= stake * 1_000, "{} and {} of {} sat", unpaid, given, stake);
    }
}

#[test]
fn the_pool_is_used_where_there_is_one() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay(0, 300);
    world.mine();
    drop_tail(&mut world, 0, 1, 4);
    let stream = world.open(0).unwrap();
    while let Some(Ok(_)) = world.want(stream) {
        world.serve(stream, 64);
    }
    assert!(world.unsecured(0) > 0, "a tail within the floor is let go");
}

/// Buys until it is refused; what is sent and not paid then.
fn exhaust(world: &mut World, buyer: usize) -> u64 {
    let stream = world.open(buyer).unwrap();
    while let Some(Ok(_)) = world.want(stream) {
        world.serve(stream, u64::MAX >> 20);
    }
    assert!(world.streams.is_empty(), "it ends with a refusal");
    world.unsecured(buyer)
}

#[test]
fn what_a_stranger_got_beyond_its_money_stays_in_the_pool() {
    let rules = Rules { stake: Msat::from_sat(200).unwrap(), ..Rules::default() };
    let mut world = World::new(24, DEAR, rules);
    let _: Vec<_> = (0..24).map(|buyer| world.pay(buyer, 62)).collect();
    world.mine();
    for buyer in 0..24 {
        // Its money buys a window; the pool lets that go, and the same money buys another one: now its holds stay.
        drop_tail(&mut world, buyer, 1, 4);
        drop_tail(&mut world, buyer, 1, 4);
    }
    let got: u64 = (0..24).map(|buyer| world.unsecured(buyer)).sum();
    assert!(got > 100_000 && got <= 200_000, "{got} msat");
    world.audit();
}

#[test]
fn a_credit_line_carries_its_tails_too() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay_finally(0, 50_000);
    exhaust(&mut world, 0);
    world.sync(0);
    world.pay_finally(0, 5_000);
    drop_tail(&mut world, 0, 1, 3);
    let tails = world.sold(0).tails().msat();
    let (unpaid, line) = (exhaust(&mut world, 0), world.allowance(0).msat());
    assert!(unpaid <= line && unpaid + tails > line, "{unpaid} with {tails} of {line}");
}

#[test]
fn a_deep_reorg_ends_the_credit_that_stood_on_it() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay_finally(0, 50_000);
    exhaust(&mut world, 0);
    world.sync(0);
    world.pay(0, 5_000);
    world.coins.iter_mut().for_each(|coin| coin.height = 0);
    world.mine();
    assert!(world.allowance(0) > Msat::ZERO && world.sold(0).realised() == Msat::ZERO);
    assert_eq!(exhaust(&mut world, 0), 0, "(A): nothing is final");
}

#[test]
fn signing_byte_by_byte_opens_no_window() {
    let mut world = World::new(1, Price::per_gib(1_000), Rules::default());
    world.pay(0, 1_000_000);
    world.mine();
    let stream = world.open(0).unwrap();
    let (id, all) = (world.streams[stream].quote.id(), Groups::new(0, 1 << 10).unwrap());
    let mut admitted = 0;
    for units in 1..200 {
        let receipt = Some(SignedReceipt::sign(id, units, &key(2)).signed().clone()).filter(|_| units > 1);
        match world.seller.market.handle_want(START, &id, all, receipt) {
            Ok(groups) => admitted += groups.count() * GROUP_LEN,
            Err(refusal) => assert_eq!(refusal, Refusal::Malformed),
        }
    }
    assert_eq!(admitted, FIRST_WINDOW * PIPELINED_WANTS as u64);
}

#[test]
fn a_receipt_for_more_than_was_sent_lets_nothing_go() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay(0, 1_000_000);
    world.mine();
    let stream = world.open(0).unwrap();
    world.want(stream).unwrap().unwrap();
    let quote = world.streams[stream].quote.clone();
    let beyond = SignedReceipt::sign(quote.id(), 1 << 40, &key(2));
    let synced = world.seller.market.handle_sync(START, world.buyers[0].id(), vec![beyond.clone()]);
    assert_eq!(synced.lines, [(quote.id(), 0)]);
    let all = Groups::new(0, 1 << 10).unwrap();
    let admitted = world.seller.market.handle_want(START, &quote.id(), all, None).unwrap();
    assert_eq!(admitted.count() * GROUP_LEN, FIRST_WINDOW, "what is left of two windows");
    let refused = world.seller.market.handle_want(START, &quote.id(), all, Some(beyond.signed().clone()));
    assert_eq!(refused, Err(Refusal::Malformed));
    assert_eq!(world.sold(0).spent(), Msat::ZERO);
}

#[test]
fn a_stream_that_ends_before_a_byte_left_holds_nothing() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay(0, 1_000);
    world.mine();
    let stream = world.open(0).unwrap();
    world.want(stream).unwrap().unwrap();
    assert!(world.sold(0).held() > Msat::ZERO);
    world.end(stream, 0, false);
    assert_eq!((world.sold(0).held(), world.sold(0).lines().count()), (Msat::ZERO, 0));
}

#[test]
fn a_receipt_counts_after_the_seller_went_down_and_earned_meanwhile() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay(0, 1_000);
    world.mine();
    let stream = world.open(0).unwrap();
    world.want(stream).unwrap().unwrap();
    world.serve(stream, 4);
    world.crash_seller();
    world.mine();
    assert_eq!((world.sold(0).spent(), world.sold(0).held()), (Msat::ZERO, Msat::ZERO));
    world.sync(0);
    world.check_agreement(0);
    assert_eq!(world.sold(0).spent(), DEAR.charge(FIRST_WINDOW).unwrap());
}

#[test]
fn lines_that_are_never_signed_for_are_bounded_and_stay_held() {
    let mut world = World::new(1, Price::per_gib(1_000), Rules::default());
    world.pay(0, 1_000_000);
    world.mine();
    let rounds = 2 * MAX_LINES as u64;
    for _ in 0..rounds {
        drop_tail(&mut world, 0, 1, 1);
    }
    let account = world.sold(0);
    assert!(account.lines().count() <= MAX_LINES);
    assert_eq!(account.tail_bytes(), rounds * GROUP_LEN);
    assert_eq!(account.held(), Msat::new(rounds), "a msat for each");
    world.crash_seller();
    assert_eq!(world.sold(0), account, "also after a restart");
}

#[test]
fn one_buyer_can_not_take_all_places() {
    let mut world = World::new(2, DEAR, Rules::default());
    while world.open(0).is_ok() {}
    assert!(world.streams.len() < 100);
    assert!(matches!(world.open(0), Err(Refusal::Busy { .. })));
    assert!(world.open(1).is_ok());
}

#[test]
fn a_quote_is_used_once_and_only_by_its_buyer() {
    let mut world = World::new(2, DEAR, Rules::default());
    world.pay(0, 1_000);
    world.mine();
    let stream = world.open(0).unwrap();
    let quote = world.streams[stream].quote.clone();
    world.want(stream).unwrap().unwrap();
    world.serve(stream, 4);
    world.end(stream, 0, true);
    let (seller, root) = (world.seller.id(), quote.quote().object.into());
    let again = |buyer: usize| {
        world.buyers[buyer].market.handle_quote(START, seller, Request::Chunks(root), quote.signed().clone())
    };
    assert_eq!(again(0), Err(BuyError::Other("number")));
    assert_eq!(again(1), Err(BuyError::Other("buyer")));
    let receipt = SignedReceipt::sign(quote.id(), FIRST_WINDOW, &key(3));
    let before = world.sold(0);
    world.seller.market.handle_sync(START, world.buyers[1].id(), vec![receipt]);
    assert_eq!((world.sold(0), world.sold(1)), (before, Default::default()));
}

#[test]
fn a_quote_is_bought_only_as_it_was_asked_for() {
    let mut world = World::new(2, DEAR, Rules::default());
    let stream = world.open(0).unwrap();
    let good = world.streams[stream].quote.quote().clone();
    let (seller, other, root) = (world.seller.id(), world.buyers[1].id(), good.object.into());
    let says = |change: &dyn Fn(&mut Quote)| {
        let mut quote = good.clone();
        change(&mut quote);
        let signed = SignedQuote::sign(quote, &key(1)).signed().clone();
        world.buyers[0].market.handle_quote(START, seller, Request::Chunks(root), signed).map(drop)
    };
    assert_eq!(says(&|_| ()), Ok(()));
    assert_eq!(says(&|quote| quote.network = "signet".parse().unwrap()), Err(BuyError::Other("network")));
    assert_eq!(says(&|quote| quote.buyer = other), Err(BuyError::Other("buyer")));
    assert_eq!(says(&|quote| quote.object = [9; 32]), Err(BuyError::Other("object")));
    assert_eq!(says(&|quote| quote.collection = Some(root)), Err(BuyError::Other("collection")));
    // Signed by the one who quotes, in the name of another one.
    assert!(matches!(says(&|quote| quote.seller = other), Err(BuyError::Quote(_))));
    // A good quote of another seller, passed on.
    let theirs = SignedQuote::sign(Quote { seller: other, ..good.clone() }, &key(3)).signed().clone();
    let passed_on = world.buyers[0].market.handle_quote(START, seller, Request::Chunks(root), theirs);
    assert_eq!(passed_on, Err(BuyError::Other("seller")));
}

#[test]
fn nothing_more_is_sold_under_a_quote_that_has_ended() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay(0, 1_000);
    world.mine();
    let stream = world.open(0).unwrap();
    world.want(stream).unwrap().unwrap();
    world.serve(stream, 4);
    let ends = world.streams[stream].quote.quote().expires;
    world.now = ends;
    world.want(stream).unwrap().unwrap();
    world.serve(stream, 4);
    world.now = ends.saturating_add(std::time::Duration::from_millis(1));
    assert_eq!(world.want(stream), Some(Err(Refusal::PriceMoved)));
    // What was signed for with the last want counts all the same.
    assert_eq!(world.sold(0).spent(), DEAR.charge(8 * GROUP_LEN).unwrap());
}

#[test]
fn quotes_keep_their_numbers_when_the_clock_is_set_back() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay(0, 1_000);
    world.mine();
    let numbered = |world: &mut World| {
        let stream = world.open(0).unwrap();
        world.want(stream).unwrap().unwrap();
        world.serve(stream, 1);
        world.streams[stream].quote.quote().number
    };
    let first = numbered(&mut world);
    world.now = crate::time::Timestamp::EPOCH;
    world.crash_seller();
    assert!(numbered(&mut world) > first);
}

#[test]
fn a_quote_over_the_promised_price_is_not_bought_under() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay(0, 1_000);
    world.mine();
    let stream = world.open(0).unwrap();
    let mut quote = world.streams[stream].quote.quote().clone();
    let (seller, root) = (world.seller.id(), quote.object.into());
    quote.number += 1;
    quote.price = Price::per_gib(DEAR.msat_per_gib() + 1);
    let dear = SignedQuote::sign(quote.clone(), &key(1)).signed().clone();
    let market = &world.buyers[0].market;
    assert_eq!(
        market.handle_quote(START, seller, Request::Chunks(root), dear),
        Err(BuyError::TooDear { asked: quote.price, promised: DEAR })
    );
    let late = quote.expires.saturating_add(std::time::Duration::from_millis(1));
    let signed = SignedQuote::sign(quote, &key(1)).signed().clone();
    assert_eq!(market.handle_quote(late, seller, Request::Chunks(root), signed), Err(BuyError::Expired));
}

#[test]
fn a_seller_s_tales_of_payments_and_gifts_stay_small() {
    let mut world = World::new(1, DEAR, Rules::default());
    let coin = world.pay(0, 1_000);
    let told = |n: u32, height: u64| Payment {
        outpoint: OutPoint { txid: [8; 32], vout: n },
        topup: coin.id,
        amount_sat: 5,
        height,
        depth: 6,
        needed: 1,
        repaid: Some(crate::account::Repaid { debt: Msat::MAX, late_weight: 0, epoch: 0 }),
        fee_sat: 7,
        ours: true,
    };
    let (seller, market) = (world.seller.id(), &mut world.buyers[0].market);
    market.handle_synced(START, seller, &[], None, &[told(0, 0)]).unwrap();
    let again = market.handle_topup_wanted(START, seller, 1_000, TopUpId([5; 32]));
    assert_eq!(again, coin.id, "a lie about a payment does not have us pay twice");
    (0..2_000).for_each(|n| market.handle_synced(START, seller, &[], None, &[told(n, 1)]).unwrap());
    let mine = Payment { outpoint: OutPoint { txid: coin.id.0, vout: 0 }, ..told(0, 0) };
    market.handle_synced(START, seller, &[], None, &[mine]).unwrap();
    let account = market.account(&seller, Direction::Bought).unwrap();
    assert!(account.payments().count() <= 257);
    assert!(account.payments().any(|payment| payment.ours && payment.amount_sat == 1_000));
    let gift = SignedGrant::sign(&world.buyers[0].id(), Msat::MAX, &key(1)).signed().clone();
    let taken = world.buyers[0].market.handle_synced(START, seller, &[], Some(gift), &[]);
    assert!(matches!(taken, Err(SyncError::Grant(_))));
    // Told out of order, the larger one counts.
    let before = world.bought(0).paid();
    for msat in [7, 3] {
        let gift = SignedGrant::sign(&world.buyers[0].id(), Msat::new(msat), &key(1)).signed().clone();
        world.buyers[0].market.handle_synced(START, seller, &[], Some(gift), &[]).unwrap();
    }
    assert_eq!(world.bought(0).paid(), before.saturating_add(Msat::new(7)));
}
