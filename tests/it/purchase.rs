//! A stranger finds a file, pays in advance, downloads it; both books agree to the msat.

use std::fs;

use bitcoin::Txid;
use pedlar_protocol::money::Price;
use pedlar_tests::cluster::{Tab, agreed, number, path, text, until};

use crate::{MIB, PRICE, world};

const SIZE: u64 = 3 * MIB + 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_pays_in_advance_and_later_buys_from_the_rest() {
    let world = world().await;
    let (film, song) = (world.file("film", SIZE), world.file("song", MIB));
    let buyer = world.node("buyer").await;
    world.fund(&buyer).await;
    let mut sellers = Vec::new();
    for (number, price) in [(1, "8000sat/GiB"), (2, "7000sat/GiB"), (3, "9000sat/GiB")] {
        let seller = world.node(&format!("seller-{number}")).await;
        let link = seller.publish(&film, price).await;
        sellers.push((seller, link));
    }

    let offers = until("three offers are known", async || {
        let mut lines = buyer.ask(&["market", "chunks"]).await;
        lines.retain(|line| line["type"] == "offer");
        (lines.len() == 3).then_some(lines)
    })
    .await;
    let prices: Vec<u64> = offers.iter().map(|offer| number(&offer["price_msat_per_gib"])).collect();
    assert_eq!(prices, [7_000_000, 8_000_000, 9_000_000], "cheapest first");

    let (cheapest, link) = &sellers[1];
    assert!(!link.contains("addr"), "the link leads nowhere by itself");
    let (first, second) = (world.path("first.bin"), world.path("second.bin"));
    let lines = buyer.ask(&["get", link, "-o", path(&first), "--prepay", "2000sat", "--yes"]).await;
    let summary = lines.last().unwrap();
    assert_eq!(fs::read(&first).unwrap(), fs::read(&film).unwrap());
    let charge = Price::per_gib(7_000_000).charge(SIZE).unwrap().msat();
    assert_eq!((number(&summary["bytes"]), number(&summary["paid_msat"])), (SIZE, charge));
    assert_eq!(summary["sellers"].as_array().unwrap().len(), 1);
    assert_eq!(summary["sellers"][0]["peer"], cheapest.id.as_str());

    let txid: Txid = text(&summary["txid"]).parse().unwrap();
    let paid = world.chain.tx(&txid).expect("the advance is on the chain");
    assert!(paid.height.is_some() && paid.tx.output.iter().any(|output| output.value.to_sat() == 2_000));
    assert_eq!(agreed(cheapest, &buyer).await, Tab { paid: 2_000_000, spent: charge });

    let link = cheapest.publish(&song, "7000sat/GiB").await;
    let lines = buyer.ask(&["get", &link, "-o", path(&second)]).await;
    assert_eq!(fs::read(&second).unwrap(), fs::read(&song).unwrap());
    assert!(lines.iter().all(|line| line["type"] != "payment"), "the rest of the advance pays");
    let both = charge + Price::per_gib(7_000_000).charge(MIB).unwrap().msat();
    assert_eq!(agreed(cheapest, &buyer).await, Tab { paid: 2_000_000, spent: both });

    let (earned, spent) = (cheapest.one(&["status"], "status").await, buyer.one(&["status"], "status").await);
    assert_eq!((number(&earned["earned_msat"]), number(&spent["spent_msat"])), (both, both));
    for (seller, _) in [&sellers[0], &sellers[2]] {
        assert_eq!(seller.tab(&buyer.id, "sold").await, Tab::default(), "who sold nothing is paid nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_the_payload_a_stream_carries_at_most_six_bytes_in_a_thousand() {
    /// Proofs take 64 bytes for each 16 KiB, 0.39 %; frames, receipts and what each range proves again have the rest.
    const MOST_PER_MILLE: f64 = 6.0;
    const BIG: u64 = 16 * MIB + 5;
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", BIG);
    let link = seller.publish(&film, PRICE).await;
    buyer.pay(&seller, "1000sat").await;
    let dest = world.path("bought");
    let lines = buyer.ask(&["get", &link, "-o", path(&dest)]).await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    let share = &lines.last().unwrap()["sellers"][0];
    let (bytes, wire) = (number(&share["bytes"]), number(&share["wire_bytes"]));
    assert_eq!(bytes, BIG);
    // The hash tree alone is as much: a figure below it would have counted something else.
    let least = BIG + (BIG.div_ceil(16 << 10) - 1) * 64;
    let per_mille = (wire - bytes) as f64 * 1_000.0 / bytes as f64;
    println!("{wire} bytes in both directions for {bytes} of payload: {per_mille:.2} in a thousand beside them");
    assert!(wire >= least && per_mille <= MOST_PER_MILLE, "{wire} bytes, at least {least}: {per_mille:.2} per mille");
}
