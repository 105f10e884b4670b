//! Programs of others that do what we do, or a part of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pedlar_tests::cluster::path;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::measure::{Process, Run, quiet_disk};

/// Debian's python, for which `python3-libtorrent` is built.
const PYTHON: &str = "/usr/bin/python3";

/// One seed or one leecher; it says what it did in lines.
const TORRENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/transfer/torrent.py");

/// The program that an environment variable names, or that is in the PATH.
pub(crate) async fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let named = PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| name.into()));
    let mut command = Command::new(&named);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success()).then_some(named)
}

/// Whether libtorrent can be used.
pub(crate) async fn has_libtorrent() -> bool {
    let mut command = Command::new(PYTHON);
    command.args(["-c", "import libtorrent"]).stdin(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// `sendme`, with a file to give.
pub(crate) struct Sendme {
    program: PathBuf,
    child: Child,
    ticket: String,
    folder: PathBuf,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Sendme {
    /// Imports the file, and waits for the ticket. Only loopback is used: no relay, addresses in the ticket.
    pub(crate) async fn start(program: PathBuf, file: &Path, folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut command = Command::new(&program);
        command.args(["send", path(file), "--relay", "disabled", "--ticket-type", "addresses"]);
        command.args(["--magic-ipv4-addr", "127.0.0.1:0"]).current_dir(&folder).stdin(Stdio::piped());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("sendme");
        let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
        loop {
            let line = output.next_line().await.expect("its output").expect("sendme prints a ticket");
            if let Some(ticket) = line.trim().strip_prefix("sendme receive ") {
                return Self { program, child, ticket: ticket.to_owned(), folder, _output: output };
            }
        }
    }

    /// Receives the file once, in a process of its own.
    pub(crate) async fn receive(&self, name: &str, len: u64) -> Run {
        quiet_disk().await;
        let sender = Process(self.child.id().expect("it runs"));
        let mut command = Command::new(&self.program);
        command.args(["receive", &self.ticket, "--relay", "disabled"]).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let before_s = Process::ended_children_cpu_s();
        let (mut run, status) = Run::of(len, &[sender], command.status()).await;
        run.cpu_s += Process::ended_children_cpu_s() - before_s;
        assert!(status.is_ok_and(|status| status.success()), "sendme receives");
        crate::market::remove(&self.folder.join(name), len);
        run
    }
}

/// A libtorrent seed.
pub(crate) struct Seed {
    child: Child,
    torrent: PathBuf,
    port: String,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Seed {
    /// Hashes the file and seeds it on loopback.
    pub(crate) async fn start(file: &Path, torrent: PathBuf) -> Self {
        let mut command = Command::new(PYTHON);
        command.args([TORRENT, "seed", path(file), path(&torrent)]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("python");
        let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
        let port = output.next_line().await.expect("its output").expect("the seed says its port");
        Self { child, torrent, port, _output: output }
    }

    /// Downloads the file once into `folder`; the time is the leecher's own, without the start of python.
    pub(crate) async fn leech(&self, folder: &Path, name: &str, len: u64) -> Run {
        quiet_disk().await;
        std::fs::create_dir_all(folder).expect("a folder");
        let mut command = Command::new(PYTHON);
        command.args([TORRENT, "leech", path(&self.torrent), path(folder), &self.port]).stdin(Stdio::null());
        let seed = Process(self.child.id().expect("it runs"));
        let before_s = seed.cpu_s();
        let output = command.output().await.expect("python");
        assert!(output.status.success(), "libtorrent downloads: {}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).expect("figures");
        let mut figures = said.split_whitespace().map(|figure| figure.parse::<f64>().expect("a figure"));
        let (took_s, cpu_s) = (figures.next().expect("seconds"), figures.next().expect("CPU seconds"));
        crate::market::remove(&folder.join(name), len);
        Run { bytes: len, took: Duration::from_secs_f64(took_s), cpu_s: cpu_s + seed.cpu_s() - before_s }
    }
}
