//! The part of an object that is here, as it is bought.

use std::path::Path;
use std::sync::{Arc, Mutex};

use pedlar_protocol::content::{Root, Size};
use tokio::task::spawn_blocking;

use crate::blobs::{Download, OpenError, PublishedBlob};
use crate::purchase::{Buyer, OrderError};

/// An object being bought, shared with the thread that writes it.
pub(super) type Part = Arc<Mutex<Download>>;

impl Buyer {
    /// Gives a complete object its name.
    pub(super) async fn keep(&self, part: Part) -> Result<PublishedBlob, OrderError> {
        let outboards = self.outboards.clone();
        let part = Arc::into_inner(part).and_then(|part| part.into_inner().ok()).ok_or(OrderError::Interrupted)?;
        let finished = spawn_blocking(move || part.finish(&outboards)).await;
        Ok(finished.map_err(|_| OrderError::Interrupted)??)
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
