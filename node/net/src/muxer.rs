//! Many streams over one TCP connection: Yamux, in frames that are large and leave in one piece.
//!
//! WHY our own: the muxer of libp2p hides the two settings that bulk needs (deploy/decisions). It splits what is written
//! into frames of 16 KiB, and over TLS the twelve bytes of a frame's header are a record and a call of the system of their
//! own. The protocol is the `yamux` crate's still, and whoever speaks `/yamux/1.0.0` can talk to us.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    io::{self, IoSlice},
    iter,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::{
    StreamMuxer,
    muxing::StreamMuxerEvent,
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

/// The name that is negotiated.
const PROTOCOL: &str = "/yamux/1.0.0";
/// Streams of one connection that Yamux allows before it ends the connection. Well above what our own bounds on streams
/// add up to.
const MAX_STREAMS: usize = 160;
/// The most that a peer can have us hold unread, in all streams of a connection: 256 KiB for each of [`MAX_STREAMS`], and
/// 24 MiB by which the windows of streams that we do read may grow, a second's round trip at 100 Mbit/s twice.
const MAX_UNREAD: usize = 64 << 20;
/// Bytes of a frame's header.
const HEADER_LEN: usize = 12;
/// Bytes of the largest frame's body: with its header four full TLS records, which leave by one call of the system.
const BODY_LEN: usize = (64 << 10) - HEADER_LEN;
/// Streams of the peer that wait to be accepted; more are reset. As many as a peer opens without having been answered.
const MAX_WAITING: usize = 256;

/// Shares a secured connection among streams.
#[derive(Debug, Clone)]
pub(crate) struct Yamux(Config);

impl Yamux {
    pub(crate) fn new() -> Self {
        let mut config = Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(MAX_UNREAD));
        config.set_split_send_size(BODY_LEN);
        Self(config)
    }

    fn over<C: AsyncRead + AsyncWrite + Unpin>(self, io: C, mode: Mode) -> Ready<Result<Muxer<C>, Infallible>> {
        let connection = Connection::new(Joined::new(io), self.0, mode);
        ready(Ok(Muxer { connection, waiting: VecDeque::new(), acceptor: None }))
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(PROTOCOL)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_inbound(self, io: C, _: &'static str) -> Self::Future {
        self.over(io, Mode::Server)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, io: C, _: &'static str) -> Self::Future {
        self.over(io, Mode::Client)
    }
}

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Muxer<C> {
    connection: Connection<Joined<C>>,
    /// Streams that the peer opened while nobody accepted: Yamux makes progress only while it looks for such.
    waiting: VecDeque<Stream>,
    acceptor: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let next = ready!(self.connection.poll_next_inbound(cx)).unwrap_or(Err(ConnectionError::Closed));
        Poll::Ready(next.map_err(io_error))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.poll_next(cx);
        if next.is_pending() {
            self.acceptor = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        self.connection.poll_new_outbound(cx).map_err(io_error)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_close(cx).map_err(io_error)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(stream);
            if let Some(acceptor) = self.acceptor.take() {
                acceptor.wake();
            }
        }
        // Again at once, but others of the task first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn io_error(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Passes a frame's header on together with its body, which Yamux writes after it; alone only when it is flushed.
#[derive(Debug)]
struct Joined<C> {
    io: C,
    header: [u8; HEADER_LEN],
    /// Bytes of `header` that were passed on, and those that were written.
    passed: usize,
    len: usize,
}

impl<C: AsyncWrite + Unpin> Joined<C> {
    const fn new(io: C) -> Self {
        Self { io, header: [0; HEADER_LEN], passed: 0, len: 0 }
    }

    /// Passes what waits on, and `body` after it; how much of the body went.
    fn poll_pass(&mut self, cx: &mut Context<'_>, body: &[u8]) -> Poll<io::Result<usize>> {
        while self.passed < self.len {
            let waiting = &self.header[self.passed..self.len];
            let pieces = [IoSlice::new(waiting), IoSlice::new(body)];
            let written = match ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &pieces))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => written,
            };
            let of_header = written.min(waiting.len());
            self.passed += of_header;
            if written > of_header {
                return Poll::Ready(Ok(written - of_header));
            }
        }
        if body.is_empty() { Poll::Ready(Ok(0)) } else { Pin::new(&mut self.io).poll_write(cx, body) }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Joined<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.len() > HEADER_LEN {
            return this.poll_pass(cx, buf);
        }
        ready!(this.poll_pass(cx, &[]))?;
        this.header[..buf.len()].copy_from_slice(buf);
        (this.passed, this.len) = (0, buf.len());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pass(cx, &[]))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pass(cx, &[]))?;
        Pin::new(&mut this.io).poll_close(cx)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Joined<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests;
