//! What the state looks like from one script, as the Electrum protocol tells it.

use bitcoin::hashes::{HashEngine, sha256};
use bitcoin::{Amount, OutPoint, Txid};

use super::rules::{MAX_TXS_WEIGHT, MIN_RELAY_SAT_PER_VB};
use super::scripts::{Record, ScriptHash};
use super::state::State;

/// One line of a script's history.
pub(crate) struct HistoryLine {
    pub(crate) txid: Txid,
    /// Of its block; 0 while it waits, -1 while a parent of it waits too.
    pub(crate) height: i64,
    /// Known while it waits.
    pub(crate) fee: Option<Amount>,
}

/// A coin of a script.
pub(crate) struct Unspent {
    pub(crate) outpoint: OutPoint,
    pub(crate) value: Amount,
    /// Of its block; 0 while it waits.
    pub(crate) height: u32,
}

impl State {
    /// Confirmed transactions in the order of the chain, then waiting ones in order of arrival.
    pub(crate) fn history(&self, script: &ScriptHash) -> Vec<HistoryLine> {
        let Some(record) = self.scripts.get(script) else { return Vec::new() };
        let confirmed = record.confirmed.iter().filter_map(|(height, pos)| {
            let txid = self.ledger.txid_at(*height, *pos)?;
            Some(HistoryLine { txid, height: i64::from(*height), fee: None })
        });
        confirmed.chain(self.pending_lines(record)).collect()
    }

    /// The waiting part of the history.
    pub(crate) fn pending(&self, script: &ScriptHash) -> Vec<HistoryLine> {
        self.scripts.get(script).map(|record| self.pending_lines(record).collect()).unwrap_or_default()
    }

    /// A digest of the history, `None` for an empty one.
    ///
    /// Source: Electrum protocol 1.4, "Status".
    pub(crate) fn status(&self, script: &ScriptHash) -> Option<sha256::Hash> {
        let history = self.history(script);
        if history.is_empty() {
            return None;
        }
        let mut engine = <sha256::Hash as bitcoin::hashes::Hash>::engine();
        for HistoryLine { txid, height, .. } in history {
            engine.input(format!("{txid}:{height}:").as_bytes());
        }
        Some(bitcoin::hashes::Hash::from_engine(engine))
    }

    /// Coins that nothing spends, not even something waiting; confirmed ones first.
    pub(crate) fn unspent(&self, script: &ScriptHash) -> Vec<Unspent> {
        let confirmed = self.confirmed_coins(script).filter(|coin| self.mempool.spender(&coin.outpoint).is_none());
        let pending = self.pending_coins(script).map(|(outpoint, value)| Unspent { outpoint, value, height: 0 });
        confirmed.chain(pending).collect()
    }

    /// Confirmed sat, and what the mempool will add to or take from them.
    pub(crate) fn balance(&self, script: &ScriptHash) -> (u64, i64) {
        let confirmed: Amount = self.confirmed_coins(script).map(|coin| coin.value).sum();
        let after: Amount = self.unspent(script).iter().map(|coin| coin.value).sum();
        // Both are below 21 million bitcoin, so neither cast loses anything.
        (confirmed.to_sat(), after.to_sat() as i64 - confirmed.to_sat() as i64)
    }

    /// What a transaction should pay to be mined within `blocks`, in sat/vB: the floor while there is room for all.
    pub(crate) fn estimate_fee(&self, blocks: u32) -> f64 {
        let room = u64::from(blocks.max(1)).saturating_mul(MAX_TXS_WEIGHT);
        let floor = MIN_RELAY_SAT_PER_VB as f64;
        if self.mempool.weight() <= room {
            return floor;
        }
        let mut taken = 0_u64;
        let within = self.mempool.by_rate().take_while(|(_, entry)| {
            taken = taken.saturating_add(entry.weight);
            taken <= room
        });
        within.last().map_or(floor, |(_, entry)| entry.rate().sat_per_vb())
    }

    /// The mempool from the best fee rate down: lowest sat/vB of each step, and its size in virtual bytes.
    pub(crate) fn fee_histogram(&self, step_vb: u64) -> Vec<(f64, u64)> {
        let mut steps = Vec::new();
        let mut size = 0_u64;
        let mut lowest = None;
        for (_, entry) in self.mempool.by_rate() {
            size = size.saturating_add(entry.vsize());
            lowest = Some(entry.rate().sat_per_vb());
            if size >= step_vb {
                steps.extend(lowest.take().map(|rate| (rate, size)));
                size = 0;
            }
        }
        steps.extend(lowest.map(|rate| (rate, size)));
        steps
    }

    /// Outputs to the script that wait and that nothing spends.
    pub(super) fn pending_coins(&self, script: &ScriptHash) -> impl Iterator<Item = (OutPoint, Amount)> {
        let pending = self.scripts.get(script).into_iter().flat_map(|record| &record.pending);
        let entries = pending.filter_map(|(_, txid)| Some((*txid, self.mempool.get(txid)?)));
        let script = *script;
        let outputs = entries.flat_map(|(txid, entry)| super::block::outputs(txid, &entry.tx));
        outputs
            .filter(move |(outpoint, output)| {
                self.mempool.spender(outpoint).is_none() && ScriptHash::of(&output.script_pubkey) == script
            })
            .map(|(outpoint, output)| (outpoint, output.value))
    }

    fn confirmed_coins(&self, script: &ScriptHash) -> impl Iterator<Item = Unspent> {
        let coins = self.scripts.get(script).into_iter().flat_map(|record| &record.coins);
        coins.filter_map(|(height, outpoint)| {
            let value = self.ledger.coin(outpoint)?.output.value;
            Some(Unspent { outpoint: *outpoint, value, height: *height })
        })
    }

    fn pending_lines<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = HistoryLine> {
        record.pending.iter().filter_map(|(_, txid)| {
            let entry = self.mempool.get(txid)?;
            let height = if self.mempool.has_pending_parent(entry) { -1 } else { 0 };
            Some(HistoryLine { txid: *txid, height, fee: Some(entry.fee) })
        })
    }
}
