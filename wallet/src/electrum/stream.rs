//! The stream under the Electrum client, which bounds what a server can make us read and how long it can take.
//!
//! electrum-client reads lines without a limit and has timeouts per read only, so a server could send one endless line
//! or one byte a second for ever. [`TimedSocket`] sits at the bottom (also below TLS, where dripped records would hide
//! from anything above) and holds the deadlines; [`LineLimit`] sits on top and watches the plain text.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest line read: the largest transaction (4 MB) in hex with its JSON round it.
pub(super) const MAX_LINE: usize = 8 << 20;
/// The most bytes read in one job: several of the longest lines, and far above what any job here needs.
pub(super) const MAX_JOB_BYTES: usize = 64 << 20;
/// The longest a server may take for one call, from the request's last byte to the reply's.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a whole job may take: a scan of many transactions over a slow line, one call after the other.
pub(super) const JOB_TIMEOUT: Duration = Duration::from_secs(60);

/// The limits of the job under way, shared by the stream and the one who starts jobs and may end them.
#[derive(Clone)]
pub(super) struct Budget(Arc<Mutex<Limits>>);

struct Limits {
    call_until: Instant,
    job_until: Instant,
    bytes_left: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(Limits { call_until: now, job_until: now, bytes_left: 0 })))
    }

    /// Starts a job: it has [`JOB_TIMEOUT`] and [`MAX_JOB_BYTES`].
    pub(super) fn start_job(&self) {
        let now = Instant::now();
        *self.limits() =
            Limits { call_until: now + CALL_TIMEOUT, job_until: now + JOB_TIMEOUT, bytes_left: MAX_JOB_BYTES };
    }

    fn start_call(&self) {
        let mut limits = self.limits();
        limits.call_until = limits.job_until.min(Instant::now() + CALL_TIMEOUT);
    }

    fn time_left(&self) -> io::Result<Duration> {
        let left = self.limits().call_until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let mut limits = self.limits();
        limits.bytes_left = limits.bytes_left.checked_sub(bytes).ok_or(ErrorKind::InvalidData)?;
        Ok(())
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        // The value is whole after every statement: a panic elsewhere can't have left it half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A TCP socket that obeys a [`Budget`]; a read past the deadline fails with `TimedOut`.
pub(super) struct TimedSocket {
    socket: TcpStream,
    budget: Budget,
}

impl TimedSocket {
    pub(super) fn new(socket: TcpStream, budget: Budget) -> Self {
        Self { socket, budget }
    }
}

impl Drop for TimedSocket {
    fn drop(&mut self) {
        // A clone is kept to interrupt reads from another thread: closing must not wait for it to go too.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Read for TimedSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.budget.time_left()?))?;
        let read = self.socket.read(buf).map_err(timed_out)?;
        self.budget.spend(read)?;
        Ok(read)
    }
}

impl Write for TimedSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.budget.time_left()?))?;
        self.socket.write(buf).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Unix reports an expired socket timeout as `WouldBlock`.
fn timed_out(e: io::Error) -> io::Error {
    if e.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { e }
}

/// A stream whose incoming lines are at most [`MAX_LINE`] long and each a JSON object; the first line that isn't fails
/// the read with `InvalidData`. A flush (the client's last act of a request) starts the time of the next call.
pub(super) struct LineLimit<S> {
    inner: S,
    budget: Budget,
    line: usize,
}

impl<S> LineLimit<S> {
    pub(super) fn new(inner: S, budget: Budget) -> Self {
        Self { inner, budget, line: 0 }
    }
}

impl<S: Read> Read for LineLimit<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        for part in buf.get(..read).unwrap_or_default().split_inclusive(|&b| b == b'\n') {
            // electrum-client panics on a line that is JSON but no object.
            if self.line == 0 && part.first() != Some(&b'{') {
                return Err(ErrorKind::InvalidData.into());
            }
            self.line += part.len();
            if self.line > MAX_LINE {
                return Err(ErrorKind::InvalidData.into());
            }
            if part.last() == Some(&b'\n') {
                self.line = 0;
            }
        }
        Ok(read)
    }
}

impl<S: Write> Write for LineLimit<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()?;
        self.budget.start_call();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn read_line_of(bytes: &[u8]) -> io::Result<String> {
        let mut line = String::new();
        io::BufReader::new(LineLimit::new(bytes, Budget::new())).read_line(&mut line).map(|_| line)
    }

    #[test]
    fn a_line_may_be_long_but_not_endless() {
        let mut line = vec![b' '; MAX_LINE];
        line[0] = b'{';
        line[MAX_LINE - 1] = b'\n';
        assert_eq!(read_line_of(&line).unwrap().len(), MAX_LINE);
        line[MAX_LINE - 1] = b' ';
        line.push(b'\n');
        assert_eq!(read_line_of(&line).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_that_is_no_object_is_refused() {
        for line in ["[1]\n", "\n", "HTTP/1.1 400 Bad Request\n"] {
            assert_eq!(read_line_of(line.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_dripping_server_runs_out_of_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let drip = thread::spawn(move || {
            while server.write_all(b"{").is_ok() {
                thread::sleep(Duration::from_millis(20))
            }
        });
        let budget = Budget::new();
        budget.start_job();
        budget.limits().call_until = Instant::now() + Duration::from_millis(300);
        let mut reader = io::BufReader::new(LineLimit::new(TimedSocket::new(socket, budget.clone()), budget));
        let started = Instant::now();
        let error = reader.read_line(&mut String::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(3), "took {:?}", started.elapsed());
        drop(reader);
        drip.join().unwrap();
    }

    #[test]
    fn a_flood_runs_out_of_bytes() {
        let budget = Budget::new();
        budget.start_job();
        budget.spend(MAX_JOB_BYTES).unwrap();
        assert_eq!(budget.spend(1).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
