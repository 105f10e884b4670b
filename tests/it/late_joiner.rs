//! A node that joins after the last gossip asks for the offers that there are, and whom it asks can't harm it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p_identity::ed25519::Keypair;
use pedlar_net::Stream;
use pedlar_proto::v1;
use pedlar_protocol::book::Book;
use pedlar_protocol::book::sync::{MAX_EXCHANGES, MAX_HELD, MAX_OFFERS, Request, START, Told};
use pedlar_protocol::offer::SignedOffer;
use pedlar_protocol::wire::{FrameKind, Network, Signed};
use pedlar_tests::cluster::{PATIENCE, Peer, text, until};
use pedlar_tests::dice::Dice;
use pedlar_tests::hostile::{OFFERS, Stranger, fresh_offer, now, offer, receive, send, until_closed};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::{MIB, PRICE, world};

/// Sellers whose offers are known before the late one comes.
const SELLERS: usize = 300;

/// For longer than gossip names old messages to those who come.
const FORGOTTEN: Duration = Duration::from_secs(12);

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_after_the_last_gossip_sees_every_offer_within_seconds() {
    let world = world().await;
    let first = world.node("first").await;
    first.publish(&world.file("film", MIB), PRICE).await;
    let mut gone = world.node("gone").await;
    gone.publish(&world.file("song", MIB), PRICE).await;
    first.knows(&gone).await;
    let stranger = Stranger::lurking(&world).await;
    let mut sellers: BTreeSet<String> = [first.id.clone(), gone.id.clone()].into();
    for _ in 0..SELLERS {
        let offer = fresh_offer(&stranger.network);
        stranger.gossip(offer.bytes()).await;
        sellers.insert(offer.offer().seller.to_string());
    }
    until("the first node has heard all", async || (known(&first).await.len() == SELLERS + 1).then_some(())).await;
    // Whoever could say it again is gone, and gossip has no memory: what the late one learns it was told.
    let heard = Instant::now();
    gone.kill().await;
    stranger.net.shutdown().await;
    until("gossip has forgotten", async || (heard.elapsed() > FORGOTTEN).then_some(())).await;

    let late = world.node("late").await;
    let up = Instant::now();
    until("the late one knows all", async || (known(&late).await == sellers).then_some(())).await;
    println!("{} offers were known {:.2?} after the start", sellers.len(), up.elapsed());
    let log = std::fs::read_to_string(late.home.dir.join("log")).unwrap_or_default();
    assert!(log.contains("asked a peer for offers"), "it was told by offers-sync");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_peer_that_is_asked_changes_nothing_and_an_honest_one_is_still_heard() {
    let world = world().await;
    let late = world.node("late").await;
    let network: Network = world.network().parse().unwrap();
    let mut dice = Dice::new();
    let answers = bad_answers(&network, &mut dice);
    for (what, bytes) in &answers {
        let mut hostile = Stranger::syncing(&world).await;
        let (mut stream, _) = asked(&mut hostile).await;
        let begun = Instant::now();
        // The node ends the stream before it has read all of it.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        until_closed(&mut stream).await;
        println!("{what}: {} bytes, cut after {:.2?}", bytes.len(), begun.elapsed());
        assert_eq!(known(&late).await, BTreeSet::new(), "{what}");
    }
    let mut silent = Stranger::syncing(&world).await;
    let silence = asked(&mut silent).await;
    println!("faults fired: {}", answers.len() + 1);

    let mut honest = Stranger::syncing(&world).await;
    let mut book = Book::new(network.clone());
    let offers: Vec<SignedOffer> = (0..MAX_OFFERS + 100).map(|_| fresh_offer(&network)).collect();
    offers.iter().for_each(|offer| book.insert(now(), offer.clone(), 0).unwrap());
    for exchange in 0..2 {
        let (mut stream, request) = asked(&mut honest).await;
        let answer = book.answer(now(), &request, None);
        assert_eq!(answer.next.is_some(), exchange == 0, "more than fits one answer");
        for frame in answer.frames() {
            send(&mut stream, FrameKind::Control, &frame.encode()).await.unwrap();
        }
        until_closed(&mut stream).await;
    }
    until("the honest offers are known", async || (known(&late).await.len() == offers.len()).then_some(())).await;
    drop(silence);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_too_much_is_cut_and_others_are_answered() {
    let world = world().await;
    let node = world.node("node").await;
    node.publish(&world.file("film", MIB), PRICE).await;
    let greedy = Stranger::lurking(&world).await;
    let network = greedy.network.clone();
    let empty = Book::new(network).request(now(), START, &greedy.id()).encode();
    drop(greedy);

    let greedy = Stranger::syncing(&world).await;
    let mut answered = 0;
    for _ in 0..MAX_EXCHANGES * 2 {
        let told = ask(&greedy, &node, &empty).await;
        answered += usize::from(!told.is_empty());
    }
    println!("faults fired: {}; {answered} of {} requests were answered", MAX_EXCHANGES, MAX_EXCHANGES * 2);
    assert!((MAX_EXCHANGES..=MAX_EXCHANGES + 2).contains(&answered), "{answered} answers");

    let sellers: Vec<u64> = (0..=MAX_HELD as u64).collect();
    let sequences = vec![0; sellers.len()];
    let huge = v1::OffersRequest { from: 0, to: u64::MAX, sellers, sequences }.encode_to_vec();
    let backwards = v1::OffersRequest { from: 9, to: 1, sellers: vec![], sequences: vec![] }.encode_to_vec();
    let hostile = Stranger::syncing(&world).await;
    for bad in [&huge[..huge.len().min(16 << 10)], &backwards, b"\xff"] {
        assert_eq!(ask(&hostile, &node, bad).await, []);
    }
    let honest = Stranger::syncing(&world).await;
    assert!(matches!(&ask(&honest, &node, &empty).await[..], [Told::Offer(_), Told::End { next: None }]));
}

/// The sellers whose offers a node lists.
async fn known(node: &Peer) -> BTreeSet<String> {
    let lines = node.ask(&["market"]).await;
    lines.iter().filter(|line| line["type"] == "offer").map(|line| text(&line["peer"]).to_owned()).collect()
}

/// Waits until a node asks this peer; the stream, and what it asks for.
async fn asked(peer: &mut Stranger) -> (Stream, Request) {
    loop {
        let inbound = timeout(PATIENCE, peer.events.streams.recv()).await.expect("a new node asks").expect("it runs");
        if inbound.protocol == OFFERS {
            let mut stream = inbound.stream;
            let (_, payload) = receive(&mut stream).await.expect("a request");
            return (stream, Request::decode(payload).expect("our nodes ask well"));
        }
    }
}

/// Sends one request; all that is told until the stream ends.
async fn ask(peer: &Stranger, node: &Peer, request: &[u8]) -> Vec<Told> {
    let mut stream = peer.net.open(node.id.parse().unwrap(), node.addrs(), OFFERS).await.expect("a stream");
    let mut told = Vec::new();
    if send(&mut stream, FrameKind::Control, request).await.is_ok() {
        while let Some((_, payload)) = receive(&mut stream).await {
            told.push(Told::decode(payload).expect("our nodes answer well"));
        }
    }
    told
}

/// Answers that no honest peer gives, each bad in another way, as bytes on the stream.
fn bad_answers(network: &Network, dice: &mut Dice) -> Vec<(&'static str, Vec<u8>)> {
    let framed = |payload: &[u8]| {
        let header = pedlar_protocol::wire::FrameHeader::new(FrameKind::Control, payload.len()).unwrap();
        [header.to_bytes().as_slice(), payload].concat()
    };
    let told = |offers: &[Bytes], next: Option<u64>| {
        let frames = offers.iter().cloned().map(Told::Offer).chain([Told::End { next }]);
        frames.flat_map(|frame| framed(&frame.encode())).collect::<Vec<u8>>()
    };
    let key = Keypair::generate();
    let ago = |time| now().saturating_sub(time);
    let expired = |_| offer(&Keypair::generate(), network, 1, ago(HOUR), ago(Duration::from_secs(1))).bytes().clone();
    let future =
        |_| offer(&key, network, 1, now().saturating_add(HOUR), now().saturating_add(HOUR * 2)).bytes().clone();
    let good = fresh_offer(network);
    let body = Signed::decode(good.bytes(), good.bytes().len()).unwrap().body().clone();
    let forged = Signed::sign(&key, "pedlar offer v1", body).encode();
    let foreign = fresh_offer(&"signet".parse().unwrap()).bytes().clone();
    let endless: Vec<Bytes> = (0..MAX_OFFERS * 2).map(expired).collect();
    vec![
        ("noise", dice.garbage(5_000)),
        ("a frame of noise", framed(&dice.garbage(500))),
        ("a frame as long as a header can say", vec![0, 0xff, 0xff, 0xff]),
        ("a frame that breaks off", framed(&dice.garbage(500))[..100].to_vec()),
        ("nothing but the end of the stream", Vec::new()),
        ("an offer signed by another", told(&[forged], None)),
        ("an offer of another network", told(&[foreign], None)),
        ("more offers than an answer has", told(&endless, None)),
        ("an answer that leads back", told(&[expired(0)], Some(START))),
        ("offers that have ended, or begin in an hour", told(&[expired(0), future(0), expired(1)], None)),
    ]
}
