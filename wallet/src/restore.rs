//! A wallet that comes back from its words or from a copy of its file: what was done since the copy was made, or ever,
//! is searched for in the chain first.
//!
//! **Invariant:** until the search has ended, nothing is signed and no address is given out: a payment that the copy
//! does not know might be made twice, an address that it takes for free might be somebody's.

#[cfg(test)]
mod tests;

use std::path::Path;

use bdk_wallet::KeychainKind;
use bdk_wallet::rusqlite::{self, DatabaseName};
use bitcoin::BlockHash;

use crate::keys::Keys;
use crate::network::Network;
use crate::state::{OpenError, State, StoreError};

/// Addresses after the last one known that are passed over when the search ends: they may have been given to payees who
/// have not paid yet. More than all strangers together may hold, and few enough that the next search bridges them.
pub(crate) const PASSED_OVER: u32 = 128;

/// Keys of channels that are passed over: as many may have been allotted since the copy was made.
const KEYS_PASSED_OVER: u32 = 1_000;

/// Makes the copy of a wallet's file in `dir` a wallet that searches the chain at its next start; what it has of payees
/// whose time is over is forgotten, since others may have got their addresses. The chain's block 1, where it is known.
///
/// # Errors
///
/// As [`crate::WalletHandle::open`]; also when the copy is damaged in any part.
pub fn revive(dir: &Path, network: Network, keys: Keys, now_ms: u64) -> Result<Option<BlockHash>, OpenError> {
    let mut state = State::open(dir, network, keys, true)?;
    state.check_pages()?;
    state.begin_search(now_ms)?;
    Ok(state.block_1()?)
}

impl State {
    /// Copies the file as it is at this moment to `path`.
    ///
    /// # Errors
    ///
    /// When either file refuses.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        Ok(self.db.backup(DatabaseName::Main, path, None)?)
    }

    fn check_pages(&self) -> Result<(), OpenError> {
        let verdict: String = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict == "ok" { Ok(()) } else { Err(OpenError::Damaged) }
    }

    fn begin_search(&mut self, now_ms: u64) -> Result<(), StoreError> {
        let unpaid = self.unpaid_addresses()?;
        let expired = unpaid.iter().filter(|held| held.expires_ms <= now_ms);
        self.commit(|tx| {
            for held in expired {
                tx.execute("DELETE FROM pedlar_addresses WHERE address_index = ?1", [held.index])?;
            }
            tx.execute("UPDATE pedlar_wallet SET restoring = 1, channel_keys = channel_keys + ?1", [KEYS_PASSED_OVER])
        })?;
        Ok(())
    }

    /// Ends the search for good: payments are what the chain says, and addresses begin after all that may be given out.
    ///
    /// # Errors
    ///
    /// When the file can't be written; then the search has not ended.
    pub(crate) fn end_search(&mut self) -> Result<(), StoreError> {
        self.adopt_rivals()?;
        let last = self.wallet.derivation_index(KeychainKind::External);
        let free = last.map_or(0, |last| last.saturating_add(1)).saturating_add(PASSED_OVER);
        // Revealed, they are looked at: who holds one may still pay.
        drop(self.wallet.reveal_addresses_to(KeychainKind::External, free.saturating_sub(1)));
        self.commit(|tx| -> rusqlite::Result<_> { tx.execute("UPDATE pedlar_wallet SET restoring = 0", []) })?;
        Ok(())
    }
}
