//! Reading a published file for a buyer, checked against its root while it is read.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pedlar_protocol::content::{Groups, Item, OutOfRange, Root, Size, Walk};
use pedlar_protocol::wire::MAX_DATA_LEN;

use super::files::Files;
use super::{Fingerprint, PublishedBlob};

/// How a published file is no longer what was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Change {
    /// It is gone, or is no regular file any more.
    #[error("the file is gone")]
    Missing,
    /// It is longer or shorter.
    #[error("the file has {now} bytes, {published} were published")]
    Length {
        /// Bytes now, as far as they could be read.
        now: u64,
        /// Bytes when it was published.
        published: u64,
    },
    /// It was written to or replaced.
    #[error("the file was written to or replaced")]
    Modified,
    /// These bytes are other ones.
    #[error("group {group} of the file holds other bytes")]
    Content {
        /// Which group of 16 KiB.
        group: u64,
    },
    /// The hash tree beside it is gone or damaged; the file itself may be well.
    #[error("the hash tree of the file is damaged")]
    Outboard,
}

/// Why a published file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not what was published: publish it again.
    #[error("{reason}; publish it again")]
    Changed {
        /// What is different.
        reason: Change,
    },
    /// The buyer asked for groups that it does not have.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The system refused.
    #[error("reading a published file: {0}")]
    Io(io::Error),
}

impl From<Change> for ReadError {
    fn from(reason: Change) -> Self {
        Self::Changed { reason }
    }
}

/// A published file, open for one buyer.
#[derive(Debug)]
pub struct BlobReader {
    root: Root,
    size: Size,
    files: Files,
}

impl BlobReader {
    /// Opens a published file and looks whether it is still the one that was published.
    ///
    /// # Errors
    /// [`ReadError::Changed`] if it visibly is not, before a buyer has paid anything.
    pub fn open(blob: &PublishedBlob) -> Result<Self, ReadError> {
        let missing = |reason: Change| {
            move |error: io::Error| match error.kind() {
                io::ErrorKind::NotFound => reason.into(),
                _ => ReadError::Io(error),
            }
        };
        let found = fs::metadata(&blob.path).map_err(missing(Change::Missing))?;
        if !found.is_file() {
            return Err(Change::Missing.into());
        }
        let data = File::open(&blob.path).map_err(missing(Change::Missing))?;
        let opened = data.metadata().map_err(ReadError::Io)?;
        if opened.len() != blob.size.bytes() {
            return Err(Change::Length { now: opened.len(), published: blob.size.bytes() }.into());
        }
        if Fingerprint::of(&opened) != blob.fingerprint {
            return Err(Change::Modified.into());
        }
        let outboard = File::open(&blob.outboard).map_err(missing(Change::Outboard))?;
        Ok(Self { root: blob.root, size: blob.size, files: Files { data, outboard, outboard_at: 0 } })
    }

    /// `groups` encoded, to be read piece by piece.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] for groups that the object does not have.
    pub fn pieces(self: &Arc<Self>, groups: Groups) -> Result<Pieces, ReadError> {
        let walk = Walk::new(self.root, self.size, groups)?;
        Ok(Pieces { reader: Arc::clone(self), walk, failed: None })
    }

    /// Reads `item` and takes one step of the walk with it.
    fn read(&self, walk: &mut Walk, item: Item, into: &mut [u8]) -> Result<(), ReadError> {
        let read = self.files.read(item, into);
        match (read, item) {
            (Ok(()), Item::Parent { .. }) => walk.accept(into).map_err(|_| Change::Outboard.into()),
            (Ok(()), Item::Group { .. }) => {
                walk.accept(into).map_err(|wrong| Change::Content { group: wrong.group }.into())
            }
            (Err(error), _) if error.kind() != io::ErrorKind::UnexpectedEof => Err(ReadError::Io(error)),
            (Err(_), Item::Parent { .. }) => Err(Change::Outboard.into()),
            (Err(_), Item::Group { .. }) => {
                let now = self.files.data.metadata().map_err(ReadError::Io)?.len();
                Err(Change::Length { now, published: self.size.bytes() }.into())
            }
        }
    }
}

/// A range on its way out, in pieces of at most [`MAX_DATA_LEN`], one frame each, none empty; each is read when it is
/// asked for, so that a slow buyer holds up no thread.
///
/// Whatever comes out is under the root. The first byte that is not what was published is an error, after all before it;
/// nothing is to be asked for after that.
#[derive(Debug)]
pub struct Pieces {
    reader: Arc<BlobReader>,
    walk: Walk,
    failed: Option<ReadError>,
}

impl Iterator for Pieces {
    type Item = Result<Bytes, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut frame = BytesMut::with_capacity(MAX_DATA_LEN);
        while self.failed.is_none()
            && let Some(item) = self.walk.peek().filter(|item| frame.len() + item.len() <= MAX_DATA_LEN)
        {
            let start = frame.len();
            frame.resize(start + item.len(), 0);
            if let Err(error) = self.reader.read(&mut self.walk, item, &mut frame[start..]) {
                frame.truncate(start);
                self.failed = Some(error);
            }
        }
        if frame.is_empty() { self.failed.take().map(Err) } else { Some(Ok(frame.freeze())) }
    }
}
