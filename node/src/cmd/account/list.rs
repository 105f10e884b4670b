//! `pedlar account list`: all accounts.

use std::io;

use pedlar_protocol::money::Msat;
use serde::{Deserialize, Serialize};

use super::{Account, peers};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Remote, Verb};
use crate::driver::now;
use crate::failure::Failure;
use crate::node::Node;

/// List the accounts with other nodes.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar account list")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {}

/// What `account list` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// One account.
    Account(Account),
}

/// All accounts together.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    accounts: usize,
    /// What is left with us and was not served yet.
    prepaid_in_msat: u64,
    /// What we left with others.
    prepaid_out_msat: u64,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(Line::Account(account): Line, screen: &mut Screen) -> io::Result<()> {
        account.row(screen);
        Ok(())
    }

    fn sum_up(summary: Summary, screen: &mut Screen) -> io::Result<()> {
        let [prepaid_in, prepaid_out] = [summary.prepaid_in_msat, summary.prepaid_out_msat].map(Msat::new);
        screen.count(summary.accounts, "account")?;
        screen.text(format_args!("Others have {prepaid_in} left here, we have {prepaid_out} left with others."))
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let accounts: Vec<Account> = node.driver.read(|market| {
            let now = now();
            peers(market).iter().map(|peer| Account::of(market, peer, now)).collect()
        });
        let mut summary = Summary { accounts: accounts.len(), prepaid_in_msat: 0, prepaid_out_msat: 0 };
        for account in accounts {
            let prepaid = |paid: u64, spent| paid.saturating_sub(spent);
            summary.prepaid_in_msat += prepaid(account.sold.paid_msat, account.sold.spent_msat);
            summary.prepaid_out_msat += prepaid(account.bought.paid_msat, account.bought.spent_msat);
            out.line(Line::Account(account)).await?;
        }
        Ok(summary)
    }
}
