use super::*;
use proptest::prelude::*;

const DOMAIN: &str = "pedlar test v1";

fn key(seed: u8) -> ed25519::Keypair {
    ed25519::SecretKey::try_from_bytes([seed; 32]).unwrap().into()
}

#[test]
fn a_header_is_four_bytes() {
    let header = FrameHeader::new(FrameKind::Data, 0x01_02_03).unwrap();
    assert_eq!(header.to_bytes(), [1, 1, 2, 3]);
    assert_eq!(FrameHeader::parse([1, 1, 2, 3]), Ok(header));
}

#[test]
fn a_header_is_bounded_before_anything_is_allocated() {
    assert_eq!(FrameHeader::parse([0, 0, 0, 0]), Err(FrameError::Empty));
    assert_eq!(FrameHeader::parse([2, 0, 0, 1]), Err(FrameError::UnknownKind(2)));
    for kind in [FrameKind::Control, FrameKind::Data] {
        let max = kind.max_len();
        assert_eq!(FrameHeader::new(kind, max).unwrap().payload_len(), max);
        assert_eq!(FrameHeader::new(kind, max + 1), Err(FrameError::TooLong { len: max + 1, max }));
    }
    assert_eq!(FrameHeader::new(FrameKind::Data, usize::MAX).unwrap_err().to_string().split(' ').next(), Some("frame"));
}

#[test]
fn a_network_fits_into_a_protocol_name() {
    for good in ["signet", "regtest-0a1b2c3d", "x"] {
        assert_eq!(good.parse::<Network>().unwrap().as_str(), good);
    }
    for bad in ["", "a/b", "Signet", "sig net", "a\0", &"a".repeat(33)] {
        assert_eq!(bad.parse::<Network>(), Err(NetworkError), "{bad:?}");
    }
}

#[test]
fn a_signature_is_bound_to_signer_domain_and_bytes() {
    let (alice, bob) = (key(1), key(2));
    let bytes = Signed::sign(&alice, DOMAIN, Bytes::from_static(b"ten sat")).encode();
    let max = bytes.len();
    assert_eq!(open(DOMAIN, &peer_id(&alice), &bytes, max).unwrap(), "ten sat");
    assert_eq!(open(DOMAIN, &peer_id(&bob), &bytes, max), Err(OpenError::BadSignature));
    assert_eq!(open("pedlar other v1", &peer_id(&alice), &bytes, max), Err(OpenError::BadSignature));
    assert_eq!(open(DOMAIN, &peer_id(&alice), &bytes, max - 1), Err(OpenError::TooLong { len: max, max: max - 1 }));
}

#[test]
fn an_envelope_has_one_spelling() {
    let bytes = Signed::sign(&key(1), DOMAIN, Bytes::from_static(b"body")).encode();
    let with_an_unknown_field = Bytes::from([&bytes[..], &[0x18, 0x01]].concat());
    assert_eq!(Signed::decode(&with_an_unknown_field, 1 << 10), Err(OpenError::Malformed));
}

#[test]
fn only_one_id_per_key_is_accepted() {
    let key = PublicKey::from(key(1).public()).encode_protobuf();
    let id = |code, digest: &[u8]| PeerId::from_multihash(multihash::Multihash::wrap(code, digest).unwrap()).unwrap();
    assert!(public_key(&id(0, &key)).is_some());
    let with_an_unknown_field = [&key[..], &[0x18, 0x01]].concat();
    assert_eq!(public_key(&id(0, &with_an_unknown_field)), None);
    assert_eq!(public_key(&id(0x12, &[7; 32])), None);
    assert_eq!(public_key(&id(0, &[7; 32])), None);
}

proptest! {
    #[test]
    fn headers_are_read_back(bytes: [u8; 4]) {
        if let Ok(header) = FrameHeader::parse(bytes) {
            prop_assert_eq!(header.to_bytes(), bytes);
            prop_assert!((1..=header.kind().max_len()).contains(&header.payload_len()));
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Signed::decode(&bytes.into(), 1 << 10);
    }

    #[test]
    fn a_flipped_bit_is_refused(body: Vec<u8>, bit: prop::sample::Index) {
        let alice = key(1);
        let mut bytes = Signed::sign(&alice, DOMAIN, body.into()).encode().to_vec();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open(DOMAIN, &peer_id(&alice), &bytes.into(), 1 << 10).is_err());
    }
}
