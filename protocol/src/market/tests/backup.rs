//! One side is lost and comes back from an old backup: random trade before and after, checked against the other side.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::trade::{BUYERS, Fired, markets, ops};
use super::world::{DEAR, World, key};
use crate::account::{Account, Direction, Reminded, Reminder};
use crate::credit::Rules;
use crate::market::{Claim, Market};
use crate::money::Msat;
use crate::session::quote::SignedReceipt;
use crate::settlement::FINAL_DEPTH;
use crate::wire::peer_id;

/// Rows of a journal, by key.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// More pages than any account of these tests has.
const PAGES: usize = 100;

/// Sends a reminder over the wire.
fn carried(reminder: &Reminder, buyer: usize) -> Reminder {
    let (buyer, seller) = (peer_id(&key(buyer as u8 + 2)), peer_id(&key(1)));
    Reminder::from_wire(reminder.to_wire(), &buyer, &seller).unwrap()
}

impl World {
    /// The seller loses its home with all its streams, and comes back from these rows.
    fn seller_is_lost(&mut self, rows: &Rows) {
        self.crash_seller();
        self.seller.rows.clone_from(rows);
        self.seller.crash(self.now);
        self.seller.market.handle_backup(self.now);
        self.tell_all();
    }

    /// A buyer loses its home with all its streams, and comes back from these rows.
    fn buyer_is_lost(&mut self, buyer: usize, rows: &Rows) {
        self.crash_buyer(buyer);
        self.buyers[buyer].rows.clone_from(rows);
        self.buyers[buyer].crash(self.now);
        self.buyers[buyer].market.handle_backup(self.now);
        self.tell_all();
    }

    /// The pages of an account as they travel, the empty one at the end included.
    fn pages(&self, of: &Market, buyer: usize, direction: Direction) -> Vec<(Reminded, Reminder)> {
        let peer = if direction == Direction::Sold { self.buyers[buyer].id() } else { self.seller.id() };
        let (mut pages, mut from) = (Vec::new(), Reminded::default());
        while pages.len() < PAGES {
            let page = carried(&of.reminder(&peer, direction, from), buyer);
            let (reached, is_last) = (page.reaches(from).unwrap(), page.is_empty());
            pages.push((from, page));
            if is_last {
                return pages;
            }
            from = reached;
        }
        panic!("the pages do not end");
    }

    /// The seller's wallet gives back what is nobody's; and says what it sees.
    fn claimed(&mut self, claims: Vec<Claim>) {
        for claim in claims {
            let known: Vec<_> = self.seller.market.payees.keys().copied().collect();
            let id = claim.word.topup().id;
            let Some(coin) = self.coins.iter_mut().find(|coin| coin.id == id && coin.height > 0) else { continue };
            if coin.height <= claim.height && !known.contains(&coin.payee) {
                coin.payee = claim.payee;
                self.seller.market.handle_claimable(self.now, claim);
            }
        }
        self.seller.store();
        self.tell_all();
    }

    /// The buyer tells a restored seller what it has, as often as that is news.
    fn remind_seller(&mut self, buyer: usize) {
        let (us, them) = (self.buyers[buyer].id(), self.seller.id());
        for _ in 0..3 {
            let counts = self.sold(buyer).tab();
            if !self.buyers[buyer].market.reminds(&them, counts) {
                return;
            }
            for (_, page) in self.pages(&self.buyers[buyer].market, buyer, Direction::Bought) {
                let claims = self.seller.market.handle_buyers_reminder(self.now, us, &page);
                self.seller.store();
                self.claimed(claims);
            }
            self.buyers[buyer].market.handle_reminded(them, counts);
        }
    }

    /// What a buyer owes and neither its line nor the pool carries any more counts once it is paid.
    fn settle_what_is_not_borne(&mut self, buyer: usize) {
        let owes = self.bought(buyer).tab().debt();
        if self.sold(buyer).spent() < self.bought(buyer).spent() && owes > Msat::ZERO {
            self.pay_finally(buyer, owes.ceil_sat());
            self.remind_seller(buyer);
        }
    }

    /// A restored buyer asks the seller for what it has forgotten.
    fn recall(&mut self, buyer: usize) {
        let seller = self.seller.id();
        assert!(self.buyers[buyer].market.forgets(&seller));
        for (from, page) in self.pages(&self.seller.market, buyer, Direction::Sold) {
            let market = &mut self.buyers[buyer].market;
            let reached = market.handle_reminder(self.now, seller, from, &page).unwrap();
            assert_eq!(reached, Some(page.reaches(from).unwrap()).filter(|_| !page.is_empty()));
            self.buyers[buyer].store();
        }
        self.buyers[buyer].market.handle_recalled(seller);
        // Its wallet has found the payments of these ids.
        self.tell_all();
    }

    /// Everything that was ever said is said again, twice: no money moves, and then nothing is even written down.
    fn replay_everything(&mut self, buyer: usize) {
        let tabs = (self.sold(buyer).tab(), self.bought(buyer).tab());
        // Of receipts that cost the same msat the higher one may be news.
        self.say_everything(buyer);
        assert_eq!((self.sold(buyer).tab(), self.bought(buyer).tab()), tabs);
        self.seller.store();
        self.buyers[buyer].store();
        let before = (self.sold(buyer), self.bought(buyer));
        self.say_everything(buyer);
        assert_eq!(self.seller.market.poll_entries().1, []);
        assert_eq!(self.buyers[buyer].market.poll_entries().1, []);
        assert_eq!((self.sold(buyer), self.bought(buyer)), before);
    }

    fn say_everything(&mut self, buyer: usize) {
        let (us, them) = (self.buyers[buyer].id(), self.seller.id());
        for (_, page) in self.pages(&self.buyers[buyer].market, buyer, Direction::Bought) {
            drop(self.seller.market.handle_buyers_reminder(self.now, us, &page));
        }
        for (from, page) in self.pages(&self.seller.market, buyer, Direction::Sold) {
            self.buyers[buyer].market.handle_reminder(self.now, them, from, &page).unwrap();
        }
        let heard = self.heard.clone();
        for (whose, receipt) in heard.into_iter().filter(|(whose, _)| *whose == buyer) {
            self.seller.market.handle_sync(self.now, self.buyers[whose].id(), vec![receipt]);
        }
    }

    fn end_all(&mut self) {
        while !self.streams.is_empty() {
            self.end(0, 1, true);
        }
    }
}

/// What the schedules are about, and how often it has happened.
#[derive(Debug, Default, Clone, Copy)]
struct Lost {
    lines: u32,
    payments: u32,
    receipts: u32,
}

impl Lost {
    fn count(&mut self, before: &Account, restored: &Account) {
        let forgotten = before.lines().filter(|line| line.signed_units() > 0 && restored.line(&line.id()).is_none());
        self.lines += forgotten.count() as u32;
        let older = |line: &&crate::account::Line| {
            restored.line(&line.id()).is_some_and(|known| known.signed_units() < line.signed_units())
        };
        self.receipts += before.lines().filter(older).count() as u32;
        let unknown = before.payments().filter(|paid| restored.payments().all(|known| known.outpoint != paid.outpoint));
        self.payments += unknown.count() as u32;
    }
}

fn run(seller_is_lost: bool) -> Lost {
    let lost = Cell::new(Lost::default());
    let mut runner = TestRunner::new(Config { cases: 96, ..Config::with_source_file(file!()) });
    let schedule = (markets(), ops(), ops(), 0..usize::from(BUYERS));
    let outcome = runner.run(&schedule, |((price, rules), before, after, buyer)| {
        let (mut world, mut fired, mut seen) = (World::new(BUYERS, price, rules), Fired::default(), lost.get());
        world.pay_finally(0, 5_000);
        before.iter().for_each(|op| world.run(op, &mut fired));
        let rows = if seller_is_lost { &world.seller.rows } else { &world.buyers[buyer].rows }.clone();
        world.pay_finally(buyer, 3_000);
        after.iter().for_each(|op| world.run(op, &mut fired));
        world.end_all();
        (0..FINAL_DEPTH).for_each(|_| world.mine());
        // What was said and not heard is not what this is about.
        (0..usize::from(BUYERS)).for_each(|buyer| world.sync(buyer));
        let (sold, bought) = (world.sold(buyer), world.bought(buyer));
        if seller_is_lost {
            world.seller_is_lost(&rows);
            seen.count(&sold, &world.sold(buyer));
            (0..usize::from(BUYERS)).for_each(|buyer| world.remind_seller(buyer));
            (0..usize::from(BUYERS)).for_each(|buyer| world.settle_what_is_not_borne(buyer));
        } else {
            world.buyer_is_lost(buyer, &rows);
            seen.count(&bought, &world.bought(buyer));
            world.recall(buyer);
        }
        for buyer in 0..usize::from(BUYERS) {
            world.sync(buyer);
            world.check_agreement(buyer);
            world.replay_everything(buyer);
        }
        world.audit();
        prop_assert_eq!(world.sold(buyer).tab().spent, sold.tab().spent);
        prop_assert!(world.sold(buyer).paid_by_chain() >= sold.paid_by_chain());
        prop_assert_eq!(world.sold(buyer).paid(), world.bought(buyer).paid());
        prop_assert!(world.bought(buyer).tab().paid >= bought.tab().paid);
        lost.set(seen);
        Ok(())
    });
    println!("faults fired: {:?}", lost.get());
    outcome.unwrap();
    lost.get()
}

#[test]
fn a_seller_that_was_restored_learns_its_books_from_its_buyers() {
    let Lost { lines, payments, receipts } = run(true);
    assert!(lines > 0 && payments > 0 && receipts > 0);
}

#[test]
fn a_buyer_that_was_restored_learns_its_books_from_its_sellers() {
    let Lost { lines, payments, receipts } = run(false);
    assert!(lines > 0 && payments > 0 && receipts > 0);
}

/// A seller that forgot what followed these rows, after a buyer has spent what it had paid.
fn forgetful_seller() -> World {
    let rules = Rules { stake: Msat::new(100_000), ..Rules::default() };
    let mut world = World::new(2, DEAR, rules);
    world.pay_finally(0, 1_000);
    let rows = world.seller.rows.clone();
    world.pay_finally(0, 2_000);
    let stream = world.open(0).unwrap();
    let mut fired = Fired::default();
    while world.want_checked(stream, &mut fired) {
        world.serve(stream, u64::MAX >> 20);
        if world.sold(0).tab().room(Msat::ZERO) < Msat::new(300_000) {
            break;
        }
    }
    world.end_all();
    world.sync(0);
    assert!(world.sold(0).spent() > Msat::new(2_000_000), "{:?}", world.sold(0).tab());
    world.seller_is_lost(&rows);
    world
}

#[test]
fn who_keeps_papers_back_gains_no_more_than_they_would_have_cost() {
    let mut world = forgetful_seller();
    let (paid, spent) = (world.bought(0).paid(), world.bought(0).spent());
    // What the chain does not show of it, it does not have; what it hides, it has not spent.
    let hidden = world.sold(0);
    assert_eq!((hidden.paid(), hidden.spent()), (Msat::from_sat(1_000).unwrap(), Msat::ZERO));
    assert!(hidden.tab().room(world.allowance(0)) <= spent);
    world.remind_seller(0);
    assert_eq!((world.sold(0).paid(), world.sold(0).spent()), (paid, spent));
    world.replay_everything(0);
    world.audit();
    println!("faults fired: 1 seller forgot {spent}");
}

#[test]
fn nobody_takes_what_strangers_may_have_by_signing_for_more() {
    let mut world = forgetful_seller();
    let (cheat, seller) = (world.buyers[1].id(), world.seller.id());
    let mut signed = 0;
    for _ in 0..20 {
        let stream = world.open(1).unwrap();
        let quote = world.streams[stream].quote.clone();
        world.end(stream, 0, false);
        // A thousand times what was ever sent: it would owe that, and never pay.
        let receipt = SignedReceipt::sign(quote.id(), quote.quote().size, &key(3));
        let page = Reminder { lines: vec![(quote, receipt)], ..Reminder::default() };
        drop(world.seller.market.handle_buyers_reminder(world.now, cheat, &carried(&page, 1)));
        world.seller.store();
        signed += 1;
    }
    assert_eq!(world.sold(1).spent(), Msat::ZERO);
    assert!(world.seller.market.pool(world.now).covers(Msat::new(1), &world.seller.market.terms().credit));
    // What others signed is none of a buyer's, whoever shows it.
    let page = world.buyers[0].market.reminder(&seller, Direction::Bought, Reminded::default());
    assert!(Reminder::from_wire(page.to_wire(), &cheat, &seller).is_err());
    world.audit();
    println!("faults fired: {signed} debts that nobody would pay");
}

#[test]
fn who_was_never_restored_is_reminded_of_nothing() {
    let mut world = World::new(1, DEAR, Rules::default());
    world.pay_finally(0, 1_000);
    let stream = world.open(0).unwrap();
    let quote = world.streams[stream].quote.clone();
    world.end(stream, 0, false);
    let receipt = SignedReceipt::sign(quote.id(), 1, &key(2));
    let page = Reminder { lines: vec![(quote, receipt)], ..Reminder::default() };
    let (buyer, seller) = (world.buyers[0].id(), world.seller.id());
    assert_eq!(world.seller.market.handle_buyers_reminder(world.now, buyer, &page), []);
    let taken = world.buyers[0].market.handle_reminder(world.now, seller, Reminded::default(), &page);
    assert_eq!(taken, Ok(None));
    assert_eq!((world.seller.market.poll_entries().1, world.buyers[0].market.poll_entries().1), (vec![], vec![]));
    // And pages that do not go on are none.
    let reached = page.reaches(Reminded::default()).unwrap();
    assert!(page.reaches(reached).is_err());
}
