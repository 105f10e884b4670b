//! The thread that verifies and writes what a seller sends, so that neither hashing nor the disk stops the connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use pedlar_protocol::content::{Groups, OutOfRange, Root, Size, Verifier, VerifyError};
use tokio::sync::mpsc;

use crate::blobs::{Download, WriteError};

/// Frames between the stream and the thread: 2 MiB at the most.
const QUEUE: usize = 8;

/// What the sink thread has done.
pub(super) enum Sunk {
    /// So many bytes more are verified and written; said once a frame, since each word of it wakes the connection's task.
    Bytes(u64),
    /// The range is complete, and synced.
    Range,
}

/// Why the sink thread takes no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    /// What came is not what was asked for.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A range that the object does not have.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// Payload without a range, or more than there was room for.
    #[error("payload out of order")]
    Order,
    /// Our own disk.
    #[error(transparent)]
    Write(#[from] WriteError),
}

enum Piece {
    Range(Groups),
    Bytes(Bytes),
}

/// The thread's handle.
pub(super) struct Sink {
    pieces: Option<mpsc::Sender<Piece>>,
    news: mpsc::Receiver<Result<Sunk, SinkError>>,
}

impl Sink {
    pub(super) fn start(root: Root, size: Size, download: Arc<Mutex<Download>>) -> Self {
        let (pieces, inbox) = mpsc::channel(QUEUE);
        // As much as a full queue can lead to: the thread never waits for its reader while it holds the file.
        let (report, news) = mpsc::channel(2 * QUEUE + 2);
        let spawned = thread::Builder::new().name("sink".into()).spawn(move || {
            let sunk = sink(root, size, &download, inbox, &report);
            // All that verified is signed for, whatever the session ended with: it is to survive a crash, too.
            let kept = lock(&download).checkpoint();
            // Before the last report: who hears of the end is the file's only owner.
            drop(download);
            if let Err(failure) = sunk.and(kept.map_err(SinkError::from)) {
                // Nobody listens only when the purchase is over.
                let _ = report.blocking_send(Err(failure));
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a download");
        }
        Self { pieces: Some(pieces), news }
    }

    /// Whether a frame can be taken without waiting.
    pub(super) fn has_room(&self) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| pieces.capacity() > 0)
    }

    pub(super) fn begin(&self, groups: Groups) -> Result<(), SinkError> {
        self.put(Piece::Range(groups))
    }

    pub(super) fn push(&self, bytes: Bytes) -> Result<(), SinkError> {
        self.put(Piece::Bytes(bytes))
    }

    /// Frames are only read while there is room: a full queue is a peer that was never asked.
    fn put(&self, piece: Piece) -> Result<(), SinkError> {
        let pieces = self.pieces.as_ref().ok_or(SinkError::Order)?;
        // A closed queue means that the thread has failed; what it says of it comes as news.
        match pieces.try_send(piece) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(SinkError::Order),
        }
    }

    pub(super) async fn next(&mut self) -> Result<Sunk, SinkError> {
        self.news.recv().await.unwrap_or(Err(SinkError::Order))
    }

    /// Ends the thread; the bytes that it still wrote.
    pub(super) async fn drain(&mut self) -> u64 {
        self.pieces = None;
        let mut written = 0;
        while let Some(news) = self.news.recv().await {
            if let Ok(Sunk::Bytes(bytes)) = news {
                written += bytes;
            }
        }
        written
    }
}

fn sink(
    root: Root,
    size: Size,
    download: &Mutex<Download>,
    mut inbox: mpsc::Receiver<Piece>,
    report: &mpsc::Sender<Result<Sunk, SinkError>>,
) -> Result<(), SinkError> {
    let mut verifier: Option<Verifier> = None;
    while let Some(piece) = inbox.blocking_recv() {
        let mut bytes = match piece {
            // The next range begins where the last one is complete.
            Piece::Range(_) if verifier.is_some() => return Err(VerifyError::Truncated.into()),
            Piece::Range(groups) => {
                verifier = Some(Verifier::new(root, size, groups)?);
                // The empty object is one group of no bytes, and no frame.
                Bytes::new()
            }
            Piece::Bytes(bytes) => bytes,
        };
        let verifying = verifier.as_mut().ok_or(SinkError::Order)?;
        let (written, outcome) = write_verified(verifying, download, &mut bytes);
        if written > 0 {
            let _ = report.blocking_send(Ok(Sunk::Bytes(written)));
        }
        outcome?;
        if verifying.is_complete() {
            verifier = None;
            // Before the receipt: what is signed for survives a crash.
            lock(download).checkpoint()?;
            let _ = report.blocking_send(Ok(Sunk::Range));
        }
    }
    Ok(())
}

/// Writes what `bytes` prove; how much, also when what follows it is wrong.
fn write_verified(
    verifier: &mut Verifier,
    download: &Mutex<Download>,
    bytes: &mut Bytes,
) -> (u64, Result<(), SinkError>) {
    let mut written = 0;
    loop {
        let verified = match verifier.next(bytes) {
            Ok(Some(verified)) => verified,
            Ok(None) => return (written, Ok(())),
            Err(wrong) => return (written, Err(wrong.into())),
        };
        if let Err(error) = lock(download).write(&verified) {
            return (written, Err(error.into()));
        }
        written += verified.payload_len();
    }
}

/// Locks a download.
pub(crate) fn lock(download: &Mutex<Download>) -> std::sync::MutexGuard<'_, Download> {
    // A download has no state that a panic could leave half done: its bits are set after its bytes.
    download.lock().unwrap_or_else(PoisonError::into_inner)
}
