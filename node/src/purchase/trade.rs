//! One order from its quotes to its file: who is asked first, what is left of the limit, when the next one is asked.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use libp2p_identity::PeerId;
use pedlar_protocol::book::{Candidate, Ranked, rank};
use pedlar_protocol::content::Size;
use pedlar_protocol::money::Msat;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::accounts;
use crate::blobs::{Download, OpenError, WriteError, folder_of};
use crate::purchase::{Buyer, Found, News, Order, OrderError, PaymentFailure, SellerFailure, Tell, find};
use crate::session::{Bought, BuyFailure, Purchase, lock};

/// How often a seller that broke off is asked again before the next one is.
const TRIES: usize = 2;

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
}

impl Trade {
    /// What may still be lost, where the order has a limit.
    pub(super) fn left(&self, max: Option<Msat>) -> Option<Msat> {
        let fees = Msat::from_sat(self.fees_sat).unwrap_or(Msat::MAX);
        max.map(|max| max.saturating_sub(self.paid).saturating_sub(fees))
    }

    fn note(&mut self, seller: PeerId, bought: Bought) {
        self.paid = self.paid.saturating_add(bought.cost);
        match self.sellers.iter_mut().find(|(known, _)| *known == seller) {
            Some((_, sum)) => sum.add(bought),
            None if bought.bytes > 0 => self.sellers.push((seller, bought)),
            None => {}
        }
    }
}

/// The file being bought, shared with the thread that writes it.
type Part = Arc<Mutex<Download>>;

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
        let mut part = kept(order).await?;
        if let Some(done) = part.take_if(|part| lock(part).is_complete()) {
            return self.finish(done).await;
        }
        let found = stop.run_until_cancelled(self.find(&order.link)).await;
        let mut found = found.ok_or(OrderError::Interrupted)??;
        let have = part.as_ref().map_or(0, |part| lock(part).present_bytes());
        let setup_fee = self.setup_fee().await;
        let affordable = within(rank_found(&found, have, setup_fee, tell), order.max)?;
        let (ready, others): (Vec<_>, Vec<_>) = affordable.into_iter().partition(|one| one.advance == Msat::ZERO);
        let mut unopened = None;
        for best in ready.iter().chain(others.first()) {
            let Some(place) = found.iter().position(|one| one.seller == best.candidate.seller) else { continue };
            let mut one = found.swap_remove(place);
            // Before anything is paid: money for what can't be kept is lost.
            let opened = match open(order, one.offered.size, part.take()).await {
                // The size is its claim only; another's may fit.
                Err(error @ (OpenError::NoSpace { .. } | OpenError::OtherSize { .. })) => {
                    tell(News::Failed { seller: one.seller, reason: error.to_string() });
                    unopened = Some(error);
                    continue;
                }
                opened => part.insert(opened?),
            };
            if best.advance > Msat::ZERO {
                one = match self.pay_advance(order, best, one, trade, stop, tell).await {
                    // Those who asked for none have failed, and that is what is to be told.
                    Err(OrderError::Payment(PaymentFailure::Advance(_))) if !trade.failures.is_empty() => break,
                    paid => paid?,
                };
            }
            if self.buy_from(order, one, opened, trade, stop, tell).await? {
                break;
            }
        }
        let part = match part {
            Some(part) if lock(&part).is_complete() => return self.finish(part).await,
            Some(part) => Some(part),
            None => kept(order).await?,
        };
        let failures = std::mem::take(&mut trade.failures);
        match (part, unopened) {
            (_, Some(error)) if failures.is_empty() => Err(error.into()),
            (Some(part), _) => {
                let part = lock(&part);
                Err(OrderError::Incomplete { have: part.present_bytes(), total: part.size().bytes(), failures })
            }
            (None, _) => Err(OrderError::NoSeller(failures)),
        }
    }

    /// Buys from one seller what is missing; whether all is there then.
    async fn buy_from(
        &self,
        order: &Order,
        found: Found,
        part: &Part,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<bool, OrderError> {
        let (seller, addrs) = (found.seller, found.addrs);
        let (price, size) = (found.offered.quote.quote().price, found.offered.size);
        let mut offered = Ok(found.offered);
        for attempt in 1..=TRIES {
            let mut there = lock(part).present_bytes();
            let progress = |bytes| {
                there += bytes;
                tell(News::Progress { bytes: there, total: size.bytes() });
            };
            let (bought, outcome) = match offered {
                Ok(offered) => {
                    let limit = trade.left(order.max);
                    let run = Purchase { driver: &self.driver, root: order.link.root, part, limit, stop };
                    run.from(offered, progress).await
                }
                Err(failure) => (Bought::default(), Err(failure)),
            };
            trade.note(seller, bought);
            // The books are to agree before we go. Where the connection is gone, they do so when there is one again: to wait
            // for a dead seller here would keep us from the next.
            if !matches!(outcome, Err(BuyFailure::Io(_) | BuyFailure::Open(_))) {
                accounts::settle(&self.driver, &self.net, seller, addrs.clone()).await;
            }
            let failure = match outcome {
                Ok(()) => return Ok(true),
                Err(BuyFailure::Interrupted) => return Err(OrderError::Interrupted),
                // Ours, not the seller's: no other one can help.
                Err(BuyFailure::Write(source)) => return Err(unwritten(order, &lock(part), source)),
                Err(BuyFailure::Store(error)) => return Err(error.into()),
                Err(failure) => failure,
            };
            tell(News::Failed { seller, reason: failure.to_string() });
            let again = failure.is_worth_another_try() && attempt < TRIES;
            trade.failures.push(SellerFailure::buying(seller, failure));
            if !again {
                return Ok(false);
            }
            let asked = find::ask(&self.driver, &self.net, seller, addrs.clone(), order.link.root).await;
            offered = asked.and_then(|offered| offered.unchanged(price, size));
        }
        Ok(false)
    }

    async fn finish(&self, part: Part) -> Result<PathBuf, OrderError> {
        let outboards = self.outboards.clone();
        let part = Arc::into_inner(part).and_then(|part| part.into_inner().ok()).ok_or(OrderError::Interrupted)?;
        let finished = spawn_blocking(move || part.finish(&outboards)).await;
        Ok(finished.map_err(|_| OrderError::Interrupted)??.path)
    }

    /// The fee of an advance now.
    pub(super) async fn setup_fee(&self) -> Msat {
        let fee_sat = self.driver.wallet().estimate_fee(0).await.unwrap_or(0);
        Msat::from_sat(fee_sat).unwrap_or(Msat::MAX)
    }
}

/// Orders the sellers by what the bytes that are not here cost there in all, each by its own claim of the size.
pub(super) fn rank_found(found: &[Found], have: u64, setup_fee: Msat, tell: Tell<'_>) -> Vec<Ranked> {
    let ranked = rank(found.iter().map(|one| Candidate {
        seller: one.seller,
        price: one.offered.quote.quote().price,
        bytes: one.offered.size.bytes().saturating_sub(have),
        available: one.available,
        setup_fee,
        reliability: if one.served > Msat::ZERO { SERVED_WELL } else { STRANGER },
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

/// What the owner is told when the disk takes no more of the file.
fn unwritten(order: &Order, part: &Download, source: WriteError) -> OrderError {
    let missing = part.size().bytes().saturating_sub(part.present_bytes());
    OrderError::Write { folder: folder_of(&order.dest), missing, source }
}

/// What an earlier try of the order left behind.
async fn kept(order: &Order) -> Result<Option<Part>, OpenError> {
    match Download::begun(order.link.root, &order.dest) {
        Some(size) => open(order, size, None).await.map(Some),
        None => Ok(None),
    }
}

/// The partial file at this size: the one that is open, if it has it.
async fn open(order: &Order, size: Size, part: Option<Part>) -> Result<Part, OpenError> {
    if let Some(part) = part.filter(|part| lock(part).size() == size) {
        return Ok(part);
    }
    let (root, dest) = (order.link.root, order.dest.clone());
    // Checking what is there may read all of it.
    let opened = spawn_blocking(move || Download::open(root, size, &dest)).await;
    let stopped = |error| OpenError::Io { path: order.dest.clone(), source: std::io::Error::other(error) };
    Ok(Arc::new(Mutex::new(opened.map_err(stopped)??)))
}
