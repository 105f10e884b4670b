//! `pedlar status`: how the node is.

use std::borrow::Cow;
use std::io;

use pedlar_net::Direction::Inbound;
use pedlar_net::PeerInfo;
use pedlar_protocol::account::Direction;
use pedlar_protocol::budget::{DAY, MONTH};
use pedlar_protocol::ledger::LedgerAccount;
use pedlar_protocol::market::Market;
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::offer::Service;
use pedlar_protocol::time::Timestamp;
use pedlar_wallet::{ServerState, ServerStatus, WalletStatus};
use serde::{Deserialize, Serialize};

use super::advice::{self, Reach, Reachable};
use super::up::listening;
use super::{Done, Remote, Verb};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::driver::now;
use crate::failure::Failure;
use crate::node::Node;

/// Show how the node is: its network, its server, what it earned and spent.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Examples:\n  pedlar status\n  pedlar status --json | jq .earned_msat")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {}

/// What `status` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// All of it.
    Status(Box<Status>),
}

/// The node at a glance.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    peer_id: String,
    network: String,
    home: String,
    started: String,
    listen: Vec<String>,
    /// Whether others can reach it: "yes", "no", or "unknown" while they are told where it is and nobody has come.
    reachable: Reachable,
    /// What that rests on, and what to do about it.
    reachable_hint: String,
    /// Height of the newest block known.
    tip: u32,
    servers: Vec<Server>,
    /// Only one is configured: nobody contradicts it.
    single_server: bool,
    /// The chain is still being searched for the coins of restored words.
    restoring: bool,
    /// Connected peers.
    peers: usize,
    /// Offers known.
    offers: usize,
    /// Offers dropped unread since the start, because more came than could be checked.
    offers_dropped: u64,
    /// Absent while nothing is sold.
    #[serde(skip_serializing_if = "Option::is_none")]
    selling: Option<Selling>,
    earned_msat: u64,
    spent_msat: u64,
    topups: Vec<OpenTopUp>,
    budget: Spent,
    /// What keeps the node from its work, and what to do about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    alerts: Vec<Alert>,
}

/// What was spent without a person's word, and what may be.
#[derive(Debug, Serialize, Deserialize)]
struct Spent {
    day_spent_sat: u64,
    day_sat: u64,
    month_spent_sat: u64,
    month_sat: u64,
}

/// Something that the owner is to know.
#[derive(Debug, Serialize, Deserialize)]
struct Alert {
    /// Tells one from another: `journal`, `wallet`.
    code: Cow<'static, str>,
    message: String,
    hint: String,
}

/// An Electrum server.
#[derive(Debug, Serialize, Deserialize)]
struct Server {
    url: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// The height of its chain, as it last said.
    #[serde(skip_serializing_if = "Option::is_none")]
    tip: Option<u32>,
    /// Why it is down, in our words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What to do about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// How things stand with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Up,
    Down,
    Connecting,
    /// Asked when another one fails.
    Standby,
}

/// What is sold.
#[derive(Debug, Serialize, Deserialize)]
struct Selling {
    service: String,
    /// The price of what has none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    price_msat_per_gib: Option<u64>,
    published: usize,
}

/// An advance that is agreed on and does not count yet.
#[derive(Debug, Serialize, Deserialize)]
struct OpenTopUp {
    peer: String,
    /// Whether we are to pay it or to be paid.
    ours: bool,
    amount_sat: u64,
    since: String,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(Line::Status(status): Line, screen: &mut Screen) -> io::Result<()> {
        let mut fact = |name: &str, fact: String| screen.text(format_args!("{name:<10}{fact}"));
        fact("node", format!("{} on {}", status.peer_id, status.network))?;
        fact("home", status.home)?;
        status.listen.iter().try_for_each(|addr| fact("listens", addr.clone()))?;
        fact("reachable", format!("{}: {}", status.reachable.as_str(), status.reachable_hint))?;
        fact("tip", format!("block {}", status.tip))?;
        for server in &status.servers {
            let reason = server.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let hint = server.hint.as_ref().map(|hint| format!("\n{:10}-> {hint}", "")).unwrap_or_default();
            let since = server.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
            let single = if status.single_server { " (single server)" } else { "" };
            fact("server", format!("{} {}{since}{single}{reason}{hint}", server.url, server.state.as_str()))?;
        }
        if status.restoring {
            fact("wallet", "is searching the chain for the coins of the restored words".to_owned())?;
        }
        fact("peers", status.peers.to_string())?;
        let dropped = match status.offers_dropped {
            0 => String::new(),
            dropped => format!(", {dropped} were dropped: more come than this machine can check"),
        };
        fact("offers", format!("{}{dropped}", status.offers))?;
        fact("sells", status.selling.map_or_else(|| "nothing".to_owned(), |selling| selling.to_string()))?;
        fact("earned", Msat::new(status.earned_msat).to_string())?;
        fact("spent", Msat::new(status.spent_msat).to_string())?;
        let Spent { day_spent_sat, day_sat, month_spent_sat, month_sat } = status.budget;
        let month = format!("{month_spent_sat} of {month_sat} sat in 30 days");
        fact("by itself", format!("paid {day_spent_sat} of {day_sat} sat in 24 hours, {month}"))?;
        status.topups.iter().try_for_each(|topup| fact("waits", topup.to_string()))?;
        status.alerts.iter().try_for_each(|alert| fact("alert", format!("{}. {}", alert.message, alert.hint)))
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let peers = node.net.peers().await;
        let wallet = node.driver.wallet().status().borrow().clone();
        let status = node.driver.read(|market| status(node, market, &wallet, &peers, now()));
        out.line(Line::Status(Box::new(status))).await?;
        Ok(Done {})
    }
}

fn status(node: &Node, market: &Market, wallet: &WalletStatus, peers: &[PeerInfo], now: Timestamp) -> Status {
    let ledger = market.ledger();
    // Income is a credit, and credits are negative.
    let amount = |msat: i128| u64::try_from(msat).unwrap_or(0);
    let inbound = peers.iter().filter(|peer| peer.direction == Inbound).count();
    let Reach { is, found, hint } = advice::reach(&node.net.listen_addrs(), &node.config, inbound);
    Status {
        peer_id: market.me().to_string(),
        network: market.network().to_string(),
        home: node.home.home().to_string(),
        started: node.started.to_string(),
        listen: listening(node),
        reachable: is,
        reachable_hint: hint.map_or_else(|| found.clone(), |hint| format!("{found}. {hint}")),
        tip: wallet.tip_height,
        single_server: wallet.servers.len() == 1,
        servers: wallet.servers.iter().map(server).collect(),
        restoring: wallet.restoring,
        peers: peers.len(),
        offers: market.book().live(now).count(),
        offers_dropped: node.net.ignored_messages(),
        selling: selling(market),
        earned_msat: amount(-ledger.balance(LedgerAccount::Income(Service::Chunks))),
        spent_msat: amount(ledger.balance(LedgerAccount::Expense(Service::Chunks))),
        topups: open_topups(market),
        budget: spent(market, now),
        alerts: alerts(node, wallet),
    }
}

fn spent(market: &Market, now: Timestamp) -> Spent {
    let (rows, budget) = (market.spendings(), market.terms().budget);
    Spent {
        day_spent_sat: rows.spent(now, DAY),
        day_sat: budget.day_sat,
        month_spent_sat: rows.spent(now, MONTH),
        month_sat: budget.month_sat,
    }
}

/// What can't be written: both end by themselves.
fn alerts(node: &Node, wallet: &WalletStatus) -> Vec<Alert> {
    let journal = node.driver.store().trouble();
    let journal =
        journal.map(|trouble| ("journal", format!("nothing is sold: the journal can't be written: {trouble}")));
    let wallet = wallet.unwritten.as_ref().map(|trouble| ("wallet", format!("nothing is paid or credited: {trouble}")));
    let hint = format!("Make room on the disk of {}: the node goes on by itself.", node.home.home());
    let alert = |(code, message)| Alert { code: Cow::Borrowed(code), message, hint: hint.clone() };
    journal.into_iter().chain(wallet).map(alert).collect()
}

fn server(status: &ServerStatus) -> Server {
    let (state, fault) = match &status.state {
        ServerState::Up => (State::Up, None),
        ServerState::Standby => (State::Standby, None),
        ServerState::Connecting => (State::Connecting, None),
        ServerState::Down(fault) => (State::Down, Some(fault)),
    };
    Server {
        url: status.url.to_string(),
        state,
        since: status.since_ms.map(|ms| Timestamp::from_ms(ms).to_string()),
        tip: status.tip,
        reason: fault.map(ToString::to_string),
        hint: fault.map(|fault| advice::server(&status.url, fault)),
    }
}

fn selling(market: &Market) -> Option<Selling> {
    let shop = market.shop();
    shop.ceiling()?;
    Some(Selling {
        service: Service::Chunks.to_string(),
        price_msat_per_gib: shop.price().map(Price::msat_per_gib),
        published: shop.goods().count(),
    })
}

fn open_topups(market: &Market) -> Vec<OpenTopUp> {
    let accounts = market.accounts().flat_map(|(peer, direction, account)| {
        account.topups().filter(|line| !line.closed).map(move |line| OpenTopUp {
            peer: peer.to_string(),
            ours: direction == Direction::Bought,
            amount_sat: line.amount_sat,
            since: line.created.to_string(),
        })
    });
    accounts.collect()
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "is up",
            Self::Down => "is down",
            Self::Connecting => "is being connected to",
            Self::Standby => "stands by",
        }
    }
}

impl std::fmt::Display for Selling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} published", self.service, self.published)?;
        self.price_msat_per_gib.map_or(Ok(()), |msat| write!(f, ", {}", Price::per_gib(msat)))
    }
}

impl std::fmt::Display for OpenTopUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { peer, amount_sat, since, .. } = self;
        let (what, whom) = if self.ours { ("our payment", "to") } else { ("a payment", "from") };
        write!(f, "{what} of {amount_sat} sat {whom} {peer}, since {since}")
    }
}
