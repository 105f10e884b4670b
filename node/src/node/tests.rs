//! Two nodes on loopback, without a chain: what is free needs no money, and what is not is refused.

use std::ops::ControlFlow;
use std::path::Path;

use pedlar_protocol::content::Link;
use pedlar_protocol::money::Price;
use pedlar_wallet::Words;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Flags;
use crate::home::Home;
use crate::purchase::{Order, OrderError, PaymentFailure};
use crate::shop::Publication;

async fn node(dir: &Path) -> Node {
    let home = Home::resolve(Some(dir), |_| None).unwrap();
    home.create().unwrap();
    let text = "network = \"regtest\"\nnetwork_id = \"0a1b2c3d\"\nelectrum = [\"tcp://127.0.0.1:1\"]\n\
                listen = [\"/ip4/127.0.0.1/tcp/0\"]\n";
    std::fs::write(home.config_file(), text).unwrap();
    let (config, _) = Config::load(&home.config_file(), Flags::default(), |_| None).unwrap();
    let keys = Words::generate().unwrap().keys();
    Node::start(home.lock().unwrap(), config, keys).await.unwrap()
}

async fn publish(node: &Node, dir: &Path, bytes: &[u8], price: Price) -> Link {
    let path = dir.join("sold.bin");
    std::fs::write(&path, bytes).unwrap();
    let publication = Publication { path, name: None, price: Some(price), copy: false };
    let shelved = node.shop.publish(publication, |_| ControlFlow::Continue(())).await.unwrap();
    let addrs = node.net.listen_addrs().into_iter().map(|addr| addr.with_p2p(node.net.peer_id()).unwrap());
    Link { addrs: addrs.collect(), ..Link::new(shelved.blob.root) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_free_file_is_bought_over_the_address_in_its_link() {
    let dir = tempfile::tempdir().unwrap();
    let (seller, buyer) = (node(&dir.path().join("seller")).await, node(&dir.path().join("buyer")).await);
    let bytes: Vec<u8> = (0..9_000_001_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let link = publish(&seller, dir.path(), &bytes, Price::FREE).await;
    let order = Order { link, dest: dir.path().join("bought.bin"), max: None, prepay_sat: None };
    let outcome = buyer.buyer.buy(&order, &CancellationToken::new(), &|_| {}).await.unwrap();
    assert_eq!(std::fs::read(&outcome.path).unwrap(), bytes);
    assert_eq!((outcome.bytes, outcome.paid.msat()), (bytes.len() as u64, 0));
    seller.run(async {}).await;
    buyer.run(async {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_without_an_advance_is_told_what_to_pay() {
    let dir = tempfile::tempdir().unwrap();
    let (seller, buyer) = (node(&dir.path().join("seller")).await, node(&dir.path().join("buyer")).await);
    let link = publish(&seller, dir.path(), &[7; 100_000], Price::per_gib(7_000_000)).await;
    let order = Order { link, dest: dir.path().join("bought.bin"), max: None, prepay_sat: None };
    let refused = buyer.buyer.buy(&order, &CancellationToken::new(), &|_| {}).await.unwrap_err();
    let OrderError::Payment(PaymentFailure::Advance(advance)) = refused else { panic!("{refused}") };
    assert!(advance.to_string().starts_with("an advance of 1000 sat"), "{advance}");
    seller.run(async {}).await;
    buyer.run(async {}).await;
}
