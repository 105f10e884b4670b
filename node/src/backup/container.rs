//! What is inside a backup once it is decrypted.
//!
//! ```text
//! bytes  field
//!     8  magic "PDLRBKUP"
//!     1  version, 1
//!     4  length of the manifest (u32, little endian), at most 4 KiB
//!     n  the manifest: an encoded `Signed` with a `Manifest`
//!        the bytes of each part, in the manifest's order, and nothing after them
//! ```

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use libp2p_identity::{PeerId, ed25519::Keypair};
use pedlar_proto::v1;
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{Signed, peer_id};
use prost::Message;

use crate::home::FILE_MODE;

const MAGIC: &[u8; 8] = b"PDLRBKUP";
const VERSION: u8 = 1;
const DOMAIN: &str = "pedlar backup v1";

/// The longest manifest: with three parts it has some 300 bytes.
const MAX_MANIFEST: usize = 4096;

/// Bytes that are read at a time.
const STEP: usize = 64 << 10;

/// The parts, each exactly once: the names of the files that they were and will be.
pub(super) const PARTS: [&str; 3] = [CONFIG, JOURNAL, WALLET];
pub(super) const CONFIG: &str = "config.toml";
pub(super) const JOURNAL: &str = "journal.sqlite";
pub(super) const WALLET: &str = "wallet.sqlite";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The node that made it.
    pub peer: PeerId,
    /// Whose coins it has.
    pub network: String,
    /// When its first part was copied.
    pub created: Timestamp,
}

/// Why a backup can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It ends too soon, has something else in it, or was changed.
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
    /// It was made by a newer program.
    #[error("the backup has version {found}, this program knows {VERSION}")]
    Newer {
        /// Its version.
        found: u8,
    },
    /// It can't be read, which is also how changed ciphertext shows.
    #[error("the backup can't be read, or was changed: {0}")]
    Read(io::Error),
    /// A part can't be written.
    #[error("a part of the backup can't be written: {0}")]
    Write(io::Error),
}

/// Writes the parts, files of their names in `folder`, behind a signed manifest.
///
/// # Errors
/// What the system says.
pub(super) fn pack(folder: &Path, manifest: &Manifest, key: &Keypair, out: &mut impl Write) -> io::Result<()> {
    let mut parts = Vec::with_capacity(PARTS.len());
    for name in PARTS {
        let mut hasher = blake3::Hasher::new();
        let bytes = io::copy(&mut File::open(folder.join(name))?, &mut hasher)?;
        parts.push(v1::Part { name: name.to_owned(), bytes, hash: hash_bytes(&hasher) });
    }
    let body = v1::Manifest {
        peer: manifest.peer.to_bytes().into(),
        network: manifest.network.clone(),
        created_ms: manifest.created.ms(),
        parts,
    };
    let signed = Signed::sign(key, DOMAIN, body.encode_to_vec().into()).encode();
    out.write_all(MAGIC)?;
    out.write_all(&[VERSION])?;
    out.write_all(&u32::try_from(signed.len()).map_err(io::Error::other)?.to_le_bytes())?;
    out.write_all(&signed)?;
    PARTS.into_iter().try_for_each(|name| io::copy(&mut File::open(folder.join(name))?, out).map(drop))
}

/// Reads what `pack` wrote for the node `me`, and makes each part a file in `folder`, whole and as it was.
///
/// # Errors
/// [`UnpackError`] says what is wrong; what was written until then is worth nothing.
pub fn unpack(input: &mut impl Read, me: &PeerId, folder: &Path) -> Result<Manifest, UnpackError> {
    let wire = read_manifest(input, me)?;
    let expected = PARTS.iter().zip(&wire.parts).all(|(name, part)| part.name == *name);
    if !expected || wire.parts.len() != PARTS.len() {
        return Err(UnpackError::Damaged("its parts are not those of this version"));
    }
    for part in &wire.parts {
        unpack_part(input, part, folder)?;
    }
    match read_up_to(input, &mut [0])? {
        0 => Ok(Manifest { peer: *me, network: wire.network, created: Timestamp::from_ms(wire.created_ms) }),
        _ => Err(UnpackError::Damaged("there is more in it than it says")),
    }
}

fn read_manifest(input: &mut impl Read, me: &PeerId) -> Result<v1::Manifest, UnpackError> {
    let mut head = [0; MAGIC.len() + 1 + 4];
    read_all(input, &mut head)?;
    let (magic, rest) = head.split_at(MAGIC.len());
    let (&[version], length) = rest.split_first_chunk().ok_or(UnpackError::Damaged("it has no head"))?;
    if magic != MAGIC {
        return Err(UnpackError::Damaged("it is encrypted with this node's key and no backup"));
    }
    if version != VERSION {
        return Err(UnpackError::Newer { found: version });
    }
    let length = length.try_into().map_or(usize::MAX, |length| u32::from_le_bytes(length) as usize);
    if length > MAX_MANIFEST {
        return Err(UnpackError::Damaged("its manifest is too long"));
    }
    let mut bytes = vec![0; length];
    read_all(input, &mut bytes)?;
    let signed = Signed::decode(&Bytes::from(bytes), MAX_MANIFEST);
    let signed = signed.map_err(|_| UnpackError::Damaged("its manifest can't be decoded"))?;
    signed.verify(DOMAIN, me).map_err(|_| UnpackError::Damaged("this node did not sign it"))?;
    let wire = v1::Manifest::decode(signed.body().clone());
    let wire = wire.map_err(|_| UnpackError::Damaged("its manifest can't be decoded"))?;
    if wire.peer != me.to_bytes() {
        return Err(UnpackError::Damaged("it names another node"));
    }
    Ok(wire)
}

fn unpack_part(input: &mut impl Read, part: &v1::Part, folder: &Path) -> Result<(), UnpackError> {
    let path = folder.join(&part.name);
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
    let mut file = file.map_err(UnpackError::Write)?;
    let (mut hasher, mut buffer, mut left) = (blake3::Hasher::new(), vec![0; STEP], part.bytes);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(STEP).min(STEP);
        let read = read_up_to(input, buffer.get_mut(..most).unwrap_or_default())?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Err(UnpackError::Damaged("it ends too soon"));
        }
        hasher.update(bytes);
        file.write_all(bytes).map_err(UnpackError::Write)?;
        left = left.saturating_sub(bytes.len() as u64);
    }
    if hash_bytes(&hasher) != part.hash {
        return Err(UnpackError::Damaged("a part is not what the manifest says"));
    }
    file.sync_all().map_err(UnpackError::Write)
}

fn hash_bytes(hasher: &blake3::Hasher) -> Bytes {
    Bytes::copy_from_slice(hasher.finalize().as_bytes())
}

fn read_all(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), UnpackError> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => UnpackError::Damaged("it ends too soon"),
        _ => UnpackError::Read(error),
    })
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, UnpackError> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(UnpackError::Damaged("it ends too soon"));
            }
            read => return read.map_err(UnpackError::Read),
        }
    }
}

impl Manifest {
    /// What a backup made now by this node says.
    pub(super) fn new(key: &Keypair, network: impl fmt::Display, created: Timestamp) -> Self {
        Self { peer: peer_id(key), network: network.to_string(), created }
    }
}

#[cfg(test)]
mod tests;
