use super::*;
use proptest::prelude::*;

/// A moment in 2027.
pub(crate) const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

pub(crate) fn key(seed: u8) -> ed25519::Keypair {
    ed25519::SecretKey::try_from_bytes([seed; 32]).unwrap().into()
}

pub(crate) fn seller(key: &ed25519::Keypair) -> PeerId {
    crate::wire::peer_id(key)
}

pub(crate) fn network() -> Network {
    "regtest-0a1b2c3d".parse().unwrap()
}

/// A plain valid offer that begins now.
pub(crate) fn draft(key: &ed25519::Keypair) -> Offer {
    Offer {
        network: network(),
        seller: seller(key),
        sequence: 1,
        issued: NOW,
        expires: NOW.saturating_add(MAX_LIFETIME),
        addresses: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
        rails: [RailKind::Onchain].into(),
        terms: Terms { due_s: 72 * 3_600, default_s: 7 * 86_400, min_topup_sat: 1_000 },
        listings: vec![listing(10_000)],
    }
}

fn listing(msat_per_gib: u64) -> Listing {
    let price = Price::per_gib(msat_per_gib);
    Listing { service: Service::Chunks, price, ceiling: price, capacity_bytes_per_s: 0, titles: vec![title(1)] }
}

fn title(n: u8) -> Title {
    Title {
        name: Name::new(format!("title {n}")).unwrap(),
        root: [n; 32].into(),
        size: Size::new(1 << 20).unwrap(),
        kind: Kind::File,
    }
}

fn parse(bytes: &Bytes) -> Result<SignedOffer, OfferError> {
    UnverifiedOffer::parse(&network(), bytes).and_then(UnverifiedOffer::verify)
}

fn refused(change: impl FnOnce(&mut Offer)) -> OfferError {
    let mut offer = draft(&key(1));
    change(&mut offer);
    let body = wire::message(&offer).encode_to_vec().into();
    let error = parse(&Signed::sign(&key(1), DOMAIN, body).encode()).unwrap_err();
    let own = SignedOffer::sign(&key(1), offer).unwrap_err();
    assert!(own == error || error == OfferError::Network, "{own} is not {error}");
    error
}

#[test]
fn contradictions_are_refused_from_others_and_from_oneself() {
    let hour = Duration::from_secs(3_600);
    assert_eq!(refused(|offer| offer.expires = offer.issued), OfferError::Lifetime { lifetime: Duration::ZERO });
    assert_eq!(
        refused(|offer| offer.expires = offer.issued.saturating_add(hour * 3)),
        OfferError::Lifetime { lifetime: hour * 3 }
    );
    assert_eq!(refused(|offer| offer.terms.min_topup_sat = u64::MAX), OfferError::TopUp);
    assert_eq!(refused(|offer| offer.listings.push(listing(1))), OfferError::Twice { what: "service" });
    assert_eq!(refused(|offer| offer.listings[0].titles.push(title(1))), OfferError::Twice { what: "title" });
    assert_eq!(
        refused(|offer| offer.listings[0].titles = (0..17).map(title).collect()),
        OfferError::TooMany { what: "titles", len: 17, max: 16 }
    );
    assert_eq!(
        refused(|offer| offer.addresses = vec![offer.addresses[0].clone(); 9]),
        OfferError::TooMany { what: "addresses", len: 9, max: 8 }
    );
    let price = Price::per_gib(10_001);
    assert_eq!(
        refused(|offer| offer.listings[0].price = price),
        OfferError::Ceiling { price, ceiling: Price::per_gib(10_000) }
    );
}

#[test]
fn an_offer_leads_to_its_own_seller_only() {
    let victim = format!("/ip4/198.51.100.7/tcp/22/p2p/{}", seller(&key(2)));
    assert_eq!(refused(|offer| offer.addresses.push(victim.parse().unwrap())), OfferError::ForeignAddress);
    let relayed = format!("{victim}/p2p-circuit/p2p/{}", seller(&key(1)));
    let mut offer = draft(&key(1));
    offer.addresses.push(relayed.parse().unwrap());
    assert!(SignedOffer::sign(&key(1), offer).is_ok());
}

#[test]
fn an_offer_is_signed_by_its_seller() {
    assert_eq!(SignedOffer::sign(&key(2), draft(&key(1))), Err(OpenError::BadSignature.into()));
    let body = wire::message(&draft(&key(1))).encode_to_vec().into();
    assert_eq!(parse(&Signed::sign(&key(2), DOMAIN, body).encode()), Err(OpenError::BadSignature.into()));
}

#[test]
fn an_offer_of_another_network_is_refused() {
    let bytes = SignedOffer::sign(&key(1), draft(&key(1))).unwrap().bytes().clone();
    let signet = "signet".parse().unwrap();
    assert_eq!(UnverifiedOffer::parse(&signet, &bytes).unwrap_err(), OfferError::Network);
}

#[test]
fn a_full_offer_fits_and_a_longer_one_is_refused() {
    let named = |len, n| Title { name: Name::new("n".repeat(len)).unwrap(), ..title(n) };
    let mut offer = draft(&key(1));
    offer.addresses = vec![format!("/ip6/2001:db8::1/udp/4001/quic-v1/p2p/{}", offer.seller).parse().unwrap(); 8];
    offer.listings[0].titles = (0..16).map(|n| named(Name::MAX_LEN, n)).collect();
    let signed = SignedOffer::sign(&key(1), offer).unwrap();
    assert_eq!(parse(signed.bytes()), Ok(signed));
    let long = Bytes::from(vec![0; MAX_OFFER_LEN + 1]);
    assert_eq!(parse(&long), Err(OpenError::TooLong { len: MAX_OFFER_LEN + 1, max: MAX_OFFER_LEN }.into()));
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let mut message = wire::message(&draft(&key(1)));
    message.rails.push(99);
    message.listings.insert(0, v1::Listing { service: 99, ..Default::default() });
    let bytes = Signed::sign(&key(1), DOMAIN, message.encode_to_vec().into()).encode();
    let signed = parse(&bytes).unwrap();
    assert_eq!(signed.offer(), &draft(&key(1)));
    assert_eq!(signed.bytes(), &bytes);
}

#[test]
fn parts_that_mean_nothing_are_refused() {
    let refused = |change: fn(&mut v1::Offer)| {
        let mut message = wire::message(&draft(&key(1)));
        change(&mut message);
        parse(&Signed::sign(&key(1), DOMAIN, message.encode_to_vec().into()).encode()).unwrap_err()
    };
    assert_eq!(refused(|message| message.seller = Bytes::from_static(b"me")), OfferError::Malformed);
    assert_eq!(refused(|message| message.addresses[0] = Bytes::from_static(&[0xff])), OfferError::Address);
    assert_eq!(refused(|message| message.listings[0].titles[0].root.clear()), OfferError::Content);
    assert_eq!(refused(|message| message.listings[0].titles[0].size = u64::MAX), OfferError::Content);
    assert_eq!(refused(|message| message.listings[0].titles[0].name.clear()), NameError { len: 0 }.into());
}

#[test]
fn services_are_read_by_their_names() {
    for service in Service::ALL {
        assert_eq!(service.to_string().parse(), Ok(service));
    }
    assert_eq!("gold".parse::<Service>(), Err(UnknownService));
}

prop_compose! {
    fn any_title(n: u8)(name in "\\PC{1,32}", size in 0..=crate::content::MAX_SIZE, is_folder: bool) -> Title {
        let kind = if is_folder { Kind::Collection } else { Kind::File };
        Title { name: Name::new(name).unwrap(), root: [n; 32].into(), size: Size::new(size).unwrap(), kind }
    }
}

prop_compose! {
    fn any_offer()(
        sequence: u64,
        issued in 0_u64..1 << 50,
        lifetime in 60_000_u64..=7_200_000,
        addresses in prop::collection::vec(any::<([u8; 4], u16)>(), 0..=MAX_ADDRESSES),
        terms in (any::<u32>(), any::<u32>(), 0..1_u64 << 50),
        (price, above, capacity_bytes_per_s) in (0_u64..1 << 60, 0_u64..1 << 60, any::<u64>()),
        titles in (0..=16_u8).prop_flat_map(|count| (0..count).map(any_title).collect::<Vec<_>>()),
    ) -> Offer {
        let listing = Listing {
            service: Service::Chunks,
            price: Price::per_gib(price),
            ceiling: Price::per_gib(price + above),
            capacity_bytes_per_s,
            titles,
        };
        Offer {
            sequence,
            issued: Timestamp::from_ms(issued),
            expires: Timestamp::from_ms(issued + lifetime),
            addresses: addresses.iter().map(|(ip, port)| {
                Multiaddr::from(std::net::Ipv4Addr::from(*ip)).with(Protocol::Tcp(*port))
            }).collect(),
            terms: Terms { due_s: terms.0, default_s: terms.1, min_topup_sat: terms.2 },
            listings: vec![listing],
            ..draft(&key(1))
        }
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_read_back(offer in any_offer()) {
        let signed = SignedOffer::sign(&key(1), offer).unwrap();
        prop_assert_eq!(parse(signed.bytes()), Ok(signed));
    }

    #[test]
    fn a_flipped_bit_is_refused(bit: prop::sample::Index) {
        let mut bytes = SignedOffer::sign(&key(1), draft(&key(1))).unwrap().bytes().to_vec();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(parse(&bytes.into()).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, body: Vec<u8>) {
        let _ = parse(&bytes.into());
        let _ = parse(&Signed::sign(&key(1), DOMAIN, body.into()).encode());
    }
}
