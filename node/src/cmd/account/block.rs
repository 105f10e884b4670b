//! `pedlar account block` and `unblock`: whom the owner sells nothing.

use std::io;

use pedlar_net::PeerId;
use pedlar_protocol::text::Name;
use serde::{Deserialize, Serialize};

use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Text, Verb};
use crate::driver::now;
use crate::failure::{Exit, Failure};
use crate::node::Node;

const BLOCK_EXAMPLES: &str = "\
Examples:
  pedlar account block 12D3Koo…
  pedlar account block 12D3Koo… --note 'never signs the last window'

It is sold nothing from then on, also in sessions that are open. What it owes it can still pay, and what it has paid stays
its own until you unblock it.";

/// Sell a node nothing from now on.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = BLOCK_EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The node.
    peer: Text<PeerId>,
    /// Why, for yourself: at most 128 bytes. The node is told only that it is blocked.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// Sell a blocked node again what it pays for.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar account unblock 12D3Koo…")]
#[serde(deny_unknown_fields)]
pub(crate) struct UnblockArgs {
    /// The node.
    peer: Text<PeerId>,
}

/// What both say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// How it is now.
    Block {
        /// The node.
        peer: String,
        /// Whether it is blocked.
        blocked: bool,
        /// Whether it was otherwise before.
        changed: bool,
    },
}

impl Line {
    fn show(self, screen: &mut Screen) -> io::Result<()> {
        let Self::Block { peer, blocked, changed } = self;
        let how = if blocked { "is sold nothing" } else { "is sold what it pays for" };
        screen.text(format_args!("{peer} {how}{}", if changed { " from now on" } else { ", as before" }))
    }
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        line.show(screen)
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Verb for UnblockArgs {
    type Line = Line;
    type Summary = Done;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        line.show(screen)
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let Self { peer: Text(peer), note } = self;
        let note = note.map(Name::new).transpose().map_err(|error| Failure::usage("note", error))?;
        if node.driver.read(|market| market.me() == peer) {
            return Err(Failure::usage("own_node", "this is the node itself, which sells itself nothing anyway"));
        }
        let changed = node.driver.commit(|market| market.handle_block(now(), peer, note)).await;
        let changed = changed.map_err(Failure::system)?;
        tracing::info!(%peer, "blocked by the owner");
        out.line(Line::Block { peer: peer.to_string(), blocked: true, changed }).await?;
        Ok(Done {})
    }
}

impl Remote for UnblockArgs {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let Text(peer) = self.peer;
        let changed = node.driver.commit(|market| market.handle_unblock(peer)).await.map_err(Failure::system)?;
        if !changed {
            return Err(Failure::new(Exit::NotFound, "not_blocked", format!("{peer} is not blocked")));
        }
        tracing::info!(%peer, "unblocked by the owner");
        out.line(Line::Block { peer: peer.to_string(), blocked: false, changed }).await?;
        Ok(Done {})
    }
}
