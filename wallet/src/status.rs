//! How a wallet is run, and how it stands.

use std::path::PathBuf;
use std::time::Duration;

use bitcoin::BlockHash;

use crate::electrum::{ServerFault, ServerUrl};
use crate::network::Network;

/// How a wallet is run.
#[derive(Debug, Clone)]
pub struct WalletConfig {
    pub network: Network,
    /// The folder of `wallet.sqlite`; made (0700) if missing.
    pub dir: PathBuf,
    /// Used one at a time, the next when one fails; at least one.
    pub servers: Vec<ServerUrl>,
    /// Fees are never above this, whatever the estimate, in sat/vB.
    pub max_fee_rate_sat_vb: u64,
    /// How often the server is asked for news; a new block is noticed sooner.
    pub poll: Duration,
    /// The words had a wallet before: when its file is made now, the chain is searched for its coins.
    pub restore: bool,
}

impl WalletConfig {
    /// The defaults: at most 100 sat/vB, news every second on regtest and every 15 s on signet.
    pub fn new(network: Network, dir: PathBuf, servers: Vec<ServerUrl>) -> Self {
        let poll = Duration::from_secs(match network {
            Network::Regtest => 1,
            Network::Signet => 15,
        });
        Self { network, dir, servers, max_fee_rate_sat_vb: 100, poll, restore: false }
    }
}

/// The wallet at a glance; kept up to date in a watch channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletStatus {
    pub tip_height: u32,
    pub tip_hash: BlockHash,
    /// In a block, mature, not being spent.
    pub confirmed_sat: u64,
    /// Unconfirmed or immature, change included.
    pub pending_sat: u64,
    /// Amounts and fees of payments, the funding of channels among them, that are signed and in no block yet; in neither
    /// of the above.
    pub reserved_sat: u64,
    /// What of the channels that we opened is neither signed away nor on its way back.
    pub channels_sat: u64,
    /// In the order of the configuration; one of them is in use, or is connected to.
    pub servers: Vec<ServerStatus>,
    /// When a server last told everything, in ms since the epoch.
    pub synced_at_ms: Option<u64>,
    /// The chain is still being searched for the coins of restored words.
    pub restoring: bool,
    /// Why the wallet's file can't be written at this moment: then nothing is paid, and nothing new is told.
    pub unwritten: Option<String>,
}

/// A server as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    pub url: ServerUrl,
    pub state: ServerState,
    /// Since when it is in this state, in ms since the epoch; `None` until it was tried.
    pub since_ms: Option<u64>,
    /// The height of its chain, as it last said.
    pub tip: Option<u32>,
}

/// How things stand with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerState {
    /// The first one, at the start.
    Connecting,
    /// In use.
    Up,
    /// Used when the one in use fails.
    Standby,
    /// Set aside, and tried again in at most half a minute.
    Down(ServerFault),
}

/// The wallet was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wallet is shut down")]
pub struct Closed;
