//! What two nodes know of each other convinces a third, who trusts neither.

use std::fs;

use pedlar_tests::cluster::{Tab, Verb, agreed, number, path, text};
use serde_json::Value;

use crate::{MIB, PRICE, world};

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_the_same_purchase_and_a_changed_file_proves_nothing() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", 3 * MIB);
    let link = seller.publish(&film, PRICE).await;
    buyer.pay(&seller, "1000sat").await;
    buyer.ask(&["get", &link, "-o", path(&world.path("bought"))]).await;
    let Tab { paid, spent } = agreed(&seller, &buyer).await;
    assert!(spent > 0 && paid == 1_000_000);

    // Somebody without a node: the home is a name.
    let nobody = world.home("nobody");
    let mut files = Vec::new();
    for (node, other) in [(&seller, &buyer), (&buyer, &seller)] {
        let file = world.path(&format!("{}.evidence", node.home.name));
        node.ask(&["account", "export", &other.id, path(&file)]).await;
        let error = node.refuses(&["account", "export", &other.id, path(&file)], 2).await;
        assert_eq!(error["code"], "exists");
        let lines = Verb::begin(&nobody, &["verify", path(&file)]).succeeds().await;
        let summary = lines.last().unwrap();
        assert_eq!([&summary["charged_msat"], &summary["paid_msat"]].map(number), [spent, paid], "{lines:?}");
        assert_eq!(number(&summary["unproven_msat"]), 0);
        let proven = lines.iter().find(|line| line["type"] == "proven").expect("what is proven");
        assert_eq!([text(&proven["seller"]), text(&proven["buyer"])], [&*seller.id, &*buyer.id]);
        assert!(lines.iter().any(|line| line["type"] == "payment" && number(&line["sat"]) == 1_000));
        files.push(file);
    }
    let error = seller.refuses(&["account", "export", &seller.id, path(&world.path("own"))], 4).await;
    assert_eq!(error["code"], "no_account");

    let whole = fs::read_to_string(&files[0]).unwrap();
    let mut fired = 0;
    for (what, changed) in changes(&whole) {
        let file = world.path("changed.evidence");
        fs::write(&file, changed).unwrap();
        let error = Verb::begin(&nobody, &["verify", path(&file)]).fails(15).await;
        assert_eq!(error["code"], "bad_evidence", "{what}");
        fired += 1;
    }
    println!("faults fired: {fired}");
    assert!(fired >= 6);
    for none in ["", "\n", "{}\n", "\u{1b}[31m\n", r#"{"type":"topup","topup":{"body":"","signature":""}}"#] {
        let file = world.path("none.evidence");
        fs::write(&file, none).unwrap();
        let error = Verb::begin(&nobody, &["verify", path(&file)]).fails(2).await;
        assert_eq!(error["code"], "no_evidence", "{none:?}");
    }
    let error = Verb::begin(&nobody, &["verify", path(&world.path("missing"))]).fails(2).await;
    assert_eq!(error["code"], "unreadable");
}

/// Files that claim more than is signed or paid.
fn changes(whole: &str) -> Vec<(&'static str, String)> {
    let records: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let edited = |kind: &str, edit: &dyn Fn(&mut Value)| {
        let mut records = records.clone();
        let record = records.iter_mut().find(|record| record["type"] == kind).expect("such a record");
        edit(record);
        records.iter().map(|record| format!("{record}\n")).collect::<String>()
    };
    // The last digit but one: of a body a field, of a signature a part of its scalar.
    let flip = |hex: &mut Value| {
        let mut digits = hex.as_str().unwrap().to_owned();
        let at = digits.len() - 2;
        let other = if digits.as_bytes()[at] == b'0' { "1" } else { "0" };
        digits.replace_range(at..=at, other);
        *hex = digits.into();
    };
    let sale = records.iter().find(|record| record["type"] == "sale").unwrap();
    vec![
        ("a price that the seller did not sign", edited("sale", &|sale| flip(&mut sale["quote"]["body"]))),
        ("bytes that the buyer did not sign for", edited("sale", &|sale| flip(&mut sale["receipt"]["body"]))),
        ("a signature of nobody", edited("sale", &|sale| flip(&mut sale["receipt"]["signature"]))),
        ("an address that the seller did not give", edited("topup", &|topup| flip(&mut topup["topup"]["body"]))),
        ("another output", edited("payment", &|payment| payment["vout"] = 7.into())),
        ("a transaction of no bytes", edited("payment", &|payment| payment["transaction"] = "00".into())),
        ("the same sale twice", format!("{whole}{sale}\n")),
        ("a line that broke off", whole.trim_end().to_owned()),
        ("a line of another program", format!("{whole}{{\"type\":\"promise\"}}\n")),
    ]
}
