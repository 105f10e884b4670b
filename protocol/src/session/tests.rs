use super::quote::{Quote, QuoteError, ReceiptError, SignedQuote, SignedReceipt};
use super::*;
use crate::content::{GROUP_LEN, Groups, Root, Size};
use crate::money::{Msat, Price};
use crate::offer::Service;
use crate::refusal::Refusal;
use crate::time::Timestamp;
use crate::wire::{OpenError, Signed, peer_id};
use bytes::Bytes;
use libp2p_identity::ed25519::{Keypair, SecretKey};
use proptest::prelude::*;
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn groups(start: u64, end: u64) -> Groups {
    Groups::new(start, end).unwrap()
}

#[test]
fn windows_double_with_each_that_went_well() {
    let window = Window::up_to(MAX_WINDOW);
    let mut well = 0;
    for doubled in 0..8 {
        assert_eq!(window.after(well), FIRST_WINDOW << doubled);
        assert_eq!(window.after(well + window.after(well) - 1), FIRST_WINDOW << doubled, "not a byte earlier");
        well += window.after(well);
    }
    assert_eq!((window.after(well), window.after(u64::MAX)), (MAX_WINDOW, MAX_WINDOW));
    assert_eq!(Window::up_to(0).after(u64::MAX), FIRST_WINDOW);
    assert_eq!(Window::up_to(u64::MAX).after(u64::MAX), MAX_WINDOW);
    assert_eq!(Window::up_to(MIB + 1).after(u64::MAX), MIB + 1);
}

#[test]
fn the_brake_holds_at_two_windows_unsigned() {
    let size = Size::new(100 * MIB).unwrap();
    let mut brake = Brake::up_to(MAX_WINDOW);
    for first in [0, 4] {
        assert_eq!(brake.admit(size, groups(first, 100)), Some(groups(first, first + 4)), "one for each Want");
        brake.handle_admitted(4 * GROUP_LEN);
    }
    assert_eq!(brake.admit(size, groups(8, 9)), None);
    brake.handle_signed(4 * GROUP_LEN);
    assert_eq!(brake.admit(size, groups(8, 100)), Some(groups(8, 16)), "one of 128 KiB");
    brake.handle_admitted(8 * GROUP_LEN);
    assert_eq!(brake.admit(size, groups(16, 100)), Some(groups(16, 20)), "two, less what is unsigned");
    brake.handle_signed(0);
    assert_eq!(brake.admit(size, groups(16, 100)), Some(groups(16, 20)), "older receipts change nothing");
}

#[test]
fn a_short_last_group_fits_where_a_whole_one_does_not() {
    let size = Size::new(8 * GROUP_LEN + 5).unwrap();
    let mut brake = Brake::up_to(MAX_WINDOW);
    brake.handle_admitted(8 * GROUP_LEN - 5);
    assert_eq!(brake.admit(size, groups(8, 9)), Some(groups(8, 9)));
    brake.handle_admitted(1);
    assert_eq!(brake.admit(size, groups(8, 9)), None);
}

fn root() -> Root {
    Root::of(b"goods")
}

fn a_receipt() -> Signed {
    Signed::from_wire(pedlar_proto::v1::Signed { body: Bytes::from_static(b"r"), signature: vec![7; 64].into() })
        .unwrap()
}

#[test]
fn a_seller_takes_frames_only_in_their_order() {
    let size = Size::new(MIB).unwrap();
    let open = Frame::Open(Request::Chunks(root()));
    let want = |end| Frame::Want(Want { groups: groups(0, end), receipt: None });
    let close = Frame::Close { code: CloseCode::Done, receipt: Some(a_receipt()) };
    let strangers = [Frame::Quote(a_receipt()), Frame::Serving(groups(0, 1)), Frame::Refused(Refusal::NotFound)];
    let order = Err(SellerViolation::Order);

    let mut session = SellerSession::default();
    assert_eq!(session.handle_frame(want(1)), order);
    assert_eq!(session.handle_frame(close.clone()), order);
    assert_eq!(session.handle_frame(open.clone()), Ok(SellerStep::Quote(Request::Chunks(root()))));
    for frame in [open.clone(), want(1), close.clone()] {
        assert_eq!(session.handle_frame(frame), order, "before the quote");
    }
    session.handle_quoted(size);
    for frame in strangers.into_iter().chain([open]) {
        assert_eq!(session.handle_frame(frame), order);
    }
    let all = Want { groups: size.groups(), receipt: None };
    assert_eq!(session.handle_frame(want(64)), Ok(SellerStep::Serve(all)));
    assert_eq!(session.handle_frame(want(65)), Err(SellerViolation::Range));
    assert_eq!(session.handle_frame(close.clone()), Ok(SellerStep::End(Some(a_receipt()))));
    for frame in [want(1), close] {
        assert_eq!(session.handle_frame(frame), order, "after the end");
    }
}

#[test]
fn a_buyer_takes_only_what_it_wanted_next() {
    let size = Size::new(MIB).unwrap();
    let proven = |from| Groups::new(from, 63);
    let fresh = || {
        let mut session = BuyerSession::new(size, Price::FREE, None, MAX_WINDOW);
        assert_eq!(session.poll_want(proven), Some(groups(0, 4)));
        assert_eq!(session.poll_want(proven), Some(groups(4, 8)));
        assert_eq!(session.poll_want(proven), None, "two are on their way");
        session
    };
    for bad in [groups(1, 4), groups(0, 5), groups(4, 8)] {
        assert_eq!(fresh().handle_serving(bad), Err(BuyerViolation::NotWanted));
    }
    let mut session = fresh();
    session.handle_serving(groups(0, 2)).unwrap();
    session.handle_serving(groups(4, 8)).unwrap();
    assert_eq!(session.poll_want(proven), None, "both are still coming");
    assert_eq!(session.handle_serving(groups(8, 9)), Err(BuyerViolation::NotWanted));
    let mut session = BuyerSession::new(size, Price::FREE, None, MAX_WINDOW);
    assert_eq!(session.handle_serving(groups(0, 1)), Err(BuyerViolation::NotWanted));
}

#[test]
fn a_claimed_size_is_proven_before_anything_else_is_bought() {
    let size = Size::new(MIB).unwrap();
    let mut session = BuyerSession::new(size, Price::FREE, None, MAX_WINDOW);
    assert_eq!(session.poll_want(|from| Groups::new(from, 64)), Some(groups(63, 64)));
    assert_eq!(session.poll_want(|from| Groups::new(from, 64)), None, "until it has come");
    session.handle_serving(groups(63, 64)).unwrap();
    session.handle_verified(GROUP_LEN);
    session.handle_served();
    assert_eq!(session.poll_want(|from| Groups::new(from, 63)), Some(groups(0, 4)));
}

proptest! {
    /// Whatever part of each range a seller serves: all is wanted in the end, and never more at once than both sides
    /// allow, nor more in all than the limit pays for.
    #[test]
    fn a_buyer_gets_all_that_its_limit_pays_for(
        bytes in 0..40 * MIB,
        price in prop_oneof![Just(0), 1..1_u64 << 40],
        limit in proptest::option::of(0..1_u64 << 36),
        parts in proptest::collection::vec(1..2_000_u64, 1..40),
    ) {
        let (size, price, limit) = (Size::new(bytes).unwrap(), Price::per_gib(price), limit.map(Msat::new));
        let mut session = BuyerSession::new(size, price, limit, MAX_WINDOW);
        let mut brake = Brake::up_to(MAX_WINDOW);
        let mut have = vec![false; usize::try_from(size.group_count()).unwrap()];
        let mut asked = std::collections::VecDeque::new();
        let mut parts = parts.into_iter().cycle();
        loop {
            while let Some(want) = session.poll_want(|from| missing(&have, from)) {
                brake.handle_signed(session.verified());
                prop_assert_eq!(brake.admit(size, want), Some(want), "an honest buyer is never braked");
                let affordable = want.within(parts.next().unwrap() * GROUP_LEN);
                brake.handle_admitted(size.bytes_in(affordable));
                asked.push_back(affordable);
            }
            let Some(served) = asked.pop_front() else { break };
            session.handle_serving(served).unwrap();
            for group in served.indices() {
                session.handle_verified(size.bytes_in(groups(group, group + 1)));
                have[usize::try_from(group).unwrap()] = true;
            }
            session.handle_served();
            let cost = price.charge(session.verified()).unwrap();
            prop_assert!(limit.is_none_or(|limit| cost <= limit), "{} of {:?}", cost, limit);
        }
        if limit.is_none_or(|limit| price.charge(bytes).unwrap() <= limit) {
            prop_assert!(have.iter().all(|have| *have) && session.verified() == bytes);
        }
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>) {
        if let Ok(frame) = Frame::decode(bytes.into()) {
            prop_assert_eq!(Frame::decode(frame.encode().into()), Ok(frame));
        }
    }

    #[test]
    fn frames_survive_the_wire_and_a_flipped_bit(frame in frames(), at: prop::sample::Index, bit in 0..8_u8) {
        let mut bytes = frame.encode();
        prop_assert_eq!(Frame::decode(bytes.clone().into()), Ok(frame));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Frame::decode(bytes.into()) {
            prop_assert_eq!(Frame::decode(other.encode().into()), Ok(other));
        }
    }
}

/// The first run of groups that are missing at or after an index.
pub(super) fn missing(have: &[bool], from: u64) -> Option<Groups> {
    let start = (usize::try_from(from).unwrap()..have.len()).find(|group| !have[*group])?;
    let end = (start..have.len()).find(|group| have[*group]).unwrap_or(have.len());
    Groups::new(start as u64, end as u64)
}

fn frames() -> impl Strategy<Value = Frame> {
    let signed = (proptest::collection::vec(any::<u8>(), 0..200), any::<[u8; 32]>()).prop_map(|(body, half)| {
        let signature = [half, half].concat().into();
        Signed::from_wire(pedlar_proto::v1::Signed { body: body.into(), signature }).unwrap()
    });
    let range = (0..1_u64 << 33, 1..1_u64 << 33).prop_map(|(start, count)| groups(start, start + count));
    let receipt = proptest::option::of(signed.clone());
    let code = prop_oneof![
        Just(CloseCode::Done),
        Just(CloseCode::BadData),
        Just(CloseCode::Limit),
        Just(CloseCode::Price),
        Just(CloseCode::ShuttingDown),
    ];
    let refusal = prop_oneof![
        (any::<u64>(), any::<u64>())
            .prop_map(|(msat, min_topup_sat)| { Refusal::PayFirst { missing: Msat::new(msat), min_topup_sat } }),
        any::<u64>().prop_map(|ms| Refusal::NotYet { retry_after: Duration::from_millis(ms) }),
        Just(Refusal::Changed),
    ];
    prop_oneof![
        any::<[u8; 32]>().prop_map(|root| Frame::Open(Request::Chunks(root.into()))),
        any::<[[u8; 32]; 2]>().prop_map(|[collection, entry]| {
            Frame::Open(Request::Entry { collection: collection.into(), entry: entry.into() })
        }),
        signed.prop_map(Frame::Quote),
        (range.clone(), receipt.clone()).prop_map(|(groups, receipt)| Frame::Want(Want { groups, receipt })),
        range.prop_map(Frame::Serving),
        refusal.prop_map(Frame::Refused),
        (code, receipt).prop_map(|(code, receipt)| Frame::Close { code, receipt }),
    ]
}

/// What another key signed is nobody's word, however well it reads.
#[test]
fn quotes_and_receipts_count_only_from_those_who_can_be_held_to_them() {
    let key = |n| Keypair::from(SecretKey::try_from_bytes([n; 32]).unwrap());
    let (seller, buyer, other) = (key(1), key(2), key(3));
    let quote = Quote {
        network: "regtest-0a1b2c3d".parse().unwrap(),
        buyer: peer_id(&buyer),
        seller: peer_id(&seller),
        number: 1,
        offer_seq: 0,
        service: Service::Chunks,
        object: *root().as_bytes(),
        collection: None,
        whole: None,
        size: MIB,
        price: Price::per_gib(1),
        expires: Timestamp::EPOCH,
    };
    let good = SignedQuote::sign(quote.clone(), &seller);
    assert_eq!(SignedQuote::parse(good.signed().clone()), Ok(good.clone()));
    let forged = SignedQuote::sign(quote, &other).signed().clone();
    assert_eq!(SignedQuote::parse(forged), Err(QuoteError::Signature(OpenError::BadSignature)));

    let receipt = |key| SignedReceipt::sign(good.id(), MIB, key);
    let signed = receipt(&buyer);
    assert_eq!(SignedReceipt::parse(signed.signed().clone(), &peer_id(&buyer)), Ok(signed));
    for forger in [&seller, &other] {
        let parsed = SignedReceipt::parse(receipt(forger).signed().clone(), &peer_id(&buyer));
        assert_eq!(parsed, Err(ReceiptError::Signature(OpenError::BadSignature)));
    }
}
