//! Papers of accounts that convince whoever reads them, without a word of those who show them: what was sold at which
//! price, what was signed for, and which money was promised what.
//!
//! **Invariant:** nothing is proven but by a signature of whom it hurts, or by a transaction that pays the address of a
//! signed top-up; each paper counts once. Where a transaction stands in the chain is for others to say.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

use crate::account::OutPoint;
use crate::credit::{GrantError, SignedGrant};
use crate::id::{QuoteId, TopUpId};
use crate::money::Msat;
use crate::session::quote::{QuoteError, ReceiptError, SignedQuote, SignedReceipt};
use crate::settlement::{SignedTopUp, TopUpError};
use crate::wire::Signed;

/// Why a paper proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The seller has not signed it, or it means nothing.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The buyer has not signed it, or it means nothing.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The receipt is of another quote than the one beside it.
    #[error("the receipt is for quote {receipt}, and stands beside quote {quote}")]
    OtherQuote {
        /// What the receipt names.
        receipt: QuoteId,
        /// What it stands beside.
        quote: QuoteId,
    },
    /// The seller has not signed it, or it means nothing.
    #[error(transparent)]
    TopUp(#[from] TopUpError),
    /// The seller has not signed it, or it means nothing.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// A payment under a top-up that is not shown before it.
    #[error("no top-up {0} is shown before its payment")]
    NoTopUp(TopUpId),
    /// The same paper stands there twice: it would count twice.
    #[error("{0} is shown twice")]
    Twice(String),
}

/// What was sold under one quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// The seller's word.
    pub quote: SignedQuote,
    /// The bytes that the buyer signed for, 0 where it signed for none.
    pub units: u64,
    /// What they cost.
    pub charged: Msat,
}

/// What two nodes owe by what was shown of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proven {
    /// Signed for by the buyer, under quotes of the seller.
    pub charged: Msat,
    /// Paid to addresses that the seller gave this buyer.
    pub paid: Msat,
    /// Given by the seller.
    pub granted: Msat,
}

/// All that was shown so far.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    sales: BTreeSet<QuoteId>,
    topups: BTreeMap<TopUpId, SignedTopUp>,
    payments: BTreeSet<OutPoint>,
    grants: BTreeSet<(PeerId, PeerId)>,
    proven: BTreeMap<(PeerId, PeerId), Proven>,
}

impl Evidence {
    /// Takes a quote with the newest receipt under it.
    ///
    /// # Errors
    /// [`EvidenceError`]; nothing is taken then.
    pub fn take_sale(&mut self, quote: Signed, receipt: Option<Signed>) -> Result<Sale, EvidenceError> {
        let quote = SignedQuote::parse(quote)?;
        let receipt = receipt.map(|signed| SignedReceipt::parse(signed, &quote.quote().buyer)).transpose()?;
        if let Some(receipt) = receipt.as_ref().filter(|receipt| receipt.quote_id() != quote.id()) {
            return Err(EvidenceError::OtherQuote { receipt: receipt.quote_id(), quote: quote.id() });
        }
        once(&mut self.sales, quote.id(), || format!("quote {}", quote.id()))?;
        let units = receipt.map_or(0, |receipt| receipt.units());
        let charged = quote.charge(units);
        let says = quote.quote();
        let proven = self.between(says.seller, says.buyer);
        proven.charged = proven.charged.saturating_add(charged);
        Ok(Sale { quote, units, charged })
    }

    /// Takes the seller's word for an advance.
    ///
    /// # Errors
    /// [`EvidenceError`]; nothing is taken then.
    pub fn take_topup(&mut self, signed: Signed) -> Result<SignedTopUp, EvidenceError> {
        let topup = SignedTopUp::parse(signed)?;
        match self.topups.entry(topup.topup().id) {
            Entry::Vacant(place) => Ok(place.insert(topup).clone()),
            Entry::Occupied(place) => Err(EvidenceError::Twice(format!("top-up {}", place.key()))),
        }
    }

    /// The word that was shown under this name.
    #[must_use]
    pub fn topup(&self, id: &TopUpId) -> Option<&SignedTopUp> {
        self.topups.get(id)
    }

    /// Takes a payment of `sat` under a top-up: the caller has seen, in a transaction whose id is `outpoint.txid`, that
    /// output `outpoint.vout` pays so much to the top-up's address.
    ///
    /// # Errors
    /// [`EvidenceError`]; nothing is taken then.
    pub fn take_payment(&mut self, id: &TopUpId, outpoint: OutPoint, sat: u64) -> Result<Msat, EvidenceError> {
        let topup = self.topups.get(id).ok_or(EvidenceError::NoTopUp(*id))?.topup();
        let (seller, buyer) = (topup.seller, topup.buyer);
        once(&mut self.payments, outpoint, || format!("payment {outpoint}"))?;
        let paid = Msat::from_sat(sat).unwrap_or(Msat::MAX);
        let proven = self.between(seller, buyer);
        proven.paid = proven.paid.saturating_add(paid);
        Ok(paid)
    }

    /// Takes a gift of `seller` to `buyer`: there is one between two nodes.
    ///
    /// # Errors
    /// [`EvidenceError`]; nothing is taken then.
    pub fn take_grant(&mut self, signed: Signed, seller: PeerId, buyer: PeerId) -> Result<Msat, EvidenceError> {
        let grant = SignedGrant::parse(signed, &buyer, &seller)?;
        once(&mut self.grants, (seller, buyer), || "the gift".to_owned())?;
        let proven = self.between(seller, buyer);
        proven.granted = proven.granted.saturating_add(grant.amount());
        Ok(grant.amount())
    }

    /// What is proven between each seller and buyer, in this order.
    pub fn proven(&self) -> impl Iterator<Item = (&PeerId, &PeerId, &Proven)> {
        self.proven.iter().map(|((seller, buyer), proven)| (seller, buyer, proven))
    }

    fn between(&mut self, seller: PeerId, buyer: PeerId) -> &mut Proven {
        self.proven.entry((seller, buyer)).or_default()
    }
}

fn once<K: Ord>(seen: &mut BTreeSet<K>, key: K, name: impl FnOnce() -> String) -> Result<(), EvidenceError> {
    if seen.insert(key) { Ok(()) } else { Err(EvidenceError::Twice(name())) }
}

#[cfg(test)]
mod tests;
