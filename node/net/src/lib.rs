//! The libp2p swarm of a Pedlar node: discovery, gossip, and streams of bytes between peers.
//!
//! **Invariant:** this crate carries bytes and keys. It knows nothing about offers, prices, tabs or coins, and nothing
//! outside of it knows libp2p, save `PeerId` and `Multiaddr`.
//!
//! [`spawn`] starts one task that owns the swarm. The rest of the node holds a [`NetHandle`] (commands) and the
//! [`NetEvents`] (what comes in). Bulk data never passes through the task: a [`Stream`] moves between the connection
//! and whoever holds it.
//!
//! | file | owns |
//! |---|---|
//! | `config` | what the swarm is told at its start, the bounds, the names of protocols |
//! | `handle`, `task` | the two ends of the command queue |
//! | `behaviour`, `transport`, `translate` | libp2p put together, and its events in our words |
//! | `tls`, `muxer` | what secures a TCP connection, and what shares it among streams |
//! | `gates` | how many inbound connections an address and a subnet may have |
//! | `connections`, `dials`, `feed` | who is connected, dialled, trimmed, and what the node is told of it |
//! | `records`, `announce`, `lookups` | provider records: kept for others, announced, looked up |
//! | `gossip` | the one topic |
//! | `streams` | streams, their quotas and counters |
//! | `addresses` | what addresses say and how far they are believed |

mod addresses;
mod announce;
mod behaviour;
mod config;
mod connections;
mod dials;
mod feed;
#[doc(hidden)]
pub mod fuzzing;
mod gates;
mod gossip;
mod handle;
mod lookups;
mod muxer;
mod records;
mod streams;
mod task;
mod tls;
mod translate;
mod transport;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

pub use addresses::{AddressError, of_stranger};
pub use config::{Limits, NetConfig, NetworkNameError};
pub use connections::{Direction, PeerInfo};
pub use feed::PeerEvent;
pub use gossip::{GossipMessage, MAX_MESSAGE, PublishError, Verdict};
pub use handle::{NetEvents, NetHandle, ProvideError};
pub use libp2p::{Multiaddr, PeerId, gossipsub::MessageId};
use libp2p::{StreamProtocol, gossipsub::IdentTopic, identity::Keypair};
pub use lookups::{LookupError, Provider};
pub use streams::{InboundStream, OpenError, Stream, Traffic};
use tokio::sync::{mpsc, watch};

use crate::{
    announce::Announcer,
    behaviour::{Behaviour, Parts},
    config::Names,
    connections::Connections,
    dials::{Dials, Seeds},
    feed::PeerFeed,
    lookups::Lookups,
    records::Records,
    streams::Protocol,
    task::Task,
};

/// Why the swarm did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The network's name.
    #[error(transparent)]
    Network(#[from] NetworkNameError),
    /// An address in the configuration.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An address that can't be listened on.
    #[error("can't listen on {addr}: {reason}")]
    Listen {
        /// The address.
        addr: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// libp2p refuses its configuration.
    #[error("libp2p: {0}")]
    Libp2p(String),
}

/// Starts the swarm on the current tokio runtime; when this returns, it listens.
///
/// # Errors
/// [`SpawnError`] names the setting or the address that is wrong.
pub async fn spawn(mut config: NetConfig) -> Result<(NetHandle, NetEvents), SpawnError> {
    let names = Names::new(&config.network)?;
    config.listen.iter().chain(&config.external).try_for_each(addresses::check)?;
    let seeds = seeds(&config)?;
    // The key is made from these bytes in place, and they are wiped.
    let key =
        Keypair::ed25519_from_bytes(config.secret.as_mut_slice()).map_err(|e| SpawnError::Libp2p(e.to_string()))?;
    let peer = key.public().to_peer_id();

    let (stream_queue, streams) = mpsc::channel(config.limits.stream_queue);
    let (message_queue, messages) = mpsc::channel(handle::MESSAGE_QUEUE);
    let (peer_queue, peers) = mpsc::channel(handle::PEER_QUEUE);
    let (command_queue, commands) = mpsc::channel(handle::COMMAND_QUEUE);
    let (listening_now, listening) = watch::channel(Vec::new());
    let ignored = Arc::new(AtomicU64::new(0));

    let protocols = protocols(&names, &config.protocols)?;
    let topic = IdentTopic::new(names.of(config.topic));
    let kad_protocol = names.protocol("kad")?;
    let behaviour = behaviour(&config, &names, &key, &topic, &kad_protocol, stream_queue)?;
    let swarm = transport::swarm(key, config.tls, &config.limits, behaviour).map_err(SpawnError::Libp2p)?;
    let now = Instant::now();
    let mut task = Task {
        swarm,
        commands,
        messages: message_queue,
        feed: PeerFeed::new(peer_queue),
        listening: listening_now,
        ignored: Arc::clone(&ignored),
        topic,
        kad_protocol,
        connections: Connections::new(config.limits.clone(), protocols),
        announcer: Announcer::default(),
        lookups: Lookups::default(),
        dials: Dials::default(),
        seeds: Seeds::new(seeds, now),
        next_purge: now,
    };
    config.external.iter().for_each(|addr| task.swarm.add_external_address(addr.clone()));
    task.listen(&config.listen).await.map_err(|(addr, reason)| SpawnError::Listen { addr, reason })?;
    tokio::spawn(task.run());

    let deadline = config.limits.handshake + config.limits.open;
    let handle = NetHandle { peer, commands: command_queue, listening, ignored, deadline };
    Ok((handle, NetEvents { streams, messages, peers }))
}

fn behaviour(
    config: &NetConfig,
    names: &Names,
    key: &Keypair,
    topic: &IdentTopic,
    kad_protocol: &StreamProtocol,
    stream_queue: mpsc::Sender<InboundStream>,
) -> Result<Behaviour, SpawnError> {
    let random = Box::new(|| getrandom::u64().unwrap_or_default());
    Ok(Behaviour::new(Parts {
        key: key.public(),
        network: names.of("node"),
        agent: config.agent.clone(),
        kad_protocol: kad_protocol.clone(),
        kad_server: config.kad_server,
        records: Records::new(key.public().to_peer_id(), config.limits.clone(), random),
        gossip: gossip::behaviour(names, topic).map_err(SpawnError::Libp2p)?,
        streams: streams::Behaviour::new(protocols(names, &config.protocols)?, config.limits.clone(), stream_queue),
        limits: config.limits.clone(),
    }))
}

/// A wrong bootstrap address is the operator's to mend; a wrong remembered one is skipped.
fn seeds(config: &NetConfig) -> Result<Vec<(PeerId, Multiaddr)>, AddressError> {
    let mut seeds = config.bootstrap.iter().map(addresses::with_peer).collect::<Result<Vec<_>, _>>()?;
    seeds.extend(config.remembered.iter().filter_map(|addr| addresses::with_peer(addr).ok()));
    Ok(seeds)
}

fn protocols(names: &Names, short: &[&'static str]) -> Result<Vec<Protocol>, NetworkNameError> {
    short.iter().map(|&name| Ok(Protocol { name, wire: names.protocol(name)? })).collect()
}
