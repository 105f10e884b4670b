//! The purchase on Bitcoin Core and electrs: restarts, reorganisations and replacements that a real mempool allows.

use std::fs;

use pedlar_protocol::money::Price;
use pedlar_tests::cluster::{Peer, Tab, agreed, number, path, text, until};
use pedlar_tests::real_chain::RealWorld;

use crate::{MIB, PRICE};

/// What nobody can spend.
const NOWHERE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

async fn real_world() -> Option<RealWorld> {
    RealWorld::new(env!("CARGO_BIN_EXE_pedlar-under-test")).await
}

fn charge() -> u64 {
    Price::per_gib(7_000_000).charge(MIB).unwrap().msat()
}

/// Waits until both sides count exactly this much as paid.
async fn both_count(seller: &Peer, buyer: &Peer, paid: u64) {
    until("the seller counts it", async || (seller.tab(&buyer.id, "sold").await.paid == paid).then_some(())).await;
    until("the buyer counts it", async || (buyer.tab(&seller.id, "bought").await.paid == paid).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_outlives_restarts_of_everybody() {
    let Some(mut world) = real_world().await else { return };
    let (mut seller, mut buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let (first, second) = (world.file("first", MIB), world.file("second", MIB));
    let links = [seller.publish(&first, PRICE).await, seller.publish(&second, PRICE).await];
    let dests = [world.path("first.bought"), world.path("second.bought")];

    let mut get = buyer.begin(&["get", &links[0], "-o", path(&dests[0]), "--prepay", "1000sat", "--yes"]);
    get.reaches("payment").await;
    let advance = world.chain.waiting_tx(&[]).await;
    assert_eq!(seller.tab(&buyer.id, "sold").await.paid, 0, "what waits for a block counts as nothing");
    world.chain.restart_electrs().await;
    buyer.kill().await;
    drop(get);
    seller.stop().await;
    seller.restart().await;
    buyer.restart().await;
    world.chain.restart_core().await;
    assert_eq!(world.chain.mempool(), [advance], "it still waits, alone");
    world.chain.mine(1);
    both_count(&seller, &buyer, 1_000_000).await;
    buyer.knows(&seller).await;
    buyer.ask(&["get", &links[0], "-o", path(&dests[0]), "--prepay", "1000sat", "--yes"]).await;
    buyer.ask(&["get", &links[1], "-o", path(&dests[1])]).await;
    assert!(fs::read(&dests[0]).unwrap() == fs::read(&first).unwrap());
    assert!(fs::read(&dests[1]).unwrap() == fs::read(&second).unwrap());
    assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 1_000_000, spent: 2 * charge() });
    assert!(world.chain.mempool().is_empty(), "nothing was paid a second time");
    println!("faults fired: 5 restarts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganised_advance_is_taken_back_and_comes_again() {
    reorgs(1..=2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: reorganisations up to the depth at which money is final"]
async fn advances_are_taken_back_at_every_depth() {
    reorgs(1..=6).await;
}

async fn reorgs(depths: std::ops::RangeInclusive<u64>) {
    let Some(world) = real_world().await else { return };
    let (mut seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", MIB);
    let link = seller.publish(&film, PRICE).await;
    let dest = world.path("film.bought");
    buyer.knows(&seller).await;
    let get = buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "1000sat", "--yes"]);
    let advance = world.chain.waiting_tx(&[]).await;
    world.chain.mine(1);
    get.succeeds().await;
    let spent = charge();
    assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 1_000_000, spent });

    let (mut fired, deepest) = (0, *depths.end());
    for depth in depths {
        world.chain.mine(depth - 1);
        until("it is that deep", async || (world.chain.confirmations(advance) == Some(depth)).then_some(())).await;
        world.chain.reorg(depth);
        assert_eq!(world.chain.mempool(), [advance], "it waits again");
        both_count(&seller, &buyer, 0).await;
        // What is on its way again is waited for, and not paid again.
        let again = world.path(&format!("again-{depth}"));
        buyer.begin(&["get", &link, "-o", path(&again), "--prepay", "1000sat", "--yes"]).reaches("awaited").await;
        assert_eq!(world.chain.mempool(), [advance]);
        if depth == deepest {
            seller.kill().await;
            seller.restart().await;
        }
        world.chain.mine(1);
        both_count(&seller, &buyer, 1_000_000).await;
        assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 1_000_000, spent });
        fired += 1;
    }
    assert!(world.chain.mempool().is_empty(), "nothing was paid a second time");
    println!("faults fired: {fired} reorganisations");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advance_that_is_bumped_is_credited_once() {
    let Some(world) = real_world().await else { return };
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", MIB);
    let link = seller.publish(&film, PRICE).await;
    let dest = world.path("film.bought");
    buyer.knows(&seller).await;

    let mut get = buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "1000sat", "--yes"]);
    let old = text(&get.reaches("payment").await["txid"]).parse().unwrap();
    world.chain.waiting_tx(&[]).await;
    let bumped = buyer.one(&["wallet", "bump", &format!("{old}"), "--fee-rate", "9", "--yes"], "bumped").await;
    let new = text(&bumped["txid"]).parse().unwrap();
    until("the old one is replaced", async || (world.chain.mempool() == [new]).then_some(())).await;
    assert_eq!(seller.tab(&buyer.id, "sold").await.paid, 0, "neither counts before it is in a block");
    world.chain.mine(1);
    get.succeeds().await;
    assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 1_000_000, spent: charge() });
    world.chain.mine(6);
    both_count(&seller, &buyer, 1_000_000).await;
    assert_eq!((world.chain.confirmations(new), world.chain.confirmations(old)), (Some(7), None));
    println!("faults fired: 1 replacement");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advance_that_its_payer_takes_back_counts_as_nothing() {
    let Some(world) = real_world().await else { return };
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    let film = world.file("film", MIB);
    let link = seller.publish(&film, PRICE).await;
    let dest = world.path("film.bought");
    buyer.knows(&seller).await;

    // Without coins of its own, so that another wallet pays, which may change its mind.
    let mut get = buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "1000sat", "--yes"]);
    let uri = text(&get.reaches("pay").await["uri"]).to_owned();
    let address = uri.strip_prefix("bitcoin:").and_then(|rest| rest.split('?').next()).expect("a BIP21 link");
    let (advance, elsewhere) = (world.chain.payment(address, 1_000, 2), world.chain.payment(NOWHERE, 1_000, 20));
    world.chain.send(&advance);
    let seen = async || {
        let status = seller.one(&["wallet", "balance"], "balance").await;
        (number(&status["pending_sat"]) == 1_000).then_some(())
    };
    until("the seller sees it", seen).await;
    assert_eq!(seller.tab(&buyer.id, "sold").await.paid, 0);
    world.chain.send(&elsewhere);
    assert_eq!(world.chain.mempool(), [elsewhere.compute_txid()], "it is replaced");
    world.chain.mine(2);
    let gone = async || {
        let balance = seller.one(&["wallet", "balance"], "balance").await;
        (number(&balance["pending_sat"]) == 0 && number(&balance["confirmed_sat"]) == 0).then_some(())
    };
    until("the seller has nothing", gone).await;
    assert_eq!(seller.tab(&buyer.id, "sold").await, Tab::default());

    world.chain.send(&world.chain.payment(address, 1_000, 2));
    world.chain.mine(1);
    get.succeeds().await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 1_000_000, spent: charge() });
    println!("faults fired: 1 double spend");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_transaction_that_core_relays() {
    let Some(world) = real_world().await else { return };
    let node = world.node("node").await;
    world.fund(&node).await;
    let to: Vec<String> = (1..=10).map(|n| format!("{NOWHERE}={}sat", 1_000 * n)).collect();
    let mut verb = vec!["wallet", "send", "--yes"];
    to.iter().for_each(|to| verb.extend(["--to", to]));
    node.ask(&verb).await;
    let batch = world.chain.waiting_tx(&[]).await;
    world.chain.mine(1);
    until("it is mined", async || (world.chain.confirmations(batch) == Some(1)).then_some(())).await;
    let history = node.ask(&["wallet", "history"]).await;
    let ours = history.iter().find(|line| line["txid"] == batch.to_string()).expect("it is in the history");
    assert_eq!(ours["payments"].as_array().map(Vec::len), Some(10), "{ours}");
}
