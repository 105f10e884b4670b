//! What an owner allows is never exceeded, and a refusal says exactly what would do.

use std::fs;

use pedlar_protocol::money::{Msat, Price};
use pedlar_tests::cluster::{Tab, agreed, number, path, text};

use crate::{MIB, PRICE, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_too_low_names_the_cheapest_and_nothing_is_paid() {
    let world = world().await;
    let (cheap, dear, buyer) = (world.node("cheap").await, world.node("dear").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", 2 * MIB);
    let link = cheap.publish(&film, PRICE).await;
    dear.publish(&film, "9000sat/GiB").await;
    let dest = world.path("film.bin");

    let charge = Price::per_gib(7_000_000).charge(2 * MIB).unwrap();
    let below = format!("{}msat", charge.msat() - 1);
    let error = buyer.refuses(&["get", &link, "-o", path(&dest), "--max", &below, "--yes"], 14).await;
    assert_eq!(error["code"], "too_dear");
    let enough = text(&error["hint"]).split("--max ").nth(1).expect("what would do");
    let cheapest: Msat = enough.parse().unwrap();
    assert!(cheapest >= charge && text(&error["message"]).contains(&cheapest.to_string()), "{error}");
    // Enough for the price and its fee: what is missing now is a word on the advance.
    let error = buyer.refuses(&["get", &link, "-o", path(&dest), "--max", enough, "--yes"], 10).await;
    assert_eq!(error["code"], "advance_required");

    let both = ["get", &link, "-o", path(&dest), "--prepay", "2000sat", "--max", "1999sat", "--yes"];
    let error = buyer.refuses(&both, 11).await;
    assert_eq!(error["code"], "prepay_over_max");

    // The advance fits, but not together with its fee: that can be lost, too.
    let both = ["get", &link, "-o", path(&dest), "--prepay", "2000sat", "--max", "2000sat", "--yes"];
    let error = buyer.refuses(&both, 11).await;
    assert_eq!(error["code"], "over_limit");

    assert!(!dest.exists());
    for seller in [&cheap, &dear] {
        assert_eq!(buyer.tab(&seller.id, "bought").await, Tab::default());
    }
    assert_eq!(buyer.ask(&["wallet", "history"]).await.len(), 2, "the coins that came, and the summary");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_told_the_advance_its_fee_and_the_flag() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", 2 * MIB);
    let dest = world.path("film.bin");
    // 2 MiB for 1,368 sat: above the smallest advance, so the exact one is the charge.
    let link = seller.publish(&film, "700000sat/GiB").await;
    let charge_sat = Price::per_gib(700_000_000).charge(2 * MIB).unwrap().ceil_sat();

    let error = buyer.refuses(&["get", &link, "-o", path(&dest)], 10).await;
    assert_eq!(error["code"], "advance_required");
    let fee = text(&error["message"]).split("fee ").nth(1).expect("a fee").split(' ').next().unwrap().to_owned();
    assert!(text(&error["message"]).contains(&format!("{charge_sat} sat")), "{error}");
    assert!(fee.parse::<u64>().unwrap() > 0, "{error}");
    assert!(text(&error["hint"]).contains(&format!("--prepay {charge_sat}sat")), "{error}");

    let advance = buyer.one(&["get", &link, "-o", path(&dest), "--dry-run"], "advance").await;
    let fee_sat: u64 = fee.parse().unwrap();
    assert_eq!(
        ["amount_sat", "fee_sat", "max_fee_sat"].map(|key| number(&advance[key])),
        [charge_sat, fee_sat, 2 * fee_sat]
    );

    let too_little = format!("{}sat", charge_sat - 1);
    let error = buyer.refuses(&["get", &link, "-o", path(&dest), "--prepay", &too_little, "--yes"], 10).await;
    assert_eq!(error["code"], "advance_too_small");

    let exact = format!("{charge_sat}sat");
    let stingy = ["get", &link, "-o", path(&dest), "--prepay", &exact, "--max-fee", "1sat", "--yes"];
    let error = buyer.refuses(&stingy, 11).await;
    assert!(error["code"] == "fee_above_limit" && text(&error["hint"]).contains("--max-fee"), "{error}");
    buyer.ask(&["get", &link, "-o", path(&dest), "--prepay", &exact, "--yes"]).await;
    assert_eq!(fs::read(&dest).unwrap(), fs::read(&film).unwrap());
    assert_eq!(agreed(&seller, &buyer).await.paid, charge_sat * 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_coins_another_wallet_pays_the_link_and_the_download_goes_on() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    let film = world.file("film", 2 * MIB);
    let link = seller.publish(&film, PRICE).await;
    let dest = world.path("film.bin");

    let mut get = buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "3000sat", "--yes"]);
    let pay = get.reaches("pay").await;
    let uri = text(&pay["uri"]);
    let (address, query) = uri.strip_prefix("bitcoin:").expect("a BIP21 link").split_once('?').expect("an amount");
    assert!(query.contains("amount=0.00003&") && number(&pay["amount_sat"]) == 3_000, "{uri}");
    world.pay(address, 3_000);
    get.reaches("credited").await;
    let lines = get.succeeds().await;
    assert_eq!(fs::read(&dest).unwrap(), fs::read(&film).unwrap());
    assert!(lines.last().unwrap()["txid"].is_null(), "another wallet has paid");
    let tab = agreed(&seller, &buyer).await;
    assert_eq!(tab.paid, Msat::from_sat(3_000).unwrap().msat());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_or_left_with_a_seller_stays_below_all_that_may_be_spent() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    seller.publish(&world.file("film", MIB), PRICE).await;
    buyer.knows(&seller).await;
    let address = text(&seller.one(&["wallet", "receive"], "address").await["address"]).to_owned();

    for verb in [["wallet", "send", &address, "5000sat"], ["account", "pay", &seller.id, "5000sat"]] {
        // The amount fits, and not together with its fee.
        let error = buyer.refuses(&[&verb[..], &["--max", "5000sat", "--yes"]].concat(), 11).await;
        assert_eq!(error["code"], "over_limit");
        assert!(text(&error["message"]).contains("5000 sat"), "{error}");
        let quote = buyer.one(&[&verb[..], &["--max", "6000sat", "--dry-run"]].concat(), "quote").await;
        let (fee, most) = (number(&quote["fee_sat"]), number(&quote["max_fee_sat"]));
        assert!(fee > 0 && most == (2 * fee).min(1_000), "{quote}");
    }
    assert_eq!(buyer.ask(&["wallet", "history"]).await.len(), 2, "the coins that came, and the summary");
    let quote = buyer.one(&["wallet", "send", &address, "5000sat", "--dry-run"], "quote").await;
    let most = format!("{}sat", 5_000 + number(&quote["fee_sat"]));
    let sent = buyer.one(&["wallet", "send", &address, "5000sat", "--max", &most, "--yes"], "sent").await;
    assert_eq!(sent["fee_sat"], quote["fee_sat"]);
}
