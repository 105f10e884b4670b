//! A download: a partial file beside its destination, and what is needed to go on with it after a crash.
//!
//! `NAME.pedlar-part` holds the bytes, each at its place; `NAME.pedlar-state` what is known of them ([`state`]).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pedlar_protocol::content::{GROUP_LEN, Groups, Item, Root, Size, Verified, Walk};
use rustix::fs::OFlags;

use super::files::{Files, folder_of, is_no_space, require_room, reserve, sync_folder_of};
use super::have::Have;
use super::state::{self, HAVE_AT};

mod finish;
#[cfg(test)]
mod tests;

pub use finish::FinishError;

/// Groups that are not to be exceeded without a checkpoint: 16 MiB, the largest window.
///
/// A power cut loses at most this much and what is being synced, none of it signed for; a sync of 16 MiB costs less than
/// fetching it does.
pub const CHECKPOINT_GROUPS: usize = 1024;

/// Why a download cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is a file of that name, and it is not ours to replace.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The partial file there belongs to another download, or lost its state.
    #[error("{} is the partial file of another download; remove it or choose another name", .0.display())]
    Foreign(PathBuf),
    /// What is there verified under another size.
    #[error("the object has {found} bytes, not {claimed}")]
    OtherSize {
        /// The size that brought what is there.
        found: u64,
        /// What was claimed.
        claimed: u64,
    },
    /// It is being written to right now.
    #[error("{} is being downloaded already", .0.display())]
    Busy(PathBuf),
    /// The whole object does not fit; nothing was left behind.
    #[error("the disk has no room for {need} bytes in {}", .folder.display())]
    NoSpace {
        /// Bytes of the object.
        need: u64,
        /// Where they were to be.
        folder: PathBuf,
    },
    /// The system refused something else.
    #[error("{}: {source}", .path.display())]
    Io {
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a part of a download could not be kept; it counts as missing and the download can go on later.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk is full, though room was reserved where the file system can.
    #[error("the disk is full")]
    NoSpace,
    /// The system refused something else.
    #[error("writing a download: {0}")]
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        if is_no_space(&error) { Self::NoSpace } else { Self::Io(error) }
    }
}

/// An object on its way to a file, locked against other processes.
#[derive(Debug)]
pub struct Download {
    root: Root,
    size: Size,
    paths: Paths,
    files: Arc<Files>,
    have: Have,
    turn: Arc<Mutex<()>>,
}

/// What was written until a moment, on its way to the disk.
#[derive(Debug)]
#[must_use]
pub struct Checkpoint {
    files: Arc<Files>,
    groups: Vec<u64>,
}

/// A [`Checkpoint`] that has come to the disk, or has not.
#[derive(Debug)]
#[must_use]
pub struct Synced {
    groups: Vec<u64>,
    outcome: io::Result<()>,
}

impl Checkpoint {
    /// Waits for the disk; the download is not needed meanwhile.
    pub fn sync(self) -> Synced {
        Synced { outcome: self.files.sync(), groups: self.groups }
    }
}

#[derive(Debug)]
struct Paths {
    dest: PathBuf,
    part: PathBuf,
    state: PathBuf,
}

impl Paths {
    fn new(dest: &Path) -> Self {
        let beside = |ending: &str| {
            let mut path = OsString::from(dest);
            path.push(ending);
            PathBuf::from(path)
        };
        Self { dest: dest.to_owned(), part: beside(".pedlar-part"), state: beside(".pedlar-state") }
    }
}

impl Download {
    /// Begins the download of an object to `dest`, or goes on with the one begun there.
    ///
    /// A size is a claim until the object's last group has verified: until then no room is reserved for it. A download
    /// begun under another claim, which brought nothing, is begun anew.
    ///
    /// After a crash the groups of the last checkpoint are there. A partial file of another length is checked again.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(root: Root, size: Size, dest: &Path) -> Result<Self, OpenError> {
        let paths = Paths::new(dest);
        let part_exists = paths.part.exists();
        if dest.symlink_metadata().is_ok() {
            if !part_exists {
                // Left by a crash between the two last steps of `finish`, or not there.
                let _ = fs::remove_file(&paths.state);
            }
            return Err(OpenError::Exists(paths.dest));
        }
        if part_exists { Self::resume(root, size, paths) } else { Self::begin(root, size, paths) }
    }

    /// The size under which a download of the object to `dest` was begun and not finished, if one was.
    #[must_use]
    pub fn begun(root: Root, dest: &Path) -> Option<Size> {
        let paths = Paths::new(dest);
        let state = File::open(&paths.state).ok().filter(|_| paths.part.exists())?;
        state::claimed(&state, root).ok().flatten()
    }

    /// The object's length.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// Keeps verified parts of this download's object.
    ///
    /// With [`CHECKPOINT_GROUPS`] [fresh](Self::fresh_groups) ones a checkpoint is due. The last group proves the size:
    /// with it room is reserved for all others, where the file system can do that.
    ///
    /// # Errors
    /// See [`WriteError`]; the parts then count as missing.
    pub fn write(&mut self, parts: &[Verified]) -> Result<(), WriteError> {
        self.files.write(parts)?;
        let indices = parts.iter().filter_map(|part| match part.item() {
            Item::Group { index, .. } => Some(index),
            Item::Parent { .. } => None,
        });
        if indices.clone().any(|index| index + 1 == self.size.group_count()) {
            reserve(&self.files.data, self.size.bytes())?;
        }
        indices.for_each(|index| self.have.insert(index));
        Ok(())
    }

    /// Makes all that was written survive a power cut: first the bytes and the hash tree, then the bits that claim them.
    ///
    /// The bits themselves ride on the next sync: to lose them is to fetch a window again, never to trust a bad one.
    ///
    /// # Errors
    /// See [`WriteError`]; what was written since the last checkpoint then counts as missing, since after a failed sync
    /// nobody knows what is on the disk.
    pub fn checkpoint(&mut self) -> Result<(), WriteError> {
        if self.have.fresh_count() == 0 {
            return Ok(());
        }
        let synced = self.begin_checkpoint().sync();
        self.end_checkpoint(synced)
    }

    /// Begins a checkpoint of all that was written, so that it can be synced while more is written. One is to end before
    /// the next begins, for which there is the [turn](Self::turn): the system tells of a write that failed only once, and
    /// to whoever syncs first.
    pub fn begin_checkpoint(&mut self) -> Checkpoint {
        Checkpoint { files: Arc::clone(&self.files), groups: self.have.take_fresh() }
    }

    /// Ends a checkpoint: what it was begun with survives a power cut when this returns.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn end_checkpoint(&mut self, Synced { groups, outcome }: Synced) -> Result<(), WriteError> {
        let stored = outcome.and_then(|()| self.have.store(&groups, &self.files.outboard, HAVE_AT));
        stored.map_err(|error| {
            self.have.forget(&groups);
            error.into()
        })
    }

    /// Held from the beginning of a checkpoint to its end where several write, and taken before the download is.
    pub fn turn(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.turn)
    }

    /// How many groups were written since a checkpoint was last begun.
    #[must_use]
    pub fn fresh_groups(&self) -> usize {
        self.have.fresh_count()
    }

    /// The first groups to fetch, from group `from` on and at most `limit`.
    #[must_use]
    pub fn missing(&self, from: u64, limit: u64) -> Option<Groups> {
        self.have.run(from, limit, false)
    }

    /// Whether every group is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.have.missing_count() == 0
    }

    /// Bytes of the object that are there.
    #[must_use]
    pub fn present_bytes(&self) -> u64 {
        let present = self.size.group_count() - self.have.missing_count();
        let last = self.size.group_count() - 1;
        let short = if self.have.contains(last) { self.size.group_count() * GROUP_LEN - self.size.bytes() } else { 0 };
        present * GROUP_LEN - short
    }

    /// Reads all that counts as there, checks it against the root, and counts as missing what fails.
    ///
    /// # Errors
    /// When the system cannot read or write the files.
    pub fn recheck(&mut self) -> io::Result<()> {
        let mut from = 0;
        while let Some(run) = self.have.run(from, CHECKPOINT_GROUPS as u64, true) {
            from = run.end();
            if let Some(bad) = self.first_bad(run)? {
                self.have.remove(bad);
                from = bad + 1;
            }
        }
        self.files.sync()?;
        self.have.rewrite(&self.files.outboard, HAVE_AT)?;
        self.files.outboard.sync_data()
    }

    fn begin(root: Root, size: Size, paths: Paths) -> Result<Self, OpenError> {
        let state = options().create(true).truncate(false).open(&paths.state).map_err(at(&paths.state))?;
        let state = lock(state, &paths)?;
        // Only under the lock is it certain that nobody else began, or finished, a moment ago.
        if paths.part.exists() || paths.dest.exists() {
            return Err(OpenError::Busy(paths.dest));
        }
        Self::create(root, size, paths, state)
    }

    /// Begins under the lock that `state` holds.
    fn create(root: Root, size: Size, paths: Paths, state: File) -> Result<Self, OpenError> {
        let data = create(&state, root, size, &paths).map_err(|error| {
            // Nothing was bought yet; what cannot be removed now is replaced the next time.
            let _ = fs::remove_file(&paths.part);
            let _ = fs::remove_file(&paths.state);
            match is_no_space(&error) {
                true => OpenError::NoSpace { need: size.bytes(), folder: folder_of(&paths.dest) },
                false => at(&paths.part)(error),
            }
        })?;
        let files = Arc::new(Files { data, outboard: state, outboard_at: state::outboard_at(size) });
        Ok(Self { root, size, paths, files, have: Have::none(size), turn: Arc::default() })
    }

    fn resume(root: Root, size: Size, paths: Paths) -> Result<Self, OpenError> {
        let state = options().open(&paths.state).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::Foreign(paths.part.clone()),
            _ => at(&paths.state)(error),
        })?;
        let state = lock(state, &paths)?;
        let claimed = state::claimed(&state, root).map_err(at(&paths.state))?;
        let claimed = claimed.ok_or_else(|| OpenError::Foreign(paths.part.clone()))?;
        let have = Have::load(claimed, &state, HAVE_AT).map_err(at(&paths.state))?;
        if claimed != size {
            if have.missing_count() < claimed.group_count() {
                return Err(OpenError::OtherSize { found: claimed.bytes(), claimed: size.bytes() });
            }
            fs::remove_file(&paths.part).map_err(at(&paths.part))?;
            return Self::create(root, size, paths, state);
        }
        let data = options().open(&paths.part).map_err(at(&paths.part))?;
        let found = data.metadata().map_err(at(&paths.part))?.len();
        let part = paths.part.clone();
        let files = Arc::new(Files { data, outboard: state, outboard_at: state::outboard_at(size) });
        let mut download = Self { root, size, paths, files, have, turn: Arc::default() };
        if found != size.bytes() {
            let reserved = download.files.data.set_len(size.bytes());
            reserved.and_then(|()| download.recheck()).map_err(at(&part))?;
        }
        Ok(download)
    }

    /// The first group of `run` that is not under the root.
    fn first_bad(&self, run: Groups) -> io::Result<Option<u64>> {
        let mut walk = Walk::new(self.root, self.size, run).map_err(io::Error::other)?;
        let mut buffer = vec![0; GROUP_LEN as usize];
        while let Some(item) = walk.peek() {
            let bytes = &mut buffer[..item.len()];
            self.files.read(item, bytes)?;
            if let Err(wrong) = walk.accept(bytes) {
                return Ok(Some(wrong.group));
            }
        }
        Ok(None)
    }
}

/// Writes the state and creates the partial file in its length; returns the latter.
///
/// The state comes first: a partial file without its state would be nobody's.
fn create(state: &File, root: Root, size: Size, paths: &Paths) -> io::Result<File> {
    require_room(state, size.bytes().saturating_add(state::file_len(size)))?;
    state::begin(state, root, size)?;
    let data = options().create_new(true).open(&paths.part)?;
    data.set_len(size.bytes())?;
    sync_folder_of(&paths.part)?;
    Ok(data)
}

/// How our files are opened: never through a symbolic link, which in a shared folder could be anybody's.
fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Takes the lock that keeps a second process away; it lasts as long as the file is open.
fn lock(state: File, paths: &Paths) -> Result<File, OpenError> {
    match state.try_lock() {
        Ok(()) => Ok(state),
        Err(TryLockError::WouldBlock) => Err(OpenError::Busy(paths.dest.clone())),
        Err(TryLockError::Error(error)) => Err(at(&paths.state)(error)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), source }
}
