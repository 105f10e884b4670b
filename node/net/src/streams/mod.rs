//! Streams of bytes to and from peers, one protocol name each.
//!
//! Our own behaviour rather than `libp2p-stream`, which loses inbound streams that arrive in bursts, opens on a random
//! connection and has no quotas. Here the accepting side answers each stream with one byte, [`ACCEPTED`] or
//! [`REFUSED`], after it has reserved a place in the queue and in the quotas: a stream that `open` returns is one that
//! the other side hands to its services.

mod behaviour;
mod handler;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

pub(crate) use behaviour::Behaviour;
use libp2p::{PeerId, StreamProtocol};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, oneshot},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// The first byte of a stream from the side that accepted it.
const ACCEPTED: u8 = 1;
/// The only byte of a stream from a side that has no room for it.
const REFUSED: u8 = 0;

/// Where the outcome of an open goes.
pub(crate) type Opened = oneshot::Sender<Result<Stream, OpenError>>;

/// Why no stream was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No connection could be made, or it was lost.
    #[error("peer not reachable: {0}")]
    Unreachable(String),
    /// The peer, or this node, doesn't speak the protocol.
    #[error("the peer does not speak {0}")]
    Unsupported(&'static str),
    /// The peer has no room for another stream now.
    #[error("the peer has no room for another stream")]
    Refused,
    /// This node has too many streams open to that peer.
    #[error("too many streams to this peer")]
    TooMany,
    /// No answer in time.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The swarm has shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// A stream that a peer opened and this node accepted.
#[derive(Debug)]
pub struct InboundStream {
    /// Who opened it, authenticated.
    pub peer: PeerId,
    /// The name of the protocol, as in [`NetConfig::protocols`](crate::NetConfig).
    pub protocol: &'static str,
    /// The stream.
    pub stream: Stream,
}

/// A stream of bytes in both directions, authenticated and encrypted.
///
/// It keeps its connection open and safe from trimming. `shutdown` ends the sending direction; dropping it earlier
/// resets both. Reads and writes of 64 KiB and more cost the least. Read and write concurrently: a side that only
/// writes while the other does the same stops both once the windows (256 KiB at first) are full.
#[derive(Debug)]
pub struct Stream {
    io: Compat<libp2p::Stream>,
    traffic: Arc<Traffic>,
    _busy: Busy,
    _quota: Option<Quota>,
}

/// Bytes that a stream has moved, before encryption and multiplexing.
#[derive(Debug, Default)]
pub struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
}

/// The places that an inbound stream takes: one of its peer's, one of all.
#[derive(Debug)]
struct Quota {
    _of_peer: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Counts as a stream of a connection until it is dropped.
#[derive(Debug)]
struct Busy(Arc<AtomicUsize>);

/// A stream protocol: the short name that callers use and the full one on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) name: &'static str,
    pub(crate) wire: StreamProtocol,
}

impl Stream {
    fn new(io: libp2p::Stream, busy: Busy, quota: Option<Quota>) -> Self {
        Self { io: io.compat(), traffic: Arc::default(), _busy: busy, _quota: quota }
    }

    /// The counters of this stream; they can be kept when it is split or gone.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

impl Traffic {
    /// Bytes read so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Busy {
    fn enter(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsRef<str> for Protocol {
    fn as_ref(&self) -> &str {
        self.wire.as_ref()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.traffic.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.traffic.written.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
