//! The program that brings a whole market up on one machine, run as people and other programs run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pedlar_devnet::market::{Market, Plan};
use pedlar_devnet::purchase::demonstrate;
use pedlar_devnet::screen::Screen;
use pedlar_tests::cluster::{PATIENCE, number, path, text, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::MIB;

const PROGRAM: &str = env!("CARGO_BIN_EXE_devnet-under-test");

#[tokio::test(flavor = "multi_thread")]
async fn one_purchase_begins_with_ready_and_ends_with_its_summary() {
    let dir = folder();
    // Longer than a socket address.
    let home = dir.path().join("d".repeat(60)).join("e".repeat(60));
    let film = file(dir.path(), 2 * MIB);
    let mut devnet = Devnet::begin(&[
        &["--once", "--json", "--block-interval", "1", "--dir", path(&home)],
        &["--file", path(&film)],
    ]);
    let ready = devnet.line().await;
    assert_eq!(ready["type"], "ready", "{ready}");
    assert_eq!(names(&ready), ["seller-1", "seller-2", "seller-3", "buyer"]);
    assert!(text(&ready["network"]).starts_with("regtest-") && text(&ready["electrum"]).starts_with("tcp://"));
    for node in ready["nodes"].as_array().unwrap() {
        assert_eq!(text(&node["home"]), path(&home.canonicalize().unwrap().join(text(&node["name"]))));
        assert!(!text(&node["peer_id"]).is_empty() && !node["listen"].as_array().unwrap().is_empty(), "{node}");
    }

    let (code, lines, error) = devnet.ends().await;
    assert_eq!(code, Some(0), "{error}");
    let summary = lines.last().expect("a summary");
    assert_eq!((&summary["type"], number(&summary["bytes"])), (&"summary".into(), 2 * MIB), "{summary}");
    let charge = (2 * MIB * 7_000_000).div_ceil(1 << 30);
    assert_eq!(number(&summary["paid_msat"]), charge, "the cheapest seller's price");
    assert!(number(&summary["fees_sat"]) > 0 && text(&summary["txid"]).len() == 64 && summary["seconds"].is_f64());
    let cheapest = &ready["nodes"][0]["peer_id"];
    let [share, books] = ["sellers", "books"].map(|field| &summary[field][0]);
    assert_eq!((&share["peer"], number(&share["bytes"]), number(&share["msat"])), (cheapest, 2 * MIB, charge));
    for side in ["sold", "bought"] {
        assert_eq!((number(&books[side]["paid_msat"]), number(&books[side]["spent_msat"])), (5_000_000, charge));
    }
    assert!(fs::read(home.join("bought")).unwrap() == fs::read(&film).unwrap());
    assert_eq!(nodes_in(&home), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_in_sat_and_in_sentences() {
    let dir = folder();
    let film = file(dir.path(), MIB);
    let devnet = Devnet::begin(&[&["--once", "--nodes", "2", "--block-interval", "1", "--file", path(&film)]]);
    let (code, told, error) = devnet.text().await;
    assert_eq!(code, Some(0), "{error}");
    println!("{told}");
    for wanted in [
        "seller-1 asks 7000 sat/GiB",
        "seller-1 quotes 6.836 sat",
        "the buyer pays 5000 sat in advance",
        "the advance counts: 5000 sat paid in all",
        "bought 1048576 bytes for 6.836 sat",
        "5000 sat paid, 6.836 sat spent; they agree to the msat",
    ] {
        assert!(told.contains(wanted), "nothing of `{wanted}`");
    }
    assert!(!told.contains('{') && !told.contains("msat/GiB"), "JSON or a unit that is not for people");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_is_steered_from_another_terminal_and_lends_its_chain_to_a_second_one() {
    let dir = folder();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    let mut market = Devnet::begin(&[&["--nodes", "3", "--json", "--block-interval", "1", "--dir", path(&first)]]);
    let ready = market.reaches("ready").await;
    assert_eq!(names(&ready), ["seller-1", "seller-2", "buyer"]);
    assert_eq!(nodes_in(&first), 3);

    let mined = steer(&first, &["mine", "3"]).await.unwrap();
    assert_eq!((&mined["type"], number(&mined["blocks"])), (&"mined".into(), 3));
    let address = on(&first, &["buyer", "wallet", "receive"], 0).await["address"].clone();
    let funded = steer(&first, &["fund", text(&address), "50000"]).await.unwrap();
    assert_eq!((&funded["type"], number(&funded["sat"])), (&"funded".into(), 50_000));
    until("the coins of the chain arrive", async || {
        let balance = on(&first, &["buyer", "wallet", "balance"], 0).await;
        (number(&balance["confirmed_sat"]) == 1_050_000).then_some(())
    })
    .await;
    let reorged = steer(&first, &["reorg", "2"]).await.unwrap();
    assert!(number(&reorged["height"]) > number(&mined["height"]), "one block more than before: {reorged}");
    assert!(steer(&first, &["fund", "nowhere", "1"]).await.unwrap_err().contains("no bitcoin address"));
    assert!(steer(dir.path(), &["mine", "1"]).await.unwrap_err().contains("no market runs"));

    // Exit codes are those of the verb.
    assert_eq!(on(&first, &["seller-2", "status"], 0).await["type"], "status");
    on(&first, &["buyer", "publish", "missing", "--price", "1"], 4).await;
    on(&first, &["buyer", "wallet", "send", text(&address), "9000000sat", "--yes"], 10).await;
    on(&first, &["seller-9", "status"], 1).await;

    buys_on_the_chain_of(&first, &second, text(&ready["electrum"])).await;

    // What a person has taken down is not missed.
    on(&first, &["seller-2", "down"], 0).await;
    market.signal(Signal::INT);
    let (code, lines, error) = market.ends().await;
    assert_eq!((code, &*lines), (Some(0), &[][..]), "{error}");
    assert_eq!(nodes_in(&first), 0);
}

/// A second market whose server is that of the first, and whose coins come from there.
async fn buys_on_the_chain_of(first: &Path, second: &Path, electrum: &str) {
    fs::create_dir(second).unwrap();
    let film = file(second, MIB);
    let mut market = Devnet::begin(&[
        &["--once", "--json", "--nodes", "2", "--electrum", electrum, "--dir", path(second)],
        &["--file", path(&film)],
    ]);
    assert_eq!(market.line().await["type"], "ready", "before anybody has paid");
    for name in ["seller-1", "buyer"] {
        let fund = market.line().await;
        assert_eq!((&fund["type"], &fund["name"]), (&"fund".into(), &name.into()), "{fund}");
        assert!(number(&fund["sat"]) > 0);
        // Sellers need no coins, and nobody waits for theirs.
        if name == "buyer" {
            let sat = fund["sat"].to_string();
            steer(first, &["fund", text(&fund["address"]), &sat]).await.unwrap();
        }
    }
    for verb in [&["mine", "1"][..], &["fund", "nowhere", "1"], &["reorg", "1"]] {
        let error = steer(second, verb).await.unwrap_err();
        assert!(error.contains("not ours to steer"), "{error}");
    }
    assert!(number(&market.reaches("funded").await["sat"]) > 0);
    let (code, lines, error) = market.ends().await;
    assert_eq!(code, Some(0), "{error}");
    let summary = lines.last().expect("a summary");
    assert_eq!((&summary["type"], number(&summary["bytes"])), (&"summary".into(), MIB));
    assert_eq!(nodes_in(second), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_is_interrupted_is_none() {
    let dir = folder();
    let film = file(dir.path(), MIB);
    for signal in [Signal::INT, Signal::TERM] {
        let home = dir.path().join(format!("{signal:?}"));
        // No block comes in which the advance could count.
        let mut market = Devnet::begin(&[
            &["--once", "--json", "--nodes", "2", "--block-interval", "3600", "--dir", path(&home)],
            &["--file", path(&film)],
        ]);
        market.reaches("ready").await;
        until("the buyer has paid", async || {
            let status = on(&home, &["buyer", "status"], 0).await;
            status["topups"].as_array().is_some_and(|topups| !topups.is_empty()).then_some(())
        })
        .await;
        market.signal(signal);
        let (code, lines, error) = market.ends().await;
        assert_eq!((code, &*lines), (Some(130), &[][..]), "{error}");
        let error: Value = serde_json::from_str(error.trim()).expect("a line of JSON");
        assert_eq!((&error["type"], &error["exit"]), (&"error".into(), &130.into()));
        assert_eq!(nodes_in(&home), 0);
    }
    println!("faults fired: 2 purchases interrupted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_more_than_the_buyer_has_is_paid_in_advance_all_the_same() {
    let dir = folder();
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_pedlar-under-test").into(),
        dir: dir.path().canonicalize().unwrap(),
        nodes: 3,
        // A MiB for 1,200,000 sat, where the buyer begins with 1,000,000.
        price_sat: 1_200_000 * 1_024,
        electrum: None,
        block_interval: Duration::from_secs(1),
    };
    let screen = Screen::new(true);
    let market = Market::start(&plan, screen).await.unwrap();
    let summary = demonstrate(&market, &file(dir.path(), MIB), screen).await.unwrap();
    market.stop().await.unwrap();
    assert_eq!((number(&summary["bytes"]), number(&summary["paid_msat"])), (MIB, 1_200_000_000));
    // Whichever seller had been asked, the dearer one included.
    assert_eq!(number(&summary["books"][0]["bought"]["paid_msat"]), 1_320_001_000);
}

/// The program, and what it has said.
struct Devnet {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Devnet {
    fn begin(args: &[&[&str]]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(args.concat()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("its output");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    async fn next(&mut self) -> Option<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("it says something or ends");
        line.expect("its output").map(|line| serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}")))
    }

    /// The next line.
    async fn line(&mut self) -> Value {
        match self.next().await {
            Some(line) => line,
            None => panic!("it ended: {}", self.error().await),
        }
    }

    /// Reads until a line of this type.
    async fn reaches(&mut self, kind: &str) -> Value {
        loop {
            let line = self.line().await;
            if line["type"] == kind {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).expect("it runs");
        kill_process(pid, signal).expect("it is told");
    }

    async fn error(&mut self) -> String {
        let mut error = String::new();
        self.child.stderr.as_mut().expect("its errors").read_to_string(&mut error).await.expect("text");
        error
    }

    /// Reads all there is: its exit code, the lines that were left, its errors.
    async fn ends(mut self) -> (Option<i32>, Vec<Value>, String) {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        let error = self.error().await;
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status");
        (status.code(), lines, error)
    }

    /// As [`Devnet::ends`], of one that speaks to people.
    async fn text(mut self) -> (Option<i32>, String, String) {
        let mut text = Vec::new();
        while let Some(line) = timeout(PATIENCE, self.lines.next_line()).await.expect("it goes on").expect("text") {
            text.push(line);
        }
        let error = self.error().await;
        (self.child.wait().await.expect("a status").code(), text.join("\n"), error)
    }
}

/// Steers the chain of the market in a folder: the answer, or the error.
async fn steer(dir: &Path, verb: &[&str]) -> Result<Value, String> {
    let (code, mut lines, error) = Devnet::begin(&[&["--dir", path(dir)], verb]).ends().await;
    match code {
        Some(0) => Ok(lines.pop().expect("an answer")),
        _ => Err(error),
    }
}

/// Runs a verb on a node, which ends with this exit code; the first line of its answer.
async fn on(dir: &Path, verb: &[&str], exit: i32) -> Value {
    let (code, lines, error) = Devnet::begin(&[&["--dir", path(dir), "on"], verb]).ends().await;
    assert_eq!(code, Some(exit), "{verb:?}: {error}");
    lines.into_iter().next().unwrap_or_default()
}

/// How many nodes run whose homes are in this folder.
fn nodes_in(dir: &Path) -> usize {
    let dir = dir.canonicalize().expect("a folder");
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let command = |process: PathBuf| fs::read(process.join("cmdline")).unwrap_or_default();
    let commands = processes.map(|process| String::from_utf8_lossy(&command(process.path())).into_owned());
    commands.filter(|command| command.contains(&format!("{}/", path(&dir))) && command.contains("\0up\0")).count()
}

fn names(ready: &Value) -> Vec<&str> {
    ready["nodes"].as_array().expect("nodes").iter().map(|node| text(&node["name"])).collect()
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("pedlar-story-").tempdir().expect("a folder")
}

fn file(dir: &Path, len: u64) -> PathBuf {
    let path = dir.join("film");
    let bytes = blake3::Hasher::new().update(b"film").finalize_xof();
    std::io::copy(&mut std::io::Read::take(bytes, len), &mut fs::File::create(&path).expect("a file")).expect("bytes");
    path
}
