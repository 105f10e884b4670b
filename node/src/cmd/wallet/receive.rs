//! `pedlar wallet receive`: where coins can be sent to.

use std::io;

use bitcoin::Amount;
use pedlar_wallet::bip21;
use serde::{Deserialize, Serialize};

use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Verb};
use crate::config::sat;
use crate::failure::Failure;
use crate::node::Node;

/// Show an address to send coins to; the same until something was sent to it.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Examples:\n  pedlar wallet receive\n  pedlar wallet receive --amount 50000sat")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// How much to ask for, in whole sat.
    #[arg(long = "amount", value_name = "AMOUNT", value_parser = sat)]
    amount_sat: Option<u64>,
}

/// What `wallet receive` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// Where to send coins.
    Address {
        /// The address.
        address: String,
        /// The same for a wallet to read, with the amount (BIP21).
        uri: String,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(Line::Address { address, uri }: Line, screen: &mut Screen) -> io::Result<()> {
        screen.text(address)?;
        screen.text(&uri)?;
        screen.qr(&uri)
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let address = node.driver.wallet().receive_address().await.map_err(Failure::system)?;
        let uri = bip21(&address, self.amount_sat.map(Amount::from_sat), None, None);
        out.line(Line::Address { address: address.to_string(), uri }).await?;
        Ok(Done {})
    }
}
