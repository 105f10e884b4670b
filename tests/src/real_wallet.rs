//! Electrum, the wallet that people have, run as a daemon on a server of a story.
//!
//! Its executable is named by `ELECTRUM_EXE` (Debian's package `electrum`, 4.3); a story is skipped, loudly, where it is
//! missing.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::until;
use crate::real_chain::executable;

/// Asks Electrum's own parser for the address and the amount in sat of a BIP21 link.
const PARSE: &str = "\
import sys
from electrum import constants, util
constants.set_regtest()
link = util.parse_URI(sys.argv[1])
print(link['address'], link['amount'])";

/// A fresh wallet, its daemon running.
pub struct RealWallet {
    program: PathBuf,
    /// What runs the program, and its modules: the first line of it says so.
    python: String,
    dir: TempDir,
}

impl RealWallet {
    /// A fresh segwit wallet on the server at `url` (`tcp://HOST:PORT`); `None`, said loudly, without Electrum.
    pub async fn start(url: &str) -> Option<Self> {
        let program = executable("ELECTRUM_EXE")?;
        let text = std::fs::read_to_string(&program).expect("Electrum is a script");
        let python = text.lines().next().and_then(|line| line.strip_prefix("#!")).expect("its interpreter").to_owned();
        let dir = tempfile::Builder::new().prefix("pedlar-electrum-").tempdir().expect("a folder");
        let wallet = Self { program, python, dir };
        wallet.run(&["--offline", "create", "--seed_type", "segwit"]);
        let server = format!("{}:t", url.strip_prefix("tcp://").expect("a server without TLS"));
        wallet.run(&["daemon", "-d", "-1", "-s", &server]);
        // The daemon is in the background before it listens.
        let loaded = async || wallet.try_run(&["load_wallet"]).ok();
        until("the daemon has the wallet", loaded).await;
        until("Electrum is connected", async || (wallet.json(&["getinfo"])["connected"] == true).then_some(())).await;
        Some(wallet)
    }

    /// An address that nobody has used yet.
    pub fn address(&self) -> String {
        self.run(&["getunusedaddress"])
    }

    /// Confirmed coins as it prints them, in BTC.
    pub fn balance(&self) -> String {
        self.json(&["getbalance"])["confirmed"].as_str().unwrap_or_default().to_owned()
    }

    /// Reads a BIP21 link with its own parser, and pays it; the transaction's id.
    pub fn pay(&self, uri: &str) -> String {
        let parsed = Command::new(&self.python).args(["-c", PARSE, uri]).output().expect("its interpreter runs");
        let parsed = said(&parsed).unwrap_or_else(|error| panic!("{uri}: {error}"));
        let (address, sat) = parsed.split_once(' ').expect("an address and an amount");
        let sat: u64 = sat.parse().expect("an amount in sat");
        let amount = format!("{}.{:08}", sat / 100_000_000, sat % 100_000_000);
        let tx = self.run(&["payto", "--feerate", "2", address, &amount]);
        self.run(&["broadcast", &tx])
    }

    /// How deep it sees a transaction of its history.
    pub fn confirmations(&self, txid: &str) -> Option<u64> {
        let history = self.json(&["onchain_history"]);
        let mut txs = history["transactions"].as_array().into_iter().flatten();
        txs.find(|tx| tx["txid"] == txid).and_then(|tx| tx["confirmations"].as_u64())
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.run(args);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    fn run(&self, args: &[&str]) -> String {
        self.try_run(args).unwrap_or_else(|error| panic!("Electrum's {args:?}: {error}"))
    }

    fn try_run(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(["--regtest", "-D"]).arg(self.dir.path()).args(args);
        said(&command.output().expect("Electrum runs"))
    }
}

fn said(output: &Output) -> Result<String, String> {
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said.trim().to_owned()) } else { Err(format!("{said} {wrong}")) }
}

impl Drop for RealWallet {
    fn drop(&mut self) {
        let mut command = Command::new(&self.program);
        // It ends the daemon; where that fails, so has the story.
        let _ = command.args(["--regtest", "-D"]).arg(self.dir.path()).arg("stop").output();
    }
}
