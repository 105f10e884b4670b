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
