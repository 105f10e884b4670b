//! Debts over time: bills, late payments, default and cure, each against plain figures, and random schedules of them all.

use std::cell::Cell;
use std::time::Duration;

use proptest::test_runner::{Config, TestRunner};

use super::trade::{BUYERS, Fired, Op, markets, ops};
use super::world::{DEAR, World};
use crate::account::{Bill, Conduct};
use crate::credit::Rules;
use crate::ledger::LedgerAccount;
use crate::market::Standing;
use crate::money::Msat;
use crate::refusal::Refusal;

const HOUR: Duration = Duration::from_secs(3600);

fn sat(sat: u64) -> Msat {
    Msat::from_sat(sat).unwrap()
}

impl World {
    /// Hours of the seller's clock, looked at every hour.
    fn pass(&mut self, hours: u64) {
        for _ in 0..hours {
            self.wait(HOUR);
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.seller.market.handle_clock(self.now);
        self.seller.store();
    }

    fn conduct(&self, buyer: usize) -> Conduct {
        self.sold(buyer).conduct().clone()
    }

    fn bill(&self, buyer: usize) -> Bill {
        self.conduct(buyer).bill.unwrap()
    }

    fn standing(&self, buyer: usize) -> Standing {
        self.seller.market.standing(&self.buyers[buyer].id(), self.now)
    }

    /// Takes and signs for as much as it gets; what it is refused with.
    fn buy_all(&mut self, buyer: usize) -> Refusal {
        let stream = self.open(buyer).unwrap();
        loop {
            match self.want(stream) {
                Some(Err(refusal)) => break refusal,
                Some(Ok(_)) | None => self.serve(stream, u64::MAX >> 20),
            }
        }
    }

    /// A buyer that has paid for much, and owes all that it may.
    fn in_debt() -> Self {
        let mut world = Self::new(2, DEAR, Rules::default());
        world.pay_finally(0, 50_000);
        world.buy_all(0);
        world.sync(0);
        assert!(world.sold(0).tab().debt() > sat(500), "{}", world.sold(0).tab().debt());
        world
    }
}

#[test]
fn a_debt_near_the_line_is_billed_at_once() {
    let mut world = World::in_debt();
    let bill = world.bill(0);
    let billed = bill.upto.saturating_sub(world.sold(0).paid());
    assert!(billed > sat(600) && bill.upto <= world.sold(0).spent(), "0.8 of a line of 750 sat: {billed}");
    assert_eq!((bill.aged_ms, bill.overdue), (0, None));
    let lacking = world.sold(0).tab().debt().msat() / 1000;
    world.pay_finally(0, 300);
    assert_eq!(world.bill(0).upto, bill.upto, "a part of it settles nothing");
    world.pay_finally(0, lacking - 299);
    assert_eq!(world.conduct(0), Conduct::default());
    assert_eq!(world.sold(0).trust().late, Msat::ZERO);
    assert!(world.sold(0).trust().on >= sat(lacking));
}

#[test]
fn paid_late_counts_against_a_buyer_for_each_day() {
    let mut world = World::in_debt();
    let debt = world.sold(0).tab().debt();
    world.pass(71);
    assert_eq!(world.bill(0).overdue, None);
    world.pass(1);
    assert_eq!(world.standing(0), Standing::Overdue { since: world.now });
    assert_eq!(world.allowance(0), Msat::ZERO);
    assert!(matches!(world.buy_all(0), Refusal::PastDue));
    world.pass(50);
    world.crash_seller();
    world.pay_finally(0, 20_000);
    let trust = world.sold(0).trust();
    assert_eq!((trust.on, trust.late), (Msat::ZERO, Msat::new(debt.msat() * 3)), "two days late: three times");
    assert_eq!((world.standing(0), world.conduct(0)), (Standing::Prepaid, Conduct::default()));
    world.audit();
}

#[test]
fn a_default_is_booked_bad_and_its_cure_starts_from_nothing() {
    let mut world = World::in_debt();
    let (buyer, debt) = (world.buyers[0].id(), world.sold(0).tab().debt());
    let books = |world: &World| {
        let ledger = world.seller.market.ledger();
        (ledger.balance(LedgerAccount::BadDebt), ledger.balance(LedgerAccount::Receivable(buyer)), ledger.sum())
    };
    assert_eq!(books(&world), (0, i128::from(debt.msat()), 0));
    world.pass(72 + 7 * 24);
    world.crash_seller();
    assert!(matches!(world.standing(0), Standing::Defaulted { .. }));
    assert_eq!(books(&world), (i128::from(debt.msat()), 0, 0));
    assert_eq!(world.sold(0).earned(), Msat::ZERO, "(C)");
    assert!(matches!(world.open(0), Err(Refusal::Blocked)));
    world.sync(0);
    world.audit();
    world.pay_finally(0, 20_000);
    assert_eq!((books(&world).0, books(&world).2), (0, 0));
    let (sold, conduct) = (world.sold(0), world.conduct(0));
    assert_eq!((conduct.defaulted, conduct.strikes, sold.earned()), (None, 1, Msat::ZERO));
    assert_eq!((sold.trust().on, sold.trust().late, world.allowance(0)), (Msat::ZERO, Msat::ZERO, Msat::ZERO));
    world.buy_all(0);
    world.sync(0);
    assert!(world.sold(0).earned() > sat(19_000) && world.allowance(0) > Msat::ZERO, "new trade counts anew");
    assert!(world.sold(0).earned() < sat(20_000), "and only that");
    world.audit();
}

#[test]
fn one_jump_of_the_clock_puts_nobody_into_default() {
    let mut world = World::in_debt();
    world.wait(HOUR * 24 * 365);
    world.tick();
    assert_eq!((world.bill(0).aged_ms, world.bill(0).overdue), (6 * 3_600_000, None));
    world.now = world.now.saturating_sub(HOUR * 24 * 365);
    world.tick();
    world.pass(65);
    assert_eq!(world.bill(0).overdue, None);
    world.pass(2);
    assert!(world.bill(0).overdue.is_some(), "and the clock goes on from there");
    // Blocks prove that time has passed while we were down.
    (0..432).for_each(|_| world.mine());
    world.wait(HOUR * 72);
    world.tick();
    assert!(world.bill(0).aged_ms >= 72 * 2 * 3_600_000);
}

#[test]
fn a_payment_on_its_way_stops_the_clock_once() {
    let mut world = World::in_debt();
    world.pass(70);
    let before = world.bill(0).aged_ms;
    world.pay(0, 20_000);
    world.pass(100);
    assert_eq!(world.bill(0).aged_ms, before);
    world.tip += 144;
    let tip = world.tip;
    world.seller.market.handle_tip(tip);
    world.pass(2);
    assert!(world.bill(0).overdue.is_some(), "it never came into a block");
}

#[test]
fn no_clock_runs_on_what_no_payment_can_carry() {
    let mut world = World::in_debt();
    let lacking = world.sold(0).tab().debt().msat() - 500;
    world.pay(0, lacking / 1000);
    world.mine();
    assert!(world.sold(0).tab().debt() < sat(2));
    world.pass(24 * 30);
    assert!(
        !matches!(world.standing(0), Standing::Defaulted { .. } | Standing::Overdue { .. })
            || world.sold(0).tab().debt() >= sat(1)
    );
}

/// (A), (B) and the books hold whatever comes due, and whoever defaults, in whatever order.
#[test]
fn bounds_hold_while_debts_grow_old() {
    let seen = Cell::new((Fired::default(), 0_u32, 0_u32, 0_u32));
    let mut runner = TestRunner::new(Config { cases: 96, ..Config::with_source_file(file!()) });
    let step = (ops(), 0..400_u64, 0..usize::from(BUYERS));
    let outcome = runner.run(&(markets(), proptest::collection::vec(step, 1..4)), |((price, rules), steps)| {
        let mut world = World::new(BUYERS, price, rules);
        let mut spent = vec![(Msat::ZERO, Msat::ZERO); usize::from(BUYERS)];
        let (mut fired, mut late, mut defaults, mut cures) = seen.get();
        world.pay_finally(0, 5_000);
        for (ops, hours, payer) in &steps {
            for op in ops.iter().filter(|op| !matches!(op, Op::Replay { .. })) {
                world.run(op, &mut fired);
                world.check(&mut spent);
            }
            for _ in 0..*hours {
                world.pass(1);
            }
            world.check(&mut spent);
            late += u32::from((0..3).any(|buyer| world.conduct(buyer).bill.is_some_and(|bill| bill.overdue.is_some())));
            let lost: Vec<usize> = (0..3).filter(|buyer| world.conduct(*buyer).defaulted.is_some()).collect();
            defaults += u32::from(!lost.is_empty());
            world.pay_finally(*payer, 1 << 20);
            cures += u32::from(lost.contains(payer) && world.conduct(*payer).defaulted.is_none());
            world.check(&mut spent);
        }
        seen.set((fired, late, defaults, cures));
        Ok(())
    });
    println!("seen: {:?}", seen.get());
    outcome.unwrap();
    let (fired, late, defaults, cures) = seen.get();
    assert!([fired.admitted, fired.refused, late, defaults, cures].iter().all(|n| *n > 0));
}
