//! The tables of `journal.sqlite` and their version.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, DatabaseName, OpenFlags};

use super::JournalError;

/// The version that this program writes.
const VERSION: i64 = 2;

/// How long a reader waits for a checkpoint to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What each version added to the one before it; a new file gets all of it.
const STEPS: [&str; VERSION as usize] = [FIRST, FOLDERS];

const FIRST: &str = "
    CREATE TABLE entries (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, body BLOB NOT NULL) STRICT;
    CREATE TABLE goods (
        root BLOB PRIMARY KEY, size INTEGER NOT NULL, path BLOB NOT NULL, name TEXT NOT NULL, outboard BLOB NOT NULL,
        inode INTEGER NOT NULL, modified_s INTEGER NOT NULL, modified_ns INTEGER NOT NULL, price_msat_per_gib INTEGER
    ) STRICT;
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

const FOLDERS: &str = "
    CREATE TABLE folders (
        root BLOB PRIMARY KEY, path BLOB NOT NULL, size INTEGER NOT NULL, whole_bytes INTEGER NOT NULL,
        whole_objects INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE files (
        folder BLOB NOT NULL, root BLOB NOT NULL, size INTEGER NOT NULL, path BLOB NOT NULL, outboard BLOB NOT NULL,
        inode INTEGER NOT NULL, modified_s INTEGER NOT NULL, modified_ns INTEGER NOT NULL, PRIMARY KEY (folder, root)
    ) STRICT, WITHOUT ROWID;
";

/// A file of another version.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the journal is of version {found}, this program writes version {VERSION}: use a newer program")]
pub(crate) struct SchemaError {
    found: i64,
}

/// Opens or makes the file; one of an older version is brought to this one, after a copy of it was put beside it.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    let mut db = Connection::open(path)?;
    // Before anything is in it; a file system without permissions is no reason not to start.
    let _ = File::open(path).and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let steps = usize::try_from(found).ok().and_then(|found| STEPS.get(found..)).ok_or(SchemaError { found })?;
    if found > 0 && !steps.is_empty() {
        keep_copy(&db, path, found)?;
    }
    let tx = db.transaction()?;
    steps.iter().try_for_each(|step| tx.execute_batch(step))?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(db)
}

/// Opens the file that a running node writes, to read it beside it.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(PATIENCE)?;
    Ok(db)
}

/// Copies the file as it is to `NAME.v<version>`; a copy that an interrupted try left is replaced.
fn keep_copy(db: &Connection, path: &Path, version: i64) -> Result<(), JournalError> {
    let copy = path.with_added_extension(format!("v{version}"));
    let _ = std::fs::remove_file(&copy);
    db.backup(DatabaseName::Main, &copy, None)?;
    let _ = File::open(&copy).and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_journal_is_copied_and_brought_to_this_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(FIRST).unwrap();
        old.execute_batch("PRAGMA user_version = 1; INSERT INTO settings VALUES ('kept', 'yes');").unwrap();
        drop(old);

        let kept =
            |db: &Connection| db.query_row("SELECT value FROM settings", [], |row| row.get::<_, String>(0)).unwrap();
        for _ in 0..2 {
            let db = open(&path).unwrap();
            assert_eq!(kept(&db), "yes");
            db.execute_batch("SELECT * FROM files, folders").unwrap();
            assert_eq!(db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), VERSION);
        }
        let copy = dir.path().join("journal.sqlite.v1");
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let copy = Connection::open(copy).unwrap();
        assert_eq!(kept(&copy), "yes");
        assert_eq!(copy.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), 1);
    }

    #[test]
    fn a_newer_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        drop(open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(open(&path), Err(JournalError::Schema(SchemaError { found })) if found == VERSION + 1));
    }
}
