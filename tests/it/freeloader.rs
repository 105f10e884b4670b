//! A buyer that drops its last receipt and comes back gets nothing for free but what MONEY.md 1.3 lets go.

use futures::future::join_all;
use pedlar_protocol::account::{TAIL_FLOOR_BYTES, TAIL_SHARE};
use pedlar_protocol::content::{GROUP_LEN, Groups};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::FIRST_WINDOW;
use pedlar_tests::cluster::{Peer, World, path};
use pedlar_tests::hostile::{Freeloader, Object};

use crate::{MIB, world};

/// The smallest advance, 1,000 sat, buys exactly 2 MiB.
const PRICE: Price = Price::per_gib(512_000_000);
const PAID_BYTES: u64 = 2 * MIB;
const WINDOW: u64 = FIRST_WINDOW / GROUP_LEN;

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_receipt_and_coming_back_brings_at_most_one_tail() {
    let world = world().await;
    let (seller, object) = shop(&world).await;
    let buyer = Freeloader::new(&world, &seller, seller.addrs()).await;
    let nothing = buyer.grab(object.root, &[window(0)], 0).await;
    assert_eq!(nothing.bytes, 0, "a stranger gets nothing at all");
    assert!(matches!(nothing.refused, Some(Refusal::PayFirst { .. })), "{nothing:?}");
    buyer.top_up(&world, 1_000).await;

    let (mut got, mut signed, mut dropped) = (0, 0, 0);
    for round in 0.. {
        // Two windows, a receipt for the first, and away.
        let first = 2 * round * WINDOW;
        let grab = buyer.grab(object.root, &[window(first), window(first + WINDOW)], 1).await;
        (got, signed) = (got + grab.bytes, signed + grab.signed);
        dropped += u64::from(grab.bytes > grab.signed);
        if let Some(refusal) = grab.refused {
            assert!(matches!(refusal, Refusal::PayFirst { .. }), "{refusal:?}");
            break;
        }
    }
    println!("{got} bytes for {PAID_BYTES} paid, {signed} signed for, {dropped} receipts dropped");
    assert!(dropped > 5, "faults fired: {dropped}");
    let forgiven = TAIL_FLOOR_BYTES.max(signed / TAIL_SHARE);
    assert!(got <= PAID_BYTES + forgiven, "{} bytes for nothing", got - PAID_BYTES);
    assert_sold_for_money(&buyer).await;

    // Who signs for everything at last gets on as anybody does.
    buyer.top_up(&world, 1_000).await;
    assert_eq!(buyer.buy(object.root, window(0)).await, FIRST_WINDOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_at_once_that_never_sign_get_what_is_paid_and_one_tail() {
    let world = world().await;
    let (seller, object) = shop(&world).await;
    let buyer = Freeloader::new(&world, &seller, seller.addrs()).await;
    buyer.top_up(&world, 1_000).await;
    let mut got = 0;
    for _ in 0..2 {
        let streams = (0..24).map(|stream| {
            let ranges = [window(2 * stream * WINDOW), window((2 * stream + 1) * WINDOW)];
            let (buyer, root) = (&buyer, object.root);
            async move { buyer.grab(root, &ranges, 0).await }
        });
        let grabs = join_all(streams).await;
        got += grabs.iter().map(|grab| grab.bytes).sum::<u64>();
        assert!(grabs.iter().any(|grab| grab.refused.is_some()), "the advance is used up");
    }
    println!("{got} bytes for {PAID_BYTES} paid, none signed for");
    // The first stream that ends leaves a tail that is let go, until the second one makes it too long.
    assert!(got <= PAID_BYTES + TAIL_FLOOR_BYTES, "{} bytes for nothing", got - PAID_BYTES);
    assert_sold_for_money(&buyer).await;
}

/// A seller with 8 MiB on its shelf.
async fn shop(world: &World) -> (Peer, Object) {
    let seller = world.node("seller").await;
    let film = world.file("film", 8 * MIB);
    seller.ask(&["publish", path(&film), "--price", &format!("{}sat/GiB", PRICE.msat_per_gib() / 1_000)]).await;
    (seller, Object::new(std::fs::read(film).unwrap()))
}

fn window(first: u64) -> Groups {
    Groups::new(first, first + WINDOW).unwrap()
}

/// What left is signed for or held, and all of it is paid but for one tail.
async fn assert_sold_for_money(buyer: &Freeloader) {
    let books = buyer.books().await;
    let (paid, owed) = (Msat::new(books.paid_msat), Msat::new(books.spent_msat + books.held_msat));
    let tail = PRICE.charge(TAIL_FLOOR_BYTES).unwrap();
    assert!(owed <= paid.saturating_add(tail) && books.allowance_msat == 0, "{books:?}");
}
