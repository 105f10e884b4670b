//! Offers that are bad or late are not forwarded, and who sends bad ones is soon heard no more.
//!
//! A node stands between a sender and a witness that know nobody else: what the witness sees, the node has forwarded.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use libp2p_identity::ed25519::Keypair;
use pedlar_net::Verdict;
use pedlar_proto::v1;
use pedlar_protocol::offer::{MAX_OFFER_LEN, MAX_TITLES, SignedOffer};
use pedlar_protocol::wire::{Network, Signed};
use pedlar_tests::cluster::{PATIENCE, Peer, World};
use pedlar_tests::dice::Dice;
use pedlar_tests::hostile::{Stranger, now, offer};
use prost::Message;
use tokio::time::timeout;

use crate::world;

/// Under which an offer is signed.
const DOMAIN: &str = "pedlar offer v1";

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_valid_is_not_forwarded_and_its_sender_is_soon_heard_no_more() {
    let world = world().await;
    let node = world.node("node").await;
    let mut witness = Witness::beside(&world).await;
    let network: Network = world.network().parse().unwrap();
    let mut dice = Dice::new();
    for bad in bad_offers(&network, &mut dice).chunks(2) {
        // Two from each sender: a third would silence it, and its silence would then prove nothing.
        let sender = Stranger::lurking(&world).await;
        for (what, bytes) in bad {
            println!("sending {what}: {} bytes", bytes.len());
            witness.must_not_see.insert(bytes.clone());
            sender.gossip(bytes).await;
        }
        let good = offer(&Keypair::generate(), &network, 1, now(), now().saturating_add(HOUR));
        sender.gossip(good.bytes()).await;
        witness.sees(&good).await;
    }

    let (spammer, other) = (Stranger::lurking(&world).await, Stranger::lurking(&world).await);
    for _ in 0..3 {
        spammer.gossip(&dice.garbage(100)).await;
    }
    // What comes later is judged later: once this is seen, so is the garbage.
    let judged = offer(&Keypair::generate(), &network, 1, now(), now().saturating_add(HOUR));
    other.gossip(judged.bytes()).await;
    witness.sees(&judged).await;
    let unheard = offer(&Keypair::generate(), &network, 1, now(), now().saturating_add(HOUR));
    witness.must_not_see.insert(unheard.bytes().clone());
    spammer.gossip(unheard.bytes()).await;
    let good = offer(&Keypair::generate(), &network, 1, now(), now().saturating_add(HOUR));
    other.gossip(good.bytes()).await;
    witness.sees(&good).await;
    assert!(knows(&node, &good).await && !knows(&node, &unheard).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_early_or_old_is_ignored_and_costs_its_sender_nothing() {
    let world = world().await;
    let node = world.node("node").await;
    let mut witness = Witness::beside(&world).await;
    let network: Network = world.network().parse().unwrap();
    let sender = Stranger::lurking(&world).await;
    let seller = Keypair::generate();
    let newest = offer(&seller, &network, 10, now(), now().saturating_add(HOUR));
    sender.gossip(newest.bytes()).await;
    witness.sees(&newest).await;
    for round in 0..3 {
        let ago = |time| now().saturating_sub(time);
        let expired = offer(&Keypair::generate(), &network, 1, ago(HOUR), ago(Duration::from_secs(1)));
        let (begins, ends) = (now().saturating_add(HOUR), now().saturating_add(HOUR * 2));
        let future = offer(&Keypair::generate(), &network, 1, begins, ends);
        let older = offer(&seller, &network, round, now(), now().saturating_add(HOUR));
        for late in [expired, future, older] {
            witness.must_not_see.insert(late.bytes().clone());
            sender.gossip(late.bytes()).await;
        }
        let good = offer(&Keypair::generate(), &network, 1, now(), now().saturating_add(HOUR));
        sender.gossip(good.bytes()).await;
        witness.sees(&good).await;
    }
    let offers = node.ask(&["market"]).await;
    assert_eq!(offers.iter().filter(|line| line["type"] == "offer").count(), 4, "the good ones: {offers:?}");
}

/// A peer that hears of others only what the node between them forwards.
struct Witness {
    stranger: Stranger,
    must_not_see: BTreeSet<Bytes>,
}

impl Witness {
    async fn beside(world: &World) -> Self {
        Self { stranger: Stranger::lurking(world).await, must_not_see: BTreeSet::new() }
    }

    /// Waits for an offer, which comes before none that must not come.
    async fn sees(&mut self, wanted: &SignedOffer) {
        let seen = async {
            loop {
                let message = self.stranger.events.messages.recv().await.expect("the witness runs");
                let data = Bytes::from(message.data);
                assert!(!self.must_not_see.contains(&data), "{} bad bytes were forwarded", data.len());
                self.stranger.net.verdict(message.id, message.source, Verdict::Ignore).await;
                if data == *wanted.bytes() {
                    return;
                }
            }
        };
        timeout(PATIENCE, seen).await.expect("the good offer is forwarded");
    }
}

async fn knows(node: &Peer, offer: &SignedOffer) -> bool {
    let seller = offer.offer().seller.to_string();
    node.ask(&["market"]).await.iter().any(|line| line["peer"] == seller.as_str())
}

/// Bytes that no node may forward, each bad in another way.
fn bad_offers(network: &Network, dice: &mut Dice) -> Vec<(&'static str, Bytes)> {
    let key = Keypair::generate();
    let good = offer(&key, network, 1, now(), now().saturating_add(HOUR)).bytes().clone();
    let body = v1::Signed::decode(good.clone()).unwrap().body;
    // Signed well, so that nothing but what was changed is wrong.
    let signed = |change: &dyn Fn(&mut v1::Offer)| {
        let mut message = v1::Offer::decode(body.clone()).unwrap();
        change(&mut message);
        Signed::sign(&key, DOMAIN, message.encode_to_vec().into()).encode()
    };
    let mut flipped = good.to_vec();
    let place = dice.below(good.len() as u64) as usize;
    flipped[place] ^= 1 << dice.below(8);
    let title = v1::Title { name: "film".into(), root: vec![1; 32].into(), size: 1, collection: false };
    let titles = |message: &mut v1::Offer| {
        let root = |number: u8| v1::Title { root: vec![number; 32].into(), ..title.clone() };
        message.listings[0].titles = (0..=MAX_TITLES as u8).map(root).collect();
    };
    let others_address = |message: &mut v1::Offer| {
        let other: pedlar_net::Multiaddr =
            format!("/ip4/127.0.0.1/tcp/9/p2p/{}", pedlar_net::PeerId::random()).parse().unwrap();
        message.addresses = vec![other.to_vec().into()];
    };
    vec![
        ("noise", dice.garbage(200).into()),
        ("an offer that breaks off", good.slice(..good.len() / 2)),
        ("an offer with a byte too many", [good.as_ref(), &[0]].concat().into()),
        ("an offer with a flipped bit", flipped.into()),
        ("an offer signed by another", Signed::sign(&Keypair::generate(), DOMAIN, body.clone()).encode()),
        ("an offer signed as something else", Signed::sign(&key, "pedlar quote v1", body.clone()).encode()),
        ("an offer of another network", signed(&|message| message.network = "signet".into())),
        ("an offer for ever", signed(&|message| message.expires_ms = u64::MAX)),
        ("an offer with too many titles", signed(&titles)),
        ("an offer that leads to somebody else", signed(&others_address)),
        ("an offer above its own ceiling", signed(&|message| message.listings[0].price_msat_per_gib += 1)),
        ("as many bytes as a message may have", vec![b'x'; MAX_OFFER_LEN].into()),
    ]
}
