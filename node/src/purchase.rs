//! Buying an object: who has it, what it costs there, an advance where one is asked for, and the download.
//!
//! ```text
//! find (link, Kademlia, book) ─▶ quotes ─▶ rank ─▶ advance? ─▶ one seller at a time ─▶ verified file
//! ```
//!
//! **Invariant:** what an order allows is never exceeded: [`Order::max`] bounds all that can be lost.

mod advance;
mod find;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libp2p_identity::PeerId;
use pedlar_net::NetHandle;
use pedlar_protocol::book::{Candidate, Ranked, rank};
use pedlar_protocol::content::{Link, Size};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::refusal::Refusal;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

pub(crate) use advance::{PaymentFailure, PaymentNews, TopUpOrder, top_up};
pub(crate) use find::{Found, SellerFailure, Why};

use crate::accounts;
use crate::blobs::{Download, FinishError, OpenError};
use crate::driver::Driver;
use crate::session::{Bought, BuyFailure, Purchase};
use crate::store::StoreError;

/// How often a seller that broke off is asked again before the next one is.
const TRIES: usize = 2;

/// Reliability of a seller that served us before, and of one that we do not know, in thousandths.
const SERVED_WELL: u16 = 900;
const STRANGER: u16 = 500;

/// What is to be bought, and what it may cost.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) link: Link,
    /// Where the file goes.
    pub(crate) dest: PathBuf,
    /// All that can be lost.
    pub(crate) max: Option<Msat>,
    /// An advance that may be paid on chain, in sat.
    pub(crate) prepay_sat: Option<u64>,
}

/// What happens on the way.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A seller's price for what is missing.
    Quote { seller: PeerId, price: Price, cost: Msat, available: Msat },
    /// Money is on its way.
    Payment(PaymentNews),
    /// More is there.
    Progress { bytes: u64, total: u64 },
    /// A seller failed; the next is asked.
    Failed { seller: PeerId, reason: String },
}

/// Who hears the news.
pub(crate) type Tell<'a> = &'a (dyn Fn(News) + Send + Sync);

/// What a purchase came to.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) paid: Msat,
    pub(crate) fees_sat: u64,
    pub(crate) txid: Option<String>,
    pub(crate) took: Duration,
    pub(crate) sellers: Vec<(PeerId, Bought)>,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// Nobody is known to have it.
    #[error("nobody is known to sell it: asked {0}")]
    NotFound(String),
    /// None of those who have it can be reached.
    #[error("none of the {} sellers can be reached: {}", .0.len(), reasons(.0))]
    Unreachable(Vec<SellerFailure>),
    /// None of those who have it sells it.
    #[error("none of the {} sellers sells it: {}", .0.len(), reasons(.0))]
    NoSeller(Vec<SellerFailure>),
    /// None sells it for what may be spent.
    #[error("the cheapest asks {cheapest}, the limit is {max}")]
    TooDear { cheapest: Msat, max: Msat },
    /// What the owner allowed to be prepaid is above what may be lost.
    #[error("an advance of {prepay_sat} sat is above the limit of {max}")]
    PrepayOverMax { prepay_sat: u64, max: Msat },
    /// An advance is needed.
    #[error(transparent)]
    Payment(#[from] PaymentFailure),
    /// All sellers failed on the way.
    #[error("{} of {} bytes are here; no seller is left: {}", .have, .total, reasons(.failures))]
    Incomplete { have: u64, total: u64, failures: Vec<SellerFailure> },
    /// The file can't be written.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file can't be given its name.
    #[error(transparent)]
    Finish(#[from] FinishError),
    /// Our journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The owner stopped it.
    #[error("interrupted: what is verified stays, the same command goes on")]
    Interrupted,
}

fn reasons(failures: &[SellerFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Buys things for one node.
pub(crate) struct Buyer {
    driver: Arc<Driver>,
    net: NetHandle,
    outboards: PathBuf,
}

impl Buyer {
    pub(crate) fn new(driver: Arc<Driver>, net: NetHandle, outboards: &Path) -> Self {
        Self { driver, net, outboards: outboards.to_owned() }
    }

    /// What the object would cost at each seller that has it, the cheapest first; nothing is bought.
    ///
    /// # Errors
    /// [`OrderError`] when nobody quotes.
    pub(crate) async fn quotes(&self, order: &Order, tell: Tell<'_>) -> Result<Vec<Ranked>, OrderError> {
        let found = self.find(&order.link).await?;
        let setup_fee = self.setup_fee().await;
        let ranked = rank_found(&found, None, setup_fee, tell);
        for seller in found {
            seller.offered.decline().await;
        }
        Ok(ranked)
    }

    /// Buys the object; when `stop` fires, what came is signed for and kept.
    ///
    /// # Errors
    /// [`OrderError`]; what is verified stays beside the destination, and the same order goes on with it.
    pub(crate) async fn buy(
        &self,
        order: &Order,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<Outcome, OrderError> {
        let begun = Instant::now();
        check_limits(order)?;
        let mut trade = Trade { paid: Msat::ZERO, fees_sat: 0, txid: None, sellers: Vec::new(), failures: Vec::new() };
        let path = match self.resume(order)? {
            Some(done) => done,
            None => self.trade(order, &mut trade, stop, tell).await?,
        };
        Ok(Outcome {
            path,
            bytes: trade.sellers.iter().map(|(_, bought)| bought.bytes).sum(),
            paid: trade.paid,
            fees_sat: trade.fees_sat,
            txid: trade.txid,
            took: begun.elapsed(),
            sellers: trade.sellers,
        })
    }
}

/// What one order has come to so far.
struct Trade {
    paid: Msat,
    fees_sat: u64,
    txid: Option<String>,
    sellers: Vec<(PeerId, Bought)>,
    failures: Vec<SellerFailure>,
}

/// The file being bought, shared with the thread that writes it.
type Part = Arc<Mutex<Download>>;

impl Buyer {
    /// A download that was complete when the node went down only needs its name.
    fn resume(&self, order: &Order) -> Result<Option<PathBuf>, OrderError> {
        let Some(size) = order.link.size.filter(|_| Download::exists(&order.dest)) else {
            return Ok(None);
        };
        match Download::open(order.link.root, size, &order.dest) {
            Ok(download) if download.is_complete() => Ok(Some(download.finish(&self.outboards)?.path)),
            // The link's size is only a claim: the sellers' quotes decide.
            Ok(_) | Err(_) => Ok(None),
        }
    }

    async fn trade(
        &self,
        order: &Order,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<PathBuf, OrderError> {
        let mut found = self.find(&order.link).await?;
        let first = found.first().ok_or_else(|| OrderError::NoSeller(Vec::new()))?;
        let mut part = self.open(order, first.offered.size)?;
        let setup_fee = self.setup_fee().await;
        let ranked = rank_found(&found, Some(&part), setup_fee, tell);
        let affordable = within(&ranked, order.max)?;
        let ready: Vec<PeerId> =
            affordable.iter().filter(|best| best.advance == Msat::ZERO).map(|best| best.candidate.seller).collect();
        let queue = if ready.is_empty() {
            let best = affordable.first().ok_or_else(|| OrderError::NoSeller(Vec::new()))?;
            self.pay_advance(order, best, &mut found, trade, stop, tell).await?;
            vec![best.candidate.seller]
        } else {
            ready
        };
        for seller in queue {
            let Some(place) = found.iter().position(|one| one.seller == seller) else { continue };
            let one = found.swap_remove(place);
            if one.offered.size != lock(&part).size() {
                part = self.open(order, one.offered.size)?;
            }
            if self.buy_from(order, one, &part, trade, stop, tell).await? {
                return self.finish(part).await;
            }
        }
        let part = lock(&part);
        let failures = std::mem::take(&mut trade.failures);
        Err(OrderError::Incomplete { have: part.present_bytes(), total: part.size().bytes(), failures })
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
        let mut offered = Ok(found.offered);
        for attempt in 1..=TRIES {
            let (have, total) = {
                let part = lock(part);
                (part.present_bytes(), part.size().bytes())
            };
            let mut there = have;
            let progress = |bytes| {
                there += bytes;
                tell(News::Progress { bytes: there, total });
            };
            let (bought, outcome) = match offered {
                Ok(offered) => {
                    let limit = order.max.map(|max| max.saturating_sub(trade.paid));
                    let run = Purchase { driver: &self.driver, root: order.link.root, part, limit, stop };
                    run.from(offered, progress).await
                }
                Err(failure) => (Bought::default(), Err(failure)),
            };
            trade.note(seller, bought);
            // The last receipt may have been lost with the stream: the books are to agree before we go.
            if let Err(error) = accounts::sync(&self.driver, &self.net, seller, addrs.clone()).await {
                tracing::debug!(%seller, %error, "the seller's books are not known yet");
            }
            let failure = match outcome {
                Ok(()) => return Ok(true),
                Err(BuyFailure::Interrupted) => return Err(OrderError::Interrupted),
                Err(failure) => failure,
            };
            tell(News::Failed { seller, reason: failure.to_string() });
            let again = failure.is_worth_another_try() && attempt < TRIES;
            trade.failures.push(SellerFailure::buying(seller, failure));
            if !again {
                return Ok(false);
            }
            offered = find::ask(&self.driver, &self.net, seller, addrs.clone(), order.link.root).await;
        }
        Ok(false)
    }

    async fn finish(&self, part: Part) -> Result<PathBuf, OrderError> {
        let outboards = self.outboards.clone();
        let part = Arc::into_inner(part).and_then(|part| part.into_inner().ok()).ok_or(OrderError::Interrupted)?;
        let finished = spawn_blocking(move || part.finish(&outboards)).await;
        Ok(finished.map_err(|_| OrderError::Interrupted)??.path)
    }

    fn open(&self, order: &Order, size: Size) -> Result<Part, OrderError> {
        Ok(Arc::new(Mutex::new(Download::open(order.link.root, size, &order.dest)?)))
    }

    /// The fee of an advance now.
    async fn setup_fee(&self) -> Msat {
        let fee_sat = self.driver.wallet().estimate_fee(0).await.unwrap_or(0);
        Msat::from_sat(fee_sat).unwrap_or(Msat::MAX)
    }
}

/// Orders the sellers by what the missing bytes cost there in all.
fn rank_found(found: &[Found], part: Option<&Part>, setup_fee: Msat, tell: Tell<'_>) -> Vec<Ranked> {
    let have = part.map_or(0, |part| lock(part).present_bytes());
    let candidates = found.iter().map(|one| Candidate {
        seller: one.seller,
        price: one.offered.quote.quote().price,
        available: one.available,
        setup_fee,
        reliability: if one.served > Msat::ZERO { SERVED_WELL } else { STRANGER },
    });
    let size = found.iter().map(|one| one.offered.size.bytes()).max().unwrap_or(0);
    let ranked = rank(candidates, size.saturating_sub(have));
    for one in &ranked {
        let Candidate { seller, price, available, .. } = one.candidate;
        tell(News::Quote { seller, price, cost: one.charge, available });
    }
    ranked
}

impl Trade {
    fn note(&mut self, seller: PeerId, bought: Bought) {
        self.paid = self.paid.saturating_add(bought.cost);
        match self.sellers.iter_mut().find(|(known, _)| *known == seller) {
            Some((_, sum)) => sum.add(bought),
            None if bought.bytes > 0 => self.sellers.push((seller, bought)),
            None => {}
        }
    }
}

fn check_limits(order: &Order) -> Result<(), OrderError> {
    let (Some(prepay_sat), Some(max)) = (order.prepay_sat, order.max) else {
        return Ok(());
    };
    if Msat::from_sat(prepay_sat).is_none_or(|prepay| prepay > max) {
        return Err(OrderError::PrepayOverMax { prepay_sat, max });
    }
    Ok(())
}

/// The sellers whose whole charge is within what may be lost.
fn within(ranked: &[Ranked], max: Option<Msat>) -> Result<Vec<Ranked>, OrderError> {
    let affordable: Vec<Ranked> =
        ranked.iter().filter(|one| max.is_none_or(|max| one.charge <= max)).copied().collect();
    let cheapest = ranked.iter().map(|one| one.charge).min();
    match (cheapest, max) {
        (Some(cheapest), Some(max)) if affordable.is_empty() => Err(OrderError::TooDear { cheapest, max }),
        _ => Ok(affordable),
    }
}

/// Whether what a refusal says is that money is missing.
pub(crate) const fn asks_for_money(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::PayFirst { .. } | Refusal::OverLimit { .. })
}

fn lock(part: &Mutex<Download>) -> std::sync::MutexGuard<'_, Download> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
