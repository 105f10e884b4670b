use std::os::unix::fs::PermissionsExt;

use super::*;

const STEPS: [&str; 3] = [
    "CREATE TABLE coins (sat INTEGER) STRICT; INSERT INTO coins VALUES (7);",
    "ALTER TABLE coins ADD COLUMN place TEXT; UPDATE coins SET place = 'chest';",
    "CREATE TABLE names (name TEXT) STRICT;",
];

fn ladder(versions: usize) -> Ladder {
    Ladder { steps: &STEPS[..versions], exclusive: false }
}

fn open(versions: usize, path: &Path) -> Result<u32, LadderError> {
    ladder(versions).open(path, |_, found| Ok(found)).map(|(_, found)| found)
}

fn version(path: &Path) -> u32 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn sat(path: &Path) -> u64 {
    Connection::open(path).unwrap().query_row("SELECT sum(sat) FROM coins", [], |row| row.get(0)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_older_file_is_copied_and_brought_to_the_newest_version_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coins.sqlite");
    assert_eq!(open(1, &path).unwrap(), 0);
    assert_eq!(names(dir.path()), ["coins.sqlite"], "of a new file no copy is kept");
    assert_eq!(open(3, &path).unwrap(), 1);
    assert_eq!(open(3, &path).unwrap(), 3);
    assert_eq!((version(&path), sat(&path)), (3, 7));
    let copy = dir.path().join("coins.sqlite.v1.backup");
    assert_eq!((version(&copy), sat(&copy)), (1, 7));
    assert_eq!(names(dir.path()), ["coins.sqlite", "coins.sqlite.v1.backup"]);
    for file in [&path, &copy] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_newer_file_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coins.sqlite");
    open(3, &path).unwrap();
    let before = fs::read(&path).unwrap();
    let error = open(2, &path).unwrap_err();
    assert!(matches!(error, LadderError::Newer { found: 3, known: 2, .. }));
    assert!(error.to_string().contains("use a newer program"), "{error}");
    assert!(matches!(ladder(2).check(&path), Err(LadderError::Newer { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names(dir.path()), ["coins.sqlite"]);
    ladder(2).check(&dir.path().join("none")).unwrap();
}

#[test]
fn a_newer_file_whose_version_is_only_in_its_wal_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coins.sqlite");
    open(1, &path).unwrap();
    let (db, _) = ladder(3).open(&path, |_, _| Ok(())).unwrap();
    // The power goes before anything came from the WAL into the file.
    let cut = tempfile::tempdir().unwrap();
    for name in ["coins.sqlite", "coins.sqlite-wal"] {
        fs::copy(dir.path().join(name), cut.path().join(name)).unwrap();
    }
    drop(db);
    let (path, wal) = (cut.path().join("coins.sqlite"), cut.path().join("coins.sqlite-wal"));
    ladder(1).check(&path).unwrap();
    let before = (fs::read(&path).unwrap(), fs::read(&wal).unwrap());
    for exclusive in [false, true] {
        let refused = Ladder { exclusive, ..ladder(1) }.open(&path, |_, _| Ok(()));
        assert!(matches!(refused, Err(LadderError::Newer { found: 3, known: 1, .. })));
        assert!((fs::read(&path).unwrap(), fs::read(&wal).unwrap()) == before);
    }
    assert_eq!((open(3, &path).unwrap(), version(&path), sat(&path)), (3, 3, 7));
}

#[test]
fn a_step_or_a_copy_that_fails_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coins.sqlite");
    open(1, &path).unwrap();
    let broken = Ladder { steps: &[STEPS[0], STEPS[1], "CREATE TABLE coins (twice INTEGER) STRICT;"], exclusive: true };
    assert!(matches!(broken.open(&path, |_, _| Ok(())), Err(LadderError::Sqlite(_))));
    assert_eq!((version(&path), sat(&path)), (1, 7));
    let refused = ladder(3).open(&path, |_, _| Err::<(), _>(rusqlite::Error::InvalidQuery));
    assert!(matches!(refused, Err(LadderError::Sqlite(_))));
    assert_eq!((version(&path), sat(&path)), (1, 7));
    // A folder stands where the copy would be made.
    fs::create_dir(dir.path().join("coins.sqlite.v1.backup.part")).unwrap();
    assert!(matches!(open(3, &path), Err(LadderError::Copy { to: 3, .. })));
    assert_eq!((version(&path), sat(&path)), (1, 7));
}

#[test]
fn a_copy_that_was_interrupted_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coins.sqlite");
    open(1, &path).unwrap();
    fs::write(dir.path().join("coins.sqlite.v1.backup.part"), "half of it").unwrap();
    fs::write(dir.path().join("coins.sqlite.v1.backup"), "of a try before").unwrap();
    open(3, &path).unwrap();
    assert_eq!(sat(&dir.path().join("coins.sqlite.v1.backup")), 7);
    assert_eq!(names(dir.path()), ["coins.sqlite", "coins.sqlite.v1.backup"]);
}
