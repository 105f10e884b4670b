//! A seller that has had enough of a buyer: nothing is sold to it, nothing of it is lost.

use std::fs;

use pedlar_tests::cluster::{Tab, agreed, path, text};

use crate::{MIB, PRICE, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_buyer_is_told_so_and_keeps_its_balance() {
    let world = world().await;
    let (mut seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let (film, song) = (world.file("film", MIB), world.file("song", MIB));
    let link = seller.publish(&film, PRICE).await;
    buyer.pay(&seller, "1000sat").await;
    buyer.ask(&["get", &link, "-o", path(&world.path("film.bin"))]).await;
    let before = agreed(&seller, &buyer).await;

    let note = "never signs \u{1b}[31mthe last\u{202e} window";
    let blocked = seller.one(&["account", "block", &buyer.id, "--note", note], "block").await;
    assert_eq!((&blocked["blocked"], &blocked["changed"]), (&true.into(), &true.into()));
    // Durable before it was answered.
    seller.kill().await;
    seller.restart().await;
    let link = seller.publish(&song, PRICE).await;
    let account = seller.one(&["account", "show", &buyer.id], "account").await;
    assert_eq!((text(&account["standing"]), text(&account["note"])), ("blocked", note));
    assert!(text(&account["since"]).starts_with("20") && text(&account["reason"]).contains("blocked"), "{account}");

    let dest = world.path("song.bin");
    let error = buyer.refuses(&["get", &link, "-o", path(&dest), "--prepay", "1000sat", "--yes"], 14).await;
    assert!(text(&error["message"]).contains("blocked this node"), "{error}");
    // It would pay for nothing.
    let verb = ["account", "pay", &seller.id, "1000sat", "--yes"];
    let (exit, _) = buyer.begin(&verb).ends().await;
    assert_ne!(exit, Some(0));
    assert_eq!(agreed(&seller, &buyer).await, before);

    seller.ask(&["account", "unblock", &buyer.id]).await;
    assert_eq!(seller.refuses(&["account", "unblock", &buyer.id], 4).await["code"], "not_blocked");
    buyer.ask(&["get", &link, "-o", path(&dest)]).await;
    assert!(fs::read(&dest).unwrap() == fs::read(&song).unwrap());
    let Tab { paid, spent } = agreed(&seller, &buyer).await;
    assert!(paid == before.paid && spent > before.spent, "the balance buys again");
    let error = seller.refuses(&["account", "block", &seller.id], 2).await;
    assert_eq!(error["code"], "own_node");
}
