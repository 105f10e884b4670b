//! One node: its market, its clock, and the rows of its journal, which are all that outlives a crash.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p_identity::PeerId;
use libp2p_identity::ed25519::{Keypair, SecretKey};
use pedlar_protocol::account::{Direction, Entry};
use pedlar_protocol::budget::Budget;
use pedlar_protocol::content::Groups;
use pedlar_protocol::credit::Rules;
use pedlar_protocol::id::{PayeeId, QuoteId, TopUpId};
use pedlar_protocol::market::{Goods, Incoming, Market, Synced, Terms, TopUpStep, WalletBooks};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::quote::SignedReceipt;
use pedlar_protocol::session::{MAX_WINDOW, Request};
use pedlar_protocol::settlement::SignedTopUp;
use pedlar_protocol::text::Name;
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::peer_id;

use super::chain::Chain;
use super::stall::{Opened, Receipt, Stall};
use super::{START, root, size};
use crate::dice::Dice;

/// A key that follows from the dice.
pub(super) fn key(dice: &mut Dice) -> Keypair {
    let seed: [u8; 32] = dice.garbage(32).try_into().expect("32 bytes");
    SecretKey::try_from_bytes(seed).expect("32 bytes are a key").into()
}

/// A market with its journal.
pub(super) struct Node {
    pub(super) key: Keypair,
    pub(super) id: PeerId,
    pub(super) market: Market,
    /// Rows by their keys, where a crash may come.
    rows: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    price: Option<Price>,
    /// How far its clock is ahead of the world's, in ms.
    pub(super) ahead_ms: i64,
}

impl Node {
    /// A node that sells where it has a price.
    pub(super) fn new(key: Keypair, rules: Rules, price: Option<Price>, crashes: bool) -> Self {
        let mut node = Self::with_budget(key, rules, price, Budget::default());
        node.rows = crashes.then(BTreeMap::new);
        node
    }

    /// A node whose owner lets it spend so much by itself.
    pub(super) fn with_budget(key: Keypair, rules: Rules, price: Option<Price>, budget: Budget) -> Self {
        let market = fresh(&key, rules, budget, START);
        let mut node = Self { id: peer_id(&key), key, market, rows: None, price, ahead_ms: 0 };
        node.publish(START);
        node
    }

    fn publish(&mut self, now: Timestamp) {
        let name = Name::new("goods").expect("a name");
        if let Some(price) = self.price {
            let goods = Goods { name, size: size(), whole: None, price: Some(price) };
            self.market.handle_published(now, root(), goods);
        }
    }

    /// What its own clock says.
    pub(super) fn clock(&self, now: Timestamp) -> Timestamp {
        let ahead = Duration::from_millis(self.ahead_ms.unsigned_abs());
        if self.ahead_ms < 0 { now.saturating_sub(ahead) } else { now.saturating_add(ahead) }
    }

    /// Writes what is staged up to now, as the journal does.
    pub(super) fn store(&mut self) {
        let Some(rows) = &mut self.rows else {
            return self.market.handle_stored(self.market.staged_in_all());
        };
        let (number, entries) = self.market.poll_entries();
        for entry in entries {
            entry.obsoletes().iter().for_each(|key| drop(rows.remove(key)));
            rows.insert(entry.key(), entry.encode());
        }
        self.market.handle_stored(number);
    }

    /// Starts from the rows alone: what was not stored is lost.
    pub(super) fn restart(&mut self, now: Timestamp, tip: u64) {
        self.market = fresh(&self.key, self.market.terms().credit, self.market.terms().budget, now);
        self.publish(now);
        for row in self.rows.iter().flat_map(|rows| rows.values()) {
            self.market.restore(&Entry::decode(row, &self.id).expect("its own row"));
        }
        self.market.handle_tip(tip);
        self.market.handle_restored();
        self.store();
    }

    /// What its wallet knows of the chain.
    pub(super) fn wallet(&self, chain: &Chain) -> WalletBooks {
        let facts = chain.coins.iter().map(|coin| (coin, chain.facts(coin)));
        let incoming = facts.clone().filter(|(coin, _)| coin.seller == self.id).map(|(_, (fact, _))| fact);
        let outgoing = facts.filter(|(coin, _)| coin.buyer == self.id).map(|(_, (_, fact))| fact);
        WalletBooks { incoming: incoming.collect(), outgoing: outgoing.collect() }
    }
}

fn fresh(key: &Keypair, rules: Rules, budget: Budget, now: Timestamp) -> Market {
    let terms = Terms { credit: rules, min_topup_sat: 1, max_window: MAX_WINDOW, budget };
    Market::new(key.clone(), "regtest-1".parse().expect("a network"), terms, now)
}

/// The real thing: what is sold on which terms is the market's word.
impl Stall for Node {
    fn open(&mut self, now: Timestamp, buyer: PeerId) -> Result<Opened, Refusal> {
        let quote = self.market.handle_open(now, buyer, Request::Chunks(root()), size())?;
        self.store();
        Ok(Opened { id: quote.id(), price: quote.quote().price, signed: Some(quote.signed().clone()) })
    }

    fn want(
        &mut self,
        now: Timestamp,
        quote: &QuoteId,
        groups: Groups,
        receipt: Option<Receipt<'_>>,
    ) -> Result<Groups, Refusal> {
        let signed = receipt.map(|receipt| receipt.sign(*quote).signed().clone());
        let admitted = self.market.handle_want(now, quote, groups, signed);
        self.store();
        admitted
    }

    fn end(&mut self, now: Timestamp, quote: &QuoteId, sent: u64, receipt: Option<Receipt<'_>>) {
        let signed = receipt.map(|receipt| receipt.sign(*quote).signed().clone());
        self.market.handle_end(now, quote, sent, signed);
        self.store();
    }

    fn tell(&mut self, now: Timestamp, buyer: PeerId, quote: &QuoteId, receipt: Receipt<'_>) {
        self.market.handle_sync(now, buyer, vec![receipt.sign(*quote)]);
        self.store();
    }

    fn topup(
        &mut self,
        now: Timestamp,
        buyer: PeerId,
        id: TopUpId,
        sat: u64,
    ) -> Option<(PayeeId, Option<SignedTopUp>)> {
        let payee = match self.market.handle_topup_request(now, buyer, id, sat).ok()? {
            TopUpStep::NeedAddress(payee) => payee,
            TopUpStep::Given(_) => return None,
        };
        let word = self.market.handle_address(now, buyer, id, sat, payee, "bcrt1q0".into());
        self.store();
        Some((payee, Some(word)))
    }

    fn incoming(&mut self, now: Timestamp, _: PeerId, fact: Incoming) {
        self.market.handle_incoming(now, fact);
        self.store();
    }

    fn tip(&mut self, height: u64) {
        self.market.handle_tip(height);
    }

    fn line(&self, now: Timestamp, buyer: &PeerId) -> Msat {
        self.market.allowance(buyer, now)
    }

    fn debt(&self, buyer: &PeerId) -> Msat {
        self.market.account(buyer, Direction::Sold).map_or(Msat::ZERO, |account| account.tab().debt())
    }

    fn books(&mut self, now: Timestamp, buyer: PeerId) -> Option<Synced> {
        Some(self.market.handle_sync(now, buyer, Vec::new()))
    }

    fn market(&self) -> Option<&Market> {
        Some(&self.market)
    }
}

impl Receipt<'_> {
    fn sign(&self, quote: QuoteId) -> SignedReceipt {
        SignedReceipt::sign(quote, self.units, self.signer)
    }
}
