//! Links that lead nowhere.

use pedlar_protocol::content::{Kind, Link, Root};
use pedlar_tests::cluster::{path, text};

use crate::{MIB, PRICE, world};

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_not_found_and_it_is_said_where_it_was_searched() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    seller.publish(&world.file("film", MIB), PRICE).await;
    buyer.knows(&seller).await;
    let dest = world.path("nothing.bin");
    let unknown = Link::new(Kind::File, Root::of(b"nobody has this")).to_string();
    let error = buyer.refuses(&["get", &unknown, "-o", path(&dest)], 4).await;
    assert_eq!(error["code"], "not_found");
    let message = text(&error["message"]);
    assert!(message.contains("Kademlia (0 providers)") && message.contains("1 offers"), "{message}");
    assert!(message.contains("0 addresses in the link"), "{message}");

    let gone = format!("{unknown}?addr=/ip4/127.0.0.1/tcp/1/p2p/{}", nobody());
    let error = buyer.refuses(&["get", &gone, "-o", path(&dest)], 20).await;
    assert_eq!(error["code"], "unreachable");
    let message = text(&error["message"]);
    assert!(message.contains("/tcp/1") && message.contains("refused"), "{message}");

    let error = buyer.refuses(&["get", "pedlar:nonsense", "-o", path(&dest)], 2).await;
    assert_eq!(error["code"], "malformed_link");
    assert!(!dest.exists());
}

/// The id of a peer that does not exist.
fn nobody() -> String {
    pedlar_net::PeerId::random().to_string()
}
