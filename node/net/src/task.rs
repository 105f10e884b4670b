//! The one task that owns the swarm: it matches events and moves handles, and never waits for anybody.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    core::transport::ListenerId,
    gossipsub::{IdentTopic, MessageAcceptance, MessageId},
    identify,
    kad::{QueryId, RecordKey},
    swarm::{ConnectionId, SwarmEvent, dial_opts::DialOpts},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    addresses::is_tcp,
    announce::{Announcer, Key},
    behaviour::{Behaviour, BehaviourEvent},
    connections::Connections,
    dials::{Dialled, Dials, Seeds},
    feed::PeerFeed,
    gossip::{GossipMessage, MAX_MESSAGE, PublishError, bounded_score},
    handle::{Command, ProvideError},
    lookups::{Lookup, LookupError, Lookups, Provider},
    translate::{self, NetEvent},
    transport,
};

/// How often what is due by time is looked after.
const TICK: Duration = Duration::from_millis(500);
/// How often expired records are looked for.
const PURGE: Duration = Duration::from_secs(60);
/// Time for connections to close at the end.
const GOODBYE: Duration = Duration::from_secs(2);
/// Time for a listener to report its address.
const LISTEN: Duration = Duration::from_secs(5);

/// The swarm and everything that is remembered about it.
pub(crate) struct Task {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) messages: mpsc::Sender<GossipMessage>,
    pub(crate) feed: PeerFeed,
    pub(crate) listening: watch::Sender<Vec<Multiaddr>>,
    pub(crate) ignored: Arc<AtomicU64>,
    pub(crate) topic: IdentTopic,
    pub(crate) kad_protocol: StreamProtocol,
    pub(crate) connections: Connections,
    pub(crate) announcer: Announcer,
    pub(crate) lookups: Lookups,
    pub(crate) dials: Dials,
    pub(crate) seeds: Seeds,
    pub(crate) next_purge: Instant,
}

impl Task {
    /// Listens on `addrs` and returns when each has its port.
    ///
    /// # Errors
    /// The address that can't be bound, and why.
    pub(crate) async fn listen(&mut self, addrs: &[Multiaddr]) -> Result<(), (Multiaddr, String)> {
        let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for addr in addrs {
            transport::check_free(addr).map_err(|error| (addr.clone(), error.to_string()))?;
            let listener = self.swarm.listen_on(addr.clone()).map_err(|error| (addr.clone(), error.to_string()))?;
            waiting.insert(listener, addr.clone());
        }
        while let Some(addr) = waiting.values().next().cloned() {
            let silent = |_| (addr, "the listener is silent".to_owned());
            let event = timeout(LISTEN, self.swarm.select_next_some()).await.map_err(silent)?;
            match translate::swarm(event) {
                Some(NetEvent::Deaf { listener, reason }) if waiting.contains_key(&listener) => {
                    return Err((waiting.remove(&listener).unwrap_or_else(Multiaddr::empty), reason));
                }
                Some(NetEvent::Listening { listener }) => {
                    waiting.remove(&listener);
                    self.note_listeners();
                }
                Some(event) => self.on_event(event),
                None => {}
            }
        }
        Ok(())
    }

    /// Runs until it is told to shut down or the last handle is gone.
    pub(crate) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let asked = loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown { reply }) => break Some(reply),
                    Some(command) => self.on_command(command),
                    None => break None,
                },
                _ = tick.tick() => self.on_tick(Instant::now()),
            }
        };
        self.end(asked).await;
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        if let Some(event) = translate::swarm(event) {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Opened { peer, id, endpoint } => {
                self.connections.open(peer, id, &endpoint, Instant::now());
                self.dials.handle_connected(&peer);
            }
            NetEvent::Closed { peer, id } => {
                self.connections.close(&peer, id);
                self.feed.handle_change(peer, &self.connections);
            }
            NetEvent::DialFailed { peer, attempt, error } => {
                let next = self.dials.handle_failed(&peer, attempt, &error);
                self.dial_all(next);
            }
            NetEvent::Listening { .. } => self.note_listeners(),
            NetEvent::Deaf { reason, .. } => {
                tracing::warn!(reason, "a listener closed");
                self.note_listeners();
            }
            NetEvent::Identified { peer, info } => self.on_identified(peer, &info),
            NetEvent::Pinged { peer, rtt } => self.connections.ping(&peer, rtt),
            NetEvent::Silent { peer, id } => self.on_silent(&peer, id),
            NetEvent::Offered { key, peer } => self.on_offered(&key, peer),
            NetEvent::Found { query, peers } => self.on_found(query, peers),
            NetEvent::LookupEnded { query } => self.lookups.handle_end(query, Instant::now()),
            NetEvent::Announced { key, told } => self.announcer.handle_told(&key, told, Instant::now()),
            NetEvent::Message(message) => self.on_message(message),
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { peer, addrs, reply } => self.dial(peer, addrs, reply),
            Command::PreferTcp { peer, addrs, reply } => self.prefer_tcp(peer, addrs, reply),
            Command::Open { peer, protocol, reply } => self.swarm.behaviour_mut().streams.open(peer, protocol, reply),
            Command::Provide { key, reply } => self.provide(key, reply),
            Command::Unprovide { key } => self.unprovide(&key),
            Command::Lookup(lookup) => self.look_up(lookup),
            Command::Publish { data, reply } => self.publish(data, reply),
            Command::Judge { id, source, verdict } => self.judge(&id, &source, verdict.into()),
            Command::Score { peer, score } => self.set_score(peer, bounded_score(score)),
            Command::Peers { reply } => drop(reply.send(self.connections.infos())),
            Command::AddrsOf { peer, reply } => drop(reply.send(self.addrs_of(peer))),
            Command::Shutdown { .. } => {}
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.feed.flush(&self.connections);
        self.announce_due(now);
        self.retry_lookups(now);
        let seeds = self.seeds.poll_due(self.connections.peer_count(), now);
        self.dial_all(seeds);
        self.trim(now);
        if now >= self.next_purge {
            self.next_purge = now + PURGE;
            self.swarm.behaviour_mut().kad.store_mut().purge(now);
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        self.connections.identify(&peer, info);
        let addrs = self.connections.addrs_of(&peer);
        let answers_lookups = info.protocols.contains(&self.kad_protocol);
        self.swarm.behaviour_mut().set_addrs(peer, &addrs, answers_lookups);
        self.feed.handle_change(peer, &self.connections);
    }

    /// A dead peer leaves a TCP connection open for a quarter of an hour. Under bulk a ping waits behind the data, so a
    /// busy connection is left to the timeouts of those who use it.
    fn on_silent(&mut self, peer: &PeerId, id: ConnectionId) {
        if !self.swarm.behaviour().streams.is_busy(peer, id) {
            self.swarm.close_connection(id);
        }
    }

    fn on_offered(&mut self, key: &RecordKey, peer: PeerId) {
        let (ip, addrs) = (self.connections.ip_of(&peer), self.connections.addrs_of(&peer));
        let store = self.swarm.behaviour_mut().kad.store_mut();
        match store.admit(key, peer, ip, Instant::now()) {
            Ok(()) => store.set_addrs(&peer, &addrs),
            Err(reason) => tracing::debug!(%peer, %reason, "provider record not kept"),
        }
    }

    fn on_found(&mut self, query: QueryId, peers: Vec<PeerId>) {
        let local = *self.swarm.local_peer_id();
        for peer in peers.into_iter().filter(|peer| *peer != local) {
            let addrs = self.addrs_of(peer);
            if self.lookups.handle_found(query, Provider { peer, addrs }) {
                return self.end_query(query);
            }
        }
    }

    fn on_message(&mut self, message: GossipMessage) {
        let (id, source) = (message.id.clone(), message.source);
        if message.data.len() > MAX_MESSAGE {
            self.judge(&id, &source, MessageAcceptance::Reject);
        } else if self.messages.try_send(message).is_err() {
            self.ignored.fetch_add(1, Ordering::Relaxed);
            self.judge(&id, &source, MessageAcceptance::Ignore);
        }
    }

    fn dial(&mut self, peer: PeerId, mut addrs: Vec<Multiaddr>, reply: Dialled) {
        if self.connections.is_connected(&peer) {
            // A caller that went away needs no answer.
            let _ = reply.send(Ok(()));
            return;
        }
        // Here and not by the swarm, which would dial them unfiltered: near by, a QUIC address of a peer that is gone takes
        // a whole handshake's time to fail where its TCP address is refused at once.
        let routed = self.swarm.behaviour_mut().routed_addrs(peer);
        let unnamed: Vec<Multiaddr> = routed.into_iter().filter(|addr| !addrs.contains(addr)).collect();
        addrs.extend(unnamed);
        let next = self.dials.handle_dial(peer, addrs, reply);
        self.dial_all(next);
    }

    /// Dials over TCP a peer that is connected by QUIC alone, once for as long as it is connected.
    fn prefer_tcp(&mut self, peer: PeerId, mut addrs: Vec<Multiaddr>, reply: Dialled) {
        addrs.extend(self.connections.addrs_of(&peer));
        addrs.retain(is_tcp);
        let is_quic_alone = !self.swarm.behaviour().streams.has_tcp(&peer);
        if addrs.is_empty() || !is_quic_alone || !self.connections.begin_tcp(&peer) {
            // A caller that went away needs no answer.
            let _ = reply.send(Ok(()));
            return;
        }
        let next = self.dials.handle_tcp(peer, addrs, reply);
        self.dial_all(next);
    }

    /// Dials; an attempt that fails at once may lead to the next.
    fn dial_all(&mut self, dials: impl IntoIterator<Item = DialOpts>) {
        for first in dials {
            let mut next = Some(first);
            while let Some(opts) = next.take() {
                let (attempt, peer) = (opts.connection_id(), opts.get_peer_id());
                if let (Err(error), Some(peer)) = (self.swarm.dial(opts), peer) {
                    next = self.dials.handle_failed(&peer, attempt, &error);
                }
            }
        }
    }

    fn provide(&mut self, key: Key, reply: oneshot::Sender<Result<(), ProvideError>>) {
        let kept = self.swarm.behaviour_mut().kad.store_mut().add_own(&key);
        if kept.is_ok() {
            self.announcer.add(key, Instant::now());
            self.announce_due(Instant::now());
        }
        let _ = reply.send(kept.map_err(|_| ProvideError::Full));
    }

    fn unprovide(&mut self, key: &Key) {
        self.announcer.remove(key);
        self.swarm.behaviour_mut().kad.stop_providing(&RecordKey::new(key));
    }

    fn announce_due(&mut self, now: Instant) {
        while let Some(key) = self.announcer.poll_due(now) {
            if self.swarm.behaviour_mut().kad.start_providing(RecordKey::new(&key)).is_err() {
                self.announcer.handle_told(&key, 0, now);
            }
        }
    }

    fn look_up(&mut self, lookup: Lookup) {
        if !self.lookups.has_room() {
            let _ = lookup.reply.send(Err(LookupError::Busy));
            return;
        }
        self.start_lookup(lookup);
    }

    fn start_lookup(&mut self, lookup: Lookup) {
        let query = self.swarm.behaviour_mut().kad.get_providers(RecordKey::new(&lookup.key));
        self.lookups.start(query, lookup);
    }

    fn retry_lookups(&mut self, now: Instant) {
        for query in self.lookups.poll_abandoned() {
            self.end_query(query);
        }
        while let Some(lookup) = self.lookups.poll_retry(now) {
            self.start_lookup(lookup);
        }
    }

    fn end_query(&mut self, query: QueryId) {
        if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&query) {
            query.finish();
        }
    }

    fn publish(&mut self, data: Vec<u8>, reply: oneshot::Sender<Result<(), PublishError>>) {
        let published = self.swarm.behaviour_mut().gossip.publish(self.topic.hash(), data);
        let _ = reply.send(published.map(drop).map_err(PublishError::from));
    }

    fn judge(&mut self, id: &MessageId, source: &PeerId, verdict: MessageAcceptance) {
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, source, verdict);
    }

    fn set_score(&mut self, peer: PeerId, score: f64) {
        self.connections.set_score(&peer, score);
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
    }

    fn addrs_of(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let own = self.connections.addrs_of(&peer);
        if own.is_empty() { self.swarm.behaviour_mut().routed_addrs(peer) } else { own }
    }

    fn trim(&mut self, now: Instant) {
        let streams = &self.swarm.behaviour().streams;
        for id in self.connections.trim(now, |peer, id| streams.is_busy(peer, id)) {
            tracing::debug!(connection = %id, "trimmed");
            self.swarm.close_connection(id);
        }
    }

    fn note_listeners(&mut self) {
        let addrs = self.swarm.listeners().chain(self.swarm.external_addresses());
        self.listening.send_replace(addrs.cloned().collect());
    }

    /// Says goodbye to all peers; when `asked` is answered, the ports are free.
    async fn end(mut self, asked: Option<oneshot::Sender<()>>) {
        self.commands.close();
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        if timeout(GOODBYE, closed).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
        drop(self.swarm);
        if let Some(reply) = asked {
            let _ = reply.send(());
        }
    }
}
