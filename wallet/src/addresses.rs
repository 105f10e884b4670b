//! Who is to be paid at which address.
//!
//! One address per payee, stored before it is returned. An address that was never paid is given to another payee after
//! its time, so that the unpaid ones in a row stay within what a restore scans.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use bdk_wallet::KeychainKind;
use bdk_wallet::rusqlite::{OptionalExtension, params};
use bitcoin::Address;

use crate::state::{State, StoreError};

/// How long an address given to a payee should be kept for it while it is unpaid.
pub const ADDRESS_HOLD: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most addresses held unpaid at a time: below the gap that a restore scans, with room for the owner's own and for
/// those that a restore passes over.
pub const MAX_UNPAID_ADDRESSES: usize = 800;

/// For whom an address is: opaque here, chosen by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayeeRef(pub [u8; 32]);

impl fmt::Debug for PayeeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl State {
    /// The address of `payee`, the same each time, its own until `expires_ms` at least (ms since the epoch) and for
    /// ever once paid.
    ///
    /// # Errors
    ///
    /// [`AddressError::TooMany`] when [`MAX_UNPAID_ADDRESSES`] are held; [`AddressError::Restoring`] for a new one while
    /// it is not known which are free.
    pub(crate) fn address_for(
        &mut self,
        payee: PayeeRef,
        expires_ms: u64,
        now_ms: u64,
    ) -> Result<Address, AddressError> {
        let held = self.index_of(payee)?;
        let index = match held {
            Some(index) => index,
            None => self.free_index(now_ms)?,
        };
        let address = self.wallet.peek_address(KeychainKind::External, index).address;
        // Whoever had a freed index loses it here; a payee's own later expiry is kept.
        self.commit(|tx| {
            tx.execute(
                "DELETE FROM pedlar_addresses WHERE address_index = ?1 AND payee <> ?2",
                params![index, payee.0],
            )?;
            tx.execute(
                "INSERT INTO pedlar_addresses VALUES (?1, ?2, ?3)
                 ON CONFLICT (payee) DO UPDATE SET expires_ms = max(expires_ms, excluded.expires_ms)",
                params![payee.0, index, expires_ms],
            )
        })?;
        Ok(address)
    }

    /// Gives an address back to the payee to whom it was given before this wallet was restored, where it was paid in a
    /// block up to `height` and is nobody's; whether it is that payee's now.
    pub(crate) fn claim_address(
        &mut self,
        payee: PayeeRef,
        address: &Address,
        height: u32,
    ) -> Result<bool, StoreError> {
        let known = self.wallet.spk_index().index_of_spk(address.script_pubkey());
        let Some(&(KeychainKind::External, index)) = known else {
            return Ok(false);
        };
        let holder = "SELECT payee FROM pedlar_addresses WHERE address_index = ?1";
        let holder = self.db.query_row(holder, [index], |row| row.get(0).map(PayeeRef)).optional()?;
        if self.is_restoring()? || holder.is_some() || self.owners_index()? == Some(index) {
            return Ok(holder == Some(payee));
        }
        let mut paid = self.wallet.list_output().filter(|coin| {
            let early = coin.chain_position.confirmation_height_upper_bound().is_some_and(|block| block <= height);
            (coin.keychain, coin.derivation_index) == (KeychainKind::External, index) && early
        });
        if paid.next().is_none() || self.index_of(payee)?.is_some() {
            return Ok(false);
        }
        drop(paid);
        self.commit(|tx| tx.execute("INSERT INTO pedlar_addresses VALUES (?1, ?2, 0)", params![payee.0, index]))?;
        Ok(true)
    }

    /// An address for the owner: the same until it is paid, then a new one.
    ///
    /// # Errors
    ///
    /// [`AddressError::Restoring`] while it is not known which are free.
    pub(crate) fn receive_address(&mut self) -> Result<Address, AddressError> {
        if let Some(index) = self.owners_index()?.filter(|&index| !self.is_paid(index)) {
            return Ok(self.wallet.peek_address(KeychainKind::External, index).address);
        }
        if self.is_restoring()? {
            return Err(AddressError::Restoring);
        }
        let new = self.wallet.reveal_next_address(KeychainKind::External);
        self.commit(|tx| tx.execute("UPDATE pedlar_wallet SET receive_index = ?1", [new.index]))?;
        Ok(new.address)
    }

    fn owners_index(&self) -> Result<Option<u32>, StoreError> {
        Ok(self.db.query_row("SELECT receive_index FROM pedlar_wallet", [], |row| row.get(0))?)
    }

    fn index_of(&self, payee: PayeeRef) -> Result<Option<u32>, StoreError> {
        let sql = "SELECT address_index FROM pedlar_addresses WHERE payee = ?1";
        Ok(self.db.query_row(sql, [payee.0], |row| row.get(0)).optional()?)
    }

    /// The index that expired unpaid the longest ago, or a new one.
    fn free_index(&mut self, now_ms: u64) -> Result<u32, AddressError> {
        if self.is_restoring()? {
            return Err(AddressError::Restoring);
        }
        let unpaid = self.unpaid_addresses()?;
        if let Some(&(index, _)) = unpaid.first().filter(|&&(_, expires_ms)| expires_ms <= now_ms) {
            return Ok(index);
        }
        if unpaid.len() >= MAX_UNPAID_ADDRESSES {
            return Err(AddressError::TooMany);
        }
        Ok(self.wallet.reveal_next_address(KeychainKind::External).index)
    }

    /// Index and expiry of each address never paid, the soonest to expire first.
    pub(crate) fn unpaid_addresses(&self) -> Result<Vec<(u32, u64)>, StoreError> {
        let mut query =
            self.db.prepare_cached("SELECT address_index, expires_ms FROM pedlar_addresses ORDER BY expires_ms")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut all: Vec<(u32, u64)> = rows.collect::<Result<_, _>>()?;
        all.retain(|&(index, _)| !self.is_paid(index));
        Ok(all)
    }

    /// Whether any transaction, even one replaced since, ever paid to the address.
    fn is_paid(&self, index: u32) -> bool {
        self.wallet.spk_index().is_used(KeychainKind::External, index)
    }
}

/// Why a payee got no address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("{MAX_UNPAID_ADDRESSES} addresses wait for payment already: wait until one is paid or expires")]
    TooMany,
    #[error("the chain is still being searched for what this wallet did before it was restored")]
    Restoring,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Closed(#[from] crate::status::Closed),
}
