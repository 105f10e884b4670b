//! Gossip: one topic, messages without a sender, named by their content, forwarded only after our verdict.

use std::{collections::HashSet, time::Duration};

use libp2p::{
    PeerId,
    gossipsub::{
        Behaviour, ConfigBuilder, IdentTopic, IdentityTransform, Message, MessageAcceptance, MessageAuthenticity,
        MessageId, PeerScoreParams, PeerScoreThresholds, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
        score_parameter_decay,
    },
};

use crate::config::Names;

/// Bytes of a message; an offer is at most this long.
pub const MAX_MESSAGE: usize = 4096;
/// Bytes of an RPC, which carries several messages. Far above [`MAX_MESSAGE`]: gossipsub loses messages within 8 KiB of
/// this limit when they come in bursts.
const MAX_TRANSMIT: usize = 64 * 1024;
/// Bytes of control data in an RPC: about 3,000 message ids.
const MAX_CONTROL: usize = 64 * 1024;
/// Bytes of a message id.
const ID_LEN: usize = 20;
/// Messages that wait for a slow peer.
const MAX_QUEUE: usize = 512;
/// Heartbeats (seconds) in which a verdict still lets a message through.
const HISTORY: usize = 10;
/// An application score is at most this, either way.
const MAX_SCORE: f64 = 100.0;

pub(crate) type Gossip = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// A message that waits for a verdict.
#[derive(Debug, Clone)]
pub struct GossipMessage {
    /// Its id, for the verdict.
    pub id: MessageId,
    /// The peer that forwarded it, for the verdict; who wrote it only its content can tell.
    pub source: PeerId,
    /// At most [`MAX_MESSAGE`] bytes.
    pub data: Vec<u8>,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Valid and new: forward it.
    Accept,
    /// Not worth forwarding, nobody's fault.
    Ignore,
    /// Can never be valid: whoever forwards such loses score.
    Reject,
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No peer listens yet; try again later.
    #[error("no peer listens to this topic yet")]
    NoPeers,
    /// The same bytes were seen within the last minute.
    #[error("the same message was published a moment ago")]
    Duplicate,
    /// More than [`MAX_MESSAGE`] bytes.
    #[error("a message has at most {MAX_MESSAGE} bytes, this one {len}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// All peers are slow.
    #[error("the queues of all peers are full")]
    Busy,
    /// The swarm has shut down.
    #[error("the network is shut down")]
    Stopped,
}

impl From<Verdict> for MessageAcceptance {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accept => Self::Accept,
            Verdict::Ignore => Self::Ignore,
            Verdict::Reject => Self::Reject,
        }
    }
}

impl From<libp2p::gossipsub::PublishError> for PublishError {
    fn from(error: libp2p::gossipsub::PublishError) -> Self {
        use libp2p::gossipsub::PublishError as Error;
        match error {
            Error::Duplicate => Self::Duplicate,
            Error::NoPeersSubscribedToTopic => Self::NoPeers,
            Error::MessageTooLarge => Self::TooLarge { len: MAX_TRANSMIT },
            Error::AllQueuesFull(_) | Error::SigningError(_) | Error::TransformFailed(_) => Self::Busy,
        }
    }
}

/// The behaviour, subscribed to `topic`.
///
/// # Errors
/// The text of gossipsub's complaint about its configuration.
pub(crate) fn behaviour(names: &Names, topic: &IdentTopic) -> Result<Gossip, String> {
    let config = ConfigBuilder::default()
        .protocol_id_prefix(names.of("gossip"))
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(MAX_TRANSMIT)
        .max_control_message_size(MAX_CONTROL)
        .connection_handler_queue_len(MAX_QUEUE)
        .history_length(HISTORY)
        .build()
        .map_err(|error| error.to_string())?;
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let mut gossip = Gossip::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)?;
    gossip.with_peer_score(peer_score(topic), thresholds())?;
    gossip.subscribe(topic).map_err(|error| error.to_string())?;
    Ok(gossip)
}

/// An application score that gossipsub can add up.
pub(crate) fn bounded_score(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score.clamp(-MAX_SCORE, MAX_SCORE) }
}

fn message_id(message: &Message) -> MessageId {
    let hash = blake3::hash(&message.data);
    MessageId::from(hash.as_bytes().iter().copied().take(ID_LEN).collect::<Vec<u8>>())
}

/// Colocation is not scored: gossipsub exempts single addresses only, not a LAN, and the gate already counts the
/// connections of an address and a subnet.
fn peer_score(topic: &IdentTopic) -> PeerScoreParams {
    PeerScoreParams {
        topics: [(topic.hash(), topic_score())].into(),
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_threshold: 6.0,
        ..PeerScoreParams::default()
    }
}

/// Few messages make delivery rates say nothing, so they don't count. What counts: being there and being first, a
/// little; bytes that can never be valid, a lot: the third within ten minutes silences a peer.
fn topic_score() -> TopicScoreParams {
    let slow = score_parameter_decay(Duration::from_secs(600));
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 300.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_decay: slow,
        first_message_deliveries_cap: 50.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: slow,
        ..TopicScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds { gossip_threshold: -10.0, publish_threshold: -50.0, ..PeerScoreThresholds::default() }
}
