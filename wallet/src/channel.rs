//! One-way payment channels on the chain: what the buyer locks up, what it signs for the seller, and how it ends
//! (MONEY.md 5).
//!
//! The pure rooms, [`Terms`], [`Funded`] and [`Split`], hold the script and every transaction that can spend it; they
//! know no file and no server, so that a seller checks a voucher wherever it arrives. What is ours, and when it is sent,
//! is decided on the wallet thread.
//!
//! **Invariant:** nothing foreign is ever signed: both sides build each transaction themselves and exchange numbers and
//! signatures.

mod close;
mod funded;
mod settle;
mod terms;
#[cfg(test)]
mod tests;

use std::fmt;

pub use funded::{Funded, Voucher, VoucherError};
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
