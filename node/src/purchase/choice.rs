//! One order from its quotes to its goods: who is asked first, what is left of the limit, when the next one is asked.

use std::collections::BTreeSet;

use pedlar_protocol::book::{Candidate, Ranked, rank};
use pedlar_protocol::content::Size;
use pedlar_protocol::money::Msat;
use pedlar_protocol::session::{AT_ONCE, is_near};
use pedlar_protocol::settlement::AdvanceError;
use tokio_util::sync::CancellationToken;

use crate::blobs::OpenError;
use crate::purchase::goods::{Finished, Goods};
use crate::purchase::trade::Trade;
use crate::purchase::{Buyer, Found, News, Order, OrderError, PaymentFailure, SellerFailure, Tell, Why};

/// What several sellers may round up beside one: each quote does by a msat, and few have to be asked often.
const ROUNDED_UP: Msat = Msat::new(32);

/// Reliability of a seller that served us before, and of one that we do not know, in thousandths.
const SERVED_WELL: u16 = 900;
const STRANGER: u16 = 500;

impl Buyer {
    /// Buys what is missing: from those who deliver now, the cheapest first, then from the best of those who are to be
    /// paid in advance.
    pub(super) async fn trade(
        &self,
        order: &Order,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<Finished, OrderError> {
        let mut goods = stop.run_until_cancelled(Goods::kept(order)).await.ok_or(OrderError::Interrupted)??;
        if goods.is_complete() {
            return self.finish(goods).await;
        }
        let found = stop.run_until_cancelled(self.find(&order.link)).await;
        let mut found = found.ok_or(OrderError::Interrupted)??;
        let setup_fee = self.setup_fee().await;
        let affordable = within(rank_found(&found, &goods, setup_fee, tell), order.max)?;
        let (ready, others): (Vec<_>, Vec<_>) = affordable.into_iter().partition(|one| one.advance == Msat::ZERO);
        let (mut unopened, mut unpaid) = (None, None);
        for best in ready.iter().chain(&others) {
            let Some(place) = found.iter().position(|one| one.seller == best.candidate.seller) else { continue };
            let (mut one, seller) = (found.swap_remove(place), best.candidate.seller);
            // Before anything is paid: money for what can't be kept is lost.
            match goods.open(order, one.offered.size, one.whole).await {
                // The size is its claim only; another's may fit.
                Err(error @ (OpenError::NoSpace { .. } | OpenError::OtherSize { .. })) => {
                    tell(News::Failed { seller, reason: error.to_string() });
                    unopened = Some(error);
                    continue;
                }
                opened => opened?,
            }
            if best.advance > Msat::ZERO {
                one = match self.pay_advance(order, best, one, trade, stop, tell).await {
                    Ok(Ok(one)) => one,
                    // Nothing was paid now: another one may be honest.
                    Ok(Err(denied)) => {
                        self.fail(trade, SellerFailure { seller, entry: None, why: Why::Denies(denied) }, tell).await?;
                        continue;
                    }
                    // It gave no word to pay under, so nothing was paid: another one may.
                    Err(OrderError::Payment(failure @ (PaymentFailure::Seller(_) | PaymentFailure::Address(_)))) => {
                        tell(News::Failed { seller, reason: failure.to_string() });
                        unpaid = Some(failure);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
            }
            let first = trade.failures.len();
            let all_there = match &mut goods {
                Goods::File(file) => {
                    let helpers = self.helpers(best, &ready, &mut found, one.offered.size, trade.left(order.max));
                    let sellers = std::iter::once(one).chain(helpers).collect();
                    self.buy_file(order, file, sellers, trade, stop, tell).await?
                }
                Goods::Folder(folder) => self.buy_folder(order, folder, one, trade, stop, tell).await?,
            };
            if all_there {
                return self.finish(goods).await;
            }
            self.note_faults(trade.failures.get(first..).unwrap_or_default()).await?;
            // One advance is what an order may be asked for; for another one it takes another word.
            if best.advance > Msat::ZERO {
                unpaid = self.next_advance(order, &others, &found).map(PaymentFailure::from);
                break;
            }
        }
        let failures = std::mem::take(&mut trade.failures);
        if let Some(failure) = unpaid
            && (failures.is_empty() || matches!(failure, PaymentFailure::Advance(_)))
        {
            return Err(failure.into());
        }
        match (goods.progress(), unopened) {
            (_, Some(error)) if failures.is_empty() => Err(error.into()),
            (Some((have, total)), _) => Err(OrderError::Incomplete { have, total, lacks: goods.lacks(), failures }),
            (None, _) => Err(OrderError::NoSeller(failures)),
        }
    }

    /// Those who sell a file beside the best, the cheapest first: they have it in the same size, ask little more, deliver
    /// without an advance, and the whole of it would be within the limit there. A small file is bought from one.
    fn helpers(
        &self,
        best: &Ranked,
        ready: &[Ranked],
        found: &mut Vec<Found>,
        size: Size,
        left: Option<Msat>,
    ) -> Vec<Found> {
        let window = self.driver.read(|market| market.terms().max_window);
        let is_small = best.candidate.bytes <= window || best.advance > Msat::ZERO;
        let helps = |one: &&Ranked| {
            let cost = one.charge.saturating_add(ROUNDED_UP);
            is_near(one.candidate.price, best.candidate.price) && left.is_none_or(|left| cost <= left)
        };
        let near = ready.iter().filter(|_| !is_small).filter(helps);
        let place = |one: &Ranked, found: &[Found]| {
            found.iter().position(|other| other.seller == one.candidate.seller && other.offered.size == size)
        };
        let helpers = near.filter_map(|one| Some(found.swap_remove(place(one, found)?)));
        helpers.take(AT_ONCE.saturating_sub(1)).collect()
    }

    /// Trusts those who did what no honest seller does with less from now on.
    async fn note_faults(&self, failures: &[SellerFailure]) -> Result<(), OrderError> {
        let faults = failures.iter().filter(|failure| failure.is_fault());
        for seller in faults.map(|failure| failure.seller).collect::<BTreeSet<_>>() {
            self.driver.commit(|market| market.handle_failed(&seller)).await?;
        }
        Ok(())
    }

    /// What the best of the sellers that were not asked yet wants in advance.
    fn next_advance(&self, order: &Order, others: &[Ranked], found: &[Found]) -> Option<AdvanceError> {
        let unasked = |best: &Ranked| found.iter().find(|one| one.seller == best.candidate.seller);
        let (best, one) = others.iter().find_map(|best| Some((best, unasked(best)?)))?;
        let (amount_sat, fee_sat, _) = self.plan(order, best, one, None).in_sat()?;
        Some(AdvanceError::NeedsWord { amount_sat, fee_sat })
    }

    /// Takes down that a seller is at fault, and trusts it with less from now on.
    async fn fail(&self, trade: &mut Trade, failure: SellerFailure, tell: Tell<'_>) -> Result<(), OrderError> {
        let seller = failure.seller;
        trade.fail(failure, tell);
        Ok(self.driver.commit(|market| market.handle_failed(&seller)).await?)
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
            min_topup: Msat::from_sat(one.min_topup_sat).unwrap_or(Msat::MAX),
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
