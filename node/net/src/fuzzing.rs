//! What the fuzz targets reach of this crate's inside; the product uses none of it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    identify,
    identity::PublicKey,
    kad::{RecordKey, store::RecordStore},
    swarm::ConnectionId,
};

use crate::{
    Limits, PeerInfo,
    connections::Connections,
    records::{KEY_LEN, Records},
    streams::Protocol,
};

/// The store of provider records, and its clock.
pub struct RecordBox {
    records: Records,
    now: Instant,
}

impl RecordBox {
    /// An empty one.
    #[must_use]
    pub fn new(local: PeerId, limits: Limits, random: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self { records: Records::new(local, limits, Box::new(random)), now: Instant::now() }
    }

    /// A peer announces itself for a key; false where that is refused.
    pub fn admit(&mut self, key: &[u8], peer: PeerId, ip: Option<IpAddr>) -> bool {
        self.records.admit(&RecordKey::new(&key), peer, ip, self.now).is_ok()
    }

    /// This node provides a key.
    pub fn add_own(&mut self, key: &[u8; KEY_LEN]) -> bool {
        self.records.add_own(key).is_ok()
    }

    /// A record is taken out.
    pub fn remove(&mut self, key: &[u8; KEY_LEN], peer: &PeerId) {
        self.records.remove_provider(&RecordKey::new(key), peer);
    }

    /// Time passes, and what has expired goes.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.records.purge(self.now);
    }

    /// Whom somebody who asks for a key is told.
    #[must_use]
    pub fn told(&self, key: &[u8; KEY_LEN]) -> Vec<PeerId> {
        self.records.providers(&RecordKey::new(key)).into_iter().map(|record| record.provider).collect()
    }

    /// Records held for others.
    #[must_use]
    pub fn held(&self) -> usize {
        self.records.total()
    }
}

/// What is believed of what a peer says of itself that was dialled, or came, from `remote`.
#[must_use]
pub fn identified(
    key: PublicKey,
    remote: Multiaddr,
    dialled: bool,
    agent: String,
    listen_addrs: Vec<Multiaddr>,
    spoken: Vec<StreamProtocol>,
) -> Option<PeerInfo> {
    let ours = Protocol { name: "chunks", wire: StreamProtocol::new("/pedlar/fuzz/chunks/1") };
    let mut connections = Connections::new(Limits::default(), vec![ours]);
    let endpoint = match dialled {
        true => ConnectedPoint::Dialer { address: remote, role_override: Endpoint::Dialer, port_use: PortUse::New },
        false => ConnectedPoint::Listener { local_addr: remote.clone(), send_back_addr: remote },
    };
    let peer = key.to_peer_id();
    connections.open(peer, ConnectionId::new_unchecked(1), &endpoint, Instant::now());
    let info = identify::Info {
        public_key: key,
        protocol_version: String::new(),
        agent_version: agent,
        listen_addrs,
        protocols: spoken,
        observed_addr: Multiaddr::empty(),
        signed_peer_record: None,
    };
    connections.identify(&peer, &info);
    connections.infos().pop()
}
