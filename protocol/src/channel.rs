//! One-way payment channels, as far as they are decisions: what a voucher is worth, when it is taken, what counts as
//! paid, how far a channel is on its way (MONEY.md 5).
//!
//! **Invariant:** both sides compute `paid` from the same numbers, and never more than the capacity; a channel that
//! closes never leads back and takes no further voucher.

mod state;
mod terms;

use bytes::Bytes;

pub use state::{BuyerState, Fact, Funding, SellerState, Side, Spend, Spent};
pub use terms::{
    ALARM_BLOCKS, BUMP_BLOCKS, CLOSE_BY_BLOCKS, CLOSE_VBYTES, LIFE_BLOCKS, MIN_LIFE_BLOCKS, STOP_BLOCKS, Terms,
    TermsError, close_fee_sat,
};

use crate::money::Msat;
use crate::settlement::FINAL_DEPTH;

/// The buyer's newest word: the seller may take so much of the capacity.
///
/// Nothing here can tell a signature over bitcoin from noise: whoever makes one of these of a peer's bytes has verified
/// it with the wallet's pure function before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    /// All that the seller may take, cumulative, in sat.
    pub cum_sat: u64,
    /// The signature, opaque here.
    pub signature: Bytes,
}

/// A voucher that is not taken; the channel is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    /// It gives no more than the newest one: an old one, or the same again.
    #[error("the voucher gives {cum_sat} sat, a newer one gives {newest_sat} sat")]
    NotHigher {
        /// What it gives, in sat.
        cum_sat: u64,
        /// What the newest gives, in sat.
        newest_sat: u64,
    },
    /// It leaves the buyer less than nodes pass on.
    #[error("the voucher gives {cum_sat} sat, the channel carries at most {most_sat} sat")]
    OverCapacity {
        /// What it gives, in sat.
        cum_sat: u64,
        /// What the channel carries, in sat.
        most_sat: u64,
    },
    /// The channel takes none yet, or no more.
    #[error("the channel takes no voucher: it is not open, or about to close")]
    NotActive,
}

/// A channel as one side has it: a plain value, to be stored before anything of it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    terms: Terms,
    side: Side,
    voucher: Option<Voucher>,
    fact: Fact,
}

impl Channel {
    /// A channel on terms that were checked ([`Terms::check`]), nothing of it on the chain.
    #[must_use]
    pub fn new(terms: Terms, side: Side) -> Self {
        Self { terms, side, voucher: None, fact: Fact::default() }
    }

    /// What both sides agreed to.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Which side we are on, and how far it is.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// The newest voucher.
    #[must_use]
    pub const fn voucher(&self) -> Option<&Voucher> {
        self.voucher.as_ref()
    }

    /// What the newest voucher gives, in sat; 0 where there is none.
    #[must_use]
    pub fn cum_sat(&self) -> u64 {
        self.voucher.as_ref().map_or(0, |voucher| voucher.cum_sat)
    }

    /// Moves our side on; a step back, or out of closing, changes nothing. Answers whether it moved.
    pub fn step(&mut self, to: Side) -> bool {
        let moves = self.side.leads_to(to);
        if moves {
            self.side = to;
        }
        moves
    }

    /// Takes a voucher whose signature was verified: given (buyer) or received (seller). Answers what it adds to `paid`.
    ///
    /// # Errors
    /// [`VoucherError`] says why it is not taken: it must be higher than the newest, within the capacity, and before
    /// [`Terms::stops_at`].
    pub fn take(&mut self, tip_height: u64, voucher: Voucher) -> Result<Msat, VoucherError> {
        let (cum_sat, newest_sat, most_sat) = (voucher.cum_sat, self.cum_sat(), self.terms.most_sat());
        if !self.side.is_active() || self.fact.spent.is_some() || tip_height >= self.terms.stops_at() {
            return Err(VoucherError::NotActive);
        }
        if cum_sat <= newest_sat {
            return Err(VoucherError::NotHigher { cum_sat, newest_sat });
        }
        if cum_sat > most_sat {
            return Err(VoucherError::OverCapacity { cum_sat, most_sat });
        }
        let before = self.paid();
        self.voucher = Some(voucher);
        Ok(self.paid().saturating_sub(before))
    }

    /// The chain as it is now: replaces what was known before, also where blocks went.
    pub fn handle_fact(&mut self, tip_height: u64, fact: Fact) {
        self.fact = fact;
        self.side = self.side.after(&self.fact, &self.terms, tip_height);
    }

    /// What counts as paid: what the newest voucher secures once the funding is deep enough; once the money was spent in
    /// a block, what the seller got, and of the fee no more than was set aside for it.
    #[must_use]
    pub fn paid(&self) -> Msat {
        if self.fact.funding.depth < self.terms.min_conf.max(1) {
            return Msat::ZERO;
        }
        let sat = match self.fact.spent.filter(|spent| spent.depth > 0) {
            None => self.terms.secured_sat(self.cum_sat()),
            Some(spent) => self.terms.got_sat(spent.how),
        };
        Msat::from_sat(sat).unwrap_or(Msat::MAX)
    }

    /// The part of [`Channel::paid`] that can't be taken back: its end is six blocks deep.
    #[must_use]
    pub fn paid_final(&self) -> Msat {
        let deep = self.fact.spent.is_some_and(|spent| spent.depth >= FINAL_DEPTH);
        if deep { self.paid() } else { Msat::ZERO }
    }
}

#[cfg(test)]
mod tests;
