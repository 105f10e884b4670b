//! An advance is paid once, whatever happens to the buyer, the seller's server, or the seller's honesty.

use std::fs;
use std::time::Duration;

use pedlar_devnet::electrum::ElectrumServer;
use pedlar_protocol::content::{Kind, Link};
use pedlar_tests::cluster::{Peer, Verb, agreed, path, text, until};
use pedlar_tests::hostile::{Cashier, Manner, Object};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::{MIB, PRICE, world};

/// Long enough for a purchase to pay, if it would.
const WOULD_PAY: Duration = Duration::from_secs(6);

/// That a purchase goes on and pays nothing, at least for as long as paying takes.
async fn pays_nothing(get: &mut Verb) {
    let paid = timeout(WOULD_PAY, get.find(|line| line["type"] == "payment")).await;
    assert!(paid.is_err(), "{paid:?} after {:?}", get.lines());
}

/// How many payments a wallet has made.
async fn payments(peer: &Peer) -> usize {
    let history = peer.ask(&["wallet", "history"]).await;
    history.iter().filter(|line| line["sent_sat"].as_u64() > Some(0)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_is_killed_while_the_seller_is_behind_pays_once() {
    let world = world().await;
    let slow = ElectrumServer::spawn(world.chain.clone(), "127.0.0.1:0").await.unwrap();
    let seller = world.node_asking("seller", &[slow.url()]).await;
    let mut buyer = world.node("buyer").await;
    world.fund(&buyer).await;
    let (film, dest) = (world.file("film", MIB), world.path("bought"));
    let link = format!("{}?addr={}", seller.publish(&film, PRICE).await, seller.addr());
    let verb = ["get", &link, "-o", path(&dest), "--prepay", "5000sat", "--yes"];

    world.mine_by_hand();
    buyer.begin(&verb).reaches("payment").await;
    buyer.kill().await;
    slow.pause();
    world.chain.mine_to_self(1);
    buyer.restart().await;
    let counts = async || (buyer.tab(&seller.id, "bought").await.paid == 5_000_000).then_some(());
    until("the buyer counts its advance", counts).await;
    let mut again = buyer.begin(&verb);
    pays_nothing(&mut again).await;
    println!("faults fired: 1 kill between the payment and the seller's block");
    slow.resume();
    again.succeeds().await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    assert_eq!(agreed(&seller, &buyer).await.paid, 5_000_000);
    assert_eq!((payments(&buyer).await, world.chain.mempool().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_that_denies_what_it_was_paid_is_not_paid_again() {
    let world = world().await;
    let buyer = world.node("buyer").await;
    world.fund(&buyer).await;
    let object = Object::new(fs::read(world.file("film", MIB)).unwrap());
    let thief = Cashier::open(&world, &object, Manner::Denies).await;
    let link = format!("{}?addr={}", Link::new(Kind::File, object.root), thief.addr);
    let dest = world.path("never");
    let verb = ["get", &link, "-o", path(&dest), "--prepay", "5000sat", "--yes"];
    let mut get = buyer.begin(&verb);
    get.reaches("payment").await;
    let counts = async || (buyer.tab(&thief.id.to_string(), "bought").await.paid == 5_000_000).then_some(());
    until("the buyer counts its advance", counts).await;
    drop(get);
    let denied = thief.denied();
    pays_nothing(&mut buyer.begin(&verb)).await;
    println!("faults fired: {}", thief.denied());
    assert!(thief.denied() > denied, "it was asked again");
    assert_eq!((payments(&buyer).await, thief.asked()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_no_word_to_pay_under_or_wants_a_fortune_stops_no_purchase() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", MIB);
    let object = Object::new(fs::read(&film).unwrap());
    // Both are cheaper than the honest one.
    let refuses = Cashier::open(&world, &object, Manner::Refuses).await;
    let greedy = Cashier::open(&world, &object, Manner::WantsAFortune).await;
    let link = seller.publish(&film, PRICE).await;
    let link = format!("{link}?addr={}&addr={}&addr={}", refuses.addr, greedy.addr, seller.addr());
    let dest = world.path("bought");
    let get = buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "5000sat", "--yes"]);
    let lines = get.succeeds().await;
    let failed: Vec<_> = lines.iter().filter(|line| line["type"] == "failed").collect();
    println!("faults fired: {}", refuses.asked());
    assert!(refuses.asked() > 0 && failed.iter().any(|line| line["peer"] == refuses.id.to_string()), "{lines:?}");
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    assert_eq!((greedy.asked(), payments(&buyer).await), (0, 1));
    assert_eq!(agreed(&seller, &buyer).await.paid, 5_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_the_address_comes_has_paid_nothing() {
    let world = world().await;
    let buyer = world.node("buyer").await;
    world.fund(&buyer).await;
    let object = Object::new(fs::read(world.file("film", MIB)).unwrap());
    let seller = Cashier::open(&world, &object, Manner::DeniesSlowly).await;
    let link = format!("{}?addr={}", Link::new(Kind::File, object.root), seller.addr);
    let dest = world.path("never");
    let get = buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "5000sat", "--yes"]);
    until("the seller is asked", async || (seller.asked() > 0).then_some(())).await;
    drop(get);
    until("the seller has answered", async || (seller.given() > 0).then_some(())).await;
    println!("faults fired: {}", seller.given());
    assert_eq!((seller.left(), payments(&buyer).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_whose_node_dies_before_it_answers_is_repeated_by_its_id() {
    let world = world().await;
    let (mut payer, payee) = (world.node("payer").await, world.node("payee").await);
    world.fund(&payer).await;
    let address = text(&payee.one(&["wallet", "receive"], "address").await["address"]).to_owned();
    world.mine_by_hand();

    let id = "5a".repeat(32);
    let request = json!({ "verb": "wallet", "action": "send", "address": address, "amount_sat": 5_000, "id": id,
        "max_sat": null, "max_fee_sat": null });
    // As a client that never hears the answer.
    let mut socket = UnixStream::connect(payer.home.dir.join("api.sock")).await.unwrap();
    socket.write_all(format!("{request}\n").as_bytes()).await.unwrap();
    let txid = world.waiting_tx().await;
    payer.kill().await;
    println!("faults fired: 1 kill between the payment and its answer");

    payer.restart().await;
    let verb = ["wallet", "send", &address, "5000sat", "--id", &id, "--yes"];
    let sent = payer.one(&verb, "sent").await;
    assert_eq!((text(&sent["txid"]), text(&sent["id"])), (txid.to_string().as_str(), id.as_str()));
    assert_eq!((world.chain.mempool(), payments(&payer).await), (vec![txid], 1));
    // Under that name nothing else is paid.
    payer.refuses(&["wallet", "send", &address, "6000sat", "--id", &id, "--yes"], 1).await;
    assert_eq!(payments(&payer).await, 1);
}
