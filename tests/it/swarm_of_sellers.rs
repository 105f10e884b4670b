//! A seller dies in the middle, and another one finishes.

use std::fs;
use std::time::Instant;

use pedlar_protocol::money::Price;
use pedlar_tests::cluster::{agreed, number, path};

use crate::{MIB, PRICE, SMALL_WINDOWS, world};

const SIZE: u64 = 24 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn when_a_seller_dies_in_the_middle_another_one_finishes() {
    let world = world().await;
    let mut cheap = world.node_with("cheap", SMALL_WINDOWS).await;
    let dear = world.node_with("dear", SMALL_WINDOWS).await;
    let buyer = world.node_with("buyer", SMALL_WINDOWS).await;
    world.fund(&buyer).await;
    let film = world.file("film", SIZE);
    let link = cheap.publish(&film, PRICE).await;
    dear.publish(&film, "9000sat/GiB").await;
    for seller in [&cheap, &dear] {
        buyer.pay(seller, "1000sat").await;
    }
    let (link, dest) = (format!("{link}?addr={}&addr={}", cheap.addr(), dear.addr()), world.path("bought.bin"));

    let mut get = buyer.begin(&["get", &link, "-o", path(&dest)]);
    get.reaches_bytes(SIZE / 8).await;
    cheap.kill().await;
    let killed = Instant::now();
    get.reaches("failed").await;
    get.reaches("progress").await;
    println!("faults fired: 1; the next seller served {:.2?} after the kill", killed.elapsed());
    assert!(!dest.exists(), "it is not complete");
    let lines = get.succeeds().await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    assert!(lines.iter().any(|line| line["type"] == "failed" && line["peer"] == cheap.id.as_str()));
    let sellers = lines.last().unwrap()["sellers"].as_array().unwrap().clone();
    let bytes: Vec<u64> = sellers.iter().map(|seller| number(&seller["bytes"])).collect();
    assert!(bytes.len() == 2 && bytes.iter().all(|bytes| *bytes > 0), "both have sold: {bytes:?}");
    assert_eq!(bytes.iter().sum::<u64>(), SIZE, "and no byte twice");

    let charge = Price::per_gib(9_000_000).charge(bytes[1]).unwrap().msat();
    assert_eq!(agreed(&dear, &buyer).await.spent, charge);
    cheap.restart().await;
    // The dead one learns of the last receipt when it is asked next.
    buyer.ask(&["get", &link, "-o", path(&world.path("again.bin")), "--dry-run"]).await;
    let charge = Price::per_gib(7_000_000).charge(bytes[0]).unwrap().msat();
    assert_eq!(agreed(&cheap, &buyer).await.spent, charge);
}
