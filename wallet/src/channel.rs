//! One-way payment channels on the chain: what the buyer locks up, what it signs for the seller, and how it ends
//! (MONEY.md 5).
//!
//! | room | holds |
//! |---|---|
//! | `terms`, `funded`, `settle`, `close` | the script and every transaction that can spend it, as pure values: a seller checks a voucher wherever it arrives |
//! | `open` | our key, the funding, vouchers |
//! | `ends`, `closing` | settlements, refunds and closes: stored, then sent |
//! | `adopt` | channels that this wallet had before it was restored |
//! | `facts` | where each channel stands on the chain |
//! | `rows` | all that as it is stored |
//!
//! **Invariant:** nothing foreign is ever signed: both sides build each transaction themselves and exchange numbers and
//! signatures.

mod adopt;
mod close;
mod closing;
mod ends;
mod facts;
mod funded;
mod open;
mod rows;
mod settle;
mod terms;
#[cfg(test)]
mod tests;

use std::fmt;

pub use adopt::AdoptError;
pub(crate) use ends::OfferTerms;
pub use ends::{EndError, Ending, MAX_CLOSES, Offer, Settled};
pub(crate) use facts::Watch;
pub use facts::{ChannelEnd, ChannelFact, Shares, TxState};
pub use funded::{Funded, Voucher, VoucherError};
pub use open::{ChannelError, ChannelKey, FundError, Funding, MAX_CHANNELS, MAX_FUNDING_BYTES, SignError, WatchError};
pub use settle::{Split, SplitError};
pub use terms::{Terms, TermsError};

/// The least that an output of a channel may carry, in sat: below, a P2WPKH output is not relayed (Core's dust limit).
pub const MIN_OUTPUT_SAT: u64 = 294;

/// Names a channel: opaque here, chosen by the caller, the same for each retry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub [u8; 32]);

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which side of a channel one is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It locks the money up and signs vouchers.
    Buyer,
    /// It takes vouchers and closes.
    Seller,
}

impl Role {
    /// Its number in the path of a channel's key, and in the wallet's file.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Buyer => 0,
            Self::Seller => 1,
        }
    }
}
