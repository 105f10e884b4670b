//! Steering a running market from another terminal: one JSON request and one answer over a socket in its folder.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bitcoin::{Address, Amount, Network};
use pedlar_node::socket::{self, Listener};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::chain::Chain;

/// The socket's name in the folder of the market.
const SOCKET: &str = "devnet.sock";

/// What is said where there is no chain of our own.
const NOT_OURS: &str = "this market's chain is that of its Electrum server (--electrum), which is not ours to steer";

/// The longest request: an address and a number.
const MAX_REQUEST: u64 = 1024;

/// How long a request may take to arrive, and an answer to come.
const DEADLINE: Duration = Duration::from_secs(10);

/// What can be asked of the chain.
#[derive(Debug, Clone, Serialize, Deserialize, clap::Subcommand)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    /// Mine blocks.
    Mine {
        /// How many.
        blocks: u32,
    },
    /// Pay coins of the chain to an address; mine a block to confirm it.
    Fund {
        /// A regtest address.
        address: String,
        /// How much, in sat.
        sats: u64,
    },
    /// Replace the newest blocks by empty ones, and one more; their transactions wait again.
    Reorg {
        /// How many.
        depth: u32,
    },
}

/// Answers requests until it is dropped; where the chain is another's, with a refusal.
///
/// # Errors
/// When the socket can't be made, or another market runs in this folder.
pub async fn listen(dir: &Path, chain: Option<Chain>) -> Result<tokio::task::JoinHandle<()>> {
    let path = dir.join(SOCKET);
    ensure!(socket::connect(&path).await.is_err(), "another market runs in {}", dir.display());
    let listener = Listener::bind(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let answered = timeout(DEADLINE, answer(stream, chain.as_ref())).await;
            if let Ok(Err(error)) = answered {
                tracing::debug!(%error, "a request came to nothing");
            }
        }
    }))
}

/// Asks the market in this folder.
///
/// # Errors
/// When no market runs there, or it refuses.
pub async fn ask(dir: &Path, request: &Steer) -> Result<Value> {
    let path = dir.join(SOCKET);
    let stream = socket::connect(&path).await;
    let mut stream = stream.with_context(|| format!("no market runs in {}", dir.display()))?;
    stream.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes()).await?;
    let mut line = String::new();
    timeout(DEADLINE, BufReader::new(stream).read_line(&mut line)).await.context("no answer")??;
    let answer: Value = serde_json::from_str(&line)?;
    match answer["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => Ok(answer),
    }
}

async fn answer(mut stream: UnixStream, chain: Option<&Chain>) -> Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_REQUEST)).read_line(&mut line).await?;
    let request = serde_json::from_str(&line).map_err(|error| anyhow!(error));
    let done = request.and_then(|request| steer(chain.context(NOT_OURS)?, &request));
    let answer = done.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
    Ok(write.write_all(format!("{answer}\n").as_bytes()).await?)
}

/// Does it.
fn steer(chain: &Chain, request: &Steer) -> Result<Value> {
    Ok(match request {
        Steer::Mine { blocks } => {
            let tip = chain.mine_to_self(*blocks);
            json!({ "type": "mined", "blocks": blocks, "height": chain.height(), "tip": tip.to_string() })
        }
        Steer::Fund { address, sats } => {
            let txid = chain.fund(&regtest(address)?, Amount::from_sat(*sats))?;
            json!({ "type": "funded", "txid": txid.to_string(), "sat": sats })
        }
        Steer::Reorg { depth } => {
            let tip = chain.reorg(*depth)?;
            json!({ "type": "reorged", "depth": depth, "height": chain.height(), "tip": tip.to_string() })
        }
    })
}

/// Reads an address of the chain.
///
/// # Errors
/// When it is none.
pub fn regtest(address: &str) -> Result<Address> {
    let parsed: Address<_> = address.parse().with_context(|| format!("{address} is no bitcoin address"))?;
    parsed.require_network(Network::Regtest).with_context(|| format!("{address} is no address of regtest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_market_is_steered_from_a_folder_of_any_length_and_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&long).unwrap();
        let error = ask(&long, &Steer::Mine { blocks: 1 }).await.unwrap_err();
        assert!(error.to_string().starts_with("no market runs in "), "{error:#}");

        let chain = Chain::new(b"long");
        let listening = listen(&long, Some(chain.clone())).await.unwrap();
        let before = chain.height();
        let mined = ask(&long, &Steer::Mine { blocks: 2 }).await.unwrap();
        assert_eq!((&mined["type"], &mined["height"]), (&"mined".into(), &(before + 2).into()));
        let error = listen(&long, None).await.unwrap_err();
        assert!(error.to_string().starts_with("another market runs in "), "{error:#}");

        // One that was killed leaves its socket, and is replaced.
        listening.abort();
        let _ = listening.await;
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        listen(dir.path(), Some(chain)).await.unwrap();
        ask(dir.path(), &Steer::Reorg { depth: 1 }).await.unwrap();
    }

    #[tokio::test]
    async fn the_chain_of_others_is_not_steered() {
        let dir = tempfile::tempdir().unwrap();
        listen(dir.path(), None).await.unwrap();
        let fund = Steer::Fund { address: "bcrt1q".to_owned(), sats: 1 };
        for request in [Steer::Mine { blocks: 1 }, fund, Steer::Reorg { depth: 1 }] {
            assert_eq!(ask(dir.path(), &request).await.unwrap_err().to_string(), NOT_OURS);
        }
    }
}
