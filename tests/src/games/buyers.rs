//! An honest seller and a gang of buyers that pay as little and take as much as they can.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p_identity::PeerId;
use libp2p_identity::ed25519::Keypair;
use pedlar_protocol::account::{Account, Direction, OutPoint, TAIL_FLOOR_BYTES, TAIL_SHARE};
use pedlar_protocol::budget::Budget;
use pedlar_protocol::content::{GROUP_LEN, Groups, Root, Size};
use pedlar_protocol::credit::Rules;
use pedlar_protocol::id::{PayeeId, QuoteId, TopUpId};
use pedlar_protocol::market::{Goods, Incoming, Market, Terms, TopUpStep};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::session::quote::{SignedQuote, SignedReceipt};
use pedlar_protocol::session::{FIRST_WINDOW, MAX_WINDOW, Request};
use pedlar_protocol::settlement::FINAL_DEPTH;
use pedlar_protocol::text::Name;
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{Signed, peer_id};

use super::{MOVES, Played, START, Table, key, store};

/// Identities of the gang; more are free, and change nothing.
const GANG: u64 = 4;

/// How often which move is usual: pays, opens, wants, is served, goes, tells receipts, trades, waits.
const MOVES_MADE: [u64; 8] = [1, 2, 6, 6, 2, 2, 2, 1];

/// How often which receipt is usual: none, an old one, one for too much, a forged one, an honest one.
const RECEIPTS_MADE: [u64; 5] = [3, 2, 1, 1, 8];

pub(super) fn play(seed: u64, dice: crate::dice::Dice) -> Played {
    let mut game = Game::new(Table::new(seed, dice));
    let moves = game.table.strategy(MOVES_MADE);
    let receipts = game.table.strategy(RECEIPTS_MADE);
    for buyer in 0..game.buyers.len() {
        game.pay(buyer);
        store(&mut game.seller);
    }
    for _ in 0..1 + game.table.dice.below(MOVES) {
        game.step(&moves, &receipts);
        game.check();
    }
    game.table.audit(&game.seller);
    game.table.played
}

/// One of the gang.
struct Buyer {
    key: Keypair,
    id: PeerId,
    coins: Vec<Coin>,
}

/// A payment; the seller's wallet tells of it.
#[derive(Clone, Copy)]
struct Coin {
    payee: PayeeId,
    n: u64,
    sat: u64,
    depth: u32,
}

/// What passed under a quote.
struct Line {
    buyer: usize,
    quote: SignedQuote,
    admitted: u64,
    sent: u64,
    /// The most that its buyer ever signed for.
    signed: u64,
    open: bool,
}

struct Game {
    table: Table,
    now: Timestamp,
    tip: u64,
    seller: Market,
    buyers: Vec<Buyer>,
    lines: BTreeMap<QuoteId, Line>,
    root: Root,
    size: Size,
    price: Price,
    rules: Rules,
    coins: u64,
}

impl Game {
    fn new(mut table: Table) -> Self {
        let price = super::PRICES[table.dice.below(4) as usize];
        // Pools from nothing to wide, with and without gifts.
        let stake = Msat::new([0, 100_000, 1_000_000][table.dice.below(3) as usize]);
        let grant = Msat::new([0, 0, 1_000][table.dice.below(3) as usize]);
        let rules = Rules { stake, grant, ..Rules::default() };
        let (root, size) = (Root::of(b"goods"), Size::new((2 << 20) + table.dice.below(1 << 20)).expect("a size"));
        let terms = Terms { credit: rules, min_topup_sat: 1, max_window: MAX_WINDOW, budget: Budget::default() };
        let mut seller = Market::new(key(0), "regtest-1".parse().expect("a network"), terms, START);
        seller.handle_tip(100);
        let name = Name::new("goods").expect("a name");
        seller.handle_published(START, root, Goods { name, size, price: Some(price), whole: None });
        let buyers = (0..1 + table.dice.below(GANG)).map(|n| {
            let key = key(n as u8 + 1);
            Buyer { id: peer_id(&key), key, coins: Vec::new() }
        });
        let buyers = buyers.collect();
        table.note(format!("{price}, {stake} at stake, gifts of {grant}, {size:?}"));
        Self { table, now: START, tip: 100, seller, buyers, lines: BTreeMap::new(), root, size, price, rules, coins: 0 }
    }

    fn step(&mut self, moves: &[u64; 8], receipts: &[u64; 5]) {
        let buyer = self.table.dice.below(self.buyers.len() as u64) as usize;
        match self.table.pick(moves) {
            0 => self.pay(buyer),
            1 => drop(self.open(buyer)),
            2 => self.want(receipts),
            3 => self.serve(),
            4 => self.leave(receipts),
            5 => self.tell(buyer, receipts),
            6 => self.trade(buyer),
            _ => self.wait(),
        }
        store(&mut self.seller);
    }

    /// Pays, or only says so: an unconfirmed payment is one that may never come.
    fn pay(&mut self, buyer: usize) {
        let groups = 1 + self.table.dice.below(24);
        let sat = self.price.charge(groups * GROUP_LEN).expect("a price").ceil_sat();
        let depth = [0, 1, 1, FINAL_DEPTH][self.table.dice.below(4) as usize];
        self.coins += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.coins.to_le_bytes());
        let whom = self.buyers[buyer].id;
        let payee = match self.seller.handle_topup_request(self.now, whom, TopUpId(id), sat) {
            Ok(TopUpStep::NeedAddress(payee)) => payee,
            Ok(TopUpStep::Given(_)) | Err(_) => return,
        };
        self.seller.handle_address(self.now, whom, TopUpId(id), sat, payee, "bcrt1q0".into());
        let coin = Coin { payee, n: self.coins, sat, depth };
        self.buyers[buyer].coins.push(coin);
        self.show(coin);
        self.table.note(format!("{buyer} pays {sat} sat, {depth} deep"));
    }

    /// The seller's wallet tells of a payment.
    fn show(&mut self, coin: Coin) {
        let mut txid = [0; 32];
        txid[..8].copy_from_slice(&coin.n.to_le_bytes());
        let outpoint = OutPoint { txid, vout: 0 };
        let height = if coin.depth == 0 { 0 } else { self.tip + 1 - u64::from(coin.depth) };
        let fact = Incoming { payee: coin.payee, outpoint, amount_sat: coin.sat, height, depth: coin.depth };
        self.seller.handle_incoming(self.now, fact);
    }

    fn open(&mut self, buyer: usize) -> Option<QuoteId> {
        let quote = self.seller.handle_open(self.now, self.buyers[buyer].id, Request::Chunks(self.root), self.size);
        self.table.note(format!("{buyer} opens: {}", quote.is_ok()));
        let quote = quote.ok()?;
        let id = quote.id();
        self.lines.insert(id, Line { buyer, quote, admitted: 0, sent: 0, signed: 0, open: true });
        Some(id)
    }

    /// Wants anything, as much as it likes, and signs as it likes.
    fn want(&mut self, receipts: &[u64; 5]) {
        let Some(id) = self.some_line(true) else { return };
        let start = self.table.dice.below(self.size.group_count());
        let end = start + 1 + self.table.dice.below(self.size.group_count() - start);
        let receipt = self.receipt(id, receipts);
        self.ask(id, Groups::new(start, end).expect("a range"), receipt);
    }

    fn ask(&mut self, id: QuoteId, groups: Groups, receipt: Option<Signed>) -> bool {
        let admitted = self.seller.handle_want(self.now, &id, groups, receipt);
        self.table.note(format!("{} wants {groups:?}: {admitted:?}", self.lines[&id].buyer));
        match admitted {
            Ok(admitted) => {
                let bytes = self.size.bytes_in(admitted);
                let line = self.lines.get_mut(&id).expect("a line");
                line.admitted += bytes;
                true
            }
            // An honest seller ends the stream with its refusal.
            Err(_) => {
                self.end(id, None);
                false
            }
        }
    }

    /// The seller sends some or all of what it admitted.
    fn serve(&mut self) {
        let Some(id) = self.some_line(true) else { return };
        let line = self.lines.get_mut(&id).expect("a line");
        let left = line.admitted - line.sent;
        let groups = 1 + self.table.dice.below(64);
        line.sent += left.min(groups * GROUP_LEN);
    }

    /// Goes away, with or without its last receipt.
    fn leave(&mut self, receipts: &[u64; 5]) {
        let Some(id) = self.some_line(true) else { return };
        let receipt = self.receipt(id, receipts);
        self.table.note(format!("{} goes, signing: {}", self.lines[&id].buyer, receipt.is_some()));
        self.end(id, receipt);
    }

    fn end(&mut self, id: QuoteId, receipt: Option<Signed>) {
        let line = self.lines.get_mut(&id).expect("a line");
        line.open = false;
        self.seller.handle_end(self.now, &id, line.sent, receipt);
    }

    /// Tells receipts on the account stream: for any quote, also for another's.
    fn tell(&mut self, buyer: usize, receipts: &[u64; 5]) {
        let mut told = Vec::new();
        for _ in 0..1 + self.table.dice.below(3) {
            let Some(id) = self.some_line(false) else { return };
            told.extend(self.receipt(id, receipts));
        }
        self.table.note(format!("{buyer} tells {} receipts", told.len()));
        // Parsed as the node does it, before the market hears of them.
        let whom = self.buyers[buyer].id;
        let told = told.into_iter().filter_map(|signed| SignedReceipt::parse(signed, &whom).ok());
        self.seller.handle_sync(self.now, whom, told.collect());
    }

    /// Buys as it should, to earn what it means to abuse; or nearly so, and leaves with the last window unsigned.
    fn trade(&mut self, buyer: usize) {
        let Some(id) = self.open(buyer) else { return };
        let mut next = 0;
        for _ in 0..4 {
            let end = (next + FIRST_WINDOW / GROUP_LEN).min(self.size.group_count());
            let honest = self.sign(id, self.lines[&id].sent);
            if !self.ask(id, Groups::new(next, end).expect("a range"), honest) {
                return;
            }
            let line = self.lines.get_mut(&id).expect("a line");
            line.sent = line.admitted;
            next = end;
        }
        if self.table.dice.below(2) == 0 {
            self.table.cheat(format!("{buyer} drops its last receipt"));
            return self.end(id, None);
        }
        let honest = self.sign(id, self.lines[&id].sent);
        self.end(id, honest);
    }

    /// Time passes, and blocks come.
    fn wait(&mut self) {
        self.now = self.now.saturating_add(Duration::from_secs(3_600 * (1 + self.table.dice.below(48))));
        let blocks = 1 + self.table.dice.below(6);
        self.tip += blocks;
        self.seller.handle_tip(self.tip);
        for buyer in 0..self.buyers.len() {
            for place in 0..self.buyers[buyer].coins.len() {
                let coin = &mut self.buyers[buyer].coins[place];
                // What was only said to be paid stays so.
                if coin.depth > 0 {
                    coin.depth = (coin.depth + blocks as u32).min(FINAL_DEPTH);
                    let coin = *coin;
                    self.show(coin);
                }
            }
        }
        self.table.note(format!("{blocks} blocks"));
    }

    /// Any line, or any that is open.
    fn some_line(&mut self, open: bool) -> Option<QuoteId> {
        let fit: Vec<_> = self.lines.iter().filter(|(_, line)| line.open || !open).map(|(id, _)| *id).collect();
        (!fit.is_empty()).then(|| fit[self.table.dice.below(fit.len() as u64) as usize])
    }

    /// A receipt as the strategy has it: none, honest, old, for too much, or made by somebody else.
    fn receipt(&mut self, id: QuoteId, receipts: &[u64; 5]) -> Option<Signed> {
        let sent = self.lines[&id].sent;
        match self.table.pick(receipts) {
            0 => {
                self.table.cheat("no receipt".into());
                None
            }
            1 => {
                let old = self.table.dice.below(sent + 1);
                self.table.cheat(format!("an old receipt, for {old} of {sent}"));
                self.sign(id, old)
            }
            2 => {
                let beyond = sent + 1 + self.table.dice.below(1 << 40);
                self.table.cheat(format!("a receipt for {beyond} of {sent}"));
                self.sign(id, beyond)
            }
            3 => {
                let other = self.table.dice.below(GANG + 2) as u8;
                self.table.cheat(format!("a receipt that {other} signs for {sent}"));
                let forged = SignedReceipt::sign(id, sent, &key(other));
                if usize::from(other) == self.lines[&id].buyer + 1 {
                    return self.sign(id, sent);
                }
                Some(forged.signed().clone())
            }
            _ => self.sign(id, sent),
        }
    }

    fn sign(&mut self, id: QuoteId, units: u64) -> Option<Signed> {
        let line = self.lines.get_mut(&id).expect("a line");
        line.signed = line.signed.max(units);
        (units > 0).then(|| SignedReceipt::sign(id, units, &self.buyers[line.buyer].key).signed().clone())
    }

    /// What is left with the gang, from the bytes and the coins alone, is within what the seller puts at stake.
    fn check(&mut self) {
        let nothing = Account::default();
        let (mut lost, mut realised) = (0, 0);
        for (place, buyer) in self.buyers.iter().enumerate() {
            let account = self.seller.account(&buyer.id, Direction::Sold).unwrap_or(&nothing);
            let confirmed =
                |depth| buyer.coins.iter().filter(move |coin| coin.depth >= depth).map(|coin| coin.sat * 1_000);
            let (paid, final_paid): (u64, u64) = (confirmed(1).sum(), confirmed(FINAL_DEPTH).sum());
            let granted = account.history().granted().msat();
            let (mut sent, mut spent) = (0, 0);
            for line in self.lines.values().filter(|line| line.buyer == place) {
                sent += line.quote.charge(line.sent).msat();
                let counted = account.line(&line.quote.id()).map_or(0, |line| line.signed_units());
                spent += line.quote.charge(counted).msat();
                self.table.hold(counted <= line.signed && counted <= line.admitted, || {
                    format!("{counted} bytes count, {} were signed for, {} admitted", line.signed, line.admitted)
                });
            }
            self.table.hold(account.paid().msat() == paid + granted, || format!("{} counts as paid", account.paid()));
            self.table.hold(account.folded().quotes > 0 || account.spent().msat() == spent, || "the total".into());
            let signed: u64 =
                self.lines.values().filter(|line| line.buyer == place).map(|line| line.signed.min(line.sent)).sum();
            let tail = self.price.charge(TAIL_FLOOR_BYTES.max(signed / TAIL_SHARE)).expect("a price").msat();
            let line = final_paid.min(account.spent().msat()) * 15 / 100;
            let (over, most) = (sent.saturating_sub(paid), tail + granted + line);
            self.table.hold(over <= most, || format!("{place} has {over} msat for nothing, {most} are let go"));
            lost += over;
            realised += final_paid.min(account.spent().msat());
        }
        let bound = self.rules.stake.msat() + realised * (2 + 50) * 3 / 1_000;
        self.table.hold(lost <= bound, || format!("{lost} msat are lost, {bound} were at stake"));
        self.table.hold(self.seller.ledger().sum() == 0, || "the ledger sums to something".into());
        self.table.played.lost_msat = self.table.played.lost_msat.max(lost);
    }
}
