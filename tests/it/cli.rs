//! Mistakes on the command line, and the exit code that each has.

use std::fs;

use pedlar_tests::cluster::{Verb, path, text};

use crate::{MIB, PRICE, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_home_opens_to_its_passphrase_alone_and_for_one_node_at_a_time() {
    let world = world().await;
    let mut home = world.made_home("closed", "").await;
    let (right, wrong) = (home.passphrase_file(), world.path("wrong"));
    fs::write(&wrong, "guess").unwrap();
    let up = |file| Verb::begin(&home, &["up", "--listen", "/ip4/127.0.0.1/tcp/0", "--passphrase-file", path(file)]);
    let error = up(&wrong).fails(12).await;
    assert_eq!(error["code"], "wrong_passphrase");

    let mut node = up(&right);
    node.reaches("ready").await;
    let error = up(&right).fails(6).await;
    assert_eq!(error["code"], "locked");
    // The one that was there first is not disturbed, and what it does in order it says so.
    Verb::begin(&home, &["status"]).succeeds().await;
    Verb::begin(&home, &["down"]).succeeds().await;
    node.succeeds().await;

    home = world.home("nowhere");
    let error = Verb::begin(&home, &["up", "--passphrase-file", path(&right)]).fails(2).await;
    assert_eq!(error["code"], "not_initialized");
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_without_a_node_say_how_to_get_one() {
    let world = world().await;
    let home = world.made_home("asleep", "").await;
    let verbs: [&[&str]; 7] = [
        &["status"],
        &["down"],
        &["market"],
        &["published"],
        &["wallet", "balance"],
        &["account", "list"],
        &["get", "pedlar:bafkr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
    ];
    for verb in verbs {
        let error = Verb::begin(&home, verb).fails(5).await;
        assert_eq!(
            (&error["code"], &error["hint"]),
            (&"not_running".into(), &"start it: pedlar up".into()),
            "{verb:?}"
        );
    }
    let error = Verb::begin(&world.home("nowhere"), &["status"]).fails(5).await;
    assert_eq!(error["hint"], "make it first: pedlar init");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_for_a_server_of_the_node_only() {
    let world = world().await;
    let node = world.node("node").await;
    let (server, print) = (world.electrum.url(), "4f".repeat(32));
    let trusted = node.one(&["wallet", "trust", &server, &print], "trusted").await;
    assert_eq!(trusted["fingerprint"], print.as_str());
    let error = node.refuses(&["wallet", "trust", "ssl://127.0.0.1:1", &print], 4).await;
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains(&server)), "{error}");
    node.refuses(&["wallet", "trust", &server, "4f"], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_setting_is_named_with_its_line() {
    let world = world().await;
    let home = world.made_home("typo", "\nmin_topup_sat = 2000\nmin_topup_st = 1000\n").await;
    let config = fs::read_to_string(home.dir.join("config.toml")).unwrap();
    let line = config.lines().position(|line| line.starts_with("min_topup_st ")).unwrap() + 1;
    let error = Verb::begin(&home, &["up", "--passphrase-file", path(&home.passphrase_file())]).fails(2).await;
    let message = text(&error["message"]);
    assert!(message.contains("min_topup_st") && message.contains(&format!("line {line}")), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn init_makes_a_home_once_and_on_a_network_that_it_can_use() {
    let world = world().await;
    let home = world.made_home("made", "").await;
    let words = fs::read_to_string(world.path("made.words")).unwrap();
    assert_eq!(words.split_whitespace().count(), 12);
    let error = init(&world, "made", &["--network", "regtest", "--electrum", "tcp://127.0.0.1:1"]).await;
    assert_eq!(error["code"], "exists");

    let error = init(&world, "no-server", &[]).await;
    assert_eq!(error["code"], "no_electrum");
    assert!(text(&error["hint"]).contains("--electrum ssl://"), "an example: {error}");
    let error = init(&world, "mainnet", &["--network", "bitcoin", "--electrum", "tcp://127.0.0.1:1"]).await;
    assert!(text(&error["message"]).contains("bitcoin"), "{error}");

    let taken = ["--words-file", path(&world.path("made.words")), "--network", "regtest"].map(str::to_owned);
    let taken: Vec<&str> = taken.iter().map(String::as_str).chain(["--electrum", "tcp://127.0.0.1:1"]).collect();
    let error = init(&world, "other", &taken).await;
    assert_eq!(error["code"], "exists", "words are never overwritten");
    assert_eq!(fs::read_to_string(world.path("made.words")).unwrap(), words);
    assert!(home.dir.join("seed").exists() && !world.home("other").dir.join("seed").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_there_is_not_overwritten() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    let link = seller.publish(&world.file("film", MIB), PRICE).await;
    let dest = world.path("there.bin");
    fs::write(&dest, "mine").unwrap();
    let error = buyer.refuses(&["get", &link, "-o", path(&dest)], 2).await;
    assert_eq!(error["code"], "exists");
    assert_eq!(fs::read_to_string(&dest).unwrap(), "mine");

    let error = seller.refuses(&["publish", path(&world.path("missing")), "--price", PRICE], 4).await;
    assert_eq!(error["code"], "no_such_file");
    let error = buyer.refuses(&["publish", path(&dest)], 2).await;
    assert_eq!(error["code"], "no_price");
    let error = buyer.refuses(&["account", "show", &pedlar_net::PeerId::random().to_string()], 4).await;
    assert_eq!(error["code"], "no_account");
}

/// The error of an `init` that is a mistake.
async fn init(world: &pedlar_tests::cluster::World, name: &str, more: &[&str]) -> serde_json::Value {
    let passphrase = world.path("passphrase");
    fs::write(&passphrase, "").unwrap();
    let words = world.path(&format!("{name}.new-words"));
    let mut verb = vec!["init", "--passphrase-file", path(&passphrase)];
    if !more.contains(&"--words-file") {
        verb.extend(["--words-file", path(&words)]);
    }
    verb.extend(more);
    Verb::begin(&world.home(name), &verb).fails(2).await
}
