use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

#[test]
fn words_survive_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("home/seed");
    let words = Words::generate().unwrap();
    SeedFile::create(&path, &words, "open sesame").unwrap();
    let keys = SeedFile::open(&path, "open sesame").unwrap();
    assert_eq!(*keys.seed, *words.keys().seed);
    assert!(matches!(SeedFile::open(&path, "open Sesame"), Err(OpenSeedError::WrongPassphrase)));
    assert!(matches!(SeedFile::create(&path, &words, "x"), Err(CreateSeedError::Exists)));
    let mode = |p: &std::path::Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
}

#[test]
fn every_changed_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    SeedFile::create(&path, &Words::parse(PHRASE).unwrap(), "p").unwrap();
    let whole = fs::read(&path).unwrap();
    // One byte of each field; the parameters go up by one so that they stay cheap.
    for offset in [0, 8, 13, 21, 37, 61, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1;
        fs::write(&path, &bytes).unwrap();
        SeedFile::open(&path, "p").unwrap_err();
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(SeedFile::open(&path, "p"), Err(OpenSeedError::NotASeedFile)));
}

#[test]
fn a_header_cannot_ask_for_the_whole_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    SeedFile::create(&path, &Words::parse(PHRASE).unwrap(), "p").unwrap();
    let whole = fs::read(&path).unwrap();
    for field in 0..3 {
        let mut bytes = whole.clone();
        bytes[9 + 4 * field..13 + 4 * field].copy_from_slice(&u32::MAX.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(SeedFile::open(&path, "p"), Err(OpenSeedError::TooCostly { .. })));
    }
}

#[test]
fn mistyped_words_are_named_by_place() {
    assert_eq!(Words::parse("one two"), Err(WordsError::Count { have: 2 }));
    assert_eq!(Words::parse(&PHRASE.replacen("abandon", "abandoned", 1)), Err(WordsError::Unknown { position: 1 }));
    assert_eq!(Words::parse(&PHRASE.replace("about", "abandon")), Err(WordsError::Checksum));
    assert_eq!(*Words::parse(&PHRASE.to_uppercase()).unwrap().phrase(), PHRASE);
}

#[test]
fn secrets_differ_by_context_and_are_not_printed() {
    let words = Words::parse(PHRASE).unwrap();
    let keys = words.keys();
    assert_ne!(keys.derive("pedlar identity v1"), keys.derive("pedlar other v1"));
    // The seed of the BIP39 test vector, but with no BIP39 passphrase (Trezor's list has "TREZOR").
    assert_eq!(keys.seed[..4], [0x5e, 0xb0, 0x0b, 0xbd]);
    assert!(!format!("{words:?}{keys:?}").contains("about"));
}

#[test]
fn addresses_are_those_of_bip84() {
    let secp = Secp256k1::new();
    let (fingerprint, account) = Words::parse(PHRASE).unwrap().keys().account(bitcoin::Network::Signet, &secp).unwrap();
    assert_eq!(fingerprint.to_string(), "73c5da0a");
    assert!(
        account
            .to_string()
            .starts_with("tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxy")
    );
}
