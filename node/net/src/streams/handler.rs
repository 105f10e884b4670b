//! One connection's side of the streams: admits inbound ones, opens outbound ones.

use std::{
    collections::VecDeque,
    convert::Infallible,
    iter, mem,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    InboundUpgrade, OutboundUpgrade, PeerId,
    core::UpgradeInfo,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::{Semaphore, mpsc};

use super::{ACCEPTED, Busy, InboundStream, OpenError, Opened, Protocol, Quota, REFUSED, Stream};

/// Decides about the inbound streams of one connection.
pub(super) struct Admission {
    pub(super) peer: PeerId,
    pub(super) protocols: Arc<[Protocol]>,
    pub(super) of_peer: Arc<Semaphore>,
    pub(super) of_all: Arc<Semaphore>,
    pub(super) queue: mpsc::Sender<InboundStream>,
    pub(super) streams: Arc<AtomicUsize>,
}

/// The room that an inbound stream was promised.
pub(crate) struct Ticket {
    slot: mpsc::OwnedPermit<InboundStream>,
    quota: Quota,
    busy: Busy,
}

/// A stream to open on this connection.
#[derive(Debug)]
pub(crate) struct Request {
    pub(super) protocol: Protocol,
    pub(super) pending: Pending,
}

/// Who waits for a stream that is being opened.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) name: &'static str,
    pub(super) busy: Busy,
    pub(super) reply: Opened,
}

/// The handler of one connection.
pub(crate) struct Handler {
    admission: Arc<Admission>,
    open_timeout: Duration,
    requests: VecDeque<Request>,
}

impl Handler {
    pub(super) fn new(admission: Admission, open_timeout: Duration) -> Self {
        Self { admission: Arc::new(admission), open_timeout, requests: VecDeque::new() }
    }
}

impl Admission {
    /// Reserves a place in the queue and in the quotas, or nothing.
    fn ticket(&self) -> Option<Ticket> {
        let slot = self.queue.clone().try_reserve_owned().ok()?;
        let quota = Quota {
            _of_peer: Arc::clone(&self.of_peer).try_acquire_owned().ok()?,
            _of_all: Arc::clone(&self.of_all).try_acquire_owned().ok()?,
        };
        Some(Ticket { slot, quota, busy: Busy::enter(&self.streams) })
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Request;
    type ToBehaviour = Infallible;
    type InboundProtocol = Inbound;
    type OutboundProtocol = Outbound;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Pending;

    fn listen_protocol(&self) -> SubstreamProtocol<Inbound> {
        SubstreamProtocol::new(Inbound(Arc::clone(&self.admission)), ()).with_timeout(self.open_timeout)
    }

    fn on_behaviour_event(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Outbound, Pending, Infallible>> {
        while let Some(Request { protocol, pending }) = self.requests.pop_front() {
            if !pending.reply.is_closed() {
                let protocol = SubstreamProtocol::new(Outbound(protocol), pending).with_timeout(self.open_timeout);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        if self.requests.capacity() > 0 {
            mem::take(&mut self.requests);
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Inbound, Outbound, (), Pending>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: accepted, .. }) => {
                let Accepted { protocol, io, ticket } = accepted;
                let stream = Stream::new(io, ticket.busy, Some(ticket.quota));
                ticket.slot.send(InboundStream { peer: self.admission.peer, protocol, stream });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: io, info }) => {
                // A caller that no longer waits drops the stream, which resets it.
                let _ = info.reply.send(Ok(Stream::new(io, info.busy, None)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let _ = info.reply.send(Err(open_error(error, info.name)));
            }
            ConnectionEvent::ListenUpgradeError(failed) => {
                tracing::debug!(peer = %self.admission.peer, error = %failed.error, "inbound stream not accepted");
            }
            _ => {}
        }
    }
}

fn open_error(error: StreamUpgradeError<OpenError>, name: &'static str) -> OpenError {
    match error {
        StreamUpgradeError::Timeout => OpenError::Timeout,
        StreamUpgradeError::Apply(error) => error,
        StreamUpgradeError::NegotiationFailed => OpenError::Unsupported(name),
        StreamUpgradeError::Io(error) => unreachable_peer(error),
    }
}

/// Accepts or refuses one inbound stream.
#[derive(Clone)]
pub(crate) struct Inbound(Arc<Admission>);

/// An inbound stream whose opener has been told that it is accepted.
pub(crate) struct Accepted {
    protocol: &'static str,
    io: libp2p::Stream,
    ticket: Ticket,
}

impl UpgradeInfo for Inbound {
    type Info = Protocol;
    type InfoIter = Names;

    fn protocol_info(&self) -> Names {
        Names { all: Arc::clone(&self.0.protocols), next: 0 }
    }
}

impl InboundUpgrade<libp2p::Stream> for Inbound {
    type Output = Accepted;
    type Error = OpenError;
    type Future = BoxFuture<'static, Result<Accepted, OpenError>>;

    fn upgrade_inbound(self, mut io: libp2p::Stream, protocol: Protocol) -> Self::Future {
        let ticket = self.0.ticket();
        async move {
            let answer = if ticket.is_some() { ACCEPTED } else { REFUSED };
            io.write_all(&[answer]).await.map_err(unreachable_peer)?;
            io.flush().await.map_err(unreachable_peer)?;
            let Some(ticket) = ticket else {
                io.close().await.map_err(unreachable_peer)?;
                return Err(OpenError::Refused);
            };
            Ok(Accepted { protocol: protocol.name, io, ticket })
        }
        .boxed()
    }
}

/// Opens one outbound stream and waits for the other side's answer.
pub(crate) struct Outbound(Protocol);

impl UpgradeInfo for Outbound {
    type Info = Protocol;
    type InfoIter = iter::Once<Protocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(self.0.clone())
    }
}

impl OutboundUpgrade<libp2p::Stream> for Outbound {
    type Output = libp2p::Stream;
    type Error = OpenError;
    type Future = BoxFuture<'static, Result<libp2p::Stream, OpenError>>;

    fn upgrade_outbound(self, mut io: libp2p::Stream, _: Protocol) -> Self::Future {
        async move {
            let mut answer = [REFUSED];
            io.read_exact(&mut answer).await.map_err(unreachable_peer)?;
            if answer == [ACCEPTED] { Ok(io) } else { Err(OpenError::Refused) }
        }
        .boxed()
    }
}

/// The protocol names, without an allocation: they are asked for on every poll of the connection.
pub(crate) struct Names {
    all: Arc<[Protocol]>,
    next: usize,
}

impl Iterator for Names {
    type Item = Protocol;

    fn next(&mut self) -> Option<Protocol> {
        let protocol = self.all.get(self.next).cloned();
        self.next += 1;
        protocol
    }
}

/// The error's own text may be the peer's, which is not shown.
fn unreachable_peer(error: std::io::Error) -> OpenError {
    OpenError::Unreachable(error.kind().to_string())
}
