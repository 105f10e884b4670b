//! The swarm's side of the streams: knows the connections, picks one, shares out the quotas.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    Busy, InboundStream, OpenError, Opened, Protocol,
    handler::{Admission, Handler, Pending, Request},
};
use crate::{Limits, addresses::is_tcp};

/// Streams of one connection, opening ones included; below the multiplexer's limit, which ends the connection.
const MAX_STREAMS_PER_CONNECTION: usize = 96;

/// The behaviour; it never dials.
pub(crate) struct Behaviour {
    protocols: Arc<[Protocol]>,
    limits: Limits,
    queue: mpsc::Sender<InboundStream>,
    of_all: Arc<Semaphore>,
    of_peer: HashMap<PeerId, Weak<Semaphore>>,
    links: HashMap<PeerId, Vec<Link>>,
    requests: VecDeque<(PeerId, ConnectionId, Request)>,
}

/// One connection and the number of its streams.
struct Link {
    id: ConnectionId,
    tcp: bool,
    streams: Arc<AtomicUsize>,
}

impl Behaviour {
    /// Inbound streams of `protocols` go to `queue`.
    pub(crate) fn new(protocols: Vec<Protocol>, limits: Limits, queue: mpsc::Sender<InboundStream>) -> Self {
        Self {
            protocols: protocols.into(),
            of_all: Arc::new(Semaphore::new(limits.streams_total)),
            limits,
            queue,
            of_peer: HashMap::new(),
            links: HashMap::new(),
            requests: VecDeque::new(),
        }
    }

    /// Opens a stream to a connected peer, over TCP where there is a choice; `opened` is always answered or dropped.
    pub(crate) fn open(&mut self, peer: PeerId, name: &'static str, opened: Opened) {
        match self.request(peer, name) {
            Ok((id, protocol, busy)) => {
                let pending = Pending { name, busy, reply: opened };
                self.requests.push_back((peer, id, Request { protocol, pending }));
            }
            Err(error) => drop(opened.send(Err(error))),
        }
    }

    /// Whether streams are open on a connection.
    pub(crate) fn is_busy(&self, peer: &PeerId, id: ConnectionId) -> bool {
        let links = self.links.get(peer).map_or(&[][..], Vec::as_slice);
        links.iter().any(|link| link.id == id && link.streams() > 0)
    }

    /// Whether a connection to the peer is TCP.
    pub(crate) fn has_tcp(&self, peer: &PeerId) -> bool {
        self.links.get(peer).is_some_and(|links| links.iter().any(|link| link.tcp))
    }

    fn request(&self, peer: PeerId, name: &'static str) -> Result<(ConnectionId, Protocol, Busy), OpenError> {
        let protocol = self.protocols.iter().find(|protocol| protocol.name == name);
        let protocol = protocol.ok_or(OpenError::Unsupported(name))?.clone();
        let links = self.links.get(&peer).ok_or_else(|| OpenError::Unreachable("not connected".to_owned()))?;
        let with_room = links.iter().filter(|link| link.streams() < MAX_STREAMS_PER_CONNECTION);
        let link = with_room.min_by_key(|link| !link.tcp).ok_or(OpenError::TooMany)?;
        Ok((link.id, protocol, Busy::enter(&link.streams)))
    }

    fn connect(&mut self, id: ConnectionId, peer: PeerId, remote: &Multiaddr) -> Handler {
        let streams = Arc::new(AtomicUsize::new(0));
        let admission = Admission {
            peer,
            protocols: Arc::clone(&self.protocols),
            of_peer: self.quota_of(peer),
            of_all: Arc::clone(&self.of_all),
            queue: self.queue.clone(),
            streams: Arc::clone(&streams),
        };
        self.links.entry(peer).or_default().push(Link { id, tcp: is_tcp(remote), streams });
        Handler::new(admission, self.limits.open)
    }

    /// The peer's quota: the same one over all of its connections, and kept while streams of closed ones are held, so
    /// that reconnecting doesn't renew it.
    fn quota_of(&mut self, peer: PeerId) -> Arc<Semaphore> {
        if let Some(quota) = self.of_peer.get(&peer).and_then(Weak::upgrade) {
            return quota;
        }
        let quota = Arc::new(Semaphore::new(self.limits.streams_per_peer));
        self.of_peer.insert(peer, Arc::downgrade(&quota));
        quota
    }

    fn disconnect(&mut self, id: ConnectionId, peer: Option<PeerId>) {
        let Some(peer) = peer else { return };
        if let Some(links) = self.links.get_mut(&peer) {
            links.retain(|link| link.id != id);
            if links.is_empty() {
                self.links.remove(&peer);
                self.of_peer.retain(|_, quota| quota.strong_count() > 0);
            }
        }
    }
}

impl Link {
    fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connect(id, peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connect(id, peer, remote))
    }

    /// The two failures are those of connections that another behaviour denied after this one had taken them.
    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.disconnect(closed.connection_id, Some(closed.peer_id)),
            FromSwarm::DialFailure(failed) => self.disconnect(failed.connection_id, failed.peer_id),
            FromSwarm::ListenFailure(failed) => self.disconnect(failed.connection_id, failed.peer_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.requests.pop_front() {
            Some((peer_id, id, event)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event })
            }
            None => Poll::Pending,
        }
    }
}
