//! A node that is told to stop while it is at work.

use std::fs;

use futures::future::join_all;
use pedlar_tests::cluster::{agreed, path, text};
use pedlar_tests::journal::Journal;

use crate::{MIB, PRICE, SMALL_WINDOWS, world};

const BUYERS: usize = 10;
const SIZE: u64 = 64 * MIB;

/// What a node may take to end, ten times over: machines that test are busy.
const LONGEST_S: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_that_is_terminated_in_ten_sessions_ends_in_order_and_loses_no_receipt() {
    let world = world().await;
    let mut seller = world.node_with("seller", SMALL_WINDOWS).await;
    let film = world.file("film", SIZE);
    let link = format!("{}?addr={}", seller.publish(&film, PRICE).await, seller.addr());
    let names: Vec<String> = (0..BUYERS).map(|n| format!("buyer-{n}")).collect();
    let buyers = join_all(names.iter().map(|name| world.node_with(name, SMALL_WINDOWS))).await;
    let dests: Vec<_> = names.iter().map(|name| world.path(&format!("{name}.bought"))).collect();

    // All of them pay before any of it counts, so that they begin at once.
    world.mine_by_hand();
    let begun = buyers.iter().zip(&dests);
    let mut gets: Vec<_> = begun
        .map(|(buyer, dest)| buyer.begin(&["get", &link, "-o", path(dest), "--prepay", "2000sat", "--yes"]))
        .collect();
    for get in &mut gets {
        let pay = get.reaches("pay").await;
        let (address, _) = text(&pay["uri"]).trim_start_matches("bitcoin:").split_once('?').expect("an amount");
        world.pay(address, 2_000);
    }
    world.mine_what_waits();
    join_all(gets.iter_mut().map(|get| get.reaches_bytes(MIB / 4))).await;
    let took = seller.terminate().await;
    println!("faults fired: {BUYERS} sessions cut off by SIGTERM, down in {:.1} s", took.as_secs_f64());
    assert!(took.as_secs() < LONGEST_S, "{took:?}");

    // Each was in a session, and each of these has ended in the journal.
    join_all(gets.into_iter().map(|get| get.fails(20))).await;
    let journal = Journal::of(&seller);
    assert_eq!((journal.sessions().count(), journal.signed().len()), (0, BUYERS));
    assert!(journal.signed().values().all(|units| *units > 0), "{:?}", journal.signed());
    let mut signed = Vec::new();
    for buyer in &buyers {
        signed.push(buyer.tab(&seller.id, "bought").await.spent);
    }
    seller.restart().await;
    for (buyer, spent) in buyers.iter().zip(signed) {
        buyer.ask(&["get", &link, "-o", path(&world.path("never")), "--dry-run"]).await;
        let tab = agreed(&seller, buyer).await;
        assert_eq!((tab.paid, tab.spent), (2_000_000, spent), "all that was signed for counts");
    }
    buyers[0].ask(&["get", &link, "-o", path(&dests[0])]).await;
    assert!(fs::read(&dests[0]).unwrap() == fs::read(&film).unwrap());
}
