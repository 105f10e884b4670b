//! `pedlar account …`: how this node stands with others.

pub(super) mod block;
pub(super) mod export;
pub(super) mod list;
pub(super) mod pay;
pub(super) mod show;

use std::collections::BTreeSet;

use pedlar_net::PeerId;
use pedlar_protocol::account::{Direction, Tab};
use pedlar_protocol::market::Market;
use pedlar_protocol::money::Msat;
use pedlar_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cli::screen::Screen;

/// What can be done with accounts.
#[derive(Debug, Clone, clap::Subcommand, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Request {
    List(list::Args),
    Show(show::Args),
    Pay(pay::Args),
    Block(block::Args),
    Unblock(block::UnblockArgs),
    Export(export::Args),
}

/// How this node stands with one other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    peer: String,
    /// What it is to us as a buyer.
    standing: String,
    /// Why.
    reason: String,
    /// Since when it is blocked, in default or past due.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// What the owner noted about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    sold: Sold,
    bought: Bought,
}

/// What it bought from us.
#[derive(Debug, Serialize, Deserialize)]
struct Sold {
    paid_msat: u64,
    spent_msat: u64,
    held_msat: u64,
    allowance_msat: u64,
}

/// What we bought from it.
#[derive(Debug, Serialize, Deserialize)]
struct Bought {
    paid_msat: u64,
    spent_msat: u64,
    held_msat: u64,
}

impl Account {
    fn of(market: &Market, peer: &PeerId, now: Timestamp) -> Self {
        let tab = |direction| market.account(peer, direction).map_or_else(Tab::default, |account| account.tab());
        let (sold, bought) = (tab(Direction::Sold), tab(Direction::Bought));
        let (standing, block) = (market.standing(peer, now), market.block_of(peer));
        Self {
            peer: peer.to_string(),
            standing: standing.as_str().to_owned(),
            reason: standing.reason().to_owned(),
            since: standing.since().map(|since| since.to_string()),
            note: block.and_then(|block| block.note.as_ref()).map(|note| note.as_str().to_owned()),
            sold: Sold {
                paid_msat: sold.paid.msat(),
                spent_msat: sold.spent.msat(),
                held_msat: sold.held.msat(),
                allowance_msat: market.allowance(peer, now).msat(),
            },
            bought: Bought {
                paid_msat: bought.paid.msat(),
                spent_msat: bought.spent.msat(),
                held_msat: bought.held.msat(),
            },
        }
    }

    fn row(self, screen: &mut Screen) {
        let [sold_paid, sold_spent, bought_paid, bought_spent] =
            [self.sold.paid_msat, self.sold.spent_msat, self.bought.paid_msat, self.bought.spent_msat]
                .map(|msat| Msat::new(msat).to_string());
        screen.row(
            ["PEER", "STANDING", "PAID US", "FOR", "WE PAID", "FOR"],
            [self.peer, self.standing, sold_paid, sold_spent, bought_paid, bought_spent],
        );
    }
}

/// Everybody with whom there is an account in either direction.
fn peers(market: &Market) -> BTreeSet<PeerId> {
    market.accounts().map(|(peer, _, _)| *peer).collect()
}
