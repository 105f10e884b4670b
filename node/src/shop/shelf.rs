//! What is for sale here, for those who deliver it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pedlar_protocol::content::{Kind, Root, Size, Whole};
use pedlar_protocol::market::Goods;
use pedlar_protocol::money::Price;
use pedlar_protocol::session::Request;
use pedlar_protocol::text::{Name, escape};

use super::pace::Pace;
use crate::blobs::{BlobReader, PublishedBlob, PublishedFolder, ReadError};

/// A published file or folder, with its own price, where it has one.
#[derive(Debug, Clone)]
pub(crate) struct Shelved {
    /// The file; of a folder, its manifest.
    pub(crate) blob: PublishedBlob,
    pub(crate) name: Name,
    pub(crate) price: Option<Price>,
    /// Shared, since a folder may have many files.
    pub(crate) folder: Option<Arc<Folder>>,
}

/// The files of a published folder.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// All files together.
    pub(crate) size: Size,
    /// All that is sold under its root.
    pub(crate) whole: Whole,
    /// Each different file that has bytes.
    pub(crate) files: BTreeMap<Root, PublishedBlob>,
}

impl From<PublishedFolder> for Folder {
    fn from(published: PublishedFolder) -> Self {
        let PublishedFolder { path, collection, files, .. } = published;
        let files = files.into_iter().map(|blob| (blob.root, blob)).collect();
        Self { path, size: collection.size(), whole: collection.whole(), files }
    }
}

impl Shelved {
    /// What its link says that it is.
    pub(crate) const fn kind(&self) -> Kind {
        if self.folder.is_some() { Kind::Collection } else { Kind::File }
    }

    /// Its length; of a folder, all files together.
    pub(crate) fn size(&self) -> Size {
        self.folder.as_ref().map_or(self.blob.size, |folder| folder.size)
    }

    /// Where the file or the folder lies.
    pub(crate) fn path(&self) -> &Path {
        self.folder.as_ref().map_or(&self.blob.path, |folder| &folder.path)
    }

    /// As the market knows it.
    pub(crate) fn goods(&self) -> Goods {
        let whole = self.folder.as_ref().map(|folder| folder.whole);
        Goods { name: self.name.clone(), size: self.size(), whole, price: self.price }
    }

    /// The files on disk that are sold with it, its manifest among them.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &PublishedBlob> {
        std::iter::once(&self.blob).chain(self.folder.iter().flat_map(|folder| folder.files.values()))
    }

    /// Why it, or the first file of a folder, would be refused to a buyer now, as far as can be seen without reading it.
    pub(crate) fn refusal(&self) -> Option<Refusal<'_>> {
        self.blobs().find_map(|blob| {
            let error = BlobReader::open(blob).err()?;
            let within = self.folder.is_some().then_some(blob.path.as_path());
            Some(Refusal { within, error })
        })
    }
}

/// What is wrong with a published file.
pub(crate) struct Refusal<'a> {
    /// Which file of a folder.
    within: Option<&'a Path>,
    error: ReadError,
}

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.within {
            // Names in a folder may have come from strangers.
            Some(path) => write!(f, "{}: {}", escape(&path.to_string_lossy()), self.error),
            None => self.error.fmt(f),
        }
    }
}

/// Everything that is published, by its root, and how fast it leaves.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) pace: Pace,
    goods: RwLock<BTreeMap<Root, Shelved>>,
}

impl Shelf {
    /// The file that a buyer asks for.
    pub(crate) fn blob(&self, request: &Request) -> Option<PublishedBlob> {
        let goods = self.read();
        let shelved = goods.get(request.published())?;
        match request {
            Request::Chunks(_) => Some(shelved.blob.clone()),
            Request::Entry { entry, .. } => shelved.folder.as_ref()?.files.get(entry).cloned(),
        }
    }

    /// Everything on the shelf.
    pub(crate) fn all(&self) -> Vec<Shelved> {
        self.read().values().cloned().collect()
    }

    pub(super) fn fill(&self, goods: Vec<Shelved>) {
        *self.write() = goods.into_iter().map(|shelved| (shelved.blob.root, shelved)).collect();
    }

    pub(super) fn put(&self, shelved: Shelved) {
        self.write().insert(shelved.blob.root, shelved);
    }

    pub(super) fn take(&self, root: &Root) -> Option<Shelved> {
        self.write().remove(root)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Root, Shelved>> {
        // Each change is one insertion or removal: a panic leaves nothing half done.
        self.goods.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Root, Shelved>> {
        self.goods.write().unwrap_or_else(PoisonError::into_inner)
    }
}
