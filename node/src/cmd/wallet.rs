//! `pedlar wallet …`: the node's coins.

pub(super) mod balance;
pub(super) mod history;
pub(super) mod receive;
pub(super) mod send;

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
}

/// Why the wallet pays nothing, as its owner is told.
pub(super) fn not_paid(error: &PayError) -> Failure {
    match error {
        PayError::Short { .. } => Failure::new(Exit::Funds, "insufficient_funds", error)
            .hint("pedlar wallet receive shows where to send coins; those under way count once they are in a block"),
        PayError::FeeAboveLimit { .. } => Failure::new(Exit::OverLimit, "fee_above_limit", error),
        PayError::Dust { .. } | PayError::OtherNetwork { .. } => Failure::usage("not_payable", error),
        PayError::OtherTerms { .. } | PayError::Unsignable | PayError::Store(_) | PayError::Closed(_) => {
            Failure::system(error)
        }
    }
}

/// The fee that is paid without being asked, in sat: twice the estimate, since it may rise while somebody decides.
pub(super) const fn fee_limit(max_fee_sat: Option<u64>, estimate_sat: u64) -> u64 {
    match max_fee_sat {
        Some(max) => max,
        None => estimate_sat.saturating_mul(2),
    }
}
