//! What an order brings, as far as it is here: a file, or the objects of a folder.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pedlar_protocol::content::{Kind, Root, Size, Whole};
use tokio::task::spawn_blocking;

use crate::blobs::{Download, OpenError};
use crate::purchase::folder::Folder;
use crate::purchase::{Buyer, Order, OrderError};
use crate::session::lock;

/// An object being bought, shared with the thread that writes it.
pub(super) type Part = Arc<Mutex<Download>>;

/// What an order brings.
pub(super) enum Goods {
    File(File),
    Folder(Folder),
}

/// A file; nothing before a seller has said how long it is.
#[derive(Default)]
pub(super) struct File {
    pub(super) part: Option<Part>,
}

impl Goods {
    /// What an earlier try of the order left behind.
    pub(super) async fn kept(order: &Order) -> Result<Self, OrderError> {
        if order.link.kind == Kind::Collection {
            return Ok(Self::Folder(Folder::kept(order).await?));
        }
        let part = match Download::begun(order.link.root, &order.dest) {
            Some(size) => Some(open(order.link.root, size, &order.dest).await?),
            None => None,
        };
        Ok(Self::File(File { part }))
    }

    /// Nothing of it, where nothing is to be bought.
    pub(super) fn none(order: &Order) -> Self {
        match order.link.kind {
            Kind::File => Self::File(File::default()),
            Kind::Collection => Self::Folder(Folder::default()),
        }
    }

    /// Whether all of it is here.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::File(file) => file.part.as_ref().is_some_and(|part| lock(part).is_complete()),
            Self::Folder(folder) => folder.is_complete(),
        }
    }

    /// Bytes that are here, of how many; nothing while that is unknown.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        match self {
            Self::File(file) => file.part.as_ref().map(|part| {
                let part = lock(part);
                (part.present_bytes(), part.size().bytes())
            }),
            Self::Folder(folder) => folder.progress(),
        }
    }

    /// What is to be bought yet, as far as a seller's claim is believed.
    pub(super) fn missing(&self, said: Whole) -> Whole {
        match self {
            Self::File(file) => {
                let have = file.part.as_ref().map_or(0, |part| lock(part).present_bytes());
                Whole { bytes: said.bytes.saturating_sub(have), ..said }
            }
            Self::Folder(folder) => folder.missing(said),
        }
    }

    /// Makes room on the disk for what a seller says that it has: an object of this size, and the whole.
    pub(super) async fn open(&mut self, order: &Order, size: Size, said: Whole) -> Result<(), OpenError> {
        match self {
            Self::File(file) => file.open(order, size).await,
            Self::Folder(folder) => folder.open(order, size, said).await,
        }
    }
}

impl File {
    /// The partial file at this size: the one that is open, if it has it.
    async fn open(&mut self, order: &Order, size: Size) -> Result<(), OpenError> {
        let fits = self.part.take_if(|part| lock(part).size() == size);
        // Another one is closed before, for the lock on it.
        self.part = None;
        self.part = match fits {
            Some(part) => Some(part),
            None => Some(open(order.link.root, size, &order.dest).await?),
        };
        Ok(())
    }
}

impl Buyer {
    /// Gives what is complete its name.
    pub(super) async fn finish(&self, goods: Goods) -> Result<PathBuf, OrderError> {
        match goods {
            Goods::File(File { part }) => self.keep(part.ok_or(OrderError::Interrupted)?).await,
            Goods::Folder(folder) => folder.finish(self).await,
        }
    }

    /// Gives a complete object its name.
    pub(super) async fn keep(&self, part: Part) -> Result<PathBuf, OrderError> {
        let outboards = self.outboards.clone();
        let part = Arc::into_inner(part).and_then(|part| part.into_inner().ok()).ok_or(OrderError::Interrupted)?;
        let finished = spawn_blocking(move || part.finish(&outboards)).await;
        Ok(finished.map_err(|_| OrderError::Interrupted)??.path)
    }
}

/// Opens the partial file of an object.
pub(super) async fn open(root: Root, size: Size, dest: &Path) -> Result<Part, OpenError> {
    let path = dest.to_owned();
    // Checking what is there may read all of it.
    let opened = spawn_blocking(move || Download::open(root, size, &path)).await;
    Ok(Arc::new(Mutex::new(opened.map_err(|error| stopped(dest, error))??)))
}

/// The thread that was to open something ended.
pub(super) fn stopped(path: &Path, error: tokio::task::JoinError) -> OpenError {
    OpenError::Io { path: path.to_owned(), source: std::io::Error::other(error) }
}
