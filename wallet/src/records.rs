//! What `wallet.sqlite` says, as plain values: for an audit beside the journal, and while no wallet has it open.

use std::collections::HashMap;
use std::path::Path;
use std::thread;

use bdk_wallet::rusqlite::{Connection, OptionalExtension};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

use crate::electrum::{self, Expected, Fingerprint, MAX_BEHIND, Seen, ServerFault, ServerUrl};
use crate::network::Network;
use crate::payments::{Payment, SELECT, read_payment};
use crate::state::{FILE_NAME, LADDER, OpenError, begin};
use crate::watch::{Incoming, read_incoming};

/// Every payment, in and out, and what the servers showed, as the file has it.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The height of the newest block that the wallet knows.
    pub tip_height: u32,
    /// What was paid to us.
    pub incoming: Vec<Incoming>,
    /// What we paid, or mean to pay, but for the funding of channels.
    pub payments: Vec<Payment>,
    block_1: Option<BlockHash>,
    pins: HashMap<String, Fingerprint>,
}

impl Records {
    /// Reads a copy of a wallet's file, in the folder `copy`, as the next start would find it: an older schema is
    /// brought to this one, in the copy. The file itself is the wallet's alone and is never opened by another.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what would be in the way of that start, but for words that don't fit.
    pub fn read(copy: &Path) -> Result<Self, OpenError> {
        let (db, ()) = LADDER.open(&copy.join(FILE_NAME), |tx, found| begin(tx, found, false))?;
        Self::of(&db)
    }

    /// What an open file says.
    pub(crate) fn of(db: &Connection) -> Result<Self, OpenError> {
        let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(OpenError::Damaged);
        }
        let tables = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'bdk_blocks')";
        let tip: Option<u32> = match db.query_row(tables, [], |row| row.get(0))? {
            true => db.query_row("SELECT max(block_height) FROM bdk_blocks", [], |row| row.get(0))?,
            false => None,
        };
        let tip_height = tip.unwrap_or(0);
        let block_1: Option<Option<[u8; 32]>> =
            db.query_row("SELECT block_1 FROM pedlar_wallet", [], |row| row.get(0)).optional()?;
        let mut pins = db.prepare("SELECT server, certificate FROM pedlar_pins")?;
        let pins = pins.query_map([], |row| Ok((row.get(0)?, Fingerprint(row.get(1)?))))?;
        let mut incoming = db.prepare("SELECT * FROM pedlar_incoming")?;
        let incoming = incoming.query_map([], |row| read_incoming(row, tip_height))?;
        let funding = "SELECT payment FROM pedlar_channels WHERE payment IS NOT NULL";
        let mut payments = db.prepare(&format!("{SELECT} WHERE p.id NOT IN ({funding})"))?;
        let payments = payments.query_map([], read_payment)?;
        Ok(Self {
            tip_height,
            incoming: incoming.collect::<Result<_, _>>()?,
            payments: payments.collect::<Result<_, _>>()?,
            block_1: block_1.flatten().map(BlockHash::from_byte_array),
            pins: pins.collect::<Result<_, _>>()?,
        })
    }

    fn expected(&self, network: Network, server: &ServerUrl) -> Expected {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::from(network)).block_hash();
        Expected { genesis, block_1: self.block_1, pin: self.pins.get(&server.to_string()).copied() }
    }
}

/// Looks at each server as a wallet with these records would, all at once: whether it can be reached, shows the
/// certificate that was pinned, serves the right chain, and is not behind the others. Blocks for as long as the slowest
/// takes, which is bounded; nothing is pinned.
#[must_use]
pub fn look_at_servers(
    network: Network,
    records: &Records,
    servers: &[ServerUrl],
) -> Vec<(ServerUrl, Result<Seen, ServerFault>)> {
    let looks = |url: &ServerUrl| electrum::look(url, &records.expected(network, url));
    let mut seen: Vec<(ServerUrl, Result<Seen, ServerFault>)> = thread::scope(|scope| {
        let looking: Vec<_> = servers.iter().map(|url| (url, scope.spawn(|| looks(url)))).collect();
        let done =
            looking.into_iter().map(|(url, look)| (url.clone(), look.join().unwrap_or(Err(ServerFault::Misbehaved))));
        done.collect()
    });
    let best = seen.iter().filter_map(|(_, seen)| seen.as_ref().ok()).map(|seen| seen.tip_height).max();
    let best = best.unwrap_or(0).max(records.tip_height);
    for (_, seen) in &mut seen {
        let behind = seen.as_ref().map_or(0, |seen| best.saturating_sub(seen.tip_height));
        if behind > MAX_BEHIND {
            *seen = Err(ServerFault::Behind { blocks: behind });
        }
    }
    seen
}
