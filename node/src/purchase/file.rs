//! A file from its sellers.

use std::path::PathBuf;

use pedlar_protocol::content::{Size, Whole};
use pedlar_protocol::session::Request;
use tokio_util::sync::CancellationToken;

use crate::blobs::{Download, OpenError};
use crate::purchase::object::Lot;
use crate::purchase::part::{self, Part};
use crate::purchase::trade::Trade;
use crate::purchase::{Buyer, Found, News, Order, OrderError, Tell};
use crate::session::lock;

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
    pub(super) async fn finish(self, buyer: &Buyer) -> Result<PathBuf, OrderError> {
        buyer.keep(self.part.ok_or(OrderError::Interrupted)?).await
    }
}

impl Buyer {
    /// Buys what is missing of a file from one seller; whether all is there then.
    pub(super) async fn buy_file(
        &self,
        order: &Order,
        file: &File,
        found: Found,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<bool, OrderError> {
        let Some(part) = &file.part else { return Ok(false) };
        let Found { seller, addrs, offered, .. } = found;
        let (request, price) = (Request::Chunks(order.link.root), offered.quote.quote().price);
        let lot = Lot { request, seller, addrs: &addrs, price, part, limit: trade.left(order.max) };
        let (mut there, total) = (lock(part).present_bytes(), offered.size.bytes());
        let progress = |bytes| {
            there += bytes;
            tell(News::Progress { bytes: there, total });
        };
        let mut sale = self.buy_lot(&lot, Some(offered), stop, progress).await;
        let (stopped, complete, cut_off) = (sale.stopped.take(), sale.complete, sale.is_cut_off());
        trade.note(seller, sale, None, tell);
        if !cut_off {
            self.settle(seller, &addrs).await;
        }
        match stopped {
            Some(stopped) => {
                let missing = total.saturating_sub(lock(part).present_bytes());
                Err(stopped.into_error(&order.dest, missing))
            }
            None => Ok(complete),
        }
    }
}
