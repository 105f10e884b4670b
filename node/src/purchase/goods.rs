//! What an order brings, as far as it is here: a file, or the objects of a folder.

use std::path::PathBuf;
use std::time::Duration;

use pedlar_protocol::content::{Kind, Size, Whole};
use tokio::time::{Instant, sleep};

use crate::blobs::{OpenError, PublishedBlob};
use crate::purchase::file::File;
use crate::purchase::folder::Folder;
use crate::purchase::{Buyer, Lacks, Order, OrderError};

/// How long a purchase may take to end in order that was interrupted: a receipt is synced and sent.
const ENDING: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What an order has brought.
pub(super) struct Finished {
    pub(super) path: PathBuf,
    /// A file as it can be sold on; a folder is not.
    pub(super) blob: Option<PublishedBlob>,
}

/// What an order brings.
pub(super) enum Goods {
    File(File),
    Folder(Folder),
}

impl Goods {
    /// What an earlier try of the order left behind; one that was interrupted just now may still be signing for it.
    pub(super) async fn kept(order: &Order) -> Result<Self, OrderError> {
        let deadline = Instant::now() + ENDING;
        loop {
            match Self::look(order).await {
                Err(OrderError::Open(OpenError::Busy(_))) if Instant::now() < deadline => sleep(LOOK_AGAIN).await,
                kept => return kept,
            }
        }
    }

    async fn look(order: &Order) -> Result<Self, OrderError> {
        if order.link.kind == Kind::Collection {
            return Ok(Self::Folder(Folder::kept(order).await?));
        }
        Ok(Self::File(File::kept(order).await?))
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
            Self::File(file) => file.is_complete(),
            Self::Folder(folder) => folder.is_complete(),
        }
    }

    /// Bytes that are here, of how many; nothing while that is unknown.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        match self {
            Self::File(file) => file.progress(),
            Self::Folder(folder) => folder.progress(),
        }
    }

    /// Which files of a folder are not here, once its list of them is.
    pub(super) fn lacks(&self) -> Option<Lacks> {
        match self {
            Self::File(_) => None,
            Self::Folder(folder) => folder.lacks(),
        }
    }

    /// What is to be bought yet, as far as a seller's claim is believed.
    pub(super) fn missing(&self, said: Whole) -> Whole {
        match self {
            Self::File(file) => file.missing(said),
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

impl Buyer {
    /// Gives what is complete its name.
    pub(super) async fn finish(&self, goods: Goods) -> Result<Finished, OrderError> {
        match goods {
            Goods::File(file) => file.finish(self).await,
            Goods::Folder(folder) => Ok(Finished { path: folder.finish(self).await?, blob: None }),
        }
    }
}
