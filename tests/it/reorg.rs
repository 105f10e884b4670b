//! An advance that a reorg takes out of the chain counts no more, until it is mined again.

use std::fs;

use pedlar_protocol::money::Price;
use pedlar_tests::cluster::{Tab, agreed, path, until};

use crate::{MIB, PRICE, world};

#[tokio::test(flavor = "multi_thread")]
async fn an_advance_that_is_reorged_away_buys_nothing_until_it_is_mined_again() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let (first, second) = (world.file("first", MIB), world.file("second", MIB));
    let links = [seller.publish(&first, PRICE).await, seller.publish(&second, PRICE).await];
    let dests = [world.path("first.bought"), world.path("second.bought")];
    let charge = Price::per_gib(7_000_000).charge(MIB).unwrap().msat();

    world.mine_by_hand();
    let mut get = buyer.begin(&["get", &links[0], "-o", path(&dests[0]), "--prepay", "1000sat", "--yes"]);
    get.reaches("payment").await;
    let advance = world.waiting_tx().await;
    assert_eq!(seller.tab(&buyer.id, "sold").await.paid, 0, "what waits for a block counts as nothing");
    world.chain.mine_to_self(1);
    get.succeeds().await;
    assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 1_000_000, spent: charge });

    world.chain.reorg(1).unwrap();
    assert_eq!(world.chain.mempool(), [advance], "it waits again");
    until("it counts no more", async || (seller.tab(&buyer.id, "sold").await.paid == 0).then_some(())).await;
    assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 0, spent: charge });
    // What is on its way again is waited for, and not paid again.
    let mut get = buyer.begin(&["get", &links[1], "-o", path(&dests[1]), "--prepay", "1000sat", "--yes"]);
    get.reaches("awaited").await;
    assert_eq!(world.chain.mempool(), [advance]);
    assert_eq!(seller.tab(&buyer.id, "sold").await.spent, charge, "nothing more was served");

    world.chain.mine_to_self(1);
    until("it counts again", async || (seller.tab(&buyer.id, "sold").await.paid > 0).then_some(())).await;
    until("for the buyer, too", async || (buyer.tab(&seller.id, "bought").await.paid > 0).then_some(())).await;
    get.succeeds().await;
    assert!(fs::read(&dests[1]).unwrap() == fs::read(&second).unwrap());
    assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 1_000_000, spent: 2 * charge });
    assert!(world.chain.mempool().is_empty(), "nothing was paid a second time");
}
