//! Making a backup, also while the node trades.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use age::{Encryptor, Recipient};
use pedlar_protocol::time::Timestamp;
use rusqlite::{Connection, DatabaseName, OpenFlags};
use tempfile::{NamedTempFile, TempDir};
use tokio::task::spawn_blocking;

use super::container::{CONFIG, JOURNAL, Manifest, WALLET, pack};
use super::key::Sealer;
use crate::driver::{Driver, now};
use crate::home::Home;

/// A backup that was made.
#[derive(Debug, Clone)]
pub(crate) struct Created {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) created: Timestamp,
    pub(crate) peer_id: String,
}

/// Why none was made; no file was left then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// The file is there already.
    #[error("{0} exists and is never overwritten")]
    Exists(String),
    /// A copy or the file could not be written.
    #[error("the backup could not be made: {0}")]
    Failed(String),
}

impl CreateError {
    fn failed(error: impl ToString) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Backs up a running node into the new file `path`; trade goes on meanwhile.
///
/// # Errors
/// [`CreateError`]
pub(crate) async fn create(
    home: &Home,
    driver: &Driver,
    sealer: &std::sync::Arc<Sealer>,
    path: PathBuf,
) -> Result<Created, CreateError> {
    let (copies, created) = (begin(home, &path)?, now());
    let journal = copies.path().join(JOURNAL);
    driver.store().ask(move |db| db.backup(DatabaseName::Main, journal, None)).await.map_err(CreateError::failed)?;
    // After the journal: see the invariant of this room.
    driver.wallet().copy_to(copies.path().join(WALLET)).await.map_err(CreateError::failed)?;
    let manifest = Manifest::new(&sealer.key, driver.network(), created);
    let sealer = std::sync::Arc::clone(sealer);
    spawn_blocking(move || seal(&copies, &manifest, &sealer, path)).await.map_err(CreateError::failed)?
}

/// Backs up a home in which no node runs, which the caller has locked.
///
/// # Errors
/// [`CreateError`]
pub(crate) fn create_offline(
    home: &Home,
    network: pedlar_wallet::Network,
    sealer: &Sealer,
    path: PathBuf,
) -> Result<Created, CreateError> {
    let (copies, created) = (begin(home, &path)?, now());
    for (name, file) in [(JOURNAL, home.journal()), (WALLET, home.wallet().join(WALLET))] {
        // As it was left, also by a crash: what stands in its log is read with it.
        let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(CreateError::failed)?;
        db.backup(DatabaseName::Main, copies.path().join(name), None).map_err(CreateError::failed)?;
    }
    seal(&copies, &Manifest::new(&sealer.key, network, created), sealer, path)
}

/// A folder for the copies, with the settings in it.
fn begin(home: &Home, path: &Path) -> Result<TempDir, CreateError> {
    if path.symlink_metadata().is_ok() {
        return Err(CreateError::Exists(path.display().to_string()));
    }
    // In the home, which is closed to others and has room for what it holds.
    let copies = tempfile::Builder::new().prefix(".backup-").tempdir_in(home.wallet()).map_err(CreateError::failed)?;
    fs::copy(home.config_file(), copies.path().join(CONFIG)).map_err(CreateError::failed)?;
    Ok(copies)
}

/// Encrypts the copies into a file that appears whole or not at all.
fn seal(copies: &TempDir, manifest: &Manifest, sealer: &Sealer, path: PathBuf) -> Result<Created, CreateError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut draft = tempfile::Builder::new().prefix(".backup-").tempfile_in(folder)?;
        encrypt(copies.path(), manifest, sealer, &mut draft)?;
        draft.as_file().sync_all()?;
        Ok(draft)
    };
    let draft: NamedTempFile = write().map_err(|error: io::Error| CreateError::failed(error))?;
    let bytes = draft.as_file().metadata().map_err(CreateError::failed)?.len();
    draft.persist_noclobber(&path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => CreateError::Exists(path.display().to_string()),
        _ => CreateError::failed(error.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(CreateError::failed)?;
    Ok(Created { path, bytes, created: manifest.created, peer_id: manifest.peer.to_string() })
}

fn encrypt(copies: &Path, manifest: &Manifest, sealer: &Sealer, out: &mut impl Write) -> io::Result<()> {
    let recipient: &dyn Recipient = &sealer.recipient;
    let encryptor = Encryptor::with_recipients(std::iter::once(recipient)).map_err(io::Error::other)?;
    let mut sealed = encryptor.wrap_output(out)?;
    pack(copies, manifest, &sealer.key, &mut sealed)?;
    sealed.finish().map(drop)
}
