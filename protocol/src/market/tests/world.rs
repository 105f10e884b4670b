//! A small trading world: one seller, its buyers, a chain, and journals that outlive a crash.
//!
//! It does what a node does, in its order: an answer leaves only when what was staged before it is stored.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use libp2p_identity::PeerId;
use libp2p_identity::ed25519::{Keypair, SecretKey};

use crate::account::{Account, Direction, Entry, OutPoint};
use crate::budget::Budget;
use crate::content::{Groups, Root, Size};
use crate::credit::Rules;
use crate::id::{PayeeId, TopUpId};
use crate::market::{Books, Goods, Incoming, Market, Outgoing, Terms, TopUpStep, WalletBooks, audit_ledgers};
use crate::money::{Msat, Price};
use crate::refusal::Refusal;
use crate::session::quote::{SignedQuote, SignedReceipt};
use crate::session::{BuyerSession, MAX_WINDOW, PIPELINED_WANTS, Request, Window};
use crate::settlement::FINAL_DEPTH;
use crate::text::Name;
use crate::time::Timestamp;
use crate::wire::{Signed, peer_id};

pub(super) const START: Timestamp = Timestamp::from_ms(1_800_000_000_000);

/// Dear enough that 64 KiB cost 61 sat: limits are reached with few bytes.
pub(super) const DEAR: Price = Price::per_gib(1_000_000_000);

pub(super) fn key(n: u8) -> Keypair {
    SecretKey::try_from_bytes([n; 32]).unwrap().into()
}

/// A market, and the rows that survive it.
pub(super) struct Node {
    key: Keypair,
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) market: Market,
}

impl Node {
    fn new(n: u8, rules: Rules) -> Self {
        let terms = Terms { credit: rules, min_topup_sat: 1, max_window: MAX_WINDOW, budget: Budget::default() };
        let market = Market::new(key(n), "regtest-1".parse().unwrap(), terms, START);
        Self { key: key(n), rows: BTreeMap::new(), market }
    }

    pub(super) fn id(&self) -> PeerId {
        peer_id(&self.key)
    }

    /// Writes what is staged, as the journal does.
    pub(super) fn store(&mut self) {
        let (number, entries) = self.market.poll_entries();
        for entry in entries {
            entry.obsoletes().iter().for_each(|key| drop(self.rows.remove(key)));
            self.rows.insert(entry.key(), entry.encode());
        }
        self.market.handle_stored(number);
        assert!(self.market.poll_entries().1.is_empty());
    }

    /// Loses what is not stored, and starts again from the rows, in another order than they were written in.
    pub(super) fn crash(&mut self, now: Timestamp) {
        let (network, terms, tip) =
            (self.market.network().clone(), self.market.terms().clone(), self.market.tip_height());
        let goods: Vec<_> = self.market.shop().goods().map(|(root, goods)| (*root, goods.clone())).collect();
        self.market = Market::new(self.key.clone(), network, terms, now);
        goods.into_iter().for_each(|(root, goods)| self.market.handle_published(now, root, goods));
        let me = self.id();
        self.rows.values().for_each(|row| self.market.restore(&Entry::decode(row, &me).unwrap()));
        self.market.handle_tip(tip);
        self.market.handle_restored();
        self.store();
    }
}

/// One session as both sides see it.
pub(super) struct Stream {
    pub(super) buyer: usize,
    pub(super) quote: SignedQuote,
    pub(super) session: BuyerSession,
    pub(super) sent: u64,
    admitted: VecDeque<Groups>,
    at: u64,
    serving: bool,
}

/// A payment of a buyer to the seller; `height` is 0 while it is in no block.
#[derive(Clone, Copy)]
pub(super) struct Coin {
    pub(super) buyer: usize,
    pub(super) id: TopUpId,
    pub(super) payee: PayeeId,
    pub(super) sat: u64,
    pub(super) height: u64,
}

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) tip: u64,
    pub(super) seller: Node,
    pub(super) buyers: Vec<Node>,
    pub(super) streams: Vec<Stream>,
    pub(super) coins: Vec<Coin>,
    /// Receipts that the seller has got.
    pub(super) heard: Vec<(usize, SignedReceipt)>,
    root: Root,
    size: Size,
}

impl World {
    pub(super) fn new(buyers: u8, price: Price, rules: Rules) -> Self {
        let (root, size) = (Root::of(b"goods"), Size::new((96 << 20) + 5).unwrap());
        let mut seller = Node::new(1, rules);
        let goods = Goods { name: Name::new("goods").unwrap(), size, whole: None, price: Some(price) };
        seller.market.handle_published(START, root, goods);
        let buyers = (0..buyers).map(|n| Node::new(n + 2, Rules::default())).collect();
        let (streams, coins, heard) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { now: START, tip: 100, seller, buyers, streams, coins, heard, root, size };
        world.tell_tip();
        world
    }

    pub(super) fn wait(&mut self, span: Duration) {
        self.now = self.now.saturating_add(span);
    }

    pub(super) fn sold(&self, buyer: usize) -> Account {
        self.seller.market.account(&self.buyers[buyer].id(), Direction::Sold).cloned().unwrap_or_default()
    }

    pub(super) fn bought(&self, buyer: usize) -> Account {
        self.buyers[buyer].market.account(&self.seller.id(), Direction::Bought).cloned().unwrap_or_default()
    }

    pub(super) fn allowance(&self, buyer: usize) -> Msat {
        self.seller.market.allowance(&self.buyers[buyer].id(), self.now)
    }

    /// A new stream, at the end of the list; nothing where the seller has no place.
    pub(super) fn open(&mut self, buyer: usize) -> Result<usize, Refusal> {
        let id = self.buyers[buyer].id();
        let quote = self.seller.market.handle_open(self.now, id, Request::Chunks(self.root), self.size)?;
        self.seller.store();
        let signed = quote.signed().clone();
        let quote = self.buyers[buyer]
            .market
            .handle_quote(self.now, self.seller.id(), Request::Chunks(self.root), signed)
            .unwrap();
        let session = BuyerSession::new(self.size, quote.quote().price, None, MAX_WINDOW);
        self.streams.push(Stream { buyer, quote, session, sent: 0, admitted: VecDeque::new(), at: 0, serving: false });
        Ok(self.streams.len() - 1)
    }

    /// The buyer wants what is next and signs for what it has; a refusal ends the stream. Nothing where enough is on
    /// its way.
    pub(super) fn want(&mut self, stream: usize) -> Option<Result<Groups, Refusal>> {
        // The last group proves the size; it is taken for bought, so that the walk begins at the front.
        let count = self.size.group_count() - 1;
        let stream_state = &mut self.streams[stream];
        let groups = stream_state.session.poll_want(|from| Groups::new(from, count))?;
        let id = stream_state.quote.id();
        let receipt = self.receipt(stream);
        let admitted = self.seller.market.handle_want(self.now, &id, groups, receipt);
        self.seller.store();
        match admitted {
            Ok(groups) => self.streams[stream].admitted.push_back(groups),
            Err(_) => self.end(stream, 0, false),
        }
        Some(admitted)
    }

    /// The seller sends up to `groups` groups of what it admitted, and the buyer verifies them.
    pub(super) fn serve(&mut self, stream: usize, groups: u64) {
        let stream = &mut self.streams[stream];
        let mut left = groups;
        while let Some(range) = stream.admitted.front().copied().filter(|_| left > 0) {
            if !std::mem::replace(&mut stream.serving, true) {
                stream.session.handle_serving(range).unwrap();
                stream.at = range.start();
            }
            let part = Groups::new(stream.at, range.end()).unwrap().within(left * crate::content::GROUP_LEN);
            let bytes = self.size.bytes_in(part);
            stream.sent += bytes;
            stream.session.handle_verified(bytes);
            stream.at = part.end();
            left -= part.count();
            if part.end() == range.end() {
                stream.session.handle_served();
                stream.serving = false;
                stream.admitted.pop_front();
            }
        }
    }

    /// The stream breaks while `lost` groups of what was admitted are on their way; `receipt`: the last receipt arrives.
    pub(super) fn end(&mut self, stream: usize, lost: u64, receipt: bool) {
        let last = self.receipt(stream);
        let gone = self.streams.remove(stream);
        let unsent = gone.admitted.iter().map(|range| self.size.bytes_in(*range)).sum::<u64>();
        let sent = gone.sent + unsent.min(lost * crate::content::GROUP_LEN);
        self.seller.market.handle_end(self.now, &gone.quote.id(), sent, last.filter(|_| receipt));
        self.seller.store();
        let buyer = &mut self.buyers[gone.buyer];
        buyer.market.handle_left(self.now, &self.seller.id(), &gone.quote.id());
        buyer.store();
    }

    /// Both sides exchange counters until nothing is left to say.
    pub(super) fn sync(&mut self, buyer: usize) {
        let (us, them) = (self.buyers[buyer].id(), self.seller.id());
        let mut told_before = None;
        loop {
            let receipts = self.buyers[buyer].market.unacknowledged(&them);
            self.heard.extend(receipts.iter().map(|receipt| (buyer, receipt.clone())));
            let synced = self.seller.market.handle_sync(self.now, us, receipts.clone());
            self.seller.store();
            let grant = synced.grant.map(|grant| grant.signed().clone());
            let market = &mut self.buyers[buyer].market;
            market.handle_synced(self.now, them, &synced.lines, grant, &synced.payments).unwrap();
            self.buyers[buyer].store();
            if receipts.is_empty() {
                return;
            }
            assert_ne!(told_before.as_ref(), Some(&receipts), "the seller does not count them");
            told_before = Some(receipts);
        }
    }

    /// A buyer pays: a top-up is agreed on and its transaction is on its way.
    pub(super) fn pay(&mut self, buyer: usize, sat: u64) -> Coin {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&(self.coins.len() as u64 + 1).to_le_bytes());
        let (us, them) = (self.buyers[buyer].id(), self.seller.id());
        let id = self.buyers[buyer].market.handle_topup_wanted(self.now, them, sat, TopUpId(name));
        self.buyers[buyer].store();
        let step = self.seller.market.handle_topup_request(self.now, us, id, sat).unwrap();
        let payee = match step {
            TopUpStep::NeedAddress(payee) => payee,
            // The same payment again: a wallet pays an id once.
            TopUpStep::Given(_) => return *self.coins.iter().find(|coin| coin.id == id).expect("it was paid"),
        };
        let topup = self.seller.market.handle_address(self.now, us, id, sat, payee, "bcrt1q0".into());
        self.seller.store();
        self.buyers[buyer].market.handle_topup(self.now, them, id, topup.signed().clone()).unwrap();
        self.buyers[buyer].store();
        let coin = Coin { buyer, id, payee, sat, height: 0 };
        self.coins.push(coin);
        self.tell(coin);
        coin
    }

    /// A payment that is final at once: six blocks.
    pub(super) fn pay_finally(&mut self, buyer: usize, sat: u64) {
        self.pay(buyer, sat);
        (0..FINAL_DEPTH).for_each(|_| self.mine());
    }

    /// A block with all that waits.
    pub(super) fn mine(&mut self) {
        self.tip += 1;
        let tip = self.tip;
        self.coins.iter_mut().filter(|coin| coin.height == 0).for_each(|coin| coin.height = tip);
        self.tell_all();
    }

    /// Tells both wallets' facts anew.
    pub(super) fn tell_all(&mut self) {
        self.tell_tip();
        self.coins.clone().into_iter().for_each(|coin| self.tell(coin));
    }

    fn tell(&mut self, coin: Coin) {
        let (incoming, outgoing) = self.facts(coin);
        self.seller.market.handle_incoming(self.now, incoming);
        self.seller.store();
        self.buyers[coin.buyer].market.handle_outgoing(self.now, outgoing);
        self.buyers[coin.buyer].store();
    }

    fn tell_tip(&mut self) {
        self.seller.market.handle_tip(self.tip);
        self.buyers.iter_mut().for_each(|buyer| buyer.market.handle_tip(self.tip));
    }

    /// The seller goes down with all its streams, and comes back.
    pub(super) fn crash_seller(&mut self) {
        self.seller.crash(self.now);
        for gone in std::mem::take(&mut self.streams) {
            let buyer = &mut self.buyers[gone.buyer];
            if gone.session.verified() > 0 {
                buyer.market.handle_verified(self.now, &gone.quote, gone.session.verified());
            }
            buyer.market.handle_left(self.now, &self.seller.id(), &gone.quote.id());
            buyer.store();
        }
    }

    /// A buyer goes down before it could sign for the newest bytes, and comes back.
    pub(super) fn crash_buyer(&mut self, buyer: usize) {
        self.buyers[buyer].crash(self.now);
        let (gone, streams): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.streams).into_iter().partition(|stream| stream.buyer == buyer);
        self.streams = streams;
        for gone in gone {
            self.seller.market.handle_end(self.now, &gone.quote.id(), gone.sent, None);
        }
        self.seller.store();
    }

    /// What an account would lack if nothing more were ever paid or signed: the reference, from the raw lines.
    pub(super) fn unsecured(&self, buyer: usize) -> u64 {
        let account = self.sold(buyer);
        let lines = account.lines().filter(|line| !line.was_interrupted());
        let sent: u64 = lines.map(|line| line.quote().charge(line.admitted_units()).msat() - line.spent().msat()).sum();
        (account.spent().msat() + sent + account.folded().tail.msat()).saturating_sub(account.paid().msat())
    }

    /// What two sides can differ in before they have spoken: the windows in flight of each line, against the seller.
    pub(super) fn check_difference(&self, buyer: usize) {
        let sold = self.sold(buyer);
        for line in self.bought(buyer).lines() {
            let known = sold.line(&line.id()).map_or(0, |line| line.signed_units());
            let flight = Window::up_to(MAX_WINDOW).after(known) * PIPELINED_WANTS as u64;
            let bound = known..=known + flight;
            let folded = sold.line(&line.id()).is_none() && line.is_settled();
            assert!(folded || bound.contains(&line.signed_units()), "{} of {known}", line.signed_units());
        }
    }

    /// What must hold of each node's books at every moment.
    pub(super) fn audit(&self) {
        for node in std::iter::once(&self.seller).chain(&self.buyers) {
            let wallet = self.wallet(node.id());
            let books = Books { market: &node.market, wallet: Some(&wallet) };
            assert_eq!(audit_ledgers(&[books]), []);
        }
    }

    /// After an exchange both views are equal.
    pub(super) fn check_agreement(&self, buyer: usize) {
        let books = [&self.seller, &self.buyers[buyer]].map(|node| Books { market: &node.market, wallet: None });
        assert_eq!(audit_ledgers(&books), []);
    }

    /// What the wallet of a node knows.
    pub(super) fn wallet(&self, node: PeerId) -> WalletBooks {
        let facts = self.coins.iter().map(|coin| (coin, self.facts(*coin)));
        let is_seller = node == self.seller.id();
        let paid =
            |(coin, (_, fact)): (&Coin, (Incoming, Outgoing))| (self.buyers[coin.buyer].id() == node).then_some(fact);
        WalletBooks {
            incoming: facts.clone().filter(|_| is_seller).map(|(_, (fact, _))| fact).collect(),
            outgoing: facts.filter_map(paid).collect(),
        }
    }

    /// Where a payment stands, as the seller's wallet and the buyer's see it.
    fn facts(&self, coin: Coin) -> (Incoming, Outgoing) {
        let depth = if coin.height == 0 { 0 } else { (self.tip + 1 - coin.height).min(FINAL_DEPTH.into()) as u32 };
        let (outpoint, height) = (OutPoint { txid: coin.id.0, vout: 0 }, coin.height);
        (
            Incoming { payee: coin.payee, outpoint, amount_sat: coin.sat, height, depth },
            Outgoing { id: coin.id, outpoint, amount_sat: coin.sat, fee_sat: 1, height, depth, conflicted: false },
        )
    }

    /// The receipt for what verified, stored before it leaves.
    fn receipt(&mut self, stream: usize) -> Option<Signed> {
        let stream = &self.streams[stream];
        let buyer = &mut self.buyers[stream.buyer];
        let units = stream.session.verified();
        let receipt = (units > 0).then(|| buyer.market.handle_verified(self.now, &stream.quote, units));
        buyer.store();
        receipt.map(|receipt| receipt.signed().clone())
    }
}
