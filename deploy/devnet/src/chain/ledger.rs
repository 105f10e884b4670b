//! The active chain and its coins: blocks go on and come off at the tip, nothing is ever scanned.

use std::collections::HashMap;

use bitcoin::block::Header;
use bitcoin::{OutPoint, Transaction, Txid};

use super::block::{self, Stored};
use super::rules::{Coin, Context};

/// Blocks whose median is the time of the chain (BIP113).
const MEDIAN_SPAN: u32 = 11;

/// Every block from genesis to the tip, and the unspent outputs they leave.
#[derive(Clone)]
pub(crate) struct Ledger {
    /// Apart from the others because it never comes off; its coinbase is no coin, by consensus.
    genesis: Stored,
    /// From height 1 on.
    blocks: Vec<Stored>,
    coins: HashMap<OutPoint, Coin>,
    /// Height and position of each confirmed transaction.
    places: HashMap<Txid, (u32, u32)>,
}

impl Ledger {
    /// A chain of the genesis block alone.
    pub(super) fn new() -> Self {
        Self { genesis: block::genesis(), blocks: Vec::new(), coins: HashMap::new(), places: HashMap::new() }
    }

    /// Of the tip; genesis is 0.
    pub(crate) fn height(&self) -> u32 {
        u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn tip(&self) -> &Stored {
        self.blocks.last().unwrap_or(&self.genesis)
    }

    pub(crate) fn block(&self, height: u32) -> Option<&Stored> {
        match height.checked_sub(1) {
            None => Some(&self.genesis),
            Some(index) => self.blocks.get(index as usize),
        }
    }

    /// Height and position in its block of a confirmed transaction.
    pub(crate) fn place(&self, txid: &Txid) -> Option<(u32, u32)> {
        self.places.get(txid).copied()
    }

    pub(crate) fn txid_at(&self, height: u32, pos: u32) -> Option<Txid> {
        self.block(height)?.txids.get(pos as usize).copied()
    }

    /// A confirmed transaction and the height of its block.
    pub(crate) fn confirmed(&self, txid: &Txid) -> Option<(&Transaction, u32)> {
        let (height, pos) = self.place(txid)?;
        Some((self.block(height)?.txs.get(pos as usize)?, height))
    }

    pub(crate) fn coin(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    /// The earliest time that the next block may carry, or `now` if that is later; seconds since the epoch.
    pub(super) fn next_time(&self, now: u32) -> u32 {
        now.max(self.median_time(self.height()).saturating_add(1))
    }

    /// Median of the times of the block at `height` and the ten before it.
    pub(super) fn median_time(&self, height: u32) -> u32 {
        let first = height.saturating_sub(MEDIAN_SPAN - 1);
        let mut times: Vec<_> =
            (first..=height).filter_map(|at| self.block(at)).map(|block| block.header.time).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    /// Puts a block on the tip; its transactions were checked against exactly this tip.
    pub(super) fn connect(&mut self, header: Header, txs: Vec<Transaction>) {
        let height = self.height().saturating_add(1);
        let mut block = Stored::new(header, txs, Vec::new());
        for (pos, (txid, tx)) in (0..).zip(block.txids.iter().zip(&block.txs)) {
            self.places.insert(*txid, (height, pos));
            block.spent.extend(tx.input.iter().filter_map(|input| self.coins.remove(&input.previous_output)));
            for (outpoint, output) in block::outputs(*txid, tx) {
                self.coins.insert(outpoint, Coin { output: output.clone(), height, coinbase: pos == 0 });
            }
        }
        self.blocks.push(block);
    }

    /// Takes the tip off again and restores the coins it spent; genesis stays (`None`).
    pub(super) fn disconnect(&mut self) -> Option<Stored> {
        let block = self.blocks.pop()?;
        // Restored first, so that a coin made and spent inside the block ends up gone.
        for (_, outpoint, coin) in block.spends() {
            self.coins.insert(outpoint, coin.clone());
        }
        for (_, outpoint, _) in block.creates() {
            self.coins.remove(&outpoint);
        }
        for txid in &block.txids {
            self.places.remove(txid);
        }
        Some(block)
    }
}

/// The next block, and the coins of the ledger alone.
impl Context for Ledger {
    fn height(&self) -> u32 {
        self.height().saturating_add(1)
    }

    fn median_time(&self, height: u32) -> u32 {
        self.median_time(height)
    }

    fn coin(&self, outpoint: &OutPoint) -> Option<Coin> {
        self.coins.get(outpoint).cloned()
    }
}
