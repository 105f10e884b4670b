//! One order from its quotes to its goods: who is asked first, what is left of the limit, when the next one is asked.

use std::path::PathBuf;

use libp2p_identity::PeerId;
use pedlar_protocol::book::{Candidate, Ranked, rank};
use pedlar_protocol::content::EntryPath;
use pedlar_protocol::money::Msat;
use tokio_util::sync::CancellationToken;

use crate::blobs::OpenError;
use crate::purchase::goods::Goods;
use crate::purchase::object::Sale;
use crate::purchase::{Buyer, Found, News, Order, OrderError, PaymentFailure, SellerFailure, Tell};
use crate::session::Bought;

/// Reliability of a seller that served us before, and of one that we do not know, in thousandths.
const SERVED_WELL: u16 = 900;
const STRANGER: u16 = 500;

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

impl Buyer {
    /// Buys what is missing: from those who deliver now, the cheapest first, then from the best of those who are to be
    /// paid in advance.
    pub(super) async fn trade(
        &self,
        order: &Order,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<PathBuf, OrderError> {
        let mut goods = Goods::kept(order).await?;
        if goods.is_complete() {
            return self.finish(goods).await;
        }
        let found = stop.run_until_cancelled(self.find(&order.link)).await;
        let mut found = found.ok_or(OrderError::Interrupted)??;
        let setup_fee = self.setup_fee().await;
        let affordable = within(rank_found(&found, &goods, setup_fee, tell), order.max)?;
        let (ready, others): (Vec<_>, Vec<_>) = affordable.into_iter().partition(|one| one.advance == Msat::ZERO);
        let mut unopened = None;
        for best in ready.iter().chain(others.first()) {
            let Some(place) = found.iter().position(|one| one.seller == best.candidate.seller) else { continue };
            let mut one = found.swap_remove(place);
            // Before anything is paid: money for what can't be kept is lost.
            match goods.open(order, one.offered.size, one.whole).await {
                // The size is its claim only; another's may fit.
                Err(error @ (OpenError::NoSpace { .. } | OpenError::OtherSize { .. })) => {
                    tell(News::Failed { seller: one.seller, reason: error.to_string() });
                    unopened = Some(error);
                    continue;
                }
                opened => opened?,
            }
            if best.advance > Msat::ZERO {
                one = match self.pay_advance(order, best, one, trade, stop, tell).await {
                    // Those who asked for none have failed, and that is what is to be told.
                    Err(OrderError::Payment(PaymentFailure::Advance(_))) if !trade.failures.is_empty() => break,
                    paid => paid?,
                };
            }
            let all_there = match &mut goods {
                Goods::File(file) => self.buy_file(order, file, one, trade, stop, tell).await?,
                Goods::Folder(folder) => self.buy_folder(order, folder, one, trade, stop, tell).await?,
            };
            if all_there {
                return self.finish(goods).await;
            }
        }
        let failures = std::mem::take(&mut trade.failures);
        match (goods.progress(), unopened) {
            (_, Some(error)) if failures.is_empty() => Err(error.into()),
            (Some((have, total)), _) => Err(OrderError::Incomplete { have, total, failures }),
            (None, _) => Err(OrderError::NoSeller(failures)),
        }
    }

    /// The fee of an advance now.
    pub(super) async fn setup_fee(&self) -> Msat {
        let fee_sat = self.driver.wallet().estimate_fee(0).await.unwrap_or(0);
        Msat::from_sat(fee_sat).unwrap_or(Msat::MAX)
    }
}

/// Orders the sellers by what the bytes that are not here cost there in all, each by its own claim of the size.
pub(super) fn rank_found(found: &[Found], goods: &Goods, setup_fee: Msat, tell: Tell<'_>) -> Vec<Ranked> {
    let ranked = rank(found.iter().map(|one| {
        let missing = goods.missing(one.whole);
        Candidate {
            seller: one.seller,
            price: one.offered.quote.quote().price,
            bytes: missing.bytes,
            objects: missing.objects,
            available: one.available,
            setup_fee,
            reliability: if one.served > Msat::ZERO { SERVED_WELL } else { STRANGER },
        }
    }));
    for one in &ranked {
        let Candidate { seller, price, available, .. } = one.candidate;
        tell(News::Quote { seller, price, cost: one.charge, available });
    }
    ranked
}

/// The sellers of which all that they cost is within what may be lost.
fn within(ranked: Vec<Ranked>, max: Option<Msat>) -> Result<Vec<Ranked>, OrderError> {
    let cheapest = ranked.iter().map(|one| one.total).min();
    match (cheapest, max) {
        (None, _) => Err(OrderError::NoSeller(Vec::new())),
        (Some(cheapest), Some(max)) if cheapest > max => Err(OrderError::TooDear { cheapest, max }),
        (Some(_), _) => Ok(ranked.into_iter().filter(|one| max.is_none_or(|max| one.total <= max)).collect()),
    }
}
