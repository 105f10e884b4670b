//! Steering a running market from another terminal: one JSON request and one answer over a socket in its folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bitcoin::{Address, Amount, Network};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::chain::Chain;

/// The socket's name: short, because a socket's whole path must fit 107 bytes.
const SOCKET: &str = "devnet.sock";

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

/// Answers requests until it is dropped.
///
/// # Errors
/// When the socket can't be made.
pub fn listen(dir: &Path, chain: Chain) -> Result<tokio::task::JoinHandle<()>> {
    let path = dir.join(SOCKET);
    // One left by a market that was killed; the folder's owner is the only one who can get here.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("making {}", path.display()))?;
    let chain = Arc::new(chain);
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answered = timeout(DEADLINE, answer(stream, &chain)).await;
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
    let stream = UnixStream::connect(&path).await;
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

async fn answer(mut stream: UnixStream, chain: &Chain) -> Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_REQUEST)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line).map_err(|error| anyhow!(error)).and_then(|it| steer(chain, &it)) {
        Ok(answer) => answer,
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
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
