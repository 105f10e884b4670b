//! An Electrum 1.4 server over a [`Chain`], for wallets that would otherwise use a public one.
//!
//! Layout: this file owns the sockets, `connection` moves bytes within bounds, `rpc` is JSON-RPC, `session` is what one
//! client subscribed to, `methods` are the answers, `merkle` the proofs, `tls` the certificate where there is one.
//!
//! **Invariant:** no input makes it panic or grow without bound: lines, batches, replies, subscriptions, connections
//! and bytes waiting to be written all have a limit.

mod connection;
mod merkle;
mod methods;
mod rpc;
mod session;
mod tls;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use crate::chain::Chain;
pub use tls::Certificate;

pub use session::Session;

/// Clients at once: each node of a large devnet holds one or two, and each costs at most a few MiB.
const MAX_CONNECTIONS: usize = 256;
/// Pause after a failed accept (out of file descriptors, for one), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The longest that a client may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A running server; it ends when this is dropped.
pub struct ElectrumServer {
    local_addr: SocketAddr,
    /// How clients are met; the task ends when the sender is gone.
    door: watch::Sender<Door>,
    task: JoinHandle<()>,
}

/// How clients are met.
#[derive(Clone)]
struct Door {
    is_open: bool,
    /// Shown to them, where they speak TLS.
    certificate: Option<Certificate>,
}

impl ElectrumServer {
    /// Listens on `addr` (port 0 lets the system choose) and serves the chain in the background.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn spawn(chain: Chain, addr: impl ToSocketAddrs) -> io::Result<Self> {
        Self::spawn_with(chain, addr, None).await
    }

    /// The same over TLS.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn spawn_tls(chain: Chain, addr: impl ToSocketAddrs, certificate: &Certificate) -> io::Result<Self> {
        Self::spawn_with(chain, addr, Some(certificate.clone())).await
    }

    async fn spawn_with(chain: Chain, addr: impl ToSocketAddrs, certificate: Option<Certificate>) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let (door, met) = watch::channel(Door { is_open: true, certificate });
        let task = tokio::spawn(accept(listener, chain, met));
        Ok(Self { local_addr, door, task })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What a wallet's configuration calls it: `tcp://host:port`, or `ssl://host:port`.
    pub fn url(&self) -> String {
        let scheme = if self.door.borrow().certificate.is_some() { "ssl" } else { "tcp" };
        format!("{scheme}://{}", self.local_addr)
    }

    /// Drops every client, and from now on shows this certificate.
    pub fn show(&self, certificate: &Certificate) {
        self.door.send_modify(|door| door.certificate = Some(certificate.clone()));
    }

    /// Starts an outage: drops every client, and closes new connections without a word.
    ///
    /// The port stays bound, so that nobody else gets it before [`ElectrumServer::resume`].
    pub fn pause(&self) {
        self.door.send_modify(|door| door.is_open = false);
    }

    /// Ends the outage.
    pub fn resume(&self) {
        self.door.send_modify(|door| door.is_open = true);
    }

    /// Ends the server and waits until its port is free.
    pub async fn shutdown(self) {
        let Self { door, task, .. } = self;
        drop(door);
        // It fails only if the runtime is going down, which ends the task as well.
        let _ = task.await;
    }
}

/// Serves one client on any stream until it leaves, so that a test can put TLS or faults in between.
///
/// # Errors
/// The stream failed, or the client stopped reading.
pub async fn serve(chain: Chain, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    connection::run(chain, stream).await
}

async fn accept(listener: TcpListener, chain: Chain, mut door: watch::Receiver<Door>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            changed = door.changed() => {
                if changed.is_err() {
                    return; // Dropping the set ends the clients.
                }
                // Whoever is here was met another way.
                clients.shutdown().await;
            }
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if door.borrow().is_open && clients.len() < MAX_CONNECTIONS => {
                    let (chain, certificate) = (chain.clone(), door.borrow().certificate.clone());
                    clients.spawn(async move {
                        if let Err(error) = meet(chain, stream, certificate).await {
                            tracing::debug!(%error, "electrum client lost");
                        }
                    });
                }
                Ok((refused, _)) => drop(refused),
                Err(error) => {
                    tracing::warn!(%error, "electrum server cannot accept");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
}

/// Serves a client that has just come, over TLS where there is a certificate.
async fn meet(chain: Chain, stream: TcpStream, certificate: Option<Certificate>) -> io::Result<()> {
    // Answers are small and awaited one by one: Nagle's algorithm would cost 40 ms each.
    stream.set_nodelay(true)?;
    match certificate {
        None => serve(chain, stream).await,
        Some(Certificate { acceptor, .. }) => {
            let stream = timeout(HANDSHAKE, acceptor.accept(stream.compat())).await??;
            serve(chain, stream.compat()).await
        }
    }
}
