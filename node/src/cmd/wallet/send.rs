//! `pedlar wallet send`: pays coins to any address.

use std::io;

use pedlar_wallet::PaymentId;
use serde::{Deserialize, Serialize};

use super::{fee_limit, not_paid};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Verb};
use crate::config::sat;
use crate::failure::Failure;
use crate::node::Node;

const EXAMPLES: &str = "\
Examples:
  pedlar wallet send tb1q… 50000sat
  pedlar wallet send tb1q… 50000sat --max 50300sat --yes";

/// Send coins to an address; the fee comes on top.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Where to.
    address: String,
    /// How much, in whole sat.
    #[arg(value_name = "AMOUNT", value_parser = sat)]
    amount_sat: u64,
    /// All that may be spent, the fee included.
    #[arg(long = "max", value_name = "AMOUNT", value_parser = sat)]
    max_sat: Option<u64>,
    /// Pay no fee above this; by default twice the estimate.
    #[arg(long = "max-fee", value_name = "AMOUNT", value_parser = sat)]
    max_fee_sat: Option<u64>,
    /// Show what it would cost, and send nothing.
    #[arg(long)]
    #[serde(default)]
    dry_run: bool,
    /// Don't ask.
    #[arg(long)]
    #[serde(skip)]
    yes: bool,
}

/// What `wallet send` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// What it would cost.
    Quote {
        /// Where to.
        address: String,
        /// How much arrives.
        amount_sat: u64,
        /// The fee as of now.
        fee_sat: u64,
        /// The fee that would be paid at most.
        max_fee_sat: u64,
    },
    /// Signed and stored: it is sent until it is in a block.
    Sent {
        /// The transaction.
        txid: String,
        /// How much arrives.
        amount_sat: u64,
        /// The fee.
        fee_sat: u64,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        match line {
            Line::Quote { address, amount_sat, fee_sat, max_fee_sat } => screen.text(format_args!(
                "{amount_sat} sat to {address}, for a fee of about {fee_sat} sat and at most {max_fee_sat} sat"
            )),
            Line::Sent { txid, amount_sat, fee_sat } => {
                screen.text(format_args!("Sent {amount_sat} sat for a fee of {fee_sat} sat: {txid}"))
            }
        }
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let wallet = node.driver.wallet();
        let address = node.driver.network().parse_address(&self.address);
        let address = address.map_err(|e| Failure::usage("address", e))?;
        let estimate_sat = wallet.estimate_fee(self.amount_sat).await.map_err(Failure::system)?;
        let amount_sat = self.amount_sat;
        let max_fee_sat = fee_limit(self.max_fee_sat, self.max_sat, amount_sat, estimate_sat)?;
        if self.dry_run {
            let address = address.to_string();
            out.line(Line::Quote { address, amount_sat, fee_sat: estimate_sat, max_fee_sat }).await?;
            return Ok(Done {});
        }
        let mut id = [0; 32];
        getrandom::fill(&mut id).map_err(Failure::system)?;
        let payment = wallet.pay(PaymentId(id), address, amount_sat, max_fee_sat).await.map_err(|e| not_paid(&e))?;
        let txid = payment.txid.map(|txid| txid.to_string()).unwrap_or_default();
        out.line(Line::Sent { txid, amount_sat, fee_sat: payment.fee_sat.unwrap_or(0) }).await?;
        Ok(Done {})
    }
}

impl Args {
    /// The dry run to be agreed to, where nobody has agreed yet.
    pub(in crate::cmd) fn rehearsal(&self) -> Option<Self> {
        (!self.yes && !self.dry_run).then(|| Self { dry_run: true, ..self.clone() })
    }
}
