//! Providers are found through a bootstrap node by those who know nothing else.

use pedlar_net::LookupError;

use crate::cluster::{ECHO, Node, assert_echo, eventually, node, within};

const KEY: [u8; 32] = [7; 32];

/// A bootstrap node and `count` others that know only it.
async fn network(count: usize) -> (Node, Vec<Node>) {
    let bootstrap = node(|_| {}).await;
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(node(|config| config.bootstrap = bootstrap.links()).await);
    }
    for node in &nodes {
        eventually("the bootstrap node is found", || node.is_connected_to(bootstrap.peer())).await;
    }
    (bootstrap, nodes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_found_and_reached_through_the_bootstrap_node() {
    let (_bootstrap, mut nodes) = network(6).await;
    let (buyer, seller) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    seller.net.provide(KEY).await.unwrap();
    let (peer, addrs, _seller) = seller.echo();
    eventually("the provider is found", || async {
        let found = buyer.net.providers(KEY, 10).await.unwrap();
        found.len() == 1 && found[0].peer == peer && found[0].addrs == addrs
    })
    .await;
    assert_eq!(buyer.net.addrs_of(peer).await, addrs, "the address is known without asking again");
    let stream = buyer.net.open(peer, vec![], ECHO).await.unwrap();
    assert_echo(stream, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_providers_are_found_up_to_the_limit_and_never_oneself() {
    let (_bootstrap, nodes) = network(6).await;
    for node in &nodes[..4] {
        node.net.provide(KEY).await.unwrap();
    }
    eventually("three others are found", || async { nodes[0].net.providers(KEY, 10).await.unwrap().len() == 3 }).await;
    eventually("all four are found", || async { nodes[5].net.providers(KEY, 10).await.unwrap().len() == 4 }).await;
    assert_eq!(nodes[5].net.providers(KEY, 2).await.unwrap().len(), 2);
    assert!(nodes[5].net.providers([8; 32], 2).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_announced_to_nobody_is_announced_when_somebody_comes() {
    let seller = node(|_| {}).await;
    seller.net.provide(KEY).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let middle = node(|config| config.bootstrap = seller.links()).await;
    eventually("they meet", || middle.is_connected_to(seller.peer())).await;
    let buyer = node(|config| config.bootstrap = middle.links()).await;
    eventually("the provider is found", || async { !buyer.net.providers(KEY, 1).await.unwrap().is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_before_their_bootstrap_node_find_it() {
    let secret = [3; 32];
    let placeholder = node(|config| config.secret = secret.into()).await;
    let (links, listen) = (placeholder.links(), placeholder.addrs());
    placeholder.net.shutdown().await;
    let early = node(|config| config.remembered = links).await;
    let late = node(|config| (config.secret, config.listen) = (secret.into(), listen)).await;
    eventually("the seed is dialled again", || early.is_connected_to(late.peer())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_are_bounded() {
    let (_bootstrap, nodes) = network(1).await;
    let lookups = (0..200).map(|n| {
        let net = nodes[0].net.clone();
        tokio::spawn(async move { net.providers([n; 32], 1).await })
    });
    let mut busy = 0;
    for lookup in lookups.collect::<Vec<_>>() {
        match within(lookup).await.unwrap() {
            Ok(found) => assert!(found.is_empty()),
            Err(error) => {
                assert_eq!(error, LookupError::Busy);
                busy += 1;
            }
        }
    }
    assert!((1..200).contains(&busy), "{busy} of 200 were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_providing_does_not_say_so_any_more() {
    let seller = node(|_| {}).await;
    let buyer = node(|config| config.bootstrap = seller.links()).await;
    seller.net.provide(KEY).await.unwrap();
    eventually("the provider is found", || async { !buyer.net.providers(KEY, 1).await.unwrap().is_empty() }).await;
    // It may hold the record itself, until that expires.
    buyer.net.shutdown().await;
    seller.net.unprovide(KEY).await;
    let other = node(|config| config.bootstrap = seller.links()).await;
    eventually("they meet", || other.is_connected_to(seller.peer())).await;
    assert!(other.net.providers(KEY, 1).await.unwrap().is_empty());
}
