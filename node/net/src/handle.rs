//! What the rest of the node holds of the swarm: questions and commands, and the events that come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, gossipsub::MessageId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    InboundStream, OpenError, Stream,
    addresses::check,
    announce::Key,
    connections::PeerInfo,
    dials::Dialled,
    feed::PeerEvent,
    gossip::{GossipMessage, MAX_MESSAGE, PublishError, Verdict},
    lookups::{Lookup, LookupError, Provider},
    streams::Opened,
};

/// Commands that wait for the task; a caller beyond it waits too.
pub(crate) const COMMAND_QUEUE: usize = 256;
/// Gossip that waits to be judged; what exceeds it is ignored.
pub(crate) const MESSAGE_QUEUE: usize = 1024;
/// Peer events that wait to be read; what exceeds it melts together.
pub(crate) const PEER_QUEUE: usize = 256;

/// How long bulk waits for a TCP connection before it goes the way that there is: a few round trips to the far side.
const TCP_DEADLINE: Duration = Duration::from_secs(1);

/// Why a key is not provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProvideError {
    /// This node provides as many keys as it may.
    #[error("this node already provides 100,000 keys")]
    Full,
    /// The swarm has shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// A command to the task.
pub(crate) enum Command {
    Dial { peer: PeerId, addrs: Vec<Multiaddr>, reply: Dialled },
    PreferTcp { peer: PeerId, addrs: Vec<Multiaddr>, reply: Dialled },
    Open { peer: PeerId, protocol: &'static str, reply: Opened },
    Provide { key: Key, reply: oneshot::Sender<Result<(), ProvideError>> },
    Unprovide { key: Key },
    Lookup(Lookup),
    Publish { data: Vec<u8>, reply: oneshot::Sender<Result<(), PublishError>> },
    Judge { id: MessageId, source: PeerId, verdict: Verdict },
    Score { peer: PeerId, score: f64 },
    Peers { reply: oneshot::Sender<Vec<PeerInfo>> },
    AddrsOf { peer: PeerId, reply: oneshot::Sender<Vec<Multiaddr>> },
    Shutdown { reply: oneshot::Sender<()> },
}

/// What comes from the network; each queue is bounded and holds up nobody else when it is not read.
pub struct NetEvents {
    /// Streams that peers opened; those beyond [`Limits::stream_queue`](crate::Limits) are refused.
    pub streams: mpsc::Receiver<InboundStream>,
    /// Gossip to be judged within ten seconds; what exceeds 1,024 is ignored and counted.
    pub messages: mpsc::Receiver<GossipMessage>,
    /// Peers that come and go; read late, a coming and going in between is left out.
    pub peers: mpsc::Receiver<PeerEvent>,
}

/// A handle on the swarm; the swarm ends with the last one.
#[derive(Clone)]
pub struct NetHandle {
    pub(crate) peer: PeerId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) listening: watch::Receiver<Vec<Multiaddr>>,
    pub(crate) ignored: Arc<AtomicU64>,
    pub(crate) deadline: Duration,
}

impl NetHandle {
    /// This node's id.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Where this node can be dialled: what it listens on and what it was told of its outside, without the peer id.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.listening.borrow().clone()
    }

    /// Messages ignored because [`NetEvents::messages`] was full.
    #[must_use]
    pub fn ignored_messages(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// Connects to `peer` at `addrs` or where it is known to be; at once if it is connected.
    ///
    /// Addresses that no transport speaks are skipped; an error if all are such.
    ///
    /// # Errors
    /// [`OpenError::Unreachable`] with the reason, [`OpenError::Timeout`], [`OpenError::TooMany`] when 256 wait for it,
    /// [`OpenError::Stopped`].
    pub async fn dial(&self, peer: PeerId, mut addrs: Vec<Multiaddr>) -> Result<(), OpenError> {
        let wrong = addrs.iter().find_map(|addr| check(addr).err());
        addrs.retain(|addr| check(addr).is_ok());
        if let (Some(wrong), true) = (wrong, addrs.is_empty()) {
            return Err(OpenError::Unreachable(wrong.to_string()));
        }
        let dialled = self.ask(|reply| Command::Dial { peer, addrs, reply });
        timeout(self.deadline, dialled).await.map_err(|_| OpenError::Timeout)?.ok_or(OpenError::Stopped)?
    }

    /// Opens a stream of `protocol` to `peer`, connecting to it first if need be.
    ///
    /// The peer has accepted the stream when this returns. Where there is a choice of connections it goes over TCP.
    ///
    /// # Errors
    /// [`OpenError`] says whether the peer can't be reached, doesn't speak the protocol, has no room, or is silent.
    pub async fn open(&self, peer: PeerId, addrs: Vec<Multiaddr>, protocol: &'static str) -> Result<Stream, OpenError> {
        timeout(self.deadline, async {
            self.dial(peer, addrs.clone()).await?;
            match self.open_connected(peer, protocol).await {
                // The connection may have been idle and closed under the request: it is worth one more. A peer that
                // could not be dialled is not: it is most likely gone, and others wait to be asked.
                Err(OpenError::Unreachable(_)) => {
                    self.dial(peer, addrs).await?;
                    self.open_connected(peer, protocol).await
                }
                outcome => outcome,
            }
        })
        .await
        .map_err(|_| OpenError::Timeout)?
    }

    /// As [`Self::open`], for bulk: over a TCP connection of its own if the peer is connected by QUIC alone, offers TCP
    /// and answers there within a second. TCP moves twice as much for the same processor time.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_bulk(
        &self,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
        protocol: &'static str,
    ) -> Result<Stream, OpenError> {
        self.dial(peer, addrs.clone()).await?;
        let preferred = self.ask(|reply| Command::PreferTcp { peer, addrs: addrs.clone(), reply });
        // Where it does not come, QUIC serves.
        let _ = timeout(TCP_DEADLINE, preferred).await;
        self.open(peer, addrs, protocol).await
    }

    /// Announces that this node provides `key`, now and every eight hours, until [`Self::unprovide`].
    ///
    /// # Errors
    /// [`ProvideError::Full`], [`ProvideError::Stopped`].
    pub async fn provide(&self, key: [u8; 32]) -> Result<(), ProvideError> {
        self.ask(|reply| Command::Provide { key, reply }).await.ok_or(ProvideError::Stopped)?
    }

    /// Announces `key` no more; others forget it within 24 hours.
    pub async fn unprovide(&self, key: [u8; 32]) {
        self.tell(Command::Unprovide { key }).await;
    }

    /// Asks the network who provides `key`: up to `limit` other peers, as soon as they are found, else all that are
    /// found within 15 s (twice that if it takes a second try).
    ///
    /// # Errors
    /// [`LookupError::Busy`] when 64 are in progress, [`LookupError::Stopped`].
    pub async fn providers(&self, key: [u8; 32], limit: usize) -> Result<Vec<Provider>, LookupError> {
        let found = self.ask(|reply| Command::Lookup(Lookup::new(key, limit, reply)));
        found.await.ok_or(LookupError::Stopped)?
    }

    /// Publishes a message of at most [`MAX_MESSAGE`] bytes.
    ///
    /// # Errors
    /// [`PublishError::NoPeers`] while nobody listens: the message is not kept, publish it again.
    pub async fn publish(&self, data: Vec<u8>) -> Result<(), PublishError> {
        if data.len() > MAX_MESSAGE {
            return Err(PublishError::TooLarge { len: data.len() });
        }
        self.ask(|reply| Command::Publish { data, reply }).await.ok_or(PublishError::Stopped)?
    }

    /// Says what becomes of a [`GossipMessage`]; after ten seconds it is too late for it to be forwarded.
    pub async fn verdict(&self, id: MessageId, source: PeerId, verdict: Verdict) {
        self.tell(Command::Judge { id, source, verdict }).await;
    }

    /// Sets how useful a peer is, from -100 to 100, 0 at first: for gossip, and when connections are trimmed.
    pub async fn set_score(&self, peer: PeerId, score: f64) {
        self.tell(Command::Score { peer, score }).await;
    }

    /// The connected peers; none when the swarm has shut down.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        self.ask(|reply| Command::Peers { reply }).await.unwrap_or_default()
    }

    /// Where `peer` is known to listen; at most eight, may be none.
    pub async fn addrs_of(&self, peer: PeerId) -> Vec<Multiaddr> {
        self.ask(|reply| Command::AddrsOf { peer, reply }).await.unwrap_or_default()
    }

    /// Closes listeners and connections and ends the swarm; within 2 s, or at once if it has ended.
    pub async fn shutdown(&self) {
        self.ask(|reply| Command::Shutdown { reply }).await;
    }

    async fn open_connected(&self, peer: PeerId, protocol: &'static str) -> Result<Stream, OpenError> {
        let opened = self.ask(|reply| Command::Open { peer, protocol, reply }).await;
        opened.unwrap_or_else(|| Err(OpenError::Unreachable("the connection was lost".to_owned())))
    }

    async fn tell(&self, command: Command) {
        // A swarm that has ended has nothing left to be told.
        let _ = self.commands.send(command).await;
    }

    /// The answer, or nothing when the task has ended or dropped the question.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
