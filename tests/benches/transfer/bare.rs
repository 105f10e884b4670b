//! The bare copy: two processes, each with the product's swarm and runtime, one reads the file and the other writes the
//! same bytes. No hash, no frame, no account; the file is synced once, at its end.
//!
//! Each side reads or writes a piece while the one before is on its way, on a thread of its own, as the product does.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use pedlar_net::{InboundStream, Limits, Multiaddr, NetConfig, NetEvents, NetHandle, PeerId, Stream};
use pedlar_tests::cluster::path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::measure::{Process, Run, quiet_disk};

/// The first argument of a process that is one side of a copy.
pub(crate) const ROLE: &str = "bare";

/// What secures a TCP connection: a source that does not know TLS leaves Noise to those that know both.
pub(crate) const TLS: &str = "tls";
pub(crate) const NOISE: &str = "noise";

/// The stream protocol of a copy.
const PROTOCOL: &str = "copy";

/// Bytes of one read and one write: as much as a frame of the product.
const PIECE: usize = 256 << 10;

/// Pieces between a stream and its thread.
const AHEAD: usize = 8;

/// A process that gives a file to whoever asks.
pub(crate) struct Source {
    child: Child,
    addr: String,
}

impl Source {
    /// Starts it, listening on `listen`; over TCP it knows TLS or Noise, whichever this says.
    pub(crate) async fn start(file: &Path, listen: &str, security: &str) -> Self {
        let mut child = this_program(&["serve", path(file), listen, security]);
        let stdout = child.stdout.take().expect("its output");
        let addr = BufReader::new(stdout).lines().next_line().await.expect("its output").expect("its address");
        Self { child, addr }
    }

    /// Copies the file to `dest` in a process of its own, which says how long it took without its start.
    pub(crate) async fn copy_to(&self, dest: &Path, len: u64) -> Run {
        quiet_disk().await;
        let source = Process(self.child.id().expect("it runs"));
        let before_s = source.cpu_s();
        let copy = this_program(&["fetch", &self.addr, path(dest)]).wait_with_output().await.expect("its output");
        let said = String::from_utf8(copy.stdout).expect("figures");
        let mut figures = said.split_whitespace().map(|figure| figure.parse::<f64>().expect("a figure"));
        let (took_s, sink_s) = (figures.next().expect("seconds"), figures.next().expect("CPU seconds"));
        crate::market::remove(dest, len);
        let took = std::time::Duration::from_secs_f64(took_s);
        Run { bytes: len, took, cpu_s: source.cpu_s() - before_s + sink_s }
    }
}

fn this_program(args: &[&str]) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(ROLE).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("this program starts again")
}

/// One side of a copy: `serve FILE LISTEN SECURITY` or `fetch ADDR DEST`.
pub(crate) async fn run(args: impl Iterator<Item = String>) {
    let args: Vec<String> = args.collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", file, listen, security] => serve(file, listen, *security == TLS).await,
        ["fetch", addr, dest] => fetch(addr, dest).await,
        other => panic!("no role: {other:?}"),
    }
}

async fn serve(file: &str, listen: &str, tls: bool) {
    let (net, mut events) = swarm(vec![listen.parse().expect("an address")], tls).await;
    let addr = net.listen_addrs().first().cloned().expect("it listens");
    println!("{addr}/p2p/{}", net.peer_id());
    while let Some(InboundStream { stream, .. }) = events.streams.recv().await {
        give(stream, File::open(file).expect("the file")).await;
    }
}

async fn give(mut stream: Stream, mut file: File) {
    let (pieces, mut read) = mpsc::channel::<Vec<u8>>(1);
    let reader = std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let len = file.read(&mut piece).expect("the file can be read");
            piece.truncate(len);
            if len == 0 || pieces.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    while let Some(piece) = read.recv().await {
        stream.write_all(&piece).await.expect("the other side listens");
    }
    stream.shutdown().await.expect("the other side listens");
    reader.join().expect("the reader ends");
}

async fn fetch(addr: &str, dest: &str) {
    let (net, _events) = swarm(Vec::new(), true).await;
    let addr: Multiaddr = addr.parse().expect("an address");
    let peer: PeerId = addr.to_string().rsplit('/').next().expect("an id").parse().expect("an id");
    let me = Process(std::process::id());
    net.dial(peer, vec![addr.clone()]).await.expect("the source can be dialled");
    let (begun, before_s) = (Instant::now(), me.cpu_s());
    let mut stream = net.open(peer, vec![addr], PROTOCOL).await.expect("a stream");
    let (pieces, mut came) = mpsc::channel::<Vec<u8>>(AHEAD);
    let mut file = File::create_new(dest).expect("a file");
    let writer = std::thread::spawn(move || {
        while let Some(piece) = came.blocking_recv() {
            file.write_all(&piece).expect("the disk has room");
        }
        file.sync_all().expect("the disk works");
    });
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE && stream.read_buf(&mut piece).await.expect("the source gives") > 0 {}
        if piece.is_empty() {
            break;
        }
        pieces.send(piece).await.expect("the writer lives");
    }
    drop(pieces);
    writer.join().expect("the writer ends");
    println!("{} {}", begun.elapsed().as_secs_f64(), me.cpu_s() - before_s);
}

async fn swarm(listen: Vec<Multiaddr>, tls: bool) -> (NetHandle, NetEvents) {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).expect("randomness");
    let config = NetConfig {
        secret: secret.into(),
        network: "bench".to_owned(),
        protocols: vec![PROTOCOL],
        topic: "offers",
        listen,
        bootstrap: Vec::new(),
        remembered: Vec::new(),
        external: Vec::new(),
        kad_server: true,
        tls,
        agent: "bench".to_owned(),
        limits: Limits::default(),
    };
    pedlar_net::spawn(config).await.expect("a swarm")
}
