use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::keys::Words;

fn open(dir: &Path, words: &Words) -> Result<State, OpenError> {
    State::open(dir, Network::Regtest, words.keys(), false)
}

#[test]
fn files_are_the_owners_and_hold_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("wallet");
    let words = Words::generate().unwrap();
    let mut state = open(&home, &words).unwrap();
    state.receive_address().unwrap();
    let master = words.keys().master(bitcoin::Network::Regtest).unwrap();
    let secrets = [words.phrase().as_bytes().to_vec(), master.to_string().into_bytes(), b"tprv".to_vec()];
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    for entry in fs::read_dir(&home).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        let bytes = fs::read(&path).unwrap();
        for secret in &secrets {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{path:?}");
        }
    }
}

#[test]
fn the_file_belongs_to_one_process_words_and_network() {
    let dir = tempfile::tempdir().unwrap();
    let words = Words::generate().unwrap();
    let state = open(dir.path(), &words).unwrap();
    assert!(matches!(open(dir.path(), &words), Err(OpenError::Locked)));
    drop(state);
    assert!(matches!(open(dir.path(), &Words::generate().unwrap()), Err(OpenError::OtherWords)));
    let signet = State::open(dir.path(), Network::Signet, words.keys(), false);
    assert!(matches!(signet, Err(OpenError::OtherNetwork)));
    let state = open(dir.path(), &words).unwrap();
    let newer = LADDER.newest() + 1;
    state.db.pragma_update(None, "user_version", newer).unwrap();
    drop(state);
    let refused = open(dir.path(), &words);
    assert!(matches!(refused, Err(OpenError::Version(LadderError::Newer { found, .. })) if found == newer));
    fs::write(dir.path().join(FILE_NAME), "no database at all, however long it may be").unwrap();
    assert!(matches!(open(dir.path(), &words), Err(OpenError::Damaged)));
}

/// Where this fails, BDK has changed its tables: a step of ours goes with that, if only an empty one.
#[test]
fn bdk_changes_its_tables_only_with_a_step_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path(), &Words::generate().unwrap()).unwrap();
    let mut query = state.db.prepare("SELECT name, version FROM bdk_schemas ORDER BY name").unwrap();
    let found = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let found: Vec<(String, u32)> = found.collect::<Result<_, _>>().unwrap();
    let known = [("bdk_keychaintxout", 1), ("bdk_localchain", 0), ("bdk_txgraph", 3), ("bdk_wallet", 1)];
    let known = known.map(|(name, version)| (name.to_owned(), version));
    assert_eq!((LADDER.newest(), found.as_slice()), (4, &known[..]));
}

#[test]
fn a_certificate_stays_pinned_until_another_one_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path(), &Words::generate().unwrap()).unwrap();
    let server: ServerUrl = "ssl://127.0.0.1:50002".parse().unwrap();
    let (old, new) = (Fingerprint([1; 32]), Fingerprint([2; 32]));
    let block_1 = BlockHash::from_byte_array([0; 32]);
    for shown in [old, new] {
        state.meet(&server, Some(shown), block_1).unwrap();
        assert_eq!(state.pin(&server).unwrap(), Some(old));
    }
    state.trust(&server, new).unwrap();
    assert_eq!(state.pin(&server).unwrap(), Some(new));
    assert_eq!(["02"; 32].join(":").parse(), Ok(new));
    assert!("02".repeat(31).parse::<Fingerprint>().is_err());
}
