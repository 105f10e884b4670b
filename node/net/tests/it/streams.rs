//! Streams: bytes arrive, bursts lose nothing, quotas hold, errors say what happened.

use std::time::{Duration, Instant};

use pedlar_net::{Direction, Limits, Multiaddr, OpenError, PeerEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{ECHO, Node, QUIC, TCP, assert_echo, eventually, next, node, within};

const MIB: u64 = 1024 * 1024;

async fn echo_64_mib_over(listen: &str) {
    let (peer, addrs, _seller) = node(|config| config.listen = vec![listen.parse().unwrap()]).await.echo();
    let buyer = node(|config| config.listen = vec![listen.parse().unwrap()]).await;
    let stream = buyer.net.open(peer, addrs, ECHO).await.unwrap();
    let start = Instant::now();
    assert_echo(stream, 64 * MIB).await;
    println!("64 MiB there and back over {listen}: {:.2?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_back_over_tcp() {
    echo_64_mib_over(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_back_over_quic() {
    echo_64_mib_over(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_tls_is_spoken_to_through_noise() {
    let (peer, addrs, _seller) = node(|_| {}).await.echo();
    let buyer = node(|config| config.tls = false).await;
    assert_echo(buyer.net.open(peer, addrs, ECHO).await.unwrap(), MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_goes_over_quic_where_nobody_answers_over_tcp() {
    let (peer, addrs, _seller) = node(|config| config.listen = vec![QUIC.parse().unwrap()]).await.echo();
    let buyer = node(|_| {}).await;
    buyer.net.dial(peer, addrs.clone()).await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let silent: Multiaddr = format!("/ip4/127.0.0.1/tcp/{free}").parse().unwrap();
    for _ in 0..2 {
        let addrs = [addrs.clone(), vec![silent.clone()]].concat();
        assert_echo(buyer.net.open_bulk(peer, addrs, ECHO).await.unwrap(), MIB).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_32_streams_loses_none() {
    let (peer, addrs, _seller) = node(|_| {}).await.echo();
    for _ in 0..10 {
        let buyer = node(|_| {}).await;
        let burst = (0..32).map(|_| {
            let (net, addrs) = (buyer.net.clone(), addrs.clone());
            tokio::spawn(async move { assert_echo(net.open(peer, addrs, ECHO).await.unwrap(), 1000).await })
        });
        for stream in burst.collect::<Vec<_>>() {
            within(stream).await.unwrap();
        }
        buyer.net.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_a_quota_that_reconnecting_does_not_renew() {
    let limits = Limits { streams_per_peer: 2, ..Limits::default() };
    let mut seller = node(|config| config.limits = limits).await;
    let (peer, addrs) = (seller.peer(), seller.addrs());
    let open = async |buyer: &Node| buyer.net.open(peer, addrs.clone(), ECHO).await;
    let buyer = node(|config| config.secret = [9; 32].into()).await;
    let _both = (open(&buyer).await.unwrap(), open(&buyer).await.unwrap());
    assert_eq!(open(&buyer).await.unwrap_err(), OpenError::Refused);
    buyer.net.shutdown().await;
    let buyer = node(|config| config.secret = [9; 32].into()).await;
    assert_eq!(open(&buyer).await.unwrap_err(), OpenError::Refused, "the old streams are still held");
    drop(next(&mut seller.events.streams).await);
    let _third = open(&buyer).await.unwrap();
    assert_eq!(open(&buyer).await.unwrap_err(), OpenError::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_peers_together_have_a_quota() {
    let limits = Limits { streams_total: 1, ..Limits::default() };
    let mut seller = node(|config| config.limits = limits).await;
    let (one, other) = (node(|_| {}).await, node(|_| {}).await);
    let _taken = one.net.open(seller.peer(), seller.addrs(), ECHO).await.unwrap();
    assert_eq!(other.net.open(seller.peer(), seller.addrs(), ECHO).await.unwrap_err(), OpenError::Refused);
    drop(next(&mut seller.events.streams).await);
    other.net.open(seller.peer(), seller.addrs(), ECHO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_what_it_holds_is_served() {
    let limits = Limits { stream_queue: 4, ..Limits::default() };
    let mut seller = node(|config| config.limits = limits).await;
    let buyer = node(|_| {}).await;
    let mut open = Vec::new();
    for n in 0..4_u8 {
        let mut stream = buyer.net.open(seller.peer(), seller.addrs(), ECHO).await.unwrap();
        stream.write_all(&[n]).await.unwrap();
        stream.flush().await.unwrap();
        open.push(stream);
    }
    assert_eq!(buyer.net.open(seller.peer(), seller.addrs(), ECHO).await.unwrap_err(), OpenError::Refused);
    for n in 0..4 {
        let mut inbound = next(&mut seller.events.streams).await;
        assert_eq!((inbound.peer, inbound.protocol), (buyer.peer(), ECHO));
        assert_eq!(within(inbound.stream.read_u8()).await.unwrap(), n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_happened() {
    let seller = node(|config| config.protocols = vec![ECHO]).await;
    let buyer = node(|_| {}).await;
    let other = buyer.net.open(seller.peer(), seller.addrs(), "other").await;
    assert_eq!(other.unwrap_err(), OpenError::Unsupported("other"));
    let unknown = buyer.net.open(seller.peer(), seller.addrs(), "never heard of").await;
    assert_eq!(unknown.unwrap_err(), OpenError::Unsupported("never heard of"));
    let stranger = node(|_| {}).await;
    let impostor = buyer.net.open(stranger.peer(), seller.addrs(), ECHO).await.unwrap_err();
    assert!(matches!(&impostor, OpenError::Unreachable(why) if why.contains("another peer")), "{impostor}");
    let closed = buyer.net.open(stranger.peer(), vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()], ECHO).await;
    assert!(matches!(&closed, Err(OpenError::Unreachable(why)) if why.contains("/tcp/1")), "{closed:?}");
    let named = buyer.net.open(stranger.peer(), vec!["/dns4/example.org/tcp/1".parse().unwrap()], ECHO).await;
    assert!(matches!(&named, Err(OpenError::Unreachable(why)) if why.contains("not resolved")), "{named:?}");
    let nowhere = buyer.net.open(pedlar_net::PeerId::random(), vec![], ECHO).await.unwrap_err();
    assert!(matches!(&nowhere, OpenError::Unreachable(why) if why.contains("no address")), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_peer_ends_its_streams_and_is_told_once() {
    let mut seller = node(|_| {}).await;
    let mut buyer = node(|_| {}).await;
    let mut stream = buyer.net.open(seller.peer(), seller.addrs(), ECHO).await.unwrap();
    let _inbound = next(&mut seller.events.streams).await;
    let connected = next(&mut buyer.events.peers).await;
    assert!(matches!(&connected, PeerEvent::Connected { peer, addrs }
        if *peer == seller.peer() && *addrs == seller.addrs()));
    let info = buyer.net.peers().await.remove(0);
    assert_eq!((info.direction, info.protocols), (Direction::Outbound, vec![ECHO, "other"]));
    seller.net.shutdown().await;
    assert!(!matches!(within(stream.read(&mut [0; 8])).await, Ok(1..)));
    assert_eq!(next(&mut buyer.events.peers).await, PeerEvent::Disconnected { peer: seller.peer() });
    assert!(buyer.events.peers.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_spares_what_is_in_use_or_useful() {
    let limits = Limits { low_water: 2, high_water: 3, grace: Duration::ZERO, ..Limits::default() };
    let mut hub = node(|config| config.limits = limits).await;
    let mut leaves = Vec::new();
    for _ in 0..6 {
        leaves.push(node(|config| config.kad_server = false).await);
    }
    let (busy, useful) = (&leaves[0], &leaves[1]);
    useful.net.dial(hub.peer(), hub.addrs()).await.unwrap();
    eventually("the useful one is there", || hub.is_connected_to(useful.peer())).await;
    hub.net.set_score(useful.peer(), 50.0).await;
    let _stream = busy.net.open(hub.peer(), hub.addrs(), ECHO).await.unwrap();
    let _inbound = next(&mut hub.events.streams).await;
    for leaf in &leaves[2..] {
        leaf.net.dial(hub.peer(), hub.addrs()).await.unwrap();
    }
    eventually("it is trimmed to low water", || async { hub.net.peers().await.len() <= 2 }).await;
    assert!(hub.is_connected_to(busy.peer()).await && hub.is_connected_to(useful.peer()).await);
}
