//! A folder on its way: objects under their roots in a folder beside the destination, laid out when all are there.
//!
//! ```text
//! NAME.pedlar-part/collection   whose it is, 0600; locked while somebody writes here
//!                  <root>       an object that is complete, the manifest among them; beside it what is not yet
//!                  files/…      the folder as it will be: in the end it becomes NAME
//! ```
//!
//! **Invariant:** a stranger's path is only ever walked part by part from `files`, without following a symbolic link, and
//! nothing has the destination's name before all of it is there.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pedlar_protocol::content::{Collection, CollectionEntry, EntryPath, MAX_MANIFEST_LEN, Root, Size};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, mkdirat, openat, renameat, renameat_with, statat, syncfs,
};
use rustix::io::Errno;

use crate::blobs::files::{folder_of, require_room, sync_folder_of};
use crate::blobs::{Download, FinishError, OpenError};

/// What the mark begins with; the collection's root follows.
const MAGIC: &[u8] = b"pedlar folder\x01";

/// The name of the mark.
const MARK: &str = "collection";

/// The name of the folder that is laid out.
const FILES: &str = "files";

/// The name of a copy in the making.
const COPY: &str = "copy";

/// The partial folder is its owner's alone: half a folder is nobody else's business.
const PRIVATE: u32 = 0o700;

/// A folder on its way, open for one buyer.
#[derive(Debug)]
pub struct FolderDownload {
    dest: PathBuf,
    part: PathBuf,
    /// Holds the lock as long as it is open.
    mark: File,
}

impl FolderDownload {
    /// Whether something lies where a partial folder for `dest` would.
    #[must_use]
    pub fn begun(dest: &Path) -> bool {
        part_of(dest).symlink_metadata().is_ok()
    }

    /// Begins a folder that is to become `dest`, or goes on with it.
    ///
    /// # Errors
    /// See [`OpenError`]; whatever is there and not ours stays as it is.
    pub fn open(root: Root, dest: &Path) -> Result<Self, OpenError> {
        if dest.symlink_metadata().is_ok() {
            return Err(OpenError::Exists(dest.to_owned()));
        }
        let part = part_of(dest);
        let foreign = || OpenError::Foreign(part.clone());
        match DirBuilder::new().mode(PRIVATE).create(&part) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&part)(error)),
            Ok(()) | Err(_) => {}
        }
        let folder = open_folder(CWD, &part).map_err(|_| foreign())?;
        // Between the folder and its mark a crash may have come; a folder that holds other things is somebody else's.
        let is_new =
            fs::read_dir(&part).map_err(at(&part))?.all(|child| child.is_ok_and(|child| child.file_name() == MARK));
        let create = if is_new { OFlags::CREATE } else { OFlags::empty() };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | create;
        let mark = openat(&folder, MARK, flags, Mode::RUSR | Mode::WUSR);
        let mut mark = File::from(mark.map_err(|_| foreign())?);
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Busy(dest.to_owned())),
            Err(TryLockError::Error(error)) => return Err(at(&part)(error)),
        }
        let ours = [MAGIC, root.as_bytes()].concat();
        let mut found = Vec::new();
        (&mark).take(ours.len() as u64 + 1).read_to_end(&mut found).map_err(at(&part))?;
        if found != ours {
            if !is_new || !ours.starts_with(&found) {
                return Err(foreign());
            }
            write_mark(&mut mark, &ours, &part).map_err(at(&part))?;
        }
        Ok(Self { dest: dest.to_owned(), part, mark })
    }

    /// Where the object under this root is to be downloaded to.
    #[must_use]
    pub fn object(&self, root: &Root) -> PathBuf {
        self.part.join(root.to_string())
    }

    /// The manifest, once it is there; one that was damaged since is removed.
    ///
    /// # Errors
    /// When the system cannot read or remove it.
    pub fn manifest(&self, root: &Root) -> io::Result<Option<Vec<u8>>> {
        let path = self.object(root);
        let file = match File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_LEN as u64 + 1).read_to_end(&mut bytes)?;
        if Root::of(&bytes) == *root {
            return Ok(Some(bytes));
        }
        fs::remove_file(path)?;
        Ok(None)
    }

    /// Whether the object that is first at this entry's path is there, in its place or on its own.
    #[must_use]
    pub fn has(&self, entry: &CollectionEntry) -> bool {
        let is_whole = |path: PathBuf| path.symlink_metadata().is_ok_and(|found| is_file_of(&found, entry.size));
        is_whole(self.object(&entry.root)) || is_whole(self.part.join(FILES).join(entry.path.as_str()))
    }

    /// Bytes of an object that an earlier try left in its partial file.
    #[must_use]
    pub fn present_of(&self, entry: &CollectionEntry) -> u64 {
        let path = self.object(&entry.root);
        let begun = Download::begun(entry.root, &path).filter(|size| *size == entry.size);
        let download = begun.and_then(|size| Download::open(entry.root, size, &path).ok());
        download.map_or(0, |download| download.present_bytes())
    }

    /// Refuses when there is no room for so many more bytes.
    ///
    /// # Errors
    /// [`OpenError::NoSpace`].
    pub fn require_room(&self, need: u64) -> Result<(), OpenError> {
        let no_space = |_| OpenError::NoSpace { need, folder: folder_of(&self.dest) };
        require_room(&self.mark, need).map_err(no_space)
    }

    /// Lays out a folder whose objects are all there, and gives it its name, never replacing anything; durable when this
    /// returns.
    ///
    /// # Errors
    /// See [`FinishError`]; what is there stays, and can be finished later.
    pub fn finish(self, collection: &Collection) -> Result<PathBuf, FinishError> {
        let here = |error: io::Error| FinishError::Write { folder: folder_of(&self.dest), source: error.into() };
        self.lay_out(collection).map_err(here)?;
        match self.name() {
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
                return Err(FinishError::Exists { dest: self.dest, part: self.part });
            }
            named => named.map_err(here)?,
        }
        // What is left is the mark and the manifest; if they stay, they are only in the way of the same name.
        let _ = fs::remove_dir_all(&self.part);
        self.dest.canonicalize().map_err(here)
    }

    /// Gives up: removes all that is here, which nobody can complete.
    pub fn discard(self) {
        // What stays is found foreign or ours the next time.
        let _ = fs::remove_dir_all(&self.part);
    }

    fn lay_out(&self, collection: &Collection) -> io::Result<()> {
        let part = open_folder(CWD, &self.part)?;
        make_folder(part.as_fd(), FILES)?;
        let files = open_folder(part.as_fd(), Path::new(FILES))?;
        let objects = collection.objects();
        let first: BTreeSet<&EntryPath> = objects.iter().map(|entry| &entry.path).collect();
        // The object itself moves to the first of its places; to the others, before that, go copies.
        let (moved, copied): (Vec<_>, Vec<_>) =
            collection.entries().iter().partition(|entry| first.contains(&entry.path));
        for entry in copied {
            place(files.as_fd(), entry, |place, name| copy(part.as_fd(), entry, place, name))?;
        }
        for entry in moved {
            let object = entry.root.to_string();
            place(files.as_fd(), entry, |place, name| Ok(renameat(part.as_fd(), object.as_str(), place, name)?))?;
        }
        // One sync for all the names that were made, before the one rename that shows them.
        Ok(syncfs(&part)?)
    }

    fn name(&self) -> io::Result<()> {
        let files = self.part.join(FILES);
        match renameat_with(CWD, &files, CWD, &self.dest, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // Not every file system can; then at most an empty folder is replaced.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(&files, &self.dest)?,
            Err(error) => return Err(error.into()),
        }
        sync_folder_of(&self.dest)
    }
}

/// Puts a file in its place by `put`, unless it is there.
fn place(
    files: BorrowedFd<'_>,
    entry: &CollectionEntry,
    put: impl FnOnce(BorrowedFd<'_>, &str) -> io::Result<()>,
) -> io::Result<()> {
    let (folders, name) = entry.path.split();
    let mut place = files.try_clone_to_owned()?;
    for folder in folders {
        make_folder(place.as_fd(), folder)?;
        place = open_folder(place.as_fd(), Path::new(folder))?;
    }
    match statat(&place, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => {
            let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
            let is_it = is_file && found.st_size.cast_unsigned() == entry.size.bytes();
            if is_it { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
        }
        Err(Errno::NOENT) => put(place.as_fd(), name),
        Err(error) => Err(error.into()),
    }
}

/// Copies an object to a further place; nothing has that name before it is whole and synced.
fn copy(part: BorrowedFd<'_>, entry: &CollectionEntry, place: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let writing = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | flags;
    let mut copy = File::from(openat(part, COPY, writing, Mode::from_raw_mode(0o666))?);
    if entry.size.bytes() > 0 {
        let object = openat(part, entry.root.to_string(), OFlags::RDONLY | flags, Mode::empty())?;
        io::copy(&mut File::from(object), &mut copy)?;
        copy.sync_data()?;
    }
    Ok(renameat(part, COPY, place, name)?)
}

/// Where the partial folder for `dest` lies.
pub(super) fn part_of(dest: &Path) -> PathBuf {
    let mut part = dest.as_os_str().to_owned();
    part.push(".pedlar-part");
    part.into()
}

fn write_mark(mark: &mut File, ours: &[u8], part: &Path) -> io::Result<()> {
    mark.set_len(0)?;
    io::Seek::rewind(mark)?;
    mark.write_all(ours)?;
    mark.sync_all()?;
    File::open(part)?.sync_all()?;
    sync_folder_of(part)
}

/// Opens a folder that is one itself: a symbolic link in its place could lead anywhere.
fn open_folder(within: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(within, name, flags, Mode::empty())?)
}

fn make_folder(within: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match mkdirat(within, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_file_of(found: &fs::Metadata, size: Size) -> bool {
    found.is_file() && found.len() == size.bytes()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), source }
}
