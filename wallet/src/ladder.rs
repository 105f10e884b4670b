//! The versions of a SQLite file of ours: it is opened, and brought to the newest version after a copy was kept.
//!
//! **Invariant:** a file is of its old version or of the newest, never between: all steps are one transaction. Before it
//! begins, a whole copy of the old file is on the disk. A file of a newer program stays as it is, to the last byte.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, DatabaseName, Transaction};

/// What a SQLite file begins with, and where in that header `user_version` stands (SQLite file format, 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";
const VERSION_AT: usize = 60;
const HEADER_BYTES: u64 = 100;

/// What each version of a file added to the one before it. A step that was released never changes: a new one is
/// appended.
#[derive(Debug, Clone, Copy)]
pub struct Ladder {
    /// The SQL of each version, the first one's first.
    pub steps: &'static [&'static str],
    /// Whether one process has the file for itself.
    pub exclusive: bool,
}

/// Why a file was not opened; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum LadderError {
    /// A newer program wrote it.
    #[error("{name} is of version {found}, and this program knows versions up to {known}: use a newer program")]
    Newer {
        /// The file's name.
        name: String,
        /// Its version.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The copy of the old file could not be kept, so nothing was changed.
    #[error("no copy of {} could be kept before it is brought to version {to}: {source}", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// The version that it was to be brought to.
        to: u32,
        /// What failed.
        source: io::Error,
    },
    /// The file could not be made.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl Ladder {
    /// The version that this program writes.
    pub const fn newest(&self) -> u32 {
        // A ladder of 2^32 steps fits no program.
        self.steps.len() as u32
    }

    /// Opens or makes the file (0600) and brings it to the newest version; `also` runs in the same transaction as the
    /// steps, with the version that was found (0: the file is new).
    ///
    /// An older file is first copied to `NAME.v<version>.backup` beside it (0600, synced).
    ///
    /// # Errors
    ///
    /// [`LadderError`]; the file is as it was.
    pub fn open<T>(
        &self,
        path: &Path,
        also: impl FnOnce(&Transaction<'_>, u32) -> rusqlite::Result<T>,
    ) -> Result<(Connection, T), LadderError> {
        let io = |source| LadderError::Io { path: path.to_owned(), source };
        self.check(path)?;
        // Made here, since SQLite would make it readable for all; its journal files take the mode of the file.
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(io)?;
        let mut db = Connection::open(path)?;
        // The version may stand only in what a newer program has left in the WAL: that stays there.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        if self.exclusive {
            db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        }
        let found: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let (steps, known) = (self.steps_after(path, found)?, self.newest());
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        if found > 0 && !steps.is_empty() {
            let kept = keep_copy(&db, path, found);
            kept.map_err(|source| LadderError::Copy { path: path.to_owned(), to: known, source })?;
        }
        let tx = db.transaction()?;
        steps.iter().try_for_each(|step| tx.execute_batch(step))?;
        tx.pragma_update(None, "user_version", known)?;
        let value = also(&tx, found)?;
        tx.commit()?;
        Ok((db, value))
    }

    /// Whether a newer program wrote the file, as far as its header tells; there may be none.
    ///
    /// # Errors
    ///
    /// [`LadderError::Newer`], or the file can't be read.
    pub fn check(&self, path: &Path) -> Result<(), LadderError> {
        let mut header = Vec::new();
        // Looked at through SQLite, it would have other files beside it.
        match File::open(path).and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut header)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => drop(read.map_err(|source| LadderError::Io { path: path.to_owned(), source })?),
        }
        let version = header.get(VERSION_AT..).and_then(<[u8]>::first_chunk).filter(|_| header.starts_with(MAGIC));
        self.steps_after(path, version.map_or(0, |version| u32::from_be_bytes(*version))).map(drop)
    }

    fn steps_after(&self, path: &Path, found: u32) -> Result<&'static [&'static str], LadderError> {
        self.steps.get(found as usize..).ok_or_else(|| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            LadderError::Newer { name, found, known: self.newest() }
        })
    }
}

/// The copy that is kept of a file before it is brought from `version` to a newer one.
fn copy_of(path: &Path, version: u32) -> PathBuf {
    path.with_added_extension(format!("v{version}.backup"))
}

/// Copies the file as it is. The copy has its name only when it is whole and on the disk.
fn keep_copy(db: &Connection, path: &Path, version: u32) -> io::Result<()> {
    let copy = copy_of(path, version);
    let part = copy.with_added_extension("part");
    // What an interrupted try left.
    if let Err(error) = fs::remove_file(&part)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    db.backup(DatabaseName::Main, &part, None).map_err(io::Error::other)?;
    file.sync_all()?;
    fs::rename(&part, &copy)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
