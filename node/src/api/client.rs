//! The other end: asks the node of a home and reads its answer.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::Last;
use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::socket;

/// The code of the failure that says that no node runs in a home.
pub(crate) const NOT_RUNNING: &str = "not_running";

/// The lines of an answer; dropping it before the last one cancels the verb.
pub(crate) struct Answers {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _open: OwnedWriteHalf,
}

/// A line of an answer.
pub(crate) enum Answer<L, S> {
    /// One of any number.
    Line(L),
    /// The last.
    Summary(S),
}

/// Sends `request` to the node that runs in `home`.
///
/// # Errors
/// [`Exit::NotRunning`] where none does.
pub(crate) async fn ask(home: &Home, request: &impl Serialize) -> Result<Answers, Failure> {
    let stream = socket::connect(&home.socket()).await.map_err(|e| not_running(home, &e))?;
    let mut text = serde_json::to_string(request).map_err(|e| Failure::usage("unsayable", e))?;
    text.push('\n');
    let (read, mut write) = stream.into_split();
    write.write_all(text.as_bytes()).await.map_err(|_| Failure::unanswered())?;
    Ok(Answers { lines: BufReader::new(read).lines(), _open: write })
}

impl Answers {
    /// The next line as text.
    ///
    /// # Errors
    /// [`Exit::NotRunning`] when the node ends before its answer.
    pub(crate) async fn next(&mut self) -> Result<String, Failure> {
        self.lines.next_line().await.ok().flatten().ok_or_else(Failure::unanswered)
    }
}

impl<L: DeserializeOwned, S: DeserializeOwned> Answer<L, S> {
    /// Reads a line.
    ///
    /// # Errors
    /// The failure that the line tells of, or that it can't be read.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        #[derive(serde::Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }
        let foreign =
            |e| Failure::system(format!("the node's answer can't be read: {e}")).hint("is it another version?");
        let Kind { kind } = serde_json::from_str(text).map_err(foreign)?;
        if kind != "summary" && kind != "error" {
            return serde_json::from_str(text).map(Self::Line).map_err(foreign);
        }
        match serde_json::from_str(text).map_err(foreign)? {
            Last::Summary(summary) => Ok(Self::Summary(summary)),
            Last::Error(failure) => Err(failure),
        }
    }
}

fn not_running(home: &Home, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            let hint = if home.is_initialized() { "start it: pedlar up" } else { "make it first: pedlar init" };
            Failure::new(Exit::NotRunning, NOT_RUNNING, format!("no node runs in {home}")).hint(hint)
        }
        _ => Failure::system(format!("the node's socket can't be used: {error}")),
    }
}
