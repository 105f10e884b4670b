//! R14: offers come in floods, and those of others are heard all the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use libp2p_identity::ed25519::Keypair;
use pedlar_protocol::book::{MAX_REGULARS, MAX_STRANGERS};
use pedlar_protocol::wire::Network;
use pedlar_tests::cluster::{PATIENCE, Peer, World, text, until};
use pedlar_tests::hostile::{Stranger, fresh_offer, now, offer};

use crate::world;

/// Identities of the second flood.
const IDENTITIES: usize = 100;

/// By when an honest offer must be seen.
const SEEN: Duration = Duration::from_secs(5);

/// How often an honest offer comes.
const PACE: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_offers_of_no_worth_hide_no_honest_one() {
    // Ten times the figure, for machines under load.
    flood(10_000, SEEN * 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn a_hundred_thousand_offers_of_no_worth_hide_no_honest_one() {
    flood(100_000, SEEN).await;
}

/// Three floods of a third each, one after the other, while honest offers come.
async fn flood(offers: usize, deadline: Duration) {
    let world = world().await;
    let node = world.node("node").await;
    let honest = Stranger::lurking(&world).await;
    let network = honest.network.clone();
    honest.gossip(fresh_offer(&network).bytes()).await;
    let before = resident(node.pid());
    let floods = async {
        by_one_peer(&world, offers / 3).await;
        by_many_identities(&world, offers / 3).await;
        with_bad_signatures(&world, offers / 3).await;
    };
    let (mut sent, mut seen) = (BTreeMap::new(), BTreeMap::new());
    let mut floods = std::pin::pin!(floods);
    loop {
        let ended = tokio::time::timeout(PACE, &mut floods).await.is_ok();
        let one = fresh_offer(&network);
        honest.gossip(one.bytes()).await;
        sent.insert(one.offer().seller.to_string(), Instant::now());
        look(&node, &sent, &mut seen).await;
        if ended {
            break;
        }
    }
    let last = Instant::now();
    until("what can still be seen is seen", async || {
        look(&node, &sent, &mut seen).await;
        (seen.len() == sent.len() || last.elapsed() > deadline).then_some(())
    })
    .await;
    let within = |limit: Duration| seen.values().filter(|waited| **waited <= limit).count();
    let in_time = within(SEEN);
    let slowest = seen.values().max().copied().unwrap_or_default();
    let listed = listed(&node).await.len();
    let grown = resident(node.pid()).saturating_sub(before) >> 20;
    println!(
        "faults fired: {offers}; {in_time} of {} honest offers seen within {SEEN:?}, the slowest after {slowest:.2?}; {listed} \
         offers in the book; {grown} MiB more in memory",
        sent.len()
    );
    assert!(within(deadline) * 100 >= sent.len() * 99, "{} of {}", within(deadline), sent.len());
    assert!(listed <= MAX_STRANGERS + MAX_REGULARS && grown <= 100, "{listed} offers, {grown} MiB");
    node.ask(&["status"]).await;
}

/// Ever new sellers, all by the same peer.
async fn by_one_peer(world: &World, offers: usize) {
    let flooder = Stranger::lurking(world).await;
    for _ in 0..offers {
        flooder.gossip(fresh_offer(&flooder.network).bytes()).await;
    }
}

/// A hundred peers, each of which is a seller with ever newer offers.
async fn by_many_identities(world: &World, offers: usize) {
    let mut flooders = Vec::new();
    for _ in 0..IDENTITIES {
        flooders.push(Stranger::lurking(world).await);
    }
    let flood = async |flooder: &Stranger| {
        for sequence in 0..offers / IDENTITIES {
            let ends = now().saturating_add(Duration::from_secs(3_600));
            let one = offer(&flooder.key, &flooder.network, sequence as u64, now(), ends);
            flooder.gossip(one.bytes()).await;
        }
    };
    join_all(flooders.iter().map(flood)).await;
}

/// Offers that their sellers did not sign: the sender is not heard after the third.
async fn with_bad_signatures(world: &World, offers: usize) {
    let flooder = Stranger::lurking(world).await;
    for n in 0..offers {
        flooder.gossip(&forged(&flooder.network, n)).await;
    }
}

fn forged(network: &Network, n: usize) -> Bytes {
    let key = Keypair::generate();
    let mut bytes = offer(&key, network, n as u64, now(), now().saturating_add(PATIENCE)).bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

/// Notes which of the offers that were sent the node lists, and how long after at the latest.
async fn look(node: &Peer, sent: &BTreeMap<String, Instant>, seen: &mut BTreeMap<String, Duration>) {
    for seller in listed(node).await {
        if let Some(sent) = sent.get(&seller) {
            seen.entry(seller).or_insert_with(|| sent.elapsed());
        }
    }
}

async fn listed(node: &Peer) -> Vec<String> {
    let lines = node.ask(&["market"]).await;
    lines.iter().filter(|line| line["type"] == "offer").map(|line| text(&line["peer"]).to_owned()).collect()
}

/// Bytes of a process that are in memory.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the node runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kib << 10
}
