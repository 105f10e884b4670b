//! The running node: everything opened in order, the tasks between them, and the way down.
//!
//! ```text
//! wallet thread ─ events ─▶ driver ─▶ market ◀─ sessions, account streams, gossip ◀─ net task
//!                              └─▶ journal thread
//! ```
//!
//! **Invariant:** four owners of mutable state and no more: the swarm task, the wallet thread, the journal thread, the
//! market behind its lock.

pub mod peers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join;
use pedlar_net::{InboundStream, NetConfig, NetEvents, NetHandle, PeerId};
use pedlar_protocol::credit::Rules;
use pedlar_protocol::market::{Market, Terms};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{Network, NetworkError};
use pedlar_wallet::{Keys, LadderError, WalletConfig, WalletHandle};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::backup::Sealer;
use crate::config::{Config, Setting};
use crate::driver::{Driver, now};
use crate::home::HomeLock;
use crate::manners::Manners;
use crate::offers::OfferSync;
use crate::purchase::Buyer;
use crate::service::{self, Service};
use crate::shop::{Shelf, Shopkeeper};
use crate::store::{Journal, JournalError, Store, StoreError, lock};
use crate::{accounts, identity, offers, session};

/// How long the first block may take to be learned from a server, when the network is told by it.
const NETWORK_DEADLINE: Duration = Duration::from_secs(30);

/// How long sessions have to sign and go when the node goes down.
const GOODBYE: Duration = Duration::from_secs(5);

/// How often the book forgets what has expired, and met peers are written down.
const TIDY: Duration = Duration::from_secs(60);

/// Peers just met that wait to be asked for offers.
const MET_QUEUE: usize = 64;

/// Sessions and other streams at once: the net's own quota is 1,024 streams, so this only says so again.
const MAX_STREAMS: usize = 1024;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The wallet.
    #[error(transparent)]
    Wallet(#[from] pedlar_wallet::OpenError),
    /// The chain's first block is not known, and it names the network.
    #[error("no Electrum server answers, and without its first block a regtest chain has no name")]
    NoNetwork,
    /// The network's name.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The swarm.
    #[error(transparent)]
    Net(#[from] pedlar_net::SpawnError),
    /// The journal is of another version.
    #[error("the journal: {0}")]
    Version(LadderError),
    /// The journal.
    #[error("{0}")]
    Journal(String),
    /// The identity.
    #[error("the identity can't be derived")]
    Identity,
    /// The system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<JournalError> for StartError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Version(error) => Self::Version(error),
            error => Self::Journal(error.to_string()),
        }
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// A node that is up.
pub struct Node {
    pub(crate) home: HomeLock,
    pub(crate) config: Config,
    /// The same with their origins, for people.
    pub(crate) settings: Vec<Setting>,
    pub(crate) driver: Arc<Driver>,
    pub(crate) net: NetHandle,
    pub(crate) shop: Arc<Shopkeeper>,
    pub(crate) buyer: Arc<Buyer>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) started: Timestamp,
    pub(crate) stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// Opens everything and starts its tasks; when this returns, the node listens.
    ///
    /// # Errors
    /// [`StartError`] names what is in the way; nothing runs then.
    pub async fn start(home: HomeLock, config: (Config, Vec<Setting>), keys: Keys) -> Result<Self, StartError> {
        let (config, settings) = config;
        let secret = identity::secret(&keys);
        let key = identity::keypair(&secret).ok_or(StartError::Identity)?;
        let sealer = Arc::new(Sealer::of(&keys).ok_or(StartError::Identity)?);
        Journal::check(&home.home().journal())?;
        let (wallet, wallet_events) = open_wallet(&home, &config, keys).await?;
        let network = network(&config, &wallet).await?;
        let market = Market::new(key, network.clone(), terms(&config), now());
        let stopping = CancellationToken::new();
        let driver = open_driver(&home, market, wallet, config.network, stopping.clone()).await?;
        let (net, events) = pedlar_net::spawn(net_config(&home, &config, secret, &network)).await?;
        let shelf = Arc::new(Shelf::default());
        let shop = Shopkeeper::open(
            Arc::clone(&driver),
            net.clone(),
            Arc::clone(&shelf),
            home.home().outboards(),
            home.home().blobs(),
        );
        let shop = Arc::new(shop.await?);
        let buyer = Arc::new(Buyer::new(Arc::clone(&driver), net.clone(), &home.home().outboards()));
        let (started, tasks) = (now(), TaskTracker::new());
        let node = Self { home, config, settings, driver, net, shop, buyer, sealer, started, stopping, tasks };
        node.spawn_tasks(service::all(&shelf), events, wallet_events);
        Ok(node)
    }

    /// Runs until `stop` resolves or somebody asked the node to go down, then ends it: within ten seconds, and with
    /// every receipt that came stored.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.stopping.cancelled() => {}
        }
        self.stopping.cancel();
        self.tasks.close();
        if timeout(GOODBYE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
        self.net.shutdown().await;
        self.driver.wallet().shutdown().await;
        self.driver.store().shutdown().await;
    }

    /// The tasks that end with the node; purchases are tracked with them.
    pub(crate) const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Newest counters are exchanged once per connection (MONEY.md 1.1): what a crash or a broken stream left unsaid. Who
    /// `met` hears of may be asked for offers.
    fn greeter(&self, met: mpsc::Sender<PeerId>) -> impl Fn(PeerId) + Send + use<> {
        let (driver, net) = (Arc::clone(&self.driver), self.net.clone());
        let (tasks, until) = (self.tasks.clone(), self.stopping.clone());
        move |peer| {
            // More than wait already need not be asked.
            let _ = met.try_send(peer);
            let (driver, net, until) = (Arc::clone(&driver), net.clone(), until.clone());
            tasks.spawn(async move {
                until.run_until_cancelled(accounts::settle(&driver, &net, peer, Vec::new())).await;
            });
        }
    }

    fn spawn_tasks(
        &self,
        services: Vec<Arc<dyn Service>>,
        events: NetEvents,
        wallet_events: mpsc::Receiver<pedlar_wallet::WalletEvent>,
    ) {
        let driver = Arc::clone(&self.driver);
        let until = self.stopping.clone();
        self.tasks.spawn(async move {
            until.run_until_cancelled(driver.follow_wallet(wallet_events)).await;
        });
        let shop = Arc::clone(&self.shop);
        self.tasks.spawn(async move { shop.run().await });
        let NetEvents { streams, messages, peers } = events;
        let offers = Arc::new(OfferSync::new(Arc::clone(&self.driver), self.net.clone()));
        let desk = Desk { driver: Arc::clone(&self.driver), services, offers: Arc::clone(&offers) };
        let (tasks, until) = (self.tasks.clone(), self.stopping.clone());
        self.tasks.spawn(async move {
            until.run_until_cancelled(accept(desk, streams, tasks)).await;
        });
        let (meet, met) = mpsc::channel(MET_QUEUE);
        let until = self.stopping.clone();
        self.tasks.spawn(async move {
            until.run_until_cancelled(offers.run(met)).await;
        });
        let (driver, net, until) = (Arc::clone(&self.driver), self.net.clone(), self.stopping.clone());
        self.tasks.spawn(async move {
            until.run_until_cancelled(join(offers::judge(&driver, &net, messages), tidy(&driver))).await;
        });
        let (path, until, greet) = (self.home.home().peers(), self.stopping.clone(), self.greeter(meet));
        self.tasks.spawn(async move { peers::remember(path, peers, greet, until).await });
    }
}

/// What the owner decided about money.
pub(crate) fn terms(config: &Config) -> Terms {
    let credit = Rules { grant: config.credit.grant, cap: config.credit.cap, ..Rules::default() };
    Terms { credit, min_topup_sat: config.min_topup_sat, max_window: config.limits.max_window, budget: config.budget }
}

async fn open_wallet(
    home: &HomeLock,
    config: &Config,
    keys: Keys,
) -> Result<(WalletHandle, mpsc::Receiver<pedlar_wallet::WalletEvent>), StartError> {
    let mut wallet = WalletConfig::new(config.network, home.home().wallet().to_owned(), config.electrum.clone());
    wallet.max_fee_rate_sat_vb = config.fees.max_sat_vb;
    wallet.restore = home.home().restored_mark().exists();
    let opened = tokio::task::spawn_blocking(move || WalletHandle::open(wallet, keys)).await;
    Ok(opened.map_err(std::io::Error::other)??)
}

/// Signet is one network; a regtest chain is named by its first block, so that two of them never meet. Nothing while that
/// is needed and not known.
pub(crate) fn network_name(config: &Config, block_1: Option<&str>) -> Option<String> {
    match (config.network, &config.network_id) {
        (pedlar_wallet::Network::Signet, _) => Some("signet".to_owned()),
        (pedlar_wallet::Network::Regtest, Some(id)) => Some(format!("regtest-{id}")),
        (pedlar_wallet::Network::Regtest, None) => {
            Some(format!("regtest-{}", block_1?.chars().take(8).collect::<String>()))
        }
    }
}

async fn network(config: &Config, wallet: &WalletHandle) -> Result<Network, StartError> {
    if let Some(name) = network_name(config, None) {
        return Ok(name.parse()?);
    }
    let mut status = wallet.status();
    let named = async {
        loop {
            if let Ok(Some(block)) = wallet.block_1().await {
                return block.to_string();
            }
            // Changes with each try to reach a server.
            if status.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    let block = timeout(NETWORK_DEADLINE, named).await.map_err(|_| StartError::NoNetwork)?;
    Ok(network_name(config, Some(&block)).ok_or(StartError::NoNetwork)?.parse()?)
}

async fn open_driver(
    home: &HomeLock,
    mut market: Market,
    wallet: WalletHandle,
    chain: pedlar_wallet::Network,
    stopping: CancellationToken,
) -> Result<Arc<Driver>, StartError> {
    let (path, me) = (home.home().journal(), market.me());
    let opened = tokio::task::spawn_blocking(move || {
        let (journal, entries) = Journal::open(&path, &me)?;
        let restored = journal.restored_at()?;
        Ok::<_, JournalError>((journal, entries, restored))
    });
    let (journal, entries, restored) = opened.await.map_err(std::io::Error::other)??;
    entries.iter().for_each(|entry| market.restore(entry));
    restored.into_iter().for_each(|at| market.handle_backup(at));
    market.handle_tip(u64::from(wallet.status().borrow().tip_height));
    market.handle_restored();
    let market = Arc::new(Mutex::new(market));
    let store = Store::start(journal, Arc::clone(&market))?;
    let number = lock(&market).staged_in_all();
    store.flushed(number).await?;
    Ok(Arc::new(Driver::new(market, store, wallet, chain, stopping)))
}

fn net_config(home: &HomeLock, config: &Config, secret: Zeroizing<[u8; 32]>, network: &Network) -> NetConfig {
    NetConfig {
        secret,
        network: network.to_string(),
        protocols: vec!["chunks", accounts::PROTOCOL, offers::PROTOCOL],
        topic: "offers",
        listen: config.listen.clone(),
        bootstrap: config.bootstrap.clone(),
        remembered: peers::load(&home.home().peers()),
        external: config.external.clone(),
        kad_server: config.network == pedlar_wallet::Network::Regtest,
        tls: true,
        agent: concat!("pedlar/", env!("CARGO_PKG_VERSION")).to_owned(),
        limits: pedlar_net::Limits::default(),
    }
}

/// Who answers streams.
struct Desk {
    driver: Arc<Driver>,
    services: Vec<Arc<dyn Service>>,
    offers: Arc<OfferSync>,
}

/// Hands each stream to its protocol.
async fn accept(desk: Desk, mut streams: mpsc::Receiver<InboundStream>, tasks: TaskTracker) {
    let manners = Manners::new();
    while let Some(InboundStream { peer, protocol, stream }) = streams.recv().await {
        if tasks.len() >= MAX_STREAMS {
            continue;
        }
        let (driver, manners) = (Arc::clone(&desk.driver), manners.clone());
        if protocol == accounts::PROTOCOL {
            tasks.spawn(manners.attend(peer, accounts::answer(driver, peer, stream)));
        } else if protocol == offers::PROTOCOL {
            let offers = Arc::clone(&desk.offers);
            tasks.spawn(manners.attend(peer, async move { offers.answer(peer, stream).await }));
        } else if let Some(service) = desk.services.iter().find(|service| service.name() == protocol) {
            tasks.spawn(manners.attend(peer, session::sell(driver, Arc::clone(service), peer, stream)));
        }
    }
}

async fn tidy(driver: &Driver) {
    let mut tick = interval(TIDY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        driver.update_book(|book| book.expire(now()));
    }
}

#[cfg(test)]
mod tests;
