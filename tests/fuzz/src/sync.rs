//! Offers-sync: what a stranger asks for and what it tells, against a small book.

use bytes::Bytes;
use pedlar_protocol::book::Book;
use pedlar_protocol::book::sync::{Intake, MAX_BYTES, MAX_OFFERS, Request, START, Told};
use pedlar_protocol::offer::{MAX_OFFER_LEN, MIN_LIFETIME, SignedOffer};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{MAX_CONTROL_LEN, peer_id};

use crate::signer;

/// Requests: what is understood is answered within bounds, and only with what was asked for. Answers: as a sequence of
/// frames, cut by their first bytes, that never brings more than it may and never leads back.
pub fn offers_sync(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let book = book();
    if let Ok(request) = Request::decode(bytes.clone()) {
        let again = request.encode();
        assert!(data.len() > MAX_CONTROL_LEN || again.len() <= MAX_CONTROL_LEN);
        assert_eq!(Request::decode(again.into()).as_ref(), Ok(&request));
        let answer = book.answer(Timestamp::EPOCH, &request, None);
        assert!(answer.offers.len() <= usize::from(signer::KEYS) && answer.next.is_none());
        take(&request, answer.frames().map(|frame| frame.encode().into()));
    }
    if let Ok(told) = Told::decode(bytes.clone()) {
        assert_eq!(Told::decode(told.encode().into()), Ok(told));
    }
    let mut rest = bytes;
    let frames = std::iter::from_fn(move || {
        let len = usize::from(*rest.first()?).min(rest.len());
        (len > 0).then(|| rest.split_to(len))
    });
    take(&book.request(Timestamp::EPOCH, START, &peer_id(signer::key(0))), frames);
}

/// Takes in an answer up to its end or its first breach.
fn take(request: &Request, frames: impl Iterator<Item = Bytes>) {
    let (mut intake, mut offers, mut bytes) = (Intake::new(request), 0, 0);
    for frame in frames {
        match intake.handle_frame(frame) {
            Ok(Told::Offer(offer)) => {
                (offers, bytes) = (offers + 1, bytes + offer.len());
                assert!(offers <= MAX_OFFERS && bytes <= MAX_BYTES && offer.len() <= MAX_OFFER_LEN);
            }
            Ok(Told::End { next }) => return assert!(next.is_none_or(|next| next > START)),
            Err(_) => return,
        }
    }
}

fn book() -> Book {
    let mut book = Book::new(signer::network());
    let expires = Timestamp::EPOCH.saturating_add(MIN_LIFETIME);
    for n in 0..signer::KEYS {
        let offer = signer::offer(n, u64::from(n), Timestamp::EPOCH, expires);
        let signed = SignedOffer::sign(signer::key(n), offer).expect("a good offer");
        book.insert(Timestamp::EPOCH, signed, 0).expect("a place");
    }
    book
}
