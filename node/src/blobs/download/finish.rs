//! The last steps of a download: its hash tree is kept, and the partial file gets its name.

use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::{Download, Paths, WriteError};
use crate::blobs::files::{folder_of, outboard_path, sync_folder_of};
use crate::blobs::name::name_of;
use crate::blobs::{Fingerprint, PublishedBlob};

/// Why a complete download did not get its name; it can be finished later.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// It is not complete.
    #[error("{missing} groups are missing")]
    Incomplete {
        /// How many.
        missing: u64,
    },
    /// Meanwhile somebody else created the destination.
    #[error("{} exists already; the download is in {}", .dest.display(), .part.display())]
    Exists {
        /// The destination.
        dest: PathBuf,
        /// Where the bytes are.
        part: PathBuf,
    },
    /// The disk is full or failing.
    #[error("{source} in {}", .folder.display())]
    Write {
        /// Which one: the hash tree has another place than the file.
        folder: PathBuf,
        /// What is wrong.
        source: WriteError,
    },
}

impl Download {
    /// Gives a complete download its name, never replacing a file, and its hash tree a place in the folder `outboards`,
    /// so that it can be sold on. All of it is durable when this returns.
    ///
    /// # Errors
    /// See [`FinishError`]; the partial file stays and can be finished later.
    pub fn finish(mut self, outboards: &Path) -> Result<PublishedBlob, FinishError> {
        if !self.is_complete() {
            return Err(FinishError::Incomplete { missing: self.have.missing_count() });
        }
        let folder = folder_of(&self.paths.dest);
        let here = |error: WriteError| FinishError::Write { folder: folder.clone(), source: error };
        self.checkpoint().map_err(here)?;
        let kept = self.keep_outboard(outboards);
        let outboard =
            kept.map_err(|error| FinishError::Write { folder: outboards.to_owned(), source: error.into() })?;
        self.files.data.sync_all().map_err(|error| here(error.into()))?;
        self.name().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                FinishError::Exists { dest: self.paths.dest.clone(), part: self.paths.part.clone() }
            }
            _ => here(error.into()),
        })?;
        self.published(outboard).map_err(|error| here(error.into()))
    }

    fn keep_outboard(&self, folder: &Path) -> io::Result<PathBuf> {
        let mut kept = NamedTempFile::new_in(folder)?;
        let mut tree = &self.files.outboard;
        tree.seek(SeekFrom::Start(self.files.outboard_at))?;
        io::copy(&mut tree, kept.as_file_mut())?;
        kept.as_file().sync_all()?;
        let path = outboard_path(folder, self.root);
        kept.persist(&path)?;
        sync_folder_of(&path)?;
        Ok(path)
    }

    /// Renames the partial file to the destination, which must not exist.
    fn name(&self) -> io::Result<()> {
        let Paths { part, dest, .. } = &self.paths;
        match renameat_with(CWD, part, CWD, dest, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // Not every file system can; a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::hard_link(part, dest)?;
                fs::remove_file(part)?;
            }
            Err(error) => return Err(error.into()),
        }
        sync_folder_of(dest)
    }

    fn published(self, outboard: PathBuf) -> io::Result<PublishedBlob> {
        // If this fails, the next to open this destination removes it.
        let _ = fs::remove_file(&self.paths.state);
        let path = self.paths.dest.canonicalize()?;
        let name = name_of(&path, self.root);
        let fingerprint = Fingerprint::of(&self.files.data.metadata()?);
        Ok(PublishedBlob { root: self.root, size: self.size, path, name, outboard, fingerprint })
    }
}
