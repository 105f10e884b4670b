//! How deep money must be before it counts, and before it can't be taken back (MONEY.md 4).
//!
//! The wallet counts to [`FINAL_DEPTH`] and no further; what has to be deeper is counted from its height to the tip.

use std::collections::BTreeMap;

use crate::account::{Direction, Payment};
use crate::market::Market;
use crate::settlement::{FINAL_DEPTH, depth_needed};

/// Payments that are judged together, by the height of their block.
struct Pile {
    /// All of them, in sat.
    all: BTreeMap<u64, u64>,
    /// Those that are not final yet, in sat.
    unsettled: BTreeMap<u64, u64>,
    tip_height: u64,
}

impl Market {
    /// Judges anew how deep each payment must be.
    pub(super) fn recredit(&mut self) {
        let tip_height = self.tip_height;
        let sold = self.accounts().filter(|(_, direction, _)| *direction == Direction::Sold);
        let received = Pile::of(tip_height, sold.flat_map(|(_, _, account)| account.payments()));
        for ((_, direction), account) in &mut self.accounts {
            match direction {
                Direction::Sold => account.recredit(|payment| received.needed(payment)),
                Direction::Bought => {
                    // What a seller tells of payments by others makes none of ours wait: its promise goes with ours.
                    let own = Pile::of(tip_height, account.payments().filter(|payment| payment.ours));
                    let all = Pile::of(tip_height, account.payments());
                    account.recredit(|payment| if payment.ours { own.needed(payment) } else { all.needed(payment) });
                }
            }
        }
    }
}

impl Pile {
    fn of<'a>(tip_height: u64, payments: impl Iterator<Item = &'a Payment>) -> Self {
        let mut pile = Self { all: BTreeMap::new(), unsettled: BTreeMap::new(), tip_height };
        let payments: Vec<&Payment> = payments.filter(|payment| payment.depth > 0).collect();
        payments.iter().for_each(|payment| add(&mut pile.all, payment));
        for payment in payments {
            if pile.depth(payment) < pile.final_depth(payment.height) {
                add(&mut pile.unsettled, payment);
            }
        }
        pile
    }

    /// How deep a payment must be, as its own depth is counted: by what is not final in its block and after it. One that
    /// is final stays so, whatever is paid after it.
    fn needed(&self, payment: &Payment) -> u32 {
        let later = self.unsettled.range(payment.height..);
        let needed = depth_needed(later.fold(0, |sum, (_, sat)| sum.saturating_add(*sat)));
        let settled = payment.depth > 0 && self.depth(payment) >= self.final_depth(payment.height);
        if settled { needed.min(FINAL_DEPTH) } else { needed }
    }

    /// Depth at which what a block holds can't be taken back: digging must cost a cheat more than all of it.
    fn final_depth(&self, height: u64) -> u32 {
        depth_needed(self.all.get(&height).copied().unwrap_or(0)).max(FINAL_DEPTH)
    }

    fn depth(&self, payment: &Payment) -> u32 {
        if payment.depth < FINAL_DEPTH {
            return payment.depth;
        }
        let above = self.tip_height.saturating_add(1).saturating_sub(payment.height);
        u32::try_from(above).unwrap_or(u32::MAX).max(payment.depth)
    }
}

fn add(by_height: &mut BTreeMap<u64, u64>, payment: &Payment) {
    let sat = by_height.entry(payment.height).or_default();
    *sat = sat.saturating_add(payment.amount_sat);
}
