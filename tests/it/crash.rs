//! Power cuts: whoever is killed, wherever, the books agree, nothing is paid twice, the download goes on.

use std::fs;

use pedlar_tests::cluster::{Peer, World, agreed, number, path, text};
use pedlar_tests::dice::Dice;

use crate::{MIB, SMALL_WINDOWS, world};

const SIZE: u64 = 32 * MIB;

/// 32 MiB cost 218.75 sat.
const PRICE: &str = "7000sat/GiB";

/// Whom the power cut hits.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Buyer,
    Seller,
    Both,
}

impl Victim {
    const ALL: [Self; 3] = [Self::Buyer, Self::Seller, Self::Both];

    /// With which code a purchase ends that this victim takes part in.
    const fn exit(self) -> i32 {
        match self {
            Self::Seller => 20,
            Self::Buyer | Self::Both => 5,
        }
    }

    async fn dies(self, buyer: &mut Peer, seller: &mut Peer) {
        if matches!(self, Self::Buyer | Self::Both) {
            buyer.kill().await;
        }
        if matches!(self, Self::Seller | Self::Both) {
            seller.kill().await;
        }
    }

    async fn comes_back(self, buyer: &mut Peer, seller: &mut Peer) {
        if matches!(self, Self::Seller | Self::Both) {
            seller.restart().await;
        }
        if matches!(self, Self::Buyer | Self::Both) {
            buyer.restart().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn between_the_intent_to_pay_and_the_credit_nobody_loses_money() {
    let world = world().await;
    let (mut seller, mut buyer) = traders(&world).await;
    for (turn, victim) in (1_u64..).zip(Victim::ALL) {
        // Dear enough that what is left of the last advance does not do.
        let film = world.file(&format!("film-{turn}"), MIB);
        let link = format!("{}?addr={}", seller.publish(&film, "1000000sat/GiB").await, seller.addr());
        let dest = world.path(&format!("bought-{turn}"));
        let verb = ["get", &link, "-o", path(&dest), "--prepay", "1000sat", "--yes"];

        world.mine_by_hand();
        let mut get = buyer.begin(&verb);
        let paid = get.reaches("payment").await;
        victim.dies(&mut buyer, &mut seller).await;
        assert!(!dest.exists(), "the purchase was under way");
        victim.comes_back(&mut buyer, &mut seller).await;

        // Who still waits goes on waiting; otherwise the same command is given again.
        let mut again = if matches!(victim, Victim::Seller) { get } else { buyer.begin(&verb) };
        if !matches!(victim, Victim::Seller) {
            assert_eq!(again.reaches("payment").await["txid"], paid["txid"], "{victim:?}: paid twice");
        }
        assert_eq!(world.waiting_tx().await.to_string(), text(&paid["txid"]));
        world.mine_what_waits();
        world.chain.mine_to_self(1);
        again.succeeds().await;
        assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap(), "{victim:?}");
        assert_eq!(agreed(&seller, &buyer).await.paid, turn * 1_000_000, "{victim:?}");
        assert_eq!(payments(&buyer).await, turn, "{victim:?}: one transaction for each advance");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_a_download_nothing_is_lost_but_time() {
    kill_at_random(6).await;
}

/// The long run of the one above: `cargo test -p pedlar-tests -- --ignored a_thousand_power_cuts --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour"]
async fn a_thousand_power_cuts_in_the_middle_of_downloads() {
    kill_at_random(1_000).await;
}

async fn kill_at_random(kills: u64) {
    const KILLS_A_FILM: u64 = 3;
    let world = world().await;
    let (mut seller, mut buyer) = traders(&world).await;
    let mut dice = Dice::new();
    seller.publish(&world.file("any", 1), PRICE).await;
    buyer.pay(&seller, "500000sat").await;
    for film_number in 0..kills.div_ceil(KILLS_A_FILM) {
        let name = format!("film-{film_number}");
        let film = world.file(&name, SIZE);
        let link = format!("{}?addr={}", seller.publish(&film, PRICE).await, seller.addr());
        let dest = world.path(&format!("{name}.bought"));
        let verb = ["get", &link, "-o", path(&dest)];
        let mut there = 0;
        for kill in 1..=KILLS_A_FILM {
            let mut get = buyer.begin(&verb);
            // Each in another third of the film, so that there is always something left to be killed in.
            there = there.max(SIZE / 4 * (kill - 1)) + 1 + dice.below(SIZE / 8);
            get.reaches_bytes(there).await;
            let victim = Victim::ALL[dice.below(3) as usize];
            victim.dies(&mut buyer, &mut seller).await;
            assert!(!dest.exists(), "the session was running when {victim:?} died");
            get.fails(victim.exit()).await;
            victim.comes_back(&mut buyer, &mut seller).await;
            // Asking for the price exchanges the counters; what the one side has signed the other then has, too.
            buyer.ask(&["get", &link, "-o", path(&world.path("never")), "--dry-run"]).await;
            let tab = agreed(&seller, &buyer).await;
            assert!(tab.spent <= tab.paid, "nothing is sold on credit: {tab:?}");
        }
        let lines = buyer.ask(&verb).await;
        assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap(), "{name}");
        assert!(number(&lines.last().unwrap()["bytes"]) < SIZE, "{name}: what was there is not bought again");
        agreed(&seller, &buyer).await;
        [&film, &dest].into_iter().for_each(|file| fs::remove_file(file).unwrap());
    }
    println!("faults fired: {}", kills.div_ceil(KILLS_A_FILM) * KILLS_A_FILM);
    assert_eq!(payments(&buyer).await, 1, "one transaction for the one advance");
    assert_eq!(agreed(&seller, &buyer).await.paid, 500_000_000);
}

async fn traders(world: &World) -> (Peer, Peer) {
    let seller = world.node_with("seller", SMALL_WINDOWS).await;
    let buyer = world.node_with("buyer", SMALL_WINDOWS).await;
    world.fund(&buyer).await;
    (seller, buyer)
}

/// Transactions that spent coins of this node.
async fn payments(node: &Peer) -> u64 {
    let history = node.ask(&["wallet", "history"]).await;
    history.iter().filter(|line| line["type"] == "tx" && number(&line["sent_sat"]) > 0).count() as u64
}
