//! What ends before it is done says so by its exit code, and the same command goes on.

use std::fs;

use pedlar_protocol::money::Price;
use pedlar_tests::cluster::{agreed, number, path, text};

use crate::{MIB, PRICE, SMALL_WINDOWS, world};

/// msat per GiB of [`PRICE`].
const MSAT: Price = Price::per_gib(7_000_000);

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_purchase_ends_with_130_and_the_same_command_goes_on_at_once() {
    const SIZE: u64 = 32 * MIB;
    let world = world().await;
    let seller = world.node_with("seller", SMALL_WINDOWS).await;
    let buyer = world.node_with("buyer", SMALL_WINDOWS).await;
    world.fund(&buyer).await;
    let film = world.file("film", SIZE);
    let link = format!("{}?addr={}", seller.publish(&film, PRICE).await, seller.addr());
    buyer.pay(&seller, "1000sat").await;
    let dest = world.path("bought");
    let verb = ["get", &link, "-o", path(&dest)];
    let mut faults = 0;
    for quarter in 1..=3 {
        let mut get = buyer.begin(&verb);
        get.reaches_bytes(SIZE / 5 * quarter).await;
        get.interrupt();
        assert_eq!(get.fails(130).await["code"], "interrupted");
        assert!(!dest.exists());
        faults += 1;
    }
    let lines = buyer.ask(&verb).await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    let last = number(&lines.last().unwrap()["bytes"]);
    assert!(last <= SIZE / 5 * 2, "{last} of {SIZE} bytes were missing");
    let spent = agreed(&seller, &buyer).await.spent;
    let charge = MSAT.charge(SIZE).unwrap().msat();
    assert!((charge..=charge + faults).contains(&spent), "{spent} msat, {charge} and a rounding for each session");
    println!("faults fired: {faults}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_while_its_payment_waits_says_that_nothing_is_lost() {
    let world = world().await;
    let (seller, mut buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", MIB);
    let link = format!("{}?addr={}", seller.publish(&film, PRICE).await, seller.addr());
    let dest = world.path("bought");
    let verb = ["get", &link, "-o", path(&dest), "--prepay", "2000sat", "--yes"];
    world.mine_by_hand();
    let mut get = buyer.begin(&verb);
    let payment = get.reaches("payment").await;
    buyer.stop().await;
    let error = get.fails(13).await;
    assert_eq!(error["code"], "not_confirmed");
    assert!(text(&error["hint"]).contains("nothing is lost"), "{error}");

    buyer.restart().await;
    let mut get = buyer.begin(&verb);
    get.reaches("awaited").await;
    assert_eq!(world.waiting_tx().await.to_string(), text(&payment["txid"]));
    world.mine_what_waits();
    get.succeeds().await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    assert_eq!(agreed(&seller, &buyer).await.paid, 2_000_000, "paid once");
    println!("faults fired: 1");
}
