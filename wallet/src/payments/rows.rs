//! The rows of payments: one a payment, one a version of it, one a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use bdk_wallet::rusqlite::{self, OptionalExtension, Row, params};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Address, Transaction, Txid};

use super::{Payment, PaymentId, PaymentState, Terms};
use crate::state::{State, StoreError};
use crate::watch::WATCH_DEPTH;

/// Payments as they stand, each with the version that counts.
pub(crate) const SELECT: &str = "
    SELECT p.id, p.address, p.sat, p.created_ms, p.state, p.height, p.depth, p.rival, v.txid, v.vout, v.fee_sat
    FROM pedlar_payments p LEFT JOIN pedlar_versions v ON v.payment = p.id AND v.number = p.version";

const INTENT: u8 = 0;
const SIGNED: u8 = 1;
const BROADCAST: u8 = 2;
const CONFIRMED: u8 = 3;
const FINAL: u8 = 4;
const REPLACED: u8 = 5;
const CONFLICTED: u8 = 6;

/// One transaction that pays a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) txid: Txid,
    pub(crate) vout: u32,
    pub(crate) fee_sat: u64,
}

/// A payment that can still change, with all its versions, the newest first.
pub(crate) struct Open {
    pub(crate) payment: Payment,
    pub(crate) versions: Vec<Version>,
}

/// What a transaction of the wallet pays under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    pub id: PaymentId,
    pub address: Address,
    pub sat: u64,
    /// Its part of the transaction's fee.
    pub fee_sat: u64,
}

impl State {
    /// The payment of an id.
    pub(crate) fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        let mut query = self.db.prepare_cached(&format!("{SELECT} WHERE p.id = ?1"))?;
        Ok(query.query_row([id.0], read_payment).optional()?)
    }

    /// The payments of which this transaction is a version, current or not, the oldest first.
    pub(super) fn payments_of(&self, txid: Txid) -> Result<Vec<Payment>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE p.id IN (SELECT payment FROM pedlar_versions WHERE txid = ?1) ORDER BY p.created_ms, p.rowid"
        );
        let mut query = self.db.prepare_cached(&sql)?;
        let rows = query.query_map([txid.to_byte_array()], read_payment)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Payments that can still change: all but those buried so deep that no reorganisation is looked for.
    pub(crate) fn open_payments(&self, tip: u32) -> Result<Vec<Open>, StoreError> {
        let open = format!("state <> {FINAL} OR height > ?1");
        let deep = tip.saturating_sub(WATCH_DEPTH);
        let mut query = self.db.prepare_cached(&format!(
            "SELECT payment, txid, vout, fee_sat FROM pedlar_versions
             WHERE payment IN (SELECT id FROM pedlar_payments WHERE {open}) ORDER BY number DESC"
        ))?;
        let mut versions: HashMap<[u8; 32], Vec<Version>> = HashMap::new();
        let mut rows = query.query([deep])?;
        while let Some(row) = rows.next()? {
            let txid = Txid::from_byte_array(row.get("txid")?);
            let version = Version { txid, vout: row.get("vout")?, fee_sat: row.get("fee_sat")? };
            versions.entry(row.get("payment")?).or_default().push(version);
        }
        let mut query = self.db.prepare_cached(&format!("{SELECT} WHERE {open} ORDER BY p.created_ms, p.rowid"))?;
        let rows = query.query_map([deep], |row| {
            let payment = read_payment(row)?;
            Ok(Open { versions: versions.remove(&payment.id.0).unwrap_or_default(), payment })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The current transaction of each live payment, each once, the oldest first: a younger one may spend an older
    /// one's change; then those that are to end channels.
    pub(crate) fn live_transactions(&self) -> Result<Vec<Arc<Transaction>>, StoreError> {
        let condition = format!("{} AND v.number = p.version", live());
        let ends = self.live_ends(true)?.into_iter().map(Arc::new);
        Ok(self.transactions(&condition)?.into_iter().chain(ends).collect())
    }

    /// All versions of live payments and of what is to end channels, also those that were replaced: a miner may have
    /// kept one.
    pub(crate) fn live_versions(&self) -> Result<Vec<Arc<Transaction>>, StoreError> {
        let ends = self.live_ends(false)?.into_iter().map(Arc::new);
        Ok(self.transactions(&live())?.into_iter().chain(ends).collect())
    }

    /// A transaction that ever was a version of a payment.
    pub(crate) fn version(&self, txid: Txid) -> Result<Option<Transaction>, StoreError> {
        let mut query = self.db.prepare_cached("SELECT raw FROM pedlar_transactions WHERE txid = ?1")?;
        let raw: Option<Vec<u8>> = query.query_row([txid.to_byte_array()], |row| row.get(0)).optional()?;
        Ok(raw.map(|raw| decode(&raw)).transpose()?)
    }

    fn transactions(&self, condition: &str) -> Result<Vec<Arc<Transaction>>, StoreError> {
        let mut query = self.db.prepare_cached(&format!(
            "SELECT t.raw FROM pedlar_transactions t JOIN pedlar_versions v ON v.txid = t.txid
             JOIN pedlar_payments p ON p.id = v.payment
             WHERE {condition} GROUP BY t.txid ORDER BY min(p.created_ms), min(p.rowid), min(v.number)"
        ))?;
        let rows = query.query_map([], |row| decode(&row.get::<_, Vec<u8>>(0)?).map(Arc::new))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// This transaction, while it is the current one of a live payment, or is to end a channel.
    pub(crate) fn live_transaction(&self, txid: Txid) -> Result<Option<Arc<Transaction>>, StoreError> {
        let mut query = self.db.prepare_cached(&format!(
            "SELECT t.raw FROM pedlar_transactions t JOIN pedlar_versions v ON v.txid = t.txid
             JOIN pedlar_payments p ON p.id = v.payment AND p.version = v.number WHERE t.txid = ?1 AND {}",
            live()
        ))?;
        let raw: Option<Vec<u8>> = query.query_row([txid.to_byte_array()], |row| row.get(0)).optional()?;
        match raw {
            Some(raw) => Ok(Some(Arc::new(decode(&raw)?))),
            None => Ok(self.live_ends(true)?.into_iter().find(|end| end.compute_txid() == txid).map(Arc::new)),
        }
    }

    /// sat and fees of live payments: on their way out.
    pub(crate) fn reserved_sat(&self) -> Result<u64, StoreError> {
        let sql = format!(
            "SELECT coalesce(sum(p.sat + v.fee_sat), 0) FROM pedlar_payments p
             JOIN pedlar_versions v ON v.payment = p.id AND v.number = p.version WHERE {}",
            live()
        );
        Ok(self.db.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
    }

    /// What each transaction that ever was a version of a payment pays, by transaction.
    pub(crate) fn paid_by(&self) -> Result<HashMap<Txid, Vec<Paid>>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT v.txid, v.fee_sat, p.id, p.address, p.sat FROM pedlar_versions v
             JOIN pedlar_payments p ON p.id = v.payment ORDER BY p.rowid",
        )?;
        let mut paid: HashMap<Txid, Vec<Paid>> = HashMap::new();
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (id, address) = (PaymentId(row.get("id")?), read_address(row)?);
            let part = Paid { id, address, sat: row.get("sat")?, fee_sat: row.get("fee_sat")? };
            paid.entry(Txid::from_byte_array(row.get("txid")?)).or_default().push(part);
        }
        Ok(paid)
    }

    /// Records that a server took a transaction; which payments that is news of.
    pub(crate) fn mark_broadcast(&mut self, txid: Txid) -> Result<Vec<PaymentId>, StoreError> {
        let sql = format!(
            "UPDATE pedlar_payments SET state = {BROADCAST} WHERE state = {SIGNED} AND EXISTS (SELECT 1
             FROM pedlar_versions v WHERE v.payment = id AND v.number = version AND v.txid = ?1) RETURNING id"
        );
        self.commit(|tx| {
            let mut query = tx.prepare_cached(&sql)?;
            let rows = query.query_map([txid.to_byte_array()], |row| row.get(0).map(PaymentId))?;
            rows.collect()
        })
    }

    /// Stores what is meant to be paid, all of it or nothing; what is stored already stays as it is.
    pub(super) fn insert_intents(&mut self, terms: &[Terms], now_ms: u64) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT OR IGNORE INTO pedlar_payments (id, address, sat, created_ms, state)
             VALUES (?1, ?2, ?3, ?4, {INTENT})"
        );
        self.commit(|tx| {
            let mut insert = tx.prepare_cached(&sql)?;
            let mut each = terms.iter();
            each.try_for_each(|to| insert.execute(params![to.id.0, to.address.to_string(), to.sat, now_ms]).map(drop))
        })
    }

    /// Forgets what was meant to be paid and never signed.
    pub(super) fn delete_intents(&mut self, terms: &[Terms]) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM pedlar_payments WHERE id = ?1 AND state = {INTENT}");
        self.commit(|tx| terms.iter().try_for_each(|to| tx.execute(&sql, [to.id.0]).map(drop)))
    }

    /// Stores a signed transaction as the newest version of these payments, which are to be sent (again).
    pub(super) fn insert_version(
        &mut self,
        versions: &[(PaymentId, Version)],
        signed: &Transaction,
    ) -> Result<(), StoreError> {
        let put = "INSERT INTO pedlar_versions (payment, number, txid, vout, fee_sat) SELECT ?1,
            1 + (SELECT coalesce(max(number), 0) FROM pedlar_versions WHERE payment = ?1), ?2, ?3, ?4";
        let point = format!(
            "UPDATE pedlar_payments SET state = {SIGNED}, rival = NULL,
             version = (SELECT max(number) FROM pedlar_versions WHERE payment = ?1) WHERE id = ?1"
        );
        let txid = signed.compute_txid().to_byte_array();
        self.commit(|tx| {
            tx.execute(
                "INSERT INTO pedlar_transactions (txid, raw) VALUES (?1, ?2)",
                params![txid, serialize(signed)],
            )?;
            versions.iter().try_for_each(|(id, version)| {
                tx.execute(put, params![id.0, txid, version.vout, version.fee_sat])?;
                tx.execute(&point, [id.0]).map(drop)
            })
        })
    }
}

/// Writes a payment's state, and which of its versions it is.
pub(crate) fn write_state(tx: &rusqlite::Transaction<'_>, payment: &Payment) -> rusqlite::Result<()> {
    let (state, height, depth, rival) = match payment.state {
        PaymentState::Intent => (INTENT, None, None, None),
        PaymentState::Signed => (SIGNED, None, None, None),
        PaymentState::Broadcast => (BROADCAST, None, None, None),
        PaymentState::Confirmed { height, depth } => (CONFIRMED, Some(height), Some(depth), None),
        PaymentState::Final { height } => (FINAL, Some(height), None, None),
        PaymentState::Replaced { by } => (REPLACED, None, None, Some(by.to_byte_array())),
        PaymentState::Conflicted { by } => (CONFLICTED, None, None, Some(by.to_byte_array())),
    };
    tx.prepare_cached(
        "UPDATE pedlar_payments SET state = ?2, height = ?3, depth = ?4, rival = ?5,
         version = (SELECT number FROM pedlar_versions WHERE payment = ?1 AND txid = ?6) WHERE id = ?1",
    )?
    .execute(params![payment.id.0, state, height, depth, rival, payment.txid.map(Hash::to_byte_array)])?;
    Ok(())
}

/// The condition that a payment is live: it may still have to be sent, so that its coins are not to be spent otherwise.
fn live() -> String {
    format!("p.state IN ({SIGNED}, {BROADCAST}, {REPLACED})")
}

/// Reads a row of [`SELECT`].
pub(crate) fn read_payment(row: &Row<'_>) -> rusqlite::Result<Payment> {
    let state: u8 = row.get("state")?;
    let rival = || row.get("rival").map(Txid::from_byte_array);
    Ok(Payment {
        id: PaymentId(row.get("id")?),
        address: read_address(row)?,
        sat: row.get("sat")?,
        created_ms: row.get("created_ms")?,
        txid: row.get::<_, Option<_>>("txid")?.map(Txid::from_byte_array),
        vout: row.get("vout")?,
        fee_sat: row.get("fee_sat")?,
        state: match state {
            INTENT => PaymentState::Intent,
            SIGNED => PaymentState::Signed,
            BROADCAST => PaymentState::Broadcast,
            CONFIRMED => PaymentState::Confirmed { height: row.get("height")?, depth: row.get("depth")? },
            FINAL => PaymentState::Final { height: row.get("height")? },
            REPLACED => PaymentState::Replaced { by: rival()? },
            CONFLICTED => PaymentState::Conflicted { by: rival()? },
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other.into())),
        },
    })
}

fn read_address(row: &Row<'_>) -> rusqlite::Result<Address> {
    let address: String = row.get("address")?;
    address.parse().map(Address::assume_checked).map_err(unreadable)
}

fn decode(raw: &[u8]) -> rusqlite::Result<Transaction> {
    deserialize(raw).map_err(unreadable)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
}
