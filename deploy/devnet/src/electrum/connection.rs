//! One client's bytes: lines in, lines out, both bounded.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::session::Session;
use crate::chain::Chain;

/// Bytes of one request line: a standard transaction in hex needs 800,000 at most.
const MAX_LINE: usize = 1024 * 1024;
/// Bytes waiting for the client to read; above it, its requests and news wait too.
const MAX_WAITING: usize = 4 * 1024 * 1024;
/// How long a client may leave its answers unread.
const MAX_STALL: Duration = Duration::from_secs(60);
/// Bytes asked from the socket at once.
const READ_CHUNK: usize = 16 * 1024;

/// Talks to one client until it leaves.
///
/// # Errors
/// The stream failed, a line was too long, or the client stopped reading.
pub(super) async fn run(chain: Chain, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut changes = chain.subscribe();
    let mut session = Session::new(chain);
    let mut input = Lines::default();
    let mut output = BytesMut::new();
    let mut progress = Instant::now();
    loop {
        while output.len() < MAX_WAITING {
            let Some(line) = input.next() else { break };
            session.handle_line(&line, &mut output);
        }
        if input.is_too_long() {
            session.refuse_line(&mut output);
            timeout_at(Instant::now() + MAX_STALL, writer.write_all(&output)).await??;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "request line too long"));
        }
        let room = output.len() < MAX_WAITING;
        if output.is_empty() {
            progress = Instant::now();
        }
        input.bytes.reserve(READ_CHUNK);
        tokio::select! {
            written = writer.write_buf(&mut output), if !output.is_empty() => {
                if written? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                progress = Instant::now();
            }
            read = reader.read_buf(&mut input.bytes), if room => {
                if read? == 0 {
                    timeout_at(progress + MAX_STALL, writer.write_all(&output)).await??;
                    return Ok(());
                }
            }
            Ok(()) = changes.changed(), if room => session.handle_change(&mut output),
            () = sleep_until(progress + MAX_STALL), if !output.is_empty() => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "client does not read its answers"));
            }
        }
    }
}

/// Received bytes that are not yet handled.
#[derive(Default)]
struct Lines {
    bytes: BytesMut,
    /// How many of them are known to hold no newline.
    scanned: usize,
}

impl Lines {
    /// The next whole line, without its newline.
    fn next(&mut self) -> Option<Bytes> {
        let fresh = self.bytes.get(self.scanned..)?;
        let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.bytes.len();
            return None;
        };
        let mut line = self.bytes.split_to(self.scanned + at + 1);
        line.truncate(line.len() - 1);
        self.scanned = 0;
        Some(line.freeze())
    }

    fn is_too_long(&self) -> bool {
        self.scanned > MAX_LINE
    }
}
