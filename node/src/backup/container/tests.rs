use super::*;
use libp2p_identity::ed25519::SecretKey;

const CREATED: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn key(n: u8) -> Keypair {
    SecretKey::try_from_bytes([n; 32]).unwrap().into()
}

fn packed(key: &Keypair) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for (place, name) in PARTS.iter().enumerate() {
        std::fs::write(dir.path().join(name), vec![place as u8; place * 100_000]).unwrap();
    }
    let mut out = Vec::new();
    pack(dir.path(), &Manifest::new(key, "regtest", CREATED), key, &mut out).unwrap();
    out
}

fn unpacked(mut bytes: &[u8], me: &Keypair) -> Result<Manifest, UnpackError> {
    let dir = tempfile::tempdir().unwrap();
    let manifest = unpack(&mut bytes, &peer_id(me), dir.path())?;
    for (place, name) in PARTS.iter().enumerate() {
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), vec![place as u8; place * 100_000]);
    }
    Ok(manifest)
}

#[test]
fn what_is_packed_is_unpacked() {
    let manifest = unpacked(&packed(&key(1)), &key(1)).unwrap();
    assert_eq!(manifest, Manifest::new(&key(1), "regtest", CREATED));
}

#[test]
fn no_byte_can_be_changed_lost_or_added() {
    let good = packed(&key(1));
    let everywhere = (0..600).chain((600..good.len()).step_by(9_973)).chain([good.len() - 1]);
    for place in everywhere {
        let mut changed = good.clone();
        changed[place] ^= 1;
        assert!(unpacked(&changed, &key(1)).is_err(), "byte {place} changed");
        assert!(unpacked(&good[..place], &key(1)).is_err(), "cut at {place}");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(matches!(unpacked(&longer, &key(1)), Err(UnpackError::Damaged(_))));
}

#[test]
fn another_node_or_version_is_told_apart() {
    assert!(matches!(unpacked(&packed(&key(1)), &key(2)), Err(UnpackError::Damaged(_))));
    let mut newer = packed(&key(1));
    newer[MAGIC.len()] = VERSION + 1;
    assert!(matches!(unpacked(&newer, &key(1)), Err(UnpackError::Newer { found }) if found == VERSION + 1));
}
