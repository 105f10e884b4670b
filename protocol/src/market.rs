//! The market: all accounts, the shop and the book as one value. `handle_*` take in what happened, `poll_*` give out
//! what is to be done; below this file there are only plain values.
//!
//! ```text
//! peers, chain, owner ─ handle_* ─▶ Market ─ poll_entries ─▶ journal ─ handle_stored ─▶ Market
//!                                      └──── answers, which the caller sends once the entries are stored
//! ```
//!
//! **Invariant:** each change of an account is staged as an [`Entry`], in order; an answer leaves the node only after
//! the entries staged before it are stored. Time and randomness are arguments: same inputs, same trace.

mod advances;
mod audit;
mod bills;
mod blocks;
mod buying;
mod depth;
mod offers;
mod payments;
mod reminder;
mod selling;
mod shop;
mod standing;

use std::collections::{BTreeMap, VecDeque};

use libp2p_identity::{PeerId, ed25519::Keypair};

pub use advances::Paying;
pub use audit::{Books, Finding, WalletBooks, WalletSays, audit_ledgers};
pub use buying::{BuyError, MAX_SYNCED, SyncError};
pub use payments::{Incoming, MAX_OPEN_TOPUPS, NoTopUp, Outgoing, TOPUP_BLOCKS, TOPUP_LIFE, TopUpStep};
pub use reminder::Claim;
pub use selling::Synced;
pub use shop::{Goods, Shop};
pub use standing::Standing;

use crate::account::{Account, Change, Direction, Entry};
use crate::book::Book;
use crate::budget::{Budget, Spendings};
use crate::credit::Rules;
use crate::id::{PayeeId, QuoteId};
use crate::ledger::Ledger;
use crate::money::Msat;
use crate::money::Price;
use crate::offer::{OfferClock, SignedOffer};
use crate::time::Timestamp;
use crate::wire::{Network, peer_id};

/// What the owner decides about money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The constants of credit.
    pub credit: Rules,
    /// The smallest advance taken on chain, in sat.
    pub min_topup_sat: u64,
    /// The largest window served or asked for, in bytes.
    pub max_window: u64,
    /// What is paid without a person's word.
    pub budget: Budget,
}

/// Everything a node knows of its trade.
#[derive(Debug)]
pub struct Market {
    key: Keypair,
    me: PeerId,
    network: Network,
    terms: Terms,
    accounts: BTreeMap<(PeerId, Direction), Account>,
    payees: BTreeMap<PayeeId, PeerId>,
    live: BTreeMap<QuoteId, selling::Live>,
    last_number: u64,
    memory: reminder::Memory,
    tip_height: u64,
    spendings: Spendings,
    shop: Shop,
    book: Book,
    clock: OfferClock,
    /// The newest offer that was signed.
    offer: Option<SignedOffer>,
    offered: Option<Price>,
    staged: VecDeque<Entry>,
    staged_in_all: u64,
}

impl Market {
    /// A market with nothing in it, for the node that holds `key`.
    #[must_use]
    pub fn new(key: Keypair, network: Network, terms: Terms, now: Timestamp) -> Self {
        Self {
            me: peer_id(&key),
            key,
            book: Book::new(network.clone()),
            network,
            terms,
            accounts: BTreeMap::new(),
            payees: BTreeMap::new(),
            live: BTreeMap::new(),
            last_number: 0,
            memory: reminder::Memory::default(),
            tip_height: 0,
            spendings: Spendings::default(),
            shop: Shop::default(),
            clock: OfferClock::new(now),
            offer: None,
            offered: None,
            staged: VecDeque::new(),
            staged_in_all: 0,
        }
    }

    /// Puts back a row of the journal, in the journal's order.
    pub fn restore(&mut self, entry: &Entry) {
        self.fold(entry);
    }

    /// Ends the restoration: streams that were open when the node went down are gone, and depths are judged anew.
    pub fn handle_restored(&mut self) {
        let open = self.accounts.iter().flat_map(|((peer, direction), account)| {
            let lines = account.lines().filter(|line| !line.has_ended());
            lines.map(|line| (*peer, *direction, line.clone())).collect::<Vec<_>>()
        });
        for (peer, direction, mut line) in open.collect::<Vec<_>>() {
            // What was admitted may have left: only the buyer's receipt tells.
            line.interrupt();
            self.stage(peer, direction, Change::Line(line));
        }
        self.recredit();
    }

    /// This node's id: its account number with everybody.
    #[must_use]
    pub const fn me(&self) -> PeerId {
        self.me
    }

    /// The network that is traded on.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// What the owner decided.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The height of the newest block seen.
    #[must_use]
    pub const fn tip_height(&self) -> u64 {
        self.tip_height
    }

    /// What was spent without a person's word.
    #[must_use]
    pub const fn spendings(&self) -> &Spendings {
        &self.spendings
    }

    /// The offers of others.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// The offers of others, to take in what came.
    pub const fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    /// What we sell.
    #[must_use]
    pub const fn shop(&self) -> &Shop {
        &self.shop
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (&PeerId, Direction, &Account)> {
        self.accounts.iter().map(|((peer, direction), account)| (peer, *direction, account))
    }

    /// The account with a peer; nothing where there was no trade.
    #[must_use]
    pub fn account(&self, peer: &PeerId, direction: Direction) -> Option<&Account> {
        self.accounts.get(&(*peer, direction))
    }

    /// The double-entry view of all accounts.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::of(self.accounts())
    }

    /// Entries that are not stored yet, oldest first, and the number of the newest; they stay until
    /// [`Market::handle_stored`].
    #[must_use]
    pub fn poll_entries(&self) -> (u64, Vec<Entry>) {
        (self.staged_in_all, self.staged.iter().cloned().collect())
    }

    /// How many entries were ever staged: when so many are stored, all that was decided so far is durable.
    #[must_use]
    pub const fn staged_in_all(&self) -> u64 {
        self.staged_in_all
    }

    /// The entries up to this number are stored.
    pub fn handle_stored(&mut self, number: u64) {
        let staged = u64::try_from(self.staged.len()).unwrap_or(u64::MAX);
        let unstored = self.staged_in_all.saturating_sub(number).min(staged);
        let stored = staged.saturating_sub(unstored);
        self.staged.drain(..usize::try_from(stored).unwrap_or(usize::MAX).min(self.staged.len()));
    }

    fn stage(&mut self, peer: PeerId, direction: Direction, change: Change) {
        let entry = Entry { peer, direction, change };
        self.fold(&entry);
        self.staged.push_back(entry);
        self.staged_in_all = self.staged_in_all.saturating_add(1);
    }

    /// Stages what follows from a change: trade that has become real, and lines that are settled.
    fn stage_consequences(&mut self, peer: PeerId, direction: Direction, now: Timestamp) {
        let Some(account) = self.accounts.get(&(peer, direction)) else {
            return;
        };
        let (history, fold) = (account.grown_history(now), account.foldable());
        if let Some(history) = history {
            self.stage(peer, direction, Change::History(history));
        }
        if let Some(fold) = fold {
            self.stage(peer, direction, fold);
        }
    }

    fn fold(&mut self, entry: &Entry) {
        if let Change::Spending { spending, forgets } = &entry.change {
            // Of no account: it is our own purse that it bounds.
            return self.spendings.apply(*spending, forgets);
        }
        if let Change::TopUp { line, .. } = &entry.change
            && let Some(payee) = line.payee
        {
            self.payees.insert(payee, entry.peer);
        }
        if let (Change::Line(line), Direction::Sold) = (&entry.change, entry.direction) {
            // Also where the clock was set back: two quotes of one number could be one quote.
            self.last_number = self.last_number.max(line.quote().quote().number);
        }
        let account = self.accounts.entry((entry.peer, entry.direction)).or_default();
        account.apply(&entry.change);
        // A gift or a word makes no regular: those are free to whoever wants to fill the book.
        if entry.direction == Direction::Bought && account.spent() > Msat::ZERO {
            self.book.keep(entry.peer);
        }
    }
}

#[cfg(test)]
mod tests;
