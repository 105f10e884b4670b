//! `pedlar wallet history`: what moved.

use std::io;

use pedlar_protocol::time::Timestamp;
use pedlar_wallet::{HistoryEntry, Paid};
use serde::{Deserialize, Serialize};

use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Remote, Verb};
use crate::failure::Failure;
use crate::node::Node;

const HEADINGS: [&str; 5] = ["BLOCK", "TIME", "AMOUNT", "FEE", "TRANSACTION"];

/// List the transactions of the wallet, the newest first.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar wallet history")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {}

/// What `wallet history` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A transaction.
    Tx(Transaction),
}

/// A transaction of the wallet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Transaction {
    txid: String,
    /// To addresses of this wallet, change included.
    received_sat: u64,
    /// From coins of this wallet.
    sent_sat: u64,
    /// Known where all inputs are ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_sat: Option<u64>,
    /// Absent while it is in no block.
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    /// What it pays, where this wallet made it.
    payments: Vec<Payment>,
}

/// One payment of a transaction.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payment {
    /// Stays the same when the payment is bumped.
    id: String,
    address: String,
    amount_sat: u64,
    /// Its part of the transaction's fee.
    fee_sat: u64,
}

/// How many there are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    transactions: usize,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(Line::Tx(tx): Line, screen: &mut Screen) -> io::Result<()> {
        let net = i128::from(tx.received_sat) - i128::from(tx.sent_sat);
        let height = tx.height.map_or_else(|| "pending".to_owned(), |height| height.to_string());
        let fee = tx.fee_sat.map(|sat| format!("{sat} sat")).unwrap_or_default();
        screen.row(HEADINGS, [height, tx.time.unwrap_or_default(), format!("{net:+} sat"), fee, tx.txid]);
        // One payment is what the row says; several are told one by one.
        let several = if tx.payments.len() > 1 { tx.payments } else { Vec::new() };
        for Payment { address, amount_sat, .. } in several {
            let to = format!("  to {address}");
            let cells = [String::new(), String::new(), format!("-{amount_sat} sat"), String::new(), to];
            screen.row(HEADINGS, cells);
        }
        Ok(())
    }

    fn sum_up(Summary { transactions }: Summary, screen: &mut Screen) -> io::Result<()> {
        screen.count(transactions, "transaction")
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let history = node.driver.wallet().history().await.map_err(Failure::system)?;
        for entry in &history {
            out.line(Line::Tx(Transaction::from(entry))).await?;
        }
        Ok(Summary { transactions: history.len() })
    }
}

impl From<&HistoryEntry> for Transaction {
    fn from(entry: &HistoryEntry) -> Self {
        Self {
            txid: entry.txid.to_string(),
            received_sat: entry.received_sat,
            sent_sat: entry.sent_sat,
            fee_sat: entry.fee_sat,
            height: entry.height,
            time: entry.time_ms.map(|ms| Timestamp::from_ms(ms).to_string()),
            payments: entry.payments.iter().map(Payment::from).collect(),
        }
    }
}

impl From<&Paid> for Payment {
    fn from(paid: &Paid) -> Self {
        Self { id: paid.id.to_string(), address: paid.address.to_string(), amount_sat: paid.sat, fee_sat: paid.fee_sat }
    }
}
