//! `pedlar wallet balance`: how many coins there are.

use std::io;

use serde::{Deserialize, Serialize};

use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Verb};
use crate::failure::Failure;
use crate::node::Node;

/// Show how many coins there are.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar wallet balance")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {}

/// What `wallet balance` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// Coins, each in one of these.
    Balance {
        /// In a block, not being spent.
        confirmed_sat: u64,
        /// On their way to us, or change.
        pending_sat: u64,
        /// On their way to others, fees included.
        reserved_sat: u64,
        /// Left to us in the channels that we opened.
        channels_sat: u64,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        let Line::Balance { confirmed_sat, pending_sat, reserved_sat, channels_sat } = line;
        screen.text(format_args!("confirmed  {confirmed_sat} sat"))?;
        screen.text(format_args!("pending    {pending_sat} sat"))?;
        screen.text(format_args!("reserved   {reserved_sat} sat"))?;
        screen.text(format_args!("channels   {channels_sat} sat"))
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let balance = {
            let status = node.driver.wallet().status();
            let status = status.borrow();
            Line::Balance {
                confirmed_sat: status.confirmed_sat,
                pending_sat: status.pending_sat,
                reserved_sat: status.reserved_sat,
                channels_sat: status.channels_sat,
            }
        };
        out.line(balance).await?;
        Ok(Done {})
    }
}
