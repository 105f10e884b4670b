//! Transactions that wait for a block: conflict-free, each valid on top of the chain and of its parents here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid};

use super::rules::{Checked, INCREMENTAL_SAT_PER_VB, MAX_BLOCK_SIGOPS, MAX_TXS_WEIGHT, SubmitError};

/// Transactions that one replacement may evict (BIP125 rule 5).
const MAX_REPLACED: usize = 100;
/// Unconfirmed transactions that may hang together, as in Core 31; it also bounds every walk over relatives.
const MAX_CLUSTER: usize = 64;
/// Weight of all that waits: ten blocks, far more than a devnet makes, far less than would hurt it.
const MAX_WEIGHT: u64 = 10 * MAX_TXS_WEIGHT;
/// Fee per weight, in parts of a sat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FeeRate(u64);

/// One waiting transaction.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) tx: Transaction,
    /// The outputs it spends, in the order of its inputs.
    pub(super) spent: Vec<TxOut>,
    pub(crate) fee: Amount,
    /// In weight units.
    pub(crate) weight: u64,
    sigops: usize,
    /// Order of arrival.
    pub(crate) sequence: u64,
}

/// What waits, by id, by the coin spent and by fee rate.
#[derive(Clone, Default)]
pub(crate) struct Mempool {
    entries: HashMap<Txid, Entry>,
    spends: BTreeMap<OutPoint, Txid>,
    by_rate: BTreeSet<(Reverse<FeeRate>, u64, Txid)>,
    weight: u64,
    arrivals: u64,
}

impl FeeRate {
    /// Parts of a sat per weight unit: tells any two fees of one standard transaction (400,000 units) apart.
    const PARTS: u64 = 1_000_000;

    fn new(fee: Amount, weight: u64) -> Self {
        Self(fee.to_sat().saturating_mul(Self::PARTS) / weight.max(1))
    }

    /// The least fee at which `weight` units pay a higher rate than this one.
    fn outbid(self, weight: u64) -> Amount {
        Amount::from_sat(self.0.saturating_add(1).saturating_mul(weight).div_ceil(Self::PARTS))
    }

    pub(crate) fn sat_per_vb(self) -> f64 {
        self.0 as f64 * 4.0 / Self::PARTS as f64
    }
}

impl Entry {
    pub(super) fn new(tx: Transaction, checked: Checked) -> Self {
        let weight = tx.weight().to_wu();
        Self { tx, spent: checked.spent, fee: checked.fee, weight, sigops: checked.sigops, sequence: 0 }
    }

    pub(crate) fn rate(&self) -> FeeRate {
        FeeRate::new(self.fee, self.weight)
    }

    pub(crate) fn vsize(&self) -> u64 {
        self.weight.div_ceil(4)
    }

    /// The scripts it spends from and pays to.
    pub(super) fn outputs_touched(&self) -> impl Iterator<Item = &TxOut> {
        self.spent.iter().chain(&self.tx.output)
    }
}

impl Mempool {
    pub(crate) fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    /// Who spends this coin.
    pub(crate) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spends.get(outpoint).copied()
    }

    /// All that waits, the best fee rate first.
    pub(crate) fn by_rate(&self) -> impl Iterator<Item = (Txid, &Entry)> {
        self.by_rate.iter().filter_map(|(_, _, txid)| Some((*txid, self.entries.get(txid)?)))
    }

    /// Weight of all that waits.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Whether it spends an output of something that waits itself.
    pub(crate) fn has_pending_parent(&self, entry: &Entry) -> bool {
        entry.tx.input.iter().any(|input| self.entries.contains_key(&input.previous_output.txid))
    }

    /// Those that spend an output of `txid`.
    pub(super) fn children(&self, txid: Txid) -> impl Iterator<Item = Txid> {
        let outputs = OutPoint { txid, vout: 0 }..=OutPoint { txid, vout: u32::MAX };
        self.spends.range(outputs).map(|(_, child)| *child)
    }

    /// What must go so that the entry can come in: nothing, or what it replaces with all that hangs on it.
    ///
    /// # Errors
    /// The rule of replacement, cluster or room that forbids it.
    pub(super) fn admit(&self, entry: &Entry) -> Result<HashSet<Txid>, SubmitError> {
        let conflicts: HashSet<_> =
            entry.tx.input.iter().filter_map(|input| self.spender(&input.previous_output)).collect();
        let evicted = self.with_descendants(&conflicts)?;
        if !evicted.is_empty() {
            self.check_replacement(entry, &conflicts, &evicted)?;
        }
        if self.cluster_is_full(entry, &evicted) {
            return Err(SubmitError::TooLargeCluster);
        }
        let freed: u64 = evicted.iter().filter_map(|txid| self.entries.get(txid)).map(|entry| entry.weight).sum();
        if self.weight.saturating_sub(freed).saturating_add(entry.weight) > MAX_WEIGHT {
            return Err(SubmitError::MempoolFull);
        }
        Ok(evicted)
    }

    /// Takes in what was checked and admitted; what it replaces is gone already.
    pub(super) fn insert(&mut self, txid: Txid, mut entry: Entry) -> &Entry {
        self.arrivals = self.arrivals.saturating_add(1);
        entry.sequence = self.arrivals;
        self.weight = self.weight.saturating_add(entry.weight);
        self.by_rate.insert((Reverse(entry.rate()), entry.sequence, txid));
        self.spends.extend(entry.tx.input.iter().map(|input| (input.previous_output, txid)));
        self.entries.entry(txid).insert_entry(entry).into_mut()
    }

    /// Takes one out; its children are the caller's matter.
    pub(super) fn remove(&mut self, txid: &Txid) -> Option<Entry> {
        let entry = self.entries.remove(txid)?;
        self.weight = self.weight.saturating_sub(entry.weight);
        self.by_rate.remove(&(Reverse(entry.rate()), entry.sequence, *txid));
        for input in &entry.tx.input {
            self.spends.remove(&input.previous_output);
        }
        Some(entry)
    }

    /// Ids in order of arrival, so that a parent comes before its children.
    pub(super) fn in_order(&self) -> Vec<Txid> {
        let mut order: Vec<_> = self.entries.iter().map(|(txid, entry)| (entry.sequence, *txid)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, txid)| txid).collect()
    }

    /// What goes into the next block: parents before children, otherwise by own fee rate, until it is full.
    pub(super) fn select(&self) -> Vec<Txid> {
        let mut parents: HashMap<Txid, usize> = HashMap::with_capacity(self.entries.len());
        let mut ready = BinaryHeap::new();
        let rank = |txid: Txid, entry: &Entry| (entry.rate(), Reverse(entry.sequence), txid);
        for (txid, entry) in &self.entries {
            let waiting = self.parents(entry).len();
            parents.insert(*txid, waiting);
            if waiting == 0 {
                ready.push(rank(*txid, entry));
            }
        }
        let mut selected = Vec::new();
        let mut weight = MAX_TXS_WEIGHT;
        let mut sigops = MAX_BLOCK_SIGOPS;
        while let Some((_, _, txid)) = ready.pop() {
            let Some(entry) = self.entries.get(&txid) else { continue };
            let (Some(less_weight), Some(less_sigops)) =
                (weight.checked_sub(entry.weight), sigops.checked_sub(entry.sigops))
            else {
                continue; // Too large for what is left: it waits, and its children with it.
            };
            (weight, sigops) = (less_weight, less_sigops);
            selected.push(txid);
            for child in self.children(txid).collect::<HashSet<_>>() {
                let (Some(left), Some(entry)) = (parents.get_mut(&child), self.entries.get(&child)) else { continue };
                *left = left.saturating_sub(1);
                if *left == 0 {
                    ready.push(rank(child, entry));
                }
            }
        }
        selected
    }

    fn parents(&self, entry: &Entry) -> HashSet<Txid> {
        let spent = entry.tx.input.iter().map(|input| input.previous_output.txid);
        spent.filter(|txid| self.entries.contains_key(txid)).collect()
    }

    fn with_descendants(&self, roots: &HashSet<Txid>) -> Result<HashSet<Txid>, SubmitError> {
        let mut found = roots.clone();
        let mut open: Vec<_> = roots.iter().copied().collect();
        while let Some(txid) = open.pop() {
            open.extend(self.children(txid).filter(|child| found.insert(*child)));
            if found.len() > MAX_REPLACED {
                return Err(SubmitError::TooManyReplacements(found.len()));
            }
        }
        Ok(found)
    }

    /// BIP125 without its opt-in: more fee, a higher rate than each direct conflict, and its own relay paid.
    fn check_replacement(
        &self,
        entry: &Entry,
        conflicts: &HashSet<Txid>,
        evicted: &HashSet<Txid>,
    ) -> Result<(), SubmitError> {
        let fee = entry.fee;
        if let Some(parent) = self.parents(entry).into_iter().find(|parent| evicted.contains(parent)) {
            return Err(SubmitError::SpendsConflicting(parent));
        }
        let replaced: Amount = evicted.iter().filter_map(|txid| self.entries.get(txid)).map(|old| old.fee).sum();
        let least = replaced + Amount::from_sat(entry.vsize().saturating_mul(INCREMENTAL_SAT_PER_VB));
        if fee < least {
            return Err(SubmitError::InsufficientFee { fee, least });
        }
        let direct = conflicts.iter().filter_map(|txid| self.entries.get(txid));
        let least = direct.map(Entry::rate).max().map_or(Amount::ZERO, |rate| rate.outbid(entry.weight));
        if fee < least {
            return Err(SubmitError::InsufficientRate { fee, least });
        }
        Ok(())
    }

    /// Whether all that would hang together with the entry is more than [`MAX_CLUSTER`].
    fn cluster_is_full(&self, entry: &Entry, gone: &HashSet<Txid>) -> bool {
        let mut found: HashSet<_> = self.parents(entry);
        let mut open: Vec<_> = found.iter().copied().collect();
        while let Some(txid) = open.pop() {
            let parents = self.entries.get(&txid).map(|entry| self.parents(entry)).unwrap_or_default();
            let relatives = self.children(txid).filter(|child| !gone.contains(child)).chain(parents);
            open.extend(relatives.filter(|relative| found.insert(*relative)));
            if found.len() >= MAX_CLUSTER {
                return true;
            }
        }
        false
    }
}
