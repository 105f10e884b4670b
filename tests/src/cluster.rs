//! A market for one story: a chain and its Electrum server in this process, nodes as processes of their own.
//!
//! Whatever goes wrong here ends the story at once, with what it asked for: helpers panic instead of returning errors.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use bitcoin::{Address, Amount, Network, Txid};
use pedlar_devnet::chain::Chain;
use pedlar_devnet::electrum::ElectrumServer;
use pedlar_devnet::node::{Home, Node, Running};
use pedlar_net::Multiaddr;
use pedlar_protocol::account;
use pedlar_protocol::ledger::View;
use pedlar_protocol::money::Msat;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No wait is longer; ten times what a machine under load needs, so that only what never happens fails.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How often a condition is looked at that no event tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Coins of a node that has some, in sat.
pub const FUNDS_SAT: u64 = 1_000_000;

/// Waits until `holds` answers something.
pub async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = holds().await {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The folder in which all of a story happens, and the nodes in it: processes that run one program, meet on one
/// network and by default ask one Electrum server.
pub struct Place {
    program: PathBuf,
    dir: TempDir,
    electrum: String,
    network_id: String,
    /// Where the first node listens: all others enter there.
    entrance: Mutex<Vec<String>>,
}

impl Place {
    /// A fresh folder for nodes that run `program`, on the chain that the server at `electrum` has.
    pub fn new(program: &str, electrum: String, network_id: String) -> Self {
        let dir = tempfile::Builder::new().prefix("pedlar-story-").tempdir().expect("a folder");
        Self { program: program.into(), dir, electrum, network_id, entrance: Mutex::default() }
    }

    /// The name of the network, as protocols carry it.
    pub fn network(&self) -> String {
        format!("regtest-{}", self.network_id)
    }

    /// Where the first node listens, to enter the network.
    pub fn entrance(&self) -> Vec<String> {
        self.entrance.lock().expect("no panic").clone()
    }

    /// A path in the story's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A home that nothing was done to yet.
    pub fn home(&self, name: &str) -> Home {
        Home::new(&self.program, self.dir.path(), name)
    }

    /// A home that is made, with `settings` at the end of its `config.toml`.
    pub async fn made_home(&self, name: &str, settings: &str) -> Home {
        let home = self.home(name);
        home.init(&self.electrum, Some(&self.network_id)).await.expect("a home");
        let config = std::fs::OpenOptions::new().append(true).open(home.dir.join("config.toml"));
        config.expect("a config").write_all(settings.as_bytes()).expect("a setting");
        home
    }

    /// A new node that is up.
    pub async fn node(&self, name: &str) -> Peer {
        self.node_with(name, "").await
    }

    /// A new node that is up and asks these Electrum servers.
    pub async fn node_asking(&self, name: &str, servers: &[String]) -> Peer {
        let home = self.made_home(name, "").await;
        let file = home.dir.join("config.toml");
        let config = std::fs::read_to_string(&file).expect("a config");
        let one = format!("electrum = [{:?}]", self.electrum);
        assert!(config.contains(&one), "{config}");
        std::fs::write(&file, config.replace(&one, &format!("electrum = {servers:?}"))).expect("another config");
        self.start(home).await
    }

    /// A new node that is up, with `settings` at the end of its `config.toml`.
    pub async fn node_with(&self, name: &str, settings: &str) -> Peer {
        self.start(self.made_home(name, settings).await).await
    }

    /// A node that is up in a home that is made.
    pub async fn start(&self, home: Home) -> Peer {
        let name = home.name.clone();
        let port = free_port();
        let node = Node::start(home.clone(), port, &self.entrance()).await.expect(&name);
        let mut entrance = self.entrance.lock().expect("no panic");
        if entrance.is_empty() {
            entrance.clone_from(&node.listen);
        }
        Peer { id: node.peer_id.clone(), bootstrap: entrance.clone(), port, home, node: Some(node) }
    }

    /// Makes a file of `len` bytes that no two names share.
    pub fn file(&self, name: &str, len: u64) -> PathBuf {
        let path = self.path(name);
        let bytes = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
        let mut file = std::fs::File::create(&path).expect("a file");
        std::io::copy(&mut std::io::Read::take(bytes, len), &mut file).expect("its bytes");
        path
    }

    /// The log of a node that panicked.
    fn panicked(&self) -> Option<PathBuf> {
        let homes = std::fs::read_dir(self.dir.path()).ok()?.flatten();
        let mut logs = homes.map(|home| home.path().join("log"));
        logs.find(|log| std::fs::read(log).is_ok_and(|log| String::from_utf8_lossy(&log).contains("panicked at")))
    }
}

/// A story that fails leaves its folder behind, homes, logs and all; and one in which a node panicked has failed.
impl Drop for Place {
    fn drop(&mut self) {
        let panicked = self.panicked();
        if std::thread::panicking() || panicked.is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("what the story left is in {}", self.dir.path().display());
        }
        if let (Some(log), false) = (panicked, std::thread::panicking()) {
            panic!("a node panicked: see {}", log.display());
        }
    }
}

/// One chain and one server, in this process, and the place of the story.
pub struct World {
    /// The chain; blocks come as [`World::mine_what_waits`] says.
    pub chain: Chain,
    /// Its server, to be paused and resumed.
    pub electrum: ElectrumServer,
    miner: Mutex<Option<JoinHandle<()>>>,
    place: Place,
}

impl Deref for World {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl World {
    /// A world whose nodes run `program`, in which every transaction is mined as soon as it is seen.
    pub async fn new(program: &str) -> Self {
        let mut tag = [0; 16];
        getrandom::fill(&mut tag).expect("randomness");
        let chain = Chain::new(&tag);
        let electrum = ElectrumServer::spawn(chain.clone(), "127.0.0.1:0").await.expect("a server");
        let place = Place::new(program, electrum.url(), chain.network_id());
        let world = Self { chain, electrum, miner: Mutex::default(), place };
        world.mine_what_waits();
        world
    }

    /// Gives a node [`FUNDS_SAT`] and waits until it has them.
    pub async fn fund(&self, peer: &Peer) {
        let address = peer.one(&["wallet", "receive"], "address").await;
        self.pay(text(&address["address"]), FUNDS_SAT);
        self.chain.mine_to_self(1);
        let arrived = async || (peer.balance().await >= FUNDS_SAT).then_some(());
        until("the coins are there", arrived).await;
    }

    /// Pays from the chain's own purse; as anybody's wallet would, to an address that was shown.
    pub fn pay(&self, address: &str, sat: u64) -> Txid {
        let address: Address<_> = address.parse().expect("an address");
        let address = address.require_network(Network::Regtest).expect("an address of this chain");
        self.chain.fund(&address, Amount::from_sat(sat)).expect("the purse pays")
    }

    /// From now on a block comes whenever a transaction waits for one.
    pub fn mine_what_waits(&self) {
        let chain = self.chain.clone();
        let mut changes = chain.subscribe();
        let miner = tokio::spawn(async move {
            loop {
                if !chain.mempool().is_empty() {
                    chain.mine_to_self(1);
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
        self.replace_miner(Some(miner));
    }

    /// From now on blocks come only when the story mines them.
    pub fn mine_by_hand(&self) {
        self.replace_miner(None);
    }

    /// Waits until a transaction waits for a block.
    pub async fn waiting_tx(&self) -> Txid {
        until("a transaction waits", async || self.chain.mempool().first().copied()).await
    }

    fn replace_miner(&self, miner: Option<JoinHandle<()>>) {
        if let Some(old) = std::mem::replace(&mut *self.miner.lock().expect("no panic"), miner) {
            old.abort();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.replace_miner(None);
    }
}

/// A node as a story sees it: up, or killed and not yet restarted.
pub struct Peer {
    /// Its id.
    pub id: String,
    /// How to call it.
    pub home: Home,
    node: Option<Node>,
    port: u16,
    bootstrap: Vec<String>,
}

impl Peer {
    /// Runs a verb that succeeds; its lines, the summary last.
    pub async fn ask(&self, verb: &[&str]) -> Vec<Value> {
        self.begin(verb).succeeds().await
    }

    /// The first line of this type that a verb answers.
    pub async fn one(&self, verb: &[&str], kind: &str) -> Value {
        let lines = self.ask(verb).await;
        let found = lines.iter().find(|line| line["type"] == kind).cloned();
        found.unwrap_or_else(|| panic!("{verb:?} answers no `{kind}`: {lines:?}"))
    }

    /// Runs a verb that fails with this exit code; its error.
    pub async fn refuses(&self, verb: &[&str], exit: i32) -> Value {
        self.begin(verb).fails(exit).await
    }

    /// Starts a verb.
    pub fn begin(&self, verb: &[&str]) -> Verb {
        Verb::begin(&self.home, verb)
    }

    /// Puts a file up for sale; its link without the addresses in it, so that buyers have to find the seller.
    pub async fn publish(&self, file: &Path, price: &str) -> String {
        let published = self.one(&["publish", path(file), "--price", price], "published").await;
        let link = text(&published["link"]);
        link.split('?').next().unwrap_or(link).to_owned()
    }

    /// Confirmed coins in sat.
    pub async fn balance(&self) -> u64 {
        number(&self.one(&["wallet", "balance"], "balance").await["confirmed_sat"])
    }

    /// Leaves an advance with a seller, and waits until it counts.
    pub async fn pay(&self, seller: &Peer, amount: &str) {
        self.knows(seller).await;
        self.ask(&["account", "pay", &seller.id, amount, "--yes"]).await;
    }

    /// Waits until this node has an offer of the seller, and with it its addresses.
    pub async fn knows(&self, seller: &Peer) {
        let known = async || {
            let offers = self.ask(&["market"]).await;
            offers.iter().any(|line| line["peer"] == seller.id.as_str()).then_some(())
        };
        until("the offer is known", known).await;
    }

    /// Whether `audit_ledgers` finds nothing in this node's journal and wallet, as its owner would have it looked at.
    async fn audits_well(&self) -> bool {
        let mut doctor = self.begin(&["doctor"]);
        let check = doctor.find(|line| line["name"] == "ledger").await.expect("a look at the ledger");
        if check["ok"] != true {
            println!("{} has {check}", self.home.name);
        }
        check["ok"] == true
    }

    /// What this node has under its account with another, `sold` or `bought`; zeros where there is no account.
    pub async fn tab(&self, other: &str, direction: &str) -> Tab {
        let accounts = self.ask(&["account", "list"]).await;
        let account = accounts.iter().find(|line| line["peer"] == other);
        account.map_or_else(Tab::default, |account| Tab::of(&account[direction]))
    }

    /// Kills the node as a power cut would.
    pub async fn kill(&mut self) {
        self.node.take().expect("the node is up").kill().await.expect("the node is killed");
    }

    /// Waits until the node has been killed by somebody else.
    pub async fn fell(&mut self) {
        let ended = self.node.take().expect("the node is up").ended().await.expect("the node is killed");
        assert_eq!(ended.code(), None, "killed, not ended by itself: {ended}");
    }

    /// Takes the node down in order.
    pub async fn stop(&mut self) {
        self.node.take().expect("the node is up").stop().await.expect("the node goes down");
    }

    /// Tells the node to end as the system does when it shuts down, and waits until it has; how long that took.
    pub async fn terminate(&mut self) -> Duration {
        let (node, begun) = (self.node.take().expect("the node is up"), Instant::now());
        node.terminate().await.expect("the node ends in order");
        begun.elapsed()
    }

    /// Brings the node up again, where it was before.
    pub async fn restart(&mut self) {
        let bootstrap: Vec<String> = self.bootstrap.iter().filter(|addr| !addr.contains(&self.id)).cloned().collect();
        let node = Node::start(self.home.clone(), self.port, &bootstrap).await;
        self.node = Some(node.expect("the node comes up again"));
    }

    /// Where the node listens, its id included, as it can stand in a link.
    pub fn addr(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", self.port, self.id)
    }

    /// The same, as the swarm takes it.
    pub fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.addr().parse().expect("an address")]
    }

    /// The node's process.
    pub fn pid(&self) -> u32 {
        self.node.as_ref().and_then(Node::pid).expect("the node is up")
    }
}

/// What two nodes have to agree on, in msat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tab {
    /// What counts as paid.
    pub paid: u64,
    /// What is signed for.
    pub spent: u64,
}

impl From<Tab> for account::Tab {
    fn from(tab: Tab) -> Self {
        Self { paid: Msat::new(tab.paid), spent: Msat::new(tab.spent), held: Msat::ZERO }
    }
}

impl Tab {
    /// What `account list` says of one direction.
    pub fn of(side: &Value) -> Self {
        Self { paid: number(&side["paid_msat"]), spent: number(&side["spent_msat"]) }
    }
}

/// Waits until the books of a seller and its buyer agree to the msat, and `audit_ledgers` finds nothing in either's
/// journal and wallet; what they say.
pub async fn agreed(seller: &Peer, buyer: &Peer) -> Tab {
    let mut last = None;
    let agree = async || {
        let sides = (seller.tab(&buyer.id, "sold").await, buyer.tab(&seller.id, "bought").await);
        if last != Some(sides) {
            println!("{} has {:?}, {} has {:?}", seller.home.name, sides.0, buyer.home.name, sides.1);
            last = Some(sides);
        }
        // At whatever height: both are asked until they see the same block.
        let view = |tab: Tab| View { tab: tab.into(), tip_height: 0 };
        view(sides.0).agrees_with(view(sides.1)).is_ok().then_some(sides.0)
    };
    let agreed = until("the books agree", agree).await;
    for peer in [seller, buyer] {
        until("the ledger is in order", async || peer.audits_well().await.then_some(())).await;
    }
    agreed
}

/// A verb under way, and what it has said so far.
pub struct Verb {
    verb: String,
    running: Running,
    lines: Vec<Value>,
}

impl Verb {
    /// Starts a verb on a home.
    pub fn begin(home: &Home, verb: &[&str]) -> Self {
        let running = home.begin(verb).expect("the program starts");
        Self { verb: format!("{} on {}", verb.join(" "), home.name), running, lines: Vec::new() }
    }

    /// Reads until a line satisfies `wanted`; nothing when the verb ends without one.
    pub async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let search = async {
            while let Some(line) = self.running.next().await.expect("lines of JSON") {
                self.lines.push(line.clone());
                if wanted(&line) {
                    return Some(line);
                }
            }
            None
        };
        let found = timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| panic!("`{}` hangs after {:?}", self.verb, self.lines))
    }

    /// Reads until a line of this type.
    pub async fn reaches(&mut self, kind: &str) -> Value {
        let found = self.find(|line| line["type"] == kind).await;
        found.unwrap_or_else(|| panic!("`{}` ends without `{kind}`: {:?}", self.verb, self.lines))
    }

    /// Interrupts it, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.running.interrupt().expect("it is under way");
    }

    /// Reads until so many bytes are there, of more: a purchase that is under way.
    pub async fn reaches_bytes(&mut self, bytes: u64) {
        let far = |line: &Value| line["type"] == "progress" && line["bytes"].as_u64() >= Some(bytes);
        let line = self.find(far).await.unwrap_or_else(|| panic!("`{}` ends too soon: {:?}", self.verb, self.lines));
        assert!(line["bytes"].as_u64() < line["total"].as_u64(), "it is complete already");
    }

    /// Reads all there is; every line, the summary last.
    pub async fn succeeds(mut self) -> Vec<Value> {
        self.find(|_| false).await;
        let ended = self.running.end().await.expect("an end");
        assert!(ended.status.success(), "`{}` fails: {} {}", self.verb, ended.status, ended.stderr.trim());
        assert_eq!(self.lines.last().map(|line| &line["type"]), Some(&"summary".into()), "`{}`", self.verb);
        self.lines
    }

    /// Reads all there is of a verb that fails with this exit code; its error.
    pub async fn fails(mut self, exit: i32) -> Value {
        self.find(|_| false).await;
        let ended = self.running.end().await.expect("an end");
        let error = ended.stderr.lines().last().unwrap_or_default();
        assert_eq!(ended.status.code(), Some(exit), "`{}`: {error} after {:?}", self.verb, self.lines);
        assert!(self.lines.iter().all(|line| line["type"] != "summary"), "a summary beside an error: {:?}", self.lines);
        let error: Value = serde_json::from_str(error).unwrap_or_else(|_| panic!("no JSON: {error}"));
        assert_eq!((&error["type"], &error["exit"]), (&"error".into(), &exit.into()), "`{}`", self.verb);
        error
    }

    /// Reads all there is, whatever it ends with; its exit code and lines.
    pub async fn ends(mut self) -> (Option<i32>, Vec<Value>) {
        self.find(|_| false).await;
        (self.running.end().await.expect("an end").status.code(), self.lines)
    }

    /// What it has said so far.
    pub fn lines(&self) -> &[Value] {
        &self.lines
    }
}

/// A port that no other node of this process has and that the system gives to nobody by itself, so that a node that was
/// killed finds it free when it comes back.
pub(crate) fn free_port() -> u16 {
    /// Below the range of ports that connections get (32768 on Linux).
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let random = || getrandom::u32().expect("randomness") as u16 % PORTS.len() as u16;
    let next = NEXT.get_or_init(|| AtomicU16::new(random()));
    loop {
        let port = PORTS.start + next.fetch_add(1, Ordering::Relaxed) % PORTS.len() as u16;
        let addr = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() {
            return port;
        }
    }
}

/// A path as an argument.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("paths of stories are plain")
}

/// A JSON string.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// A JSON number.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}
