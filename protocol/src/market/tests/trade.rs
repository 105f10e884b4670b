//! Random schedules of trade, loss and crashes, checked against plain arithmetic (MONEY.md 9: I1, I2, I5, I6, I9, I10).

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::world::{DEAR, World};
use crate::credit::Rules;
use crate::money::{Msat, Price};

pub(super) const BUYERS: u8 = 3;

/// What happens next; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Open {
        buyer: usize,
    },
    Want {
        stream: usize,
    },
    Serve {
        stream: usize,
        groups: u64,
    },
    /// Wants and serves in turn.
    Flow {
        stream: usize,
        rounds: u8,
    },
    End {
        stream: usize,
        lost: u64,
        receipt: bool,
    },
    Sync {
        buyer: usize,
    },
    Replay {
        which: usize,
    },
    Pay {
        buyer: usize,
        sat: u64,
    },
    Mine {
        blocks: u8,
    },
    Wait {
        hours: u64,
    },
    CrashSeller,
    CrashBuyer {
        buyer: usize,
    },
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (any, buyer) = (any::<usize>, 0..usize::from(BUYERS));
    let op = prop_oneof![
        3 => buyer.clone().prop_map(|buyer| Op::Open { buyer }),
        12 => any().prop_map(|stream| Op::Want { stream }),
        12 => (any(), 1..40_u64).prop_map(|(stream, groups)| Op::Serve { stream, groups }),
        4 => (any(), 1..12_u8).prop_map(|(stream, rounds)| Op::Flow { stream, rounds }),
        2 => (any(), 0..8_u64, proptest::bool::ANY)
            .prop_map(|(stream, lost, receipt)| Op::End { stream, lost, receipt }),
        2 => buyer.clone().prop_map(|buyer| Op::Sync { buyer }),
        2 => any().prop_map(|which| Op::Replay { which }),
        2 => (buyer.clone(), 1..20_000_u64).prop_map(|(buyer, sat)| Op::Pay { buyer, sat }),
        3 => (1..4_u8).prop_map(|blocks| Op::Mine { blocks }),
        1 => (1..48_u64).prop_map(|hours| Op::Wait { hours }),
        1 => Just(Op::CrashSeller),
        1 => buyer.prop_map(|buyer| Op::CrashBuyer { buyer }),
    ];
    proptest::collection::vec(op, 1..120)
}

impl World {
    pub(super) fn run(&mut self, op: &Op, fired: &mut Fired) {
        let stream_of = |which: usize| which.checked_rem(self.streams.len());
        match *op {
            Op::Open { buyer } => drop(self.open(buyer)),
            Op::Want { stream } => {
                if let Some(stream) = stream_of(stream) {
                    self.want_checked(stream, fired);
                }
            }
            Op::Flow { stream, rounds } => {
                let Some(stream) = stream_of(stream) else {
                    return;
                };
                for _ in 0..rounds {
                    if !self.want_checked(stream, fired) {
                        return;
                    }
                    self.serve(stream, u64::MAX >> 20);
                }
            }
            Op::Serve { stream, groups } => {
                if let Some(stream) = stream_of(stream) {
                    self.serve(stream, groups);
                }
            }
            Op::End { stream, lost, receipt } => {
                if let Some(stream) = stream_of(stream) {
                    self.end(stream, lost, receipt);
                }
            }
            Op::Sync { buyer } => {
                self.sync(buyer);
                self.check_agreement(buyer);
            }
            Op::Replay { which } => self.replay(which),
            Op::Pay { buyer, sat } => drop(self.pay(buyer, sat)),
            Op::Mine { blocks } => (0..blocks).for_each(|_| self.mine()),
            Op::Wait { hours } => self.wait(Duration::from_secs(hours * 3_600)),
            Op::CrashSeller => {
                fired.crashes_in_trade += u32::from(self.streams.iter().any(|stream| stream.sent > 0));
                self.crash_seller();
            }
            Op::CrashBuyer { buyer } => self.crash_buyer(buyer),
        }
    }

    /// Whether the stream is still there.
    pub(super) fn want_checked(&mut self, stream: usize, fired: &mut Fired) -> bool {
        let buyer = self.streams[stream].buyer;
        match self.want(stream) {
            Some(Ok(_)) => self.check_start_of_work(buyer, fired),
            Some(Err(_)) => {
                fired.refused += 1;
                return false;
            }
            None => {}
        }
        true
    }

    /// I6 and I10 at a start of work, the latter from raw figures and in its two parts.
    fn check_start_of_work(&self, buyer: usize, fired: &mut Fired) {
        fired.admitted += 1;
        let (tab, allowance) = (self.sold(buyer).tab(), self.allowance(buyer));
        assert_eq!(tab.missing(Msat::ZERO, allowance), Msat::ZERO, "I6: {tab:?} with {allowance}");
        let line = |buyer: usize| self.allowance(buyer) > Msat::ZERO;
        if line(buyer) {
            fired.on_credit += u32::from(self.unsecured(buyer) > 0);
            let bound = self.sold(buyer).earned().msat() * 15 / 100;
            assert!(self.unsecured(buyer) <= bound, "(A): {} of {bound}", self.unsecured(buyer));
        } else if self.unsecured(buyer) > 0 {
            self.check_pool();
        }
    }

    /// (B), from raw figures.
    fn check_pool(&self) {
        let all = 0..self.buyers.len();
        let realised: u64 = all.clone().map(|buyer| self.sold(buyer).realised().msat()).sum();
        let strangers = all.clone().filter(|buyer| self.allowance(*buyer) == Msat::ZERO);
        let outstanding: u64 = strangers.map(|buyer| self.unsecured(buyer).saturating_sub(self.carried(buyer))).sum();
        let lost: u64 = all.map(|buyer| self.sold(buyer).history().granted().msat()).sum();
        let bound = self.seller.market.terms().credit.stake.msat() + realised * 6 / 1_000;
        assert!(lost + outstanding <= bound, "(B): {lost} and {outstanding} of {bound}");
    }

    /// What a line once carried of a buyer that has lost it.
    fn carried(&self, buyer: usize) -> u64 {
        let sold = self.sold(buyer);
        let had = *sold.conduct() != crate::account::Conduct::default();
        let line = sold.earned().msat() * 15 / 100;
        if had { line.max(sold.conduct().lost_line.msat()) } else { 0 }
    }

    /// I9: what was heard before changes nothing, and is not even written.
    fn replay(&mut self, which: usize) {
        let Some(which) = which.checked_rem(self.heard.len()) else {
            return;
        };
        let (buyer, receipt) = self.heard[which].clone();
        let before = self.sold(buyer);
        self.seller.market.handle_sync(self.now, self.buyers[buyer].id(), vec![receipt.clone(), receipt]);
        assert_eq!(self.seller.market.poll_entries().1.len(), 0);
        assert_eq!(self.sold(buyer), before);
        self.tell_all();
        self.tell_all();
        assert_eq!(self.sold(buyer).tab(), before.tab());
    }

    /// What must hold at every moment: the audit, I2 against the spent totals before, I5's bound.
    pub(super) fn check(&self, spent: &mut [(Msat, Msat)]) {
        self.audit();
        for (buyer, before) in spent.iter_mut().enumerate() {
            let now = (self.sold(buyer).spent(), self.bought(buyer).spent());
            assert!(now.0 >= before.0 && now.1 >= before.1, "I2: {now:?} after {before:?}");
            assert!(now.0 <= now.1, "the seller counts {}, the buyer signed for {}", now.0, now.1);
            *before = now;
            self.check_difference(buyer);
        }
    }
}

/// Prices from a thousandth of what is usual to very dear, pools from nothing to wide, with and without gifts.
pub(super) fn markets() -> impl Strategy<Value = (Price, Rules)> {
    let price = prop_oneof![Just(10), Just(10_000), Just(7_777_777), Just(DEAR.msat_per_gib()), Just(1 << 33)];
    (price, 0..2_000_000_u64, 0..2_000_u64).prop_map(|(price, stake, grant)| {
        let rules = Rules { stake: Msat::new(stake), grant: Msat::new(grant), ..Rules::default() };
        (Price::per_gib(price), rules)
    })
}

/// How often what the schedules are about has happened.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Fired {
    pub(super) admitted: u32,
    pub(super) refused: u32,
    on_credit: u32,
    crashes_in_trade: u32,
    disagreements: u32,
}

#[test]
fn books_agree_after_any_schedule() {
    let fired = Cell::new(Fired::default());
    let mut runner = TestRunner::new(Config { cases: 128, ..Config::with_source_file(file!()) });
    let outcome = runner.run(&(markets(), ops()), |((price, rules), ops)| {
        let mut world = World::new(BUYERS, price, rules);
        let mut spent = vec![(Msat::ZERO, Msat::ZERO); usize::from(BUYERS)];
        let mut seen = fired.get();
        world.pay_finally(0, 5_000);
        for op in &ops {
            world.run(op, &mut seen);
            world.check(&mut spent);
        }
        while !world.streams.is_empty() {
            world.end(0, 3, false);
        }
        for buyer in 0..usize::from(BUYERS) {
            seen.disagreements += u32::from(world.sold(buyer).spent() != world.bought(buyer).spent());
            world.sync(buyer);
            world.check_agreement(buyer);
        }
        world.check(&mut spent);
        fired.set(seen);
        Ok(())
    });
    println!("faults fired: {:?}", fired.get());
    outcome.unwrap();
    let Fired { admitted, refused, on_credit, crashes_in_trade, disagreements } = fired.get();
    assert!([admitted, refused, on_credit, crashes_in_trade, disagreements].iter().all(|n| *n > 0));
}
