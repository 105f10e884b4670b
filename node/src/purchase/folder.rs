//! A folder from its sellers: the manifest as any object, then the objects that it names, several at once.
//!
//! All of them are sold under one root at one price, so one choice of a seller and one advance do for the whole, and the
//! counters are exchanged once in many objects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p_identity::PeerId;
use pedlar_net::Multiaddr;
use pedlar_protocol::content::{Collection, CollectionEntry, Root, Size, Whole};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::{Plan, Request};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::blobs::{FolderDownload, OpenError};
use crate::purchase::object::{Lot, Sale};
use crate::purchase::part::{self, Part};
use crate::purchase::trade::Trade;
use crate::purchase::{Buyer, Found, Lacks, News, Order, OrderError, SellerFailure, Tell};
use crate::session::{BuyFailure, lock};

/// Objects bought at once: what one waits for its quote and its disk, others use. A seller has places for many more.
const AT_ONCE: usize = 8;

/// The counters are exchanged once in so many objects: half of what one exchange carries.
const SETTLE_EVERY: usize = 32;

/// Files of one seller that were changed or can't be read, and are named: enough to see what is wrong.
const MAX_SPOILED: usize = 8;

/// The objects of a folder that are here.
#[derive(Default)]
pub(super) struct Folder {
    download: Option<FolderDownload>,
    /// The manifest, while it is bought.
    manifest: Option<Part>,
    collection: Option<Collection>,
    /// Bytes of objects that are not whole yet.
    partial: BTreeMap<Root, u64>,
    /// Bytes of the whole, as far as a seller's claim is believed.
    claimed: u64,
}

/// Where the objects of a folder come from.
struct Source<'a> {
    collection: Root,
    seller: PeerId,
    addrs: &'a [Multiaddr],
    price: Price,
    download: &'a FolderDownload,
    stop: &'a CancellationToken,
    /// Bytes of the whole that are here.
    there: AtomicU64,
    total: u64,
    tell: Tell<'a>,
}

/// An object that was tried.
struct Tried<'a> {
    entry: &'a CollectionEntry,
    reserved: Msat,
    outcome: Result<Sale, OrderError>,
}

/// What buying from one seller has come to.
#[derive(Default)]
struct Round {
    /// Nothing more is begun: the seller fails, or we have to stop.
    is_over: bool,
    is_cut_off: bool,
    /// Files that it could not deliver.
    spoiled: usize,
    error: Option<OrderError>,
}

impl Folder {
    /// What an earlier try of the order left behind.
    pub(super) async fn kept(order: &Order) -> Result<Self, OrderError> {
        if !FolderDownload::begun(&order.dest) {
            return Ok(Self::default());
        }
        let mut folder = Self { download: Some(begin(order).await?), ..Self::default() };
        folder.read_manifest(order).await?;
        folder.measure().await?;
        Ok(folder)
    }

    /// Whether nothing is to be bought.
    pub(super) fn is_complete(&self) -> bool {
        self.collection.is_some() && self.objects().into_iter().all(|entry| self.missing_of(entry) == 0)
    }

    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        self.download.as_ref()?;
        let Some(collection) = &self.collection else { return Some((0, self.claimed)) };
        let (total, missing) = (collection.whole().bytes, self.missing(collection.whole()).bytes);
        Some((total.saturating_sub(missing), total))
    }

    /// Which files are not here, once the list of them is; those without a byte are nobody's to sell.
    pub(super) fn lacks(&self) -> Option<Lacks> {
        let wanted: BTreeSet<Root> = self.objects().into_iter().map(|entry| entry.root).collect();
        let filled = self.collection.as_ref()?.entries().iter().filter(|entry| entry.size.bytes() > 0);
        let (missing, here): (Vec<_>, Vec<_>) = filled.partition(|entry| wanted.contains(&entry.root));
        Some(Lacks { here: here.len(), missing: missing.into_iter().map(|entry| entry.path.clone()).collect() })
    }

    pub(super) fn missing(&self, said: Whole) -> Whole {
        if self.collection.is_none() {
            return said;
        }
        let objects = self.objects();
        Whole { bytes: objects.iter().map(|entry| self.missing_of(entry)).sum(), objects: objects.len() as u64 }
    }

    pub(super) async fn open(&mut self, order: &Order, size: Size, said: Whole) -> Result<(), OpenError> {
        if self.download.is_none() {
            self.download = Some(begin(order).await?);
        }
        let need = self.missing(said).bytes;
        self.claimed = said.bytes;
        let Some(download) = &self.download else { return Ok(()) };
        download.require_room(need)?;
        if self.collection.is_none() {
            // Another one is closed before, for the lock on it.
            self.manifest = None;
            self.manifest = Some(part::open(order.link.root, size, &download.object(&order.link.root)).await?);
        }
        Ok(())
    }

    /// Gives the folder its name, and before that the objects theirs whose last byte came right before a crash.
    pub(super) async fn finish(self, buyer: &Buyer) -> Result<PathBuf, OrderError> {
        for entry in self.objects() {
            let Some(download) = &self.download else { break };
            buyer.keep(part::open(entry.root, entry.size, &download.object(&entry.root)).await?).await?;
        }
        let (download, collection) = self.download.zip(self.collection).ok_or(OrderError::Interrupted)?;
        let finished = spawn_blocking(move || download.finish(&collection)).await;
        Ok(finished.map_err(|_| OrderError::Interrupted)??)
    }

    /// The objects that are not here, in the order of paths.
    fn objects(&self) -> Vec<&CollectionEntry> {
        let (Some(download), Some(collection)) = (&self.download, &self.collection) else { return Vec::new() };
        let mut objects = collection.objects();
        objects.retain(|entry| !download.has(entry));
        objects
    }

    /// Bytes of an object that are to be bought.
    fn missing_of(&self, entry: &CollectionEntry) -> u64 {
        entry.size.bytes().saturating_sub(self.partial.get(&entry.root).copied().unwrap_or(0))
    }

    /// Looks how much of each object is here.
    async fn measure(&mut self) -> Result<(), OrderError> {
        let objects: Vec<CollectionEntry> = self.objects().into_iter().cloned().collect();
        let Some(download) = self.download.take() else { return Ok(()) };
        let measured = spawn_blocking(move || {
            let present = objects.iter().map(|entry| (entry.root, download.present_of(entry)));
            (present.filter(|(_, bytes)| *bytes > 0).collect(), download)
        });
        let (partial, download) = measured.await.map_err(|_| OrderError::Interrupted)?;
        (self.partial, self.download) = (partial, Some(download));
        Ok(())
    }

    /// Reads the manifest, where it is complete. A folder that nobody can lay out is given up.
    async fn read_manifest(&mut self, order: &Order) -> Result<(), OrderError> {
        let Some(download) = self.download.take() else { return Ok(()) };
        let root = order.link.root;
        let read = spawn_blocking(move || {
            let read = download.manifest(&root).map(|found| found.map(|bytes| Collection::decode(&bytes)));
            if matches!(read, Ok(Some(Err(_)))) {
                download.discard();
                return (None, read);
            }
            (Some(download), read)
        });
        let (download, read) = read.await.map_err(|_| OrderError::Interrupted)?;
        self.download = download;
        let io = |source| OpenError::Io { path: order.dest.clone(), source };
        self.collection = read.map_err(io)?.transpose().map_err(OrderError::Collection)?;
        Ok(())
    }
}

impl Buyer {
    /// Buys what is missing of a folder from one seller; whether all is there then.
    pub(super) async fn buy_folder(
        &self,
        order: &Order,
        folder: &mut Folder,
        found: Found,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<bool, OrderError> {
        let (seller, price, said) = (found.seller, found.offered.quote.quote().price, found.whole);
        let addrs = found.addrs.clone();
        match folder.manifest.take() {
            Some(part) => {
                if !self.buy_manifest(order, part, found, trade, stop, tell).await? {
                    return Ok(false);
                }
                folder.read_manifest(order).await?;
            }
            None => found.offered.decline().await,
        }
        folder.measure().await?;
        let Some(collection) = &folder.collection else { return Ok(false) };
        let whole = collection.whole();
        if said != whole {
            let failure = BuyFailure::Whole { said, whole };
            trade.fail(SellerFailure::buying(seller, failure), tell);
            return Ok(false);
        }
        self.buy_objects(order, folder, (seller, &addrs, price), trade, stop, tell).await
    }

    /// Buys the manifest; whether it is there then.
    async fn buy_manifest(
        &self,
        order: &Order,
        part: Part,
        found: Found,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<bool, OrderError> {
        let Found { seller, addrs, offered, whole, .. } = found;
        let total = whole.bytes;
        let (request, price) = (Request::Chunks(order.link.root), offered.quote.quote().price);
        let plan = Mutex::new(Plan::up_to(trade.left(order.max)));
        let lot = Lot { request, seller, addrs: &addrs, price, part: &part, plan: &plan };
        let mut there = lock(&part).present_bytes();
        let progress = |bytes| {
            there += bytes;
            tell(News::Progress { bytes: there, total });
        };
        let mut sale = self.buy_lot(&lot, Some(offered), stop, progress).await;
        let (stopped, complete) = (sale.stopped.take(), sale.complete);
        trade.note(seller, sale, None, tell);
        if let Some(stopped) = stopped {
            return Err(stopped.into_error(&order.dest, total));
        }
        if complete {
            self.keep(part).await?;
        }
        Ok(complete)
    }

    /// Buys the objects that are missing, some at once; whether all are there then.
    async fn buy_objects(
        &self,
        order: &Order,
        folder: &Folder,
        (seller, addrs, price): (PeerId, &[Multiaddr], Price),
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<bool, OrderError> {
        let (Some(download), Some((there, total))) = (&folder.download, folder.progress()) else { return Ok(false) };
        let (collection, there) = (order.link.root, AtomicU64::new(there));
        let source = Source { collection, seller, addrs, price, download, stop, there, total, tell };
        let charge = |entry| price.charge(folder.missing_of(entry)).unwrap_or(Msat::MAX);
        let wanted: Vec<_> = folder.objects().into_iter().map(|entry| (entry, charge(entry))).collect();
        let all = wanted.iter().fold(Msat::ZERO, |sum, (_, charge)| sum.saturating_add(*charge));
        if trade.left(order.max).is_some_and(|left| left < all) {
            // Half a folder is not what was allowed.
            trade.fail(SellerFailure::buying(seller, BuyFailure::Limit), tell);
            return Ok(false);
        }
        let (mut rest, mut running, mut round) = (all, FuturesUnordered::new(), Round::default());
        let mut wanted = wanted.into_iter().zip(1_usize..);
        loop {
            while running.len() < AT_ONCE && !round.is_over {
                let Some(((entry, charge), number)) = wanted.next() else { break };
                rest = rest.saturating_sub(charge);
                let reserved = trade.reserve(charge, rest, order.max);
                let limit = order.max.map(|_| reserved);
                running.push(self.buy_object(&source, entry, reserved, limit, number.is_multiple_of(SETTLE_EVERY)));
            }
            let Some(tried) = running.next().await else { break };
            trade.release(tried.reserved);
            match tried.outcome {
                Ok(sale) => trade.note(seller, round.take(sale, order, &source), Some(&tried.entry.path), tell),
                Err(error) => round.stop(error),
            }
        }
        if !round.is_cut_off {
            self.settle(seller, addrs).await;
        }
        round.error.map_or_else(|| Ok(folder.is_complete()), Err)
    }

    /// Buys one object of a folder and gives it its place; now and then the counters are exchanged with it.
    async fn buy_object<'a>(
        &self,
        source: &Source<'_>,
        entry: &'a CollectionEntry,
        reserved: Msat,
        limit: Option<Msat>,
        settle: bool,
    ) -> Tried<'a> {
        let outcome = self.buy_and_keep(source, entry, limit).await;
        if settle && outcome.as_ref().is_ok_and(|sale| sale.complete) {
            self.settle(source.seller, source.addrs).await;
        }
        Tried { entry, reserved, outcome }
    }

    async fn buy_and_keep(
        &self,
        source: &Source<'_>,
        entry: &CollectionEntry,
        limit: Option<Msat>,
    ) -> Result<Sale, OrderError> {
        let part = part::open(entry.root, entry.size, &source.download.object(&entry.root)).await?;
        let request = Request::Entry { collection: source.collection, entry: entry.root };
        let Source { seller, addrs, price, stop, .. } = *source;
        let plan = Mutex::new(Plan::up_to(limit));
        let lot = Lot { request, seller, addrs, price, part: &part, plan: &plan };
        let complete = lock(&part).is_complete();
        let sale = match complete {
            true => Sale { complete, ..Sale::default() },
            false => self.buy_lot(&lot, None, stop, |bytes| source.came(bytes)).await,
        };
        if sale.complete {
            self.keep(part).await?;
        }
        Ok(sale)
    }
}

impl Round {
    /// Takes down how an object went; of what went wrong, what is worth telling is left in the sale.
    fn take(&mut self, mut sale: Sale, order: &Order, source: &Source<'_>) -> Sale {
        let was_over = self.is_over;
        self.is_cut_off |= sale.is_cut_off();
        if concerns_one_file(&sale) {
            self.spoiled += 1;
        } else {
            self.is_over |= !sale.complete;
        }
        // Those that ran beside the first one to fail have nothing to add.
        if was_over || self.spoiled > MAX_SPOILED {
            sale.failures.clear();
        }
        if let Some(stopped) = sale.stopped.take() {
            self.stop(stopped.into_error(&order.dest, source.left()));
        }
        sale
    }

    fn stop(&mut self, error: OrderError) {
        self.is_over = true;
        self.error.get_or_insert(error);
    }
}

impl Source<'_> {
    fn came(&self, bytes: u64) {
        let there = self.there.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.tell)(News::Progress { bytes: there, total: self.total });
    }

    /// Bytes that are to come yet.
    fn left(&self) -> u64 {
        self.total.saturating_sub(self.there.load(Ordering::Relaxed))
    }
}

async fn begin(order: &Order) -> Result<FolderDownload, OpenError> {
    let (root, dest) = (order.link.root, order.dest.clone());
    let opened = spawn_blocking(move || FolderDownload::open(root, &dest)).await;
    opened.map_err(|error| part::stopped(&order.dest, error))?
}

/// Whether a seller that failed may well sell the other files: this one was changed, or can't be read.
fn concerns_one_file(sale: &Sale) -> bool {
    matches!(sale.failures.last(), Some(BuyFailure::Refused(Refusal::Changed | Refusal::NotYet { .. })))
}
