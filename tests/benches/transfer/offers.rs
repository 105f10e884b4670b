//! Offers checked per second on one core, beside bare ed25519 verification of as many bytes: how much of the work is not
//! the signature.

use std::hint::black_box;
use std::time::Instant;

use libp2p_identity::ed25519::Keypair;
use pedlar_protocol::book::Book;
use pedlar_protocol::offer::{SignedOffer, UnverifiedOffer};
use pedlar_protocol::wire::{Network, Signed};
use pedlar_tests::hostile::{fresh_offer, now};

use crate::Options;
use crate::measure::{Report, Target, median};

/// Offers of one round: they fit the book, so that each is parsed, judged, verified and kept.
const OFFERS: usize = 2_000;

pub(crate) fn measure(options: &Options, report: &mut Report) {
    let network: Network = "regtest-0a1b2c3d".parse().expect("a network's name");
    let offers: Vec<SignedOffer> = (0..OFFERS).map(|_| fresh_offer(&network)).collect();
    let keys: Vec<Keypair> = (0..OFFERS).map(|_| Keypair::generate()).collect();
    let len = Signed::decode(offers[0].bytes(), 4096).expect("an offer").body().len();
    let bodies: Vec<(Vec<u8>, Vec<u8>)> = keys.iter().map(|key| (vec![7; len], key.sign(&vec![7; len]))).collect();
    let (mut checked, mut verified) = (Vec::new(), Vec::new());
    for _ in 0..options.pairs {
        checked.push(rate(|| check_all(&network, &offers)));
        verified.push(rate(|| keys.iter().zip(&bodies).all(|(key, (body, sign))| key.public().verify(body, sign))));
    }
    let ratio = median(checked.iter().zip(&verified).map(|(checked, verified)| checked / verified));
    let detail = format!(
        "{:.0} offers of {} bytes / {:.0} verifications a second",
        median(checked),
        offers[0].bytes().len(),
        median(verified)
    );
    report.row("offers checked / bare ed25519, one core", ratio, Target::None, &detail);
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
