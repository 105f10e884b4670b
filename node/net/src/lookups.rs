//! Lookups of providers: what each has found, when it ends, and the second try of one that found nothing.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, kad::QueryId};
use tokio::sync::oneshot;

use crate::announce::Key;

/// Time for one query; kad ends it then with what it has.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause before the second try: a node that has just started finds its first peers meanwhile, and disjoint paths
/// sometimes end with nothing at once (rust-libp2p issue 5418).
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Lookups in progress; more are refused.
const MAX_LOOKUPS: usize = 64;

/// A peer that says it provides a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its id.
    pub peer: PeerId,
    /// Where it is said to listen; hearsay, at most eight, may be empty.
    pub addrs: Vec<Multiaddr>,
}

/// Why no lookup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Too many are in progress.
    #[error("too many lookups in progress")]
    Busy,
    /// The swarm has shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// One question and what is known of its answer.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) key: Key,
    pub(crate) limit: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<Provider>, LookupError>>,
    found: Vec<Provider>,
    retried: bool,
}

/// All lookups: those that a query runs for, and those that wait for their second try.
#[derive(Default)]
pub(crate) struct Lookups {
    running: HashMap<QueryId, Lookup>,
    waiting: Vec<(Instant, Lookup)>,
}

impl Lookup {
    pub(crate) fn new(key: Key, limit: usize, reply: oneshot::Sender<Result<Vec<Provider>, LookupError>>) -> Self {
        Self { key, limit, reply, found: Vec::new(), retried: false }
    }

    fn answer(self) {
        // A caller that went away needs no answer.
        let _ = self.reply.send(Ok(self.found));
    }
}

impl Lookups {
    pub(crate) fn has_room(&self) -> bool {
        self.running.len() + self.waiting.len() < MAX_LOOKUPS
    }

    pub(crate) fn start(&mut self, query: QueryId, lookup: Lookup) {
        self.running.insert(query, lookup);
    }

    /// Notes a provider; answers and returns true when there are enough.
    pub(crate) fn handle_found(&mut self, query: QueryId, provider: Provider) -> bool {
        let Some(lookup) = self.running.get_mut(&query) else { return false };
        match lookup.found.iter_mut().find(|known| known.peer == provider.peer) {
            Some(known) if known.addrs.is_empty() => known.addrs = provider.addrs,
            Some(_) => {}
            None => lookup.found.push(provider),
        }
        let enough = lookup.found.len() >= lookup.limit;
        if enough && let Some(lookup) = self.running.remove(&query) {
            lookup.answer();
        }
        enough
    }

    /// Answers the lookup whose query ended, or keeps it for its second try.
    pub(crate) fn handle_end(&mut self, query: QueryId, now: Instant) {
        let Some(mut lookup) = self.running.remove(&query) else { return };
        if lookup.found.is_empty() && !lookup.retried {
            lookup.retried = true;
            self.waiting.push((now + RETRY_AFTER, lookup));
        } else {
            lookup.answer();
        }
    }

    /// A lookup whose second try is due; to be started again.
    #[must_use]
    pub(crate) fn poll_retry(&mut self, now: Instant) -> Option<Lookup> {
        self.waiting.retain(|(_, lookup)| !lookup.reply.is_closed());
        let due = self.waiting.iter().position(|(at, _)| *at <= now)?;
        Some(self.waiting.swap_remove(due).1)
    }

    /// The queries whose callers went away; to be ended.
    #[must_use]
    pub(crate) fn poll_abandoned(&mut self) -> Vec<QueryId> {
        let gone = |(query, lookup): (&QueryId, &Lookup)| lookup.reply.is_closed().then_some(*query);
        let queries: Vec<QueryId> = self.running.iter().filter_map(gone).collect();
        self.running.retain(|_, lookup| !lookup.reply.is_closed());
        queries
    }
}
