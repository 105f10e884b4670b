//! Objects on disk: published where they lie, read while they are checked, downloaded so that a crash costs little.
//!
//! All of it blocks and belongs on a thread of its own; nothing here knows of tasks, peers or SQL. What must be
//! remembered of a published file is the plain value [`PublishedBlob`], which the journal stores.
//!
//! **Invariant:** no byte leaves a file unless it is under the root that was sold, and none enters a download unless a
//! [`Verifier`](pedlar_protocol::content::Verifier) proved it.

mod download;
mod files;
mod folder;
mod have;
mod name;
mod publish;
mod reader;
mod state;

#[cfg(test)]
pub(crate) mod tests;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use pedlar_protocol::content::{Root, Size};

pub use download::{CHECKPOINT_GROUPS, Checkpoint, Download, FinishError, OpenError, Synced, WriteError};
pub(crate) use files::folder_of;
pub use folder::{FolderDownload, PublishedFolder, Skipped, publish_folder};
pub use name::safe_name;
pub use publish::{PublishError, publish, publish_copy};
pub use reader::{BlobReader, Change, Pieces, ReadError};

/// A file that is for sale, as the journal remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedBlob {
    /// The file's hash.
    pub root: Root,
    /// Its length.
    pub size: Size,
    /// Where it lies: absolute, without symbolic links.
    pub path: PathBuf,
    /// The last part of its path, safe to show to others.
    pub name: String,
    /// Its hash tree; files with one root share it, so it may be removed only with the last of them.
    pub outboard: PathBuf,
    /// What tells cheaply that the file was changed or replaced since.
    pub fingerprint: Fingerprint,
}

/// What changes when somebody edits or replaces a file.
///
/// A hint that comes early enough to refuse a buyer before money moves. What is true is decided by the hash tree, while
/// bytes are read. The device number is left out: it may change when the machine restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The file's inode.
    pub inode: u64,
    /// When it was last written, in whole seconds since the epoch.
    pub modified_s: i64,
    /// The nanoseconds of that second.
    pub modified_ns: i64,
}

impl Fingerprint {
    fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), modified_s: file.mtime(), modified_ns: file.mtime_nsec() }
    }
}
