//! Making a home of a backup and its words.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufReader};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use age::{DecryptError, Decryptor, Identity};
use pedlar_protocol::market::{Books, Market, audit_ledgers};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::peer_id;
use pedlar_wallet::{CreateSeedError, OpenError, SeedFile, Words};
use tempfile::TempDir;

use super::container::{CONFIG, JOURNAL, Manifest, UnpackError, WALLET, unpack};
use super::key::opener;
use crate::config::{Config, Flags};
use crate::driver::now;
use crate::home::{FILE_MODE, Home};
use crate::identity;
use crate::node::{network_name, terms};
use crate::store::{Journal, JournalError};

/// A home that was made.
#[derive(Debug, Clone)]
pub(crate) struct Restored {
    pub(crate) peer_id: String,
    pub(crate) network: String,
    pub(crate) created: Timestamp,
    /// Rows of the journal.
    pub(crate) entries: usize,
    /// What is published and has to be hashed again.
    pub(crate) goods: usize,
    /// What the audit of the books found, which was so before.
    pub(crate) findings: Vec<String>,
}

/// Why none was made; nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// There is something in the home.
    #[error("{0} is not empty: a backup is restored into a new home")]
    NotEmpty(String),
    /// The backup's file can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// These words do not open it.
    #[error("these words do not open this backup: it is another node's, or the words are wrong")]
    OtherWords,
    /// It is none.
    #[error("this is no backup, or its beginning is damaged")]
    NoBackup,
    /// What is in it.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The settings in it.
    #[error("the backup's settings: {0}")]
    Config(String),
    /// The journal in it.
    #[error("in the backup: {0}")]
    Journal(#[from] JournalError),
    /// The wallet in it.
    #[error("in the backup: {0}")]
    Wallet(#[from] OpenError),
    /// The words can't be stored.
    #[error(transparent)]
    Seed(#[from] CreateSeedError),
    /// The system.
    #[error("the home can't be made: {0}")]
    Io(#[from] io::Error),
}

/// Makes `home` of the backup in `file` and the words that it was made with.
///
/// # Errors
/// [`RestoreError`]; the home is as it was.
pub(crate) fn restore(file: &Path, words: &Words, passphrase: &str, home: &Home) -> Result<Restored, RestoreError> {
    let folders: Vec<&Path> = home.folders().into_iter().filter(|folder| !folder.exists()).collect();
    let restored = restore_into(file, words, passphrase, home);
    if restored.is_err() {
        // Only those that this attempt made, and only if there is nothing in them.
        folders.into_iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
    restored
}

fn restore_into(file: &Path, words: &Words, passphrase: &str, home: &Home) -> Result<Restored, RestoreError> {
    for folder in home.folders() {
        if !is_empty(folder)? {
            return Err(RestoreError::NotEmpty(folder.display().to_string()));
        }
    }
    let backup = File::open(file).map_err(|e| RestoreError::Unreadable(format!("{}: {e}", file.display())))?;
    DirBuilder::new().recursive(true).mode(0o700).create(home.wallet())?;
    // In the home: its files come to their places by a link, also where the home is a file system of its own.
    let staged = tempfile::Builder::new().prefix(".restore-").tempdir_in(home.wallet())?;
    let manifest = open(backup, words, staged.path())?;
    let restored = check(&manifest, words, staged.path())?;
    SeedFile::create(&staged.path().join("seed"), words, passphrase)?;
    place(&staged, home)?;
    Ok(restored)
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut found) => Ok(found.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Decrypts and unpacks.
fn open(backup: File, words: &Words, folder: &Path) -> Result<Manifest, RestoreError> {
    let keys = words.keys();
    let me = identity::keypair(&identity::secret(&keys)).map(|key| peer_id(&key)).ok_or(RestoreError::OtherWords)?;
    let key = opener(&keys).ok_or(RestoreError::OtherWords)?;
    let key: &dyn Identity = &key;
    let sealed = Decryptor::new_buffered(BufReader::new(backup)).map_err(not_opened)?;
    let mut plain = sealed.decrypt(std::iter::once(key)).map_err(not_opened)?;
    Ok(unpack(&mut plain, &me, folder)?)
}

fn not_opened(error: DecryptError) -> RestoreError {
    match error {
        DecryptError::NoMatchingKeys => RestoreError::OtherWords,
        _ => RestoreError::NoBackup,
    }
}

/// Reads everything as a node would, and marks it as restored.
fn check(manifest: &Manifest, words: &Words, folder: &Path) -> Result<Restored, RestoreError> {
    let (config, _) = Config::load(&folder.join(CONFIG), Flags::new(), |_| None)
        .map_err(|error| RestoreError::Config(error.to_string()))?;
    if config.network.to_string() != manifest.network {
        return Err(RestoreError::Config(format!("they are of {}, its coins of {}", config.network, manifest.network)));
    }
    let block_1 = pedlar_wallet::revive(folder, config.network, words.keys(), now().ms())?;
    let (journal, entries) = Journal::open(&folder.join(JOURNAL), &manifest.peer)?;
    journal.mark_restored(now())?;
    let goods = journal.goods()?;
    drop(journal);
    let key = identity::keypair(&identity::secret(&words.keys())).ok_or(RestoreError::OtherWords)?;
    // Before a server was ever reached nothing was traded, on whatever network.
    let network = network_name(&config, block_1.map(|block| block.to_string()).as_deref());
    let network = network.unwrap_or_else(|| manifest.network.clone()).parse();
    let network = network.map_err(|_| RestoreError::Config("they name no network".to_owned()))?;
    let mut market = Market::new(key, network, terms(&config), now());
    entries.iter().for_each(|entry| market.restore(entry));
    market.handle_restored();
    let findings = audit_ledgers(&[Books { market: &market, wallet: None }]);
    Ok(Restored {
        peer_id: manifest.peer.to_string(),
        network: manifest.network.clone(),
        created: manifest.created,
        entries: entries.len(),
        goods,
        findings: findings.iter().map(ToString::to_string).collect(),
    })
}

/// Puts the files into their places, none of which may be taken, the seed last: with it there is a node.
fn place(staged: &TempDir, home: &Home) -> Result<(), RestoreError> {
    home.create()?;
    let places = [
        (CONFIG, home.config_file()),
        (JOURNAL, home.journal()),
        (WALLET, home.wallet().join(WALLET)),
        ("seed", home.seed()),
    ];
    let mut placed: Vec<&PathBuf> = Vec::new();
    let put = |(name, to): &(&str, PathBuf)| {
        let from = staged.path().join(name);
        fs::set_permissions(&from, Permissions::from_mode(FILE_MODE))?;
        File::open(&from)?.sync_all()?;
        fs::hard_link(from, to)?;
        File::open(to.parent().unwrap_or(to))?.sync_all()
    };
    for file in &places {
        if let Err(error) = put(file) {
            placed.into_iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(error.into());
        }
        placed.push(&file.1);
    }
    Ok(())
}
