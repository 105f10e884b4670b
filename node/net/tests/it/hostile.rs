//! Raw sockets that send garbage, half handshakes, or nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use pedlar_net::{Limits, Multiaddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::cluster::{ECHO, assert_echo, node, within};

const MIB: u64 = 1024 * 1024;
/// A handshake must be done in this time, here.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// What opens a libp2p TCP connection: the negotiation, then TLS.
const HELLO: &[u8] = b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n";

fn socket_addr(addr: &Multiaddr) -> SocketAddr {
    let parts: Vec<&str> = addr.to_string().leak().split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}

/// Bytes without order, the same each run.
fn garbage(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// Sends `bytes` and returns how long the node keeps the connection.
async fn attack(addr: SocketAddr, bytes: Vec<u8>) -> Duration {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let start = Instant::now();
    let _ = socket.write_all(&bytes).await;
    let mut answer = Vec::new();
    let _ = within(socket.read_to_end(&mut answer)).await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn attackers_are_cut_and_honest_bytes_still_flow() {
    let limits = Limits { handshake: HANDSHAKE, ..Limits::default() };
    let (peer, addrs, _net) = node(|config| config.limits = limits).await.echo();
    let target = socket_addr(&addrs[0]);
    let buyer = node(|_| {}).await;
    let honest = buyer.net.open(peer, addrs.clone(), ECHO).await.unwrap();
    let honest = tokio::spawn(assert_echo(honest, 32 * MIB));
    let attacks = (0..40_u64).map(|n| {
        let bytes = match n % 4 {
            0 => garbage(n, 10_000),
            1 => [HELLO, &garbage(n, 5_000)].concat(),
            2 => HELLO.get(..(n as usize % HELLO.len())).unwrap_or(HELLO).to_vec(),
            _ => Vec::new(),
        };
        tokio::spawn(attack(target, bytes))
    });
    for attack in attacks.collect::<Vec<_>>() {
        let kept = attack.await.unwrap();
        assert!(kept < Duration::from_secs(30), "kept for {kept:?}");
    }
    within(honest).await.unwrap();
    let again = buyer.net.open(peer, addrs, ECHO).await.unwrap();
    assert_echo(again, MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_sockets_beyond_the_pending_limit_do_not_lock_others_out_for_long() {
    let limits = Limits { handshake: HANDSHAKE, pending_connections: 8, ..Limits::default() };
    let (peer, addrs, _net) = node(|config| config.limits = limits).await.echo();
    let target = socket_addr(&addrs[0]);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(target).await.unwrap());
    }
    let buyer = node(|_| {}).await;
    crate::cluster::eventually("an honest peer gets in", || async {
        match buyer.net.open(peer, addrs.clone(), ECHO).await {
            Ok(stream) => {
                assert_echo(stream, 1000).await;
                true
            }
            Err(_) => false,
        }
    })
    .await;
    for mut socket in silent {
        let _ = within(socket.read_to_end(&mut Vec::new())).await;
    }
}
