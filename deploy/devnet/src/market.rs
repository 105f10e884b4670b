//! The market: a chain, its server, sellers and a buyer, and the purchase that shows that all of it works.

use std::io::Read;
use std::path::{Path, PathBuf};
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

/// Coins of each node, in sat.
const FUNDS_SAT: u64 = 1_000_000;

/// What the first seller asks, in sat per GiB; each further one asks 10 % more.
const PRICE_SAT: u64 = 7_000;

/// What the buyer pays in advance, in sat.
const ADVANCE_SAT: u64 = 5_000;

/// How long coins, offers and a confirmation may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// How often a condition is looked at that no event tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Bytes of the sample: four of the largest windows.
const SAMPLE_LEN: u64 = 64 << 20;

/// How a market is set up.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What a node runs.
    pub program: PathBuf,
    /// Where all homes are.
    pub dir: PathBuf,
    /// How many nodes; the last one buys.
    pub nodes: usize,
    /// A real server instead of the embedded chain.
    pub electrum: Option<String>,
    /// Time between blocks of the embedded chain.
    pub block_interval: Duration,
}

/// A market that is up.
pub struct Market {
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
    control: Option<JoinHandle<()>>,
}

impl Market {
    /// Brings up the chain and the nodes, and funds the wallets.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn start(plan: &Plan, say: &dyn Fn(&str)) -> Result<Self> {
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
        let control = chain.clone().map(|chain| control::listen(&plan.dir, chain)).transpose()?;
        let network_id = chain.as_ref().map(Chain::network_id);
        let mut nodes: Vec<Node> = Vec::new();
        for name in names(plan.nodes) {
            say(&format!("starting {name}"));
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
        let mut market = Self { chain, electrum, network, nodes, server, miner: None, control };
        market.fund(say).await?;
        market.miner = market.chain.clone().map(|chain| tokio::spawn(mine(chain, plan.block_interval)));
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

    /// Publishes a file at each seller, the first the cheapest; its link.
    ///
    /// # Errors
    /// What a seller says.
    pub async fn publish(&self, file: &Path) -> Result<String> {
        let path = file.to_string_lossy();
        let mut link = None;
        for (place, seller) in (0_u64..).zip(self.sellers()) {
            let price = format!("{}sat/GiB", PRICE_SAT + place * PRICE_SAT / 10);
            let published = seller.home.one(&["publish", &path, "--price", &price], "published").await?;
            link = published["link"].as_str().map(str::to_owned);
        }
        link.context("a market without a seller")
    }

    /// Waits until the buyer knows an offer of each seller.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn offers(&self) -> Result<Vec<Value>> {
        let buyer = self.buyer()?;
        let all = self.sellers().len();
        until("the offers to arrive", async || {
            let mut offers = buyer.home.ask(&["market", "chunks"]).await?;
            offers.retain(|line| line["type"] == "offer");
            Ok((offers.len() >= all).then_some(offers))
        })
        .await
    }

    /// Buys the link as a stranger: paid in advance, downloaded, verified; the summary of `get`.
    ///
    /// # Errors
    /// What `get` says.
    pub async fn purchase(&self, link: &str, dest: &Path, mut hear: impl FnMut(&Value)) -> Result<Value> {
        let dest = dest.to_string_lossy();
        let advance = format!("{ADVANCE_SAT}sat");
        let mut summary = Value::Null;
        let verb = ["get", link, "-o", &dest, "--prepay", &advance, "--yes"];
        self.buyer()?
            .home
            .follow(&verb, |line| {
                hear(&line);
                summary = line;
            })
            .await?;
        ensure!(summary["type"] == "summary", "the purchase ended without a summary");
        Ok(summary)
    }

    /// Holds the books of a seller and the buyer side by side, until they agree or the time is over.
    ///
    /// # Errors
    /// When they do not agree, with both.
    pub async fn books(&self, seller_id: &str) -> Result<(Value, Value)> {
        let buyer = self.buyer()?;
        let seller = self.nodes.iter().find(|node| node.peer_id == seller_id).context("bought from a stranger")?;
        let mut last = (Value::Null, Value::Null);
        let agreed = until("the books to agree", async || {
            let sold = seller.home.one(&["account", "show", &buyer.peer_id], "account").await?["sold"].clone();
            let bought = buyer.home.one(&["account", "show", &seller.peer_id], "account").await?["bought"].clone();
            let agree = ["paid_msat", "spent_msat"].iter().all(|field| sold[field] == bought[field]);
            last = (sold, bought);
            Ok(agree.then(|| last.clone()))
        })
        .await;
        agreed.with_context(|| {
            format!("the books differ: {} sells {}, the buyer has {}", seller.home.name, last.0, last.1)
        })
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
        [self.miner, self.control].into_iter().flatten().for_each(|task| task.abort());
        if let Some(server) = self.server {
            server.shutdown().await;
        }
        outcome
    }

    /// Pays coins to each wallet and waits until they are there; with a real server, says where to pay.
    async fn fund(&self, say: &dyn Fn(&str)) -> Result<()> {
        for node in &self.nodes {
            let address = node.home.one(&["wallet", "receive"], "address").await?;
            let address = address["address"].as_str().context("no address")?.to_owned();
            match &self.chain {
                Some(chain) => drop(chain.fund(&control::regtest(&address)?, Amount::from_sat(FUNDS_SAT))?),
                None => say(&format!("pay {FUNDS_SAT} sat to {address} ({})", node.home.name)),
            }
        }
        if let Some(chain) = &self.chain {
            chain.mine_to_self(1);
        }
        for node in &self.nodes {
            until("the coins to arrive", async || {
                let balance = node.home.one(&["wallet", "balance"], "balance").await?;
                Ok((balance["confirmed_sat"].as_u64() >= Some(FUNDS_SAT)).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// Makes the sample: bytes that no compression makes smaller, the same in each market.
///
/// # Errors
/// When it can't be written.
pub fn sample(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("sample.bin");
    let mut file = std::fs::File::create(&path).context("making the sample")?;
    let bytes = blake3::Hasher::new().update(b"pedlar sample").finalize_xof();
    std::io::copy(&mut bytes.take(SAMPLE_LEN), &mut file).context("writing the sample")?;
    Ok(path)
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

/// Looks at a condition again and again until it holds.
async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    let waiting = async {
        loop {
            if let Some(value) = holds().await? {
                return Ok(value);
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(DEADLINE, waiting).await.with_context(|| format!("waited {:?} for {what}", begun.elapsed()))?
}
