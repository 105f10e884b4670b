//! An in-memory regtest chain that checks what it is given.
//!
//! Real headers with proof of work, real signed transactions, scripts run by libbitcoinconsensus (taproot included),
//! and the mempool policy that decides whether a wallet's payment would travel on a real network. Blocks come on
//! demand, so tests own the time; reorgs and competing blocks come on demand too.
//!
//! Layout: `rules` says what is valid, `block` builds blocks, `ledger` holds chain and coins, `mempool` what waits,
//! `scripts` the index by address, `state` moves them together, `views` reads them for Electrum, `purse` pays.
//!
//! **Invariant:** whatever the order of calls, chain, mempool and index agree; only [`Chain`] knows lock and clock.

mod block;
mod ledger;
mod mempool;
mod purse;
mod rules;
mod scripts;
mod state;
mod views;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::block::Header;
use bitcoin::{Address, Amount, Block, BlockHash, Script, Transaction, Txid};
use tokio::sync::watch;

pub use purse::{FundError, Purse};
pub use rules::{COINBASE_MATURITY, MIN_RELAY_SAT_PER_VB, SubmitError};
pub use scripts::ScriptHash;
pub use state::ReorgError;

pub(crate) use state::State;
pub(crate) use views::HistoryLine;

/// Blocks that a new chain starts with: all of the first halving period, 51 of them mature, 2,550 BTC to fund with.
pub const FIRST_BLOCKS: u32 = 150;
/// Distance of those blocks in time; they end now, as if the chain had been running.
const FIRST_SPACING_S: u32 = 600;

/// A handle to one chain; clones share it.
#[derive(Clone)]
pub struct Chain {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    purse: Purse,
    /// Of the state, for those who wait.
    revision: watch::Sender<u64>,
}

/// A transaction and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// In full, with its witnesses.
    pub tx: Transaction,
    /// Of its block; `None` while it waits in the mempool.
    pub height: Option<u32>,
}

impl Chain {
    /// A chain of [`FIRST_BLOCKS`] blocks, all mined to the chain's own purse.
    ///
    /// `tag` goes into every coinbase, so that no two chains share block 1: give each devnet its own random bytes.
    pub fn new(tag: &[u8]) -> Self {
        let purse = Purse::new(tag);
        let mut state = State::new(tag);
        let start = now().saturating_sub(FIRST_BLOCKS * FIRST_SPACING_S);
        for block in 1..=FIRST_BLOCKS {
            state.mine(purse.script().clone(), start.saturating_add(block * FIRST_SPACING_S));
        }
        let revision = watch::Sender::new(state.revision());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), purse, revision }) }
    }

    /// A chain of its own that begins as this one is: what happens on either, the other doesn't see.
    #[must_use]
    pub fn fork(&self) -> Self {
        let (state, purse) = (self.lock().clone(), self.shared.purse.clone());
        let revision = watch::Sender::new(state.revision());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), purse, revision }) }
    }

    /// What tells this chain from other regtest chains: the first 8 hex digits of the hash of block 1.
    pub fn network_id(&self) -> String {
        self.block_hash(1).map(|hash| hash.to_string().chars().take(8).collect()).unwrap_or_default()
    }

    /// Height of the tip; genesis is 0.
    pub fn height(&self) -> u32 {
        self.lock().ledger.height()
    }

    /// Height and header of the tip.
    pub fn tip(&self) -> (u32, Header) {
        let state = self.lock();
        (state.ledger.height(), state.ledger.tip().header)
    }

    /// The hash of the block at this height, if there is one.
    pub fn block_hash(&self, height: u32) -> Option<BlockHash> {
        self.lock().ledger.block(height).map(|block| block.hash)
    }

    /// The block at this height, if there is one.
    pub fn block(&self, height: u32) -> Option<Block> {
        self.lock().ledger.block(height).map(|block| Block { header: block.header, txdata: block.txs.clone() })
    }

    /// Mines `blocks` blocks that pay `to`, each with the best of the mempool; returns the tip's hash.
    pub fn mine(&self, blocks: u32, to: &Script) -> BlockHash {
        for _ in 0..blocks {
            // Locked for one block at a time, so that a long run starves nobody.
            self.change(|state| state.mine(to.into(), now()));
        }
        self.lock().ledger.tip().hash
    }

    /// Mines `blocks` blocks to the chain's own purse.
    pub fn mine_to_self(&self, blocks: u32) -> BlockHash {
        self.mine(blocks, self.shared.purse.script())
    }

    /// Mines one block of exactly these transactions, parents first; no policy applies, only consensus.
    ///
    /// What conflicts with them leaves the mempool. This is how a double spend gets past a waiting transaction.
    ///
    /// # Errors
    /// The first rule that one of them breaks; the chain is then as it was.
    pub fn mine_with(&self, txs: &[Transaction]) -> Result<BlockHash, ReorgError> {
        self.reorg_with(0, txs)
    }

    /// Replaces the last `depth` blocks by `depth + 1` empty ones; returns the new tip's hash.
    ///
    /// Their transactions wait in the mempool again, where they are still valid and pay the fee floor.
    ///
    /// # Errors
    /// See [`ReorgError`]; the chain is then as it was.
    pub fn reorg(&self, depth: u32) -> Result<BlockHash, ReorgError> {
        self.reorg_with(depth, &[])
    }

    /// As [`Chain::reorg`], but the first of the new blocks holds exactly these transactions.
    ///
    /// # Errors
    /// See [`ReorgError`]; the chain is then as it was.
    pub fn reorg_with(&self, depth: u32, txs: &[Transaction]) -> Result<BlockHash, ReorgError> {
        self.change(|state| state.reorg(depth, txs, self.shared.purse.script(), now()))
    }

    /// Pays `amount` to an address from the chain's purse; mine a block to confirm it.
    ///
    /// # Errors
    /// See [`FundError`].
    pub fn fund(&self, to: &Address, amount: Amount) -> Result<Txid, FundError> {
        self.change(|state| state.fund(&self.shared.purse, to.script_pubkey(), amount))
    }

    /// Offers a transaction to the mempool.
    ///
    /// # Errors
    /// The rule that it broke, in the words of Bitcoin Core.
    pub fn submit(&self, tx: &Transaction) -> Result<Txid, SubmitError> {
        self.change(|state| state.submit(tx))
    }

    /// Ids of what waits, in order of arrival.
    pub fn mempool(&self) -> Vec<Txid> {
        self.lock().mempool.in_order()
    }

    /// The transaction, confirmed or waiting.
    pub fn tx(&self, txid: &Txid) -> Option<Located> {
        self.read(|state| {
            let (tx, height) = state.find(txid)?;
            Some(Located { tx: tx.clone(), height })
        })
    }

    /// Wakes up after every change; the value counts changes and means nothing else.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// A consistent look at everything.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock())
    }

    fn change<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let revision = state.revision();
        self.shared.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        result
    }

    /// A poisoned lock is taken: nothing under it panics by itself, and a test that does is failing anyway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since the epoch; headers have 32 bits for it.
fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
