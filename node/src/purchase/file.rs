//! A file from its sellers, several at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p_identity::PeerId;
use pedlar_net::Multiaddr;
use pedlar_protocol::content::{Size, Whole};
use pedlar_protocol::money::Price;
use pedlar_protocol::session::{Plan, Request};
use tokio_util::sync::CancellationToken;

use crate::blobs::{Download, OpenError};
use crate::purchase::goods::Finished;
use crate::purchase::object::{Lot, Sale};
use crate::purchase::part::{self, Part};
use crate::purchase::trade::Trade;
use crate::purchase::{Buyer, Found, News, Order, OrderError, Tell};
use crate::session::{Offered, lock};

/// A file; nothing before a seller has said how long it is.
#[derive(Default)]
pub(super) struct File {
    part: Option<Part>,
}

impl File {
    /// What an earlier try of the order left behind.
    pub(super) async fn kept(order: &Order) -> Result<Self, OrderError> {
        let part = match Download::begun(order.link.root, &order.dest) {
            Some(size) => Some(part::open(order.link.root, size, &order.dest).await?),
            None => None,
        };
        Ok(Self { part })
    }

    /// Whether all of it is here.
    pub(super) fn is_complete(&self) -> bool {
        self.part.as_ref().is_some_and(|part| lock(part).is_complete())
    }

    /// Bytes that are here, of how many; nothing while that is unknown.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        self.part.as_ref().map(|part| {
            let part = lock(part);
            (part.present_bytes(), part.size().bytes())
        })
    }

    /// What is to be bought yet, as far as a seller's claim is believed.
    pub(super) fn missing(&self, said: Whole) -> Whole {
        let have = self.part.as_ref().map_or(0, |part| lock(part).present_bytes());
        Whole { bytes: said.bytes.saturating_sub(have), ..said }
    }

    /// The partial file at this size: the one that is open, if it has it.
    pub(super) async fn open(&mut self, order: &Order, size: Size) -> Result<(), OpenError> {
        let fits = self.part.take_if(|part| lock(part).size() == size);
        // Another one is closed before, for the lock on it.
        self.part = None;
        self.part = match fits {
            Some(part) => Some(part),
            None => Some(part::open(order.link.root, size, &order.dest).await?),
        };
        Ok(())
    }

    /// Gives it its name when it is complete.
    pub(super) async fn finish(self, buyer: &Buyer) -> Result<Finished, OrderError> {
        let blob = buyer.keep(self.part.ok_or(OrderError::Interrupted)?).await?;
        Ok(Finished { path: blob.path.clone(), blob: Some(blob) })
    }
}

/// A seller that a file is bought from, among others.
struct Source {
    seller: PeerId,
    addrs: Vec<Multiaddr>,
    price: Price,
}

impl Buyer {
    /// Buys what is missing of a file from these sellers at once; whether all is there then.
    ///
    /// What one that fails leaves undone is bought from the others, also where they had nothing left to do meanwhile.
    pub(super) async fn buy_file(
        &self,
        order: &Order,
        file: &File,
        found: Vec<Found>,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<bool, OrderError> {
        let (Some(part), Some((there, total))) = (&file.part, file.progress()) else { return Ok(false) };
        let (plan, there) = (Mutex::new(Plan::up_to(trade.left(order.max))), AtomicU64::new(there));
        let came = |bytes| {
            let there = there.fetch_add(bytes, Ordering::Relaxed) + bytes;
            tell(News::Progress { bytes: there, total });
        };
        // The end of one on our own side ends all.
        let (request, stop) = (Request::Chunks(order.link.root), stop.child_token());
        let mut sources: Vec<_> = found.into_iter().map(Source::of).collect();
        let mut stopped = None;
        loop {
            let asked = sources.len();
            let mut running: FuturesUnordered<_> = sources
                .drain(..)
                .map(|(source, offered)| async {
                    let Source { seller, ref addrs, price } = source;
                    let lot = Lot { request, seller, addrs, price, part, plan: &plan };
                    let sale = self.buy_share(&lot, offered, &stop, came).await;
                    (sale, source)
                })
                .collect();
            while let Some((mut sale, source)) = running.next().await {
                if let Some(end) = sale.stopped.take() {
                    stop.cancel();
                    stopped.get_or_insert(end);
                }
                let is_done = sale.complete;
                trade.note(source.seller, sale, None, tell);
                if is_done {
                    sources.push((source, None));
                }
            }
            drop(running);
            if let Some(stopped) = stopped {
                return Err(stopped.into_error(&order.dest, total.saturating_sub(lock(part).present_bytes())));
            }
            let is_complete = lock(part).is_complete();
            if is_complete || sources.is_empty() || sources.len() == asked {
                // What is all there where every session ended badly is told as such, as from one seller.
                return Ok(is_complete && !sources.is_empty());
            }
        }
    }

    /// Buys from one of several sellers, and exchanges the counters with it.
    async fn buy_share(
        &self,
        lot: &Lot<'_>,
        offered: Option<Offered>,
        stop: &CancellationToken,
        came: impl FnMut(u64) + Send,
    ) -> Sale {
        let sale = self.buy_lot(lot, offered, stop, came).await;
        if !sale.is_cut_off() {
            self.settle(lot.seller, lot.addrs).await;
        }
        sale
    }
}

impl Source {
    fn of(found: Found) -> (Self, Option<Offered>) {
        let Found { seller, addrs, offered, .. } = found;
        (Self { seller, addrs, price: offered.quote.quote().price }, Some(offered))
    }
}
