//! `pedlar peers`: who is connected.

use std::io;

use pedlar_net::{Direction, PeerInfo};
use pedlar_protocol::text::escape;
use serde::{Deserialize, Serialize};

use super::{Remote, Verb};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::failure::Failure;
use crate::node::Node;

/// List the nodes that this one is connected to.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar peers")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {}

/// What `peers` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A connected node.
    Peer(Peer),
}

/// A connected node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    peer: String,
    addrs: Vec<String>,
    /// Whether it dialled us.
    inbound: bool,
    /// Absent until the first ping came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<u64>,
    connected_s: u64,
    /// What it calls its software, escaped.
    agent: String,
    protocols: Vec<String>,
}

/// How many there are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    peers: usize,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(Line::Peer(peer): Line, screen: &mut Screen) -> io::Result<()> {
        let rtt = peer.rtt_ms.map_or_else(String::new, |ms| format!("{ms} ms"));
        let addr = peer.addrs.into_iter().next().unwrap_or_default();
        let direction = if peer.inbound { "in" } else { "out" };
        screen
            .row(["PEER", "", "RTT", "ADDRESS", "SOFTWARE"], [peer.peer, direction.to_owned(), rtt, addr, peer.agent]);
        Ok(())
    }

    fn sum_up(Summary { peers }: Summary, screen: &mut Screen) -> io::Result<()> {
        screen.text(format_args!("{peers} connected"))
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let peers = node.net.peers().await;
        for peer in &peers {
            out.line(Line::Peer(Peer::from(peer))).await?;
        }
        Ok(Summary { peers: peers.len() })
    }
}

impl From<&PeerInfo> for Peer {
    fn from(info: &PeerInfo) -> Self {
        Self {
            peer: info.peer.to_string(),
            addrs: info.addrs.iter().map(ToString::to_string).collect(),
            inbound: info.direction == Direction::Inbound,
            rtt_ms: info.rtt.and_then(|rtt| u64::try_from(rtt.as_millis()).ok()),
            connected_s: info.since.elapsed().as_secs(),
            agent: escape(&info.agent).to_string(),
            protocols: info.protocols.iter().map(ToString::to_string).collect(),
        }
    }
}
