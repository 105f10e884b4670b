//! Hundreds of peers at once: connections are trimmed, sessions and lookups go on, strangers' records crowd out nothing.

use std::time::{Duration, Instant};

use pedlar_net::{Limits, PublishError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{ECHO, Node, assert_echo, eventually, next, node, within};

const HONEST: [u8; 32] = [7; 32];
const OWN: [u8; 32] = [8; 32];

/// Streams that stay open while connections are trimmed.
const SESSIONS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_and_twenty_peers_are_trimmed_while_sessions_and_lookups_go_on() {
    crowd(120).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute, and a gigabyte of memory"]
async fn six_hundred_peers_are_trimmed_while_sessions_and_lookups_go_on() {
    crowd(600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_records_of_junk_crowd_out_nothing() {
    junk(22, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute"]
async fn records_of_more_ids_than_a_key_keeps_crowd_out_nothing() {
    junk(220, 5).await;
}

/// A peer that answers no lookups, so that the only ones it has connections to are those it asked for.
async fn leaf(hub: &Node) -> Node {
    node(|config| (config.kad_server, config.bootstrap) = (false, hub.links())).await
}

async fn crowd(peers: usize) {
    let limits = Limits {
        low_water: 20,
        high_water: 40,
        grace: Duration::from_secs(1),
        max_connections: 80,
        ..Limits::default()
    };
    let (low, high, max) = (limits.low_water, limits.high_water, limits.max_connections as usize);
    let mut hub = node(|config| config.limits = limits).await;
    let seller = node(|config| config.bootstrap = hub.links()).await;
    seller.net.provide(HONEST).await.unwrap();
    let buyer = leaf(&hub).await;
    eventually("the seller is found", || async { !buyer.net.providers(HONEST, 1).await.unwrap().is_empty() }).await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let client = leaf(&hub).await;
        let stream = client.net.open(hub.peer(), hub.addrs(), ECHO).await.unwrap();
        sessions.push((client, stream, next(&mut hub.events.streams).await.stream));
    }

    let (mut crowd, mut most, mut lookups, mut found) = (Vec::new(), 0, 0, 0);
    let mut slowest = Duration::ZERO;
    while crowd.len() < peers {
        for _ in 0..10 {
            crowd.push(leaf(&hub).await);
        }
        most = most.max(hub.net.peers().await.len());
        let asked = Instant::now();
        lookups += 1;
        found += usize::from(within(buyer.net.providers(HONEST, 1)).await.is_ok_and(|found| !found.is_empty()));
        slowest = slowest.max(asked.elapsed());
    }
    // Each of the crowd comes back for as long as it is alone, and is trimmed again.
    eventually("it is trimmed", || async { hub.net.peers().await.len() <= high }).await;
    let left = hub.net.peers().await.len();
    println!(
        "faults fired: {peers} peers came; at most {most} were connected, {left} after trimming; {found} of {lookups} \
         lookups answered, the slowest in {slowest:.2?}; low water {low}, high water {high}, limit {max}"
    );
    assert!(most <= max, "{most} connections");
    assert_eq!(found, lookups, "lookups that failed");
    for (_client, ours, theirs) in &mut sessions {
        within(theirs.write_all(b"still here")).await.unwrap();
        within(theirs.flush()).await.unwrap();
        let mut heard = [0; 10];
        within(ours.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"still here", "a session was cut");
    }
    // Gossip is heard as well: its mesh is among what is left.
    let heard = hub.net.publish(b"hello".to_vec()).await;
    assert!(heard.is_ok() || heard == Err(PublishError::NoPeers));
}

async fn junk(ids: usize, keys: u8) {
    let hub = node(|_| {}).await;
    hub.net.provide(OWN).await.unwrap();
    let seller = node(|config| config.bootstrap = hub.links()).await;
    seller.net.provide(HONEST).await.unwrap();
    let (peer, addrs, _seller) = seller.echo();
    let mut strangers = Vec::new();
    for id in 0..ids {
        let stranger = leaf(&hub).await;
        // The honest keys, which all of them claim to have, and as many of their own.
        stranger.net.provide(HONEST).await.unwrap();
        stranger.net.provide(OWN).await.unwrap();
        for key in 0..keys {
            let mut junk = [key; 32];
            junk[..8].copy_from_slice(&id.to_le_bytes());
            stranger.net.provide(junk).await.unwrap();
        }
        strangers.push(stranger);
    }
    let buyer = leaf(&hub).await;
    let last = {
        let mut junk = [keys - 1; 32];
        junk[..8].copy_from_slice(&(ids - 1).to_le_bytes());
        junk
    };
    eventually("the junk has come", || async { !buyer.net.providers(last, 1).await.unwrap().is_empty() }).await;
    let mut asked = 0;
    eventually("the own key is found", || async {
        buyer.net.providers(OWN, 20).await.unwrap().iter().any(|provider| provider.peer == hub.peer())
    })
    .await;
    // Twenty are told at a time, each in its turn.
    let honest = loop {
        asked += 1;
        let found = buyer.net.providers(HONEST, 20).await.unwrap();
        if let Some(honest) = found.into_iter().find(|provider| provider.peer == peer) {
            break honest;
        }
        assert!(asked < 100, "the honest provider is not told");
    };
    println!(
        "faults fired: {} junk records by {ids} ids; the honest one was told in answer {asked}",
        ids * (usize::from(keys) + 2)
    );
    assert_eq!(honest.addrs, addrs);
    let stream = buyer.net.open(peer, honest.addrs, ECHO).await.unwrap();
    assert_echo(stream, 100_000).await;
}
