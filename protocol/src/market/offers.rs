//! The offers of others as they come, by gossip and by offers-sync, and what others are told of them.

use bytes::Bytes;

use crate::book::sync::{Answer, Request};
use crate::book::{Ignored, Verdict};
use crate::market::Market;
use crate::offer::{SignedOffer, UnverifiedOffer};
use crate::time::Timestamp;

impl Market {
    /// Judges an offer that came by all but its signature, which the caller checks next, without the market.
    ///
    /// # Errors
    /// What becomes of the offer, unless its signature is worth being checked.
    pub fn screen_offer(&self, now: Timestamp, bytes: &Bytes) -> Result<UnverifiedOffer, Verdict> {
        let unverified = self.book.screen(now, bytes)?;
        if unverified.claims().seller == self.me {
            return Err(Verdict::Ignore(Ignored::Own));
        }
        Ok(unverified)
    }

    /// Takes an offer that was screened and whose signature is right into the book; `random` is any fresh random number.
    pub fn handle_offer(&mut self, now: Timestamp, signed: SignedOffer, random: u64) -> Verdict {
        self.book.insert(now, signed, random).map_or_else(Verdict::Ignore, |()| Verdict::Accept)
    }

    /// What to ask a peer for, of the sellers from `from` on.
    #[must_use]
    pub fn offers_request(&self, now: Timestamp, from: u64) -> Request {
        self.book.request(now, from, &self.me)
    }

    /// What a peer is told that asks: our own live offer, and those of others.
    #[must_use]
    pub fn offers_answer(&self, now: Timestamp, request: &Request) -> Answer {
        self.book.answer(now, request, self.offer.as_ref())
    }
}
