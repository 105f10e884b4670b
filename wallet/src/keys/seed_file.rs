//! The seed file: the words' entropy, encrypted under a passphrase.
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic "PDLRSEED"
//!      8      1  version, 1
//!      9     12  argon2id: memory in KiB, passes, lanes (u32, little endian)
//!     21     16  salt
//!     37     24  nonce
//!     61     32  XChaCha20-Poly1305 of the 16 bytes of entropy; bytes 0..61 are the associated data
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{ENTROPY_LEN, Keys, NoRandomness, Words};

const MAGIC: &[u8; 8] = b"PDLRSEED";
const VERSION: u8 = 1;
const SALT_LEN: usize = 16;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = MAGIC.len() + 1 + 12 + SALT_LEN + NONCE_LEN;
const FILE_LEN: usize = HEADER_LEN + ENTROPY_LEN + TAG_LEN;

/// What new files cost to try one passphrase on: 64 MiB, three passes (RFC 9106's second recommendation, one lane).
const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
/// The dearest file that is opened: a header is read before it is authenticated, so it mustn't name 4 TiB.
const MAX_COST: Cost = Cost { memory_kib: 1024 * 1024, passes: 16, lanes: 4 };

/// The encrypted words on disk.
pub struct SeedFile;

impl SeedFile {
    /// Writes `words`, encrypted under `passphrase`, to a new file of mode 0600; its folder is made (0700) if missing.
    ///
    /// Takes about 64 MiB and a tenth of a second. The file appears whole or not at all: it is written beside `path`,
    /// synced, and linked to its name, since a link, unlike a rename, never replaces what is there.
    ///
    /// # Errors
    ///
    /// [`CreateSeedError::Exists`] when `path` exists: words are never overwritten.
    pub fn create(path: &Path, words: &Words, passphrase: &str) -> Result<(), CreateSeedError> {
        if path.exists() {
            return Err(CreateSeedError::Exists);
        }
        let sealed = seal(words, passphrase)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut suffix = [0; 8];
        getrandom::fill(&mut suffix).map_err(NoRandomness)?;
        let draft = folder.join(format!(".seed-{:016x}", u64::from_le_bytes(suffix)));
        let written = write_synced(&draft, &sealed).and_then(|()| fs::hard_link(&draft, path));
        let removed = fs::remove_file(&draft);
        written.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => CreateSeedError::Exists,
            _ => CreateSeedError::Io(e),
        })?;
        removed?;
        File::open(folder)?.sync_all()?;
        Ok(())
    }

    /// Reads the file at `path` and returns the keys of the words in it.
    ///
    /// # Errors
    ///
    /// [`OpenSeedError::WrongPassphrase`] when the passphrase doesn't open it, which a changed file can't be told from.
    pub fn open(path: &Path, passphrase: &str) -> Result<Keys, OpenSeedError> {
        let mut bytes = Vec::with_capacity(FILE_LEN + 1);
        File::open(path)?.take(FILE_LEN as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Sealed::parse(&bytes)?.unseal(passphrase)?.keys())
    }
}

/// A seed file's fields, none of them authenticated yet.
pub struct Sealed<'a> {
    header: &'a [u8],
    cost: Cost,
    salt: &'a [u8],
    nonce: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// Reads the fields of a file; trying a passphrase on what this returns costs no more than is ever used.
    ///
    /// # Errors
    ///
    /// [`OpenSeedError`] when the bytes are no seed file, or one of another version or cost.
    pub fn parse(file: &'a [u8]) -> Result<Self, OpenSeedError> {
        let (header, sealed) = file.split_at_checked(HEADER_LEN).ok_or(OpenSeedError::NotASeedFile)?;
        let rest = header.strip_prefix(MAGIC).ok_or(OpenSeedError::NotASeedFile)?;
        let (&version, rest) = rest.split_first().ok_or(OpenSeedError::NotASeedFile)?;
        if version != VERSION {
            return Err(OpenSeedError::Version { found: version });
        }
        if file.len() != FILE_LEN {
            return Err(OpenSeedError::NotASeedFile);
        }
        let (cost, rest) = Cost::read(rest).ok_or(OpenSeedError::NotASeedFile)?;
        if !cost.is_within(&MAX_COST) {
            let Cost { memory_kib, passes, lanes } = cost;
            return Err(OpenSeedError::TooCostly { memory_kib, passes, lanes });
        }
        let (salt, nonce) = rest.split_at(SALT_LEN);
        Ok(Self { header, cost, salt, nonce, sealed })
    }

    /// The memory in KiB that trying a passphrase takes.
    #[must_use]
    pub const fn memory_kib(&self) -> u32 {
        self.cost.memory_kib
    }

    fn unseal(&self, passphrase: &str) -> Result<Words, OpenSeedError> {
        let key = self.cost.stretch(passphrase, self.salt).map_err(|_| OpenSeedError::NotASeedFile)?;
        let entropy = XChaCha20Poly1305::new(key.as_slice().into())
            .decrypt(XNonce::from_slice(self.nonce), Payload { msg: self.sealed, aad: self.header })
            .map(Zeroizing::new)
            .map_err(|_| OpenSeedError::WrongPassphrase)?;
        let entropy = entropy.as_slice().try_into().map_err(|_| OpenSeedError::NotASeedFile)?;
        Ok(Words::from_entropy(entropy))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn seal(words: &Words, passphrase: &str) -> Result<Vec<u8>, CreateSeedError> {
    let mut random = [0; SALT_LEN + NONCE_LEN];
    getrandom::fill(&mut random).map_err(NoRandomness)?;
    let mut file = Vec::with_capacity(FILE_LEN);
    file.extend_from_slice(MAGIC);
    file.push(VERSION);
    for field in [COST.memory_kib, COST.passes, COST.lanes] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.extend_from_slice(&random);
    let (salt, nonce) = random.split_at(SALT_LEN);
    let key = COST.stretch(passphrase, salt).map_err(|_| CreateSeedError::Crypto)?;
    let sealed = XChaCha20Poly1305::new(key.as_slice().into())
        .encrypt(XNonce::from_slice(nonce), Payload { msg: words.entropy().as_slice(), aad: &file })
        .map_err(|_| CreateSeedError::Crypto)?;
    file.extend_from_slice(&sealed);
    Ok(file)
}

/// The argon2id parameters of a file.
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (memory, bytes) = bytes.split_first_chunk()?;
        let (passes, bytes) = bytes.split_first_chunk()?;
        let (lanes, bytes) = bytes.split_first_chunk()?;
        let [memory_kib, passes, lanes] = [memory, passes, lanes].map(|field: &[u8; 4]| u32::from_le_bytes(*field));
        Some((Self { memory_kib, passes, lanes }, bytes))
    }

    fn is_within(&self, max: &Self) -> bool {
        self.memory_kib <= max.memory_kib && self.passes <= max.passes && self.lanes <= max.lanes
    }

    fn stretch(&self, passphrase: &str, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, argon2::Error> {
        let mut key = Zeroizing::new([0; 32]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(key.len()))?;
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
            passphrase.as_bytes(),
            salt,
            key.as_mut(),
        )?;
        Ok(key)
    }
}

/// Why no seed file was written.
#[derive(Debug, thiserror::Error)]
pub enum CreateSeedError {
    #[error("a seed file exists there already and is never overwritten: choose another home, or move it away")]
    Exists,
    #[error("the seed file could not be written: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error("the seed could not be encrypted: is there enough memory (64 MiB)?")]
    Crypto,
}

/// Why a seed file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSeedError {
    #[error("wrong passphrase (or the seed file was changed)")]
    WrongPassphrase,
    #[error("not a seed file: expected {FILE_LEN} bytes that start with PDLRSEED")]
    NotASeedFile,
    #[error("the seed file has version {found}, this program knows {VERSION}: use a newer one")]
    Version { found: u8 },
    #[error("the seed file asks for {memory_kib} KiB, {passes} passes and {lanes} lanes: more than is ever used")]
    TooCostly { memory_kib: u32, passes: u32, lanes: u32 },
    #[error("the seed file could not be read: {0}")]
    Io(#[from] io::Error),
}
