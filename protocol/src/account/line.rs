//! One quote and what was counted under it.

use crate::account::Direction;
use crate::id::QuoteId;
use crate::money::Msat;
use crate::session::quote::{SignedQuote, SignedReceipt};
use crate::time::Timestamp;

/// A quote with its counters. `admitted` is bytes admitted or sent where we sold, and bytes that the seller has
/// acknowledged where we bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    direction: Direction,
    quote: SignedQuote,
    receipt: Option<SignedReceipt>,
    admitted: u64,
    ended: bool,
    interrupted: bool,
    opened: Timestamp,
}

/// A receipt that can't count under a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It names another quote.
    #[error("the receipt is for another quote")]
    OtherQuote,
    /// It signs for more than was ever sent.
    #[error("the receipt signs for {signed} bytes, only {sent} were sent")]
    BeyondSent {
        /// What it says.
        signed: u64,
        /// What left this node, or was admitted.
        sent: u64,
    },
}

impl Line {
    /// A fresh line, nothing counted.
    #[must_use]
    pub const fn new(direction: Direction, quote: SignedQuote, opened: Timestamp) -> Self {
        Self { direction, quote, receipt: None, admitted: 0, ended: false, interrupted: false, opened }
    }

    /// A line that this node has lost, before anything of it is known again: its stream is gone.
    #[must_use]
    pub fn forgotten(direction: Direction, quote: SignedQuote, opened: Timestamp) -> Self {
        Self { ended: true, ..Self::new(direction, quote, opened) }
    }

    /// A line as it stood in the journal.
    #[must_use]
    pub fn restored(self, receipt: Option<SignedReceipt>, admitted: u64, ended: bool, interrupted: bool) -> Self {
        Self { receipt, admitted, ended, interrupted, ..self }
    }

    /// The name of its quote.
    #[must_use]
    pub const fn id(&self) -> QuoteId {
        self.quote.id()
    }

    /// Its quote.
    #[must_use]
    pub const fn quote(&self) -> &SignedQuote {
        &self.quote
    }

    /// The newest receipt.
    #[must_use]
    pub const fn receipt(&self) -> Option<&SignedReceipt> {
        self.receipt.as_ref()
    }

    /// When the quote was first used.
    #[must_use]
    pub const fn opened(&self) -> Timestamp {
        self.opened
    }

    /// Bytes signed for.
    #[must_use]
    pub fn signed_units(&self) -> u64 {
        self.receipt.as_ref().map_or(0, SignedReceipt::units)
    }

    /// Sold: bytes admitted or sent, cumulative. Bought: bytes acknowledged by the seller.
    #[must_use]
    pub const fn admitted_units(&self) -> u64 {
        self.admitted
    }

    /// Sold: bytes admitted or sent that nobody signed for, as far as this node knows that they left it. Bought: 0.
    #[must_use]
    pub fn unsigned_units(&self) -> u64 {
        match self.direction {
            Direction::Sold if !self.interrupted => self.admitted.saturating_sub(self.signed_units()),
            Direction::Sold | Direction::Bought => 0,
        }
    }

    /// What the signed units cost.
    #[must_use]
    pub fn spent(&self) -> Msat {
        self.quote.charge(self.signed_units())
    }

    /// What the units that were admitted and not signed for cost.
    #[must_use]
    pub fn held(&self) -> Msat {
        let signed = self.signed_units();
        self.quote.charge(signed.saturating_add(self.unsigned_units())).saturating_sub(self.quote.charge(signed))
    }

    /// Whether its stream is gone.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether this node went down while its stream was open.
    #[must_use]
    pub const fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Whether nothing can change under it: the stream is gone, and all that was sent is signed for, or all that was
    /// signed acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let agreed = match self.direction {
            Direction::Sold => self.admitted <= self.signed_units(),
            Direction::Bought => self.admitted >= self.signed_units(),
        };
        self.ended && agreed
    }

    /// Takes a receipt: the higher one counts, an older one changes nothing. Answers the units that count now.
    ///
    /// # Errors
    /// [`LineError`] when it is for another quote, or (sold) signs for more than was sent: the buyer can't owe that.
    pub fn sign(&mut self, receipt: SignedReceipt) -> Result<u64, LineError> {
        if receipt.quote_id() != self.id() {
            return Err(LineError::OtherQuote);
        }
        let signed = receipt.units();
        if self.direction == Direction::Sold && signed > self.admitted {
            return Err(LineError::BeyondSent { signed, sent: self.admitted });
        }
        if signed > self.signed_units() {
            self.receipt = Some(receipt);
        }
        Ok(self.signed_units())
    }

    /// Takes a receipt that counted before this node lost its newest rows: what it signs for was sent, and is acknowledged.
    /// Sold: how much was admitted in all is not known any more, as after a crash.
    pub fn recall(&mut self, receipt: SignedReceipt) {
        if receipt.quote_id() != self.id() {
            return;
        }
        let signed = receipt.units();
        if signed > self.signed_units() {
            self.interrupted |= self.direction == Direction::Sold;
            self.receipt = Some(receipt);
        }
        self.admitted = self.admitted.max(signed);
    }

    /// Sold: admits `units` more.
    pub const fn admit(&mut self, units: u64) {
        self.admitted = self.admitted.saturating_add(units);
    }

    /// Sold: the stream is gone, and `sent` bytes had left it in all; what was admitted and not sent is let go.
    pub fn end(&mut self, sent: u64) {
        self.admitted = sent.min(self.admitted).max(self.signed_units());
        self.ended = true;
    }

    /// Bought: the stream is gone. Sold: this node went down, and how much had left it is not known, so nothing is held
    /// against the buyer; its receipt still counts, up to what was admitted (MONEY.md 1.4: the seller's loss).
    pub fn interrupt(&mut self) {
        self.ended = true;
        self.interrupted = self.direction == Direction::Sold;
    }

    /// Bought: the seller has counted `units`.
    pub fn acknowledge(&mut self, units: u64) {
        self.admitted = self.admitted.max(units.min(self.signed_units()));
    }
}
