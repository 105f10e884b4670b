use libp2p_identity::ed25519;

use super::*;
use crate::offer::Offer;
use crate::offer::tests::{NOW, draft, network, seller};

fn key_of(n: u32) -> ed25519::Keypair {
    let mut secret = [9; 32];
    secret[..4].copy_from_slice(&n.to_le_bytes());
    ed25519::SecretKey::try_from_bytes(secret).unwrap().into()
}

fn offer(n: u32, sequence: u64) -> SignedOffer {
    let key = key_of(n);
    SignedOffer::sign(&key, Offer { sequence, ..draft(&key) }).unwrap()
}

fn book(offers: impl IntoIterator<Item = SignedOffer>) -> Book {
    let mut book = Book::new(network());
    for (n, offer) in (0..).zip(offers) {
        book.insert(NOW, offer, n).unwrap();
    }
    book
}

fn me() -> PeerId {
    seller(&key_of(u32::MAX))
}

/// Asks until the end, each frame through its encoding; how many exchanges it took and how many offers came.
fn sync(asker: &mut Book, answerer: &Book, own: Option<&SignedOffer>) -> (usize, usize) {
    let (mut exchanges, mut came, mut from) = (0, 0, START);
    loop {
        exchanges += 1;
        let request = asker.request(NOW, from, &me());
        let frame = request.encode();
        assert!(frame.len() <= crate::wire::MAX_CONTROL_LEN, "{} bytes", frame.len());
        let heard = Request::decode(frame.into()).unwrap();
        assert_eq!(heard, request);
        let mut intake = Intake::new(&request);
        let answer = answerer.answer(NOW, &heard, own);
        assert!(answer.offers.len() <= MAX_OFFERS && answer.offers.iter().map(Bytes::len).sum::<usize>() <= MAX_BYTES);
        let mut end = None;
        for frame in answer.frames() {
            match intake.handle_frame(frame.encode().into()).unwrap() {
                Told::Offer(bytes) => {
                    let signed = asker.screen(NOW, &bytes).unwrap().verify().unwrap();
                    asker.insert(NOW, signed, 0).unwrap();
                    came += 1;
                }
                Told::End { next } => end = Some(next),
            }
        }
        match end.expect("an end") {
            Some(next) => from = next,
            None => return (exchanges, came),
        }
    }
}

#[test]
fn a_late_joiner_learns_all_that_is_live_and_asks_for_nothing_twice() {
    let full = book((0..1_500).map(|n| offer(n, 1)));
    let mut late = book([]);
    let (exchanges, came) = sync(&mut late, &full, None);
    assert_eq!(came, 1_500);
    assert!(exchanges <= MAX_EXCHANGES, "{exchanges} exchanges");
    assert!(late.live(NOW).eq(full.live(NOW)));
    assert_eq!(sync(&mut late, &full, None).1, 0, "nothing is sent that is there");
    let mut other = book((1_400..3_000).map(|n| offer(n, 1)));
    assert_eq!(sync(&mut other, &full, None).1, 1_400);
    assert_eq!(other.len(), 3_000);
}

#[test]
fn newer_offers_are_sent_and_older_and_ended_ones_are_not() {
    let mut asker = book([offer(1, 5), offer(2, 5)]);
    let own = offer(4, 1);
    assert_eq!(sync(&mut asker, &book([offer(1, 4), offer(2, 6), offer(3, 1)]), Some(&own)), (1, 3));
    let sequence = |n| asker.offer(NOW, &seller(&key_of(n))).map(|signed| signed.offer().sequence);
    assert_eq!([1, 2, 3, 4].map(sequence), [Some(5), Some(6), Some(1), Some(1)]);
    let end = NOW.saturating_add(crate::offer::MAX_LIFETIME);
    let request = book([]).request(end, START, &me());
    assert_eq!(asker.answer(end, &request, Some(&own)), Answer { offers: Vec::new(), next: None });
    let mine = SignedOffer::sign(&key_of(u32::MAX), draft(&key_of(u32::MAX))).unwrap();
    let answer = book([mine]).answer(NOW, &book([]).request(NOW, START, &me()), None);
    assert!(answer.offers.is_empty(), "nobody tells us what we sell");
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let request = |from, to, sellers: Vec<u64>, sequences| {
        Request::decode(v1::OffersRequest { from, to, sellers, sequences }.encode_to_vec().into())
    };
    assert!(request(0, 9, vec![1, 9], vec![7, 7]).is_ok());
    for (from, to, sellers) in
        [(1, 0, vec![]), (0, 9, vec![2, 1]), (0, 9, vec![1, 1]), (0, 9, vec![10]), (3, 9, vec![2])]
    {
        let sequences = vec![0; sellers.len()];
        assert_eq!(request(from, to, sellers, sequences), Err(SyncViolation::Request));
    }
    let many = (0..=MAX_HELD as u64).collect::<Vec<_>>();
    assert_eq!(request(0, u64::MAX, many.clone(), many), Err(SyncViolation::Request));
    assert_eq!(request(0, 9, vec![1], vec![]), Err(SyncViolation::Request));
    assert_eq!(Request::decode(Bytes::from_static(b"\xff")), Err(SyncViolation::Malformed));
}

#[test]
fn an_answer_ends_at_its_bounds_and_leads_forward() {
    let request = Request { from: 5, to: 10, held: BTreeMap::new() };
    let frame = |told: Told| Bytes::from(told.encode());
    let junk = |len| frame(Told::Offer(vec![1; len].into()));
    let mut intake = Intake::new(&request);
    for _ in 0..MAX_OFFERS {
        intake.handle_frame(junk(10)).unwrap();
    }
    assert_eq!(intake.handle_frame(junk(10)), Err(SyncViolation::TooMuch));
    let mut intake = Intake::new(&request);
    for _ in 0..MAX_BYTES / MAX_OFFER_LEN {
        intake.handle_frame(junk(MAX_OFFER_LEN)).unwrap();
    }
    assert_eq!(intake.clone().handle_frame(junk(1)), Err(SyncViolation::TooMuch));
    assert_eq!(Intake::new(&request).handle_frame(junk(MAX_OFFER_LEN + 1)), Err(SyncViolation::TooMuch));
    for nowhere in [0, 5, 11, u64::MAX] {
        let end = frame(Told::End { next: Some(nowhere) });
        assert_eq!(intake.clone().handle_frame(end), Err(SyncViolation::Nowhere));
    }
    let (on, done) = (frame(Told::End { next: Some(6) }), frame(Told::End { next: None }));
    assert_eq!(intake.handle_frame(on.clone()), Ok(Told::End { next: Some(6) }));
    assert_eq!(Intake::new(&request).handle_frame(on), Err(SyncViolation::Nowhere), "nothing was told before it");
    assert_eq!(Intake::new(&request).handle_frame(done.clone()), Ok(Told::End { next: Some(11) }));
    let last = Request { to: u64::MAX, ..request };
    assert_eq!(Intake::new(&last).handle_frame(done), Ok(Told::End { next: None }));
    assert_eq!(Told::decode(Bytes::new()), Err(SyncViolation::Malformed));
}
