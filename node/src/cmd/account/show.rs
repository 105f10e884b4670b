//! `pedlar account show`: one account, with the money behind it.

use std::io;

use pedlar_net::PeerId;
use pedlar_protocol::account::{Direction, Payment, TopUpLine};
use pedlar_protocol::money::Msat;
use pedlar_protocol::text::escape;
use serde::{Deserialize, Serialize};

use super::{Account, peers};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Text, Verb};
use crate::driver::now;
use crate::failure::{Exit, Failure};
use crate::node::Node;

/// Show the account with one node: counters, advances, payments.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar account show 12D3Koo…")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The node.
    peer: Text<PeerId>,
}

/// What `account show` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The account.
    Account(Account),
    /// An advance that was agreed on.
    Topup {
        /// Its name.
        id: String,
        /// Whether we pay it.
        ours: bool,
        /// How much was agreed on.
        amount_sat: u64,
        /// When.
        created: String,
        /// Whether a payment is still expected.
        open: bool,
    },
    /// An output that pays under an advance.
    Payment {
        /// Transaction and index.
        outpoint: String,
        /// Whether we paid it.
        ours: bool,
        /// How much.
        amount_sat: u64,
        /// Blocks on top, its own counted.
        depth: u32,
        /// The depth at which it counts.
        needed: u32,
        /// Whether it counts.
        credited: bool,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        match line {
            Line::Account(account) => {
                screen.text(format_args!("{} is a {} node: {}", account.peer, account.standing, account.reason))?;
                if let Some(since) = &account.since {
                    let note = account.note.as_deref().unwrap_or_default();
                    screen.text(format_args!("{} since {since} {}", account.standing, escape(note)))?;
                }
                let [held_in, allowance, held_out] =
                    [account.sold.held_msat, account.sold.allowance_msat, account.bought.held_msat].map(Msat::new);
                screen.text(format_args!("held: {held_in} here, {held_out} there; its credit line: {allowance}"))?;
                account.row(screen);
                Ok(())
            }
            Line::Topup { id, ours, amount_sat, created, open } => {
                let whose = if ours { "our" } else { "its" };
                let state = if open { "open" } else { "closed" };
                screen.text(format_args!("{whose} advance of {amount_sat} sat, {state}, of {created} ({id})"))
            }
            Line::Payment { outpoint, ours, amount_sat, depth, needed, credited } => {
                let whose = if ours { "our" } else { "its" };
                let state = if credited { "counts".to_owned() } else { format!("counts at depth {needed}") };
                screen.text(format_args!("{whose} payment of {amount_sat} sat, {depth} deep, {state} ({outpoint})"))
            }
        }
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let Text(peer) = self.peer;
        let lines = node.driver.read(|market| {
            peers(market).contains(&peer).then(|| {
                let mut lines = vec![Line::Account(Account::of(market, &peer, now()))];
                for direction in [Direction::Sold, Direction::Bought] {
                    let ours = direction == Direction::Bought;
                    let account = market.account(&peer, direction).into_iter();
                    lines.extend(account.clone().flat_map(|account| account.topups()).map(|line| topup(line, ours)));
                    lines.extend(account.flat_map(|account| account.payments()).map(|line| payment(line, ours)));
                }
                lines
            })
        });
        let unknown = || Failure::new(Exit::NotFound, "no_account", format!("there is no account with {peer}"));
        for line in lines.ok_or_else(unknown)? {
            out.line(line).await?;
        }
        Ok(Done {})
    }
}

fn topup(line: &TopUpLine, ours: bool) -> Line {
    let (id, created) = (line.id.to_string(), line.created.to_string());
    Line::Topup { id, ours, amount_sat: line.amount_sat, created, open: !line.closed }
}

fn payment(payment: &Payment, ours: bool) -> Line {
    Line::Payment {
        outpoint: payment.outpoint.to_string(),
        ours,
        amount_sat: payment.amount_sat,
        depth: payment.depth,
        needed: payment.needed,
        credited: payment.is_credited(),
    }
}
