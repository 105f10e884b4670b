//! What the node is told of peers that come and go.

use std::collections::HashSet;

use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::connections::Connections;

/// A peer came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// The peer is connected and has said which protocols it speaks and where it listens.
    Connected {
        /// Its id, authenticated.
        peer: PeerId,
        /// Where it listens, worth remembering; at most eight.
        addrs: Vec<Multiaddr>,
    },
    /// The last connection to the peer is closed.
    Disconnected {
        /// Its id.
        peer: PeerId,
    },
}

/// Tells the difference between what is and what was told: events that a slow reader misses melt into one, and what it
/// is told never contradicts itself.
pub(crate) struct PeerFeed {
    events: mpsc::Sender<PeerEvent>,
    told: HashSet<PeerId>,
    changed: HashSet<PeerId>,
}

impl PeerFeed {
    pub(crate) fn new(events: mpsc::Sender<PeerEvent>) -> Self {
        Self { events, told: HashSet::new(), changed: HashSet::new() }
    }

    /// Notes that something about `peer` may have changed, and tells what there is room for.
    pub(crate) fn handle_change(&mut self, peer: PeerId, connections: &Connections) {
        self.changed.insert(peer);
        self.flush(connections);
    }

    /// Tells what there is room for.
    pub(crate) fn flush(&mut self, connections: &Connections) {
        let Self { events, told, changed } = self;
        changed.retain(|&peer| {
            let event = match (told.contains(&peer), connections.is_identified(&peer)) {
                (false, true) => PeerEvent::Connected { peer, addrs: connections.addrs_of(&peer) },
                (true, false) => PeerEvent::Disconnected { peer },
                _ => return false,
            };
            match events.try_send(event) {
                Ok(()) if !told.remove(&peer) => drop(told.insert(peer)),
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => return true,
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use libp2p::{
        core::{ConnectedPoint, Endpoint, transport::PortUse},
        identify,
        identity::Keypair,
        swarm::ConnectionId,
    };

    use super::*;
    use crate::Limits;

    const LINK: usize = 1;

    fn come(connections: &mut Connections, peer: PeerId) {
        let address: Multiaddr = "/ip4/9.9.9.9/tcp/1".parse().unwrap();
        let endpoint = ConnectedPoint::Dialer {
            address: address.clone(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        connections.open(peer, ConnectionId::new_unchecked(LINK), &endpoint, Instant::now());
        let info = identify::Info {
            public_key: Keypair::generate_ed25519().public(),
            protocol_version: String::new(),
            agent_version: String::new(),
            listen_addrs: Vec::new(),
            protocols: Vec::new(),
            observed_addr: address,
            signed_peer_record: None,
        };
        connections.identify(&peer, &info);
    }

    fn go(connections: &mut Connections, peer: PeerId) {
        connections.close(&peer, ConnectionId::new_unchecked(LINK));
    }

    #[test]
    fn a_slow_reader_is_told_the_difference() {
        let (sender, mut events) = mpsc::channel(1);
        let mut feed = PeerFeed::new(sender);
        let mut connections = Connections::new(Limits::default(), Vec::new());
        let (stays, flickers) = (PeerId::random(), PeerId::random());
        come(&mut connections, stays);
        feed.handle_change(stays, &connections);
        come(&mut connections, flickers);
        feed.handle_change(flickers, &connections);
        go(&mut connections, flickers);
        feed.handle_change(flickers, &connections);
        assert!(feed.changed.is_empty(), "who came and went while nobody read is forgotten");
        go(&mut connections, stays);
        feed.handle_change(stays, &connections);
        assert!(matches!(events.try_recv(), Ok(PeerEvent::Connected { peer, .. }) if peer == stays));
        feed.flush(&connections);
        assert_eq!(events.try_recv(), Ok(PeerEvent::Disconnected { peer: stays }));
        feed.flush(&connections);
        assert!(events.try_recv().is_err() && feed.told.is_empty());
    }
}
