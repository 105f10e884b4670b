//! The settings of a node: one struct, its defaults beside its keys.
//!
//! | precedence | source |
//! |---|---|
//! | 1 | a flag, such as `--listen` |
//! | 2 | the environment, such as `PEDLAR_LISTEN` or `PEDLAR_FEES_MAX_SAT_VB`; lists are separated by commas |
//! | 3 | `config.toml`, where an unknown key is an error that names its line |
//! | 4 | the default |
//!
//! **Invariant:** no secret is ever a setting.

mod layers;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;

use layers::Layers;
pub use layers::{ConfigError, Flags, Origin, Setting, Value};
use pedlar_net::Multiaddr;
use pedlar_protocol::budget::Budget;
use pedlar_protocol::money::Msat;
use pedlar_protocol::session::MAX_WINDOW;
use pedlar_protocol::settlement::MIN_TOPUP_SAT;
use pedlar_wallet::{Network, ServerUrl};
pub use values::NetworkId;
pub(crate) use values::sat;

/// How a node is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bitcoin network that is paid on.
    pub network: Network,
    /// What tells this regtest chain from others; by default taken from its first block.
    pub network_id: Option<NetworkId>,
    /// Electrum servers, used one at a time in this order.
    pub electrum: Vec<ServerUrl>,
    /// Addresses to listen on; port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Addresses, each with a peer id, that lead into the network.
    pub bootstrap: Vec<Multiaddr>,
    /// Addresses at which the outside reaches this node.
    pub external: Vec<Multiaddr>,
    /// Fees on chain.
    pub fees: Fees,
    /// What is paid without a person's word.
    pub budget: Budget,
    /// What strangers and customers are trusted with.
    pub credit: Credit,
    /// The smallest advance taken on chain, in sat.
    pub min_topup_sat: u64,
    /// Bounds of sessions.
    pub limits: Limits,
    /// Which log lines are written, as `tracing` directives such as `info,pedlar_net=debug`.
    pub log: String,
}

/// Fees on chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fees {
    /// The highest rate paid, whatever the estimate, in sat/vB.
    pub max_sat_vb: u64,
}

/// What strangers and customers are trusted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// Given to each stranger once.
    pub grant: Msat,
    /// No credit line is longer.
    pub cap: Msat,
}

/// Bounds of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest window served or asked for, in bytes.
    pub max_window: u64,
}

impl Config {
    /// Reads the settings for the file at `path`, which may be missing, under what `flags` and `env` say; and each of
    /// them with where it comes from. This is the one place that names them.
    ///
    /// # Errors
    /// [`ConfigError`] names the source, the key and the reason.
    pub fn load(
        path: &Path,
        flags: Flags,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Setting>), ConfigError> {
        let mut from = Layers::open(path, flags, env)?;
        let config = Self {
            network: from.one("network", Network::Signet, values::network)?,
            network_id: from.maybe("network_id", str::parse)?,
            electrum: from.list("electrum", Vec::new(), str::parse)?,
            listen: from.list("listen", everywhere(), str::parse)?,
            bootstrap: from.list("bootstrap", Vec::new(), str::parse)?,
            external: from.list("external", Vec::new(), str::parse)?,
            fees: Fees { max_sat_vb: from.one("fees.max_sat_vb", 100, values::sat)? },
            budget: Budget {
                day_sat: from.one("budget.day_sat", Budget::default().day_sat, values::sat)?,
                month_sat: from.one("budget.month_sat", Budget::default().month_sat, values::sat)?,
            },
            credit: Credit {
                grant: from.one("credit.grant_sat", Msat::ZERO, str::parse)?,
                cap: from.one("credit.cap_sat", Msat::new(100_000_000), str::parse)?,
            },
            min_topup_sat: from.one("min_topup_sat", MIN_TOPUP_SAT, values::topup)?,
            limits: Limits { max_window: from.one("limits.max_window", MAX_WINDOW, values::bytes)? },
            log: from.one("log", "info".to_owned(), str::parse)?,
        };
        Ok((config, from.finish()?))
    }
}

/// Both transports on every interface, at ports that the system chooses: nothing has to be free beforehand.
fn everywhere() -> Vec<Multiaddr> {
    ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"].iter().filter_map(|addr| addr.parse().ok()).collect()
}
