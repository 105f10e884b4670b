//! `pedlar down`: stops the node.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Done, NoLine, Remote, Verb};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::failure::{Exit, Failure};
use crate::home::{Home, LockError};
use crate::node::Node;

/// A node is down within 10 s; some more for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the lock is tried.
const LOOK: Duration = Duration::from_millis(20);

/// Stop the node, and wait until it has ended.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar down")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {}

impl Verb for Args {
    type Line = NoLine;
    type Summary = Done;

    fn show(line: NoLine, _: &mut Screen) -> io::Result<()> {
        match line {}
    }

    fn sum_up(_: Done, screen: &mut Screen) -> io::Result<()> {
        screen.text("The node is down.")
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, _: Out<NoLine>) -> Result<Done, Failure> {
        node.stopping.cancel();
        Ok(Done {})
    }

    /// The lock is free once the process has ended.
    async fn settle(home: &Home) -> Result<(), Failure> {
        let ended = async {
            while matches!(home.lock(), Err(LockError::Taken)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let slow = |_| Failure::new(Exit::Failure, "still_running", "the node was told to stop and is still running");
        tokio::time::timeout(PATIENCE, ended).await.map_err(slow)
    }
}
