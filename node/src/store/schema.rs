//! The tables of `journal.sqlite` and their version.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;

use super::JournalError;

/// The version that this program writes.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE entries (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, body BLOB NOT NULL) STRICT;
    CREATE TABLE goods (
        root BLOB PRIMARY KEY, size INTEGER NOT NULL, path BLOB NOT NULL, name TEXT NOT NULL, outboard BLOB NOT NULL,
        inode INTEGER NOT NULL, modified_s INTEGER NOT NULL, modified_ns INTEGER NOT NULL, price_msat_per_gib INTEGER
    ) STRICT;
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// A file of another version.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the journal is of version {found}, this program writes version {VERSION}: use a newer program")]
pub(crate) struct SchemaError {
    found: i64,
}

/// Opens or makes the file.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    let mut db = Connection::open(path)?;
    // Before anything is in it; a file system without permissions is no reason not to start.
    let _ = File::open(path).and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    match db.pragma_query_value(None, "user_version", |row| row.get(0))? {
        0 => {
            let tx = db.transaction()?;
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "user_version", VERSION)?;
            tx.commit()?;
        }
        VERSION => {}
        found => return Err(SchemaError { found }.into()),
    }
    Ok(db)
}
