//! The journal thread: one SQLite file that holds what the market staged, and the index of published files.
//!
//! **Invariant:** entries are written in the order in which they were staged, and stay staged until the transaction that
//! holds them is on the disk. Waiters that came together share one transaction (group commit).

mod schema;

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use libp2p_identity::PeerId;
use pedlar_protocol::account::{Entry, EntryError};
use pedlar_protocol::market::Market;
use pedlar_protocol::time::Timestamp;
use pedlar_wallet::LadderError;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{oneshot, watch};

use schema::{LADDER, open_to_read};

/// Jobs that wait for the thread; each waits for at most one transaction, so a full queue only slows its senders.
const JOBS: usize = 256;

/// The setting that holds when the journal was restored from a backup.
const RESTORED_SETTING: &str = "restored_ms";

/// How long after a failed write the next is tried, when nobody asks earlier.
const RETRY: Duration = Duration::from_secs(1);

/// The market behind its lock: held for moments, never across an await.
pub(crate) type SharedMarket = Arc<Mutex<Market>>;

/// Why something is not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// The journal can't be written: nothing that depends on it is sent.
    #[error("the journal can't be written: {0}")]
    Write(Arc<str>),
    /// The thread has ended.
    #[error("the journal is closed")]
    Closed,
}

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// SQLite or the file.
    #[error("the journal: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file can't be copied, to be looked at without being touched.
    #[error("the journal can't be copied to be looked at: {0}")]
    Copy(std::io::Error),
    /// The file is not a whole database any more.
    #[error("the journal is damaged: {0}")]
    File(String),
    /// The file is of a newer version, or could not be brought to this one.
    #[error("the journal: {0}")]
    Version(#[from] LadderError),
    /// The file is damaged.
    #[error("the journal is damaged: {0}")]
    Pages(String),
    /// A row is damaged.
    #[error("the journal is damaged: {0}")]
    Row(#[from] EntryError),
}

/// The journal's file, open and read.
pub(crate) struct Journal {
    db: Connection,
}

impl Journal {
    /// Finds a file that a newer program wrote, before anything else of its home is opened.
    ///
    /// # Errors
    /// [`JournalError::Version`].
    pub(crate) fn check(path: &Path) -> Result<(), JournalError> {
        Ok(LADDER.check(path)?)
    }

    /// Opens or makes the file, 0600, and reads its entries in order.
    ///
    /// # Errors
    /// [`JournalError`] says what is wrong with the file; nothing is changed then.
    pub(crate) fn open(path: &Path, me: &PeerId) -> Result<(Self, Vec<Entry>), JournalError> {
        let (db, ()) = LADDER.open(path, |_, _| Ok(()))?;
        let entries = {
            let mut query = db.prepare("SELECT body FROM entries ORDER BY number")?;
            let bodies = query.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
            bodies.map(|body| Ok(Entry::decode(&body?, me)?)).collect::<Result<_, JournalError>>()?
        };
        Ok((Self { db }, entries))
    }

    /// Notes that this is the journal of a backup, restored `at` this time: what came after it is not in it.
    ///
    /// # Errors
    /// [`JournalError`] when it can't be written, or is damaged where no row shows it.
    pub(crate) fn mark_restored(&self, at: Timestamp) -> Result<(), JournalError> {
        let verdict: String = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(JournalError::Pages(verdict));
        }
        let sql = "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)";
        self.db.execute(sql, params![RESTORED_SETTING, at.ms().to_string()])?;
        Ok(())
    }

    /// When it was restored from a backup, if it was.
    ///
    /// # Errors
    /// [`JournalError`] when it can't be read.
    pub(crate) fn restored_at(&self) -> Result<Option<Timestamp>, JournalError> {
        let sql = "SELECT value FROM settings WHERE name = ?1";
        let at: Option<String> = self.db.query_row(sql, [RESTORED_SETTING], |row| row.get(0)).optional()?;
        Ok(at.and_then(|at| at.parse().ok()).map(Timestamp::from_ms))
    }

    /// How many files and folders are published.
    ///
    /// # Errors
    /// [`JournalError`] when it can't be read.
    pub(crate) fn goods(&self) -> Result<usize, JournalError> {
        Ok(self.db.query_row("SELECT count(*) FROM goods", [], |row| row.get(0))?)
    }
}

/// A journal that is looked at: whole, as far as SQLite can tell, and never changed.
pub(crate) struct Look {
    db: Connection,
}

impl Look {
    /// Looks at the journal that a running node writes.
    ///
    /// # Errors
    /// [`JournalError`] when the file as a whole can't be read.
    pub(crate) fn at_live(path: &Path) -> Result<Self, JournalError> {
        Self::at(open_to_read(path)?)
    }

    /// Looks at a copy of a journal as the next start would find it: an older version is brought to this one, in the copy.
    ///
    /// # Errors
    /// As [`Look::at_live`].
    pub(crate) fn at_copy(path: &Path) -> Result<Self, JournalError> {
        Self::at(LADDER.open(path, |_, _| Ok(()))?.0)
    }

    fn at(db: Connection) -> Result<Self, JournalError> {
        let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict == "ok" { Ok(Self { db }) } else { Err(JournalError::File(verdict)) }
    }

    /// The rows of the node `me`.
    ///
    /// # Errors
    /// When SQLite can't read them.
    pub(crate) fn entries(&self, me: &PeerId) -> rusqlite::Result<Entries> {
        let mut found = Entries::default();
        let mut query = self.db.prepare("SELECT number, body FROM entries ORDER BY number")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            match Entry::decode(&row.get::<_, Vec<u8>>(1)?, me) {
                Ok(entry) => found.good.push(entry),
                Err(error) => found.damaged.push((row.get(0)?, error)),
            }
        }
        Ok(found)
    }

    /// The file, for what else is in it.
    pub(crate) const fn db(&self) -> &Connection {
        &self.db
    }
}

/// The rows of accounts that a journal has.
#[derive(Default)]
pub(crate) struct Entries {
    /// Those that can be read, in order.
    pub(crate) good: Vec<Entry>,
    /// The numbers of those that can't be, and why.
    pub(crate) damaged: Vec<(i64, EntryError)>,
}

/// A question to the thread.
type Question = Box<dyn FnOnce(&mut Connection) + Send>;

enum Job {
    Flush,
    Ask(Question),
    Stop,
}

/// How far the journal is.
#[derive(Debug, Clone)]
struct Progress {
    stored: u64,
    failures: u64,
    error: Option<Arc<str>>,
}

/// The thread's handle; clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    jobs: SyncSender<Job>,
    progress: watch::Receiver<Progress>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Store {
    /// Starts the thread for this journal and the market that stages for it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(journal: Journal, market: SharedMarket) -> std::io::Result<Self> {
        let (jobs, inbox) = sync_channel(JOBS);
        let (report, progress) = watch::channel(Progress { stored: 0, failures: 0, error: None });
        let writer = Writer { db: journal.db, market, report };
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(&inbox))?;
        Ok(Self { jobs, progress, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Waits until the entries up to `number` are on the disk.
    ///
    /// # Errors
    /// [`StoreError::Write`] when a try to write them failed; they stay staged and are tried again.
    pub(crate) async fn flushed(&self, number: u64) -> Result<(), StoreError> {
        let mut progress = self.progress.clone();
        let failures = progress.borrow().failures;
        if progress.borrow().stored >= number {
            return Ok(());
        }
        self.send(Job::Flush).await?;
        let done = |now: &Progress| now.stored >= number || now.failures > failures;
        let now = progress.wait_for(done).await.map_err(|_| StoreError::Closed)?;
        if now.stored >= number { Ok(()) } else { Err(StoreError::Write(now.error.clone().unwrap_or_default())) }
    }

    /// Why the journal can't be written at this moment.
    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        self.progress.borrow().error.clone()
    }

    /// Runs a question on the thread, in one transaction of its own making.
    ///
    /// # Errors
    /// [`StoreError`] when SQLite refuses or the thread has ended.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Ask(Box::new(move |db| drop(reply.send(question(db)))));
        self.send(job).await?;
        let answered = answer.await.map_err(|_| StoreError::Closed)?;
        answered.map_err(|error| StoreError::Write(error.to_string().into()))
    }

    /// Writes what is staged and ends the thread.
    pub(crate) async fn shutdown(&self) {
        if self.send(Job::Stop).await.is_ok() {
            let thread = self.thread.lock().unwrap_or_else(|dead| dead.into_inner()).take();
            if let Some(thread) = thread {
                // The thread's last act is a commit: at most one sync away.
                let _ = tokio::task::spawn_blocking(|| thread.join()).await;
            }
        }
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.jobs.clone();
        match jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => Err(StoreError::Closed),
            Err(std::sync::mpsc::TrySendError::Full(job)) => {
                let sent = tokio::task::spawn_blocking(move || jobs.send(job)).await;
                sent.map_err(|_| StoreError::Closed)?.map_err(|_| StoreError::Closed)
            }
        }
    }
}

/// Locks the market. A panic while it was held leaves money in an unknown state: the node ends, and starts anew from
/// the journal.
pub(crate) fn lock(market: &Mutex<Market>) -> MutexGuard<'_, Market> {
    market.lock().unwrap_or_else(|_| {
        tracing::error!("the market's state is not to be trusted after a panic: ending the node");
        std::process::exit(1)
    })
}

/// The thread's own side.
struct Writer {
    db: Connection,
    market: SharedMarket,
    report: watch::Sender<Progress>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Job>) {
        loop {
            let mut stop = false;
            match inbox.recv_timeout(RETRY) {
                Ok(Job::Ask(question)) => question(&mut self.db),
                Ok(Job::Flush) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => stop = true,
            }
            self.flush();
            if stop {
                return;
            }
        }
    }

    fn flush(&mut self) {
        let (number, entries) = lock(&self.market).poll_entries();
        if entries.is_empty() {
            self.report.send_if_modified(|progress| {
                let news = progress.stored != number;
                progress.stored = number;
                news
            });
            return;
        }
        match write(&mut self.db, &entries) {
            Ok(()) => {
                lock(&self.market).handle_stored(number);
                if self.report.borrow().error.is_some() {
                    tracing::info!("the journal can be written again");
                }
                self.report.send_modify(|progress| {
                    progress.stored = number;
                    progress.error = None;
                });
            }
            Err(error) => {
                // Once: it is tried every second, and the log may be on the same disk.
                if self.report.borrow().error.is_none() {
                    tracing::error!(%error, "the journal can't be written: nothing is sold until it can");
                }
                self.report.send_modify(|progress| {
                    progress.failures += 1;
                    progress.error = Some(error.to_string().into());
                });
            }
        }
    }
}

fn write(db: &mut Connection, entries: &[Entry]) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    {
        let mut put = tx.prepare_cached(
            "INSERT INTO entries (key, body) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET body = excluded.body",
        )?;
        let mut drop_row = tx.prepare_cached("DELETE FROM entries WHERE key = ?1")?;
        for entry in entries {
            for key in entry.obsoletes() {
                drop_row.execute([key])?;
            }
            put.execute(params![entry.key(), entry.encode()])?;
        }
    }
    tx.commit()
}
