//! The buyer's side: ranges are wanted, verified and written on a thread of their own, signed for, and wanted again.
//!
//! ```text
//! market: receipt ─▶ journal ─▶ Want ─▶ seller ─▶ frames ─▶ sink threads: verify, write, sync ─▶ market: receipt …
//! ```

mod failure;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p_identity::PeerId;
use pedlar_net::Stream;
use pedlar_protocol::content::{Collection, Kind, Root, Size, Whole};
use pedlar_protocol::market::BuyError;
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::session::quote::{SignedQuote, SignedReceipt};
use pedlar_protocol::session::{BuyerSession, BuyerViolation, CloseCode, Frame, Lane, Next, Plan, Request, Want};
use pedlar_protocol::wire::FrameKind;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::blobs::Download;
use crate::driver::{Driver, now};
use crate::session::frames::{FrameReader, FrameWriter, IoError, RawFrame};
use crate::session::sink::{Sink, Sunk, lock};
use crate::store::StoreError;

pub(crate) use failure::BuyFailure;

/// How long a seller may take to quote: it may have to open a file, and to sync its journal.
const QUOTE_DEADLINE: Duration = Duration::from_secs(15);

/// No verified group for so long: go elsewhere.
const STALL: Duration = Duration::from_secs(20);

/// A seller's price for the object, and the open stream to buy over.
pub(crate) struct Offered {
    pub(crate) quote: SignedQuote,
    pub(crate) size: Size,
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
    traffic: Arc<pedlar_net::Traffic>,
}

impl Offered {
    /// Asks a seller for its price.
    ///
    /// # Errors
    /// [`BuyFailure`] says why there is none.
    pub(crate) async fn ask(
        driver: &Driver,
        seller: PeerId,
        request: Request,
        stream: Stream,
    ) -> Result<Self, BuyFailure> {
        let traffic = stream.traffic();
        let (read, write) = split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read, FrameKind::Data), FrameWriter::new(write));
        writer.send(FrameKind::Control, Frame::Open(request).encode()).await?;
        let signed = match Frame::decode(reader.next_within(QUOTE_DEADLINE).await?.payload)? {
            Frame::Quote(signed) => signed,
            Frame::Refused(refusal) => return Err(BuyFailure::Refused(refusal)),
            _ => return Err(BuyFailure::Order),
        };
        let quote = driver.read(|market| market.handle_quote(now(), seller, request, signed))?;
        let size = Size::new(quote.quote().size).ok_or(BuyerViolation::NotWanted)?;
        Ok(Self { quote, size, reader, writer, traffic })
    }

    /// The same offer again, after what was bought under the first: at its size, and no dearer than `price`.
    ///
    /// # Errors
    /// [`BuyFailure`] when the seller has changed its mind to our loss.
    pub(crate) async fn unchanged(self, price: Price, size: Size) -> Result<Self, BuyFailure> {
        let asked = self.quote.quote().price;
        if asked > price {
            return Err(self.refuse(BuyError::TooDear { asked, promised: price }).await);
        }
        if self.size == size { Ok(self) } else { Err(self.refuse(BuyError::Other("size")).await) }
    }

    /// Refuses a quote for a folder that does not say what the whole is, or whose manifest is longer than any may be.
    ///
    /// # Errors
    /// [`BuyFailure`]; nothing is bought.
    pub(crate) async fn of_kind(self, kind: Kind) -> Result<Self, BuyFailure> {
        if kind == Kind::File {
            return Ok(self);
        }
        if let Err(error) = Collection::check_len(self.size.bytes()) {
            return Err(self.refuse(error).await);
        }
        if self.quote.quote().whole.is_some() { Ok(self) } else { Err(self.refuse(BuyError::Other("whole")).await) }
    }

    /// All that the seller says to sell under the root.
    pub(crate) fn whole(&self, kind: Kind) -> Whole {
        let alone = Whole { bytes: self.size.bytes(), objects: 1 };
        self.quote.quote().whole.filter(|_| kind == Kind::Collection).unwrap_or(alone)
    }

    /// Ends the session without buying: another seller is better.
    pub(crate) async fn decline(self) {
        self.leave(CloseCode::Price).await;
    }

    /// Ends the session because of what was quoted, and hands on why.
    async fn refuse(self, failure: impl Into<BuyFailure>) -> BuyFailure {
        let failure = failure.into();
        self.leave(failure.close_code()).await;
        failure
    }

    async fn leave(mut self, code: CloseCode) {
        // It is over either way.
        let _ = self.writer.send(FrameKind::Control, Frame::Close { code, receipt: None }.encode()).await;
        self.writer.finish().await;
    }
}

/// What one session came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bought {
    /// Bytes verified and written.
    pub(crate) bytes: u64,
    /// What they cost.
    pub(crate) cost: Msat,
    /// Bytes on the stream in both directions, frames and proofs included.
    pub(crate) wire_bytes: u64,
}

impl Bought {
    /// Adds what another session with the same seller came to.
    pub(crate) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.cost = self.cost.saturating_add(other.cost);
        self.wire_bytes += other.wire_bytes;
    }
}

/// A purchase into one download, from whoever quotes; others may bring parts of it at the same time.
pub(crate) struct Purchase<'a> {
    pub(crate) driver: &'a Driver,
    pub(crate) root: Root,
    pub(crate) part: &'a Arc<Mutex<Download>>,
    /// Who brings what, and what all of it may cost.
    pub(crate) plan: &'a Mutex<Plan>,
    /// Ends it in order: what came is signed for.
    pub(crate) stop: &'a CancellationToken,
}

impl Purchase<'_> {
    /// Buys what is missing and nobody else brings, under a quote; `progress` is called with the bytes of each verified group.
    ///
    /// The second value says why it ended before that was there; what was verified is written, signed for and stored.
    pub(crate) async fn from(
        self,
        offered: Offered,
        mut progress: impl FnMut(u64),
    ) -> (Bought, Result<(), BuyFailure>) {
        let price = offered.quote.quote().price;
        let max_window = self.driver.read(|market| market.terms().max_window);
        let mut trading = Trading {
            session: BuyerSession::new(offered.size, price, None, max_window),
            lane: lock(self.plan).join(),
            plan: self.plan,
            sink: Sink::start(self.root, offered.size, Arc::clone(self.part)),
            quote: offered.quote,
            part: self.part,
            driver: self.driver,
            signing: None,
            receipt: None,
            reader: offered.reader,
            writer: offered.writer,
        };
        let outcome = tokio::select! {
            outcome = trading.trade(&mut progress) => outcome,
            () = self.stop.cancelled() => Err(BuyFailure::Interrupted),
        };
        let outcome = trading.close(outcome).await;
        let bytes = trading.session.verified();
        let cost = trading.quote.charge(bytes);
        lock(self.plan).leave(trading.lane, cost);
        let wire_bytes = offered.traffic.read() + offered.traffic.written();
        (Bought { bytes, cost, wire_bytes }, outcome)
    }
}

/// One session while it is traded.
struct Trading<'a> {
    driver: &'a Driver,
    quote: SignedQuote,
    session: BuyerSession,
    plan: &'a Mutex<Plan>,
    lane: Lane,
    part: &'a Arc<Mutex<Download>>,
    sink: Sink,
    signing: Option<Signing<'a>>,
    receipt: Option<SignedReceipt>,
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
}

/// A receipt on its way to the disk, while the next range comes in.
struct Signing<'a> {
    receipt: SignedReceipt,
    /// Ranges that are complete with it.
    ranges: usize,
    stored: BoxFuture<'a, Result<(), StoreError>>,
}

impl Trading<'_> {
    async fn trade(&mut self, progress: &mut impl FnMut(u64)) -> Result<(), BuyFailure> {
        let mut stalled = Instant::now() + STALL;
        loop {
            let is_short = self.want().await?;
            if self.session.is_idle() {
                // Nothing is on its way and nothing is wanted: the limit is reached, or the rest comes from others.
                return if is_short { Err(BuyFailure::Limit) } else { Ok(()) };
            }
            tokio::select! {
                frame = timeout_at(stalled, self.reader.next()), if self.sink.has_room() => {
                    self.take(frame.map_err(IoError::from)??).await?;
                }
                news = self.sink.next() => {
                    self.handle_sunk(news?, progress);
                    // Only what verified counts: frames alone could drip for ever.
                    stalled = Instant::now() + STALL;
                }
                stored = stored(&mut self.signing) => {
                    self.handle_signed(stored)?;
                    stalled = Instant::now() + STALL;
                }
            }
        }
    }

    /// Wants ranges while the window allows, each with the newest receipt; whether groups are left then that nobody brings.
    async fn want(&mut self) -> Result<bool, BuyFailure> {
        loop {
            let missing_from = |from| lock(self.part).missing(from, u64::MAX);
            let next = lock(self.plan).poll_want(self.lane, &mut self.session, missing_from);
            let groups = match next {
                Next::Want(groups) => groups,
                Next::Wait => return Ok(true),
                Next::Done => return Ok(false),
            };
            let receipt = self.receipt.take().map(|receipt| receipt.signed().clone());
            self.writer.send(FrameKind::Control, Frame::Want(Want { groups, receipt }).encode()).await?;
        }
    }

    async fn take(&mut self, frame: RawFrame) -> Result<(), BuyFailure> {
        if frame.kind == FrameKind::Data {
            return Ok(self.sink.push(frame.payload)?);
        }
        match Frame::decode(frame.payload)? {
            Frame::Serving(groups) => {
                self.session.handle_serving(groups)?;
                lock(self.plan).update(self.lane, &self.session);
                Ok(self.sink.begin(groups)?)
            }
            Frame::Refused(refusal) => Err(BuyFailure::Refused(refusal)),
            _ => Err(BuyFailure::Order),
        }
    }

    fn handle_sunk(&mut self, news: Sunk, progress: &mut impl FnMut(u64)) {
        match news {
            Sunk::Bytes(bytes) => {
                self.session.handle_verified(bytes);
                progress(bytes);
            }
            Sunk::Range(synced) => {
                let ranges = self.signing.take().map_or(0, |signing| signing.ranges) + 1;
                let receipt = self.sign(synced);
                let stored = self.driver.stored().boxed();
                self.signing = Some(Signing { receipt, ranges, stored });
            }
        }
    }

    /// Signs for so many bytes of the session, which are verified and synced; it must not be sent before it is stored.
    fn sign(&self, units: u64) -> SignedReceipt {
        self.driver.update(|market| market.handle_verified(now(), &self.quote, units))
    }

    /// The last receipt, stored before it can be sent.
    async fn sign_last(&mut self) -> Result<(), BuyFailure> {
        let receipt = self.sign(self.session.verified());
        self.driver.stored().await?;
        self.receipt = Some(receipt);
        Ok(())
    }

    /// A receipt is stored: it goes with the next Want, for which there is room now.
    fn handle_signed(&mut self, stored: Result<(), StoreError>) -> Result<(), BuyFailure> {
        if let Some(Signing { receipt, ranges, .. }) = self.signing.take() {
            stored?;
            self.receipt = Some(receipt);
            (0..ranges).for_each(|_| self.session.handle_served());
        }
        Ok(())
    }

    /// Signs for what came last, and says goodbye.
    async fn close(&mut self, outcome: Result<(), BuyFailure>) -> Result<(), BuyFailure> {
        let written = self.sink.drain().await;
        self.session.handle_verified(written);
        let signed = if self.session.verified() > 0 { self.sign_last().await } else { Ok(()) };
        let code = outcome.as_ref().map_or_else(BuyFailure::close_code, |()| CloseCode::Done);
        let receipt = self.receipt.take().map(|receipt| receipt.signed().clone());
        let close = Frame::Close { code, receipt };
        // A stream that broke takes no goodbye; the next exchange of counters carries the receipt.
        let broken = matches!(outcome, Err(BuyFailure::Io(_)));
        if !broken && self.writer.send(FrameKind::Control, close.encode()).await.is_ok() {
            self.writer.finish().await;
        }
        let (seller, id) = (self.quote.quote().seller, self.quote.id());
        self.driver.commit(|market| market.handle_left(now(), &seller, &id)).await?;
        outcome.and(signed)
    }
}

/// Waits until a receipt is stored; for ever while none is on its way.
async fn stored(signing: &mut Option<Signing<'_>>) -> Result<(), StoreError> {
    match signing {
        Some(signing) => (&mut signing.stored).await,
        None => std::future::pending().await,
    }
}
