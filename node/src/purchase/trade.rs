//! What one order has come to: paid, bought from whom, what went wrong, and what may still be lost.

use libp2p_identity::PeerId;
use pedlar_protocol::content::EntryPath;
use pedlar_protocol::money::Msat;

use crate::purchase::object::{Sale, TRIES};
use crate::purchase::{News, SellerFailure, Tell};
use crate::session::Bought;

/// What is charged more where an object is bought by as many quotes as it may take, each rounded up to a msat.
const ROUNDED_UP: Msat = Msat::new(TRIES as u64 - 1);

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

    /// Sets aside what an object may cost, so that objects which are bought at once don't spend the same money: its charge,
    /// and where the limit leaves it after the `rest`, what further quotes for it may round up. Answers that.
    pub(super) fn reserve(&mut self, charge: Msat, rest: Msat, max: Option<Msat>) -> Msat {
        let others = charge.saturating_add(rest);
        let spare = self.left(max).map_or(ROUNDED_UP, |left| left.saturating_sub(others).min(ROUNDED_UP));
        let cost = charge.saturating_add(spare);
        self.reserved = self.reserved.saturating_add(cost);
        cost
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

#[cfg(test)]
mod tests {
    use pedlar_protocol::money::Price;

    use super::*;

    #[test]
    fn what_a_second_quote_rounds_up_is_set_aside_where_the_limit_leaves_it() {
        let price = Price::per_gib(7_000_000);
        let charge = |bytes| price.charge(bytes).unwrap();
        let (whole, first) = (charge(100_000), charge(34_567));
        let twice = first.saturating_add(charge(100_000 - 34_567));
        assert_eq!(twice, whole.saturating_add(Msat::new(1)), "a connection that breaks costs a msat");
        let rest = charge(1 << 20);
        let reserved = |spare| {
            let mut trade = Trade::default();
            let max = whole.saturating_add(rest).saturating_add(Msat::new(spare));
            let reserved = trade.reserve(whole, rest, Some(max));
            assert!(trade.left(Some(max)) >= Some(rest), "the others have theirs");
            reserved
        };
        assert_eq!([0, 1, 9].map(reserved), [whole, twice, twice]);
        assert_eq!(Trade::default().reserve(whole, rest, None), twice);
    }
}
