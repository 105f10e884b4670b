//! Offers checked per second on one core, beside bare ed25519 verification of as many bytes: how much of the work is not
//! the signature. `cargo bench -p pedlar-tests --bench offers`; the median of five interleaved pairs.

use std::hint::black_box;
use std::time::Instant;

use libp2p_identity::ed25519::Keypair;
use pedlar_protocol::book::Book;
use pedlar_protocol::offer::{SignedOffer, UnverifiedOffer};
use pedlar_protocol::wire::{Network, Signed};
use pedlar_tests::hostile::{fresh_offer, now};

/// Offers of one round: they fit the book, so that each is parsed, judged, verified and kept.
const OFFERS: usize = 2_000;

/// Pairs of rounds.
const ROUNDS: usize = 5;

fn main() {
    let network: Network = "regtest-0a1b2c3d".parse().expect("a network's name");
    let offers: Vec<SignedOffer> = (0..OFFERS).map(|_| fresh_offer(&network)).collect();
    let keys: Vec<Keypair> = (0..OFFERS).map(|_| Keypair::generate()).collect();
    let len = offers.first().map_or(0, |offer| Signed::decode(offer.bytes(), 4096).map_or(0, |it| it.body().len()));
    let bodies: Vec<(Vec<u8>, Vec<u8>)> = keys.iter().map(|key| (vec![7; len], key.sign(&vec![7; len]))).collect();
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let checked = rate(|| check_all(&network, &offers));
        let verified = rate(|| keys.iter().zip(&bodies).all(|(key, (body, sign))| key.public().verify(body, sign)));
        pairs.push((checked / verified, checked, verified));
    }
    pairs.sort_by(|left, right| left.0.total_cmp(&right.0));
    let (ratio, checked, verified) = pairs[ROUNDS / 2];
    println!(
        "offers checked per second on one core ÷ bare ed25519 verification: {ratio:.2} ({checked:.0} offers of {} bytes, \
         {verified:.0} verifications)",
        offers[0].bytes().len()
    );
}

/// What a node does with each offer that gossip brings, but for its lock.
fn check_all(network: &Network, offers: &[SignedOffer]) -> bool {
    let (mut book, time) = (Book::new(network.clone()), now());
    offers.iter().all(|offer| {
        let signed = book.screen(time, offer.bytes()).ok().map(UnverifiedOffer::verify);
        signed.is_some_and(|signed| signed.is_ok_and(|signed| book.insert(time, signed, 0).is_ok()))
    })
}

/// How many of the [`OFFERS`] are done in a second.
fn rate(work: impl FnOnce() -> bool) -> f64 {
    let begun = Instant::now();
    assert!(black_box(work()), "all are good");
    OFFERS as f64 / begun.elapsed().as_secs_f64()
}
