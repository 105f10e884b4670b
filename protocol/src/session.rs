//! The order of a session: what may come next, how much at once, when to stop (DESIGN.md 3, MONEY.md 6).
//!
//! ```text
//! buyer  → Open { request }
//! seller → Quote                        | Refused
//! buyer  → Want { groups, receipt }     seller → Serving { groups }, then raw frames     (two Wants pipelined)
//! either → Close { code, receipt }
//! ```
//!
//! **Invariant:** the machines know no money: what is admitted is the market's word, and what verified is the
//! content's. They hold order, windows and counts, and a peer that breaks the order ends only its own stream.

mod buyer;
mod frame;
pub mod quote;
mod seller;

pub use buyer::{BuyerSession, BuyerViolation};
pub use frame::{CloseCode, Frame, FrameDecodeError, Request, Want};
pub use seller::{Brake, SellerSession, SellerStep, SellerViolation};

use crate::content::GROUP_LEN;

/// The first window, 64 KiB: what either side risks on a peer it does not know.
pub const FIRST_WINDOW: u64 = 64 * 1024;

/// The largest window, 16 MiB: a receipt's 110 bytes are nothing beside it, and its price is far under 1 sat.
pub const MAX_WINDOW: u64 = 16 * 1024 * 1024;

/// Wants that may be on their way at once: the seller always has the next one when it ends the last.
pub const PIPELINED_WANTS: usize = 2;

/// How much goes out before the other side must have answered: doubles while all goes well (MONEY.md 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    bytes: u64,
    max: u64,
}

impl Window {
    /// A first window that grows to `max` bytes, at least to [`FIRST_WINDOW`].
    #[must_use]
    pub fn up_to(max: u64) -> Self {
        Self { bytes: FIRST_WINDOW, max: max.clamp(FIRST_WINDOW, MAX_WINDOW) }
    }

    /// Bytes in this window.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same in groups, rounded down; never 0.
    #[must_use]
    pub fn groups(&self) -> u64 {
        (self.bytes / GROUP_LEN).max(1)
    }

    /// All went well.
    pub fn grow(&mut self) {
        self.bytes = self.bytes.saturating_mul(2).min(self.max);
    }
}

#[cfg(test)]
mod tests;
