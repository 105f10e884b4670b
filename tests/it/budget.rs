//! What a node pays unasked: within its budget, counted before it is paid, and once however often the power is cut.

use std::fs;
use std::process::Stdio;

use pedlar_tests::cluster::{Peer, Tab, World, agreed, number, path, text};
use pedlar_tests::journal::Journal;
use pedlar_tests::strace::{Call, strace};
use rusqlite::Connection;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{MIB, world};

/// A MiB earns a seller so much trust that the smallest advance that it takes may be left with it unasked, its fee a small
/// share of it.
const PRICE: &str = "300000000sat/GiB";
const MIN_TOPUP: &str = "min_topup_sat = 15000\n";
const ADVANCE_SAT: u64 = 15_000;
const PREPAID_SAT: u64 = 300_000;

/// Room for two advances and not for a third.
const BUDGET: &str = "[budget]\nday_sat = 40000\nmonth_sat = 100000\n";
const DAY_SAT: u64 = 40_000;

/// Costs more than is left with the seller, each time, and less than an advance.
const SMALL: u64 = 64 << 10;

/// A seller whose customer has bought a MiB that it prepaid in so many words.
struct Story {
    world: World,
    seller: Peer,
    buyer: Peer,
    films: u64,
}

impl Story {
    async fn begin(budget: &str) -> Self {
        let world = world().await;
        let seller = world.node_with("seller", MIN_TOPUP).await;
        let buyer = world.node_with("buyer", budget).await;
        world.fund(&buyer).await;
        let mut story = Self { world, seller, buyer, films: 0 };
        let verb = story.order(MIB).await;
        let verb: Vec<&str> = verb.iter().map(String::as_str).chain(["--prepay", "300000sat", "--yes"]).collect();
        story.buyer.ask(&verb).await;
        assert_eq!(story.spent_sat().await, 0, "what a person said does not count");
        story
    }

    /// Publishes another film; the command that buys it.
    async fn order(&mut self, len: u64) -> Vec<String> {
        self.films += 1;
        let film = self.world.file(&format!("film-{}", self.films), len);
        let link = format!("{}?addr={}", self.seller.publish(&film, PRICE).await, self.seller.addr());
        let dest = self.world.path(&format!("bought-{}", self.films));
        ["get", &link, "-o", path(&dest)].map(str::to_owned).to_vec()
    }

    /// What `status` says was paid unasked within a day.
    async fn spent_sat(&self) -> u64 {
        let budget = &self.buyer.one(&["status"], "status").await["budget"];
        assert_eq!(budget["day_spent_sat"], budget["month_spent_sat"]);
        number(&budget["day_spent_sat"])
    }

    /// The payments of the buyer's wallet, in sat with their fees; the first is the one that was asked for.
    async fn payments(&self) -> Vec<u64> {
        let history = self.buyer.ask(&["wallet", "history"]).await;
        let sent = history.iter().filter(|line| line["type"] == "tx" && number(&line["sent_sat"]) > 0);
        let mut costs: Vec<u64> = sent.map(|line| number(&line["sent_sat"]) - number(&line["received_sat"])).collect();
        costs.reverse();
        costs
    }
}

fn words(verb: &[String]) -> Vec<&str> {
    verb.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_pays_unasked_until_its_budget_is_spent() {
    let mut story = Story::begin(BUDGET).await;
    for _ in 0..2 {
        let verb = story.order(SMALL).await;
        story.buyer.ask(&words(&verb)).await;
    }
    let spent = story.spent_sat().await;
    assert_eq!(spent, story.payments().await[1..].iter().sum::<u64>(), "fees and all");

    let verb = story.order(SMALL).await;
    let error = story.buyer.refuses(&words(&verb), 11).await;
    assert_eq!(error["code"], "over_budget", "{error}");
    let message = text(&error["message"]);
    assert!(message.contains(&format!("{spent} of {DAY_SAT} sat")), "{message}");
    let hint = text(&error["hint"]);
    assert!(["wait until", "--prepay", "day_sat"].iter().all(|word| hint.contains(word)), "{hint}");
    assert_eq!((story.spent_sat().await, story.payments().await.len()), (spent, 3), "nothing was paid");

    // A person may always.
    let mut asked = words(&verb);
    asked.extend(["--prepay", "20000sat", "--yes"]);
    story.buyer.ask(&asked).await;
    assert_eq!(story.spent_sat().await, spent);
    let Tab { paid, .. } = agreed(&story.seller, &story.buyer).await;
    assert_eq!(paid, (PREPAID_SAT + 2 * ADVANCE_SAT + 20_000) * 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_budget_pays_nothing_unasked() {
    let mut story = Story::begin("[budget]\nday_sat = 0\n").await;
    let verb = story.order(SMALL).await;
    let error = story.buyer.refuses(&words(&verb), 11).await;
    assert_eq!(error["code"], "over_budget", "{error}");
    assert_eq!(story.payments().await.len(), 1);
}

/// The wallet's first write after the payment was counted; then the sync with which it is signed.
const CUTS: [(&str, u64); 2] = [("pwrite64", 1), ("fsync", 2)];

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_counts_once_whenever_the_power_is_cut() {
    let mut story = Story::begin(BUDGET).await;
    story.world.mine_by_hand();
    let mut fired = 0;
    for (made, (name, number)) in (0..).zip(CUTS) {
        let verb = story.order(SMALL).await;
        let before = story.spent_sat().await;
        let call = Call { name: name.to_owned(), number };
        let wal = story.buyer.home.dir.join("wallet.sqlite-wal");
        let trace = story.world.path(&format!("trace-{made}"));
        let Some(mut strace) = strace([wal], &trace, Some(&call)).await else { return };
        let mut strace = strace.arg("-p").arg(story.buyer.pid().to_string()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(strace.stderr.take().unwrap()).lines();
        let attached = said.next_line().await.unwrap().unwrap_or_default();
        if !attached.contains("attached") {
            eprintln!("SKIPPED: nothing may be attached to here: {attached}");
            return;
        }
        let get = story.buyer.begin(&words(&verb));
        story.buyer.fell().await;
        get.fails(5).await;
        strace.wait().await.unwrap();
        fired += 1;

        // Counted, and paid at most once: whatever is signed was counted before.
        let (counted, signed) = (Journal::of(&story.buyer).spendings().len(), signed(&story.buyer) - 1);
        println!("cut at {call:?}: {counted} are counted, {signed} are signed");
        assert_eq!(counted, made + 1, "it was counted before anything was signed");
        assert!(signed == made || signed == made + 1);
        story.buyer.restart().await;
        let after = story.spent_sat().await;
        assert!(after >= before + ADVANCE_SAT, "neither forgotten nor freed: {before}, then {after}");
        story.world.mine_what_waits();
        story.buyer.ask(&words(&verb)).await;
        story.world.mine_by_hand();
        let payments = story.payments().await;
        assert_eq!(payments.len(), made + 2, "nothing is paid twice");
        let spent = story.spent_sat().await;
        let exact: u64 = payments[1..].iter().sum();
        assert!(
            spent >= exact && spent - exact < 1_000,
            "each once, with its dearest fee at most: {payments:?}, {spent}"
        );
        let tab = agreed(&story.seller, &story.buyer).await;
        assert_eq!(tab.paid, (PREPAID_SAT + (made as u64 + 1) * ADVANCE_SAT) * 1_000);
    }
    let verb = story.order(SMALL).await;
    assert_eq!(story.buyer.refuses(&words(&verb), 11).await["code"], "over_budget");
    println!("faults fired: {fired}");
    assert_eq!(fired, CUTS.len());
}

/// How many payments the wallet of a node that is down has signed.
fn signed(node: &Peer) -> usize {
    let copy = tempfile::tempdir().unwrap();
    for name in ["wallet.sqlite", "wallet.sqlite-wal"] {
        fs::copy(node.home.dir.join(name), copy.path().join(name)).unwrap();
    }
    let db = Connection::open(copy.path().join("wallet.sqlite")).unwrap();
    db.query_row("SELECT count(*) FROM pedlar_versions", [], |row| row.get(0)).unwrap()
}
