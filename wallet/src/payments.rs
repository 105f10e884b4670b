//! Outgoing payments by id.
//!
//! An id is paid once: its signed transaction is stored before it is sent, and the same one is sent until it is in a
//! block, also after a restart, also when the server says no or nothing. A timeout is never taken for "not paid".

mod build;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bdk_wallet::rusqlite::{self, OptionalExtension, Row, params};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Address, FeeRate, OutPoint, Transaction, Txid};

use crate::chain::{Standing, View};
use crate::network::Network;
use crate::state::{State, StoreError};
use crate::watch::{FINAL_DEPTH, WATCH_DEPTH};

/// Names a payment; chosen at random or by derivation by the one who pays, the same for each retry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(pub [u8; 32]);

impl fmt::Debug for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A payment as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub id: PaymentId,
    pub address: Address,
    pub sat: u64,
    /// ms since the epoch.
    pub created_ms: u64,
    /// Known once signed; an id never gets another one.
    pub txid: Option<Txid>,
    /// The output that pays; known once signed.
    pub vout: Option<u32>,
    /// Known once signed.
    pub fee_sat: Option<u64>,
    pub state: PaymentState,
}

impl Payment {
    /// The output that pays, once signed.
    pub fn outpoint(&self) -> Option<OutPoint> {
        Some(OutPoint::new(self.txid?, self.vout?))
    }
}

/// How far a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// Stored, not signed: no coin is touched, and none will be until the same id is paid again.
    Intent,
    /// Signed and stored; sent as soon as a server can be reached.
    Signed,
    /// A server has it.
    Broadcast,
    /// In a block; `depth` is 1 in the tip.
    Confirmed { height: u32, depth: u32 },
    /// [`FINAL_DEPTH`] deep.
    Final { height: u32 },
    /// An unconfirmed transaction, not made for this id, spends the same coins; either may still confirm.
    Replaced { by: Txid },
    /// The same coins were spent by a confirmed transaction: this payment can't happen any more.
    Conflicted { by: Txid },
}

const COLUMNS: &str = "id, address, sat, created_ms, state, txid, vout, fee_sat, height, depth, rival";

impl State {
    /// Pays `sat` to `address` under `id`, or returns the payment that this id already is.
    ///
    /// When it returns, the signed transaction is stored; it is not sent here.
    ///
    /// # Errors
    ///
    /// Nothing is signed and nothing kept when the terms, the coins or the fee don't allow it.
    pub(crate) fn pay(&mut self, terms: &Terms, rate: FeeRate, now_ms: u64) -> Result<Payment, PayError> {
        match self.payment(terms.id)? {
            Some(known) if known.address != terms.address || known.sat != terms.sat => {
                return Err(PayError::OtherTerms { address: known.address, sat: known.sat });
            }
            Some(known) if known.state != PaymentState::Intent => return Ok(known),
            Some(_) => {}
            None => {
                self.check(terms)?;
                self.insert_intent(terms, now_ms)?;
            }
        }
        let signed = self.build_and_sign(terms, rate);
        if signed.is_err() {
            self.commit(|tx| tx.execute("DELETE FROM pedlar_payments WHERE id = ?1", [terms.id.0]))?;
        }
        let (tx, fee_sat) = signed?;
        self.insert_signed(terms, &tx, fee_sat)?;
        // Only now, when the row is safe: the coins must not look spent by a transaction that nobody will send.
        self.wallet.apply_unconfirmed_txs([(tx, now_ms / 1000)]);
        self.commit(|_| Ok(()))?;
        self.payment(terms.id)?.ok_or(PayError::Store(StoreError(rusqlite::Error::QueryReturnedNoRows)))
    }

    /// The payment of an id.
    pub(crate) fn payment(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        let mut query = self.db.prepare_cached(&format!("SELECT {COLUMNS} FROM pedlar_payments WHERE id = ?1"))?;
        Ok(query.query_row([id.0], read_payment).optional()?)
    }

    /// Payments that can still change: all but those buried so deep that no reorganisation is looked for.
    pub(crate) fn open_payments(&self, tip: u32) -> Result<Vec<Payment>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM pedlar_payments WHERE state <> {FINAL} OR height > ?1 ORDER BY created_ms, rowid"
        );
        let mut query = self.db.prepare_cached(&sql)?;
        let rows = query.query_map([tip.saturating_sub(WATCH_DEPTH)], read_payment)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Each live payment's transaction, oldest first: a younger one may spend an older one's change.
    pub(crate) fn live_transactions(&self) -> Result<Vec<(PaymentId, Arc<Transaction>)>, StoreError> {
        let sql = format!(
            "SELECT id, raw FROM pedlar_payments WHERE {}
             ORDER BY created_ms, rowid",
            live()
        );
        let mut query = self.db.prepare_cached(&sql)?;
        let rows = query.query_map([], |row| {
            let raw: Vec<u8> = row.get(1)?;
            Ok((PaymentId(row.get(0)?), Arc::new(decode(&raw)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The transaction of a payment, while that is live.
    pub(crate) fn live_transaction(&self, id: PaymentId) -> Result<Option<Arc<Transaction>>, StoreError> {
        let sql = format!("SELECT raw FROM pedlar_payments WHERE id = ?1 AND {}", live());
        let mut query = self.db.prepare_cached(&sql)?;
        let raw: Option<Vec<u8>> = query.query_row([id.0], |row| row.get(0)).optional()?;
        Ok(raw.map(|raw| decode(&raw)).transpose()?.map(Arc::new))
    }

    /// sat and fees of live payments: on their way out.
    pub(crate) fn reserved_sat(&self) -> Result<u64, StoreError> {
        let sql = format!("SELECT coalesce(sum(sat + fee_sat), 0) FROM pedlar_payments WHERE {}", live());
        Ok(self.db.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
    }

    /// Records that a server took the payment's transaction.
    pub(crate) fn mark_broadcast(&mut self, id: PaymentId) -> Result<(), StoreError> {
        let sql = format!("UPDATE pedlar_payments SET state = {BROADCAST} WHERE id = ?1 AND state = {SIGNED}");
        self.commit(|tx| tx.execute(&sql, [id.0]))?;
        Ok(())
    }

    fn insert_intent(&mut self, terms: &Terms, now_ms: u64) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO pedlar_payments (id, address, sat, created_ms, state) VALUES (?1, ?2, ?3, ?4, {INTENT})"
        );
        self.commit(|tx| tx.execute(&sql, params![terms.id.0, terms.address.to_string(), terms.sat, now_ms]))?;
        Ok(())
    }

    fn insert_signed(&mut self, terms: &Terms, signed: &Transaction, fee_sat: u64) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE pedlar_payments SET state = {SIGNED}, txid = ?2, vout = ?3, raw = ?4, fee_sat = ?5 WHERE id = ?1"
        );
        let txid = signed.compute_txid().to_byte_array();
        let script = terms.address.script_pubkey();
        let vout = signed.output.iter().position(|output| output.script_pubkey == script);
        self.commit(|tx| tx.execute(&sql, params![terms.id.0, txid, vout, serialize(signed), fee_sat]))?;
        Ok(())
    }
}

/// Where each payment of `open` stands now, if that changed; `listed` are the transactions that the server just named.
pub(crate) fn changed_payments(open: Vec<Payment>, view: &View<'_>, listed: &HashSet<Txid>) -> Vec<Payment> {
    let step = |mut payment: Payment| {
        let txid = payment.txid?;
        let state = next_state(payment.state, view.standing(txid), listed.contains(&txid));
        (state != payment.state).then(|| {
            payment.state = state;
            payment
        })
    };
    open.into_iter().filter_map(step).collect()
}

fn next_state(state: PaymentState, standing: Standing, listed: bool) -> PaymentState {
    match standing {
        Standing::Confirmed { height, depth, .. } if depth >= FINAL_DEPTH => PaymentState::Final { height },
        Standing::Confirmed { height, depth, .. } => PaymentState::Confirmed { height, depth },
        Standing::Replaced { by, confirmed: true } => PaymentState::Conflicted { by },
        Standing::Replaced { by, confirmed: false } => PaymentState::Replaced { by },
        Standing::Unconfirmed | Standing::Gone if state == PaymentState::Signed && !listed => PaymentState::Signed,
        Standing::Unconfirmed | Standing::Gone => PaymentState::Broadcast,
    }
}

/// Writes a payment's state.
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
    tx.prepare_cached("UPDATE pedlar_payments SET state = ?2, height = ?3, depth = ?4, rival = ?5 WHERE id = ?1")?
        .execute(params![payment.id.0, state, height, depth, rival])?;
    Ok(())
}

/// The condition that a transaction may still have to be sent, so that its coins are not to be spent otherwise.
fn live() -> String {
    format!("state IN ({SIGNED}, {BROADCAST}, {REPLACED})")
}

const INTENT: u8 = 0;
const SIGNED: u8 = 1;
const BROADCAST: u8 = 2;
const CONFIRMED: u8 = 3;
const FINAL: u8 = 4;
const REPLACED: u8 = 5;
const CONFLICTED: u8 = 6;

fn read_payment(row: &Row<'_>) -> rusqlite::Result<Payment> {
    let address: String = row.get("address")?;
    let state: u8 = row.get("state")?;
    let rival = || row.get("rival").map(Txid::from_byte_array);
    Ok(Payment {
        id: PaymentId(row.get("id")?),
        address: address.parse().map(Address::assume_checked).map_err(unreadable)?,
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

fn decode(raw: &[u8]) -> rusqlite::Result<Transaction> {
    deserialize(raw).map_err(unreadable)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
}

/// What is to be paid.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) id: PaymentId,
    pub(crate) address: Address,
    pub(crate) sat: u64,
    pub(crate) max_fee_sat: u64,
}

/// Why nothing was paid.
#[derive(Debug, thiserror::Error)]
pub enum PayError {
    #[error("this id already pays {sat} sat to {address}: use a new id for another payment")]
    OtherTerms { address: Address, sat: u64 },
    #[error("the address is not one of {expected}")]
    OtherNetwork { expected: Network },
    #[error("too little to be sent: the least for this address is {min_sat} sat")]
    Dust { min_sat: u64 },
    #[error("not enough spendable coins: {have_sat} sat, needed {need_sat} sat with the fee")]
    Short { have_sat: u64, need_sat: u64 },
    #[error("the fee would be {fee_sat} sat, above the limit of {max_fee_sat} sat: wait, or raise the limit")]
    FeeAboveLimit { fee_sat: u64, max_fee_sat: u64 },
    #[error("the transaction could not be built or signed")]
    Unsignable,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Closed(#[from] crate::handle::Closed),
}
