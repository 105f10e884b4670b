//! Incoming payments: every output to a payee's address, and how deep it is.
//!
//! Each output is a durable row, brought up to date after each sync and reported whenever it changed. The state is
//! computed from what the wallet sees now, so nothing is lost when a change was missed.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bdk_wallet::KeychainKind;
use bdk_wallet::rusqlite::{self, Row, Transaction as SqlTransaction, params};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};

use crate::addresses::PayeeRef;
use crate::state::{State, StoreError};
use crate::view::{Standing, View};

/// The depth from which a payment is final and its snapshot rests.
pub const FINAL_DEPTH: u32 = 6;
/// How deep final payments are still looked at, in blocks: a reorganisation that deep (a day) would be news.
pub(crate) const WATCH_DEPTH: u32 = 144;
/// Coinbase outputs are spendable, and reported, from this depth (consensus).
pub(crate) const COINBASE_MATURITY: u32 = 100;
/// How long a payment that vanished is reported at each start, in ms: nodes drop it from their mempools by then.
const GONE_MS: u64 = 14 * 24 * 3_600_000;

/// An output that pays one of our payees, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    pub payee: PayeeRef,
    pub outpoint: OutPoint,
    pub sat: u64,
    pub state: IncomingState,
    /// The height of the chain's tip for which this holds.
    pub tip_height: u32,
}

/// How far an incoming payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncomingState {
    /// Unconfirmed: it may never happen.
    Seen,
    /// In a block; `depth` is 1 in the tip and stays at [`FINAL_DEPTH`]: beyond, count from `height`.
    Confirmed { height: u32, block_hash: BlockHash, depth: u32 },
    /// Another transaction took its coins; if that one pays us too, it is an [`Incoming`] of its own.
    Replaced { by: Txid },
    /// Dropped by the server before it was ever in a block; may come back.
    Evicted,
    /// Was in a block that is no longer part of the chain; may be mined again.
    Reorged,
}

impl State {
    /// Outputs that can still change, and final ones of the last [`WATCH_DEPTH`] blocks.
    pub(crate) fn open_incoming(&self, tip: u32) -> Result<Vec<Incoming>, StoreError> {
        self.select_incoming(
            tip,
            "state <> ?2 OR depth < ?3 OR height > ?1",
            params![tip.saturating_sub(WATCH_DEPTH), CONFIRMED, FINAL_DEPTH],
        )
    }

    /// What is reported at a start: as [`State::open_incoming`] without what vanished long ago.
    pub(crate) fn recent_incoming(&self, tip: u32, now_ms: u64) -> Result<Vec<Incoming>, StoreError> {
        self.select_incoming(
            tip,
            "CASE state WHEN ?2 THEN depth < ?3 OR height > ?1 ELSE changed_ms > ?4 END",
            params![tip.saturating_sub(WATCH_DEPTH), CONFIRMED, FINAL_DEPTH, now_ms.saturating_sub(GONE_MS)],
        )
    }

    /// One output's snapshot.
    pub(crate) fn incoming(&self, outpoint: OutPoint, tip: u32) -> Result<Option<Incoming>, StoreError> {
        let key = params![outpoint.txid.to_byte_array(), outpoint.vout];
        Ok(self.select_incoming(tip, "txid = ?1 AND vout = ?2", key)?.pop())
    }

    fn select_incoming(
        &self,
        tip: u32,
        condition: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<Incoming>, StoreError> {
        let mut query = self.db.prepare_cached(&format!("SELECT * FROM pedlar_incoming WHERE {condition}"))?;
        let rows = query.query_map(params, |row| read_incoming(row, tip))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Every output that changed since its row was written, and every new one, as it stands in `view`.
    pub(crate) fn changed_incoming(&self, view: &View<'_>) -> Result<Vec<Incoming>, StoreError> {
        let open = self.open_incoming(view.tip)?;
        let mut changed = self.new_incoming(view)?;
        changed.extend(open.into_iter().filter_map(|mut incoming| {
            let state = next_state(incoming.state, view.standing(incoming.outpoint.txid));
            (state != incoming.state).then(|| {
                incoming.state = state;
                incoming
            })
        }));
        Ok(changed)
    }

    fn new_incoming(&self, view: &View<'_>) -> Result<Vec<Incoming>, StoreError> {
        let payees = self.payees()?;
        let mut found = Vec::new();
        for coin in self.wallet.list_output().filter(|coin| coin.keychain == KeychainKind::External) {
            let Some(&(payee, given_height)) = payees.get(&coin.derivation_index) else { continue };
            let standing = view.standing(coin.outpoint.txid);
            // Older than the address is the payee's: after words were restored it may have had another life.
            let old = |height: u32| height.saturating_add(FINAL_DEPTH) <= given_height;
            if matches!(standing, Standing::Confirmed { height, .. } if old(height)) {
                continue;
            }
            if self.is_immature(coin.outpoint.txid, standing) || self.is_recorded(coin.outpoint)? {
                continue;
            }
            found.push(Incoming {
                payee,
                outpoint: coin.outpoint,
                sat: coin.txout.value.to_sat(),
                state: next_state(IncomingState::Seen, standing),
                tip_height: view.tip,
            });
        }
        Ok(found)
    }

    /// Whose each address is, and how high the chain was when it became so.
    fn payees(&self) -> Result<HashMap<u32, (PayeeRef, u32)>, StoreError> {
        let sql = "SELECT address_index, payee, given_height FROM pedlar_addresses";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, (PayeeRef(row.get(1)?), row.get(2)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn is_recorded(&self, outpoint: OutPoint) -> Result<bool, StoreError> {
        let mut query = self.db.prepare_cached("SELECT 1 FROM pedlar_incoming WHERE txid = ?1 AND vout = ?2")?;
        Ok(query.exists(params![outpoint.txid.to_byte_array(), outpoint.vout])?)
    }

    fn is_immature(&self, txid: Txid, standing: Standing) -> bool {
        let coinbase = self.wallet.tx_graph().get_tx(txid).is_some_and(|tx| tx.is_coinbase());
        coinbase && !matches!(standing, Standing::Confirmed { depth, .. } if depth >= COINBASE_MATURITY)
    }
}

fn next_state(state: IncomingState, standing: Standing) -> IncomingState {
    let was_in_block = matches!(state, IncomingState::Confirmed { .. } | IncomingState::Reorged);
    match standing {
        Standing::Confirmed { height, block_hash, depth } => {
            IncomingState::Confirmed { height, block_hash, depth: depth.min(FINAL_DEPTH) }
        }
        Standing::Replaced { by, .. } => IncomingState::Replaced { by },
        Standing::Unconfirmed | Standing::Gone if was_in_block => IncomingState::Reorged,
        Standing::Unconfirmed => IncomingState::Seen,
        Standing::Gone => IncomingState::Evicted,
    }
}

const SEEN: u8 = 0;
const CONFIRMED: u8 = 1;
const REPLACED: u8 = 2;
const EVICTED: u8 = 3;
const REORGED: u8 = 4;

/// Writes an output's snapshot; for whom it is stays what it was when the output was first seen.
pub(crate) fn write_incoming(tx: &SqlTransaction<'_>, incoming: &Incoming, now_ms: u64) -> rusqlite::Result<()> {
    let (state, height, depth, hash) = match incoming.state {
        IncomingState::Seen => (SEEN, None, None, None),
        IncomingState::Confirmed { height, block_hash, depth } => {
            (CONFIRMED, Some(height), Some(depth), Some(block_hash.to_byte_array()))
        }
        IncomingState::Replaced { by } => (REPLACED, None, None, Some(by.to_byte_array())),
        IncomingState::Evicted => (EVICTED, None, None, None),
        IncomingState::Reorged => (REORGED, None, None, None),
    };
    tx.prepare_cached(
        "INSERT INTO pedlar_incoming (txid, vout, payee, sat, changed_ms, state, height, depth, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (txid, vout) DO UPDATE SET changed_ms = excluded.changed_ms, state = excluded.state,
             height = excluded.height, depth = excluded.depth, hash = excluded.hash",
    )?
    .execute(params![
        incoming.outpoint.txid.to_byte_array(),
        incoming.outpoint.vout,
        incoming.payee.0,
        incoming.sat,
        now_ms,
        state,
        height,
        depth,
        hash
    ])?;
    Ok(())
}

/// Reads a row of `pedlar_incoming`, as it stands under this tip.
pub(crate) fn read_incoming(row: &Row<'_>, tip_height: u32) -> rusqlite::Result<Incoming> {
    let state: u8 = row.get("state")?;
    Ok(Incoming {
        payee: PayeeRef(row.get("payee")?),
        outpoint: OutPoint::new(Txid::from_byte_array(row.get("txid")?), row.get("vout")?),
        sat: row.get("sat")?,
        state: match state {
            SEEN => IncomingState::Seen,
            CONFIRMED => IncomingState::Confirmed {
                height: row.get("height")?,
                block_hash: BlockHash::from_byte_array(row.get("hash")?),
                depth: row.get("depth")?,
            },
            REPLACED => IncomingState::Replaced { by: Txid::from_byte_array(row.get("hash")?) },
            EVICTED => IncomingState::Evicted,
            REORGED => IncomingState::Reorged,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other.into())),
        },
        tip_height,
    })
}
