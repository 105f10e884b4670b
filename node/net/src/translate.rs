//! What libp2p reports, in this crate's words: one function per behaviour, and what nobody here asks for falls away.

use std::time::Duration;

use libp2p::{
    PeerId,
    core::{ConnectedPoint, transport::ListenerId},
    gossipsub, identify,
    kad::{self, GetProvidersOk, InboundRequest, QueryId, QueryResult, RecordKey},
    ping,
    swarm::{ConnectionId, DialError, SwarmEvent},
};

use crate::{announce::Key, behaviour::BehaviourEvent, gossip::GossipMessage};

/// What the task acts on.
pub(crate) enum NetEvent {
    Opened { peer: PeerId, id: ConnectionId, endpoint: ConnectedPoint },
    Closed { peer: PeerId, id: ConnectionId },
    DialFailed { peer: PeerId, attempt: ConnectionId, error: DialError },
    Listening { listener: ListenerId },
    Deaf { listener: ListenerId, reason: String },
    Identified { peer: PeerId, info: Box<identify::Info> },
    Pinged { peer: PeerId, rtt: Duration },
    Silent { peer: PeerId, id: ConnectionId },
    Offered { key: RecordKey, peer: PeerId },
    Found { query: QueryId, peers: Vec<PeerId> },
    LookupEnded { query: QueryId },
    Announced { key: Key, told: u32 },
    Message(GossipMessage),
}

/// The swarm's own events, and those of its behaviours.
pub(crate) fn swarm(event: SwarmEvent<BehaviourEvent>) -> Option<NetEvent> {
    match event {
        SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => identify(event),
        SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => ping(event),
        SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => kad(event),
        SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => gossip(event),
        SwarmEvent::ConnectionEstablished { peer_id: peer, connection_id: id, endpoint, .. } => {
            Some(NetEvent::Opened { peer, id, endpoint })
        }
        SwarmEvent::ConnectionClosed { peer_id: peer, connection_id: id, .. } => Some(NetEvent::Closed { peer, id }),
        SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), connection_id: attempt, error } => {
            Some(NetEvent::DialFailed { peer, attempt, error })
        }
        SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
            tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            None
        }
        SwarmEvent::NewListenAddr { listener_id: listener, address } => {
            tracing::info!(%address, "listening");
            Some(NetEvent::Listening { listener })
        }
        SwarmEvent::ExpiredListenAddr { listener_id: listener, .. } => Some(NetEvent::Listening { listener }),
        SwarmEvent::ListenerClosed { listener_id: listener, reason, .. } => {
            let reason = reason.err().map_or_else(|| "the listener ended".to_owned(), |error| error.to_string());
            Some(NetEvent::Deaf { listener, reason })
        }
        SwarmEvent::ListenerError { error, .. } => {
            tracing::warn!(%error, "a listener has trouble");
            None
        }
        _ => None,
    }
}

fn identify(event: identify::Event) -> Option<NetEvent> {
    match event {
        identify::Event::Received { peer_id: peer, info, .. } => {
            Some(NetEvent::Identified { peer, info: Box::new(info) })
        }
        identify::Event::Sent { .. } | identify::Event::Pushed { .. } => None,
        identify::Event::Error { peer_id: peer, error, .. } => {
            tracing::debug!(%peer, %error, "the peer did not say who it is");
            None
        }
    }
}

fn ping(event: ping::Event) -> Option<NetEvent> {
    let ping::Event { peer, connection: id, result } = event;
    match result {
        Ok(rtt) => Some(NetEvent::Pinged { peer, rtt }),
        Err(ping::Failure::Timeout) => Some(NetEvent::Silent { peer, id }),
        Err(ping::Failure::Unsupported | ping::Failure::Other { .. }) => None,
    }
}

/// kad itself has checked that the provider of a record is the peer that sent it.
fn kad(event: kad::Event) -> Option<NetEvent> {
    match event {
        kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
            Some(NetEvent::Offered { key: record.key, peer: record.provider })
        }
        kad::Event::OutboundQueryProgressed { id: query, result, stats, .. } => match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                Some(NetEvent::Found { query, peers: providers.into_iter().collect() })
            }
            QueryResult::GetProviders(_) => Some(NetEvent::LookupEnded { query }),
            QueryResult::StartProviding(result) => {
                let key = result.map_or_else(kad::AddProviderError::into_key, |told| told.key);
                let key = Key::try_from(key.as_ref()).ok()?;
                Some(NetEvent::Announced { key, told: stats.num_successes() })
            }
            _ => None,
        },
        _ => None,
    }
}

fn gossip(event: gossipsub::Event) -> Option<NetEvent> {
    match event {
        gossipsub::Event::Message { propagation_source: source, message_id: id, message } => {
            Some(NetEvent::Message(GossipMessage { id, source, data: message.data }))
        }
        gossipsub::Event::SlowPeer { peer_id: peer, .. } => {
            tracing::debug!(%peer, "slow to take gossip");
            None
        }
        gossipsub::Event::Subscribed { .. }
        | gossipsub::Event::Unsubscribed { .. }
        | gossipsub::Event::GossipsubNotSupported { .. } => None,
    }
}
