//! Chain, mempool and index moved together: what every public verb of the chain does, without lock and clock.

use std::collections::HashMap;

use bitcoin::block::Header;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};

use super::block::{self, Template};
use super::ledger::Ledger;
use super::mempool::{Entry, Mempool};
use super::purse::{FEE_SAT_PER_VB, FundError, Purse};
use super::rules::{self, COINBASE_MATURITY, Coin, Context, MAX_BLOCK_SIGOPS, MAX_TXS_WEIGHT, SubmitError};
use super::scripts::{ScriptHash, Scripts};

/// Why the chain was left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReorgError {
    /// Block 1 names the network and stays.
    #[error("a reorg of {depth} blocks would replace block 1, which names the network; at most {most} can go")]
    TooDeep {
        /// Asked for.
        depth: u32,
        /// Possible at this height.
        most: u32,
    },
    /// A chosen transaction is not valid on the new branch.
    #[error(transparent)]
    Refused(#[from] SubmitError),
}

/// Everything behind the lock.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) mempool: Mempool,
    pub(crate) scripts: Scripts,
    /// Told apart from other chains by this.
    tag: Vec<u8>,
    /// Blocks ever built, those that came off included.
    built: u64,
    /// Counts changes; each touched script knows its last one.
    revision: u64,
}

impl State {
    /// The genesis block alone.
    pub(super) fn new(tag: &[u8]) -> Self {
        Self {
            ledger: Ledger::new(),
            mempool: Mempool::default(),
            scripts: Scripts::default(),
            tag: tag.to_vec(),
            built: 0,
            revision: 0,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// A transaction and the height of its block, `None` while it waits.
    pub(crate) fn find(&self, txid: &Txid) -> Option<(&Transaction, Option<u32>)> {
        match self.ledger.confirmed(txid) {
            Some((tx, height)) => Some((tx, Some(height))),
            None => self.mempool.get(txid).map(|entry| (&entry.tx, None)),
        }
    }

    /// Takes a transaction into the mempool, in place of those it conflicts with if it pays for that.
    pub(super) fn submit(&mut self, tx: &Transaction) -> Result<Txid, SubmitError> {
        rules::check_form(tx)?;
        rules::check_standard(tx)?;
        let txid = tx.compute_txid();
        if self.mempool.get(&txid).is_some() {
            return Err(SubmitError::AlreadyInMempool);
        }
        if self.ledger.place(&txid).is_some() {
            return Err(SubmitError::AlreadyConfirmed);
        }
        let checked = rules::check_inputs(tx, &WithMempool { ledger: &self.ledger, mempool: &self.mempool })?;
        rules::check_fee(tx, &checked)?;
        let entry = Entry::new(tx.clone(), checked);
        let evicted = self.mempool.admit(&entry)?;
        rules::check_scripts(tx, &entry.spent)?;

        let revision = self.next_revision();
        for old in evicted {
            self.forget(&old, revision);
        }
        let entry = self.mempool.insert(txid, entry);
        for output in entry.outputs_touched() {
            self.scripts.edit(&output.script_pubkey, revision).pending.insert((entry.sequence, txid));
        }
        Ok(txid)
    }

    /// Puts the best of the mempool into a new block that pays `to`.
    pub(super) fn mine(&mut self, to: ScriptBuf, now: u32) -> BlockHash {
        let selected = self.mempool.select();
        let entries = selected.iter().filter_map(|txid| self.mempool.get(txid));
        let (fees, txs): (Vec<_>, Vec<_>) = entries.map(|entry| (entry.fee, entry.tx.clone())).unzip();
        self.extend(to, txs, fees.into_iter().sum(), now)
    }

    /// Replaces the last `depth` blocks by one more: the first with the chosen transactions, the others empty.
    ///
    /// What was in the old blocks, and what waited, waits again where it is still valid.
    pub(super) fn reorg(
        &mut self,
        depth: u32,
        chosen: &[Transaction],
        to: &ScriptBuf,
        now: u32,
    ) -> Result<BlockHash, ReorgError> {
        let most = self.ledger.height().saturating_sub(1);
        if depth > most {
            return Err(ReorgError::TooDeep { depth, most });
        }
        let revision = self.next_revision();
        let waiting: Vec<_> = self.mempool.in_order().iter().filter_map(|txid| self.forget(txid, revision)).collect();
        let mut old: Vec<_> = (0..depth).filter_map(|_| self.disconnect(revision)).collect();
        old.reverse();
        let fees = match self.check_block(chosen) {
            Ok(fees) => fees,
            Err(error) => {
                for (header, txs) in old {
                    self.connect(header, txs);
                }
                self.resubmit(waiting);
                return Err(error.into());
            }
        };
        let mut tip = self.extend(to.clone(), chosen.to_vec(), fees, now);
        for _ in 0..depth {
            tip = self.extend(to.clone(), Vec::new(), Amount::ZERO, now);
        }
        self.resubmit(old.into_iter().flat_map(|(_, txs)| txs).filter(|tx| !tx.is_coinbase()));
        self.resubmit(waiting);
        Ok(tip)
    }

    /// Pays from the purse's coins, by a transaction that waits in the mempool like any other.
    pub(super) fn fund(&mut self, purse: &Purse, to: ScriptBuf, amount: Amount) -> Result<Txid, FundError> {
        let tx = purse.pay(self.spendable(&ScriptHash::of(purse.script())), to, amount, FEE_SAT_PER_VB)?;
        Ok(self.submit(&tx)?)
    }

    /// What the next block could spend of a script's coins, confirmed ones first, the oldest of them at the front.
    fn spendable(&self, script: &ScriptHash) -> impl Iterator<Item = (OutPoint, Amount)> {
        let next = self.ledger.height().saturating_add(1);
        let record = self.scripts.get(script);
        let confirmed = record.into_iter().flat_map(|record| &record.coins).filter_map(move |(height, outpoint)| {
            let coin = self.ledger.coin(outpoint)?;
            let mature = !coin.coinbase || next.saturating_sub(*height) >= COINBASE_MATURITY;
            (mature && self.mempool.spender(outpoint).is_none()).then_some((*outpoint, coin.output.value))
        });
        confirmed.chain(self.pending_coins(script))
    }

    /// Checks transactions that are to be a block's, one on top of the other, and sums their fees.
    fn check_block(&self, txs: &[Transaction]) -> Result<Amount, SubmitError> {
        let mut view = WithBlock { ledger: &self.ledger, coins: HashMap::new() };
        let (mut fees, mut weight, mut sigops) = (Amount::ZERO, 0_u64, 0_usize);
        for tx in txs {
            rules::check_form(tx)?;
            let checked = rules::check_inputs(tx, &view)?;
            rules::check_scripts(tx, &checked.spent)?;
            view.apply(tx);
            fees += checked.fee;
            weight = weight.saturating_add(tx.weight().to_wu());
            sigops = sigops.saturating_add(checked.sigops);
        }
        if weight > MAX_TXS_WEIGHT || sigops > MAX_BLOCK_SIGOPS {
            return Err(SubmitError::BlockTooLarge);
        }
        Ok(fees)
    }

    fn extend(&mut self, to: ScriptBuf, txs: Vec<Transaction>, fees: Amount, now: u32) -> BlockHash {
        self.built = self.built.saturating_add(1);
        let mark = [self.tag.as_slice(), &self.built.to_be_bytes()].concat();
        let (header, txs) = block::build(Template {
            height: self.ledger.height().saturating_add(1),
            previous: self.ledger.tip().hash,
            time: self.ledger.next_time(now),
            to,
            fees,
            mark: &mark,
            txs,
        });
        self.connect(header, txs);
        header.block_hash()
    }

    fn connect(&mut self, header: Header, txs: Vec<Transaction>) {
        let revision = self.next_revision();
        self.ledger.connect(header, txs);
        let height = self.ledger.height();
        let block = self.ledger.tip();
        for (pos, outpoint, output) in block.creates() {
            let record = self.scripts.edit(&output.script_pubkey, revision);
            record.confirmed.insert((height, pos));
            record.coins.insert((height, outpoint));
        }
        for (pos, outpoint, coin) in block.spends() {
            let record = self.scripts.edit(&coin.output.script_pubkey, revision);
            record.confirmed.insert((height, pos));
            record.coins.remove(&(coin.height, outpoint));
        }
        for txid in block.txids.clone() {
            self.forget(&txid, revision);
            self.touch_children(txid, revision);
        }
    }

    fn disconnect(&mut self, revision: u64) -> Option<(Header, Vec<Transaction>)> {
        let height = self.ledger.height();
        let block = self.ledger.disconnect()?;
        for (pos, outpoint, coin) in block.spends() {
            let record = self.scripts.edit(&coin.output.script_pubkey, revision);
            record.confirmed.remove(&(height, pos));
            record.coins.insert((coin.height, outpoint));
        }
        for (pos, outpoint, output) in block.creates() {
            let record = self.scripts.edit(&output.script_pubkey, revision);
            record.confirmed.remove(&(height, pos));
            record.coins.remove(&(height, outpoint));
        }
        Some((block.header, block.txs))
    }

    /// Takes a transaction out of the mempool and its scripts' records, if it is there.
    fn forget(&mut self, txid: &Txid, revision: u64) -> Option<Transaction> {
        let entry = self.mempool.remove(txid)?;
        for output in entry.outputs_touched() {
            self.scripts.edit(&output.script_pubkey, revision).pending.remove(&(entry.sequence, *txid));
        }
        Some(entry.tx)
    }

    /// A confirmed parent changes how its waiting children are listed, so their scripts count as touched.
    fn touch_children(&mut self, parent: Txid, revision: u64) {
        for child in self.mempool.children(parent).filter_map(|child| self.mempool.get(&child)) {
            for output in child.outputs_touched() {
                self.scripts.edit(&output.script_pubkey, revision);
            }
        }
    }

    /// Offers transactions again after the chain has changed below them; those that are invalid now are dropped.
    fn resubmit(&mut self, txs: impl IntoIterator<Item = Transaction>) {
        for tx in txs {
            if let Err(reason) = self.submit(&tx) {
                tracing::debug!(txid = %tx.compute_txid(), %reason, "dropped in a reorg");
            }
        }
    }

    fn next_revision(&mut self) -> u64 {
        self.revision = self.revision.saturating_add(1);
        self.revision
    }
}

/// The next block as the mempool sees it: coins of what waits are there, coins that something waiting spends too
/// (that is a conflict, and replacement decides it).
struct WithMempool<'a> {
    ledger: &'a Ledger,
    mempool: &'a Mempool,
}

impl Context for WithMempool<'_> {
    fn height(&self) -> u32 {
        Context::height(self.ledger)
    }

    fn median_time(&self, height: u32) -> u32 {
        self.ledger.median_time(height)
    }

    fn coin(&self, outpoint: &OutPoint) -> Option<Coin> {
        let pending = || {
            let output = self.mempool.get(&outpoint.txid)?.tx.output.get(outpoint.vout as usize)?.clone();
            Some(Coin { output, height: Context::height(self.ledger), coinbase: false })
        };
        self.ledger.coin(outpoint).cloned().or_else(pending)
    }
}

/// The next block with some of its transactions in place.
struct WithBlock<'a> {
    ledger: &'a Ledger,
    /// Made (`Some`) or spent (`None`) inside the block.
    coins: HashMap<OutPoint, Option<Coin>>,
}

impl WithBlock<'_> {
    fn apply(&mut self, tx: &Transaction) {
        self.coins.extend(tx.input.iter().map(|input| (input.previous_output, None)));
        let height = Context::height(self.ledger);
        for (outpoint, output) in block::outputs(tx.compute_txid(), tx) {
            self.coins.insert(outpoint, Some(Coin { output: output.clone(), height, coinbase: false }));
        }
    }
}

impl Context for WithBlock<'_> {
    fn height(&self) -> u32 {
        Context::height(self.ledger)
    }

    fn median_time(&self, height: u32) -> u32 {
        self.ledger.median_time(height)
    }

    fn coin(&self, outpoint: &OutPoint) -> Option<Coin> {
        match self.coins.get(outpoint) {
            Some(changed) => changed.clone(),
            None => self.ledger.coin(outpoint).cloned(),
        }
    }
}
