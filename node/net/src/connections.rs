//! Who is connected, what is known of them, and whom to let go when there are too many.
//!
//! libp2p has no connection manager, and gossip alone keeps every connection open for ever: without trimming, slots
//! fill up and lookups fail. A plain value without IO; the task asks it and closes what it names.

use std::{
    collections::HashMap,
    mem,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, StreamProtocol, core::ConnectedPoint, identify, swarm::ConnectionId};

use crate::{
    Limits,
    addresses::{MAX_ADDRS_PER_PEER, Scope, believed, ip, scope},
    streams::Protocol,
};

/// Characters kept of the agent text that a peer sends.
const MAX_AGENT_CHARS: usize = 64;

/// Which side dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer dialled this node.
    Inbound,
    /// This node dialled the peer.
    Outbound,
}

/// A connected peer.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Its id, authenticated.
    pub peer: PeerId,
    /// Where it says it listens, and where it was dialled; at most eight.
    pub addrs: Vec<Multiaddr>,
    /// Who dialled its oldest connection.
    pub direction: Direction,
    /// The last ping.
    pub rtt: Option<Duration>,
    /// What it calls its software, at most 64 characters; **untrusted**: escape it before showing it.
    pub agent: String,
    /// Names of our stream protocols that it speaks.
    pub protocols: Vec<&'static str>,
    /// When its oldest connection was made.
    pub since: Instant,
}

/// All connections.
pub(crate) struct Connections {
    limits: Limits,
    protocols: Vec<Protocol>,
    peers: HashMap<PeerId, Peer>,
}

/// A connected peer; `links` is never empty.
struct Peer {
    links: Vec<Link>,
    score: f64,
    rtt: Option<Duration>,
    identity: Option<Identity>,
    tcp_tried: bool,
}

/// What a peer said of itself.
struct Identity {
    addrs: Vec<Multiaddr>,
    agent: String,
    protocols: Vec<&'static str>,
}

struct Link {
    id: ConnectionId,
    remote: Multiaddr,
    direction: Direction,
    since: Instant,
}

impl Connections {
    /// `protocols` are those that make a peer useful.
    pub(crate) fn new(limits: Limits, protocols: Vec<Protocol>) -> Self {
        Self { limits, protocols, peers: HashMap::new() }
    }

    pub(crate) fn open(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint, now: Instant) {
        let direction = if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
        let link = Link { id, remote: endpoint.get_remote_address().clone(), direction, since: now };
        let unknown = || Peer { links: Vec::new(), score: 0.0, rtt: None, identity: None, tcp_tried: false };
        self.peers.entry(peer).or_insert_with(unknown).links.push(link);
    }

    pub(crate) fn close(&mut self, peer: &PeerId, id: ConnectionId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.links.retain(|link| link.id != id);
            if known.links.is_empty() {
                self.peers.remove(peer);
            }
        }
    }

    /// Notes what a peer says of itself, as far as it is believed.
    pub(crate) fn identify(&mut self, peer: &PeerId, info: &identify::Info) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        let dialled = known.links.iter().filter(|link| link.direction == Direction::Outbound);
        let claimed = dialled.map(|link| link.remote.clone()).chain(info.listen_addrs.iter().cloned());
        let speaks = |wire: &StreamProtocol| info.protocols.contains(wire);
        known.identity = Some(Identity {
            addrs: believed(claimed, known.met()),
            agent: info.agent_version.chars().take(MAX_AGENT_CHARS).collect(),
            protocols: self.protocols.iter().filter(|own| speaks(&own.wire)).map(|own| own.name).collect(),
        });
    }

    pub(crate) fn ping(&mut self, peer: &PeerId, rtt: Duration) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.rtt = Some(rtt);
        }
    }

    /// Sets how useful a connected peer is; higher stays longer.
    pub(crate) fn set_score(&mut self, peer: &PeerId, score: f64) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.score = score;
        }
    }

    pub(crate) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Whether a connected peer is to be dialled over TCP now: once, or one that does not answer there would delay
    /// every stream.
    pub(crate) fn begin_tcp(&mut self, peer: &PeerId) -> bool {
        self.peers.get_mut(peer).is_some_and(|known| !mem::replace(&mut known.tcp_tried, true))
    }

    /// Whether the peer is connected and has said who it is.
    pub(crate) fn is_identified(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|known| known.identity.is_some())
    }

    /// The addresses of a connected peer; at most eight.
    pub(crate) fn addrs_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers.get(peer).map_or_else(Vec::new, Peer::addrs)
    }

    /// The IP address that a connected peer has.
    pub(crate) fn ip_of(&self, peer: &PeerId) -> Option<IpAddr> {
        self.peers.get(peer)?.links.iter().find_map(|link| ip(&link.remote))
    }

    pub(crate) fn infos(&self) -> Vec<PeerInfo> {
        self.peers.iter().filter_map(|(peer, known)| known.info(*peer)).collect()
    }

    /// The connections to close: above high water, the least useful down to low water; never one that is busy
    /// or in its grace time.
    pub(crate) fn trim(&self, now: Instant, is_busy: impl Fn(&PeerId, ConnectionId) -> bool) -> Vec<ConnectionId> {
        let count: usize = self.peers.values().map(|known| known.links.len()).sum();
        if count <= self.limits.high_water {
            return Vec::new();
        }
        let links = self.peers.iter().flat_map(|(peer, known)| known.links.iter().map(move |link| (peer, known, link)));
        let mut idle: Vec<_> = links
            .filter(|(peer, _, link)| now.duration_since(link.since) >= self.limits.grace && !is_busy(peer, link.id))
            .map(|(_, known, link)| (known.use_of(link), link.since, link.id))
            .collect();
        idle.sort_by(|(left, made, _), (right, later, _)| left.total_cmp(right).then(later.cmp(made)));
        idle.into_iter().take(count - self.limits.low_water).map(|(_, _, id)| id).collect()
    }
}

impl Peer {
    fn met(&self) -> Scope {
        self.links.iter().map(|link| scope(&link.remote)).max().unwrap_or(Scope::Global)
    }

    fn addrs(&self) -> Vec<Multiaddr> {
        let dialled = self.links.iter().filter(|link| link.direction == Direction::Outbound);
        let claimed = self.identity.iter().flat_map(|identity| identity.addrs.iter().cloned());
        let mut addrs = believed(dialled.map(|link| link.remote.clone()).chain(claimed), self.met());
        addrs.truncate(MAX_ADDRS_PER_PEER);
        addrs
    }

    /// A second connection is worth nothing, a peer that speaks none of our protocols little.
    fn use_of(&self, link: &Link) -> f64 {
        const SPARE: f64 = -1e9;
        const SPEAKS: f64 = 1.0;
        if self.links.first().is_some_and(|first| first.id != link.id) {
            return SPARE;
        }
        let speaks = self.identity.as_ref().is_some_and(|identity| !identity.protocols.is_empty());
        self.score + if speaks { SPEAKS } else { 0.0 }
    }

    fn info(&self, peer: PeerId) -> Option<PeerInfo> {
        let oldest = self.links.first()?;
        let (agent, protocols) =
            self.identity.as_ref().map(|id| (id.agent.clone(), id.protocols.clone())).unwrap_or_default();
        Some(PeerInfo {
            peer,
            addrs: self.addrs(),
            direction: oldest.direction,
            rtt: self.rtt,
            agent,
            protocols,
            since: oldest.since,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use libp2p::core::{Endpoint, transport::PortUse};

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn connections() -> Connections {
        let limits = Limits { low_water: 2, high_water: 4, grace: GRACE, ..Limits::default() };
        Connections::new(limits, Vec::new())
    }

    fn connect(connections: &mut Connections, peer: PeerId, id: usize, now: Instant) -> ConnectionId {
        let address = format!("/ip4/9.9.9.9/tcp/{}", id + 1).parse().unwrap();
        let id = ConnectionId::new_unchecked(id);
        let endpoint = ConnectedPoint::Dialer { address, role_override: Endpoint::Dialer, port_use: PortUse::New };
        connections.open(peer, id, &endpoint, now);
        id
    }

    #[test]
    fn the_least_useful_go_first_and_the_busy_stay() {
        let (mut connections, start) = (connections(), Instant::now());
        let peers: Vec<PeerId> = (0..6).map(|_| PeerId::random()).collect();
        let ids: Vec<ConnectionId> =
            (0..).zip(&peers).map(|(n, peer)| connect(&mut connections, *peer, n, start)).collect();
        connections.set_score(&peers[1], -1.0);
        connections.set_score(&peers[2], 5.0);
        let busy = |_: &PeerId, id| id == ids[3];
        assert!(connections.trim(start, busy).is_empty(), "all are in their grace time");
        let gone: HashSet<ConnectionId> = connections.trim(start + GRACE, busy).into_iter().collect();
        assert_eq!(gone, HashSet::from([ids[0], ids[1], ids[4], ids[5]]), "the highest score and the busy one stay");
        assert_eq!(connections.trim(start + GRACE, busy).first(), Some(&ids[1]), "the lowest score first");
    }

    #[test]
    fn nothing_is_trimmed_up_to_high_water_and_spares_first_above_it() {
        let (mut connections, start) = (connections(), Instant::now());
        let peer = PeerId::random();
        for n in 0..4 {
            connect(&mut connections, if n == 0 { peer } else { PeerId::random() }, n, start);
        }
        assert!(connections.trim(start + GRACE, |_, _| false).is_empty());
        let spare = connect(&mut connections, peer, 4, start);
        assert_eq!(connections.trim(start + GRACE, |_, _| false).first(), Some(&spare));
        connections.close(&peer, spare);
        assert!(connections.is_connected(&peer));
        connections.close(&peer, ConnectionId::new_unchecked(0));
        assert!(!connections.is_connected(&peer));
    }

    #[test]
    fn tcp_is_tried_once_for_as_long_as_a_peer_is_connected() {
        let (mut connections, peer, now) = (connections(), PeerId::random(), Instant::now());
        assert!(!connections.begin_tcp(&peer), "it is not connected");
        let id = connect(&mut connections, peer, 0, now);
        assert_eq!([connections.begin_tcp(&peer), connections.begin_tcp(&peer)], [true, false]);
        connections.close(&peer, id);
        connect(&mut connections, peer, 1, now);
        assert!(connections.begin_tcp(&peer));
    }
}
