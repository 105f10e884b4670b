//! The node's end: reads a request, runs the verb, carries its lines back.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pedlar_protocol::text::escape;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Last, LineSender, MAX_REQUEST, QUEUE, to_line};
use crate::failure::Failure;
use crate::socket::Listener;

/// Verbs at a time, each with a thread's worth of work at most; later clients wait in the system's queue.
const MAX_CLIENTS: usize = 64;
/// Time for a request to arrive, and for the client to close its end after the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for verbs to say how they ended once the node stops.
const GRACE: Duration = Duration::from_secs(1);
/// After a failure to accept, such as too many open files: trying at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests with what `run` makes of them until `stop`; a verb that has not ended soon after is cut off, and its
/// client sees the connection close.
///
/// `run` sends the lines of its answer, the summary included, and returns the failure that takes the summary's place.
pub(crate) async fn serve<R, F, Fut>(listener: Listener, stop: CancellationToken, run: F)
where
    R: DeserializeOwned + Send + 'static,
    F: Fn(R, LineSender) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let clients = TaskTracker::new();
    let cut_off = CancellationToken::new();
    let accept = async {
        // Never closed, so there is always a place to wait for.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(e) => {
                    tracing::warn!("the local socket accepts nobody: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (cut_off, run) = (cut_off.clone(), run.clone());
            clients.spawn(async move {
                // A client that fails is its own affair: it sees the connection close.
                let _ = cut_off.run_until_cancelled(converse(stream, run)).await;
                drop(place);
            });
        }
    };
    stop.run_until_cancelled(accept).await;
    clients.close();
    if timeout(GRACE, clients.wait()).await.is_err() {
        cut_off.cancel();
        clients.wait().await;
    }
}

async fn converse<R, F, Fut>(stream: UnixStream, run: F) -> io::Result<()>
where
    R: DeserializeOwned,
    F: Fn(R, LineSender) -> Fut,
    Fut: Future<Output = Result<(), Failure>>,
{
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let outcome = match timeout(PATIENCE, read_request(&mut read)).await.map_err(io::Error::from)?? {
        Ok(request) => {
            let (lines, queue) = mpsc::channel(QUEUE);
            let work = async { tokio::join!(run(request, lines), carry(queue, &mut write)) };
            tokio::select! {
                (outcome, carried) = work => carried.map(|()| outcome)?,
                () = gone(&mut read) => return Ok(()),
            }
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = outcome {
        let last = to_line(&Last::<()>::Error(failure))?;
        write_line(&mut write, last).await?;
    }
    write.shutdown().await?;
    // Closing with something unread would take the answer away from a client that is still writing.
    let _ = timeout(PATIENCE, gone(&mut read)).await;
    Ok(())
}

/// Reads one line of JSON.
async fn read_request<R: DeserializeOwned>(
    read: &mut (impl AsyncBufReadExt + Unpin),
) -> io::Result<Result<R, Failure>> {
    let mut line = Vec::new();
    read.take(MAX_REQUEST + 1).read_until(b'\n', &mut line).await?;
    if line.len() as u64 > MAX_REQUEST {
        return Ok(Err(Failure::usage("request_too_long", format!("a request has at most {MAX_REQUEST} bytes"))));
    }
    // What the parser says repeats what it was given.
    let malformed = |e: serde_json::Error| format!("the request: {}", escape(&e.to_string()));
    Ok(serde_json::from_slice(&line).map_err(|e| Failure::usage("malformed_request", malformed(e))))
}

async fn carry(mut queue: mpsc::Receiver<String>, write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    while let Some(line) = queue.recv().await {
        write_line(write, line).await?;
    }
    Ok(())
}

async fn write_line(write: &mut (impl AsyncWrite + Unpin), mut line: String) -> io::Result<()> {
    line.push('\n');
    write.write_all(line.as_bytes()).await
}

/// Waits until the client has closed its end; what it says after its request is not read by anyone.
async fn gone(read: &mut (impl AsyncRead + Unpin)) {
    let _ = tokio::io::copy(read, &mut tokio::io::sink()).await;
}
