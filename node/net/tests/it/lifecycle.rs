//! Starting and stopping: errors name what is wrong, nothing is left behind.

use std::net::TcpListener;

use pedlar_net::{Multiaddr, OpenError, ProvideError, SpawnError};

use crate::cluster::{ECHO, QUIC, TCP, assert_echo, eventually, node, try_node, within};

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_frees_the_ports() {
    for listen in [TCP, QUIC] {
        let first = node(|config| config.listen = vec![listen.parse().unwrap()]).await;
        let (peer, addrs, net) = first.echo();
        let buyer = node(|config| config.listen = vec![listen.parse().unwrap()]).await;
        let stream = buyer.net.open(peer, addrs.clone(), ECHO).await.unwrap();
        within(net.shutdown()).await;
        drop(stream);
        eventually("the port is free", || async { try_node(|config| config.listen.clone_from(&addrs)).await.is_ok() })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port()).parse().unwrap();
    let refused = try_node(|config| config.listen = vec![addr.clone()]).await.err().unwrap();
    assert!(refused.to_string().contains(&addr.to_string()), "{refused}");
    let first = node(|_| {}).await;
    let second = try_node(|config| config.listen = first.addrs()).await;
    assert!(matches!(second, Err(SpawnError::Listen { .. })), "two nodes don't share a port");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_named() {
    let with = async |change: fn(&mut pedlar_net::NetConfig)| try_node(change).await.err().unwrap().to_string();
    let dns = with(|config| config.listen = vec!["/dns4/example.org/tcp/1".parse().unwrap()]).await;
    assert!(dns.contains("names are not resolved"), "{dns}");
    let idless = with(|config| config.bootstrap = vec!["/ip4/9.9.9.9/tcp/1".parse().unwrap()]).await;
    assert!(idless.contains("peer id is missing"), "{idless}");
    let network = with(|config| config.network = "Main Net".to_owned()).await;
    assert!(network.contains("\"Main Net\""), "{network}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_end_every_call_says_so() {
    let node = node(|_| {}).await;
    node.net.shutdown().await;
    node.net.shutdown().await;
    assert_eq!(node.net.provide([1; 32]).await, Err(ProvideError::Stopped));
    let open = node.net.open(pedlar_net::PeerId::random(), vec![], ECHO).await;
    assert_eq!(open.unwrap_err(), OpenError::Stopped);
    assert!(node.net.peers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_transports_at_once_and_two_networks_that_never_meet() {
    let both = vec![TCP.parse().unwrap(), QUIC.parse().unwrap()];
    let seller = node(|config| config.listen = both).await;
    assert_eq!(seller.addrs().len(), 2);
    let foreign = node(|config| (config.network, config.bootstrap) = ("other".to_owned(), seller.links())).await;
    let refused = foreign.net.open(seller.peer(), seller.addrs(), ECHO).await;
    assert_eq!(refused.unwrap_err(), OpenError::Unsupported(ECHO));
    let (peer, addrs, _net) = seller.echo();
    let buyer = node(|_| {}).await;
    let stream = buyer.net.open(peer, addrs, ECHO).await.unwrap();
    assert_echo(stream, 1000).await;
    let remote = buyer.net.addrs_of(peer).await;
    assert!(remote[0].to_string().contains("/tcp/"), "near by, TCP is preferred: {remote:?}");
}
