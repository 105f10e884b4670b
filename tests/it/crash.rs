//! Power cuts: whoever is killed, wherever, the books agree, nothing is paid twice, the download goes on.
//!
//! A cut counts only if what the dead wrote down proves that it hit: a session whose stream was open, or a top-up that
//! was agreed on and whose payment did not count yet.

use std::collections::BTreeSet;
use std::fs;

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use pedlar_tests::cluster::{Peer, Tab, Verb, World, agreed, number, path, text, until};
use pedlar_tests::dice::{Dice, rounds};
use pedlar_tests::journal::Journal;
use serde_json::Value;

use crate::{MIB, PRICE, SMALL_WINDOWS, world};

/// Proven cuts of one market: together with two others 51, 15 of them while a payment was on its way.
const IN_SESSIONS: u64 = 12;
const IN_PAYMENTS: u64 = 5;

/// What is bought while sessions are cut; three cuts each.
const SIZE: u64 = 12 * MIB;
const CUTS_A_FILM: u64 = 3;

/// An advance, and a MiB that costs so much of it that what is left never buys another.
const ADVANCE_SAT: u64 = 1_000;
const DEAR: &str = "1000000sat/GiB";

/// What is paid in advance for the sessions.
const BALANCE_SAT: u64 = 500_000;

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_cost_nothing_but_time() {
    cut_in_a_market(&mut Dice::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_cost_nothing_but_time_in_another_market() {
    cut_in_a_market(&mut Dice::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_cost_nothing_but_time_in_a_third_market() {
    cut_in_a_market(&mut Dice::new()).await;
}

/// 17 cuts a round: `cargo test -p pedlar-tests -- --ignored a_thousand_power_cuts --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour"]
async fn a_thousand_power_cuts() {
    let mut dice = Dice::new();
    for round in 1..=rounds(59) {
        cut_in_a_market(&mut dice.split()).await;
        println!("{} cuts so far", round * (IN_SESSIONS + IN_PAYMENTS));
    }
}

async fn cut_in_a_market(dice: &mut Dice) {
    let mut story = Story::begin(dice.split()).await;
    let mut tries = 0..3 * (IN_SESSIONS + IN_PAYMENTS);
    while story.in_payments < IN_PAYMENTS && tries.next().is_some() {
        story.cut_a_payment().await;
    }
    story.buyer.pay(&story.seller, &format!("{BALANCE_SAT}sat")).await;
    while story.in_sessions < IN_SESSIONS && tries.next().is_some() {
        story.cut_a_download().await;
    }
    println!("faults fired: {} in sessions, {} in payments", story.in_sessions, story.in_payments);
    assert!(story.in_sessions >= IN_SESSIONS && story.in_payments >= IN_PAYMENTS, "too few cuts hit");
    story.end().await;
}

/// Whom the power cut hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Buyer,
    Seller,
    Both,
}

/// When it hits a payment.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The intent is stored.
    Intended,
    /// The transaction is signed and stored, and goes out.
    Signed,
    /// It has just come into a block.
    Mined,
}

/// A seller and a buyer, and what was done to them.
struct Story {
    world: World,
    seller: Peer,
    buyer: Peer,
    dice: Dice,
    films: u64,
    advances: u64,
    in_sessions: u64,
    in_payments: u64,
}

impl Story {
    async fn begin(dice: Dice) -> Self {
        let world = world().await;
        let seller = world.node_with("seller", SMALL_WINDOWS).await;
        let buyer = world.node_with("buyer", SMALL_WINDOWS).await;
        world.fund(&buyer).await;
        Self { world, seller, buyer, dice, films: 0, advances: 0, in_sessions: 0, in_payments: 0 }
    }

    /// One advance, and a power cut between its intent and its credit.
    async fn cut_a_payment(&mut self) {
        let (film, link, dest) = self.film(MIB, DEAR).await;
        let prepay = format!("{ADVANCE_SAT}sat");
        let verb = ["get", &link, "-o", path(&dest), "--prepay", &prepay, "--yes"];
        let (victim, moment) = (self.victim(), self.moment());
        self.advances += 1;
        self.world.mine_by_hand();
        let mut get = self.buyer.begin(&verb);
        let txid = self.await_moment(moment, &mut get).await;
        self.dies(victim).await;
        let hit = self.dead(victim).all(|journal| journal.uncredited().count() == 1) && !dest.exists();
        self.in_payments += u64::from(hit);
        self.comes_back(victim).await;

        // Who still waits goes on waiting; otherwise the same command is given again.
        self.world.mine_what_waits();
        self.world.chain.mine_to_self(1);
        let went_on = victim == Victim::Seller && get.ends().await.0 == Some(0);
        if !went_on {
            let lines = self.goes_on(&verb).await;
            let again = lines.iter().find(|line| line["type"] == "payment").map(|line| text(&line["txid"]).to_owned());
            assert!(txid.is_none() || again.is_none() || again == txid, "{victim:?} at {moment:?}: paid twice");
        }
        assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap(), "{victim:?} at {moment:?}");
        let tab = agreed(&self.seller, &self.buyer).await;
        assert_eq!(tab.paid, self.advances * ADVANCE_SAT * 1_000, "{victim:?} at {moment:?}");
        println!("{victim:?} cut at {moment:?}, proven: {hit}");
    }

    /// Waits for the moment; the transaction, where it is known by then.
    async fn await_moment(&self, moment: Moment, get: &mut Verb) -> Option<String> {
        if let Moment::Intended = moment {
            let intended = async || Journal::read(&self.buyer).ok()?.uncredited().next().map(drop);
            until("the intent is stored", intended).await;
            return None;
        }
        let payment = get.reaches("payment").await;
        if let Moment::Mined = moment {
            self.world.waiting_tx().await;
            self.world.chain.mine_to_self(1);
        }
        Some(text(&payment["txid"]).to_owned())
    }

    /// One download, and power cuts in the middle of it.
    async fn cut_a_download(&mut self) {
        let (film, link, dest) = self.film(SIZE, PRICE).await;
        let never = self.world.path("never");
        let verb = ["get", &link, "-o", path(&dest)];
        let mut there = 0;
        for cut in 0..CUTS_A_FILM {
            let mut get = self.buyer.begin(&verb);
            // Each in another quarter, so that there is always something left to be cut in.
            there = there.max(SIZE / 4 * cut) + 1 + self.dice.below(SIZE / 8);
            get.reaches_bytes(there).await;
            let victim = self.victim();
            self.dies(victim).await;
            get.fails(if victim == Victim::Seller { 20 } else { 5 }).await;
            let hit = self.dead(victim).all(|journal| journal.sessions().count() == 1) && !dest.exists();
            self.in_sessions += u64::from(hit);
            let counted = self.counted(victim);
            self.comes_back(victim).await;
            // Asking for the price exchanges the counters; what the one side has signed the other then has, too.
            self.goes_on(&["get", &link, "-o", path(&never), "--dry-run"]).await;
            let tab = agreed(&self.seller, &self.buyer).await;
            assert!(tab.spent >= counted, "{victim:?}: receipts are lost: {tab:?} after {counted}");
            assert!(tab.spent <= tab.paid, "{victim:?}: nothing is sold on credit: {tab:?}");
        }
        let lines = self.goes_on(&verb).await;
        assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
        assert!(number(&lines.last().unwrap()["bytes"]) < SIZE, "what was there is not bought again");
        agreed(&self.seller, &self.buyer).await;
        [film, dest].iter().for_each(|file| fs::remove_file(file).unwrap());
    }

    /// Gives a command until the network carries it: who has just come back may have to be dialled again.
    async fn goes_on(&self, verb: &[&str]) -> Vec<Value> {
        let done = async || match self.buyer.begin(verb).ends().await {
            (Some(0), lines) => Some(lines),
            (Some(20), _) => None,
            (code, lines) => panic!("{verb:?} ends with {code:?}: {lines:?}"),
        };
        until("the network carries it", done).await
    }

    /// What the dead have written down that is signed for; where both are, neither holds what the other never had.
    fn counted(&self, victim: Victim) -> u64 {
        if victim == Victim::Both {
            let (seller, buyer) = (Journal::of(&self.seller), Journal::of(&self.buyer));
            assert!(buyer.holds(&seller.signed()), "a receipt left before it was stored");
            assert!(seller.holds(&buyer.acknowledged()), "an acknowledged receipt is lost");
        }
        self.dead(victim).map(|journal| journal.spent_msat()).max().unwrap_or(0)
    }

    /// Nothing was made or lost: the books, the coins, and one transaction for each advance.
    async fn end(mut self) {
        let tab = agreed(&self.seller, &self.buyer).await;
        let advances_sat = self.advances * ADVANCE_SAT + BALANCE_SAT;
        assert_eq!(tab.paid, advances_sat * 1_000);
        let (sold, bought) = (status(&self.seller).await, status(&self.buyer).await);
        let moved = Tab { paid: tab.paid, spent: number(&sold["earned_msat"]) };
        assert_eq!((moved, number(&bought["spent_msat"])), (tab, tab.spent));
        assert_eq!(self.seller.balance().await, advances_sat);
        let history = self.buyer.ask(&["wallet", "history"]).await;
        let sent = history.iter().filter(|line| line["type"] == "tx" && number(&line["sent_sat"]) > 0);
        assert_eq!(sent.count() as u64, self.advances + 1, "one transaction for each advance");
        self.seller.stop().await;
        self.buyer.stop().await;
        for node in [&self.seller, &self.buyer] {
            let payments = Journal::of(node).payments();
            let txids: BTreeSet<_> = payments.iter().flatten().collect();
            assert!(payments.iter().all(|paid| paid.len() == 1), "{payments:?}");
            assert_eq!(txids.len() as u64, self.advances + 1);
            let is_mined = |txid: &[u8; 32]| self.world.chain.tx(&Txid::from_byte_array(*txid)).is_some();
            assert!(txids.into_iter().all(is_mined));
        }
    }

    async fn film(&mut self, len: u64, price: &str) -> (std::path::PathBuf, String, std::path::PathBuf) {
        self.films += 1;
        let film = self.world.file(&format!("film-{}", self.films), len);
        let link = format!("{}?addr={}", self.seller.publish(&film, price).await, self.seller.addr());
        let dest = self.world.path(&format!("bought-{}", self.films));
        (film, link, dest)
    }

    fn victim(&mut self) -> Victim {
        [Victim::Buyer, Victim::Seller, Victim::Both][self.dice.below(3) as usize]
    }

    fn moment(&mut self) -> Moment {
        [Moment::Intended, Moment::Signed, Moment::Mined][self.dice.below(3) as usize]
    }

    async fn dies(&mut self, victim: Victim) {
        if victim != Victim::Seller {
            self.buyer.kill().await;
        }
        if victim != Victim::Buyer {
            self.seller.kill().await;
        }
    }

    async fn comes_back(&mut self, victim: Victim) {
        if victim != Victim::Buyer {
            self.seller.restart().await;
        }
        if victim != Victim::Seller {
            self.buyer.restart().await;
        }
    }

    /// The journals of those that are down.
    fn dead(&self, victim: Victim) -> impl Iterator<Item = Journal> {
        let seller = (victim != Victim::Buyer).then(|| Journal::of(&self.seller));
        let buyer = (victim != Victim::Seller).then(|| Journal::of(&self.buyer));
        seller.into_iter().chain(buyer)
    }
}

async fn status(node: &Peer) -> Value {
    node.one(&["status"], "status").await
}
