//! The coins and `wallet.sqlite`: BDK's tables and ours in one file, changed together or not at all.

#[cfg(test)]
mod tests;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use bdk_wallet::error::{LoadError, LoadMismatch};
use bdk_wallet::rusqlite::{self, Connection, ErrorCode, OptionalExtension, Transaction, params};
use bdk_wallet::template::{Bip84Public, DescriptorTemplate};
use bdk_wallet::{ChangeSet, CreateParams, KeychainKind, LoadParams, Wallet};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;

use crate::channel::Watch;
use crate::electrum::{Fingerprint, ServerUrl};
use crate::keys::Keys;
use crate::ladder::{Ladder, LadderError};
use crate::network::Network;

/// The name of the wallet's file in its folder.
pub const FILE_NAME: &str = "wallet.sqlite";
/// Our tables. BDK's carry versions of their own: where a new BDK changes them, a step of ours comes with it, empty if
/// need be, so that a copy of the file is kept before.
pub(crate) const LADDER: Ladder = Ladder { steps: &[STEP_1, STEP_2, STEP_3, STEP_4], exclusive: true };
const STEP_1: &str = "
CREATE TABLE pedlar_wallet (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    block_1       BLOB,              -- hash of block 1, once a server showed it
    receive_index INTEGER,           -- the owner's address under external keychain
    restoring     INTEGER NOT NULL   -- 1 until the chain was searched for the words' coins
) STRICT;
CREATE TABLE pedlar_pins (
    server      TEXT PRIMARY KEY,
    certificate BLOB NOT NULL
) STRICT;
CREATE TABLE pedlar_addresses (
    payee         BLOB PRIMARY KEY,
    address_index INTEGER NOT NULL UNIQUE,
    expires_ms    INTEGER NOT NULL
) STRICT;
CREATE TABLE pedlar_payments (
    id         BLOB PRIMARY KEY,
    address    TEXT NOT NULL,
    sat        INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    txid       BLOB,
    vout       INTEGER,              -- of the output that pays
    raw        BLOB,
    fee_sat    INTEGER,
    height     INTEGER,
    depth      INTEGER,
    rival      BLOB
) STRICT;
CREATE TABLE pedlar_incoming (
    txid       BLOB NOT NULL,
    vout       INTEGER NOT NULL,
    payee      BLOB NOT NULL,
    sat        INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    height     INTEGER,
    depth      INTEGER,
    hash       BLOB,                 -- of the block, or of the replacing transaction
    PRIMARY KEY (txid, vout)
) STRICT, WITHOUT ROWID;
";
/// A payment has versions, and a transaction may make several payments.
const STEP_2: &str = "
CREATE TABLE pedlar_transactions (
    txid BLOB PRIMARY KEY,
    raw  BLOB NOT NULL
) STRICT;
CREATE TABLE pedlar_versions (
    payment BLOB NOT NULL REFERENCES pedlar_payments (id),
    number  INTEGER NOT NULL,    -- from 1; the newest has the highest
    txid    BLOB NOT NULL REFERENCES pedlar_transactions (txid),
    vout    INTEGER NOT NULL,    -- of the output that pays
    fee_sat INTEGER NOT NULL,    -- the payment's part of the fee
    PRIMARY KEY (payment, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX pedlar_versions_of ON pedlar_versions (txid);
INSERT INTO pedlar_transactions SELECT txid, raw FROM pedlar_payments WHERE txid IS NOT NULL;
INSERT INTO pedlar_versions SELECT id, 1, txid, vout, fee_sat FROM pedlar_payments WHERE txid IS NOT NULL;
ALTER TABLE pedlar_payments ADD COLUMN version INTEGER; -- the one that is in a block, or is sent
UPDATE pedlar_payments SET version = 1 WHERE txid IS NOT NULL;
ALTER TABLE pedlar_payments DROP COLUMN txid;
ALTER TABLE pedlar_payments DROP COLUMN vout;
ALTER TABLE pedlar_payments DROP COLUMN raw;
ALTER TABLE pedlar_payments DROP COLUMN fee_sat;
";
/// How high the chain was when an address was given out; 0 where that is not known.
const STEP_3: &str = "ALTER TABLE pedlar_addresses ADD COLUMN given_height INTEGER NOT NULL DEFAULT 0;";
/// Channels, and the transactions of ours that end them.
const STEP_4: &str = "
ALTER TABLE pedlar_wallet ADD COLUMN channel_keys INTEGER NOT NULL DEFAULT 0; -- how many were ever allotted
CREATE TABLE pedlar_channels (
    id            BLOB PRIMARY KEY,
    role          INTEGER NOT NULL,           -- ours: 0 buyer, 1 seller
    key_index     INTEGER NOT NULL UNIQUE,
    change_index  INTEGER,                    -- the buyer's address under internal keychain
    buyer_pk      BLOB,                       -- this and what follows once it was agreed on
    seller_pk     BLOB,
    capacity_sat  INTEGER,
    expiry_height INTEGER,
    change_spk    BLOB,
    close_fee_sat INTEGER,
    payment       BLOB,                       -- the buyer's, which funds it
    funding_txid  BLOB,                       -- the seller was told
    funding_vout  INTEGER,
    signed_sat    INTEGER NOT NULL DEFAULT 0, -- the most that the buyer signed for
    ended         INTEGER NOT NULL DEFAULT 0  -- 1 when nothing of it is looked at any more
) STRICT;
CREATE UNIQUE INDEX pedlar_channels_by_payment ON pedlar_channels (payment);
CREATE TABLE pedlar_ends (
    txid    BLOB PRIMARY KEY,
    raw     BLOB NOT NULL,
    kind    INTEGER NOT NULL,
    fee_sat INTEGER NOT NULL,
    state   INTEGER NOT NULL,
    newest  INTEGER NOT NULL                  -- 0 when a later one took its place
) STRICT;
CREATE TABLE pedlar_ended (
    txid    BLOB NOT NULL REFERENCES pedlar_ends (txid),
    place   INTEGER NOT NULL,                 -- of the input
    channel BLOB NOT NULL REFERENCES pedlar_channels (id),
    cum_sat INTEGER,                          -- of the voucher, where it is by one
    sig     BLOB,
    PRIMARY KEY (txid, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX pedlar_ended_channels ON pedlar_ended (channel);
";

/// The wallet's whole durable state.
///
/// **Invariant:** what `wallet` has staged is written by the next [`State::commit`], in one transaction with the rows
/// of the same change.
pub(crate) struct State {
    pub(crate) wallet: Wallet,
    pub(crate) db: Connection,
    pub(crate) keys: Keys,
    pub(crate) network: Network,
    /// The channels that are looked at, as they were last told.
    pub(crate) channels: Watch,
    /// Why the last change is not in the file.
    unwritten: Option<String>,
}

impl State {
    /// Opens the wallet of `keys` in `dir`, or makes it (folder 0700, file 0600).
    ///
    /// `restore`: a wallet made now has a past, search the chain for it.
    ///
    /// # Errors
    ///
    /// Also when the file is open elsewhere, or belongs to other words or another network.
    pub(crate) fn open(dir: &Path, network: Network, keys: Keys, restore: bool) -> Result<Self, OpenError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // Exclusive: two processes on one wallet would pay twice with one coin.
        let (db, stored) = LADDER.open(&dir.join(FILE_NAME), |tx, found| {
            begin(tx, found, restore)?;
            ChangeSet::init_sqlite_tables(tx)?;
            ChangeSet::from_sqlite(tx)
        })?;
        db.pragma_update(None, "foreign_keys", true)?;
        let wallet = load(stored, network, &keys)?;
        let mut state = Self { wallet, db, keys, network, channels: Watch::new(), unwritten: None };
        state.commit(|_| Ok(()))?;
        state.load_channels()?;
        Ok(state)
    }

    /// Writes what the wallet has staged and what `rows` writes, together; on failure the staged changes stay staged.
    ///
    /// # Errors
    ///
    /// When the file can't be written; then nothing of this change was.
    pub(crate) fn commit<T>(
        &mut self,
        rows: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let written = self.write(rows);
        self.unwritten = written.as_ref().err().map(ToString::to_string);
        written
    }

    /// Why the last change is not in the file, where it is not.
    pub(crate) fn unwritten(&self) -> Option<&String> {
        self.unwritten.as_ref()
    }

    fn write<T>(&mut self, rows: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let tx = self.db.transaction()?;
        if let Some(staged) = self.wallet.staged() {
            staged.persist_to_sqlite(&tx)?;
        }
        let value = rows(&tx)?;
        tx.commit()?;
        drop(self.wallet.take_staged());
        Ok(value)
    }

    /// The hash of block 1 of the chain that this wallet lives on, once a server showed it.
    pub(crate) fn block_1(&self) -> Result<Option<BlockHash>, StoreError> {
        let hash: Option<[u8; 32]> = self.db.query_row("SELECT block_1 FROM pedlar_wallet", [], |row| row.get(0))?;
        Ok(hash.map(BlockHash::from_byte_array))
    }

    /// The certificate pinned for a server.
    pub(crate) fn pin(&self, server: &ServerUrl) -> Result<Option<Fingerprint>, StoreError> {
        let sql = "SELECT certificate FROM pedlar_pins WHERE server = ?1";
        let pin = self.db.query_row(sql, [server.to_string()], |row| row.get(0)).optional()?;
        Ok(pin.map(Fingerprint))
    }

    /// Remembers what a server showed when it was first connected to.
    pub(crate) fn meet(
        &mut self,
        server: &ServerUrl,
        certificate: Option<Fingerprint>,
        block_1: BlockHash,
    ) -> Result<(), StoreError> {
        self.commit(|tx| {
            if let Some(Fingerprint(certificate)) = certificate {
                tx.execute(
                    "INSERT OR IGNORE INTO pedlar_pins VALUES (?1, ?2)",
                    params![server.to_string(), certificate],
                )?;
            }
            tx.execute("UPDATE pedlar_wallet SET block_1 = ?1", [block_1.to_byte_array()])
        })?;
        Ok(())
    }

    /// Pins a certificate in place of the one pinned before.
    pub(crate) fn trust(&mut self, server: &ServerUrl, certificate: Fingerprint) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO pedlar_pins VALUES (?1, ?2)";
        self.commit(|tx| tx.execute(sql, params![server.to_string(), certificate.0]))?;
        Ok(())
    }

    /// Whether the chain has yet to be searched for the coins of restored words.
    pub(crate) fn is_restoring(&self) -> Result<bool, StoreError> {
        Ok(self.db.query_row("SELECT restoring FROM pedlar_wallet", [], |row| row.get(0))?)
    }
}

/// What stands in our tables from the start.
pub(crate) fn begin(tx: &Transaction<'_>, found: u32, restore: bool) -> rusqlite::Result<()> {
    if found == 0 {
        tx.execute("INSERT INTO pedlar_wallet (one, restoring) VALUES (1, ?1)", [restore])?;
    }
    Ok(())
}

fn load(stored: ChangeSet, network: Network, keys: &Keys) -> Result<Wallet, OpenError> {
    let network = bitcoin::Network::from(network);
    let (fingerprint, account) = keys.account(network, &Secp256k1::new()).map_err(|_| OpenError::BadSeed)?;
    let descriptor =
        |keychain| Bip84Public(account, fingerprint, keychain).build(network.into()).map_err(|_| OpenError::BadSeed);
    let (external, internal) = (descriptor(KeychainKind::External)?, descriptor(KeychainKind::Internal)?);
    let loaded = LoadParams::new()
        .descriptor(KeychainKind::External, Some(external.clone()))
        .descriptor(KeychainKind::Internal, Some(internal.clone()))
        .check_network(network)
        .load_wallet_no_persist(stored)
        .map_err(|e| match e {
            LoadError::Mismatch(LoadMismatch::Descriptor { .. }) => OpenError::OtherWords,
            LoadError::Mismatch(LoadMismatch::Network { .. } | LoadMismatch::Genesis { .. }) => OpenError::OtherNetwork,
            _ => OpenError::Damaged,
        })?;
    match loaded {
        Some(wallet) => Ok(wallet),
        None => CreateParams::new(external, internal)
            .network(network)
            .create_wallet_no_persist()
            .map_err(|_| OpenError::BadSeed),
    }
}

/// `wallet.sqlite` could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{FILE_NAME}: {0} (is the disk full or read-only?)")]
pub struct StoreError(#[from] pub(crate) rusqlite::Error);

/// Why a wallet could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the wallet is open in another process: stop that one first")]
    Locked,
    #[error("{FILE_NAME} belongs to other words: use the words it was made with, or another home")]
    OtherWords,
    #[error("{FILE_NAME} belongs to another network: use another home")]
    OtherNetwork,
    #[error(transparent)]
    Version(LadderError),
    #[error("{FILE_NAME} is damaged: move it away and restore the wallet from its words")]
    Damaged,
    #[error("these words give no usable key (one chance in 2^127): use other words")]
    BadSeed,
    #[error("no Electrum server is configured: give at least one, as ssl://host:port")]
    NoServer,
    #[error("{FILE_NAME}: {0}")]
    Database(rusqlite::Error),
    #[error("the wallet's folder or thread could not be made: {0}")]
    Io(#[from] io::Error),
}

impl From<StoreError> for OpenError {
    fn from(StoreError(error): StoreError) -> Self {
        error.into()
    }
}

impl From<LadderError> for OpenError {
    fn from(error: LadderError) -> Self {
        match error {
            LadderError::Sqlite(error) => error.into(),
            LadderError::Io { source, .. } => Self::Io(source),
            LadderError::Newer { .. } | LadderError::Copy { .. } => Self::Version(error),
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged,
            _ => Self::Database(error),
        }
    }
}
