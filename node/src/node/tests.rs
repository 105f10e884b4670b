//! Two nodes on loopback, without a chain: what is free needs no money, and what is not is refused.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use pedlar_protocol::content::{Kind, Link, Size};
use pedlar_protocol::money::Price;
use pedlar_wallet::Words;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::blobs::Download;
use crate::config::Flags;
use crate::home::Home;
use crate::purchase::{News, Order, OrderError, PaymentFailure};
use crate::shop::Publication;

async fn node(dir: &Path) -> Node {
    start(dir, &Words::generate().unwrap()).await
}

async fn start(dir: &Path, words: &Words) -> Node {
    let home = Home::resolve(Some(dir), |_| None).unwrap();
    home.create().unwrap();
    let text = "network = \"regtest\"\nnetwork_id = \"0a1b2c3d\"\nelectrum = [\"tcp://127.0.0.1:1\"]\n\
                listen = [\"/ip4/127.0.0.1/tcp/0\"]\n";
    std::fs::write(home.config_file(), text).unwrap();
    let config = Config::load(&home.config_file(), Flags::default(), |_| None).unwrap();
    Node::start(home.lock().unwrap(), config, words.keys()).await.unwrap()
}

async fn publish(node: &Node, dir: &Path, bytes: &[u8], price: Price) -> Link {
    let path = dir.join("sold.bin");
    std::fs::write(&path, bytes).unwrap();
    let publication = Publication { path, name: None, price: Some(price), copy: false };
    let (shelved, _) = node.shop.publish(publication, |_, _| ControlFlow::Continue(())).await.unwrap();
    let addrs = node.net.listen_addrs().into_iter().map(|addr| addr.with_p2p(node.net.peer_id()).unwrap());
    Link { addrs: addrs.collect(), ..Link::new(Kind::File, shelved.blob.root) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_free_file_is_bought_over_the_address_in_its_link() {
    let dir = tempfile::tempdir().unwrap();
    let (seller, buyer) = (node(&dir.path().join("seller")).await, node(&dir.path().join("buyer")).await);
    let bytes: Vec<u8> = (0..9_000_001_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let link = publish(&seller, dir.path(), &bytes, Price::FREE).await;
    let order = Order { link, dest: dir.path().join("bought.bin"), max: None, prepay_sat: None, max_fee_sat: None };
    let outcome = buyer.buyer.buy(&order, &CancellationToken::new(), &|_| {}).await.unwrap();
    assert_eq!(std::fs::read(&outcome.path).unwrap(), bytes);
    assert_eq!((outcome.bytes, outcome.paid.msat()), (bytes.len() as u64, 0));
    seller.run(async {}).await;
    buyer.run(async {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_an_interruption_is_not_bought_again() {
    let dir = tempfile::tempdir().unwrap();
    let (seller, buyer) = (node(&dir.path().join("seller")).await, node(&dir.path().join("buyer")).await);
    let bytes = vec![5; 30_000_000];
    let link = publish(&seller, dir.path(), &bytes, Price::FREE).await;
    let order = Order { link, dest: dir.path().join("bought.bin"), max: None, prepay_sat: None, max_fee_sat: None };
    let (stop, came) = (CancellationToken::new(), AtomicU64::new(0));
    let stopper = |news| {
        if let News::Progress { bytes, .. } = news {
            came.store(bytes, Ordering::Relaxed);
            if bytes > 10_000_000 {
                stop.cancel();
            }
        }
    };
    let interrupted = buyer.buyer.buy(&order, &stop, &stopper).await.unwrap_err();
    assert!(matches!(interrupted, OrderError::Interrupted), "{interrupted}");
    let outcome = buyer.buyer.buy(&order, &CancellationToken::new(), &|_| {}).await.unwrap();
    let (before, after) = (came.into_inner(), outcome.bytes);
    assert!(before > 10_000_000 && before + after <= bytes.len() as u64, "{before} and {after}");
    seller.run(async {}).await;
    buyer.run(async {}).await;
}

/// A node that sells another file under the root of the link, and so claims another size.
async fn liar(dir: &Path, link: &Link) -> Node {
    let words = Words::generate().unwrap();
    let honest = start(dir, &words).await;
    publish(&honest, dir, &[9; 5_000_000], Price::FREE).await;
    let root = *link.root.as_bytes();
    honest.driver.store().ask(move |db| db.execute("UPDATE goods SET root = ?1", [root])).await.unwrap();
    honest.run(async {}).await;
    drop(honest);
    start(dir, &words).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lie_about_the_size_costs_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    let (seller, buyer) = (node(&dir.path().join("seller")).await, node(&dir.path().join("buyer")).await);
    let bytes = vec![5; 1_000_000];
    let mut link = publish(&seller, dir.path(), &bytes, Price::FREE).await;
    let liar = liar(&dir.path().join("liar"), &link).await;
    link.addrs.extend(liar.net.listen_addrs().into_iter().map(|addr| addr.with_p2p(liar.net.peer_id()).unwrap()));
    let order = Order { link, dest: dir.path().join("bought.bin"), max: None, prepay_sat: None, max_fee_sat: None };
    // As an earlier try with the liar leaves it.
    drop(Download::open(order.link.root, Size::new(5_000_000).unwrap(), &order.dest).unwrap());
    let outcome = buyer.buyer.buy(&order, &CancellationToken::new(), &|_| {}).await.unwrap();
    assert_eq!(std::fs::read(&outcome.path).unwrap(), bytes);
    assert_eq!(outcome.sellers.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [seller.net.peer_id()]);
    for node in [seller, buyer, liar] {
        node.run(async {}).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_without_an_advance_is_told_what_to_pay() {
    let dir = tempfile::tempdir().unwrap();
    let (seller, buyer) = (node(&dir.path().join("seller")).await, node(&dir.path().join("buyer")).await);
    let link = publish(&seller, dir.path(), &[7; 100_000], Price::per_gib(7_000_000)).await;
    let order = Order { link, dest: dir.path().join("bought.bin"), max: None, prepay_sat: None, max_fee_sat: None };
    let refused = buyer.buyer.buy(&order, &CancellationToken::new(), &|_| {}).await.unwrap_err();
    let OrderError::Payment(PaymentFailure::Advance(advance)) = refused else { panic!("{refused}") };
    assert!(advance.to_string().starts_with("an advance of 1000 sat"), "{advance}");
    seller.run(async {}).await;
    buyer.run(async {}).await;
}
