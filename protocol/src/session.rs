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
mod plan;
pub mod quote;
mod seller;

pub use buyer::{BuyerSession, BuyerViolation};
pub use frame::{CloseCode, Frame, FrameDecodeError, Request, Want};
pub use plan::{AT_ONCE, Lane, Next, Plan, is_near};
pub use seller::{Brake, SellerSession, SellerStep, SellerViolation};

/// The first window, 64 KiB: what either side risks on a peer it does not know.
pub const FIRST_WINDOW: u64 = 64 * 1024;

/// The largest window, 16 MiB: a receipt's 110 bytes are nothing beside it, and its price is far under 1 sat.
pub const MAX_WINDOW: u64 = 16 * 1024 * 1024;

/// Wants that may be on their way at once: the seller always has the next one when it ends the last.
pub const PIPELINED_WANTS: usize = 2;

/// How much goes out before the other side must have answered: grows with what has gone well (MONEY.md 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    max: u64,
}

impl Window {
    /// A window that grows to `max` bytes, at least to [`FIRST_WINDOW`].
    #[must_use]
    pub fn up_to(max: u64) -> Self {
        Self { max: max.clamp(FIRST_WINDOW, MAX_WINDOW) }
    }

    /// Bytes of the next window when `well` bytes of this session have gone well: [`FIRST_WINDOW`], doubled each time
    /// that a whole window has.
    ///
    /// Both sides compute it from the receipt's units. Counting receipts instead would open the largest window to a
    /// buyer that signs byte by byte.
    #[must_use]
    pub fn after(&self, well: u64) -> u64 {
        let risked = FIRST_WINDOW.saturating_add(well);
        1_u64.wrapping_shl(risked.ilog2()).min(self.max)
    }
}

#[cfg(test)]
mod tests;
