//! What the nodes of a storm do with what comes: selling, buying, paying, and keeping to their deadlines.

use std::collections::btree_map::Entry;
use std::time::Duration;

use pedlar_protocol::book::Verdict;
use pedlar_protocol::content::Groups;
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::market::{Synced, TopUpStep};
use pedlar_protocol::money::Msat;
use pedlar_protocol::offer::SignedOffer;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::quote::SignedReceipt;
use pedlar_protocol::session::{BuyerSession, MAX_WINDOW, Request};
use pedlar_protocol::wire::Signed;

use super::weather::FUTURE_OFFER;
use super::{Buying, Effect, Event, Message, NODES, Packet, Selling, Storm};
use crate::sim::{PRICE, Violation, root, size};

/// As the node's: nothing heard for so long, and a stream is over.
const IDLE: Duration = Duration::from_secs(25);

/// Groups in one message of payload.
const PIECE: u64 = 4;

/// No offer may be from further ahead (the book's own bound).
const FUTURE: Duration = Duration::from_secs(5 * 60);

impl Storm {
    /// A message leaves its node, unless its stream is gone; payload counts as sent from now on.
    pub(super) fn leaves(&mut self, packet: Packet) {
        if let Message::Piece(groups) | Message::Serving(groups) = packet.message {
            let sells = &mut self.peers[packet.from].sells;
            let Some(stream) = sells.get_mut(&(packet.to, packet.stream)) else { return };
            if matches!(packet.message, Message::Piece(_)) {
                stream.sent += size().bytes_in(groups);
            }
        }
        self.travels(packet);
    }

    pub(super) fn arrives(&mut self, packet: Packet) {
        let Packet { from, to, stream, message } = packet;
        if !self.peers[to].up {
            return;
        }
        match message {
            Message::Open => self.opens(to, from, stream),
            Message::Quote(signed) => self.quoted(to, from, stream, signed),
            Message::Want { groups, receipt } => self.wants(to, from, stream, groups, receipt),
            Message::Serving(groups) => self.serving(to, stream, groups),
            Message::Piece(groups) => self.piece(to, stream, groups),
            Message::Refused(refusal) => self.refused(to, from, stream, refusal),
            Message::Close(receipt) => self.ends(to, from, stream, receipt),
            Message::Sync(receipts) => self.synced(to, from, receipts),
            Message::Synced(synced) => self.told(to, from, *synced),
            Message::TopUpWanted { id, sat } => self.asked_for_topup(to, from, id, sat),
            Message::TopUp { id, word } => self.topped_up(to, from, id, word),
            Message::Offer(offer) => self.offered(to, &offer),
        }
        self.store_soon(to);
    }

    /// A node looks at its deadlines, and now and then means to buy something.
    pub(super) fn tick(&mut self, node: usize, life: u64) {
        if self.peers[node].life != life || !self.peers[node].up {
            return;
        }
        let now = self.now;
        let late = |heard: pedlar_protocol::time::Timestamp| now.since(heard) > IDLE;
        let peer = &self.peers[node];
        let sells = peer.sells.iter().filter(|(_, stream)| late(stream.heard)).map(|(name, _)| *name);
        let (sells, buys): (Vec<_>, Vec<_>) = (
            sells.collect(),
            peer.buys.iter().filter(|(_, stream)| late(stream.heard)).map(|(name, _)| *name).collect(),
        );
        sells.into_iter().for_each(|(buyer, stream)| self.ends(node, buyer, stream, None));
        buys.into_iter().for_each(|stream| self.leave(node, stream));
        if !self.calm {
            self.gossip(node);
            let seller = self.dice.below(NODES as u64) as usize;
            let busy = self.peers[node].buys.values().any(|buying| buying.seller == seller);
            if seller != node && !busy && self.dice.below(2) == 0 {
                self.sync(node, seller);
                self.streams += 1;
                let (stream, heard) = (self.streams, self.now);
                self.peers[node].buys.insert(stream, Buying { seller, heard, trade: None, coming: None });
                self.send(node, seller, stream, Message::Open);
            }
        }
        self.store_soon(node);
        let in_ms = 2_000 + self.dice.below(8_000);
        self.plan(in_ms, Event::Tick { node, life });
    }

    // Selling.

    fn opens(&mut self, node: usize, buyer: usize, stream: u64) {
        let (now, id) = (self.clock(node), self.peers[buyer].node.id);
        let peer = &mut self.peers[node];
        let Entry::Vacant(place) = peer.sells.entry((buyer, stream)) else { return };
        match peer.node.market.handle_open(now, id, Request::Chunks(root()), size()) {
            Ok(quote) => {
                place.insert(Selling { quote: quote.id(), sent: 0, heard: self.now });
                self.send(node, buyer, stream, Message::Quote(quote.signed().clone()));
            }
            Err(refusal) => self.send(node, buyer, stream, Message::Refused(refusal)),
        }
    }

    fn wants(&mut self, node: usize, buyer: usize, stream: u64, groups: Groups, receipt: Option<Signed>) {
        let (now, whom) = (self.clock(node), self.peers[buyer].node.id);
        let peer = &mut self.peers[node];
        let Some(selling) = peer.sells.get_mut(&(buyer, stream)) else { return };
        selling.heard = self.now;
        let quote = selling.quote;
        let signed = receipt.clone().and_then(|receipt| SignedReceipt::parse(receipt, &whom).ok());
        let line = peer.node.market.allowance(&whom, now);
        let admitted = peer.node.market.handle_want(now, &quote, groups, receipt);
        if let Some(receipt) = signed {
            peer.truth.signed(whom, quote, receipt.units());
        }
        match admitted {
            Ok(admitted) => {
                peer.truth.admitted(whom, quote, PRICE, size().bytes_in(admitted));
                let (a, b) = (peer.truth.check_a(whom, line), peer.truth.check_b());
                self.hold(a);
                self.hold(b);
                self.tell(|| format!("{node} admits {admitted:?} to {buyer} on {stream}, whose line is {line}"));
                self.send(node, buyer, stream, Message::Serving(admitted));
                let mut start = admitted.start();
                while let Some(piece) = Groups::new(start, admitted.end().min(start + PIECE)) {
                    self.send(node, buyer, stream, Message::Piece(piece));
                    start = piece.end();
                }
            }
            Err(refusal) => {
                self.tell(|| format!("{node} refuses {buyer} on {stream}: {refusal}"));
                self.ends(node, buyer, stream, None);
                self.send(node, buyer, stream, Message::Refused(refusal));
            }
        }
    }

    fn ends(&mut self, node: usize, buyer: usize, stream: u64, receipt: Option<Signed>) {
        let (now, whom) = (self.clock(node), self.peers[buyer].node.id);
        let peer = &mut self.peers[node];
        let Some(gone) = peer.sells.remove(&(buyer, stream)) else { return };
        let signed = receipt.clone().and_then(|receipt| SignedReceipt::parse(receipt, &whom).ok());
        peer.node.market.handle_end(now, &gone.quote, gone.sent, receipt);
        if let Some(receipt) = signed {
            peer.truth.signed(whom, receipt.quote_id(), receipt.units());
        }
        peer.truth.ended(whom, gone.quote, gone.sent);
        peer.ending.push((whom, gone.quote));
        let sent = gone.sent;
        self.tell(|| format!("{node} ends {stream} with {buyer} after {sent} bytes"));
    }

    fn synced(&mut self, node: usize, buyer: usize, receipts: Vec<SignedReceipt>) {
        let (now, whom) = (self.clock(node), self.peers[buyer].node.id);
        let peer = &mut self.peers[node];
        for receipt in &receipts {
            peer.truth.signed(whom, receipt.quote_id(), receipt.units());
        }
        let synced = peer.node.market.handle_sync(now, whom, receipts);
        self.send(node, buyer, 0, Message::Synced(Box::new(synced)));
    }

    fn asked_for_topup(&mut self, node: usize, buyer: usize, id: TopUpId, sat: u64) {
        let (now, whom) = (self.clock(node), self.peers[buyer].node.id);
        let market = &mut self.peers[node].node.market;
        let word = match market.handle_topup_request(now, whom, id, sat) {
            Ok(TopUpStep::Given(word)) => *word,
            Ok(TopUpStep::NeedAddress(payee)) => {
                let known = self.addresses.iter().position(|known| *known == payee);
                let place = known.unwrap_or_else(|| {
                    self.addresses.push(payee);
                    self.addresses.len() - 1
                });
                market.handle_address(now, whom, id, sat, payee, format!("bcrt1q{place}"))
            }
            Err(_) => return,
        };
        self.send(node, buyer, 0, Message::TopUp { id, word: word.signed().clone() });
    }

    // Buying.

    /// Tells a seller the receipts that it has not acknowledged.
    pub(super) fn sync(&mut self, node: usize, seller: usize) {
        let receipts = self.peers[node].node.market.unacknowledged(&self.peers[seller].node.id);
        self.send(node, seller, 0, Message::Sync(receipts));
    }

    fn told(&mut self, node: usize, seller: usize, synced: Synced) {
        let (now, whom) = (self.clock(node), self.peers[seller].node.id);
        let grant = synced.grant.map(|grant| grant.signed().clone());
        let market = &mut self.peers[node].node.market;
        if let Err(error) = market.handle_synced(now, whom, &synced.lines, grant, &synced.payments) {
            self.hold(Err(Violation { part: "word", what: error.to_string() }));
        }
    }

    fn quoted(&mut self, node: usize, seller: usize, stream: u64, signed: Signed) {
        let (now, whom) = (self.clock(node), self.peers[seller].node.id);
        let limit = Msat::from_sat(100 + self.dice.below(3_000));
        let peer = &mut self.peers[node];
        let Some(buying) = peer.buys.get_mut(&stream).filter(|buying| buying.trade.is_none()) else { return };
        buying.heard = self.now;
        match peer.node.market.handle_quote(now, whom, Request::Chunks(root()), signed) {
            Ok(quote) => {
                let session = BuyerSession::new(size(), quote.quote().price, limit, MAX_WINDOW);
                peer.received.insert(quote.id(), (quote.clone(), 0));
                buying.trade = Some((quote, session));
                self.want(node, stream);
            }
            // Its clock, or ours, is wrong.
            Err(_) => self.leave(node, stream),
        }
    }

    /// Wants what may be wanted, with the newest receipt.
    fn want(&mut self, node: usize, stream: u64) {
        loop {
            let peer = &mut self.peers[node];
            let Some(buying) = peer.buys.get_mut(&stream) else { return };
            let Some((_, session)) = &mut buying.trade else { return };
            let count = size().group_count();
            // The last group, which proves the size, is there.
            let Some(groups) = session.poll_want(|from| Groups::new(from, count - 1)) else {
                if session.is_idle() {
                    self.leave(node, stream);
                }
                return;
            };
            let seller = buying.seller;
            let receipt = self.sign(node, stream);
            self.send(node, seller, stream, Message::Want { groups, receipt });
        }
    }

    fn serving(&mut self, node: usize, stream: u64, groups: Groups) {
        let Some(buying) = self.peers[node].buys.get_mut(&stream) else { return };
        let Some((_, session)) = &mut buying.trade else { return };
        if buying.coming.is_some() || session.handle_serving(groups).is_err() {
            return self.leave(node, stream);
        }
        buying.coming = Some((groups, groups.start()));
        buying.heard = self.now;
    }

    fn piece(&mut self, node: usize, stream: u64, piece: Groups) {
        let peer = &mut self.peers[node];
        let Some(buying) = peer.buys.get_mut(&stream) else { return };
        let (Some((quote, session)), Some((groups, next))) = (&mut buying.trade, &mut buying.coming) else {
            return self.leave(node, stream);
        };
        // Out of order it does not verify.
        if piece.start() != *next || piece.end() > groups.end() {
            return self.leave(node, stream);
        }
        let bytes = size().bytes_in(piece);
        session.handle_verified(bytes);
        if let Some((_, received)) = peer.received.get_mut(&quote.id()) {
            *received += bytes;
        }
        *next = piece.end();
        buying.heard = self.now;
        if piece.end() == groups.end() {
            session.handle_served();
            buying.coming = None;
            self.want(node, stream);
        }
    }

    /// The receipt for all that verified on a stream: stored before it leaves, like all that a node says.
    fn sign(&mut self, node: usize, stream: u64) -> Option<Signed> {
        let now = self.clock(node);
        let peer = &mut self.peers[node];
        let (quote, session) = peer.buys.get(&stream)?.trade.as_ref()?;
        let units = session.verified();
        (units > 0).then(|| peer.node.market.handle_verified(now, quote, units).signed().clone())
    }

    /// Ends a stream in order, with a receipt for what came.
    fn leave(&mut self, node: usize, stream: u64) {
        let receipt = if self.peers[node].stingy { None } else { self.sign(node, stream) };
        let now = self.clock(node);
        let Some(gone) = self.peers[node].buys.remove(&stream) else { return };
        if let Some((quote, _)) = gone.trade {
            let whom = self.peers[gone.seller].node.id;
            self.peers[node].node.market.handle_left(now, &whom, &quote.id());
        }
        self.send(node, gone.seller, stream, Message::Close(receipt));
    }

    /// The seller wants money first: it gets some, unless some is on its way.
    fn refused(&mut self, node: usize, seller: usize, stream: u64, refusal: Refusal) {
        self.leave(node, stream);
        let missing = match refusal {
            Refusal::PayFirst { missing, .. } | Refusal::OverLimit { missing } => missing,
            _ => return,
        };
        let (now, whom) = (self.clock(node), self.peers[seller].node.id);
        let (sat, name) = (missing.ceil_sat() + self.dice.below(400), self.dice.garbage(32));
        let market = &mut self.peers[node].node.market;
        if !market.is_paying(&whom) {
            let id = TopUpId(name.try_into().expect("32 bytes"));
            let id = market.handle_topup_wanted(now, whom, sat, id);
            self.send(node, seller, 0, Message::TopUpWanted { id, sat });
        }
    }

    fn topped_up(&mut self, node: usize, seller: usize, id: TopUpId, word: Signed) {
        let (now, whom) = (self.clock(node), self.peers[seller].node.id);
        let market = &mut self.peers[node].node.market;
        let Ok(word) = market.handle_topup(now, whom, id, word) else { return };
        let place: Option<usize> = word.topup().address.strip_prefix("bcrt1q").and_then(|place| place.parse().ok());
        let (Some(payee), Some((_, line))) =
            (place.and_then(|place| self.addresses.get(place)), market.topup_bought(&id))
        else {
            return;
        };
        let effect = Effect::Pay { seller, id, payee: *payee, sat: line.amount_sat };
        self.after_storing(node, effect);
    }

    // Offers.

    fn gossip(&mut self, node: usize) {
        let (now, random) = (self.clock(node), self.dice.below(u64::MAX));
        let offer = self.peers[node].node.market.poll_offer(now, &[], random).expect("a valid offer");
        if let Some(offer) = offer {
            for other in (0..NODES).filter(|other| *other != node) {
                self.send(node, other, 0, Message::Offer(Box::new(offer.clone())));
            }
        }
    }

    fn offered(&mut self, node: usize, offer: &SignedOffer) {
        let (now, random) = (self.clock(node), self.dice.below(u64::MAX));
        let market = &mut self.peers[node].node.market;
        let screened = market.screen_offer(now, offer.bytes());
        let taken = screened.is_ok_and(|offer| {
            offer.verify().is_ok_and(|offer| market.handle_offer(now, offer, random) == Verdict::Accept)
        });
        let ahead = offer.offer().issued.since(now);
        if taken && ahead > FUTURE {
            let what = format!("{node} takes an offer from {} s ahead", ahead.as_secs());
            self.hold(Err(Violation { part: "offer", what }));
        }
        self.faults.fired(FUTURE_OFFER, u64::from(!taken && ahead > FUTURE));
    }
}
