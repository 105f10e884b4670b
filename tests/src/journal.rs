//! What a node's journal holds, read as the node itself would read it after a power cut.

use std::collections::BTreeMap;
use std::fs;

use libp2p_identity::PeerId;
use pedlar_protocol::account::{Account, Change, Direction, Entry, Line, TopUpLine};
use pedlar_protocol::budget::Spending;
use pedlar_protocol::id::QuoteId;
use rusqlite::Connection;

use crate::cluster::Peer;

/// The accounts in a journal, and what was paid without a person's word.
pub struct Journal {
    spendings: Vec<Spending>,
    accounts: BTreeMap<(PeerId, Direction), Account>,
}

impl Journal {
    /// The journal of a node that is down. A copy is read, so that the node finds it as it left it.
    pub fn of(dead: &Peer) -> Self {
        Self::read(dead).expect("a node that is down leaves a whole journal")
    }

    /// The journal of a node that may be writing it; nothing when it was caught in the middle.
    pub fn read(peer: &Peer) -> rusqlite::Result<Self> {
        let copy = tempfile::tempdir().expect("a folder");
        for name in ["journal.sqlite", "journal.sqlite-wal"] {
            let file = peer.home.dir.join(name);
            if file.exists() {
                fs::copy(file, copy.path().join(name)).expect("a copy");
            }
        }
        let db = Connection::open(copy.path().join("journal.sqlite"))?;
        let mut query = db.prepare("SELECT body FROM entries ORDER BY number")?;
        let bodies = query.query_map([], |row| row.get::<_, Vec<u8>>(0))?.collect::<Result<Vec<_>, _>>()?;
        let me = peer.id.parse().expect("a peer id");
        let mut accounts: BTreeMap<_, Account> = BTreeMap::new();
        let mut spendings = Vec::new();
        for body in bodies {
            let entry = Entry::decode(&body, &me).expect("a row");
            if let Change::Spending { spending, .. } = entry.change {
                spendings.push(spending);
                continue;
            }
            accounts.entry((entry.peer, entry.direction)).or_default().apply(&entry.change);
        }
        Ok(Self { spendings, accounts })
    }

    /// What was counted against the budget.
    pub fn spendings(&self) -> &[Spending] {
        &self.spendings
    }

    /// The lines whose streams were open when the node went down: the sessions that it was killed in.
    pub fn sessions(&self) -> impl Iterator<Item = &Line> {
        self.lines().filter(|line| !line.has_ended())
    }

    /// The top-ups that were agreed on and whose payment did not count yet.
    pub fn uncredited(&self) -> impl Iterator<Item = &TopUpLine> {
        self.accounts.values().flat_map(|account| {
            // In a block is enough for what stories pay.
            let counts =
                |line: &&TopUpLine| account.payments().any(|payment| payment.topup == line.id && payment.depth > 0);
            account.topups().filter(move |line| !counts(line))
        })
    }

    /// For each top-up the outputs that paid under it, as transaction ids in the order of bytes.
    pub fn payments(&self) -> Vec<Vec<[u8; 32]>> {
        let of = |account: &Account, line: &TopUpLine| {
            let paid = account.payments().filter(|payment| payment.topup == line.id);
            paid.map(|payment| payment.outpoint.txid).collect()
        };
        self.accounts.values().flat_map(|account| account.topups().map(|line| of(account, line))).collect()
    }

    /// Bytes signed for under each quote.
    pub fn signed(&self) -> BTreeMap<QuoteId, u64> {
        self.lines().map(|line| (line.id(), line.signed_units())).collect()
    }

    /// Bytes that the seller acknowledged under each quote, as the buyer has it.
    pub fn acknowledged(&self) -> BTreeMap<QuoteId, u64> {
        self.lines().map(|line| (line.id(), line.admitted_units())).collect()
    }

    /// What all accounts come to that is signed for, in msat.
    pub fn spent_msat(&self) -> u64 {
        self.accounts.values().map(|account| account.spent().msat()).sum()
    }

    /// Whether all these receipts are in this journal, too; of a line that it has folded nobody can say any more.
    pub fn holds(&self, receipts: &BTreeMap<QuoteId, u64>) -> bool {
        let folded = self.accounts.values().any(|account| account.folded().quotes > 0);
        let signed = self.signed();
        receipts.iter().all(|(quote, units)| match signed.get(quote) {
            Some(held) => held >= units,
            None => *units == 0 || folded,
        })
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.accounts.values().flat_map(Account::lines)
    }
}
