//! An Electrum 1.4 server over a [`Chain`], for wallets that would otherwise use a public one.
//!
//! Layout: this file owns the sockets, `connection` moves bytes within bounds, `rpc` is JSON-RPC, `session` is what one
//! client subscribed to, `methods` are the answers, `merkle` the proofs.
//!
//! **Invariant:** no input makes it panic or grow without bound: lines, batches, replies, subscriptions, connections
//! and bytes waiting to be written all have a limit.

mod connection;
mod merkle;
mod methods;
mod rpc;
mod session;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::chain::Chain;

pub use session::Session;

/// Clients at once: each node of a large devnet holds one or two, and each costs at most a few MiB.
const MAX_CONNECTIONS: usize = 256;
/// Pause after a failed accept (out of file descriptors, for one), so that it does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A running server; it ends when this is dropped.
pub struct ElectrumServer {
    local_addr: SocketAddr,
    /// Whether clients are served; the task ends when the sender is gone.
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl ElectrumServer {
    /// Listens on `addr` (port 0 lets the system choose) and serves the chain in the background.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn spawn(chain: Chain, addr: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let (open, opened) = watch::channel(true);
        let task = tokio::spawn(accept(listener, chain, opened));
        Ok(Self { local_addr, open, task })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What a wallet's configuration calls it: `tcp://host:port`.
    pub fn url(&self) -> String {
        format!("tcp://{}", self.local_addr)
    }

    /// Starts an outage: drops every client, and closes new connections without a word.
    ///
    /// The port stays bound, so that nobody else gets it before [`ElectrumServer::resume`].
    pub fn pause(&self) {
        self.open.send_replace(false);
    }

    /// Ends the outage.
    pub fn resume(&self) {
        self.open.send_replace(true);
    }

    /// Ends the server and waits until its port is free.
    pub async fn shutdown(self) {
        let Self { open, task, .. } = self;
        drop(open);
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

async fn accept(listener: TcpListener, chain: Chain, mut open: watch::Receiver<bool>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            changed = open.changed() => {
                if changed.is_err() {
                    return; // Dropping the set ends the clients.
                }
                if !*open.borrow_and_update() {
                    clients.shutdown().await;
                }
            }
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if *open.borrow() && clients.len() < MAX_CONNECTIONS => {
                    let chain = chain.clone();
                    clients.spawn(async move {
                        // Answers are small and awaited one by one: Nagle's algorithm would cost 40 ms each.
                        let served = match stream.set_nodelay(true) {
                            Ok(()) => serve(chain, stream).await,
                            Err(error) => Err(error),
                        };
                        if let Err(error) = served {
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
