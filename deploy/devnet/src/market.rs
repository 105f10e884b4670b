//! The market: a chain, its server, sellers and a buyer, and coins for them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bitcoin::Amount;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::chain::Chain;
use crate::control;
use crate::electrum::ElectrumServer;
use crate::node::{Home, Node};
use crate::screen::Screen;

/// Coins of each node, in sat, and how few are as good: homes on a real server keep theirs from one market to the next.
const FUNDS_SAT: u64 = 1_000_000;
const ENOUGH_SAT: u64 = FUNDS_SAT / 2;

/// The smallest payment of coins, in sat: less may be dust.
const LEAST_SAT: u64 = 10_000;

/// How long coins, offers and a confirmation may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// How often a condition is looked at that no event tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How a market is set up.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What a node runs.
    pub program: PathBuf,
    /// Where all homes are.
    pub dir: PathBuf,
    /// How many nodes; the last one buys.
    pub nodes: usize,
    /// What the first seller asks, in sat per GiB; each further one asks 10 % more.
    pub price_sat: u64,
    /// A real server instead of the embedded chain.
    pub electrum: Option<String>,
    /// Time between blocks of the embedded chain.
    pub block_interval: Duration,
}

/// A market that is up.
pub struct Market {
    /// How it was set up.
    pub plan: Plan,
    /// The chain, where it is our own.
    pub chain: Option<Chain>,
    /// The server's URL.
    pub electrum: String,
    /// The network that the nodes trade on.
    pub network: String,
    /// Sellers first, the buyer last.
    pub nodes: Vec<Node>,
    server: Option<ElectrumServer>,
    miner: Option<JoinHandle<()>>,
    control: JoinHandle<()>,
}

impl Market {
    /// Brings up the chain and the nodes. Where the chain is its own, their wallets have coins then; the coins of a real
    /// server come from outside, see [`Market::fund`].
    ///
    /// # Errors
    /// What is in the way.
    pub async fn start(plan: &Plan, screen: Screen) -> Result<Self> {
        let (chain, server, electrum) = match &plan.electrum {
            Some(url) => (None, None, url.clone()),
            None => {
                refuse_old_homes(plan)?;
                let chain = Chain::new(plan.dir.to_string_lossy().as_bytes());
                let server = ElectrumServer::spawn(chain.clone(), "127.0.0.1:0").await?;
                let url = server.url();
                (Some(chain), Some(server), url)
            }
        };
        let control = control::listen(&plan.dir, chain.clone()).await?;
        let network_id = chain.as_ref().map(Chain::network_id);
        let mut nodes: Vec<Node> = Vec::new();
        for name in names(plan.nodes) {
            screen.say(format_args!("starting {name}"));
            let home = Home::new(&plan.program, &plan.dir, &name);
            if !home.dir.exists() {
                home.init(&electrum, network_id.as_deref()).await?;
            }
            let bootstrap = nodes.first().map(|node| node.listen.clone()).unwrap_or_default();
            nodes.push(Node::start(home, 0, &bootstrap).await?);
        }
        let first = nodes.first().context("a market without nodes")?;
        let status = first.home.one(&["status"], "status").await?;
        let network = status["network"].as_str().context("a node without a network")?.to_owned();
        let plan = plan.clone();
        let mut market = Self { plan, chain, electrum, network, nodes, server, miner: None, control };
        if let Some(chain) = market.chain.clone() {
            market.fund(screen).await?;
            market.miner = Some(tokio::spawn(mine(chain, market.plan.block_interval)));
        }
        Ok(market)
    }

    /// The nodes that sell.
    #[must_use]
    pub fn sellers(&self) -> &[Node] {
        self.nodes.split_last().map_or(&[], |(_, sellers)| sellers)
    }

    /// The node that buys.
    ///
    /// # Errors
    /// When there is none.
    pub fn buyer(&self) -> Result<&Node> {
        self.nodes.last().context("a market without a buyer")
    }

    /// The line that says that the market is up.
    #[must_use]
    pub fn ready(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| {
            json!({ "name": node.home.name, "home": node.home.dir, "peer_id": node.peer_id, "listen": node.listen })
        });
        json!({
            "type": "ready",
            "network": self.network,
            "electrum": self.electrum,
            "nodes": nodes.collect::<Vec<_>>(),
        })
    }

    /// Sees to it that each wallet has coins; with a real server, says what to pay where and waits for the buyer alone.
    ///
    /// # Errors
    /// When a wallet can't be asked, or coins of our own chain do not arrive in time.
    pub async fn fund(&self, screen: Screen) -> Result<()> {
        self.provide(&self.nodes, ENOUGH_SAT, FUNDS_SAT, screen).await
    }

    /// Sees to it that the buyer has so much, however it comes to it.
    ///
    /// # Errors
    /// As [`Market::fund`].
    pub async fn fund_buyer(&self, sat: u64, screen: Screen) -> Result<()> {
        self.provide(std::slice::from_ref(self.buyer()?), sat, sat, screen).await
    }

    /// Takes everything down in order, the buyer first.
    ///
    /// # Errors
    /// The first thing that did not end as it should; the rest is ended all the same.
    pub async fn stop(self) -> Result<()> {
        let mut outcome = Ok(());
        for node in self.nodes.into_iter().rev() {
            outcome = outcome.and(node.stop().await);
        }
        [self.miner, Some(self.control)].into_iter().flatten().for_each(|task| task.abort());
        if let Some(server) = self.server {
            server.shutdown().await;
        }
        outcome
    }

    /// Brings each of these nodes that has less than `enough_sat` in blocks to `sat`.
    async fn provide(&self, nodes: &[Node], enough_sat: u64, sat: u64, screen: Screen) -> Result<()> {
        let mut poor = Vec::new();
        for node in nodes {
            let have = confirmed(node).await?;
            if have < enough_sat {
                self.pay_or_ask(node, sat.saturating_sub(have).max(LEAST_SAT), screen).await?;
                poor.push(node);
            }
        }
        let Some(chain) = &self.chain else {
            return self.wait_for_others(enough_sat, screen).await;
        };
        if !poor.is_empty() {
            chain.mine_to_self(1);
        }
        for node in poor {
            until("the coins to arrive", async || Ok((confirmed(node).await? >= enough_sat).then_some(()))).await?;
        }
        Ok(())
    }

    /// Waits until somebody has paid the buyer: as long as that takes, while sellers sell without a coin.
    async fn wait_for_others(&self, sat: u64, screen: Screen) -> Result<()> {
        let buyer = self.buyer()?;
        if confirmed(buyer).await? < sat {
            screen.say(format_args!("waiting until the buyer has {sat} sat in blocks; Ctrl-C ends it"));
        }
        let have = looked_for(async || Ok(Some(confirmed(buyer).await?).filter(|have| *have >= sat))).await?;
        screen.line(&json!({ "type": "funded", "name": buyer.home.name, "sat": have }));
        Ok(())
    }

    /// Pays coins of our chain to a node; with a real server, says where others are to pay them.
    async fn pay_or_ask(&self, node: &Node, sat: u64, screen: Screen) -> Result<()> {
        let answer = node.home.one(&["wallet", "receive"], "address").await?;
        let address = answer["address"].as_str().context("no address")?;
        match &self.chain {
            Some(chain) => drop(chain.fund(&control::regtest(address)?, Amount::from_sat(sat))?),
            None => {
                let name = &node.home.name;
                screen.say(format_args!("pay {sat} sat to {address} ({name})"));
                screen.line(&json!({ "type": "fund", "name": name, "address": address, "sat": sat }));
            }
        }
        Ok(())
    }
}

/// What a node can spend, in sat.
async fn confirmed(node: &Node) -> Result<u64> {
    let balance = node.home.one(&["wallet", "balance"], "balance").await?;
    balance["confirmed_sat"].as_u64().context("a balance without coins")
}

/// The embedded chain lives as long as this program: wallets of an earlier one would wait for coins that are no more.
fn refuse_old_homes(plan: &Plan) -> Result<()> {
    let old = names(plan.nodes).into_iter().find(|name| plan.dir.join(name).exists());
    let dir = plan.dir.display();
    ensure!(old.is_none(), "{dir} holds homes of an earlier market, whose chain is gone: name an empty folder");
    Ok(())
}

fn names(nodes: usize) -> Vec<String> {
    let sellers = (1..nodes).map(|number| format!("seller-{number}"));
    sellers.chain(["buyer".to_owned()]).collect()
}

async fn mine(chain: Chain, every: Duration) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        chain.mine_to_self(1);
    }
}

/// Looks at a condition again and again until it holds, or the time is over.
pub(crate) async fn until<T>(what: &str, holds: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    timeout(DEADLINE, looked_for(holds)).await.with_context(|| format!("waited {:?} for {what}", begun.elapsed()))?
}

/// Looks at a condition again and again until it holds.
async fn looked_for<T>(mut holds: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    loop {
        if let Some(value) = holds().await? {
            return Ok(value);
        }
        sleep(LOOK_AGAIN).await;
    }
}
