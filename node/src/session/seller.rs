//! The seller's side: frames come in and are admitted while payload goes out.
//!
//! ```text
//! buyer ─▶ intake: order ─▶ market: receipt, admission ─▶ journal ─▶ jobs ─▶ service ─▶ Session::deliver ─▶ buyer
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libp2p_identity::PeerId;
use pedlar_net::Stream;
use pedlar_protocol::content::{Groups, Size};
use pedlar_protocol::id::QuoteId;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::quote::SignedQuote;
use pedlar_protocol::session::{Frame, FrameDecodeError, PIPELINED_WANTS, SellerSession, SellerStep, SellerViolation};
use pedlar_protocol::wire::{FrameKind, Signed};
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::driver::{Driver, NOT_STORED, now};
use crate::manners::Conduct;
use crate::service::{Delivery, Service};
use crate::session::frames::{FrameReader, FrameWriter, IoError};
use crate::store::StoreError;

/// How long a buyer may take for its first frame, and to want more while nothing is on its way to it: a session holds a
/// file open.
const IDLE: Duration = Duration::from_secs(25);

/// Why a session ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The stream.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The buyer's frame means nothing.
    #[error("the buyer sent a bad frame: {0}")]
    Decode(#[from] FrameDecodeError),
    /// The buyer's frame may not come now.
    #[error("the buyer broke the order: {0}")]
    Violation(#[from] SellerViolation),
    /// The buyer was refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// A service tried to send more than was admitted.
    #[error("a service sent more than was admitted")]
    Overrun,
    /// The journal.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SessionError {
    /// How the buyer behaved that it came to this.
    fn conduct(&self) -> Conduct {
        match self {
            Self::Io(error) if !error.is_nonsense() => Conduct::Sensible,
            Self::Io(_) | Self::Decode(_) | Self::Violation(_) => Conduct::Nonsense,
            Self::Refused(_) | Self::Overrun | Self::Store(_) => Conduct::Sensible,
        }
    }
}

/// What the intake has decided, in the buyer's order.
enum Job {
    Serve(Groups),
    End(Option<Signed>),
    Fail(SessionError),
}

/// A buyer's session, as the service sees it: ranges to deliver, and one way to deliver them.
pub(crate) struct Session {
    jobs: mpsc::Receiver<Job>,
    writer: FrameWriter<WriteHalf<Stream>>,
    size: Size,
    range: Option<Range>,
    sent: u64,
    last: Option<Signed>,
}

/// The range that is being delivered.
struct Range {
    encoded_left: u64,
    payload_left: u64,
}

impl Session {
    /// Tells the buyer its price, once what follows from it is stored.
    async fn quote(&mut self, driver: &Driver, quote: &SignedQuote) -> Result<(), SessionError> {
        driver.stored().await?;
        Ok(self.writer.send(FrameKind::Control, Frame::Quote(quote.signed().clone()).encode()).await?)
    }

    /// The next range that was admitted; nothing when the buyer is done.
    ///
    /// # Errors
    /// [`SessionError`] when the session ends for another reason; a refusal is told to the buyer by the caller.
    pub(crate) async fn next_range(&mut self) -> Result<Option<Groups>, SessionError> {
        // The clock runs here and not in the intake: over a slow line a window takes longer than this.
        match timeout(IDLE, self.jobs.recv()).await.map_err(IoError::from)? {
            Some(Job::Serve(groups)) => {
                self.writer.send(FrameKind::Control, Frame::Serving(groups).encode()).await?;
                let (encoded_left, payload_left) = (self.size.encoded_len(groups), self.size.bytes_in(groups));
                self.range = Some(Range { encoded_left, payload_left });
                Ok(Some(groups))
            }
            Some(Job::End(receipt)) => {
                self.last = receipt;
                Ok(None)
            }
            Some(Job::Fail(error)) => Err(error),
            None => Ok(None),
        }
    }

    /// Sends a piece of the range: encoded bytes, proofs included. What left counts against the buyer at once.
    ///
    /// # Errors
    /// [`SessionError::Overrun`] when the range has fewer bytes; otherwise the stream broke.
    pub(crate) async fn deliver(&mut self, piece: Bytes) -> Result<(), SessionError> {
        let range = self.range.as_mut().ok_or(SessionError::Overrun)?;
        let len = piece.len() as u64;
        range.encoded_left = range.encoded_left.checked_sub(len).ok_or(SessionError::Overrun)?;
        // Counted before it is written, since a write that fails may still have sent a part. Proofs are not charged:
        // counting a piece as payload is exact at the end of the range, and before it at most a proof too high.
        let payload = if range.encoded_left == 0 { range.payload_left } else { len.min(range.payload_left) };
        range.payload_left -= payload;
        self.sent += payload;
        self.writer.send(FrameKind::Data, piece).await?;
        Ok(())
    }
}

/// Serves one buyer over one stream, from its first frame to the last; all that follows from it is in the books when
/// this returns. How the buyer behaved.
pub(crate) async fn sell(driver: Arc<Driver>, service: Arc<dyn Service>, buyer: PeerId, stream: Stream) -> Conduct {
    let (read, write) = split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read, FrameKind::Control), FrameWriter::new(write));
    let mut order = SellerSession::default();
    let asked = tokio::select! {
        asked = asked(&*service, &mut order, &mut reader) => asked,
        () = driver.stopping() => Err(SessionError::Refused(Refusal::ShuttingDown)),
    };
    let opened = asked.and_then(|delivery| {
        // Nothing new is begun that could not be kept, so that what waits for the disk stays little.
        if driver.store().trouble().is_some() {
            return Err(SessionError::Refused(NOT_STORED));
        }
        let quote = driver.update(|market| market.handle_open(now(), buyer, delivery.request, delivery.size));
        Ok((quote.map_err(SessionError::Refused)?, delivery))
    });
    let (quote, delivery) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            leave(buyer, &mut writer, &error).await;
            return error.conduct();
        }
    };
    // From here on the quote has one of the market's places, which it leaves only by `handle_end`.
    let (queue, jobs) = mpsc::channel(PIPELINED_WANTS);
    let mut session = Session { jobs, writer, size: delivery.size, range: None, sent: 0, last: None };
    let trade = async {
        session.quote(&driver, &quote).await?;
        tokio::select! {
            served = (delivery.serve)(&mut session) => served,
            never = intake(&driver, quote.id(), order, &mut reader, queue) => match never {},
        }
    };
    let outcome = tokio::select! {
        outcome = trade => outcome,
        () = driver.stopping() => Err(SessionError::Refused(Refusal::ShuttingDown)),
    };
    let (sent, last) = (session.sent, session.last.take());
    if let Err(error) = driver.commit(|market| market.handle_end(now(), &quote.id(), sent, last)).await {
        tracing::error!(%buyer, %error, "the end of a session is not stored yet");
    }
    match outcome {
        Ok(()) => {
            session.writer.finish().await;
            Conduct::Sensible
        }
        Err(error) => {
            leave(buyer, &mut session.writer, &error).await;
            error.conduct()
        }
    }
}

/// What the buyer's first frame asks for.
async fn asked(
    service: &dyn Service,
    order: &mut SellerSession,
    reader: &mut FrameReader<ReadHalf<Stream>>,
) -> Result<Delivery, SessionError> {
    let frame = Frame::decode(reader.next_within(IDLE).await?.payload)?;
    let SellerStep::Quote(request) = order.handle_frame(frame)? else {
        return Err(SellerViolation::Order.into());
    };
    let delivery = service.quote(request).await.map_err(SessionError::Refused)?;
    order.handle_quoted(delivery.size);
    Ok(delivery)
}

/// Reads the buyer's frames and has each Want admitted, ahead of the service by the Wants that may be on their way.
async fn intake(
    driver: &Driver,
    quote: QuoteId,
    mut order: SellerSession,
    reader: &mut FrameReader<ReadHalf<Stream>>,
    queue: mpsc::Sender<Job>,
) -> std::convert::Infallible {
    loop {
        let job = match next_job(driver, quote, &mut order, reader).await {
            Ok(job) => job,
            Err(error) => Job::Fail(error),
        };
        let last = !matches!(job, Job::Serve(_));
        if queue.send(job).await.is_err() || last {
            // The service ends the session when it gets there.
            return std::future::pending().await;
        }
    }
}

async fn next_job(
    driver: &Driver,
    quote: QuoteId,
    order: &mut SellerSession,
    reader: &mut FrameReader<ReadHalf<Stream>>,
) -> Result<Job, SessionError> {
    let frame = Frame::decode(reader.next().await?.payload)?;
    match order.handle_frame(frame)? {
        SellerStep::Serve(want) => {
            let admitted = driver.commit(|market| market.handle_want(now(), &quote, want.groups, want.receipt)).await;
            let groups = admitted.map_err(|_| SessionError::Refused(NOT_STORED))?.map_err(SessionError::Refused)?;
            Ok(Job::Serve(groups))
        }
        SellerStep::End(receipt) => Ok(Job::End(receipt)),
        SellerStep::Quote(_) => Err(SellerViolation::Order.into()),
    }
}

/// Tells the buyer why the session ends, where it is to be told, and ends our direction.
async fn leave(buyer: PeerId, writer: &mut FrameWriter<WriteHalf<Stream>>, error: &SessionError) {
    let refusal = match error {
        SessionError::Refused(refusal) => *refusal,
        SessionError::Decode(_) | SessionError::Violation(_) => Refusal::Malformed,
        SessionError::Overrun | SessionError::Store(_) => NOT_STORED,
        SessionError::Io(_) => {
            tracing::debug!(%buyer, %error, "a session broke off");
            return;
        }
    };
    tracing::info!(%buyer, %error, "a session ends");
    if writer.send(FrameKind::Control, Frame::Refused(refusal).encode()).await.is_ok() {
        writer.finish().await;
    }
}
