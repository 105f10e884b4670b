//! Buying: the seller's quotes, our receipts, and what the seller acknowledges.

use libp2p_identity::PeerId;

use crate::account::{Change, Direction, Line, Payment};
use crate::credit::{GrantError, SignedGrant};
use crate::id::QuoteId;
use crate::market::Market;
use crate::money::Price;
use crate::offer::Service;
use crate::session::Request;
use crate::session::quote::{QuoteError, SignedQuote, SignedReceipt};
use crate::time::Timestamp;
use crate::wire::Signed;

/// Receipts told at once: with the rest of the message they stay far below the bound of a frame.
pub const MAX_SYNCED: usize = 64;

/// Why a quote is not bought under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuyError {
    /// It can't be read, or the seller did not sign it.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// It is not for this buyer, seller, network or object, or it was used before.
    #[error("the quote's {0} is not the one asked for")]
    Other(&'static str),
    /// It has ended.
    #[error("the quote has expired")]
    Expired,
    /// Dearer than what the seller promised with its top-up or its live offer.
    #[error("the quote asks {asked}, the seller promised at most {promised}")]
    TooDear {
        /// The quote's price.
        asked: Price,
        /// The promise.
        promised: Price,
    },
}

/// Why the seller's word on the books is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// Its grant is none.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

impl Market {
    /// The seller quotes a price for what we asked for.
    ///
    /// # Errors
    /// [`BuyError`] says why it is not bought under; nothing is owed.
    pub fn handle_quote(
        &self,
        now: Timestamp,
        seller: PeerId,
        request: Request,
        signed: Signed,
    ) -> Result<SignedQuote, BuyError> {
        let quote = SignedQuote::parse(signed)?;
        let says = quote.quote();
        let account = self.account(&seller, Direction::Bought);
        let other = [
            ("number", account.is_some_and(|account| account.line(&quote.id()).is_some())),
            ("network", says.network != self.network),
            ("buyer", says.buyer != self.me),
            ("seller", says.seller != seller),
            ("object", says.object != *request.object().as_bytes()),
            ("collection", says.collection.as_ref() != request.collection()),
        ];
        if let Some((field, _)) = other.iter().find(|(_, differs)| *differs) {
            return Err(BuyError::Other(field));
        }
        if now > says.expires {
            return Err(BuyError::Expired);
        }
        let prepaid = account.and_then(|account| account.price_ceiling(says.service));
        let offered = self.book.offer(now, &seller).and_then(|offer| offer.offer().listing(Service::Chunks));
        for promised in [prepaid, offered.map(|listing| listing.ceiling)].into_iter().flatten() {
            if says.price > promised {
                return Err(BuyError::TooDear { asked: says.price, promised });
            }
        }
        Ok(quote)
    }

    /// `units` bytes in all were received and verified under the quote: the receipt to send once it is stored.
    pub fn handle_verified(&mut self, now: Timestamp, quote: &SignedQuote, units: u64) -> SignedReceipt {
        let seller = quote.quote().seller;
        let receipt = SignedReceipt::sign(quote.id(), units, &self.key);
        let known = self.account(&seller, Direction::Bought).and_then(|account| account.line(&quote.id()));
        let mut line = known.cloned().unwrap_or_else(|| Line::new(Direction::Bought, quote.clone(), now));
        // Our own receipt for our own quote: nothing can be wrong with it.
        let _ = line.sign(receipt.clone());
        if quote.quote().price > Price::FREE {
            self.stage(seller, Direction::Bought, Change::Line(line));
        }
        receipt
    }

    /// The stream to the seller is gone: nothing more is received under this quote.
    pub fn handle_left(&mut self, now: Timestamp, seller: &PeerId, quote: &QuoteId) {
        let known = self.account(seller, Direction::Bought).and_then(|account| account.line(quote));
        if let Some(mut line) = known.cloned() {
            line.interrupt();
            self.stage(*seller, Direction::Bought, Change::Line(line));
            self.stage_consequences(*seller, Direction::Bought, now);
        }
    }

    /// Receipts that this seller has not acknowledged, for an exchange of counters: the [`MAX_SYNCED`] oldest, so more
    /// follow while an exchange settles any.
    #[must_use]
    pub fn unacknowledged(&self, seller: &PeerId) -> Vec<SignedReceipt> {
        let lines = self.account(seller, Direction::Bought).into_iter().flat_map(|account| account.lines());
        let mut open: Vec<&Line> = lines.filter(|line| line.admitted_units() < line.signed_units()).collect();
        open.sort_by_key(|line| line.opened());
        open.into_iter().take(MAX_SYNCED).filter_map(|line| line.receipt().cloned()).collect()
    }

    /// The seller acknowledges receipts, shows its gift and what it was paid from other wallets.
    ///
    /// # Errors
    /// [`SyncError`] when its word can't stand; what was acknowledged stays so.
    pub fn handle_synced(
        &mut self,
        now: Timestamp,
        seller: PeerId,
        lines: &[(QuoteId, u64)],
        grant: Option<Signed>,
        payments: &[Payment],
    ) -> Result<(), SyncError> {
        for (id, units) in lines {
            let known = self.account(&seller, Direction::Bought).and_then(|account| account.line(id));
            if let Some(mut line) = known.cloned().filter(|line| line.admitted_units() < *units) {
                line.acknowledge(*units);
                self.stage(seller, Direction::Bought, Change::Line(line));
            }
        }
        self.take_told_payments(now, seller, payments);
        if let Some(signed) = grant {
            self.take_grant(now, seller, SignedGrant::parse(signed, &self.me, &seller)?);
        }
        self.stage_consequences(seller, Direction::Bought, now);
        Ok(())
    }

    fn take_grant(&mut self, now: Timestamp, seller: PeerId, grant: SignedGrant) {
        let account = self.account(&seller, Direction::Bought);
        let history = account.map(|account| account.history().clone()).unwrap_or_default();
        if grant.amount() > history.granted() {
            let history = crate::credit::History { grant: Some((grant, now)), ..history };
            self.stage(seller, Direction::Bought, Change::History(history));
        }
    }
}
