//! Bitcoin Core and electrs as processes of their own, for stories on the chain that others have, too.
//!
//! Their executables are named by `BITCOIND_EXE` and `ELECTRS_EXE`; a story is skipped, loudly, where one is missing.
//! Core is asked over its RPC; whatever goes wrong here ends the story at once.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Address, Amount, Network, OutPoint, Transaction, Txid};
use electrum_client::{ConfigBuilder, ElectrumApi};
use pedlar_devnet::chain::Purse;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{FUNDS_SAT, Peer, Place, free_port, number, text, until};

/// Blocks until what was mined can be spent (consensus).
const MATURITY: u64 = 100;

/// What blocks are mined to that bring nobody anything: nobody has its key.
const NOBODY: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// How long Core and electrs may take for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Core, electrs, and the key that their first coins belong to.
pub struct RealChain {
    dir: TempDir,
    bitcoind: Daemon,
    electrs: Daemon,
    rpc_port: u16,
    electrum_port: u16,
    purse: Purse,
}

/// A process that is killed when nobody needs it any more.
struct Daemon {
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    fn new(program: PathBuf, args: Vec<String>, log: PathBuf) -> Self {
        let mut daemon = Self { program, args, log, child: None };
        daemon.start();
        daemon
    }

    fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display())));
    }

    /// Starts it again where it has ended by itself, as electrs does when Core is not ready for it.
    fn keep_up(&mut self) {
        if let Some(child) = &mut self.child
            && child.try_wait().expect("a process").is_some()
        {
            self.start();
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!(
                "{} said last:\n{}",
                self.program.display(),
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// The executable that a variable names; `None` is said loudly.
pub fn executable(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    match path {
        Some(path) if path.is_file() => Some(path),
        Some(path) => panic!("{variable} names {}, which is no file", path.display()),
        None => {
            eprintln!("SKIPPED: {variable} names no executable");
            None
        }
    }
}

impl RealChain {
    /// A fresh regtest chain with a mature coin in the purse; `None`, said loudly, where the executables are missing.
    pub async fn start() -> Option<Self> {
        let (bitcoind, electrs) = (executable("BITCOIND_EXE")?, executable("ELECTRS_EXE")?);
        let dir = tempfile::Builder::new().prefix("pedlar-chain-").tempdir().expect("a folder");
        let (rpc_port, electrum_port) = (free_port(), free_port());
        let data = dir.path().join("bitcoind");
        std::fs::create_dir(&data).expect("a folder");
        let bitcoind = Daemon::new(bitcoind, core_args(&data, rpc_port), dir.path().join("bitcoind.log"));
        let electrs_log = dir.path().join("electrs.log");
        let electrs = Daemon { program: electrs, args: Vec::new(), log: electrs_log, child: None };
        let purse = Purse::new(b"real chain");
        let mut chain = Self { dir, bitcoind, electrs, rpc_port, electrum_port, purse };
        chain.until_core_answers().await;
        chain.rpc("generatetoaddress", json!([MATURITY + 1, chain.own_address()]));
        chain.electrs.args = electrs_args(&data, chain.dir.path(), rpc_port, electrum_port);
        chain.electrs.start();
        chain.until_electrs_follows().await;
        Some(chain)
    }

    /// Where electrs answers.
    pub fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.electrum_port)
    }

    /// The first 8 hex digits of block 1, by which regtest chains are told apart.
    pub fn network_id(&self) -> String {
        text(&self.rpc("getblockhash", json!([1])))[..8].to_owned()
    }

    /// Mines what waits, and `blocks` blocks in all.
    pub fn mine(&self, blocks: u64) {
        self.rpc("generatetoaddress", json!([blocks, NOBODY]));
    }

    /// Takes the last `depth` blocks out of the chain for one more, empty ones: what was in them waits again.
    pub fn reorg(&self, depth: u64) {
        let height = number(&self.rpc("getblockcount", json!([])));
        let first = self.rpc("getblockhash", json!([height - depth + 1]));
        self.rpc("invalidateblock", json!([first]));
        for _ in 0..=depth {
            self.rpc("generateblock", json!([NOBODY, []]));
        }
        assert_ne!(self.rpc("getblockhash", json!([height - depth + 1])), first, "the reorg has happened");
    }

    /// The transactions that wait for a block.
    pub fn mempool(&self) -> Vec<Txid> {
        let waiting = self.rpc("getrawmempool", json!([]));
        waiting.as_array().expect("a list").iter().map(|txid| text(txid).parse().expect("a txid")).collect()
    }

    /// Waits until a transaction other than `known` waits for a block.
    pub async fn waiting_tx(&self, known: &[Txid]) -> Txid {
        until("a transaction waits", async || self.mempool().into_iter().find(|txid| !known.contains(txid))).await
    }

    /// A payment from the purse at this rate, signed and not sent: another one from the same coins replaces it.
    pub fn payment(&self, address: &str, sat: u64, fee_sat_per_vb: u64) -> Transaction {
        let address: Address<_> = address.parse().expect("an address");
        let to = address.require_network(Network::Regtest).expect("an address of this chain").script_pubkey();
        let mut coins = self.coins();
        coins.sort();
        self.purse.pay(coins.into_iter(), to, Amount::from_sat(sat), fee_sat_per_vb).expect("the purse pays")
    }

    /// Hands a transaction to Core, which checks it as any node of the network does.
    pub fn send(&self, tx: &Transaction) {
        self.rpc("sendrawtransaction", json!([serialize_hex(tx)]));
    }

    /// How a transaction stands: its confirmations, 0 while it waits; nothing where Core has it no more.
    pub fn confirmations(&self, txid: Txid) -> Option<u64> {
        let found = self.try_rpc("getrawtransaction", json!([txid, true])).ok()?;
        Some(found["confirmations"].as_u64().unwrap_or(0))
    }

    /// Kills electrs and starts it again.
    pub async fn restart_electrs(&mut self) {
        self.electrs.kill();
        self.electrs.start();
        self.until_electrs_follows().await;
    }

    /// Stops Core in order, so that it keeps what waits, and starts it again, and electrs with it.
    pub async fn restart_core(&mut self) {
        self.electrs.kill();
        self.rpc("stop", json!([]));
        if let Some(mut child) = self.bitcoind.child.take() {
            until("Core has ended", async || child.try_wait().expect("a process")).await;
        }
        self.bitcoind.start();
        self.until_core_answers().await;
        self.electrs.start();
        self.until_electrs_follows().await;
    }

    fn own_address(&self) -> String {
        Address::from_script(self.purse.script(), Network::Regtest).expect("a script with an address").to_string()
    }

    /// The purse's coins that can be spent, those that wait for a block counted as unspent.
    fn coins(&self) -> Vec<(OutPoint, Amount)> {
        let found = self.rpc("scantxoutset", json!(["start", [format!("addr({})", self.own_address())]]));
        let coins = found["unspents"].as_array().expect("a list").iter().filter_map(|coin| {
            let mature = number(&found["height"]) - number(&coin["height"]) >= MATURITY - 1;
            let fresh = coin["coinbase"] == true && !mature;
            let outpoint = OutPoint::new(text(&coin["txid"]).parse().ok()?, u32::try_from(number(&coin["vout"])).ok()?);
            let amount = Amount::from_btc(coin["amount"].as_f64()?).ok()?;
            (!fresh).then_some((outpoint, amount))
        });
        coins.collect()
    }

    async fn until_core_answers(&self) {
        until("Core answers", async || self.try_rpc("getblockcount", json!([])).ok()).await;
    }

    /// Waits until electrs has the newest block.
    async fn until_electrs_follows(&mut self) {
        let follows = async || {
            self.electrs.keep_up();
            let config = ConfigBuilder::new().timeout(Some(ANSWER)).retry(0).build();
            let client = electrum_client::Client::from_config(&self.url(), config).ok()?;
            let height = client.block_headers_subscribe().ok()?.height as u64;
            (height == number(&self.rpc("getblockcount", json!([])))).then_some(())
        };
        until("electrs follows", follows).await;
    }

    /// Asks Core.
    fn rpc(&self, method: &str, params: Value) -> Value {
        self.try_rpc(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_rpc(&self, method: &str, params: Value) -> Result<Value, String> {
        let cookie = self.dir.path().join("bitcoind/regtest/.cookie");
        let cookie = BASE64_STANDARD.encode(std::fs::read(cookie).map_err(|error| error.to_string())?);
        let body = json!({ "jsonrpc": "1.0", "id": 1, "method": method, "params": params }).to_string();
        let answer = post(self.rpc_port, &cookie, &body).map_err(|error| error.to_string())?;
        let (_, json) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let answer: Value = serde_json::from_str(json).map_err(|error| format!("{error}: {answer}"))?;
        if answer["error"].is_null() { Ok(answer["result"].clone()) } else { Err(answer["error"].to_string()) }
    }
}

fn post(port: u16, cookie: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Basic {cookie}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn core_args(data: &Path, rpc_port: u16) -> Vec<String> {
    let mut args: Vec<String> = "-regtest -server=1 -rest=1 -txindex=1 -listen=0 -rpcbind=127.0.0.1 \
         -rpcallowip=127.0.0.1 -dnsseed=0 -fixedseeds=0 -discover=0 -natpmp=0 -printtoconsole=1"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    args.extend([format!("-datadir={}", data.display()), format!("-rpcport={rpc_port}")]);
    args
}

fn electrs_args(data: &Path, dir: &Path, rpc_port: u16, electrum_port: u16) -> Vec<String> {
    let pairs = [
        ("--network", "regtest".to_owned()),
        ("--daemon-dir", data.display().to_string()),
        ("--daemon-rpc-addr", format!("127.0.0.1:{rpc_port}")),
        ("--db-dir", dir.join("electrs").display().to_string()),
        ("--electrum-rpc-addr", format!("127.0.0.1:{electrum_port}")),
        ("--monitoring-addr", format!("127.0.0.1:{}", free_port())),
        ("--wait-duration-secs", "1".to_owned()),
        ("--jsonrpc-timeout-secs", "15".to_owned()),
        ("--log-filters", "INFO".to_owned()),
    ];
    let pairs = pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    pairs.chain(["--skip-block-download-wait".to_owned()]).collect()
}

/// A story's nodes on a real chain.
pub struct RealWorld {
    /// The chain; blocks come when the story mines them.
    pub chain: RealChain,
    place: Place,
}

impl Deref for RealWorld {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl RealWorld {
    /// A real chain for nodes that run `program`; `None`, said loudly, where its executables are missing.
    pub async fn new(program: &str) -> Option<Self> {
        let chain = RealChain::start().await?;
        let place = Place::new(program, chain.url(), chain.network_id());
        Some(Self { chain, place })
    }

    /// Gives a node [`FUNDS_SAT`] and waits until it has them.
    pub async fn fund(&self, peer: &Peer) {
        let address = peer.one(&["wallet", "receive"], "address").await;
        self.chain.send(&self.chain.payment(text(&address["address"]), FUNDS_SAT, 2));
        self.chain.mine(1);
        until("the coins are there", async || (peer.balance().await >= FUNDS_SAT).then_some(())).await;
    }
}
