//! `pedlar wallet …`: the node's coins.

pub(super) mod balance;
pub(super) mod bump;
pub(super) mod history;
pub(super) mod receive;
pub(super) mod send;
pub(super) mod trust;

use pedlar_wallet::PayError;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// What can be done with coins.
#[derive(Debug, Clone, clap::Subcommand, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Request {
    Receive(receive::Args),
    Balance(balance::Args),
    Send(send::Args),
    History(history::Args),
    Bump(bump::Args),
    Trust(trust::Args),
}

/// What raises the ceiling on fees.
const RAISE_CEILING: &str = "raise [fees] max_sat_vb in config.toml, or PEDLAR_FEES_MAX_SAT_VB, and restart the node";

/// Why the wallet pays nothing, as its owner is told.
pub(super) fn not_paid(error: &PayError) -> Failure {
    match error {
        PayError::Short { .. } => Failure::new(Exit::Funds, "insufficient_funds", error)
            .hint("pedlar wallet receive shows where to send coins; those under way count once they are in a block"),
        PayError::FeeAboveLimit { .. } => {
            Failure::new(Exit::OverLimit, "fee_above_limit", error).hint("allow more: --max-fee or --max")
        }
        PayError::AboveCeiling { .. } => Failure::new(Exit::OverLimit, "fee_above_ceiling", error).hint(RAISE_CEILING),
        PayError::Dust { .. } | PayError::OtherNetwork { .. } | PayError::Count { .. } => {
            Failure::usage("not_payable", error)
        }
        PayError::Restoring => Failure::new(Exit::Network, "restoring", error)
            .hint("it needs a server for that: `pedlar status` shows how it stands; then try again"),
        PayError::TooHeavy => Failure::new(Exit::Funds, "too_heavy", error),
        PayError::OtherTerms { .. }
        | PayError::PartlyPaid
        | PayError::Unsignable
        | PayError::Store(_)
        | PayError::Closed(_) => Failure::system(error),
    }
}

/// The fee that is paid at most, in sat: what was said, else twice the estimate, since it may rise while somebody
/// decides; and never so much that it and `amount_sat` are more than `max_sat`, all that may be spent.
///
/// # Errors
/// [`Exit::OverLimit`] when the amount and the fee as of now are more than that already.
pub(super) fn fee_limit(
    max_fee_sat: Option<u64>,
    max_sat: Option<u64>,
    amount_sat: u64,
    estimate_sat: u64,
) -> Result<u64, Failure> {
    let limit_sat = max_fee_sat.unwrap_or_else(|| estimate_sat.saturating_mul(2));
    match max_sat {
        None => Ok(limit_sat),
        Some(max_sat) if amount_sat.saturating_add(estimate_sat) <= max_sat => {
            Ok(limit_sat.min(max_sat.saturating_sub(amount_sat)))
        }
        Some(max_sat) => {
            let text = format!("{amount_sat} sat and a fee of {estimate_sat} sat are over the limit of {max_sat} sat");
            Err(Failure::new(Exit::OverLimit, "over_limit", text).hint("raise --max, or wait for lower fees"))
        }
    }
}
