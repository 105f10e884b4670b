//! A storm: nodes that buy from each other by messages, while messages get lost, nodes go down, clocks jump and blocks are
//! taken back.
//!
//! A node does what the real one does, in its order: an answer leaves when what was staged before it is stored. What a
//! crash finds unstored is lost, with the answers that waited for it.

mod trade;
mod weather;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use libp2p_identity::PeerId;
use pedlar_protocol::account::Direction;
use pedlar_protocol::content::Groups;
use pedlar_protocol::credit::{Ratio, Rules};
use pedlar_protocol::id::{PayeeId, QuoteId, TopUpId};
use pedlar_protocol::market::{Books, Synced, audit_ledgers};
use pedlar_protocol::money::Msat;
use pedlar_protocol::offer::SignedOffer;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::BuyerSession;
use pedlar_protocol::session::quote::{SignedQuote, SignedReceipt};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::Signed;

use super::chain::Chain;
use super::node::{Node, key};
use super::truth::Truth;
use super::{PRICE, START, Trace, Violation};
use crate::dice::Dice;

use weather::Weather;
pub use weather::{Faults, Sky};

/// Nodes of a storm: each sells, and buys from the others.
const NODES: usize = 4;

/// Things that happen before the sky clears.
const STEPS: u64 = 1_500;

/// Lines of the story that are kept for whoever has to find out why a bound broke.
const TOLD: usize = 60;

/// What one node sends to another.
#[derive(Debug, Clone)]
enum Message {
    Open,
    Quote(Signed),
    Want { groups: Groups, receipt: Option<Signed> },
    Serving(Groups),
    Piece(Groups),
    Refused(Refusal),
    Close(Option<Signed>),
    Sync(Vec<SignedReceipt>),
    Synced(Box<Synced>),
    TopUpWanted { id: TopUpId, sat: u64 },
    TopUp { id: TopUpId, word: Signed },
    Offer(Box<SignedOffer>),
}

/// A message on its way; `stream` is the buyer's number for a session, 0 for what belongs to none.
#[derive(Debug, Clone)]
struct Packet {
    from: usize,
    to: usize,
    stream: u64,
    message: Message,
}

/// What waits until all that was staged before it is stored.
enum Effect {
    Send(Packet),
    Pay { seller: usize, id: TopUpId, payee: PayeeId, sat: u64 },
}

/// What happens next; a node's own plans end with its life.
enum Event {
    Arrives(Packet),
    Stored { node: usize, life: u64 },
    Tick { node: usize, life: u64 },
    Rises { node: usize },
    Block,
    Gust,
}

/// A stream on which a node sells.
struct Selling {
    quote: QuoteId,
    sent: u64,
    heard: Timestamp,
}

/// A stream on which a node buys.
struct Buying {
    seller: usize,
    heard: Timestamp,
    trade: Option<(SignedQuote, BuyerSession)>,
    /// The range that is coming, and how far it came.
    coming: Option<(Groups, u64)>,
}

/// A node with its streams.
struct Peer {
    node: Node,
    up: bool,
    life: u64,
    /// Never sends its last receipt.
    stingy: bool,
    outbox: VecDeque<(u64, Effect)>,
    storing: bool,
    sells: BTreeMap<(usize, u64), Selling>,
    /// Streams whose end is not stored yet: a crash forgets what had left on them.
    ending: Vec<(PeerId, QuoteId)>,
    buys: BTreeMap<u64, Buying>,
    truth: Truth,
    /// Bytes that came and verified, by quote: its own count, apart from the market's.
    received: BTreeMap<QuoteId, (SignedQuote, u64)>,
}

/// The whole of it.
struct Storm {
    now: Timestamp,
    dice: Dice,
    weather: Weather,
    faults: Faults,
    events: BTreeMap<(Timestamp, u64), Event>,
    planned: u64,
    streams: u64,
    calm: bool,
    peers: Vec<Peer>,
    chain: Chain,
    /// Whom a node made an address for; the address is the place.
    addresses: Vec<PayeeId>,
    trace: Trace,
    told: VecDeque<String>,
    broken: Option<Violation>,
}

/// What a storm came to.
#[derive(Debug)]
pub struct Storms {
    /// What fired.
    pub faults: Faults,
    /// A hash over all that happened.
    pub trace: String,
    /// Bytes that were bought, and how often the bounds were held against what happened.
    pub bought: u64,
    /// See there.
    pub checks: (u64, u64),
}

/// Lets a storm of this seed pass over four nodes.
///
/// # Errors
/// What broke, with the end of the story.
pub fn storm(seed: u64, sky: Sky) -> Result<Storms, String> {
    let mut storm = Storm::new(seed, sky);
    storm.rage();
    storm.clear_up();
    storm.judge();
    let bought = storm.peers.iter().flat_map(|peer| peer.received.values()).map(|(_, bytes)| bytes).sum();
    let checks = storm
        .peers
        .iter()
        .fold((0, 0), |(all, unsecured), peer| (all + peer.truth.checks, unsecured + peer.truth.unsecured));
    match storm.broken {
        None => Ok(Storms { faults: storm.faults, trace: storm.trace.to_string(), bought, checks }),
        Some(violation) => {
            let story: Vec<String> = storm.told.into();
            Err(format!("{violation}\n{}", story.join("\n")))
        }
    }
}

impl Storm {
    fn new(seed: u64, sky: Sky) -> Self {
        let mut dice = Dice::of(seed);
        let weather = Weather::drawn(sky, &mut dice);
        // Lines that are reached within an hour of trade, and a pool that is soon empty.
        let whole = Ratio { num: 1, den: 1 };
        let stake = Msat::new([0, 100_000, 1_000_000][dice.below(3) as usize]);
        let rules = Rules { xi: whole, mu: whole, proof: Msat::new(100_000), stake, ..Rules::default() };
        let peers = (0..NODES).map(|_| Peer {
            node: Node::new(key(&mut dice), rules, Some(PRICE), true),
            up: true,
            life: 0,
            stingy: dice.below(6) == 0,
            outbox: VecDeque::new(),
            storing: false,
            sells: BTreeMap::new(),
            ending: Vec::new(),
            buys: BTreeMap::new(),
            truth: Truth::new(rules),
            received: BTreeMap::new(),
        });
        let peers = peers.collect();
        let mut storm = Self {
            now: START,
            dice,
            weather,
            faults: Faults::default(),
            events: BTreeMap::new(),
            planned: 0,
            streams: 0,
            calm: false,
            peers,
            chain: Chain::new(),
            addresses: Vec::new(),
            trace: Trace::default(),
            told: VecDeque::new(),
            broken: None,
        };
        storm.tell_blocks();
        (0..NODES).for_each(|node| storm.plan(100, Event::Tick { node, life: 0 }));
        storm.plan(30_000, Event::Block);
        storm.plan(5_000, Event::Gust);
        storm
    }

    fn rage(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
    }

    /// All nodes are up, all clocks are right, nothing is lost: streams end, blocks come, and everybody exchanges counters.
    fn clear_up(&mut self) {
        self.calm = true;
        self.weather = Weather::calm();
        (0..NODES)
            .filter(|node| !self.peers[*node].up)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| self.rise(node));
        self.peers.iter_mut().for_each(|peer| peer.node.ahead_ms = 0);
        let quiet = self.now.saturating_add(Duration::from_secs(300));
        while self.now < quiet && self.broken.is_none() {
            self.step();
        }
        for _ in 0..7 {
            self.chain.mine(1);
            self.tell_blocks();
        }
        // A receipt each way, and its answer, for as many as are told at once.
        for _ in 0..8 {
            for (buyer, seller) in pairs() {
                self.sync(buyer, seller);
            }
            let quiet = self.now.saturating_add(Duration::from_secs(20));
            while self.now < quiet && self.broken.is_none() {
                self.step();
            }
        }
    }

    /// What must be so after a storm: the books of all are right and agree, and nobody pays for what did not come.
    fn judge(&mut self) {
        let wallets: Vec<_> = self.peers.iter().map(|peer| peer.node.wallet(&self.chain)).collect();
        let books = self.peers.iter().zip(&wallets);
        let books: Vec<_> =
            books.map(|(peer, wallet)| Books { market: &peer.node.market, wallet: Some(wallet) }).collect();
        let found = audit_ledgers(&books);
        if let Some(finding) = found.first() {
            return self.hold(Err(Violation { part: "audit", what: finding.to_string() }));
        }
        for (buyer, seller) in pairs() {
            let them = self.peers[seller].node.id;
            let came = self.peers[buyer].received.values().filter(|(quote, _)| quote.quote().seller == them);
            let came: u64 = came.map(|(quote, bytes)| quote.charge(*bytes).msat()).sum();
            let account = self.peers[buyer].node.market.account(&them, Direction::Bought);
            let billed = account.map_or(0, |account| account.spent().msat());
            if billed > came {
                let what = format!("{buyer} is billed {billed} msat by {seller}, {came} came");
                self.hold(Err(Violation { part: "bill", what }));
            }
        }
        for place in 0..NODES {
            let bound = self.peers[place].truth.check_bound();
            self.hold(bound);
        }
    }

    fn step(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let Some(((at, _), event)) = self.events.pop_first() else { return };
        self.now = at;
        match event {
            Event::Arrives(packet) => {
                let node = packet.to;
                self.arrives(packet);
                self.flaw(node);
            }
            Event::Stored { node, life } => self.stored(node, life),
            Event::Tick { node, life } => self.tick(node, life),
            Event::Rises { node } => self.rise(node),
            Event::Block => self.block(),
            Event::Gust => self.gust(),
        }
    }

    fn plan(&mut self, in_ms: u64, event: Event) {
        self.planned += 1;
        self.events.insert((self.now.saturating_add(Duration::from_millis(in_ms)), self.planned), event);
    }

    /// What a node's own clock says.
    fn clock(&self, node: usize) -> Timestamp {
        self.peers[node].node.clock(self.now)
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        let what = format!("{:>9} ms: {}", self.now.ms() - START.ms(), what());
        self.trace.0.update(what.as_bytes());
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        self.told.push_back(what);
    }

    fn hold(&mut self, held: Result<(), Violation>) {
        if let Err(violation) = held {
            self.broken.get_or_insert(violation);
        }
    }

    /// An effect waits for what was staged before it.
    fn after_storing(&mut self, node: usize, effect: Effect) {
        let peer = &mut self.peers[node];
        peer.outbox.push_back((peer.node.market.staged_in_all(), effect));
        self.store_soon(node);
    }

    fn store_soon(&mut self, node: usize) {
        let peer = &mut self.peers[node];
        if !std::mem::replace(&mut peer.storing, true) {
            let (life, in_ms) = (peer.life, 1 + self.dice.below(10));
            self.plan(in_ms, Event::Stored { node, life });
        }
    }

    fn send(&mut self, from: usize, to: usize, stream: u64, message: Message) {
        self.after_storing(from, Effect::Send(Packet { from, to, stream, message }));
    }

    /// The journal has written: what waited for it happens.
    fn stored(&mut self, node: usize, life: u64) {
        let peer = &mut self.peers[node];
        if peer.life != life || !peer.up {
            return;
        }
        peer.storing = false;
        peer.node.store();
        peer.ending.clear();
        for (_, effect) in std::mem::take(&mut peer.outbox) {
            match effect {
                Effect::Send(packet) => self.leaves(packet),
                Effect::Pay { seller, id, payee, sat } => {
                    let (us, them) = (self.peers[node].node.id, self.peers[seller].node.id);
                    self.chain.broadcast(id, us, them, payee, sat);
                    self.tell(|| format!("{node} pays {sat} sat to {seller}"));
                    self.tell_node(node);
                }
            }
        }
    }

    fn block(&mut self) {
        if self.weather.reorganises(&mut self.dice) {
            let depth = 1 + self.dice.below(5);
            let (moved, undone) = self.chain.reorganise(depth, &mut self.dice);
            self.faults.fired(weather::REORGED, moved);
            self.faults.fired(weather::UNDONE, undone);
            self.tell(|| format!("a reorg {depth} deep moves {moved} payments, {undone} for good"));
        } else {
            self.chain.mine(1);
            let tip = self.chain.tip;
            self.tell(|| format!("block {tip}"));
        }
        self.tell_blocks();
        if !self.calm {
            let in_ms = 10_000 + self.dice.below(30_000);
            self.plan(in_ms, Event::Block);
        }
    }

    /// Everybody that is up hears of the chain.
    fn tell_blocks(&mut self) {
        for news in self.chain.progress() {
            let seller = self.peers.iter_mut().find(|peer| peer.node.id == news.seller).expect("a seller");
            seller.truth.paid(news.buyer, news.msat, news.settled);
        }
        (0..NODES).for_each(|node| self.tell_node(node));
    }

    fn tell_node(&mut self, node: usize) {
        if !self.peers[node].up {
            return;
        }
        let now = self.clock(node);
        let peer = &mut self.peers[node];
        peer.node.market.handle_tip(self.chain.tip);
        for coin in &self.chain.coins {
            let (incoming, outgoing) = self.chain.facts(coin);
            if coin.seller == peer.node.id {
                peer.node.market.handle_incoming(now, incoming);
            }
            if coin.buyer == peer.node.id {
                peer.node.market.handle_outgoing(now, outgoing);
            }
        }
        self.store_soon(node);
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|buyer| (0..NODES).filter(move |seller| *seller != buyer).map(move |seller| (buyer, seller)))
}
