//! An object's two files, its bytes and its hash tree, and the small durable steps that more than one module takes.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use pedlar_protocol::content::{GROUP_LEN, Item, Root, Verified};
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::{Errno, pwritev, retry_on_intr};

/// Pieces of one write: a quarter of what the system takes.
const MAX_PIECES: usize = 256;

/// The files that the items of a response lie in.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) data: File,
    pub(super) outboard: File,
    /// Where the hash tree begins in `outboard`, in bytes.
    pub(super) outboard_at: u64,
}

impl Files {
    /// Reads the bytes of `item`, which `into` is as long as.
    pub(super) fn read(&self, item: Item, into: &mut [u8]) -> io::Result<()> {
        let (file, at) = self.place(item);
        file.read_exact_at(into, at)
    }

    /// Writes what these items hold, neighbours by one call of the system.
    pub(super) fn write(&self, items: &[Verified]) -> io::Result<()> {
        let (groups, mut parents): (Vec<&Verified>, Vec<&Verified>) =
            items.iter().partition(|verified| matches!(verified.item(), Item::Group { .. }));
        // They come in another order than that in which they lie.
        parents.sort_by_key(|parent| self.place(parent.item()).1);
        self.write_runs(&parents)?;
        self.write_runs(&groups)
    }

    /// Writes items of one file.
    fn write_runs(&self, items: &[&Verified]) -> io::Result<()> {
        let place = |verified: &Verified| self.place(verified.item());
        let joins = |left: &&Verified, right: &&Verified| place(left).1 + left.bytes().len() as u64 == place(right).1;
        for run in items.chunk_by(joins).flat_map(|run| run.chunks(MAX_PIECES)) {
            let mut pieces: Vec<IoSlice<'_>> = run.iter().map(|verified| IoSlice::new(verified.bytes())).collect();
            if let Some(first) = run.first() {
                let (file, at) = place(first);
                write_all_at(file, &mut pieces, at)?;
            }
        }
        Ok(())
    }

    /// Makes what was written survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.data.sync_data()?;
        self.outboard.sync_data()
    }

    fn place(&self, item: Item) -> (&File, u64) {
        match item {
            Item::Parent { offset } => (&self.outboard, self.outboard_at + offset),
            Item::Group { index, .. } => (&self.data, index * GROUP_LEN),
        }
    }
}

/// Writes the pieces one behind the other from byte `at` on.
fn write_all_at(file: &File, mut pieces: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        let written = retry_on_intr(|| pwritev(file, pieces, at))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        at += written as u64;
        IoSlice::advance_slices(&mut pieces, written);
    }
    Ok(())
}

/// Where the hash tree of an object is kept.
pub(super) fn outboard_path(folder: &Path, root: Root) -> PathBuf {
    folder.join(format!("{root}.outboard"))
}

/// Makes names that were created, renamed or removed in `path`'s folder survive a power cut.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder that a file of this name is in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// Refuses when the file system of `file` has less than `need` bytes free.
///
/// Asked first, because reserving takes whatever there is before it fails, and for that moment from everybody.
pub(super) fn require_room(file: &File, need: u64) -> io::Result<()> {
    let disk = fstatvfs(file)?;
    // Some network file systems do not know their size and say 0.
    let is_known = disk.f_blocks > 0;
    if is_known && disk.f_bavail.saturating_mul(disk.f_frsize) < need {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// Gives `file` its length and, where the file system can, the room on the disk.
pub(super) fn reserve(file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(len),
        reserved => Ok(reserved?),
    }
}

/// Whether an error says that the disk, or the user's share of it, is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
