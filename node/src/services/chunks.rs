//! Content by its root: published files, read and checked while they are sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use pedlar_protocol::content::Root;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::Request;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::blobs::{BlobReader, Pieces, ReadError};
use crate::service::{Delivery, Service};
use crate::session::{Session, SessionError};
use crate::shop::Shelf;

/// When to ask again for a file that the system can't read at this moment.
const UNREADABLE: Refusal = Refusal::NotYet { retry_after: Duration::from_secs(60) };

/// Sells what is on the shelf.
pub(crate) struct Chunks {
    shelf: Arc<Shelf>,
}

impl Chunks {
    pub(crate) const fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf }
    }
}

impl Service for Chunks {
    fn name(&self) -> &'static str {
        "chunks"
    }

    fn quote(&self, request: Request) -> BoxFuture<'_, Result<Delivery, Refusal>> {
        quote(Arc::clone(&self.shelf), request).boxed()
    }
}

async fn quote(shelf: Arc<Shelf>, request: Request) -> Result<Delivery, Refusal> {
    let root = *request.object();
    let blob = shelf.blob(&request).ok_or(Refusal::NotFound)?;
    let size = blob.size;
    let opened = spawn_blocking(move || BlobReader::open(&blob)).await;
    let reader = opened.map_err(|_| UNREADABLE)?.map_err(|error| refusal_of(&root, &error))?;
    let reader = Arc::new(reader);
    Ok(Delivery { request, size, serve: Box::new(move |session| serve(session, root, reader, shelf).boxed()) })
}

async fn serve(
    session: &mut Session,
    root: Root,
    reader: Arc<BlobReader>,
    shelf: Arc<Shelf>,
) -> Result<(), SessionError> {
    let refused = |error| SessionError::Refused(refusal_of(&root, &error));
    while let Some(groups) = session.next_range().await? {
        let mut reading = read(reader.pieces(groups).map_err(refused)?);
        while let (pieces, Some(piece)) = reading.await.map_err(|_| SessionError::Refused(UNREADABLE))? {
            // The next one is read while this one leaves.
            reading = read(pieces);
            let piece = piece.map_err(refused)?;
            shelf.pace.wait(piece.len() as u64).await;
            session.deliver(piece).await?;
        }
    }
    Ok(())
}

/// Reads the next piece, where blocking is allowed.
fn read(mut pieces: Pieces) -> JoinHandle<(Pieces, Option<Result<Bytes, ReadError>>)> {
    spawn_blocking(move || {
        let piece = pieces.next();
        (pieces, piece)
    })
}

/// What a buyer is told of a file that can't be read, and the owner in the log.
fn refusal_of(root: &Root, error: &ReadError) -> Refusal {
    tracing::warn!(%root, %error, "a published file can't be delivered");
    match error {
        ReadError::Changed { .. } => Refusal::Changed,
        _ => UNREADABLE,
    }
}
