//! `pedlar verify`: what an evidence file proves, to anybody.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

use pedlar_protocol::evidence::Proven;
use pedlar_protocol::money::Msat;
use serde::{Deserialize, Serialize};

use super::Verb;
use crate::cli::screen::Screen;
use crate::evidence::{self, Checked, FileError};
use crate::failure::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  pedlar verify account.evidence
  pedlar verify account.evidence --json | tail -n 1

Needs no node and no home. Signatures, prices and charges are checked, and that each transaction pays the address that the
seller signed; whether it is in the chain, and how deep, any block explorer or node says: look up its id.";

/// Verify a file of `pedlar account export`: what was sold, signed for and paid.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file.
    file: PathBuf,
}

/// What `verify` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// What the file says of itself.
    Evidence {
        /// Who wrote it.
        node: String,
        /// With whom its account is.
        peer: String,
    },
    /// Signed for by the buyer, under a price that the seller signed.
    Sale {
        /// Who sold.
        seller: String,
        /// Who bought.
        buyer: String,
        /// The quote.
        quote: String,
        /// Its price.
        price_msat_per_gib: u64,
        /// What was signed for.
        bytes: u64,
        /// What it costs.
        charged_msat: u64,
    },
    /// An address that the seller gave the buyer.
    Topup {
        /// Who sold.
        seller: String,
        /// Who bought.
        buyer: String,
        /// Where to pay.
        address: String,
    },
    /// A transaction that pays to such an address.
    Payment {
        /// Who sold.
        seller: String,
        /// Who bought.
        buyer: String,
        /// The transaction.
        txid: String,
        /// Its output.
        vout: u32,
        /// How much.
        sat: u64,
        /// The block in which the file says that it is, 0 for none: not proven here.
        height: u64,
    },
    /// A gift of the seller.
    Grant {
        /// Who gave.
        seller: String,
        /// Who got.
        buyer: String,
        /// How much.
        msat: u64,
    },
    /// What the file says and does not prove.
    Unproven {
        /// In words.
        what: String,
        /// How much.
        msat: u64,
    },
    /// All that is proven between two nodes.
    Proven {
        /// Who sold.
        seller: String,
        /// Who bought.
        buyer: String,
        /// Signed for.
        charged_msat: u64,
        /// Paid, where the chain has the transactions.
        paid_msat: u64,
        /// Given.
        granted_msat: u64,
    },
}

/// All that is proven.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    charged_msat: u64,
    paid_msat: u64,
    granted_msat: u64,
    unproven_msat: u64,
    records: usize,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        match line {
            Line::Evidence { node, peer } => {
                screen.text(format_args!("Evidence of {node} about its account with {peer}"))
            }
            Line::Sale { seller, price_msat_per_gib, bytes, charged_msat, .. } => screen.text(format_args!(
                "sold by {seller}: {bytes} bytes signed for, at {} per GiB: {}",
                Msat::new(price_msat_per_gib),
                Msat::new(charged_msat)
            )),
            Line::Topup { seller, address, .. } => screen.text(format_args!("{seller} is to be paid at {address}")),
            Line::Payment { seller, txid, vout, sat, height, .. } => {
                screen.text(format_args!("{sat} sat to {seller} in {txid}:{vout}, said to be in block {height}"))
            }
            Line::Grant { seller, msat, .. } => screen.text(format_args!("{seller} gave {}", Msat::new(msat))),
            Line::Unproven { what, msat } => screen.text(format_args!("not proven: {what}, {}", Msat::new(msat))),
            Line::Proven { seller, buyer, charged_msat, paid_msat, granted_msat } => {
                let [charged, paid, granted] = [charged_msat, paid_msat, granted_msat].map(Msat::new);
                screen.text(format_args!(
                    "PROVEN: {buyer} signed for {charged} of {seller}, paid {paid} and was given {granted}"
                ))
            }
        }
    }

    fn sum_up(summary: Summary, screen: &mut Screen) -> io::Result<()> {
        let unproven = Msat::new(summary.unproven_msat);
        screen.text(format_args!("All {} records are right; {unproven} are said and not proven.", summary.records))
    }
}

/// Verifies a file.
///
/// # Errors
/// [`Exit::Integrity`] at the first record that is forged or does not fit; [`Exit::Usage`] for what is no such file.
pub(crate) fn perform(args: &Args, screen: &mut Screen) -> Result<(), Failure> {
    let unreadable = |error| Failure::usage("unreadable", format!("{} can't be read: {error}", args.file.display()));
    let mut file = BufReader::new(File::open(&args.file).map_err(unreadable)?);
    let mut summary = Summary::default();
    let evidence = evidence::check(&mut file, |checked| {
        summary.records += 1;
        if let Checked::Unproven { msat, .. } = &checked {
            summary.unproven_msat = summary.unproven_msat.saturating_add(*msat);
        }
        screen.line::<Args>(line_of(checked))
    })?;
    for (seller, buyer, Proven { charged, paid, granted }) in evidence.proven() {
        let sum = |total: &mut u64, part: &Msat| *total = total.saturating_add(part.msat());
        sum(&mut summary.charged_msat, charged);
        sum(&mut summary.paid_msat, paid);
        sum(&mut summary.granted_msat, granted);
        screen.line::<Args>(Line::Proven {
            seller: seller.to_string(),
            buyer: buyer.to_string(),
            charged_msat: charged.msat(),
            paid_msat: paid.msat(),
            granted_msat: granted.msat(),
        })?;
    }
    screen.summary::<Args>(summary)
}

fn line_of(checked: Checked) -> Line {
    match checked {
        Checked::Heading { node, peer } => Line::Evidence { node, peer },
        Checked::Sale(sale) => {
            let quote = sale.quote.quote();
            Line::Sale {
                seller: quote.seller.to_string(),
                buyer: quote.buyer.to_string(),
                quote: sale.quote.id().to_string(),
                price_msat_per_gib: quote.price.msat_per_gib(),
                bytes: sale.units,
                charged_msat: sale.charged.msat(),
            }
        }
        Checked::TopUp { seller, buyer, address } => {
            Line::Topup { seller: seller.to_string(), buyer: buyer.to_string(), address }
        }
        Checked::Payment { seller, buyer, txid, vout, sat, height } => {
            Line::Payment { seller: seller.to_string(), buyer: buyer.to_string(), txid, vout, sat, height }
        }
        Checked::Grant { seller, buyer, msat } => {
            Line::Grant { seller: seller.to_string(), buyer: buyer.to_string(), msat }
        }
        Checked::Unproven { what, msat } => Line::Unproven { what, msat },
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Read(_) => Self::system(error),
            FileError::NoEvidence | FileError::TooLong => {
                Self::usage("no_evidence", error).hint("name a file that `pedlar account export` made")
            }
            FileError::Newer(_) => Self::new(Exit::Failure, "newer", error).hint("use a program that is as new"),
            FileError::Line { .. } => Self::new(Exit::Integrity, "bad_evidence", error)
                .hint("the file is not as a node wrote it: ask for another copy, or believe none of it"),
        }
    }
}
