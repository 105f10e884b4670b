//! Publishing: a file's root and hash tree, computed on all cores.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use pedlar_protocol::content::{
    BuildError, CollectionError, GROUP_LEN, MAX_SIZE, OutboardBuilder, PathError, Root, Size,
};
use tempfile::NamedTempFile;

use super::files::{is_no_space, outboard_path, sync_folder_of};
use super::name::name_of;
use super::{Fingerprint, PublishedBlob};

/// What one thread reads and hashes at a time: 64 groups, which stay in a core's own cache between the two.
const PART_LEN: u64 = 64 * GROUP_LEN;

/// Parts hashed ahead by each thread; with one in the making this bounds memory to about 2 × 4 KiB of pairs a thread.
const PARTS_AHEAD: usize = 1;

/// Why a file could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no such file.
    #[error("{} does not exist", .0.display())]
    NotFound(PathBuf),
    /// A folder, device, socket or pipe.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A file in a folder whose path can't be sold.
    #[error("{} can't be sold in a folder: its path: {error}", .path.display())]
    Path {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        error: PathError,
    },
    /// The folder is, or holds, that of the node itself.
    #[error("{} holds this node's own files; publish a folder beside them", .0.display())]
    OwnHome(PathBuf),
    /// The files of a folder can't be sold together.
    #[error("the folder can't be sold: {0}")]
    Folder(#[from] CollectionError),
    /// Longer than an object can be.
    #[error("a file of {0} bytes is too large; {MAX_SIZE} is the limit")]
    TooLarge(u64),
    /// Somebody wrote to it while it was read.
    #[error("{} changed while it was read; publish it when it is complete", .0.display())]
    Changed(PathBuf),
    /// No room for the hash tree, or the copy.
    #[error("the disk is full")]
    NoSpace,
    /// The caller asked to stop.
    #[error("publishing was cancelled")]
    Cancelled,
    /// The system refused something else.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried, such as `reading`.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Publishes the file at `path` where it lies; its hash tree goes to the folder `outboards`, durable when this returns.
///
/// `progress` is called with the bytes done so far, after each MiB, and may stop the work.
///
/// # Errors
/// See [`PublishError`]; nothing is left behind.
pub fn publish(
    path: &Path,
    outboards: &Path,
    progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<PublishedBlob, PublishError> {
    let path = &regular_file(path)?;
    let file = File::open(path).map_err(at("opening", path))?;
    let before = file.metadata().map_err(at("reading", path))?;
    let size = Size::new(before.len()).ok_or(PublishError::TooLarge(before.len()))?;

    let mut outboard = NamedTempFile::new_in(outboards).map_err(at("writing", outboards))?;
    let root = hash(&file, path, size, outboard.as_file_mut(), progress)?;

    let after = file.metadata().map_err(at("reading", path))?;
    let fingerprint = Fingerprint::of(&after);
    if fingerprint != Fingerprint::of(&before) || after.len() != before.len() {
        return Err(PublishError::Changed(path.clone()));
    }
    let kept = outboard_path(outboards, root);
    persist(outboard, &kept)?;
    Ok(PublishedBlob { root, size, path: path.clone(), name: name_of(path, root), outboard: kept, fingerprint })
}

/// Publishes a copy of the file at `path` in the folder `blobs`, named by its root, so that the original may change.
///
/// # Errors
/// See [`PublishError`]; nothing is left behind.
pub fn publish_copy(
    path: &Path,
    blobs: &Path,
    outboards: &Path,
    progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<PublishedBlob, PublishError> {
    let path = &regular_file(path)?;
    let mut original = File::open(path).map_err(at("opening", path))?;
    let mut copy = NamedTempFile::new_in(blobs).map_err(at("writing", blobs))?;
    // The kernel copies, or shares the blocks where the file system can.
    io::copy(&mut original, copy.as_file_mut()).map_err(at("copying", path))?;
    let kept = keep_copy(copy, blobs, outboards, progress)?;
    Ok(PublishedBlob { name: name_of(path, kept.root), ..kept })
}

/// Publishes a file of our own making, which gets its root for a name in the folder `blobs`.
pub(super) fn keep_copy(
    copy: NamedTempFile,
    blobs: &Path,
    outboards: &Path,
    progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<PublishedBlob, PublishError> {
    let published = publish(copy.path(), outboards, progress)?;
    let kept = blobs.canonicalize().map_err(at("reading", blobs))?.join(published.root.to_string());
    // The same bytes may be for sale already, also in a folder: another file in their place would be taken for a change.
    let there = if kept.exists() { publish(&kept, outboards, |_| ControlFlow::Continue(())).ok() } else { None };
    if let Some(there) = there.filter(|there| there.root == published.root) {
        return Ok(there);
    }
    persist(copy, &kept)?;
    Ok(PublishedBlob { path: kept, ..published })
}

/// The real path of a regular file; looked at before it is opened, since opening a pipe would wait for a writer.
fn regular_file(path: &Path) -> Result<PathBuf, PublishError> {
    let real = path.canonicalize().map_err(at("finding", path))?;
    let is_file = fs::metadata(&real).map_err(at("reading", path))?.is_file();
    if is_file { Ok(real) } else { Err(PublishError::NotAFile(real)) }
}

/// The root of `file`, with its hash tree appended to `outboard`.
///
/// Thread `k` of `n` takes every `n`th part, from the `k`th on, and has a queue of its own, so the parts are joined in
/// order with nothing to sort.
fn hash(
    file: &File,
    path: &Path,
    size: Size,
    outboard: &mut File,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Root, PublishError> {
    let parts = size.bytes().div_ceil(PART_LEN).max(1);
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get() as u64).min(parts);
    thread::scope(|scope| {
        let queues: Vec<Receiver<_>> = (0..threads)
            .map(|first| {
                let (hashed, queue) = sync_channel(PARTS_AHEAD);
                let mine = (first..parts).step_by(threads as usize);
                scope.spawn(move || hash_parts(file, path, size, mine, &hashed));
                queue
            })
            .collect();
        let mut whole = OutboardBuilder::new(size);
        for (part, queue) in (1..=parts).zip(queues.iter().cycle()) {
            let changed = || PublishError::Changed(path.to_owned());
            whole.append(queue.recv().map_err(|_| changed())??).map_err(|_| changed())?;
            outboard.write_all(&whole.take_pairs()).map_err(at("writing the hash tree of", path))?;
            if progress(size.bytes().min(part * PART_LEN)).is_break() {
                return Err(PublishError::Cancelled);
            }
        }
        let (root, last) = whole.finish().map_err(|_| PublishError::Changed(path.to_owned()))?;
        outboard.write_all(&last).map_err(at("writing the hash tree of", path))?;
        Ok(root)
    })
}

/// Hashes the parts that are `mine`, until one fails or nobody waits for the next.
fn hash_parts(
    file: &File,
    path: &Path,
    size: Size,
    mine: impl Iterator<Item = u64>,
    hashed: &SyncSender<Result<OutboardBuilder, PublishError>>,
) {
    let mut buffer = vec![0; PART_LEN.min(size.bytes()) as usize];
    for part in mine {
        let offset = part * PART_LEN;
        buffer.truncate((size.bytes() - offset) as usize);
        let read = file.read_exact_at(&mut buffer, offset).map_err(at("reading", path));
        let built = read.and_then(|()| {
            let mut builder = OutboardBuilder::part(size, offset / GROUP_LEN);
            builder.push(&buffer).map_err(|_: BuildError| PublishError::Changed(path.to_owned()))?;
            Ok(builder)
        });
        let failed = built.is_err();
        if hashed.send(built).is_err() || failed {
            return;
        }
    }
}

/// Gives a finished temporary file its name, replacing one of the same root; durable when this returns.
fn persist(file: NamedTempFile, name: &Path) -> Result<(), PublishError> {
    file.as_file().sync_all().map_err(at("writing", name))?;
    file.persist(name).map_err(|error| at("writing", name)(error.error))?;
    sync_folder_of(name).map_err(at("writing", name))
}

pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PublishError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => PublishError::NotFound(path.to_owned()),
        io::ErrorKind::UnexpectedEof => PublishError::Changed(path.to_owned()),
        _ if is_no_space(&source) => PublishError::NoSpace,
        _ => PublishError::Io { action, path: path.to_owned(), source },
    }
}
