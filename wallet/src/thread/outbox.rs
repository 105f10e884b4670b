//! Transactions on their way to the servers, until the one in use lists them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::{Transaction, Txid};

use crate::chain::Absorbed;
use crate::state::{State, StoreError};

/// How long after a transaction was given to a server it is given again, and how long a server may take to list it:
/// some look at their mempool every five seconds only.
const LISTED_WITHIN: Duration = Duration::from_secs(10);

/// What is to be sent, the oldest payment's first; at most one entry for each transaction of a live payment.
pub(super) struct Outbox(Vec<Waiting>);

struct Waiting {
    txid: Txid,
    /// When the server in use is given it (again).
    at: Instant,
    /// When the server in use was first given it.
    given: Option<Instant>,
    /// The server in use said that it took it.
    accepted: bool,
    /// The server in use did not list it in time: others are given it, too.
    missed: bool,
}

impl Outbox {
    pub(super) fn new(txids: impl IntoIterator<Item = Txid>, now: Instant) -> Self {
        let mut outbox = Self(Vec::new());
        txids.into_iter().for_each(|txid| outbox.push(txid, now));
        outbox
    }

    /// Has a transaction sent at `at`, unless it waits already.
    pub(super) fn push(&mut self, txid: Txid, at: Instant) {
        if !self.0.iter().any(|waiting| waiting.txid == txid) {
            self.0.push(Waiting { txid, at, given: None, accepted: false, missed: false });
        }
    }

    /// When the next one is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.0.iter().map(|waiting| waiting.at).min()
    }

    /// The next one that is due; what no payment needs any more is forgotten.
    pub(super) fn next_due(&mut self, state: &State, now: Instant) -> Result<Option<Arc<Transaction>>, StoreError> {
        while let Some(due) = self.0.iter().position(|waiting| waiting.at <= now) {
            let waiting = self.0.remove(due);
            if let Some(tx) = state.live_transaction(waiting.txid)? {
                self.0.insert(due, Waiting { at: now + LISTED_WITHIN, ..waiting });
                return Ok(Some(tx));
            }
        }
        Ok(None)
    }

    /// The server in use was given a transaction; when it has to list it.
    pub(super) fn handle_given(&mut self, txid: Txid, accepted: bool, now: Instant) -> Instant {
        let mut given = now;
        if let Some(waiting) = self.0.iter_mut().find(|waiting| waiting.txid == txid) {
            given = *waiting.given.get_or_insert(now);
            waiting.accepted |= accepted;
        }
        given + LISTED_WITHIN
    }

    /// What the server in use lists, as asked at `asked`; true when it took something before and does not list it.
    pub(super) fn handle_absorbed(&mut self, absorbed: &Absorbed, asked: Instant) -> bool {
        self.0.retain(|waiting| !absorbed.listed.contains(&waiting.txid));
        let mut omits = false;
        for &txid in &absorbed.unlisted {
            self.push(txid, asked + LISTED_WITHIN);
            let waiting = self.0.iter_mut().find(|waiting| waiting.txid == txid);
            let late = waiting.filter(|waiting| waiting.given.is_some_and(|given| given + LISTED_WITHIN <= asked));
            if let Some(waiting) = late {
                waiting.missed = true;
                omits |= waiting.accepted;
            }
        }
        omits
    }

    /// Another server is in use: it is given everything at once.
    pub(super) fn handle_connected(&mut self, now: Instant) {
        for waiting in &mut self.0 {
            *waiting = Waiting { txid: waiting.txid, at: now, given: None, accepted: false, missed: waiting.missed };
        }
    }

    /// What other servers are given, too.
    pub(super) fn missed(&self, state: &State) -> Result<Vec<Arc<Transaction>>, StoreError> {
        let missed = self.0.iter().filter(|waiting| waiting.missed);
        missed.filter_map(|waiting| state.live_transaction(waiting.txid).transpose()).collect()
    }
}
