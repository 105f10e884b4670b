use super::*;
use crate::offer::tests::{NOW, draft, key, network, seller};
use libp2p_identity::ed25519;
use multiaddr::{Multiaddr, Protocol};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

fn key_of(n: u32) -> ed25519::Keypair {
    let mut secret = [7; 32];
    secret[..4].copy_from_slice(&n.to_le_bytes());
    ed25519::SecretKey::try_from_bytes(secret).unwrap().into()
}

fn address(ip: [u8; 4]) -> Multiaddr {
    Multiaddr::from(std::net::Ipv4Addr::from(ip)).with(Protocol::Tcp(4001))
}

fn offer_at(key: &ed25519::Keypair, sequence: u64, issued: Timestamp, ip: [u8; 4]) -> SignedOffer {
    let expires = issued.saturating_add(MINUTE * 60);
    let offer = Offer { sequence, issued, expires, addresses: vec![address(ip)], ..draft(key) };
    SignedOffer::sign(key, offer).unwrap()
}

/// Both halves of judging what came, and the signature between them.
fn receive(book: &mut Book, now: Timestamp, bytes: &Bytes, random: u64) -> Verdict {
    let signed = match book.screen(now, bytes).map(UnverifiedOffer::verify) {
        Ok(Ok(signed)) => signed,
        Ok(Err(error)) => return Verdict::Reject(error),
        Err(verdict) => return verdict,
    };
    book.insert(now, signed, random).map_or_else(Verdict::Ignore, |()| Verdict::Accept)
}

/// Checks every bound and that the index of strangers is the entries seen from the other side.
fn check(book: &Book) {
    let indexed: BTreeSet<_> = book.strangers.values().flatten().copied().collect();
    let by_place = book.entries.iter().filter(|(_, entry)| entry.place != Place::Regular);
    assert_eq!(indexed, by_place.map(|(seller, _)| *seller).collect());
    assert!(indexed.len() <= MAX_STRANGERS && book.regulars.len() <= MAX_REGULARS);
    for (subnet, sellers) in &book.strangers {
        assert!(!sellers.is_empty());
        assert!(!subnet.is_limited() || sellers.len() <= PLACES_PER_SUBNET);
        assert!(sellers.iter().all(|seller| book.entries[seller].place == Place::Stranger(*subnet)));
    }
}

#[test]
fn only_timely_and_newer_offers_are_kept() {
    let mut book = Book::new(network());
    let signed = |sequence, issued| offer_at(&key(1), sequence, issued, [127, 0, 0, 1]);
    let first = signed(5, NOW);
    assert_eq!(receive(&mut book, NOW, first.bytes(), 0), Verdict::Accept);
    assert_eq!(receive(&mut book, NOW, first.bytes(), 0), Verdict::Ignore(Ignored::NotNewer));
    assert_eq!(receive(&mut book, NOW, signed(4, NOW).bytes(), 0), Verdict::Ignore(Ignored::NotNewer));
    let ahead = NOW.saturating_add(MAX_AHEAD);
    assert_eq!(
        receive(&mut book, NOW, signed(6, ahead.saturating_add(MINUTE)).bytes(), 0),
        Verdict::Ignore(Ignored::Future)
    );
    assert_eq!(receive(&mut book, NOW, signed(6, ahead).bytes(), 0), Verdict::Accept);
    let ended = NOW.saturating_sub(MINUTE * 60);
    assert_eq!(receive(&mut book, NOW, signed(7, ended).bytes(), 0), Verdict::Ignore(Ignored::Expired));
    assert_eq!(book.offer(NOW, &seller(&key(1))).unwrap().offer().sequence, 6);
}

#[test]
fn what_can_never_be_valid_is_rejected() {
    let mut book = Book::new(network());
    assert!(matches!(receive(&mut book, NOW, &Bytes::from_static(b"junk"), 0), Verdict::Reject(_)));
    let mut forged = offer_at(&key(1), 1, NOW, [127, 0, 0, 1]).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(receive(&mut book, NOW, &forged.into(), 0), Verdict::Reject(OfferError::Envelope(_))));
    assert!(book.is_empty());
}

#[test]
fn an_offer_lasts_until_it_expires() {
    let mut book = Book::new(network());
    book.insert(NOW, offer_at(&key(1), 1, NOW, [127, 0, 0, 1]), 0).unwrap();
    assert_eq!(book.offers(NOW, Service::Chunks).count(), 1);
    let end = NOW.saturating_add(MINUTE * 60);
    assert_eq!(book.offers(end, Service::Chunks).count(), 0);
    assert_eq!(book.offer(end, &seller(&key(1))), None);
    assert_eq!(book.len(), 1);
    book.expire(end);
    assert!(book.is_empty() && book.strangers.is_empty());
}

#[test]
fn a_seller_is_heard_once_a_minute_and_forgers_do_not_use_that_up() {
    let mut book = Book::new(network());
    let at = |sequence| offer_at(&key(1), sequence, NOW, [127, 0, 0, 1]);
    let mut forged = at(99).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..100 {
        assert!(matches!(receive(&mut book, NOW, &forged.clone().into(), 0), Verdict::Reject(_)));
    }
    let verdicts = (1..=10).map(|sequence| receive(&mut book, NOW, at(sequence).bytes(), 0));
    assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::Accept).count(), 3);
    let later = NOW.saturating_add(MINUTE);
    assert_eq!(receive(&mut book, later, at(11).bytes(), 0), Verdict::Accept);
    assert_eq!(receive(&mut book, later, at(12).bytes(), 0), Verdict::Ignore(Ignored::TooOften));
}

#[test]
fn a_subnet_has_sixteen_places_and_its_strangers_draw_lots() {
    let mut book = Book::new(network());
    for n in 0..PLACES_PER_SUBNET + 10 {
        let n = u8::try_from(n).unwrap();
        book.insert(NOW, offer_at(&key(n), 1, NOW, [198, 51, 100, n]), u64::from(n) * 7).unwrap();
        check(&book);
    }
    assert_eq!(book.len(), PLACES_PER_SUBNET);
    assert!(book.offer(NOW, &seller(&key(25))).is_some(), "the newest has a place");
    let elsewhere = offer_at(&key(99), 1, NOW, [203, 0, 113, 1]);
    book.insert(NOW, elsewhere, 0).unwrap();
    assert_eq!(book.len(), PLACES_PER_SUBNET + 1);
}

#[test]
fn a_flood_in_one_subnet_is_slowed_down_and_evicts_only_itself() {
    let mut book = Book::new(network());
    book.insert(NOW, offer_at(&key(1), 1, NOW, [203, 0, 113, 1]), 0).unwrap();
    let mut crowded = 0;
    for n in 0..1_000 {
        let result = book.insert(NOW, offer_at(&key_of(n), 1, NOW, [198, 51, 100, 1]), u64::from(n));
        crowded += usize::from(result == Err(Ignored::Crowded));
    }
    check(&book);
    assert_eq!(crowded, 1_000 - PLACES_PER_SUBNET - 64);
    assert!(book.offer(NOW, &seller(&key(1))).is_some());
}

#[test]
fn regulars_survive_what_evicts_strangers() {
    let mut book = Book::new(network());
    let ip = |n| [198, 51, 100, n];
    assert!(book.keep(seller(&key(0))));
    for n in 0..PLACES_PER_SUBNET {
        let n = u8::try_from(n).unwrap();
        book.insert(NOW, offer_at(&key(n), 1, NOW, ip(n)), 0).unwrap();
    }
    assert!(book.keep(seller(&key(1))), "a stranger in the book becomes a regular");
    check(&book);
    for n in 100..200 {
        let now = NOW.saturating_add(MINUTE);
        book.insert(now, offer_at(&key(n), 1, NOW, ip(n)), u64::from(n)).unwrap_or_default();
    }
    check(&book);
    assert!(book.offer(NOW, &seller(&key(0))).is_some() && book.offer(NOW, &seller(&key(1))).is_some());
    assert!(book.offer(NOW, &seller(&key(5))).is_none());
}

#[test]
fn there_are_only_so_many_regulars() {
    let mut book = Book::new(network());
    let kept = (0..2_000).filter(|n| book.keep(seller(&key_of(*n)))).count();
    assert_eq!(kept, MAX_REGULARS);
    assert!(book.keep(seller(&key_of(0))) && !book.keep(seller(&key_of(1_999))));
}

/// 10,000 sellers, three of four in one private network, the others all over: the bounds hold, the crowd loses its
/// places, and who stands alone in a subnet and who is a regular keeps them.
#[test]
fn ten_thousand_sellers_fit_into_the_bounds() {
    let mut book = Book::new(network());
    let (regular, loner) = (key(1), key(2));
    book.keep(seller(&regular));
    book.insert(NOW, offer_at(&regular, 1, NOW, [10, 0, 0, 1]), 0).unwrap();
    book.insert(NOW, offer_at(&loner, 1, NOW, [203, 0, 113, 1]), 0).unwrap();
    let mut evictions = 0;
    for n in 0..10_000_u32 {
        let now = NOW.saturating_add(Duration::from_millis(u64::from(n) * 200));
        let [_, _, b, c] = n.to_be_bytes();
        let ip = if n % 4 > 0 { [10, 0, b, c] } else { [198, b, c, 1] };
        let before = book.len();
        book.insert(now, offer_at(&key_of(n), 1, now, ip), u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
        evictions += usize::from(book.len() == before);
        if n % 500 == 0 {
            check(&book);
        }
    }
    check(&book);
    println!("faults fired: {evictions} evictions");
    assert!(evictions > 1_000);
    assert!(book.offer(NOW, &seller(&regular)).is_some() && book.offer(NOW, &seller(&loner)).is_some());
}

/// One peer that repeats itself, 100 that share the work, and forgeries of honest offers: of 100 honest sellers that
/// speak up in between, each is in the book at the end.
#[test]
fn honest_sellers_are_seen_through_a_flood() {
    let mut book = Book::new(network());
    let honest = |n: u32| offer_at(&key_of(1_000 + n), 1, NOW, [198, n.to_le_bytes()[0], 1, 1]);
    let mut verdicts = BTreeMap::<&str, u32>::new();
    for n in 0..10_000_u32 {
        let now = NOW.saturating_add(Duration::from_millis(n.into()));
        let flooder = match n % 3 {
            0 => 0,
            _ => n % 100,
        };
        let mut bytes =
            offer_at(&key_of(flooder), n.into(), NOW, [192, 0, 2, flooder.to_le_bytes()[0]]).bytes().to_vec();
        if n % 3 == 2 {
            bytes = honest(n % 100).bytes().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
        }
        let kind = match receive(&mut book, now, &bytes.into(), n.into()) {
            Verdict::Accept => "accepted",
            Verdict::Ignore(_) => "ignored",
            Verdict::Reject(_) => "rejected",
        };
        *verdicts.entry(kind).or_default() += 1;
        if n % 100 == 50 {
            assert_eq!(receive(&mut book, now, honest(n / 100).bytes(), n.into()), Verdict::Accept);
        }
    }
    check(&book);
    println!("faults fired: {verdicts:?}");
    assert!(verdicts["rejected"] > 1_000 && verdicts["ignored"] > 5_000 && verdicts["accepted"] < 500);
    assert!((0..100).all(|n| book.offer(NOW, &honest(n).offer().seller).is_some()));
}

#[derive(Clone, Debug)]
enum Op {
    Insert { who: u8, sequence: u64, ip: u8, random: u64 },
    Keep(u8),
    Expire,
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..60_u8, 0..6_u64, 0..3_u8, any::<u64>())
            .prop_map(|(who, sequence, ip, random)| Op::Insert { who, sequence, ip, random }),
        1 => (0..60_u8).prop_map(Op::Keep),
        1 => Just(Op::Expire),
        1 => (0..90_u64).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens in whatever order: the bounds hold, sequences only grow, regulars stay until they expire.
    #[test]
    fn any_sequence_of_operations_keeps_the_bounds(ops in prop::collection::vec(op(), 1..120)) {
        let mut book = Book::new(network());
        let mut now = NOW;
        for op in ops {
            let before = book.clone();
            match op {
                Op::Insert { who, sequence, ip, random } => {
                    let signed = offer_at(&key(who), sequence, now, [198, 51, ip, who]);
                    let accepted = book.insert(now, signed, random).is_ok();
                    let known = before.entries.get(&seller(&key(who))).map(|entry| entry.signed.offer().sequence);
                    prop_assert!(!accepted || known.is_none_or(|known| known < sequence));
                }
                Op::Keep(who) => prop_assert!(book.keep(seller(&key(who)))),
                Op::Expire => book.expire(now),
                Op::Wait(minutes) => now = now.saturating_add(MINUTE * u32::try_from(minutes).unwrap()),
            }
            check(&book);
            for (seller, entry) in &before.entries {
                let kept = book.entries.get(seller).map(|entry| entry.signed.offer().sequence);
                prop_assert!(kept >= Some(entry.signed.offer().sequence) || entry.place != Place::Regular
                    || entry.signed.offer().expires <= now);
            }
        }
    }
}
