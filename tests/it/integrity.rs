//! Sellers that lie: what is wrong is refused, not paid, not written, and somebody else finishes.

use std::fs;

use pedlar_protocol::content::{Kind, Link};
use pedlar_protocol::money::Price;
use pedlar_tests::cluster::{World, agreed, number, path, text};
use pedlar_tests::dice::Dice;
use pedlar_tests::hostile::{HostileSeller, Lie, Object};

use crate::{MIB, PRICE, world};

const SIZE: u64 = 2 * MIB + 7;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_seller_lies_about_another_one_finishes() {
    let world = world().await;
    let (honest, buyer) = (world.node("honest").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let mut dice = Dice::new();
    let mut spent = 0;
    honest.publish(&world.file("any", 1), PRICE).await;
    buyer.pay(&honest, "2000sat").await;
    for lie in Lie::ALL {
        let film = world.file(&format!("{lie:?}"), SIZE);
        let link = honest.publish(&film, PRICE).await;
        let liar = open(&world, &film, lie, &mut dice).await;
        let link = format!("{link}?addr={}&addr={}", liar.addr, honest.addr());
        let dest = world.path(&format!("{lie:?}.bought"));

        let lines = buyer.ask(&["get", &link, "-o", path(&dest)]).await;
        assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap(), "{lie:?}: other bytes");
        let failed = lines.iter().find(|line| line["type"] == "failed");
        // What has no end has its price: nobody buys there who can buy elsewhere.
        if let Some(failed) = failed.filter(|_| lie != Lie::Endless) {
            assert_eq!(failed["peer"], liar.id.to_string(), "{failed}");
            println!("{lie:?} at {}: {}", liar.honest_bytes, text(&failed["reason"]));
        }
        assert_eq!(liar.lies() > 0, lie != Lie::Endless, "{lie:?} was told {} times", liar.lies());
        assert_eq!(failed.is_some(), liar.lies() > 0, "{lie:?}: a lie is a failure");

        let from_honest = share(lines.last().unwrap(), &honest.id);
        let from_liar = share(lines.last().unwrap(), &liar.id.to_string());
        assert_eq!(from_honest + from_liar, SIZE, "{lie:?}: each byte is bought once");
        assert!(liar.signed().max(from_liar) <= liar.honest_bytes, "{lie:?}: signed for {}", liar.signed());
        spent += Price::per_gib(7_000_000).charge(from_honest).unwrap().msat();
        assert_eq!(agreed(&honest, &buyer).await.spent, spent);
        let owed = Price::per_gib(1_000).charge(from_liar).unwrap().msat();
        let spent = buyer.tab(&liar.id.to_string(), "bought").await.spent;
        // Who breaks off is asked once more, and each quote rounds up by itself.
        assert!((owed..=owed + 1).contains(&spent), "{lie:?}: {spent} msat for what is worth {owed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_liars_sell_nothing_gets_the_files_name() {
    let world = world().await;
    let buyer = world.node("buyer").await;
    let mut dice = Dice::new();
    for lie in [Lie::FlippedBit, Lie::Garbage, Lie::Surplus, Lie::Larger, Lie::Smaller] {
        let film = world.file(&format!("{lie:?}"), SIZE);
        let liar = open(&world, &film, lie, &mut dice).await;
        let dest = world.path(&format!("{lie:?}.bought"));
        let link = format!("{}?addr={}", Link::new(Kind::File, Object::new(fs::read(&film).unwrap()).root), liar.addr);
        let error = buyer.refuses(&["get", &link, "-o", path(&dest)], 15).await;
        assert_eq!(error["code"], "integrity", "{lie:?}");
        assert!(liar.lies() > 0 && liar.signed() <= liar.honest_bytes, "{lie:?}: signed for {}", liar.signed());
        assert!(!dest.exists());
    }
}

async fn open(world: &World, film: &std::path::Path, lie: Lie, dice: &mut Dice) -> HostileSeller {
    HostileSeller::open(world, Object::new(fs::read(film).unwrap()), lie, dice).await
}

/// Bytes that a summary says to be bought from this seller.
fn share(summary: &serde_json::Value, peer: &str) -> u64 {
    let sellers = summary["sellers"].as_array().expect("sellers");
    sellers.iter().find(|seller| seller["peer"] == peer).map_or(0, |seller| number(&seller["bytes"]))
}
