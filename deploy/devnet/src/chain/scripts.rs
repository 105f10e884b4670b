//! The index by script hash: who is touched by which transaction, kept up to date block by block.

use std::collections::{BTreeSet, HashMap};

use bitcoin::hashes::{hash_newtype, sha256};
use bitcoin::{OutPoint, Script, Txid};

hash_newtype! {
    /// What the Electrum protocol calls an address: SHA-256 of the output script, shown in reverse byte order.
    #[hash_newtype(backward)]
    pub struct ScriptHash(sha256::Hash);
}

impl ScriptHash {
    /// The hash of this output script.
    pub fn of(script: &Script) -> Self {
        Self(bitcoin::hashes::Hash::hash(script.as_bytes()))
    }
}

/// All that is known of one script.
#[derive(Clone, Default)]
pub(crate) struct Record {
    /// Height and position of each confirmed transaction that pays or spends it.
    pub(crate) confirmed: BTreeSet<(u32, u32)>,
    /// The same for the mempool, in order of arrival.
    pub(crate) pending: BTreeSet<(u64, Txid)>,
    /// Height and name of its confirmed coins, the oldest first.
    pub(crate) coins: BTreeSet<(u32, OutPoint)>,
    /// When it last changed; 0 for never.
    revision: u64,
}

/// Every script that was ever paid, and which of them changed last.
#[derive(Clone, Default)]
pub(crate) struct Scripts {
    records: HashMap<ScriptHash, Record>,
    /// Each touched script once, at its last revision: "what changed since" is a range of it.
    recent: BTreeSet<(u64, ScriptHash)>,
}

impl Scripts {
    pub(crate) fn get(&self, script: &ScriptHash) -> Option<&Record> {
        self.records.get(script)
    }

    /// The scripts touched after `revision`.
    pub(crate) fn touched_since(&self, revision: u64) -> impl Iterator<Item = ScriptHash> {
        let first = (revision.saturating_add(1), ScriptHash(bitcoin::hashes::Hash::all_zeros()));
        self.recent.range(first..).map(|(_, script)| *script)
    }

    /// The record of a script, to be changed as part of `revision`.
    pub(super) fn edit(&mut self, script: &Script, revision: u64) -> &mut Record {
        let hash = ScriptHash::of(script);
        let record = self.records.entry(hash).or_default();
        self.recent.remove(&(record.revision, hash));
        self.recent.insert((revision, hash));
        record.revision = revision;
        record
    }
}
