//! The threads that verify, write and sync what a seller sends, so that neither hashing nor the disk stops the connection,
//! and the disk not the hashing.
//!
//! ```text
//! frames ─▶ sink: verify, write ─▶ syncer: sync ─▶ a receipt may be signed
//! ```

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use pedlar_protocol::content::{Groups, OutOfRange, Root, Size, Verified, Verifier, VerifyError};
use tokio::sync::mpsc;

use crate::blobs::{CHECKPOINT_GROUPS, Download, WriteError};

/// Frames between the stream and the thread: 2 MiB at the most.
const QUEUE: usize = 8;

/// Groups that are written before they are synced, if the range does not end before: 4 MiB. Then most of a range is on the
/// disk when its last byte comes.
const SYNC_GROUPS: usize = 256;

/// Words for the syncer that wait while it waits for the disk.
const SYNCS: usize = 1;

/// What the sink thread has done.
pub(super) enum Sunk {
    /// So many bytes more are verified and written; said once a frame, since each word of it wakes the connection's task.
    Bytes(u64),
    /// The oldest range is complete, and synced with all before it: so many bytes in all.
    Range(u64),
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
            let sunk = sink_and_sync(root, size, &download, inbox, &report);
            // All that verified is signed for, whatever the session ended with: it is to survive a crash, too.
            let kept = checkpoint(&download);
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

/// What the syncer is told.
enum Written {
    /// There is enough for a sync.
    Much,
    /// A range is complete, with so many bytes of the session.
    Range(u64),
}

/// Sinks what comes, with a second thread that syncs; both have ended when this returns.
fn sink_and_sync(
    root: Root,
    size: Size,
    download: &Mutex<Download>,
    inbox: mpsc::Receiver<Piece>,
    report: &mpsc::Sender<Result<Sunk, SinkError>>,
) -> Result<(), SinkError> {
    thread::scope(|threads| {
        let (written, words) = sync_channel(SYNCS);
        let syncer = thread::Builder::new().name("syncer".into());
        let syncing = syncer.spawn_scoped(threads, || sync(download, words, report)).map_err(WriteError::from)?;
        let sunk = sink(root, size, download, inbox, &written, report);
        drop(written);
        let synced = syncing.join().unwrap_or_else(|_| Err(io::Error::other("the syncer ended").into()));
        synced.map_err(SinkError::from).and(sunk)
    })
}

fn sink(
    root: Root,
    size: Size,
    download: &Mutex<Download>,
    mut inbox: mpsc::Receiver<Piece>,
    syncer: &SyncSender<Written>,
    report: &mpsc::Sender<Result<Sunk, SinkError>>,
) -> Result<(), SinkError> {
    let mut verifier: Option<Verifier> = None;
    let mut total = 0;
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
        let (verified, outcome) = verify(verifying, &mut bytes);
        let fresh_groups = {
            let mut download = lock(download);
            download.write(&verified)?;
            download.fresh_groups()
        };
        let written: u64 = verified.iter().map(Verified::payload_len).sum();
        if written > 0 {
            total += written;
            let _ = report.blocking_send(Ok(Sunk::Bytes(written)));
        }
        outcome?;
        let told = if verifying.is_complete() {
            verifier = None;
            syncer.send(Written::Range(total))
        } else if fresh_groups >= CHECKPOINT_GROUPS {
            // The disk is slower than the network.
            syncer.send(Written::Much)
        } else {
            if fresh_groups >= SYNC_GROUPS {
                // A syncer that has a word waiting comes to these groups with it.
                let _ = syncer.try_send(Written::Much);
            }
            Ok(())
        };
        if told.is_err() {
            // It says itself why it ended.
            return Ok(());
        }
    }
    Ok(())
}

/// Syncs what was written whenever there is enough of it, and all of each range before its end is reported.
fn sync(
    download: &Mutex<Download>,
    words: Receiver<Written>,
    report: &mpsc::Sender<Result<Sunk, SinkError>>,
) -> Result<(), WriteError> {
    while let Ok(word) = words.recv() {
        let mut ranges = Vec::new();
        let mut take = |word| match word {
            Written::Range(total) => ranges.push(total),
            Written::Much => {}
        };
        take(word);
        words.try_iter().for_each(take);
        checkpoint(download)?;
        for total in ranges {
            let _ = report.blocking_send(Ok(Sunk::Range(total)));
        }
    }
    Ok(())
}

/// What `bytes` prove, also when what follows it is wrong.
fn verify(verifier: &mut Verifier, bytes: &mut Bytes) -> (Vec<Verified>, Result<(), SinkError>) {
    let mut proven = Vec::new();
    loop {
        match verifier.next(bytes) {
            Ok(Some(verified)) => proven.push(verified),
            Ok(None) => return (proven, Ok(())),
            Err(wrong) => return (proven, Err(wrong.into())),
        }
    }
}

/// Syncs what was written until now, also by others that bring parts of the same download; they write on meanwhile.
fn checkpoint(download: &Mutex<Download>) -> Result<(), WriteError> {
    let turn = lock(download).turn();
    let _turn = lock(&turn);
    let begun = lock(download).begin_checkpoint();
    let synced = begun.sync();
    lock(download).end_checkpoint(synced)
}

/// Locks a download, or the plan for it.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Neither has a state that a panic could leave half done: a download's bits are set after its bytes.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use pedlar_protocol::content::GROUP_LEN;

    use super::*;
    use crate::blobs::BlobReader;
    use crate::blobs::tests::Shop;

    #[tokio::test]
    async fn a_range_is_reported_when_all_of_it_is_kept_and_the_thread_leaves_the_file() {
        let shop = Shop::new((CHECKPOINT_GROUPS + 3) * GROUP_LEN as usize + 1);
        let size = shop.blob.size;
        let download = Download::open(shop.blob.root, size, &shop.dir.path().join("bought.bin")).unwrap();
        let download = Arc::new(Mutex::new(download));
        let reader = Arc::new(BlobReader::open(&shop.blob).unwrap());
        let mut sink = Sink::start(shop.blob.root, size, Arc::clone(&download));
        let (mut written, mut due) = (0, 0);
        for (start, end) in
            [(0, 3), (3, CHECKPOINT_GROUPS as u64 + 2), (CHECKPOINT_GROUPS as u64 + 2, size.group_count())]
        {
            let groups = Groups::new(start, end).unwrap();
            due += size.bytes_in(groups);
            sink.begin(groups).unwrap();
            for piece in reader.pieces(groups).unwrap() {
                // Each frame is said to be written before the next is sent.
                sink.push(piece.unwrap()).unwrap();
                match sink.next().await.unwrap() {
                    Sunk::Bytes(bytes) => written += bytes,
                    Sunk::Range(_) => panic!("the range goes on"),
                }
            }
            assert_eq!(written, due);
            assert!(matches!(sink.next().await, Ok(Sunk::Range(synced)) if synced == due));
            assert_eq!(lock(&download).fresh_groups(), 0, "a checkpoint has taken all");
        }
        assert!(lock(&download).is_complete());
        assert_eq!(sink.drain().await, 0);
        assert_eq!(Arc::strong_count(&download), 1);
    }

    #[tokio::test]
    async fn what_came_before_a_wrong_byte_is_kept_and_said() {
        let shop = Shop::new(20 * GROUP_LEN as usize);
        let size = shop.blob.size;
        let download = Download::open(shop.blob.root, size, &shop.dir.path().join("bought.bin")).unwrap();
        let download = Arc::new(Mutex::new(download));
        let reader = Arc::new(BlobReader::open(&shop.blob).unwrap());
        let mut sink = Sink::start(shop.blob.root, size, Arc::clone(&download));
        let mut frame = reader.pieces(size.groups()).unwrap().next().unwrap().unwrap().to_vec();
        *frame.last_mut().unwrap() ^= 1;
        sink.begin(size.groups()).unwrap();
        sink.push(frame.into()).unwrap();
        let Ok(Sunk::Bytes(bytes)) = sink.next().await else { panic!("good groups come first") };
        assert!(matches!(sink.next().await, Err(SinkError::Verify(_))));
        assert_eq!(sink.drain().await, 0);
        assert_eq!(lock(&download).present_bytes(), bytes);
        assert_eq!(lock(&download).fresh_groups(), 0, "what is signed for is synced");
    }
}
