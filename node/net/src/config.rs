//! What a swarm is told at its start, and the figures that bound it.

use std::time::Duration;

use libp2p::{Multiaddr, StreamProtocol};
use zeroize::Zeroizing;

/// Everything the swarm needs to know.
pub struct NetConfig {
    /// The ed25519 seed; the peer id follows from it.
    pub secret: Zeroizing<[u8; 32]>,
    /// The network, part of every protocol name; lower-case letters, digits and `-`, at most 64 bytes.
    pub network: String,
    /// Names of the stream protocols spoken: `chunks` becomes `/pedlar/<network>/chunks/1`.
    pub protocols: Vec<&'static str>,
    /// Name of the one gossip topic: `offers` becomes `/pedlar/<network>/offers/1`.
    pub topic: &'static str,
    /// Addresses to listen on; port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Addresses (with `/p2p/…`) that lead into the network.
    pub bootstrap: Vec<Multiaddr>,
    /// Addresses (with `/p2p/…`) of peers met before; those that can't be used are skipped.
    pub remembered: Vec<Multiaddr>,
    /// Addresses at which the outside reaches this node, if the operator knows them.
    pub external: Vec<Multiaddr>,
    /// Serve lookups even while no external address is known, as on a private network.
    pub kad_server: bool,
    /// Offer TLS before Noise over TCP; without it only Noise, to meet peers that have no TLS or to measure the two.
    pub tls: bool,
    /// What this node calls its software to those who ask, such as `pedlar/0.1.0`.
    pub agent: String,
    /// The bounds.
    pub limits: Limits,
}

/// Every bound that a test or an operator may want to move; the rest are constants beside their use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Trimming of connections ends here; 150: enough for lookups and the gossip mesh of a desktop node.
    pub low_water: usize,
    /// Trimming of connections begins above this.
    pub high_water: usize,
    /// A connection this young is never trimmed: it had no time yet to show its use.
    pub grace: Duration,
    /// Connections never exceed this; the room above `high_water` keeps lookups working while trimming catches up.
    pub max_connections: u32,
    /// Connections of one peer: both sides may dial at once, over two transports.
    pub connections_per_peer: u32,
    /// Handshakes in progress, in each direction.
    pub pending_connections: u32,
    /// Inbound connections of one IP address that is not local.
    pub connections_per_ip: usize,
    /// Inbound connections of one IPv4 /24 or IPv6 /48 that is not local.
    pub connections_per_subnet: usize,
    /// Inbound handshakes of one subnet per second, on average; ten seconds' worth may come at once.
    pub handshakes_per_second: u32,
    /// Time for a connection to be authenticated and multiplexed.
    pub handshake: Duration,
    /// Connections without any stream close after this. Those to peers that gossip always have some: trimming, not this,
    /// ends them.
    pub idle: Duration,
    /// Time for a stream to be opened and accepted.
    pub open: Duration,
    /// Inbound streams of one peer at a time.
    pub streams_per_peer: usize,
    /// Inbound streams of all peers at a time.
    pub streams_total: usize,
    /// Accepted streams that wait for [`NetEvents::streams`](crate::NetEvents) to be read; more are refused.
    pub stream_queue: usize,
    /// Provider records held for others; each takes about 100 bytes.
    pub records: usize,
    /// Provider records held for one peer: a folder is one record, so this is a large shop.
    pub records_per_peer: usize,
    /// Provider records held for one subnet that is not local.
    pub records_per_subnet: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            low_water: 150,
            high_water: 250,
            grace: Duration::from_secs(30),
            max_connections: 400,
            connections_per_peer: 4,
            pending_connections: 64,
            connections_per_ip: 8,
            connections_per_subnet: 32,
            handshakes_per_second: 4,
            handshake: Duration::from_secs(8),
            idle: Duration::from_secs(60),
            open: Duration::from_secs(10),
            streams_per_peer: 48,
            streams_total: 1024,
            stream_queue: 256,
            records: 65_536,
            records_per_peer: 1024,
            records_per_subnet: 4096,
        }
    }
}

/// A network name that can't be part of a protocol name.
#[derive(Debug, thiserror::Error)]
#[error("network name {0:?}: use 1 to 64 lower-case letters, digits and '-'")]
pub struct NetworkNameError(String);

/// The names of one network: every protocol and topic carries the network, so two of them never mix.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    network: String,
}

impl Names {
    const MAX_LEN: usize = 64;

    /// # Errors
    /// [`NetworkNameError`] for a name that [`NetConfig::network`] doesn't allow.
    pub(crate) fn new(network: &str) -> Result<Self, NetworkNameError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if network.is_empty() || network.len() > Self::MAX_LEN || !network.bytes().all(fits) {
            return Err(NetworkNameError(network.to_owned()));
        }
        Ok(Self { network: network.to_owned() })
    }

    /// `/pedlar/<network>/<name>/1`.
    pub(crate) fn of(&self, name: &str) -> String {
        format!("/pedlar/{}/{name}/1", self.network)
    }

    /// [`Self::of`] as a protocol to negotiate.
    pub(crate) fn protocol(&self, name: &str) -> Result<StreamProtocol, NetworkNameError> {
        StreamProtocol::try_from_owned(self.of(name)).map_err(|_| NetworkNameError(self.network.clone()))
    }
}
