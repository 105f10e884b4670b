//! What one order has come to: paid, bought from whom, what went wrong, and what may still be lost.

use libp2p_identity::PeerId;
use pedlar_protocol::content::EntryPath;
use pedlar_protocol::money::Msat;

use crate::purchase::object::Sale;
use crate::purchase::{News, SellerFailure, Tell};
use crate::session::Bought;

/// What one order has come to so far.
#[derive(Default)]
pub(super) struct Trade {
    pub(super) paid: Msat,
    pub(super) fees_sat: u64,
    pub(super) txid: Option<String>,
    pub(super) sellers: Vec<(PeerId, Bought)>,
    pub(super) failures: Vec<SellerFailure>,
    /// What objects that are under way may still cost.
    reserved: Msat,
}

impl Trade {
    /// What may still be lost, where the order has a limit.
    pub(super) fn left(&self, max: Option<Msat>) -> Option<Msat> {
        let fees = Msat::from_sat(self.fees_sat).unwrap_or(Msat::MAX);
        max.map(|max| max.saturating_sub(self.paid).saturating_sub(fees).saturating_sub(self.reserved))
    }

    /// Sets aside what an object may cost, so that objects which are bought at once don't spend the same money.
    pub(super) fn reserve(&mut self, cost: Msat) {
        self.reserved = self.reserved.saturating_add(cost);
    }

    /// Lets go of what was set aside for an object, now that it is known what it did cost.
    pub(super) fn release(&mut self, cost: Msat) {
        self.reserved = self.reserved.saturating_sub(cost);
    }

    /// Takes down what was bought, and what went wrong on the way; `entry` is the file of a folder that it concerns.
    pub(super) fn note(&mut self, seller: PeerId, sale: Sale, entry: Option<&EntryPath>, tell: Tell<'_>) {
        let bought = sale.bought;
        self.paid = self.paid.saturating_add(bought.cost);
        match self.sellers.iter_mut().find(|(known, _)| *known == seller) {
            Some((_, sum)) => sum.add(bought),
            None if bought.bytes > 0 => self.sellers.push((seller, bought)),
            None => {}
        }
        for failure in sale.failures {
            self.fail(SellerFailure { entry: entry.cloned(), ..SellerFailure::buying(seller, failure) }, tell);
        }
    }

    /// Takes down that a seller failed, and says so.
    pub(super) fn fail(&mut self, failure: SellerFailure, tell: Tell<'_>) {
        tell(News::Failed { seller: failure.seller, reason: failure.reason() });
        self.failures.push(failure);
    }
}
