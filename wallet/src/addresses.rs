//! Who is to be paid at which address.
//!
//! One address per payee, stored before it is returned. An address that was never paid is given to another payee after
//! its time, so that the unpaid ones in a row stay within what a restore scans; what came to it long before it was given
//! is not the payee's.

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
/// How many blocks an address stays its payee's while it is unpaid, after it was given: two weeks and a day. Who was told
/// it may pay late, and clocks jump.
pub const ADDRESS_HOLD_BLOCKS: u32 = 2_160;
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

/// An address that a payee holds.
pub(crate) struct Held {
    pub(crate) index: u32,
    pub(crate) expires_ms: u64,
    /// How high the chain was when it was given.
    pub(crate) given_height: u32,
}

impl State {
    /// The address of `payee`, the same each time, its own until `expires_ms` (ms since the epoch) and for
    /// [`ADDRESS_HOLD_BLOCKS`] at least, and for ever once paid.
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
        let tip = self.wallet.latest_checkpoint().height();
        // Whoever had a freed index loses it here; a payee's own later expiry is kept.
        self.commit(|tx| {
            tx.execute(
                "DELETE FROM pedlar_addresses WHERE address_index = ?1 AND payee <> ?2",
                params![index, payee.0],
            )?;
            tx.execute(
                "INSERT INTO pedlar_addresses (payee, address_index, expires_ms, given_height) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (payee) DO UPDATE SET expires_ms = max(expires_ms, excluded.expires_ms)",
                params![payee.0, index, expires_ms, tip],
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
        let claimable = self.claimable(payee, address, height)?;
        if let Claimable::Free(index) = claimable {
            let sql = "INSERT INTO pedlar_addresses (payee, address_index, expires_ms) VALUES (?1, ?2, 0)";
            self.commit(|tx| tx.execute(sql, params![payee.0, index]))?;
        }
        Ok(claimable != Claimable::Never)
    }

    /// How an address stands to a payee who has a word for it; see [`State::claim_address`].
    pub(crate) fn claimable(&self, payee: PayeeRef, address: &Address, height: u32) -> Result<Claimable, StoreError> {
        let known = self.wallet.spk_index().index_of_spk(address.script_pubkey());
        let Some(&(KeychainKind::External, index)) = known else {
            return Ok(Claimable::Never);
        };
        let holder = "SELECT payee FROM pedlar_addresses WHERE address_index = ?1";
        let holder = self.db.query_row(holder, [index], |row| row.get(0).map(PayeeRef)).optional()?;
        if self.is_restoring()? || holder.is_some() || self.owners_index()? == Some(index) {
            return Ok(if holder == Some(payee) { Claimable::Held } else { Claimable::Never });
        }
        let mut paid = self.wallet.list_output().filter(|coin| {
            let early = coin.chain_position.confirmation_height_upper_bound().is_some_and(|block| block <= height);
            (coin.keychain, coin.derivation_index) == (KeychainKind::External, index) && early
        });
        if paid.next().is_none() || self.index_of(payee)?.is_some() {
            return Ok(Claimable::Never);
        }
        Ok(Claimable::Free(index))
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
        let tip = self.wallet.latest_checkpoint().height();
        let is_free = |held: &&Held| held.expires_ms <= now_ms && held.given_height + ADDRESS_HOLD_BLOCKS < tip;
        if let Some(held) = unpaid.iter().find(is_free) {
            return Ok(held.index);
        }
        if unpaid.len() >= MAX_UNPAID_ADDRESSES {
            return Err(AddressError::TooMany);
        }
        Ok(self.wallet.reveal_next_address(KeychainKind::External).index)
    }

    /// Each address never paid, the soonest to expire first.
    pub(crate) fn unpaid_addresses(&self) -> Result<Vec<Held>, StoreError> {
        let sql = "SELECT address_index, expires_ms, given_height FROM pedlar_addresses ORDER BY expires_ms";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query
            .query_map([], |row| Ok(Held { index: row.get(0)?, expires_ms: row.get(1)?, given_height: row.get(2)? }))?;
        let mut all: Vec<Held> = rows.collect::<Result<_, _>>()?;
        all.retain(|held| !self.is_paid(held.index));
        Ok(all)
    }

    /// Whether any transaction, even one replaced since, ever paid to the address.
    fn is_paid(&self, index: u32) -> bool {
        self.wallet.spk_index().is_used(KeychainKind::External, index)
    }
}

/// How an address stands to a payee who has a word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimable {
    /// It is the payee's.
    Held,
    /// It was paid in time, and is nobody's: its index.
    Free(u32),
    /// It is another's, was not paid in time, or is none of ours.
    Never,
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
