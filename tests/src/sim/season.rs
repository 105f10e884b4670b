//! A season: one honest seller, whoever comes to it, hour by hour. The seller's rule is ours or another's.

use std::time::Duration;

use libp2p_identity::PeerId;
use libp2p_identity::ed25519::Keypair;
use pedlar_protocol::content::Groups;
use pedlar_protocol::credit::Rules;
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::market::{Books, audit_ledgers};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::quote::SignedQuote;
use pedlar_protocol::session::{FIRST_WINDOW, MAX_WINDOW, Request, Window};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::peer_id;

use super::agents::Agent;
use super::chain::Chain;
use super::node::{Node, key};
use super::stall::{Opened, Policy, Receipt, Stall, Till};
use super::truth::Truth;
use super::{START, Trace, Violation, root, size};
use crate::dice::Dice;

/// Blocks in an hour: what is paid in one is final in the next.
const BLOCKS: u64 = 6;

/// How a buyer signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signing {
    /// For all that came.
    All,
    /// For all but the newest window.
    ButLast,
    /// For nothing.
    Never,
}

/// Somebody who buys, with the market of its own that an honest one has.
pub(super) struct Buyer {
    pub(super) key: Keypair,
    pub(super) id: PeerId,
    node: Option<usize>,
    cursor: u64,
}

/// What came of a purchase.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bought {
    pub(super) bytes: u64,
    /// What was missing where it was refused more.
    pub(super) missing: Option<Msat>,
}

/// What an agent came to.
#[derive(Debug, Clone)]
pub struct Take {
    /// Who it was.
    pub agent: &'static str,
    /// What it has for nothing, in msat.
    pub taken: u64,
    /// The most that it may have by our rule, in msat.
    pub bound: u64,
    /// Identities that were served.
    pub identities: usize,
}

/// What a season came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// The first bound that did not hold.
    pub broken: Option<Violation>,
    /// Each agent.
    pub takes: Vec<Take>,
    /// What was served and not paid, the most that it may be, and the seller's gain at a margin of 30 %, all in msat.
    pub loss: u64,
    /// B0 + (φ+ξ)·μ·R_total, in msat.
    pub bound: u64,
    /// Paid less the cost of what was served, in msat.
    pub net: i64,
    /// Final and signed for, in msat.
    pub realised: u64,
    /// Hours from an honest buyer's first purchase to its first one on credit, for each that got so far.
    pub postpaid_after: Vec<u64>,
    /// How often the bounds were held against what had happened, and how often somebody had something unsecured.
    pub checks: (u64, u64),
    /// Moves of those that mean to cheat.
    pub faults: u64,
    /// A hash over all that happened.
    pub trace: String,
}

/// The seller, its chain, its time.
pub(super) struct Season {
    pub(super) now: Timestamp,
    pub(super) hour: u64,
    pub(super) price: Price,
    pub(super) dice: Dice,
    pub(super) faults: u64,
    stall: Box<dyn Stall>,
    seller: PeerId,
    nodes: Vec<Node>,
    chain: Chain,
    told: usize,
    truth: Truth,
    trace: Trace,
    broken: Option<Violation>,
}

impl Season {
    pub(super) fn new(seed: u64, policy: Policy, price: Price, rules: Rules) -> Self {
        let mut dice = Dice::of(seed);
        let node = Node::new(key(&mut dice), rules, Some(price), false);
        let seller = node.id;
        let stall: Box<dyn Stall> =
            if policy == Policy::Ours { Box::new(node) } else { Box::new(Till::new(policy, price)) };
        Self {
            now: START,
            hour: 0,
            price,
            dice,
            faults: 0,
            stall,
            seller,
            nodes: Vec::new(),
            chain: Chain::new(),
            told: 0,
            truth: Truth::new(rules),
            trace: Trace::default(),
            broken: None,
        }
    }

    /// Lets the agents do as they like for so many days, or until a bound breaks.
    pub(super) fn run(mut self, mut agents: Vec<Box<dyn Agent>>, days: u64) -> Report {
        while self.hour < days * 24 && self.broken.is_none() {
            agents.iter_mut().for_each(|agent| agent.act(&mut self));
            self.pass();
        }
        self.finish(&agents)
    }

    fn finish(mut self, agents: &[Box<dyn Agent>]) -> Report {
        if self.stall.market().is_some() {
            let bound = self.truth.check_bound();
            self.hold(bound);
        }
        let books = self.stall.market().into_iter().chain(self.nodes.iter().map(|node| &node.market));
        let books: Vec<Books<'_>> = books.map(|market| Books { market, wallet: None }).collect();
        let findings = if self.stall.market().is_some() { audit_ledgers(&books) } else { Vec::new() };
        if let Some(finding) = findings.first() {
            self.hold(Err(Violation { part: "audit", what: finding.to_string() }));
        }
        let takes = agents.iter().map(|agent| {
            let (taken, paid) = self.truth.take(agent.ids().iter());
            let bound = agent.backing().of(paid, &self.truth);
            Take { agent: agent.name(), taken, bound, identities: agent.ids().len() }
        });
        let takes = takes.collect();
        let (paid, value) = self.truth.turnover();
        Report {
            takes,
            loss: self.truth.loss(),
            bound: self.truth.bound(),
            net: paid as i64 - (value / 10 * 7) as i64,
            realised: self.truth.realised(),
            postpaid_after: agents.iter().filter_map(|agent| agent.postpaid_after()).collect(),
            checks: (self.truth.checks, self.truth.unsecured),
            faults: self.faults,
            trace: self.trace.to_string(),
            broken: self.broken,
        }
    }

    /// The end of an hour: blocks come, and all hear of it.
    fn pass(&mut self) {
        self.hour += 1;
        self.now = self.now.saturating_add(Duration::from_secs(3_600));
        self.chain.mine(BLOCKS);
        for news in self.chain.progress() {
            self.truth.paid(news.buyer, news.msat, news.settled);
        }
        self.stall.tip(self.chain.tip);
        for coin in &self.chain.coins[self.told..] {
            let (incoming, outgoing) = self.chain.facts(coin);
            self.stall.incoming(self.now, coin.buyer, incoming);
            if let Some(node) = self.nodes.iter_mut().find(|node| node.id == coin.buyer) {
                node.market.handle_tip(self.chain.tip);
                node.market.handle_outgoing(self.now, outgoing);
                node.store();
            }
        }
        self.told = self.chain.coins.len();
        self.nodes.iter_mut().for_each(|node| node.market.handle_tip(self.chain.tip));
    }

    /// A new identity; an honest one has a market of its own.
    pub(super) fn buyer(&mut self, honest: bool) -> Buyer {
        let key = key(&mut self.dice);
        let honest = honest && self.stall.market().is_some();
        let node = honest.then(|| {
            self.nodes.push(Node::new(key.clone(), Rules::default(), None, false));
            self.nodes.len() - 1
        });
        Buyer { id: peer_id(&key), key, node, cursor: 0 }
    }

    /// Buys so many bytes in one stream, or as many as it gets.
    pub(super) fn buy(&mut self, buyer: &mut Buyer, bytes: u64, signing: Signing) -> Bought {
        let Ok(opened) = self.stall.open(self.now, buyer.id) else { return Bought::default() };
        let quote = self.taken(buyer, &opened);
        let (mut bought, mut signed) = (Bought::default(), 0);
        while bought.bytes < bytes && self.broken.is_none() {
            let window = Window::up_to(MAX_WINDOW).after(signed).min((bytes - bought.bytes).max(FIRST_WINDOW));
            let start = buyer.cursor % (size().group_count() - 1);
            let end = (start + window / pedlar_protocol::content::GROUP_LEN).min(size().group_count() - 1);
            let Some(groups) = Groups::new(start, end) else { break };
            match self.want(buyer, &opened, groups, signed) {
                Ok(groups) => {
                    let before = bought.bytes;
                    bought.bytes += size().bytes_in(groups);
                    buyer.cursor = groups.end();
                    signed = match signing {
                        Signing::All => bought.bytes,
                        Signing::ButLast => before,
                        Signing::Never => 0,
                    };
                    self.note_verified(buyer, quote.as_ref(), signed);
                }
                Err(refusal) => {
                    bought.missing = missing(refusal);
                    break;
                }
            }
        }
        self.leave(buyer, &opened, bought.bytes, signed);
        self.trace.note(&[self.hour, bought.bytes, signed, bought.missing.map_or(0, Msat::msat)]);
        bought
    }

    fn want(&mut self, buyer: &Buyer, opened: &Opened, groups: Groups, signed: u64) -> Result<Groups, Refusal> {
        let line = self.stall.line(self.now, &buyer.id);
        let receipt = (signed > 0).then_some(Receipt { units: signed, signer: &buyer.key });
        let admitted = self.stall.want(self.now, &opened.id, groups, receipt)?;
        if signed > 0 {
            self.truth.signed(buyer.id, opened.id, signed);
        }
        self.truth.admitted(buyer.id, opened.id, opened.price, size().bytes_in(admitted));
        // The bounds are our rule's; the others have none.
        if self.stall.market().is_some() {
            let (a, b) = (self.truth.check_a(buyer.id, line), self.truth.check_b());
            self.hold(a);
            self.hold(b);
        }
        Ok(admitted)
    }

    fn leave(&mut self, buyer: &Buyer, opened: &Opened, sent: u64, signed: u64) {
        let receipt = (signed > 0).then_some(Receipt { units: signed, signer: &buyer.key });
        self.stall.end(self.now, &opened.id, sent, receipt);
        self.truth.signed(buyer.id, opened.id, signed);
        self.truth.ended(buyer.id, opened.id, sent);
        if let Some(node) = buyer.node {
            let node = &mut self.nodes[node];
            node.market.handle_left(self.now, &self.seller, &opened.id);
            let known = [(opened.id, signed)];
            let grant = self.stall.books(self.now, buyer.id).and_then(|books| books.grant);
            let grant = grant.map(|grant| grant.signed().clone());
            node.market.handle_synced(self.now, self.seller, &known, grant, &[]).expect("an honest seller's word");
            node.store();
        }
    }

    /// Signs for bytes of an old stream, or says nothing new.
    pub(super) fn tell(&mut self, buyer: &Buyer, opened: &Opened, units: u64) {
        self.stall.tell(self.now, buyer.id, &opened.id, Receipt { units, signer: &buyer.key });
        self.truth.signed(buyer.id, opened.id, units);
    }

    /// Opens a stream, takes one window and is gone: what it may sign for later, if it likes.
    pub(super) fn snatch(&mut self, buyer: &mut Buyer) -> Option<(Opened, u64)> {
        let opened = self.stall.open(self.now, buyer.id).ok()?;
        let groups = Groups::new(0, FIRST_WINDOW / pedlar_protocol::content::GROUP_LEN)?;
        let sent = self.want(buyer, &opened, groups, 0).map_or(0, |groups| size().bytes_in(groups));
        self.leave(buyer, &opened, sent, 0);
        (sent > 0).then_some((opened, sent))
    }

    /// Pays so much; it is final in an hour. Whether the seller takes it.
    pub(super) fn pay(&mut self, buyer: &Buyer, sat: u64) -> bool {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(self.chain.coins.len() as u64 + 1).to_le_bytes());
        let id = match buyer.node {
            Some(node) => self.nodes[node].market.handle_topup_wanted(self.now, self.seller, sat, TopUpId(id)),
            None => TopUpId(id),
        };
        let Some((payee, word)) = self.stall.topup(self.now, buyer.id, id, sat) else { return false };
        if let (Some(node), Some(word)) = (buyer.node, word) {
            let signed = word.signed().clone();
            let market = &mut self.nodes[node].market;
            market.handle_topup(self.now, self.seller, id, signed).expect("an honest seller's word");
        }
        self.chain.broadcast(id, buyer.id, self.seller, payee, sat);
        self.trace.note(&[self.hour, sat]);
        true
    }

    /// What this buyer owes, and what it may owe.
    pub(super) fn owes(&self, buyer: &Buyer) -> (Msat, Msat) {
        (self.stall.debt(&buyer.id), self.stall.line(self.now, &buyer.id))
    }

    fn taken(&self, buyer: &Buyer, opened: &Opened) -> Option<SignedQuote> {
        let (node, signed) = (buyer.node?, opened.signed.clone()?);
        let market = &self.nodes[node].market;
        let quote = market.handle_quote(self.now, self.seller, Request::Chunks(root()), signed);
        Some(quote.expect("an honest seller's quote"))
    }

    fn note_verified(&mut self, buyer: &Buyer, quote: Option<&SignedQuote>, units: u64) {
        if let (Some(node), Some(quote)) = (buyer.node, quote) {
            self.nodes[node].market.handle_verified(self.now, quote, units);
            self.nodes[node].store();
        }
    }

    fn hold(&mut self, held: Result<(), Violation>) {
        if let Err(violation) = held {
            self.broken.get_or_insert(violation);
        }
    }
}

fn missing(refusal: Refusal) -> Option<Msat> {
    match refusal {
        Refusal::PayFirst { missing, .. } | Refusal::OverLimit { missing } => Some(missing),
        _ => None,
    }
}
