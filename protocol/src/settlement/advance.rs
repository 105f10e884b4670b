//! What a buyer leaves with a seller before it is served (MONEY.md 2.5).

use crate::credit::Ratio;
use crate::money::{Msat, Price};
use crate::settlement::{Onchain, cheapest};

/// The bytes whose price is a first step: four groups.
const FIRST_STEP_BYTES: u64 = 64 * 1024;

/// The least that a first step comes to: 1 sat, the smallest amount that most rails carry.
const FIRST_STEP_FLOOR: Msat = Msat::new(1_000);

/// The most that is left with a seller that has not yet served, unless a person said so: 100 sat.
const UNASKED: Msat = Msat::new(100_000);

/// ζ: the part of what a seller has served well that may be left with it again.
const ZETA: Ratio = Ratio { num: 1, den: 10 };

/// What is left unasked with a seller who has served `served` since its last failure.
///
/// `max(1 sat, price of 64 KiB)` at first, at most 100 sat; then a tenth of what was verified.
#[must_use]
pub fn first_step(price: Price, served: Msat) -> Msat {
    let step = price.charge(FIRST_STEP_BYTES).unwrap_or(Msat::MAX).max(FIRST_STEP_FLOOR).min(UNASKED);
    step.max(ZETA.of(served))
}

/// An advance that may be paid now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// What the seller gets, in sat.
    pub amount_sat: u64,
    /// What the network takes, in sat.
    pub fee_sat: u64,
}

/// Why an advance is not paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdvanceError {
    /// More than a node leaves with a seller by itself, or at a fee that is too large a share: a person must say so.
    #[error("an advance of {amount_sat} sat (fee {fee_sat} sat) needs your word")]
    NeedsWord {
        /// The smallest that would do, in sat.
        amount_sat: u64,
        /// Its fee, in sat.
        fee_sat: u64,
    },
    /// What the person allowed is less than the seller takes, or would not get the first unit: paid for nothing.
    #[error("{word_sat} sat were allowed, the seller takes no less than {amount_sat} sat")]
    TooSmall {
        /// What was allowed, in sat.
        word_sat: u64,
        /// The smallest that would do, in sat.
        amount_sat: u64,
    },
    /// All that can be lost is more than the person's limit.
    #[error("an advance of {amount_sat} sat and its fee of {fee_sat} sat are over the limit of {limit_sat} sat")]
    OverLimit {
        /// The advance, in sat.
        amount_sat: u64,
        /// Its fee, in sat.
        fee_sat: u64,
        /// The limit, in sat.
        limit_sat: u64,
    },
}

/// Decides on an advance for `missing`: what a person allowed (`word`) wins over what is left unasked (`unasked`, while
/// the fee is within its share), and `limit` bounds all that can be lost, fee included.
///
/// # Errors
/// [`AdvanceError`] holds the amounts that a person needs to decide.
pub fn plan_advance(
    missing: Msat,
    rail: Onchain,
    word_sat: Option<u64>,
    unasked: Msat,
    limit: Option<Msat>,
) -> Result<Advance, AdvanceError> {
    let Some(cost) = cheapest(&[&rail], missing.ceil_sat()) else {
        return Err(AdvanceError::NeedsWord { amount_sat: missing.ceil_sat(), fee_sat: 0 });
    };
    let (needed_sat, fee_sat) = (cost.amount_sat, cost.fee_sat);
    let amount_sat = match word_sat {
        Some(word_sat) if word_sat < needed_sat => {
            return Err(AdvanceError::TooSmall { word_sat, amount_sat: needed_sat });
        }
        Some(word_sat) => word_sat,
        None if needed_sat <= unasked.floor_sat() && cost.within_share() => needed_sat,
        None => return Err(AdvanceError::NeedsWord { amount_sat: needed_sat, fee_sat }),
    };
    let lost_sat = amount_sat.saturating_add(fee_sat);
    match limit.map(Msat::floor_sat) {
        Some(limit_sat) if lost_sat > limit_sat => Err(AdvanceError::OverLimit { amount_sat, fee_sat, limit_sat }),
        Some(_) | None => Ok(Advance { amount_sat, fee_sat }),
    }
}
