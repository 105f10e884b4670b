//! The local interface: a Unix socket in the home, for its owner alone.
//!
//! ```text
//! client ─ {"verb":"publish","path":"/a/film"}\n ─────────────────────────────▶ node      (one request a connection)
//!        ◀─ {"type":"progress",…}\n … {"type":"published",…}\n {"type":"summary",…}\n ─
//! ```
//!
//! The answer is the lines that `--json` prints. The last one is a `summary`, or the `error` that took its place. A client
//! that closes its end before that cancels the verb.
//!
//! **Invariant:** requests, waiting lines and connections are bounded; nobody but the owner of the home can connect,
//! since its folder and the socket are closed to others.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pedlar_protocol::text::is_hidden;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub(crate) use client::{Answer, Answers, NOT_RUNNING, ask};
pub(crate) use server::serve;

use crate::failure::Failure;
use crate::home::HomeLock;
use crate::socket::Listener;

/// The longest request: a link of 4 KiB and paths of the same length fit many times.
const MAX_REQUEST: u64 = 64 << 10;
/// Lines that wait for the client; a verb that has more to say waits until they are read.
const QUEUE: usize = 64;
/// Progress is told at most this often: as often as an eye can tell.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Binds the socket of the home that `lock` holds; a socket left there is of a node that died.
///
/// # Errors
/// What the system says.
pub(crate) fn bind(lock: &HomeLock) -> io::Result<Listener> {
    Listener::bind(&lock.home().socket())
}

/// A value as one line of JSON in which nothing is hidden: whatever its texts hold, no byte of it steers a terminal,
/// reorders what stands beside it, or is invisible. Parsed, they are what they were.
///
/// # Errors
/// When the value is no JSON, which is a mistake in this program.
pub(crate) fn to_line(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    if !json.contains(is_hidden) {
        return Ok(json);
    }
    let mut line = String::with_capacity(json.len());
    for char in json.chars() {
        if is_hidden(char) {
            // Only in strings, where each unit of UTF-16 may stand as four digits (RFC 8259, 7).
            let units = char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            line.push_str(&units);
        } else {
            line.push(char);
        }
    }
    Ok(line)
}

/// A line of an answer, as text without its end.
pub(crate) type LineSender = mpsc::Sender<String>;

/// The last line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Last<S> {
    /// The verb did what it was asked to.
    Summary(S),
    /// It did not.
    Error(Failure),
}

/// The way back to the client for a verb whose lines are `L`.
pub(crate) struct Out<L> {
    lines: LineSender,
    progress: Mutex<Option<Instant>>,
    kind: PhantomData<fn(L)>,
}

impl<L: Serialize> Out<L> {
    /// The way back over `lines`.
    pub(crate) fn new(lines: LineSender) -> Self {
        Self { lines, progress: Mutex::new(None), kind: PhantomData }
    }

    /// Sends a line; waits while the client is behind.
    ///
    /// # Errors
    /// When the line is no JSON, which is a mistake in this program.
    pub(crate) async fn line(&self, line: L) -> Result<(), Failure> {
        let text = to_line(&line).map_err(Failure::system)?;
        // A client that has gone cancels the verb by itself.
        let _ = self.lines.send(text).await;
        Ok(())
    }

    /// Sends a line from where nothing can wait; it is left out when the client is a whole queue behind.
    pub(crate) fn now(&self, line: L) {
        if let Ok(text) = to_line(&line) {
            let _ = self.lines.try_send(text);
        }
    }

    /// Sends a line that may be left out when others came just before; tells blocking work to stop once nobody listens.
    pub(crate) fn progress(&self, line: impl FnOnce() -> L) -> ControlFlow<()> {
        let mut last = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY) {
            *last = Some(Instant::now());
            self.now(line());
        }
        if self.lines.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
