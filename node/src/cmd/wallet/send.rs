//! `pedlar wallet send`: pays coins to any address.

use std::io;

use pedlar_wallet::{PaymentId, Terms};
use serde::{Deserialize, Serialize};

use super::{fee_limit, not_paid};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Text, Verb};
use crate::config::sat;
use crate::failure::Failure;
use crate::node::Node;

const EXAMPLES: &str = "\
Examples:
  pedlar wallet send tb1q… 50000sat
  pedlar wallet send tb1q… 50000sat --max 50300sat --yes
  pedlar wallet send --to tb1q…=50000sat --to tb1p…=7000sat

A command that was not answered, because the node ended, tells an id: with --id it is repeated, and pays nothing twice.";

/// Send coins to an address, or to several with one transaction; the fee comes on top.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Where to.
    #[arg(requires = "amount_sat", required_unless_present = "to")]
    address: Option<String>,
    /// How much, in whole sat.
    #[arg(value_name = "AMOUNT", value_parser = sat)]
    amount_sat: Option<u64>,
    /// Where to and how much; given several times, all are paid with one transaction, or none.
    #[arg(long, value_name = "ADDRESS=AMOUNT", value_parser = payee, conflicts_with = "address")]
    #[serde(default)]
    to: Vec<(String, u64)>,
    /// All that may be spent, the fee included.
    #[arg(long = "max", value_name = "AMOUNT", value_parser = sat)]
    max_sat: Option<u64>,
    /// Pay no fee above this; by default twice the estimate.
    #[arg(long = "max-fee", value_name = "AMOUNT", value_parser = sat)]
    max_fee_sat: Option<u64>,
    /// Repeat a command that was not answered, by the id that it told: what it has paid is not paid again.
    #[arg(long, value_name = "HEX")]
    #[serde(default)]
    id: Option<Text<blake3::Hash>>,
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
    /// What one payment would be.
    Payee {
        /// Where to.
        address: String,
        /// How much arrives.
        amount_sat: u64,
    },
    /// What all would cost.
    Quote {
        /// How much arrives.
        amount_sat: u64,
        /// The fee as of now.
        fee_sat: u64,
        /// The fee that would be paid at most.
        max_fee_sat: u64,
    },
    /// A payment, signed and stored: it is sent until it is in a block.
    Sent {
        /// The transaction.
        txid: String,
        /// The payment, which stays the same when its transaction is replaced by a dearer one.
        id: String,
        /// Where to.
        address: String,
        /// How much arrives.
        amount_sat: u64,
        /// Its part of the transaction's fee.
        fee_sat: u64,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        match line {
            Line::Payee { address, amount_sat } => screen.text(format_args!("{amount_sat} sat to {address}")),
            Line::Quote { amount_sat, fee_sat, max_fee_sat } => screen.text(format_args!(
                "{amount_sat} sat in all, for a fee of about {fee_sat} sat and at most {max_fee_sat} sat"
            )),
            Line::Sent { txid, address, amount_sat, fee_sat, .. } => {
                screen.text(format_args!("Sent {amount_sat} sat to {address} for a fee of {fee_sat} sat: {txid}"))
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
        let terms = self.terms(node)?;
        let amounts: Vec<u64> = terms.iter().map(|to| to.sat).collect();
        let amount_sat = amounts.iter().fold(0, |sum: u64, sat| sum.saturating_add(*sat));
        let fee_sat = wallet.estimate_batch_fee(amounts).await.map_err(Failure::system)?;
        let max_fee_sat = fee_limit(self.max_fee_sat, self.max_sat, amount_sat, fee_sat)?;
        if self.dry_run {
            for to in terms {
                out.line(Line::Payee { address: to.address.to_string(), amount_sat: to.sat }).await?;
            }
            out.line(Line::Quote { amount_sat, fee_sat, max_fee_sat }).await?;
            return Ok(Done {});
        }
        for payment in wallet.pay_all(terms, max_fee_sat).await.map_err(|e| not_paid(&e))? {
            let txid = payment.txid.map(|txid| txid.to_string()).unwrap_or_default();
            let (id, address) = (payment.id.to_string(), payment.address.to_string());
            let (amount_sat, fee_sat) = (payment.sat, payment.fee_sat.unwrap_or(0));
            out.line(Line::Sent { txid, id, address, amount_sat, fee_sat }).await?;
        }
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

    /// The same under an id, drawn on the client's side: it is known whatever becomes of the node.
    pub(in crate::cmd) fn named(mut self) -> Result<Self, Failure> {
        if self.id.is_none() {
            self.id = Some(Text(drawn()?));
        }
        Ok(self)
    }

    /// What to do where the node was gone before it had answered.
    pub(in crate::cmd) fn unanswered(&self, failure: Failure) -> Failure {
        match &self.id {
            Some(Text(id)) if failure.is_unanswered() => {
                failure.hint(format!("start it, and repeat the command with --id {id}: nothing is paid twice"))
            }
            _ => failure,
        }
    }

    /// What is to be paid; each has an id of its own, which follows from the command's.
    fn terms(&self, node: &Node) -> Result<Vec<Terms>, Failure> {
        let id = self.id.as_ref().map_or_else(drawn, |Text(id)| Ok(*id))?;
        let single = self.address.clone().zip(self.amount_sat);
        let terms = |((address, sat), place): ((String, u64), u64)| {
            let address = node.driver.network().parse_address(&address).map_err(|e| Failure::usage("address", e))?;
            let id = if place == 0 { id } else { blake3::keyed_hash(id.as_bytes(), &place.to_le_bytes()) };
            Ok(Terms { id: PaymentId(id.into()), address, sat })
        };
        single.into_iter().chain(self.to.clone()).zip(0..).map(terms).collect()
    }
}

fn drawn() -> Result<blake3::Hash, Failure> {
    let mut id = [0; 32];
    getrandom::fill(&mut id).map_err(Failure::system)?;
    Ok(id.into())
}

/// `ADDRESS=AMOUNT`.
fn payee(text: &str) -> Result<(String, u64), String> {
    let (address, amount) = text.rsplit_once('=').ok_or("expected ADDRESS=AMOUNT, such as tb1q…=50000sat")?;
    Ok((address.to_owned(), sat(amount).map_err(|e| e.to_string())?))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_was_shown_is_the_most_that_is_paid() {
        let Typed { args } = Typed::parse_from(["send", "tb1q", "5000sat"]);
        let mut rehearsal = args.rehearsal().unwrap();
        assert!(rehearsal.dry_run && rehearsal.max_fee_sat.is_none());
        rehearsal.agree(&Line::Quote { amount_sat: 5_000, fee_sat: 150, max_fee_sat: 300 });
        let agreed = rehearsal.in_earnest();
        assert!(!agreed.dry_run);
        assert_eq!(fee_limit(agreed.max_fee_sat, agreed.max_sat, 5_000, 9_000).unwrap(), 300, "whatever a fee is now");
    }

    #[test]
    fn a_command_that_was_not_answered_tells_how_it_is_repeated() {
        let args = |line: &str| Typed::parse_from(line.split(' ')).args;
        let named = args("send bcrt1q0 5000sat --yes").named().unwrap();
        let Some(Text(id)) = named.id else { panic!("no id") };
        let hint = named.unanswered(Failure::unanswered()).hint.unwrap();
        assert!(hint.contains(&format!("--id {id}")), "{hint}");
        let again = args(&format!("send bcrt1q0 5000sat --yes --id {id}")).named().unwrap();
        assert_eq!(again.id, Some(Text(id)), "the same name");
        assert_ne!(args("send bcrt1q0 5000sat").named().unwrap().id, Some(Text(id)), "another command has another one");
        assert_eq!(named.unanswered(Failure::system("no")).hint, None);
    }
}
