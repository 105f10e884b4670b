//! Keys, a network and an offer that are the same in every run, so that a finding can be replayed.

use std::sync::OnceLock;

use libp2p_identity::ed25519::{Keypair, SecretKey};
use multiaddr::Multiaddr;
use pedlar_protocol::money::Price;
use pedlar_protocol::offer::{Listing, Offer, RailKind, Service, Terms};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{Network, Signed, peer_id};

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

/// What a good message becomes when `data` follows its body, whose fields that replaces or adds to, signed well again.
///
/// Random bytes never carry a signature, so without this nothing behind one would be reached. `domain` is checked against
/// the good message: if it is not what the module signs under, the target fails at once instead of finding nothing.
pub(crate) fn grown(good: &Signed, domain: &'static str, data: &[u8]) -> Signed {
    good.verify(domain, &peer_id(key(0))).expect("the domain of this message");
    Signed::sign(key(0), domain, [good.body(), data].concat().into())
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
        rails: [RailKind::Onchain].into(),
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
