//! The tables of `journal.sqlite` and their version.

use std::path::Path;
use std::time::Duration;

use pedlar_wallet::Ladder;
use rusqlite::{Connection, OpenFlags};

/// The versions of `journal.sqlite`.
pub(super) const LADDER: Ladder = Ladder { steps: &[FIRST, FOLDERS, SPENDINGS], exclusive: false };

/// How long a reader waits for a checkpoint to end.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// No table: entries of a kind that older programs would take for damage.
const SPENDINGS: &str = "";

/// Opens the file that a running node writes, to read it beside it.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(PATIENCE)?;
    Ok(db)
}
