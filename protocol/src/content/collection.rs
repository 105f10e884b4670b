//! Collections: a folder as one object, which names its files.
//!
//! A collection is sold as its *manifest*: the names, sizes and roots of its files, itself a blob, so that one root fixes
//! every byte of the folder. The encoding is canonical: one folder has one manifest, and one root.
//!
//! ```text
//! magic (16 bytes) │ count (u32) │ count × { path length (u16) │ path │ size (u64) │ root (32 bytes) }     big-endian
//! ```
//!
//! **Invariant:** every [`Collection`] can be laid out on any disk without leaving its folder: paths are relative, sorted,
//! unique also where the disk ignores case, and no file stands where another one needs a folder.

mod path;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use path::{EntryPath, MAX_PART_LEN, MAX_PATH_LEN, PathError};

use super::{MAX_SIZE, Root, Size};

/// The most files in a collection: their places fit into some 30 MB of memory at a seller.
pub const MAX_ENTRIES: usize = 1 << 16;

/// The longest manifest in bytes, one largest window: room for [`MAX_ENTRIES`] paths of 200 bytes.
pub const MAX_MANIFEST_LEN: usize = 16 << 20;

/// What a manifest begins with; the last byte is the version of its layout.
const MAGIC: [u8; 16] = *b"pedlar folder\0\0\x01";

/// Bytes of an entry beside its path.
const FIXED_LEN: usize = 2 + 8 + 32;

/// One file of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionEntry {
    /// Where it lies in the folder.
    pub path: EntryPath,
    /// Its length.
    pub size: Size,
    /// Its hash.
    pub root: Root,
}

/// All that is sold under a collection's root: each different object once, the manifest included.
///
/// A seller signs it with its price, so that a buyer knows the cost of the whole before it has the manifest; it is a claim
/// until that has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Bytes of the objects.
    pub bytes: u64,
    /// How many there are.
    pub objects: u64,
}

/// The files of a folder, checked; always at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    entries: Vec<CollectionEntry>,
    /// Each different object that has bytes, with the first path that holds it.
    objects: BTreeMap<Root, (Size, usize)>,
    size: Size,
}

/// Why files are no collection, or bytes no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectionError {
    /// Longer than [`MAX_MANIFEST_LEN`].
    #[error("the list of files has {0} bytes, at most {MAX_MANIFEST_LEN} are allowed")]
    TooLong(u64),
    /// Does not begin as a manifest of this version does.
    #[error("this is no list of files, or one of a newer version")]
    Magic,
    /// Ends in the middle of an entry.
    #[error("the list of files ends too early")]
    Truncated,
    /// Goes on after the last entry.
    #[error("the list of files has {0} bytes too many")]
    Surplus(usize),
    /// No entry.
    #[error("there is no file in it")]
    Empty,
    /// More entries than [`MAX_ENTRIES`].
    #[error("{0} files, at most {MAX_ENTRIES} are allowed in one folder")]
    TooManyEntries(usize),
    /// A path that may not stand.
    #[error("the path of file {index}: {error}")]
    Path {
        /// Which entry, from 0 on.
        index: usize,
        /// What is wrong.
        error: PathError,
    },
    /// A size that no object has.
    #[error("{path} is said to have {bytes} bytes, at most {MAX_SIZE} are possible")]
    Size {
        /// Whose.
        path: EntryPath,
        /// The claim.
        bytes: u64,
    },
    /// All files together are longer than an object can be.
    #[error("all files together have more than {MAX_SIZE} bytes")]
    TooLarge,
    /// Two entries that are not in the order of their bytes.
    #[error("{after} comes after {before}, which sorts behind it")]
    Order {
        /// The one that comes first.
        before: EntryPath,
        /// The one that should.
        after: EntryPath,
    },
    /// One path, two entries.
    #[error("{0} comes twice")]
    Twice(EntryPath),
    /// Two paths that differ in case only: one file where the disk ignores it.
    #[error("{one} and {other} differ in upper and lower case only; many disks keep just one of them")]
    CaseCollision {
        /// One of them.
        one: EntryPath,
        /// The other.
        other: EntryPath,
    },
    /// A file where another entry needs a folder, at least where the disk ignores case.
    #[error("{file} is a file, and {within} needs a folder of that name")]
    FileIsFolder {
        /// The file.
        file: EntryPath,
        /// What lies under it.
        within: EntryPath,
    },
    /// One root with two sizes, or the empty object with another root than its own: a lie about one of them.
    #[error("{0} has a size that its hash can't have")]
    Contradiction(EntryPath),
}

impl Collection {
    /// The collection of these files, in any order.
    ///
    /// # Errors
    /// [`CollectionError`] says which files can't be in one collection.
    pub fn new(mut entries: Vec<CollectionEntry>) -> Result<Self, CollectionError> {
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Self::checked(entries)
    }

    /// Reads a manifest; only the canonical encoding is one.
    ///
    /// # Errors
    /// [`CollectionError`] says what is wrong; no more is allocated than the bytes given can hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, CollectionError> {
        Self::check_len(bytes.len() as u64)?;
        let rest = bytes.strip_prefix(&MAGIC).ok_or(CollectionError::Magic)?;
        let (count, mut rest) = rest.split_first_chunk().ok_or(CollectionError::Truncated)?;
        let count = usize::try_from(u32::from_be_bytes(*count)).unwrap_or(usize::MAX);
        if count > MAX_ENTRIES {
            return Err(CollectionError::TooManyEntries(count));
        }
        let mut entries = Vec::with_capacity(count.min(rest.len() / FIXED_LEN));
        for index in 0..count {
            entries.push(take_entry(index, &mut rest)?);
        }
        if rest.is_empty() { Self::checked(entries) } else { Err(CollectionError::Surplus(rest.len())) }
    }

    /// Refuses the length of a manifest before anything is allocated or bought.
    ///
    /// # Errors
    /// [`CollectionError::TooLong`].
    pub const fn check_len(len: u64) -> Result<(), CollectionError> {
        if len > MAX_MANIFEST_LEN as u64 { Err(CollectionError::TooLong(len)) } else { Ok(()) }
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(encoded_len(&self.entries));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&u32::try_from(self.entries.len()).unwrap_or(u32::MAX).to_be_bytes());
        for CollectionEntry { path, size, root } in &self.entries {
            bytes.extend_from_slice(&u16::try_from(path.as_str().len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(path.as_str().as_bytes());
            bytes.extend_from_slice(&size.bytes().to_be_bytes());
            bytes.extend_from_slice(root.as_bytes());
        }
        bytes
    }

    /// The files, in the order of their paths' bytes.
    #[must_use]
    pub fn entries(&self) -> &[CollectionEntry] {
        &self.entries
    }

    /// What has to be bought for the files: each different object once, the empty one left out, in the order of paths.
    #[must_use]
    pub fn objects(&self) -> Vec<&CollectionEntry> {
        let mut places: Vec<usize> = self.objects.values().map(|(_, place)| *place).collect();
        places.sort_unstable();
        places.into_iter().filter_map(|place| self.entries.get(place)).collect()
    }

    /// The size of the object under this root; nothing where no file has it.
    #[must_use]
    pub fn size_of(&self, root: &Root) -> Option<Size> {
        self.objects.get(root).map(|(size, _)| *size)
    }

    /// The length of all files together.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// All that is sold under the collection's root.
    #[must_use]
    pub fn whole(&self) -> Whole {
        let manifest = encoded_len(&self.entries) as u64;
        let sizes = self.objects.values().map(|(size, _)| size.bytes());
        Whole {
            bytes: sizes.fold(manifest, u64::saturating_add),
            objects: (self.objects.len() as u64).saturating_add(1),
        }
    }

    fn checked(entries: Vec<CollectionEntry>) -> Result<Self, CollectionError> {
        if entries.is_empty() {
            return Err(CollectionError::Empty);
        }
        if entries.len() > MAX_ENTRIES {
            return Err(CollectionError::TooManyEntries(entries.len()));
        }
        Self::check_len(encoded_len(&entries) as u64)?;
        check_order(&entries)?;
        check_folded(&entries)?;
        let size = entries.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.size.bytes()));
        let size = size.and_then(Size::new).ok_or(CollectionError::TooLarge)?;
        Ok(Self { objects: objects(&entries)?, entries, size })
    }
}

fn take_entry(index: usize, rest: &mut &[u8]) -> Result<CollectionEntry, CollectionError> {
    let len = usize::from(u16::from_be_bytes(take(rest)?));
    let (path, after) = rest.split_at_checked(len).ok_or(CollectionError::Truncated)?;
    *rest = after;
    let path = EntryPath::from_bytes(path).map_err(|error| CollectionError::Path { index, error })?;
    let bytes = u64::from_be_bytes(take(rest)?);
    let root = Root::from(take(rest)?);
    match Size::new(bytes) {
        Some(size) => Ok(CollectionEntry { path, size, root }),
        None => Err(CollectionError::Size { path, bytes }),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CollectionError> {
    let (taken, after) = rest.split_first_chunk().ok_or(CollectionError::Truncated)?;
    *rest = after;
    Ok(*taken)
}

/// Bytes of the manifest of these entries.
fn encoded_len(entries: &[CollectionEntry]) -> usize {
    let lens = entries.iter().map(|entry| entry.path.as_str().len().saturating_add(FIXED_LEN));
    lens.fold(MAGIC.len().saturating_add(4), usize::saturating_add)
}

fn check_order(entries: &[CollectionEntry]) -> Result<(), CollectionError> {
    let unordered = entries.iter().zip(entries.iter().skip(1)).find(|(before, after)| before.path >= after.path);
    let Some((before, after)) = unordered else { return Ok(()) };
    if before.path == after.path {
        return Err(CollectionError::Twice(before.path.clone()));
    }
    Err(CollectionError::Order { before: before.path.clone(), after: after.path.clone() })
}

/// Refuses two paths that are one, or a file that is a folder, on a disk that ignores case.
///
/// With the separator sorted below all else, whatever lies under a path follows it at once: neighbours are enough.
fn check_folded(entries: &[CollectionEntry]) -> Result<(), CollectionError> {
    let mut folded: Vec<(String, &EntryPath)> =
        entries.iter().map(|entry| (entry.path.folded(), &entry.path)).collect();
    folded.sort();
    for ((key, one), (next, other)) in folded.iter().zip(folded.iter().skip(1)) {
        match next.strip_prefix(key.as_str()) {
            Some("") => {
                return Err(CollectionError::CaseCollision { one: (*one).clone(), other: (*other).clone() });
            }
            Some(within) if within.starts_with(path::FOLDED_SEPARATOR) => {
                return Err(CollectionError::FileIsFolder { file: (*one).clone(), within: (*other).clone() });
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

fn objects(entries: &[CollectionEntry]) -> Result<BTreeMap<Root, (Size, usize)>, CollectionError> {
    let nothing = Root::of(&[]);
    let mut objects = BTreeMap::new();
    for (place, CollectionEntry { path, size, root }) in entries.iter().enumerate() {
        if (size.bytes() == 0) != (*root == nothing) {
            return Err(CollectionError::Contradiction(path.clone()));
        }
        if *root == nothing {
            continue;
        }
        let (known, _) = objects.entry(*root).or_insert((*size, place));
        if known != size {
            return Err(CollectionError::Contradiction(path.clone()));
        }
    }
    Ok(objects)
}
