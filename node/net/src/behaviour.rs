//! The protocols that the swarm speaks, in the order in which they are asked about a connection.

use std::{num::NonZeroUsize, time::Duration};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, connection_limits,
    connection_limits::ConnectionLimits,
    core::Endpoint,
    identify,
    identity::PublicKey,
    kad, ping,
    swarm::{ConnectionId, NetworkBehaviour},
};

use crate::{
    Limits,
    addresses::{MAX_ADDRS_PER_PEER, Scope, believed},
    gates::Gate,
    gossip::Gossip,
    lookups::QUERY_TIMEOUT,
    records::{RECORD_TTL, Records},
    streams,
};

/// Peers asked at a time by a lookup, each on a path of its own, so that one liar doesn't lead all of them astray.
const DISJOINT_PATHS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
/// A ping on each connection as often as this, to measure it and to notice dead ones.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// All behaviours; the gates come first.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gate: Gate,
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) kad: kad::Behaviour<Records>,
    pub(crate) gossip: Gossip,
    pub(crate) streams: streams::Behaviour,
}

/// What [`Behaviour::new`] puts together.
pub(crate) struct Parts {
    pub(crate) key: PublicKey,
    pub(crate) network: String,
    pub(crate) agent: String,
    pub(crate) kad_protocol: StreamProtocol,
    pub(crate) kad_server: bool,
    pub(crate) records: Records,
    pub(crate) gossip: Gossip,
    pub(crate) streams: streams::Behaviour,
    pub(crate) limits: Limits,
}

impl Behaviour {
    pub(crate) fn new(parts: Parts) -> Self {
        let peer = parts.key.to_peer_id();
        let mut kad = kad::Behaviour::with_config(peer, parts.records, kad_config(parts.kad_protocol));
        if parts.kad_server {
            kad.set_mode(Some(kad::Mode::Server));
        }
        Self {
            gate: Gate::new(parts.limits.clone()),
            limits: connection_limits::Behaviour::new(connection_limits(&parts.limits)),
            identify: identify::Behaviour::new(identify_config(parts.network, parts.agent, parts.key)),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            kad,
            gossip: parts.gossip,
            streams: parts.streams,
        }
    }

    /// The addresses at which kad would dial `peer` now: those in its table and those that lookups in progress were
    /// told; at most eight.
    ///
    /// WHY: a lookup's events name providers without the addresses that came along; this question to kad, which has no
    /// effect on it, is the only public way to them.
    pub(crate) fn routed_addrs(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let no_connection = ConnectionId::new_unchecked(0);
        let addrs = self.kad.handle_pending_outbound_connection(no_connection, Some(peer), &[], Endpoint::Dialer);
        believed(addrs.unwrap_or_default(), Scope::Loopback)
    }

    /// Notes where a peer listens: in the table if it answers lookups, and with the records that it announced.
    pub(crate) fn set_addrs(&mut self, peer: PeerId, addrs: &[Multiaddr], answers_lookups: bool) {
        self.kad.store_mut().set_addrs(&peer, addrs);
        if !answers_lookups {
            self.kad.remove_peer(&peer);
            return;
        }
        for addr in addrs.iter().take(MAX_ADDRS_PER_PEER) {
            self.kad.add_address(&peer, addr.clone());
        }
    }
}

/// Kept as kad has it unless said here. Peers enter the table only by [`Behaviour::set_addrs`], records only by
/// [`Records::admit`]; announcements are timed by the announcer.
fn kad_config(protocol: StreamProtocol) -> kad::Config {
    let mut config = kad::Config::new(protocol);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_parallelism(DISJOINT_PATHS)
        .disjoint_query_paths(true)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(RECORD_TTL))
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_kbucket_inserts(kad::BucketInserts::Manual);
    config
}

/// No cache of addresses: it would be dialled unfiltered; [`Behaviour::set_addrs`] keeps what is believed.
fn identify_config(network: String, agent: String, key: PublicKey) -> identify::Config {
    identify::Config::new(network, key).with_agent_version(agent).with_push_listen_addr_updates(true).with_cache_size(0)
}

fn connection_limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.pending_connections))
        .with_max_pending_outgoing(Some(limits.pending_connections))
        .with_max_established(Some(limits.max_connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
}
