//! Keys, a network and an offer that are the same in every run, so that a finding can be replayed.

use std::sync::OnceLock;

use libp2p_identity::ed25519::{Keypair, SecretKey};
use multiaddr::Multiaddr;
use pedlar_protocol::money::Price;
use pedlar_protocol::offer::{Listing, MAX_OFFER_LEN, Offer, Rail, Service, SignedOffer, Terms};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{Network, Signed, peer_id};

/// What an offer is signed under; [`offer_body`] fails when it changes.
pub(crate) const OFFER_DOMAIN: &str = "pedlar offer v1";

/// How many keys there are.
pub(crate) const KEYS: u8 = 8;

/// One of [`KEYS`] keys; `n` wraps around.
pub(crate) fn key(n: u8) -> &'static Keypair {
    static KEYPAIRS: OnceLock<Vec<Keypair>> = OnceLock::new();
    let pairs = KEYPAIRS.get_or_init(|| {
        let secret = |n| SecretKey::try_from_bytes([n; 32]).expect("32 bytes are a key");
        (0..KEYS).map(|n| secret(n).into()).collect()
    });
    &pairs[usize::from(n % KEYS)]
}

/// The network of every message.
pub(crate) fn network() -> Network {
    "regtest-0a1b2c3d".parse().expect("a network's name")
}

/// The body of a good offer by the first key.
pub(crate) fn offer_body() -> &'static [u8] {
    static BODY: OnceLock<Vec<u8>> = OnceLock::new();
    BODY.get_or_init(|| {
        let (issued, expires) = (Timestamp::from_ms(0), Timestamp::from_ms(3_600_000));
        let signed = SignedOffer::sign(key(0), offer(0, 0, issued, expires)).expect("a good offer");
        let envelope = Signed::decode(signed.bytes(), MAX_OFFER_LEN).expect("an envelope");
        envelope.verify(OFFER_DOMAIN, &peer_id(key(0))).expect("the domain of offers");
        envelope.body().to_vec()
    })
}

/// A good offer by key `n`.
pub(crate) fn offer(n: u8, sequence: u64, issued: Timestamp, expires: Timestamp) -> Offer {
    let price = Price::per_gib(10_000);
    Offer {
        network: network(),
        seller: peer_id(key(n)),
        sequence,
        issued,
        expires,
        addresses: vec![Multiaddr::from(std::net::Ipv4Addr::LOCALHOST)],
        rails: [Rail::Onchain].into(),
        terms: Terms::default(),
        listings: vec![Listing {
            service: Service::Chunks,
            price,
            ceiling: price,
            capacity_bytes_per_s: 0,
            titles: Vec::new(),
        }],
    }
}
