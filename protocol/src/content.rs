//! Content: objects named by their BLAKE3 root, sold and verified in groups of 16 KiB.
//!
//! An object is the leaves of a binary hash tree. Both sides of a sale do the same [`Walk`] over the part of that
//! tree that proves a range of [`Groups`]: the seller while it reads its file, so that a file changed on disk never
//! leaves as wrong bytes, and the buyer, through [`Verifier`], while bytes arrive. The inner nodes lie in an
//! *outboard* file of 64 bytes per node (0.39 % of the object), made once by [`OutboardBuilder`].
//!
//! **Invariant:** pure code. No files, sockets or clock; memory is bounded by the depth of the tree (35 hashes) and
//! one group, whatever the object's size or the bytes a peer sends.

mod collection;
mod link;
mod outboard;
mod size;
mod tree;
mod verify;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use collection::{
    Collection, CollectionEntry, CollectionError, EntryPath, MAX_ENTRIES, MAX_MANIFEST_LEN, MAX_PART_LEN, MAX_PATH_LEN,
    PathError, Whole,
};
pub use link::{Kind, Link, LinkError, MAX_ADDRS, MAX_LINK_LEN, MAX_NAME_LEN};
pub use outboard::{BuildError, OutboardBuilder};
pub use size::{GROUP_LEN, Groups, MAX_SIZE, PAIR_LEN, Size};
pub use verify::{Verified, Verifier, VerifyError};
pub use walk::{Item, Mismatch, OutOfRange, Walk};

/// The BLAKE3 hash of a whole object: its name on the network.
///
/// Shown and read as 64 hexadecimal digits, written in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root([u8; 32]);

/// A root must be 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a root is 64 hexadecimal digits")]
pub struct RootError;

impl Root {
    /// The root of an object that is wholly in memory.
    #[must_use]
    pub fn of(object: &[u8]) -> Self {
        Self(*blake3::hash(object).as_bytes())
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Root {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({self})")
    }
}

impl FromStr for Root {
    type Err = RootError;

    fn from_str(text: &str) -> Result<Self, RootError> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| RootError)?;
        Ok(Self(*hash.as_bytes()))
    }
}
