//! Each verb that no other story needs, once through a real process: what it says, and what others then see.

use std::fs;

use bitcoin::Txid;
use pedlar_protocol::money::Price;
use pedlar_tests::cluster::{Verb, agreed, number, path, text, until};
use serde_json::Value;

use crate::{MIB, PRICE, world};

/// msat per GiB of [`PRICE`].
const MSAT: Price = Price::per_gib(7_000_000);

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_shown_with_where_they_come_from_also_while_no_node_runs() {
    let world = world().await;
    let home = world.made_home("asleep", "\nmin_topup_sat = 2000\n").await;
    let lines = Verb::begin(&home, &["config", "show", "--origin"]).succeeds().await;
    let least = setting(&lines, "min_topup_sat");
    let file = fs::read_to_string(home.dir.join("config.toml")).unwrap();
    let line = file.lines().position(|line| line.starts_with("min_topup_sat")).unwrap() + 1;
    assert!(
        least["value"] == "2000" && text(&least["place"]).ends_with(&format!("config.toml line {line}")),
        "{least}"
    );
    assert_eq!(setting(&lines, "log")["origin"], "default");
    assert_eq!(lines.last().unwrap()["running"], false);
    fs::write(home.dir.join("config.toml"), format!("{file}[fess]\n")).unwrap();
    let error = Verb::begin(&home, &["config", "show"]).fails(2).await;
    let at = format!("line {}: there is no setting `fess`", file.lines().count() + 1);
    assert!(text(&error["message"]).contains(&at), "{error}");

    let node = world.node("node").await;
    let lines = node.ask(&["config", "show", "--origin"]).await;
    let listen = setting(&lines, "listen");
    assert_eq!((&listen["origin"], listen["value"].as_array().map(Vec::len)), (&"flag".into(), Some(2)), "{listen}");
    assert_eq!(setting(&lines, "electrum")["origin"], "file");
    assert_eq!(lines.last().unwrap()["running"], true);
    let bare = node.ask(&["config", "show"]).await;
    assert_eq!(bare.len(), lines.len());
    assert!(setting(&bare, "listen")["origin"].is_null(), "only where it is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_tell_who_dialled_whom_and_completions_are_a_script() {
    let world = world().await;
    let first = world.node("first").await;
    let alone = first.one(&["status"], "status").await;
    assert!(alone["reachable"] == "unknown" && text(&alone["reachable_hint"]).contains("none is connected"), "{alone}");
    let second = world.node("second").await;
    let sees = async |node: &pedlar_tests::cluster::Peer, other: &str| {
        until("the other one is connected and has said what it is", async || {
            let lines = node.ask(&["peers"]).await;
            let peers = number(&lines.last().unwrap()["peers"]) as usize;
            assert_eq!(peers, lines.len() - 1);
            let found = lines.into_iter().find(|line| line["peer"] == other)?;
            (!text(&found["agent"]).is_empty()).then_some(found)
        })
        .await
    };
    let (dialled, came) = (sees(&second, &first.id).await, sees(&first, &second.id).await);
    assert_eq!((&dialled["inbound"], &came["inbound"]), (&false.into(), &true.into()));
    assert_eq!(first.one(&["status"], "status").await["reachable"], "yes");
    assert!(text(&dialled["agent"]).starts_with("pedlar/"), "{dialled}");
    assert_eq!(dialled["protocols"].as_array().map(Vec::len), Some(3), "{dialled}");
    assert!(dialled["protocols"].as_array().unwrap().contains(&"chunks".into()), "{dialled}");

    for (shell, mark) in [("bash", "complete -F _pedlar"), ("zsh", "#compdef pedlar"), ("fish", "complete -c pedlar")] {
        let printed = first.home.command(&["completions", shell]).output().await.unwrap();
        let script = String::from_utf8(printed.stdout).unwrap();
        assert!(printed.status.success() && script.contains(mark) && script.contains("unpublish"), "{shell}: {script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_price_has_the_default_one_until_it_is_taken_back() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let song = world.file("song", MIB);
    seller.ask(&["sell", "chunks", "--price", "14000sat/GiB"]).await;
    let published = seller.one(&["publish", path(&song)], "published").await;
    assert_eq!(number(&published["price_msat_per_gib"]), 2 * MSAT.msat_per_gib());
    // A new default holds for what is published already: a lower one at once.
    let selling = seller.one(&["sell", "chunks", "--price", PRICE], "selling").await;
    assert_eq!(number(&selling["price_msat_per_gib"]), MSAT.msat_per_gib());
    let lines = seller.ask(&["published"]).await;
    assert_eq!((lines.len(), &lines[0]["root"], text(&lines[0]["name"])), (2, &published["root"], "song"));
    assert_eq!(number(&lines[0]["price_msat_per_gib"]), MSAT.msat_per_gib());
    let link = format!("{}?addr={}", bare(&published), seller.addr());
    buyer.ask(&["get", &link, "-o", path(&world.path("bought")), "--prepay", "1000sat", "--yes"]).await;
    assert!(fs::read(world.path("bought")).unwrap() == fs::read(&song).unwrap());
    assert_eq!(agreed(&seller, &buyer).await.spent, MSAT.charge(MIB).unwrap().msat());

    seller.ask(&["unpublish", &link]).await;
    assert_eq!(seller.ask(&["published"]).await.len(), 1, "the summary alone");
    assert!(song.exists(), "the file itself is left alone");
    assert_eq!(seller.refuses(&["unpublish", &link], 4).await["code"], "not_published");
    let error = buyer.refuses(&["get", &link, "-o", path(&world.path("again"))], 14).await;
    assert_eq!(error["code"], "no_seller");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_is_found_by_its_name_until_selling_stops() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    let film = world.file("film", MIB);
    let publish = ["publish", path(&film), "--name", "A film", "--price", "0sat/GiB"];
    let published = seller.one(&publish, "published").await;
    assert_eq!(text(&published["name"]), "A film");
    let link = format!("{}?addr={}", bare(&published), seller.addr());
    until("the title is in the offer", async || {
        let offers = buyer.ask(&["market"]).await;
        offers.iter().any(|line| line["titles"][0]["name"] == "A film").then_some(())
    })
    .await;

    // It stays published, and nobody gets it.
    let stopped = seller.one(&["sell", "chunks", "--stop"], "selling").await;
    assert!(stopped["price_msat_per_gib"].is_null(), "{stopped}");
    assert_eq!(seller.ask(&["published"]).await.len(), 2, "the film, and the summary");
    assert!(seller.one(&["status"], "status").await["selling"].is_null());
    let dest = world.path("bought");
    let get = ["get", &link, "-o", path(&dest)];
    assert_eq!(buyer.refuses(&get, 14).await["code"], "no_seller");
    // Offers change once a minute at most.
    until("its offer is taken back", async || (buyer.ask(&["market"]).await.len() == 1).then_some(())).await;
    seller.ask(&["sell", "chunks", "--price", PRICE]).await;
    buyer.ask(&get).await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap(), "its own price is what it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_in_a_file_bring_back_the_node_and_its_coins() {
    let world = world().await;
    let mut old = world.node("old").await;
    world.fund(&old).await;
    let owned = old.balance().await;
    old.stop().await;
    let (home, words) = (world.home("again"), old.home.dir.with_extension("words"));
    let (passphrase, network) = (old.home.passphrase_file(), world.network());
    let network_id = network.strip_prefix("regtest-").unwrap();
    let electrum = world.electrum.url();
    let mut verb = vec!["init", "--restore", "--words-file", path(&words), "--passphrase-file", path(&passphrase)];
    verb.extend(["--network", "regtest", "--network-id", network_id, "--electrum", &electrum]);
    let lines = Verb::begin(&home, &verb).succeeds().await;
    assert_eq!((&lines[0]["type"], text(&lines[0]["peer_id"])), (&"initialized".into(), old.id.as_str()));
    let kept = fs::read_to_string(&words).unwrap();
    assert_eq!(kept.split_whitespace().count(), 12, "they are read, not written");

    let up = ["up", "--listen", "/ip4/127.0.0.1/tcp/0", "--passphrase-file", path(&passphrase)];
    let mut node = Verb::begin(&home, &up);
    assert_eq!(text(&node.reaches("ready").await["peer_id"]), old.id);
    until("the coins are back", async || {
        let balance = Verb::begin(&home, &["wallet", "balance"]).succeeds().await;
        (number(&balance[0]["confirmed_sat"]) == owned).then_some(())
    })
    .await;
    Verb::begin(&home, &["down"]).succeeds().await;
    node.succeeds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_transaction_and_a_bump_takes_its_place() {
    let world = world().await;
    let (payer, payee) = (world.node("payer").await, world.node("payee").await);
    world.fund(&payer).await;
    world.mine_by_hand();
    let mut payees = Vec::new();
    for amount in [10_000, 20_000] {
        let address = payee.one(&["wallet", "receive"], "address").await;
        payees.push(format!("{}={amount}sat", text(&address["address"])));
    }
    let batch = ["wallet", "send", "--to", &payees[0], "--to", &payees[1], "--yes"];
    let error = payer.refuses(&[&batch[..], &["--max-fee", "1sat"]].concat(), 11).await;
    assert_eq!(error["code"], "fee_above_limit");
    let lines = payer.ask(&batch).await;
    let sent: Vec<&Value> = lines.iter().filter(|line| line["type"] == "sent").collect();
    let old: Txid = text(&sent[0]["txid"]).parse().unwrap();
    assert!(sent.len() == 2 && sent[0]["txid"] == sent[1]["txid"] && sent[0]["id"] != sent[1]["id"], "{sent:?}");
    assert_eq!(world.waiting_tx().await, old);
    let paid = |txid| {
        let tx = world.chain.tx(&txid).expect("it is on the chain, or waits").tx;
        [10_000, 20_000].map(|sat| tx.output.iter().filter(|output| output.value.to_sat() == sat).count())
    };
    assert_eq!(paid(old), [1, 1]);

    let old_txid = old.to_string();
    let error = payer.refuses(&["wallet", "bump", &old_txid, "--fee-rate", "101", "--yes"], 11).await;
    assert_eq!(error["code"], "fee_above_ceiling", "100 sat/vB unless the owner says otherwise");
    let error = payer.refuses(&["wallet", "bump", &old_txid, "--max-fee", "1sat", "--yes"], 11).await;
    assert_eq!(error["code"], "fee_above_limit");
    let bumped = payer.one(&["wallet", "bump", &old_txid, "--yes"], "bumped").await;
    let new: Txid = text(&bumped["txid"]).parse().unwrap();
    assert!(number(&bumped["fee_sat"]) > number(&bumped["old_fee_sat"]) && bumped["replaces"] == old_txid, "{bumped}");
    until("the new one has taken its place", async || (world.chain.mempool() == [new]).then_some(())).await;
    assert!(world.chain.tx(&old).is_none(), "the old one is gone");
    assert_eq!(paid(new), [1, 1]);
    world.chain.mine_to_self(1);
    until("it is mined, and came", async || (payee.balance().await == 30_000).then_some(())).await;
    assert!(world.chain.tx(&new).is_some_and(|found| found.height.is_some()));
    let history = payer.ask(&["wallet", "history"]).await;
    let ours = history.iter().filter(|tx| tx["payments"].as_array().is_some_and(|payments| payments.len() == 2));
    assert!(ours.map(|tx| text(&tx["txid"]).to_owned()).eq([new.to_string()]), "one transaction: {history:?}");
}

/// The link of what was published, without addresses.
fn bare(published: &Value) -> &str {
    text(&published["link"]).split('?').next().expect("a link")
}

/// The line of a setting.
fn setting<'a>(lines: &'a [Value], key: &str) -> &'a Value {
    lines.iter().find(|line| line["key"] == key).unwrap_or_else(|| panic!("no {key}: {lines:?}"))
}
