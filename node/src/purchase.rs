//! Buying a file or a folder: who has it, what it costs there, an advance where one is asked for, and the download.
//!
//! ```text
//! find (link, Kademlia, book) ─▶ quotes ─▶ rank ─▶ advance? ─▶ some sellers at once ─▶ verified goods
//!                                                              object by object ─┘ (a folder: manifest, then files)
//! ```
//!
//! **Invariant:** what an order allows is never exceeded: [`Order::max`] bounds all that can be lost.

mod advance;
mod choice;
mod file;
mod find;
mod folder;
mod goods;
mod object;
mod part;
mod payment;
mod trade;
mod wait;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p_identity::PeerId;
use pedlar_net::NetHandle;
use pedlar_protocol::book::Ranked;
use pedlar_protocol::content::{CollectionError, EntryPath, Link};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::refusal::Refusal;
use tokio_util::sync::CancellationToken;

pub(crate) use advance::{TopUpOrder, top_up};
pub(crate) use find::{Found, SellerFailure, Why};
pub(crate) use payment::{PaymentFailure, PaymentNews};

use choice::rank_found;
use goods::{Finished, Goods};
use trade::Trade;

use crate::blobs::{FinishError, OpenError, PublishedBlob, WriteError};
use crate::driver::Driver;
use crate::session::Bought;
use crate::store::StoreError;

/// Missing files of a folder that are named: enough to see what they are.
const MAX_NAMED: usize = 8;

/// What is to be bought, and what it may cost.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) link: Link,
    /// Where the file or folder goes.
    pub(crate) dest: PathBuf,
    /// All that can be lost.
    pub(crate) max: Option<Msat>,
    /// An advance that may be paid on chain, in sat.
    pub(crate) prepay_sat: Option<u64>,
    /// The fee that it may have, in sat; by default twice the estimate.
    pub(crate) max_fee_sat: Option<u64>,
}

/// What happens on the way.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A seller's price for what is missing.
    Quote { seller: PeerId, price: Price, cost: Msat, available: Msat },
    /// What the best seller that is to be paid in advance would get.
    Advance { seller: PeerId, amount_sat: u64, fee_sat: u64, max_fee_sat: u64 },
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
    /// A file as it can be sold on; a folder is not.
    pub(crate) blob: Option<PublishedBlob>,
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
    #[error("{have} of {total} bytes are here; {}no seller is left: {}", .lacks.as_ref().map(ToString::to_string).unwrap_or_default(), reasons(.failures))]
    Incomplete {
        /// Bytes that are here.
        have: u64,
        /// Bytes in all.
        total: u64,
        /// Of a folder: which files are not.
        lacks: Option<Lacks>,
        /// Who failed, and how.
        failures: Vec<SellerFailure>,
    },
    /// The file can't be written.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Our own disk, while it is written.
    #[error("{source} in {}: {missing} more bytes are needed there", .folder.display())]
    Write {
        /// Where the file was to be.
        folder: PathBuf,
        /// Bytes of the file that are not there.
        missing: u64,
        /// What is wrong.
        source: WriteError,
    },
    /// What the link names can't be laid out as a folder, whoever sells it.
    #[error("the link names no folder that can be kept: {0}")]
    Collection(CollectionError),
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

/// What a folder lacks.
#[derive(Debug)]
pub(crate) struct Lacks {
    /// Files that are whole.
    pub(crate) here: usize,
    /// The others, in their order.
    pub(crate) missing: Vec<EntryPath>,
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { here, missing } = self;
        let named = missing.iter().take(MAX_NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "{here} of {} files are whole, missing: {named}", here + missing.len())?;
        match missing.len().saturating_sub(MAX_NAMED) {
            0 => write!(f, "; "),
            more => write!(f, " and {more} more; "),
        }
    }
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
        let ranked = rank_found(&found, &Goods::none(order), setup_fee, tell);
        let best = ranked.iter().find(|one| one.advance > Msat::ZERO);
        if let Some(best) = best
            && let Some(one) = found.iter().find(|one| one.seller == best.candidate.seller)
            && let Some((amount_sat, fee_sat, max_fee_sat)) = self.plan(order, best, one, order.max).in_sat()
        {
            tell(News::Advance { seller: one.seller, amount_sat, fee_sat, max_fee_sat });
        }
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
        let mut trade = Trade::default();
        let Finished { path, blob } = self.trade(order, &mut trade, stop, tell).await?;
        Ok(Outcome {
            path,
            blob,
            bytes: trade.sellers.iter().map(|(_, bought)| bought.bytes).sum(),
            paid: trade.paid,
            fees_sat: trade.fees_sat,
            txid: trade.txid,
            took: begun.elapsed(),
            sellers: trade.sellers,
        })
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

/// Whether what a refusal says is that money is missing.
pub(crate) const fn asks_for_money(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::PayFirst { .. } | Refusal::OverLimit { .. })
}
