//! Full disks: what can't be kept is not done, what was done is not lost, and all goes on when there is room.

use std::fs;

use pedlar_tests::cluster::{Peer, Tab, World, agreed, number, path, text, until};
use pedlar_tests::disk::{SmallDisk, tell, unreserve};
use pedlar_tests::journal::Journal;

use crate::{MIB, PRICE, SMALL_WINDOWS, world};

const SIZE: u64 = 16 * MIB;

/// Room for a home with its files, and not for much more.
const DISK: u64 = 24 * MIB;

#[test]
fn a_seller_whose_disk_is_full_stops_selling_and_goes_on_by_itself() {
    tell("disk_full::a_seller_whose_disk_is_full_stops_selling_and_goes_on_by_itself", async || {
        let world = world().await;
        let disk = SmallDisk::mount(world.path("seller"), DISK);
        let (mut seller, buyer) = traders(&world).await;
        let (film, link) = film(&world, &seller).await;
        let dest = world.path("bought.bin");
        let verb = ["get", &link, "-o", path(&dest)];

        let mut get = buyer.begin(&verb);
        get.reaches_bytes(MIB).await;
        disk.fill();
        let error = get.fails(20).await;
        assert!(text(&error["message"]).contains("ask again in"), "{error}");
        let alert = alert(&seller, "journal").await;
        assert!(
            text(&alert["message"]).contains("full") && text(&alert["hint"]).contains(path(disk.path())),
            "{alert}"
        );
        // It answers, to its owner and to its customers.
        let error = buyer.refuses(&verb, 14).await;
        assert!(text(&error["message"]).contains("ask again in"), "{error}");

        // A power cut on top of it: what the buyer knows to be counted is in the journal.
        seller.kill().await;
        let counted = buyer.tab(&seller.id, "bought").await.spent;
        let kept = Journal::of(&seller);
        assert_eq!(kept.sessions().count(), 1, "it was cut off in a session");
        assert!(kept.spent_msat() > 0 && kept.spent_msat() <= counted, "{} of {counted}", kept.spent_msat());
        disk.free();
        seller.restart().await;
        buyer.ask(&["get", &link, "-o", path(&world.path("never")), "--dry-run"]).await;
        assert_eq!(agreed(&seller, &buyer).await.spent, counted, "no receipt is lost");

        // Once more, and now there is room before anybody gives up: selling goes on without a word.
        let mut get = buyer.begin(&verb);
        get.reaches_bytes(4 * MIB).await;
        disk.fill();
        get.fails(20).await;
        alert_ends(&seller, &disk).await;
        bought(&buyer, &verb, &film, SIZE - 4 * MIB).await;
        agreed(&seller, &buyer).await;
        println!("faults fired: 2");
    });
}

#[test]
fn a_buyer_whose_journal_can_not_be_written_signs_nothing_more_and_goes_on() {
    tell("disk_full::a_buyer_whose_journal_can_not_be_written_signs_nothing_more_and_goes_on", async || {
        let world = world().await;
        let disk = SmallDisk::mount(world.path("buyer"), DISK);
        let (mut seller, mut buyer) = traders(&world).await;
        let (film, link) = film(&world, &seller).await;
        let dest = world.path("bought.bin");
        let verb = ["get", &link, "-o", path(&dest)];

        let mut get = buyer.begin(&verb);
        get.reaches_bytes(MIB).await;
        disk.fill();
        let error = get.fails(1).await;
        assert_eq!(error["code"], "journal", "{error}");
        assert!(text(&error["hint"]).contains("the same command goes on"), "{error}");
        alert(&buyer, "journal").await;
        // Nothing is paid, either: the wallet's own file is on the same disk.
        let error = buyer.refuses(&["wallet", "send", &address(&seller).await, "5000sat", "--yes"], 1).await;
        assert!(text(&error["message"]).contains("full"), "{error}");

        // Cut off now, each receipt that the seller has must be in the buyer's journal: it was stored before it left.
        buyer.kill().await;
        seller.kill().await;
        let heard = Journal::of(&seller).signed();
        assert!(heard.values().sum::<u64>() > MIB / 2 && Journal::of(&buyer).holds(&heard), "{heard:?}");
        disk.free();
        seller.restart().await;
        buyer.restart().await;
        bought(&buyer, &verb, &film, SIZE - MIB / 2).await;
        agreed(&seller, &buyer).await;
        let history = buyer.ask(&["wallet", "history"]).await;
        let sent = history.iter().filter(|line| line["type"] == "tx" && number(&line["sent_sat"]) > 0);
        assert_eq!(sent.count(), 1, "the advance, and nothing else");
        println!("faults fired: 1");
    });
}

#[test]
fn a_download_that_fills_the_disk_says_what_it_needs_and_goes_on_when_there_is_room() {
    tell("disk_full::a_download_that_fills_the_disk_says_what_it_needs_and_goes_on_when_there_is_room", async || {
        let world = world().await;
        let disk = SmallDisk::mount(world.path("films"), DISK);
        let (seller, buyer) = traders(&world).await;
        let (film, link) = film(&world, &seller).await;
        let dest = disk.path().join("bought.bin");
        let verb = ["get", &link, "-o", path(&dest)];

        // No room for all of it: said before anything is bought.
        disk.fill();
        let error = buyer.refuses(&verb, 1).await;
        assert_disk_full(&error, &disk, SIZE);
        assert_eq!(buyer.tab(&seller.id, "bought").await.spent, 0);
        assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1, "the ballast alone");
        disk.free();

        // Where the file system reserves no room, the disk may fill up in the middle.
        let mut get = buyer.begin(&verb);
        get.reaches_bytes(MIB).await;
        let part = disk.path().join("bought.bin.pedlar-part");
        unreserve(&part, SIZE / 2, SIZE - MIB);
        disk.fill();
        let error = get.fails(1).await;
        let here = buyer.tab(&seller.id, "bought").await.spent * SIZE / full_price();
        assert!((SIZE / 4..SIZE).contains(&here), "{here} bytes are paid for");
        let missing: u64 = text(&error["message"]).split(' ').find_map(|word| word.parse().ok()).expect("how much");
        assert!(missing.abs_diff(SIZE - here) < MIB, "{missing} are missing, {here} are paid for");
        assert_disk_full(&error, &disk, missing);
        let status = buyer.one(&["status"], "status").await;
        assert!(status["alerts"].is_null(), "the node itself wants for nothing: {status}");

        disk.free();
        bought(&buyer, &verb, &film, missing).await;
        let tab = agreed(&seller, &buyer).await;
        assert!(tab.spent <= full_price() + 2, "nothing is bought twice: {tab:?}");
        println!("faults fired: 2");
    });
}

#[test]
fn money_that_comes_while_the_wallet_can_not_write_counts_when_it_can() {
    tell("disk_full::money_that_comes_while_the_wallet_can_not_write_counts_when_it_can", async || {
        let world = world().await;
        let disk = SmallDisk::mount(world.path("seller"), DISK);
        let seller = world.node("seller").await;
        let buyer = world.node("buyer").await;
        world.fund(&buyer).await;
        let (film, link) = film(&world, &seller).await;
        let dest = world.path("bought.bin");
        world.mine_by_hand();
        let mut get = buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "2000sat", "--yes"]);
        get.reaches("payment").await;
        world.waiting_tx().await;
        disk.fill();
        world.mine_what_waits();
        let alert = alert(&seller, "wallet").await;
        assert!(text(&alert["message"]).contains("full"), "{alert}");
        assert_eq!(seller.tab(&buyer.id, "sold").await.paid, 0, "what is not stored does not count");
        alert_ends(&seller, &disk).await;
        get.succeeds().await;
        assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
        assert_eq!(agreed(&seller, &buyer).await, Tab { paid: 2_000_000, spent: full_price() });
        println!("faults fired: 1");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_can_not_be_written_works_on() {
    let world = world().await;
    let log = world.path("seller").join("log");
    fs::create_dir(world.path("seller")).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let mut seller = world.node_with("seller", "log = \"debug\"\n").await;
    // The node has it open, and nobody else is to read it: it has no end.
    fs::remove_file(&log).unwrap();
    seller.publish(&world.file("film", 1), PRICE).await;
    seller.stop().await;
}

async fn traders(world: &World) -> (Peer, Peer) {
    let seller = world.node_with("seller", SMALL_WINDOWS).await;
    let buyer = world.node_with("buyer", SMALL_WINDOWS).await;
    world.fund(&buyer).await;
    seller.publish(&world.file("any", 1), PRICE).await;
    buyer.pay(&seller, "5000sat").await;
    (seller, buyer)
}

async fn film(world: &World, seller: &Peer) -> (std::path::PathBuf, String) {
    let film = world.file("film", SIZE);
    let link = format!("{}?addr={}", seller.publish(&film, PRICE).await, seller.addr());
    (film, link)
}

/// What the film costs in msat, rounded down.
const fn full_price() -> u64 {
    7_000_000 * SIZE / (1 << 30)
}

/// Buys what is missing, at most `most` bytes.
async fn bought(buyer: &Peer, verb: &[&str; 4], film: &std::path::Path, most: u64) {
    let lines = buyer.ask(verb).await;
    assert!(fs::read(verb[3]).unwrap() == fs::read(film).unwrap());
    let bytes = number(&lines.last().unwrap()["bytes"]);
    assert!(bytes <= most, "{bytes} were bought again, {most} were missing");
}

fn assert_disk_full(error: &serde_json::Value, disk: &SmallDisk, bytes: u64) {
    let message = text(&error["message"]);
    assert_eq!(error["code"], "disk_full", "{error}");
    assert!(message.contains(path(disk.path())) && message.contains(&bytes.to_string()), "{error}");
    assert!(text(&error["hint"]).contains("the same command goes on"), "{error}");
}

/// Waits until `status` gives this alert.
async fn alert(node: &Peer, code: &str) -> serde_json::Value {
    until("the node says what is wrong", async || {
        let status = node.one(&["status"], "status").await;
        let alerts = status["alerts"].as_array().cloned().unwrap_or_default();
        alerts.into_iter().find(|alert| alert["code"] == code)
    })
    .await
}

/// Makes room and waits until nothing is wrong.
async fn alert_ends(node: &Peer, disk: &SmallDisk) {
    disk.free();
    until("all is well by itself", async || node.one(&["status"], "status").await["alerts"].is_null().then_some(()))
        .await;
}

async fn address(node: &Peer) -> String {
    text(&node.one(&["wallet", "receive"], "address").await["address"]).to_owned()
}
