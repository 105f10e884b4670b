//! The rows of channels: one a channel, one a transaction of ours that ends some, one a channel in it.

use bdk_wallet::rusqlite::{self, OptionalExtension, Row, params};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, PublicKey, ScriptBuf, Transaction, Txid};

use super::{ChannelId, Funded, Role, Terms, Voucher};
use crate::payments::PaymentId;
use crate::state::{State, StoreError};

/// Channels with their funding: the buyer's is the payment that makes it.
const SELECT: &str = "
    SELECT c.*, coalesce(v.txid, c.funding_txid) AS txid, coalesce(v.vout, c.funding_vout) AS vout
    FROM pedlar_channels c LEFT JOIN pedlar_payments p ON p.id = c.payment
    LEFT JOIN pedlar_versions v ON v.payment = p.id AND v.number = p.version";

/// Half signed: by us.
const OFFERED: u8 = 0;
/// To be sent until it is in a block.
const LIVE: u8 = 1;
const MINED: u8 = 2;
/// Something else spent what it spends, in a block.
const BEATEN: u8 = 3;

const CLOSE: u8 = 0;
const SETTLEMENT: u8 = 1;
const REFUND: u8 = 2;

/// A channel as it is stored.
pub(crate) struct ChannelRow {
    pub(crate) id: ChannelId,
    pub(crate) role: Role,
    pub(crate) key_index: u32,
    /// The buyer's address under the internal keychain.
    pub(crate) change_index: Option<u32>,
    pub(crate) terms: Option<Terms>,
    /// Known once the funding is.
    pub(crate) funded: Option<Funded>,
    pub(crate) signed_sat: u64,
}

/// What a transaction of ours does to the channels that it spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndKind {
    Close,
    Settlement,
    Refund,
}

/// Where such a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndState {
    Live,
    Mined,
    Beaten,
}

/// A transaction of ours that ends channels.
#[derive(Debug, Clone)]
pub(crate) struct EndRow {
    pub(crate) tx: Transaction,
    pub(crate) kind: EndKind,
    pub(crate) fee_sat: u64,
    /// Each channel, in the order of the inputs, with the voucher by which it ends, if it does by one.
    pub(crate) parts: Vec<(ChannelId, Option<Voucher>)>,
}

impl State {
    /// The channel of an id.
    pub(crate) fn channel_row(&self, id: ChannelId) -> Result<Option<ChannelRow>, StoreError> {
        let mut query = self.db.prepare_cached(&format!("{SELECT} WHERE c.id = ?1"))?;
        Ok(query.query_row([id.0], read_channel).optional()?)
    }

    /// Every channel that has not ended, funded or not.
    pub(crate) fn open_channel_rows(&self) -> Result<Vec<ChannelRow>, StoreError> {
        let mut query = self.db.prepare_cached(&format!("{SELECT} WHERE c.ended = 0 ORDER BY c.key_index"))?;
        let rows = query.query_map([], read_channel)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether a payment is the funding of a channel, which is told as such.
    pub(crate) fn funds_channel(&self, id: PaymentId) -> Result<bool, StoreError> {
        Ok(self.db.prepare_cached("SELECT 1 FROM pedlar_channels WHERE payment = ?1")?.exists([id.0])?)
    }

    /// The newest transaction of ours that is to end a channel, while it still may.
    pub(crate) fn live_end(&self, id: ChannelId) -> Result<Option<EndRow>, StoreError> {
        let sql = format!(
            "SELECT e.* FROM pedlar_ends e JOIN pedlar_ended d ON d.txid = e.txid
             WHERE d.channel = ?1 AND e.state = {LIVE} AND e.newest = 1"
        );
        let found = self.db.prepare_cached(&sql)?.query_row([id.0], read_end).optional()?;
        let Some(mut end) = found else { return Ok(None) };
        let mut parts = self.db.prepare_cached("SELECT * FROM pedlar_ended WHERE txid = ?1 ORDER BY place")?;
        let rows = parts.query_map([end.tx.compute_txid().to_byte_array()], |row| {
            let cum_sat: Option<u64> = row.get("cum_sat")?;
            let sig: Option<[u8; 64]> = row.get("sig")?;
            let voucher = cum_sat.zip(sig).map(|(cum_sat, sig)| Voucher { cum_sat, sig });
            Ok((ChannelId(row.get("channel")?), voucher))
        })?;
        end.parts = rows.collect::<Result<_, _>>()?;
        Ok(Some(end))
    }

    /// What a transaction of ours, also a half-signed one, does to channels, and to how many.
    pub(crate) fn end_kind(&self, txid: Txid) -> Result<Option<(EndKind, u64)>, StoreError> {
        let sql = "SELECT kind, (SELECT count(*) FROM pedlar_ended d WHERE d.txid = e.txid) AS channels
                   FROM pedlar_ends e WHERE txid = ?1";
        let mut query = self.db.prepare_cached(sql)?;
        let read = |row: &Row<'_>| Ok((read_kind(row)?, row.get("channels")?));
        Ok(query.query_row([txid.to_byte_array()], read).optional()?)
    }

    /// The transactions that are to end channels and still may, the newest of each only, or also those that it replaced:
    /// a miner may have kept one.
    pub(crate) fn live_ends(&self, newest_only: bool) -> Result<Vec<Transaction>, StoreError> {
        let sql = format!("SELECT * FROM pedlar_ends WHERE state = {LIVE} AND newest >= ?1 ORDER BY rowid");
        let mut query = self.db.prepare_cached(&sql)?;
        let rows = query.query_map([newest_only], |row| read_end(row).map(|end| end.tx))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The coins of what was to end channels and was beaten, while the block that did it may be taken back: then it is
    /// sent again.
    pub(crate) fn beaten_coins(&self) -> Result<Vec<OutPoint>, StoreError> {
        let ends = self.open_ends()?.into_iter().filter(|(_, state)| *state == EndState::Beaten);
        Ok(ends.flat_map(|(tx, _)| tx.input).map(|input| input.previous_output).collect())
    }

    /// The transactions of ours that spend channels which are looked at, with where each stood.
    pub(crate) fn open_ends(&self) -> Result<Vec<(Transaction, EndState)>, StoreError> {
        let sql = format!(
            "SELECT * FROM pedlar_ends WHERE state <> {OFFERED} AND txid IN (SELECT d.txid
             FROM pedlar_ended d JOIN pedlar_channels c ON c.id = d.channel WHERE c.ended = 0)"
        );
        let mut query = self.db.prepare_cached(&sql)?;
        let rows = query.query_map([], |row| Ok((read_end(row)?.tx, read_state(row)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Allots the next key to a channel, and an address to the buyer of one.
    pub(crate) fn insert_channel(
        &mut self,
        id: ChannelId,
        role: Role,
        change_index: Option<u32>,
    ) -> Result<(), StoreError> {
        self.commit(|tx| {
            tx.execute(
                "INSERT INTO pedlar_channels (id, role, key_index, change_index)
                 SELECT ?1, ?2, channel_keys, ?3 FROM pedlar_wallet",
                params![id.0, role.number(), change_index],
            )?;
            tx.execute("UPDATE pedlar_wallet SET channel_keys = channel_keys + 1", [])
        })?;
        Ok(())
    }

    /// Forgets a channel that nobody funded; its key is never allotted again.
    pub(crate) fn delete_channel(&mut self, id: ChannelId) -> Result<(), StoreError> {
        let sql = "DELETE FROM pedlar_channels WHERE id = ?1 AND payment IS NULL AND funding_txid IS NULL";
        self.commit(|tx| tx.execute(sql, [id.0]))?;
        Ok(())
    }

    /// Gives a channel the key and the address that it had before this wallet was restored; nothing where the key is
    /// another channel's.
    pub(crate) fn insert_old_channel(
        &mut self,
        id: ChannelId,
        role: Role,
        (key_index, change_index): (u32, Option<u32>),
    ) -> Result<(), StoreError> {
        self.commit(|tx| {
            tx.execute(
                "INSERT OR IGNORE INTO pedlar_channels (id, role, key_index, change_index) VALUES (?1, ?2, ?3, ?4)",
                params![id.0, role.number(), key_index, change_index],
            )?;
            tx.execute("UPDATE pedlar_wallet SET channel_keys = max(channel_keys, ?1 + 1)", [key_index])
        })?;
        Ok(())
    }

    /// How many keys were ever allotted.
    pub(crate) fn channel_keys(&self) -> Result<u32, StoreError> {
        Ok(self.db.query_row("SELECT channel_keys FROM pedlar_wallet", [], |row| row.get(0))?)
    }

    /// Stores what was agreed on, and how it is funded.
    pub(crate) fn insert_terms(&mut self, id: ChannelId, terms: &Terms, funding: Funding) -> Result<(), StoreError> {
        let (payment, outpoint) = match funding {
            Funding::By(payment) => (Some(payment.0), None),
            Funding::At(outpoint) => (None, Some(outpoint)),
        };
        let sql = "UPDATE pedlar_channels SET buyer_pk = ?2, seller_pk = ?3, capacity_sat = ?4, expiry_height = ?5,
            change_spk = ?6, close_fee_sat = ?7, payment = ?8, funding_txid = ?9, funding_vout = ?10, ended = 0 WHERE id = ?1";
        self.commit(|tx| {
            tx.execute(
                sql,
                params![
                    id.0,
                    terms.buyer_pk.to_bytes(),
                    terms.seller_pk.to_bytes(),
                    terms.capacity_sat,
                    terms.expiry_height,
                    terms.change_spk.as_bytes(),
                    terms.close_fee_sat,
                    payment,
                    outpoint.map(|outpoint| outpoint.txid.to_byte_array()),
                    outpoint.map(|outpoint| outpoint.vout)
                ],
            )
        })?;
        Ok(())
    }

    /// Takes back what was agreed on where nothing was signed for it.
    pub(crate) fn delete_terms(&mut self, id: ChannelId) -> Result<(), StoreError> {
        let sql = "UPDATE pedlar_channels SET buyer_pk = NULL, payment = NULL WHERE id = ?1";
        self.commit(|tx| tx.execute(sql, [id.0]))?;
        Ok(())
    }

    /// Records that the buyer signs for so much.
    pub(crate) fn insert_signed(&mut self, id: ChannelId, cum_sat: u64) -> Result<(), StoreError> {
        let sql = "UPDATE pedlar_channels SET signed_sat = max(signed_sat, ?2) WHERE id = ?1";
        self.commit(|tx| tx.execute(sql, params![id.0, cum_sat]))?;
        Ok(())
    }

    /// Stores a transaction that ends channels: signed by all, it is to be sent and takes the place of earlier ones; else
    /// it is only known for what it is.
    pub(crate) fn insert_end(&mut self, end: &EndRow, signed_by_all: bool) -> Result<(), StoreError> {
        let txid = end.tx.compute_txid().to_byte_array();
        let kind = match end.kind {
            EndKind::Close => CLOSE,
            EndKind::Settlement => SETTLEMENT,
            EndKind::Refund => REFUND,
        };
        let state = if signed_by_all { LIVE } else { OFFERED };
        // What was signed by all stays so, also when it is offered again.
        let put = "INSERT INTO pedlar_ends VALUES (?1, ?2, ?3, ?4, ?5, 1) ON CONFLICT (txid) DO UPDATE SET
                   raw = excluded.raw, state = max(state, excluded.state), newest = 1
                   WHERE state <= excluded.state";
        let age = "UPDATE pedlar_ends SET newest = 0 WHERE txid IN (SELECT txid FROM pedlar_ended WHERE channel = ?1)";
        self.commit(|tx| {
            for (id, _) in end.parts.iter().filter(|_| signed_by_all) {
                tx.execute(age, [id.0])?;
            }
            tx.execute(put, params![txid, serialize(&end.tx), kind, end.fee_sat, state])?;
            (0_u32..).zip(&end.parts).try_for_each(|(place, (id, voucher))| {
                let values = params![txid, place, id.0, voucher.map(|v| v.cum_sat), voucher.map(|v| v.sig)];
                tx.execute("INSERT OR IGNORE INTO pedlar_ended VALUES (?1, ?2, ?3, ?4, ?5)", values).map(drop)
            })
        })
    }
}

/// How a channel is funded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Funding {
    /// By this payment of ours.
    By(PaymentId),
    /// By the other side, there.
    At(OutPoint),
}

/// Writes where a transaction that ends channels stands. One in a block is the one that counts from now on, also when the
/// block is taken back: the coins of later ones may be spent by then.
pub(crate) fn write_end_state(tx: &rusqlite::Transaction<'_>, txid: Txid, state: EndState) -> rusqlite::Result<()> {
    let state = match state {
        EndState::Live => LIVE,
        EndState::Mined => MINED,
        EndState::Beaten => BEATEN,
    };
    let txid = txid.to_byte_array();
    if state == MINED {
        let age = "UPDATE pedlar_ends SET newest = 0 WHERE txid IN (SELECT other.txid FROM pedlar_ended this
                   JOIN pedlar_ended other ON other.channel = this.channel WHERE this.txid = ?1)";
        tx.execute(age, [txid])?;
        tx.execute("UPDATE pedlar_ends SET newest = 1 WHERE txid = ?1", [txid])?;
    }
    tx.execute("UPDATE pedlar_ends SET state = ?2 WHERE txid = ?1", params![txid, state]).map(drop)
}

/// Writes that a channel is not looked at any more.
pub(crate) fn write_ended(tx: &rusqlite::Transaction<'_>, id: ChannelId) -> rusqlite::Result<()> {
    tx.execute("UPDATE pedlar_channels SET ended = 1 WHERE id = ?1", [id.0]).map(drop)
}

fn read_channel(row: &Row<'_>) -> rusqlite::Result<ChannelRow> {
    let role = match row.get("role")? {
        0_u32 => Role::Buyer,
        1 => Role::Seller,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other.into())),
    };
    let terms = read_terms(row)?;
    let txid: Option<[u8; 32]> = row.get("txid")?;
    let vout: Option<u32> = row.get("vout")?;
    let outpoint = txid.zip(vout).map(|(txid, vout)| OutPoint::new(Txid::from_byte_array(txid), vout));
    let funded = terms.clone().zip(outpoint).map(|(terms, outpoint)| Funded::new(terms, outpoint).map_err(unreadable));
    Ok(ChannelRow {
        id: ChannelId(row.get("id")?),
        role,
        key_index: row.get("key_index")?,
        change_index: row.get("change_index")?,
        terms,
        funded: funded.transpose()?,
        signed_sat: row.get("signed_sat")?,
    })
}

fn read_terms(row: &Row<'_>) -> rusqlite::Result<Option<Terms>> {
    let key = |name| PublicKey::from_slice(&row.get::<_, Vec<u8>>(name)?).map_err(unreadable);
    if row.get::<_, Option<Vec<u8>>>("buyer_pk")?.is_none() {
        return Ok(None);
    }
    Ok(Some(Terms {
        buyer_pk: key("buyer_pk")?,
        seller_pk: key("seller_pk")?,
        capacity_sat: row.get("capacity_sat")?,
        expiry_height: row.get("expiry_height")?,
        change_spk: ScriptBuf::from_bytes(row.get("change_spk")?),
        close_fee_sat: row.get("close_fee_sat")?,
    }))
}

fn read_end(row: &Row<'_>) -> rusqlite::Result<EndRow> {
    let tx = deserialize(&row.get::<_, Vec<u8>>("raw")?).map_err(unreadable)?;
    Ok(EndRow { tx, kind: read_kind(row)?, fee_sat: row.get("fee_sat")?, parts: Vec::new() })
}

fn read_kind(row: &Row<'_>) -> rusqlite::Result<EndKind> {
    match row.get("kind")? {
        CLOSE => Ok(EndKind::Close),
        SETTLEMENT => Ok(EndKind::Settlement),
        REFUND => Ok(EndKind::Refund),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(0, other.into())),
    }
}

fn read_state(row: &Row<'_>) -> rusqlite::Result<EndState> {
    match row.get("state")? {
        LIVE => Ok(EndState::Live),
        MINED => Ok(EndState::Mined),
        BEATEN => Ok(EndState::Beaten),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(0, other.into())),
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
}
