//! Nodes to test with, and waiting for what they do.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use pedlar_net::{Limits, Multiaddr, NetConfig, NetEvents, NetHandle, PeerId, SpawnError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{sleep, timeout},
};

/// No wait of a test is longer; generous, for machines under load.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(crate) const ECHO: &str = "echo";

pub(crate) struct Node {
    pub(crate) net: NetHandle,
    pub(crate) events: NetEvents,
}

/// Defaults for a test: one TCP listener, serving lookups, speaking `echo`.
pub(crate) fn config() -> NetConfig {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&SEED.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    NetConfig {
        secret: secret.into(),
        network: "regtest-test".to_owned(),
        protocols: vec![ECHO, "other"],
        topic: "offers",
        listen: vec![TCP.parse().unwrap()],
        bootstrap: vec![],
        remembered: vec![],
        external: vec![],
        kad_server: true,
        tls: true,
        agent: "test".to_owned(),
        limits: Limits::default(),
    }
}

pub(crate) async fn try_node(change: impl FnOnce(&mut NetConfig)) -> Result<Node, SpawnError> {
    let mut config = config();
    change(&mut config);
    let (net, events) = pedlar_net::spawn(config).await?;
    Ok(Node { net, events })
}

pub(crate) async fn node(change: impl FnOnce(&mut NetConfig)) -> Node {
    try_node(change).await.unwrap()
}

impl Node {
    pub(crate) fn peer(&self) -> PeerId {
        self.net.peer_id()
    }

    pub(crate) fn addrs(&self) -> Vec<Multiaddr> {
        self.net.listen_addrs()
    }

    /// Its addresses with its id, as another's bootstrap.
    pub(crate) fn links(&self) -> Vec<Multiaddr> {
        self.addrs().into_iter().map(|addr| addr.with_p2p(self.peer()).unwrap()).collect()
    }

    pub(crate) async fn is_connected_to(&self, peer: PeerId) -> bool {
        self.net.peers().await.iter().any(|info| info.peer == peer && !info.agent.is_empty())
    }

    /// Echoes every stream from now on; returns its id and addresses and a handle that keeps it alive.
    pub(crate) fn echo(self) -> (PeerId, Vec<Multiaddr>, NetHandle) {
        let Self { net, mut events } = self;
        let (peer, addrs) = (net.peer_id(), net.listen_addrs());
        tokio::spawn(async move {
            while let Some(inbound) = events.streams.recv().await {
                tokio::spawn(async move {
                    let (reader, mut writer) = tokio::io::split(inbound.stream);
                    let mut reader = tokio::io::BufReader::with_capacity(256 * 1024, reader);
                    if tokio::io::copy_buf(&mut reader, &mut writer).await.is_ok() {
                        let _ = writer.shutdown().await;
                    }
                });
            }
        });
        (peer, addrs, net)
    }
}

/// Sends `len` bytes through an echo and checks what comes back.
pub(crate) async fn assert_echo(stream: pedlar_net::Stream, len: u64) {
    let traffic = stream.traffic();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sender = tokio::spawn(async move {
        let mut left = len;
        let block: Vec<u8> = (0..256 * 1024_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        while left > 0 {
            let part = left.min(block.len() as u64);
            writer.write_all(&block[..usize::try_from(part).unwrap()]).await.unwrap();
            left -= part;
        }
        writer.shutdown().await.unwrap();
        writer
    });
    let expected: Vec<u8> = (0..256 * 1024_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let (mut got, mut buffer) = (0_u64, vec![0; 256 * 1024]);
    loop {
        let read = within(reader.read(&mut buffer)).await.unwrap();
        if read == 0 {
            break;
        }
        let at = usize::try_from(got % expected.len() as u64).unwrap();
        let first = read.min(expected.len() - at);
        assert_eq!(buffer[..first], expected[at..at + first]);
        assert_eq!(buffer[first..read], expected[..read - first]);
        got += read as u64;
    }
    assert_eq!(got, len);
    drop(sender.await.unwrap());
    assert_eq!((traffic.read(), traffic.written()), (len, len));
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("deadline")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waited = timeout(DEADLINE, async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

pub(crate) async fn next<T>(queue: &mut mpsc::Receiver<T>) -> T {
    within(queue.recv()).await.expect("the queue is open")
}
