//! Without its Electrum server a node trades on what is prepaid; new advances wait, and it says so.

use std::fs;

use pedlar_tests::cluster::{Peer, agreed, path, text, until};
use serde_json::Value;

use crate::{MIB, PRICE, world};

#[tokio::test(flavor = "multi_thread")]
async fn trade_goes_on_and_advances_wait_until_the_server_is_back() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", MIB);
    let link = seller.publish(&film, PRICE).await;
    buyer.pay(&seller, "1000sat").await;

    world.electrum.pause();
    for node in [&seller, &buyer] {
        let server = server_in_state(node, "down").await;
        assert!(!text(&server["reason"]).is_empty() && !text(&server["since"]).is_empty(), "{server}");
    }
    let dest = world.path("bought.bin");
    buyer.ask(&["get", &link, "-o", path(&dest)]).await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap(), "the balance buys");

    let mut pay = buyer.begin(&["account", "pay", &seller.id, "1500sat", "--yes"]);
    let paid = pay.reaches("payment").await;
    for (node, ours) in [(&buyer, true), (&seller, false)] {
        let status = node.one(&["status"], "status").await;
        let waits = status["topups"].as_array().unwrap();
        assert_eq!(waits.len(), 1, "{status}");
        assert_eq!((&waits[0]["amount_sat"], &waits[0]["ours"]), (&1_500.into(), &ours.into()));
    }
    assert!(world.chain.mempool().is_empty(), "nobody could be told of it");
    assert_eq!(agreed(&seller, &buyer).await.paid, 1_000_000);

    world.electrum.resume();
    pay.reaches("credited").await;
    let lines = pay.succeeds().await;
    assert_eq!(lines.last().unwrap()["txid"], paid["txid"]);
    assert_eq!(agreed(&seller, &buyer).await.paid, 2_500_000);
    for node in [&seller, &buyer] {
        server_in_state(node, "up").await;
        let status = node.one(&["status"], "status").await;
        assert_eq!(status["topups"], Value::Array(Vec::new()), "nothing waits any more");
    }
}

/// Waits until the node's server is in this state; how `status` tells it.
async fn server_in_state(node: &Peer, state: &str) -> Value {
    until("the server's state is seen", async || {
        let server = node.one(&["status"], "status").await["servers"][0].clone();
        (server["state"] == state).then_some(server)
    })
    .await
}
