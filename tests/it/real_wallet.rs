//! Electrum pays what a node asks for and is paid back, on the embedded server and on electrs.

use std::fs;

use pedlar_tests::cluster::{Peer, Place, Tab, agreed, number, path, text, until};
use pedlar_tests::real_chain::RealWorld;
use pedlar_tests::real_wallet::RealWallet;

use crate::{MIB, PRICE, world};

#[tokio::test(flavor = "multi_thread")]
async fn electrum_pays_and_is_paid_on_the_embedded_server() {
    let world = world().await;
    let Some(wallet) = RealWallet::start(&world.electrum.url()).await else { return };
    world.pay(&wallet.address(), 1_000_000);
    // A block comes whenever a transaction waits.
    pays_and_is_paid(&world, &wallet, || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn electrum_pays_and_is_paid_on_electrs() {
    let Some(world) = RealWorld::new(env!("CARGO_BIN_EXE_pedlar-under-test")).await else { return };
    let Some(wallet) = RealWallet::start(&world.chain.url()).await else { return };
    world.chain.send(&world.chain.payment(&wallet.address(), 1_000_000, 2));
    let mine = || {
        if !world.chain.mempool().is_empty() {
            world.chain.mine(1);
        }
    };
    pays_and_is_paid(&world, &wallet, mine).await;
}

async fn pays_and_is_paid(place: &Place, wallet: &RealWallet, mine: impl Fn()) {
    let coins = async || {
        mine();
        (wallet.balance() == "0.01").then_some(())
    };
    until("Electrum has its coins", coins).await;
    let (seller, buyer) = (place.node("seller").await, place.node("buyer").await);
    let film = place.file("film", MIB);
    let link = seller.publish(&film, PRICE).await;
    let dest = place.path("film.bought");
    buyer.knows(&seller).await;

    // The advance of a buyer without coins.
    let mut get = buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "3000sat", "--yes"]);
    wallet.pay(text(&get.reaches("pay").await["uri"]));
    let counts = async || {
        mine();
        (seller.tab(&buyer.id, "sold").await.paid == 3_000_000).then_some(())
    };
    until("the advance counts", counts).await;
    get.succeeds().await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    let spent = agreed(&seller, &buyer).await.spent;
    assert_eq!(seller.tab(&buyer.id, "sold").await, Tab { paid: 3_000_000, spent });

    // Coins for the buyer, and back.
    let asked = buyer.one(&["wallet", "receive", "--amount", "50000sat"], "address").await;
    wallet.pay(text(&asked["uri"]));
    let arrived = async || {
        mine();
        (confirmed(&buyer).await == 50_000).then_some(())
    };
    until("the buyer has the coins", arrived).await;
    let sent = buyer.one(&["wallet", "send", &wallet.address(), "20000sat", "--yes"], "sent").await;
    let back = async || {
        mine();
        wallet.confirmations(text(&sent["txid"])).filter(|depth| *depth > 0)
    };
    until("Electrum sees them come back", back).await;
}

async fn confirmed(peer: &Peer) -> u64 {
    number(&peer.one(&["wallet", "balance"], "balance").await["confirmed_sat"])
}
