//! `pedlar wallet bump`: makes a payment that waits for a block dearer, so that it is mined sooner.

use std::io;

use pedlar_wallet::{Bump, BumpError, Txid};
use serde::{Deserialize, Serialize};

use super::{RAISE_CEILING, fee_limit, not_paid};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Text, Verb};
use crate::config::sat;
use crate::failure::{Exit, Failure};
use crate::node::Node;

const EXAMPLES: &str = "\
Examples:
  pedlar wallet bump 4f2a…
  pedlar wallet bump 4f2a… --fee-rate 20 --max-fee 3000sat --yes

The payment stays the same: its id, its payee and its amount. If a miner takes an older transaction of it all the same,
that one is the payment, and nothing is paid twice.";

/// Raise the fee of a payment that is in no block yet, by a transaction that replaces the one sent so far (BIP125).
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The transaction, as `wallet history` shows it; of several for one payment, any.
    txid: Text<Txid>,
    /// The rate to pay, in sat/vB; by default what the server asks for now, and 1 more than before at least.
    #[arg(long = "fee-rate", value_name = "RATE")]
    fee_rate_sat_vb: Option<u64>,
    /// All that may be spent: what is paid and the whole new fee.
    #[arg(long = "max", value_name = "AMOUNT", value_parser = sat)]
    max_sat: Option<u64>,
    /// Pay no fee above this in all; by default twice what it would be now.
    #[arg(long = "max-fee", value_name = "AMOUNT", value_parser = sat)]
    max_fee_sat: Option<u64>,
    /// Show what it would cost, and change nothing.
    #[arg(long)]
    #[serde(default)]
    dry_run: bool,
    /// Don't ask.
    #[arg(long)]
    #[serde(skip)]
    yes: bool,
}

/// What `wallet bump` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// What it would cost.
    Quote {
        /// The transaction that is sent so far.
        replaces: String,
        /// What it pays in all.
        amount_sat: u64,
        /// Its fee.
        old_fee_sat: u64,
        /// The fee as of now, in place of that one.
        fee_sat: u64,
        /// The same for each vbyte, rounded up.
        rate_sat_vb: u64,
        /// The fee that would be paid at most.
        max_fee_sat: u64,
    },
    /// Signed and stored: it is sent until it is in a block.
    Bumped {
        /// The new transaction.
        txid: String,
        /// The one that was sent so far.
        replaces: String,
        /// What both pay in all.
        amount_sat: u64,
        /// The old fee.
        old_fee_sat: u64,
        /// The new fee.
        fee_sat: u64,
        /// The same for each vbyte, rounded up.
        rate_sat_vb: u64,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        match line {
            Line::Quote { replaces, old_fee_sat, fee_sat, rate_sat_vb, max_fee_sat, .. } => screen.text(format_args!(
                "{replaces} for a fee of about {fee_sat} sat ({rate_sat_vb} sat/vB) and at most {max_fee_sat} sat, \
                     in place of {old_fee_sat} sat"
            )),
            Line::Bumped { txid, old_fee_sat, fee_sat, rate_sat_vb, .. } => screen.text(format_args!(
                "Sent again for a fee of {fee_sat} sat ({rate_sat_vb} sat/vB) in place of {old_fee_sat} sat: {txid}"
            )),
        }
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let (wallet, Text(txid)) = (node.driver.wallet(), self.txid);
        let seen = wallet.look_at_bump(txid, self.fee_rate_sat_vb).await.map_err(|e| not_bumped(&e))?;
        let max_fee_sat = fee_limit(self.max_fee_sat, self.max_sat, seen.amount_sat, seen.fee_sat)?;
        if self.dry_run {
            let Bump { amount_sat, old_fee_sat, fee_sat, rate_sat_vb, .. } = seen;
            let replaces = seen.replaces.to_string();
            out.line(Line::Quote { replaces, amount_sat, old_fee_sat, fee_sat, rate_sat_vb, max_fee_sat }).await?;
            return Ok(Done {});
        }
        let bump = wallet.bump(txid, self.fee_rate_sat_vb, max_fee_sat).await.map_err(|e| not_bumped(&e))?;
        let Bump { amount_sat, old_fee_sat, fee_sat, rate_sat_vb, .. } = bump;
        let (txid, replaces) = (bump.txid.map(|txid| txid.to_string()).unwrap_or_default(), bump.replaces.to_string());
        out.line(Line::Bumped { txid, replaces, amount_sat, old_fee_sat, fee_sat, rate_sat_vb }).await?;
        Ok(Done {})
    }

    /// Fees may rise while somebody decides.
    fn agree(&mut self, shown: &Line) {
        if let Line::Quote { max_fee_sat, .. } = shown {
            self.max_fee_sat = Some(*max_fee_sat);
        }
    }
}

impl Args {
    /// The dry run to be agreed to, where nobody has agreed yet.
    pub(in crate::cmd) fn rehearsal(&self) -> Option<Self> {
        (!self.yes && !self.dry_run).then(|| Self { dry_run: true, ..self.clone() })
    }

    /// What was agreed to.
    pub(in crate::cmd) fn in_earnest(self) -> Self {
        Self { dry_run: false, ..self }
    }
}

/// Why the wallet bumps nothing, as its owner is told.
fn not_bumped(error: &BumpError) -> Failure {
    match error {
        BumpError::Unknown => Failure::new(Exit::NotFound, "unknown_transaction", error)
            .hint("pedlar wallet history lists the transactions; only payments that this wallet made can be bumped"),
        BumpError::Confirmed { .. } => Failure::new(Exit::Failure, "confirmed", error),
        BumpError::Rival { .. } => Failure::new(Exit::Failure, "rival", error),
        BumpError::Channel => Failure::new(Exit::Failure, "channel", error),
        BumpError::Spent { .. } => Failure::new(Exit::Failure, "spent", error),
        BumpError::RateTooLow { least_sat_vb } => {
            Failure::usage("rate_too_low", error).hint(format!("--fee-rate {least_sat_vb}, or none"))
        }
        BumpError::AboveCeiling { .. } => Failure::new(Exit::OverLimit, "fee_above_ceiling", error).hint(RAISE_CEILING),
        BumpError::Pay(error) => not_paid(error),
    }
}
