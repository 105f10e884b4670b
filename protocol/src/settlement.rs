//! How debts and advances are paid: top-ups, the depth that money needs, rails and what they cost (MONEY.md 2.5, 4).
//!
//! **Invariant:** an address is given only against a signed request and names whom it is for; a payment in no block
//! counts as nothing.

mod advance;
mod topup;

pub use crate::offer::RailKind;
pub use advance::{Advance, AdvanceError, first_step, plan_advance};
pub use topup::{SignedTopUp, TopUp, TopUpError};

/// Depth at which a payment can't be taken back any more.
pub const FINAL_DEPTH: u32 = 6;

/// The smallest payment that nodes pass on to an address as wallets here have them (P2WPKH): Bitcoin Core's dust limit.
pub const DUST_SAT: u64 = 294;

/// The smallest advance a seller asks for unless its owner says otherwise: 1,000 sat, three times [`DUST_SAT`].
pub const MIN_TOPUP_SAT: u64 = 1_000;

/// One in this many sat is what a rail that is chosen automatically may cost.
pub const FEE_SHARE: u64 = 100;

/// One block costs a cheat about one reward: 3.125 BTC, a constant here on every network.
const REWARD_SAT: u64 = 312_500_000;

/// The depth at which money counts, for `value_sat` paid to us in its block and later and not yet final.
///
/// 1 up to a hundredth of a reward, 2 up to a tenth, 3 up to one, then 6 and one more for each reward (MONEY.md 4).
#[must_use]
pub fn depth_needed(value_sat: u64) -> u32 {
    let rewards = value_sat.div_ceil(REWARD_SAT);
    if value_sat <= REWARD_SAT / 100 {
        1
    } else if value_sat <= REWARD_SAT / 10 {
        2
    } else if value_sat <= REWARD_SAT {
        3
    } else {
        FINAL_DEPTH.saturating_add(u32::try_from(rewards).unwrap_or(u32::MAX))
    }
}

/// What it would cost to pay an amount over a rail, for the person or the rule that chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RailCost {
    /// The rail.
    pub kind: RailKind,
    /// What arrives, in sat: the amount, raised to the smallest that the rail carries.
    pub amount_sat: u64,
    /// What the network takes, in sat.
    pub fee_sat: u64,
}

impl RailCost {
    /// Whether the fee is a small enough share for a choice that nobody is asked about.
    #[must_use]
    pub fn within_share(&self) -> bool {
        self.fee_sat.saturating_mul(FEE_SHARE) <= self.amount_sat
    }
}

/// A way to pay one peer.
pub trait Rail {
    /// Which one it is.
    fn kind(&self) -> RailKind;

    /// What paying `amount_sat` costs, nothing where this rail can't.
    fn cost(&self, amount_sat: u64) -> Option<RailCost>;
}

/// One transaction for one payment, at today's fee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onchain {
    /// The fee of a payment now, in sat.
    pub fee_sat: u64,
    /// The smallest advance that the seller takes, in sat.
    pub min_sat: u64,
}

impl Rail for Onchain {
    fn kind(&self) -> RailKind {
        RailKind::Onchain
    }

    fn cost(&self, amount_sat: u64) -> Option<RailCost> {
        Some(RailCost { kind: self.kind(), amount_sat: amount_sat.max(self.min_sat), fee_sat: self.fee_sat })
    }
}

/// The cheapest of the rails for this amount, by what leaves the payer's purse in all.
#[must_use]
pub fn cheapest(rails: &[&dyn Rail], amount_sat: u64) -> Option<RailCost> {
    let costs = rails.iter().filter_map(|rail| rail.cost(amount_sat));
    costs.min_by_key(|cost| (cost.amount_sat.saturating_add(cost.fee_sat), cost.kind))
}

#[cfg(test)]
mod tests;
