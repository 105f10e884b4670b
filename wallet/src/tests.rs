//! A wallet's state fed by hand, in place of a server.

use std::sync::Arc;

use bdk_wallet::Update;
use bdk_wallet::chain::{BlockId, CheckPoint, ConfirmationBlockTime, TxUpdate};
use bitcoin::hashes::Hash;
use bitcoin::{Address, Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use bitcoin::{absolute, transaction};
use tempfile::TempDir;

use crate::chain::{AbsorbError, Absorbed};
use crate::keys::Words;
use crate::network::Network;
use crate::state::State;

const PHRASES: [&str; 2] = [
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
];

/// The wallet, and the chain that it is told of.
pub(crate) struct Feed {
    pub(crate) state: State,
    dir: TempDir,
    phrase: &'static str,
    blocks: Vec<BlockHash>,
    /// Ticks with each update, so that each is later than the last.
    now_s: u64,
    drawn: u8,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self::of(PHRASES[0])
    }

    /// The wallet of other words.
    pub(crate) fn other() -> Self {
        Self { drawn: 100, ..Self::of(PHRASES[1]) }
    }

    fn of(phrase: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
        Self { state: open(&dir, phrase), dir, phrase, blocks: vec![genesis], now_s: 1_700_000_000, drawn: 0 }
    }

    /// Closes the wallet and opens it again, as after a crash.
    pub(crate) fn reopen(self) -> Self {
        let Self { state, dir, .. } = self;
        drop(state);
        Self { state: open(&dir, self.phrase), dir, ..self }
    }

    /// A copy of the wallet as it is.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        self.state.copy_to(&copy.path().join("wallet.sqlite")).unwrap();
        copy
    }

    /// Loses the wallet, and goes on with a copy; the chain is as it is.
    pub(crate) fn back_from(self, copy: TempDir) -> Self {
        drop(self.state);
        let keys = Words::parse(self.phrase).unwrap().keys();
        crate::revive(copy.path(), Network::Regtest, keys, self.now_s * 1000).unwrap();
        Self { state: open(&copy, self.phrase), dir: copy, ..self }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_s * 1000
    }

    /// A transaction from nowhere that pays `to`.
    pub(crate) fn gift(&mut self, to: &Address, sat: u64) -> Transaction {
        self.drawn += 1;
        spend(OutPoint::new(Txid::from_byte_array([self.drawn; 32]), 0), to, sat)
    }

    /// A confirmed coin of the owner's.
    pub(crate) fn fund(&mut self, sat: u64) -> Transaction {
        let to = self.state.receive_address().unwrap();
        let tx = self.gift(&to, sat);
        self.mine(&[&tx]);
        tx
    }

    /// The server names `txs` as unconfirmed.
    pub(crate) fn show(&mut self, txs: &[&Transaction]) -> Absorbed {
        self.try_show(txs).unwrap()
    }

    pub(crate) fn try_show(&mut self, txs: &[&Transaction]) -> Result<Absorbed, AbsorbError> {
        self.absorb(txs, |update, now_s| {
            update.seen_ats = txs.iter().map(|tx| (tx.compute_txid(), now_s)).collect();
        })
    }

    /// The server no longer names `tx`.
    pub(crate) fn evict(&mut self, tx: &Transaction) -> Absorbed {
        let txid = tx.compute_txid();
        self.absorb(&[], |update, now_s| {
            update.evicted_ats.insert((txid, now_s));
        })
        .unwrap()
    }

    /// A block with `txs`.
    pub(crate) fn mine(&mut self, txs: &[&Transaction]) -> Absorbed {
        self.blocks.push(BlockHash::hash(&self.now_s.to_le_bytes()));
        self.mine_at(self.blocks.len() - 1, txs)
    }

    /// The server shows that `txs` are in a block of its chain.
    pub(crate) fn mine_at(&mut self, height: usize, txs: &[&Transaction]) -> Absorbed {
        let block_id = BlockId { height: height as u32, hash: self.blocks[height] };
        self.absorb(txs, |update, now_s| {
            let anchor = ConfirmationBlockTime { block_id, confirmation_time: now_s };
            update.anchors = txs.iter().map(|tx| (anchor, tx.compute_txid())).collect();
        })
        .unwrap()
    }

    /// So many empty blocks, told at once.
    pub(crate) fn blocks_of(&mut self, count: u32) {
        let more = (0..count)
            .map(|number| BlockHash::hash(&[self.now_s.to_le_bytes(), u64::from(number).to_le_bytes()].concat()));
        self.blocks.extend(more);
        self.absorb(&[], |_, _| ()).unwrap();
    }

    /// Replaces the last `depth` blocks by as many empty ones and one more.
    pub(crate) fn reorg(&mut self, depth: usize) -> Absorbed {
        self.blocks.truncate(self.blocks.len() - depth);
        for _ in 0..depth {
            self.now_s += 1;
            self.blocks.push(BlockHash::hash(&self.now_s.to_le_bytes()));
        }
        self.mine(&[])
    }

    fn absorb(
        &mut self,
        txs: &[&Transaction],
        fill: impl FnOnce(&mut TxUpdate<ConfirmationBlockTime>, u64),
    ) -> Result<Absorbed, AbsorbError> {
        self.now_s += 1;
        let mut tx_update = TxUpdate::default();
        tx_update.txs = txs.iter().map(|&tx| Arc::new(tx.clone())).collect();
        fill(&mut tx_update, self.now_s);
        let blocks = (0..).zip(&self.blocks).map(|(height, &hash)| BlockId { height, hash });
        let chain = Some(CheckPoint::from_block_ids(blocks).unwrap());
        let now_ms = self.now_ms();
        self.state.absorb(Update { tx_update, chain, ..Update::default() }, now_ms)
    }
}

fn open(dir: &TempDir, phrase: &str) -> State {
    State::open(dir.path(), Network::Regtest, Words::parse(phrase).unwrap().keys(), false).unwrap()
}

/// A transaction that moves `from` to `to`; nobody here checks signatures.
pub(crate) fn spend(from: OutPoint, to: &Address, sat: u64) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: from,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: to.script_pubkey() }],
    }
}

/// An address that isn't ours.
pub(crate) fn stranger() -> Address {
    Network::Regtest.parse_address("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080").unwrap()
}
