//! An honest buyer and a seller that lies about its price, its object, its bytes, its promises and its books.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use libp2p_identity::PeerId;
use libp2p_identity::ed25519::Keypair;
use pedlar_protocol::account::{Direction, OutPoint, Payment, Repaid};
use pedlar_protocol::budget::Budget;
use pedlar_protocol::content::{GROUP_LEN, Groups, Item, Size, Verifier};
use pedlar_protocol::credit::{Rules, SignedGrant};
use pedlar_protocol::id::{QuoteId, TopUpId};
use pedlar_protocol::market::{Market, Outgoing, Terms};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::offer::Service;
use pedlar_protocol::session::quote::{Quote, SignedQuote};
use pedlar_protocol::session::{BuyerSession, MAX_WINDOW, Request};
use pedlar_protocol::settlement::{Advance, Onchain, SignedTopUp, TopUp, plan_advance};
use pedlar_protocol::wire::{Signed, peer_id};

use super::{MOVES, Played, START, Table, key, store};
use crate::dice::Dice;
use crate::hostile::Object;

/// What the network takes for a payment, in sat.
const FEE_SAT: u64 = 150;

pub(super) fn play(seed: u64, dice: Dice) -> Played {
    let mut game = Game::new(Table::new(seed, dice));
    let lies = Lies {
        quote: game.table.strategy([6, 2, 1, 1, 1, 1]),
        bytes: game.table.strategy([12, 1, 1, 1, 1, 1, 4]),
        word: game.table.strategy([6, 1, 1, 1, 1, 1]),
    };
    for _ in 0..1 + game.table.dice.below(MOVES / 4) {
        game.session(&lies);
        game.check();
        game.exchange();
        game.check();
    }
    game.table.audit(&game.buyer);
    game.table.played
}

/// How often the seller does what; the first of each is honest.
struct Lies {
    quote: [u64; 6],
    bytes: [u64; 7],
    word: [u64; 6],
}

struct Game {
    table: Table,
    buyer: Market,
    us: PeerId,
    them: PeerId,
    seller_key: Keypair,
    object: &'static Object,
    price: Price,
    have: Vec<bool>,
    /// What the owner allows: an advance in sat, and all that can be lost.
    word_sat: u64,
    max: Msat,
    numbers: u64,
    /// True bytes that came under each quote.
    came: BTreeMap<QuoteId, (SignedQuote, u64)>,
    /// Payments by id, as the wallet keeps them: the address and sat of the first time.
    wallet: BTreeMap<TopUpId, (String, u64)>,
    /// The seller's promise, where one was paid for.
    promised: Option<Price>,
}

impl Game {
    fn new(mut table: Table) -> Self {
        let terms =
            Terms { credit: Rules::default(), min_topup_sat: 1, max_window: MAX_WINDOW, budget: Budget::default() };
        let mut buyer = Market::new(key(1), "regtest-1".parse().expect("a network"), terms, START);
        buyer.handle_tip(100);
        let (seller_key, object) = (key(0), object());
        let price = super::PRICES[table.dice.below(4) as usize];
        let cost = price.charge(object.size.bytes()).expect("a price").ceil_sat();
        let word_sat = 1 + table.dice.below(2 * cost + 10);
        let max = Msat::from_sat(word_sat + FEE_SAT + table.dice.below(cost + 10)).expect("an amount");
        table.note(format!("{price}, {cost} sat in all, {word_sat} sat may be prepaid, {max} lost"));
        Self {
            table,
            us: buyer.me(),
            them: peer_id(&seller_key),
            buyer,
            seller_key,
            have: vec![false; object.size.group_count() as usize],
            object,
            price,
            word_sat,
            max,
            numbers: 0,
            came: BTreeMap::new(),
            wallet: BTreeMap::new(),
            promised: None,
        }
    }

    /// One session, from the question to whatever ends it.
    fn session(&mut self, lies: &Lies) {
        let signed = self.quote(lies);
        let prepaid = self.prepaid();
        let quote = match self.buyer.handle_quote(START, self.them, Request::Chunks(self.object.root), signed) {
            Ok(quote) => quote,
            Err(error) => return self.table.note(format!("the quote is not taken: {error}")),
        };
        let price = quote.quote().price;
        self.table.hold(prepaid == Msat::ZERO || self.promised.is_none_or(|promised| price <= promised), || {
            format!("{price} is taken, {:?} was promised", self.promised)
        });
        let Some(size) = Size::new(quote.quote().size) else { return };
        let left = self.max.saturating_sub(self.spent());
        let mut session = BuyerSession::new(size, price, Some(left), MAX_WINDOW);
        while let Some(groups) = session.poll_want(|from| self.missing(size, from)) {
            if !self.serve(&mut session, &quote, size, groups, lies) {
                break;
            }
        }
        if session.verified() > 0 {
            self.buyer.handle_verified(START, &quote, session.verified());
        }
        self.buyer.handle_left(START, &self.them, &quote.id());
        store(&mut self.buyer);
    }

    /// The price as the seller says it.
    fn quote(&mut self, lies: &Lies) -> Signed {
        let lie = self.table.pick(&lies.quote);
        let reused = lie == 4 && self.numbers > 0;
        self.numbers += u64::from(!reused);
        let mut quote = Quote {
            network: self.buyer.network().clone(),
            buyer: self.us,
            seller: self.them,
            number: self.numbers,
            offer_seq: 0,
            service: Service::Chunks,
            object: *self.object.root.as_bytes(),
            collection: None,
            whole: None,
            size: self.object.size.bytes(),
            price: self.price,
            expires: START.saturating_add(Duration::from_secs(60)),
        };
        match lie {
            1 => quote.price = Price::per_gib(self.price.msat_per_gib() * (2 + self.table.dice.below(9))),
            2 => quote.size = self.table.dice.below(2 * quote.size),
            3 => quote.buyer = peer_id(&key(7)),
            5 => quote.object[0] ^= 1,
            _ => {}
        }
        if lie > 0 {
            self.table.cheat(format!("quotes with lie {lie}: {} for {} bytes", quote.price, quote.size));
        }
        SignedQuote::sign(quote, &self.seller_key).signed().clone()
    }

    /// One Want and what comes of it; whether the session goes on.
    fn serve(
        &mut self,
        session: &mut BuyerSession,
        quote: &SignedQuote,
        size: Size,
        wanted: Groups,
        lies: &Lies,
    ) -> bool {
        let lie = self.table.pick(&lies.bytes);
        if lie > 0 {
            self.table.cheat(format!("serves {wanted:?} with lie {lie}"));
        }
        let count = self.object.size.group_count();
        let true_part = Groups::new(wanted.start().min(count - 1), wanted.end().min(count));
        let mut bytes = true_part.map(|part| self.object.encode(part)).unwrap_or_default();
        let (mut said, at) = (wanted, self.table.dice.below(bytes.len().max(1) as u64) as usize);
        match lie {
            1 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << self.table.dice.below(8)),
            2 => bytes.truncate(at),
            3 => bytes.extend_from_slice(b"surplus"),
            4 => said = Groups::new(wanted.start() + 1, wanted.end() + 1).expect("a range"),
            // It vanishes with what it has.
            5 => return false,
            6 => {
                self.advance(lies);
                return false;
            }
            _ => {}
        }
        if session.handle_serving(said).is_err() {
            return false;
        }
        let Ok(mut verifier) = Verifier::new(self.object.root, size, said) else { return false };
        let mut input = Bytes::from(bytes);
        loop {
            match verifier.next(&mut input) {
                Ok(Some(verified)) => {
                    let Item::Group { index, len } = verified.item() else { continue };
                    let at = (index * GROUP_LEN) as usize;
                    let is_true = self.object.data.get(at..at + len) == Some(verified.bytes());
                    self.table.hold(is_true, || format!("group {index} is written, and is not the object's"));
                    session.handle_verified(verified.payload_len());
                    self.have[index as usize] = true;
                    let came = self.came.entry(quote.id()).or_insert_with(|| (quote.clone(), 0));
                    came.1 += len as u64;
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        if !verifier.is_complete() || !input.is_empty() {
            return false;
        }
        session.handle_served();
        self.buyer.handle_verified(START, quote, session.verified());
        true
    }

    /// The seller asks for money first: it is given what the owner allows, once.
    fn advance(&mut self, lies: &Lies) {
        if !self.wallet.is_empty() {
            return;
        }
        let missing = Msat::from_sat(1 + self.table.dice.below(self.word_sat + 9)).expect("an amount");
        let rail = Onchain { fee_sat: FEE_SAT, min_sat: 1 + self.table.dice.below(100) };
        let plan = plan_advance(missing, rail, Some(self.word_sat), Msat::ZERO, Some(self.max));
        let Ok(Advance { amount_sat, fee_sat }) = plan else {
            return self.table.note(format!("no advance: {plan:?}"));
        };
        self.table.hold(amount_sat <= self.word_sat && Msat::from_sat(amount_sat + fee_sat) <= Some(self.max), || {
            format!("{amount_sat} sat are planned")
        });
        let id = TopUpId([self.table.dice.below(256) as u8; 32]);
        let id = self.buyer.handle_topup_wanted(START, self.them, amount_sat, id);
        let word = self.word(id, lies);
        let given = self.buyer.handle_topup(START, self.them, id, word);
        store(&mut self.buyer);
        let topup = match given {
            Ok(topup) => topup,
            Err(error) => return self.table.note(format!("the word is not taken: {error}")),
        };
        let says = topup.topup();
        let ceiling = says.ceilings.get(&Service::Chunks).copied();
        let sound = says.id == id && says.buyer == self.us && says.min_sat <= amount_sat && ceiling.is_some();
        self.table.hold(sound, || format!("paid under {says:?}"));
        self.promised = ceiling;
        self.wallet.entry(id).or_insert_with(|| (says.address.clone(), amount_sat));
        let outpoint = OutPoint { txid: id.0, vout: 0 };
        let fact = Outgoing { id, outpoint, amount_sat, fee_sat, height: 100, depth: 1, conflicted: false };
        self.buyer.handle_outgoing(START, fact);
        store(&mut self.buyer);
        self.table.note(format!("{amount_sat} sat are paid in advance"));
    }

    /// The seller's word on a top-up.
    fn word(&mut self, id: TopUpId, lies: &Lies) -> Signed {
        let mut topup = TopUp {
            id,
            network: self.buyer.network().clone(),
            buyer: self.us,
            seller: self.them,
            address: "bcrt1q0".into(),
            min_sat: 1,
            ceilings: [(Service::Chunks, self.price)].into(),
            until_height: 1_000,
        };
        let lie = self.table.pick(&lies.word);
        match lie {
            1 => topup.ceilings.clear(),
            2 => topup.buyer = peer_id(&key(7)),
            3 => topup.min_sat = 1 + self.word_sat,
            4 => topup.until_height = 99,
            5 => topup.id.0[0] ^= 1,
            _ => {}
        }
        if lie > 0 {
            self.table.cheat(format!("gives its word with lie {lie}"));
        }
        SignedTopUp::sign(topup, &self.seller_key).signed().clone()
    }

    /// The exchange of counters: the seller acknowledges, claims and gives what it likes.
    fn exchange(&mut self) {
        let known: Vec<QuoteId> = self.came.keys().copied().collect();
        let dice = &mut self.table.dice;
        let lines: Vec<_> =
            known.into_iter().map(|id| (id, dice.below(1 << 40))).chain([(QuoteId([9; 32]), 5)]).collect();
        let told = |n: u64, topup: TopUpId| Payment {
            outpoint: OutPoint { txid: [n as u8; 32], vout: 1 },
            topup,
            amount_sat: if n.is_multiple_of(2) { u64::MAX } else { 1 + n },
            height: n % 3 * 100,
            depth: 6,
            needed: 1,
            repaid: Some(Repaid { debt: Msat::MAX, late_weight: u32::MAX, epoch: 0 }),
            fee_sat: 1 << 40,
            ours: true,
        };
        let payments: Vec<_> = self.wallet.keys().map(|id| told(dice.below(1 << 30), *id)).collect();
        let gift = SignedGrant::sign(&self.us, Msat::new(dice.below(1 << 40)), &self.seller_key).signed().clone();
        let gift = Some(gift).filter(|_| dice.below(2) == 0);
        let taken = self.buyer.handle_synced(START, self.them, &lines, gift, &payments);
        store(&mut self.buyer);
        self.table.cheat(format!("claims {} lines and {} payments: {taken:?}", lines.len(), payments.len()));
    }

    fn missing(&self, size: Size, from: u64) -> Option<Groups> {
        let is_missing = |index: &u64| !self.have.get(*index as usize).copied().unwrap_or(false);
        let start = (from..size.group_count()).find(is_missing)?;
        let end = (start..size.group_count()).find(|index| !is_missing(index)).unwrap_or(size.group_count());
        Groups::new(start, end)
    }

    fn spent(&self) -> Msat {
        self.buyer.account(&self.them, Direction::Bought).map_or(Msat::ZERO, |account| account.spent())
    }

    fn prepaid(&self) -> Msat {
        let paid: u64 = self.wallet.values().map(|(_, sat)| sat * 1_000).sum();
        Msat::new(paid).saturating_sub(self.spent())
    }

    /// Signed for is only what is there and true; paid is only what the owner allowed, and under one id once.
    fn check(&mut self) {
        let came: u64 = self.came.values().map(|(quote, bytes)| quote.charge(*bytes).msat()).sum();
        let (spent, prepaid) = (self.spent().msat(), self.prepaid().msat());
        self.table.hold(spent <= came, || format!("{spent} msat are signed for, {came} came"));
        self.table.hold(spent <= self.max.msat(), || format!("{spent} msat, {} were allowed", self.max));
        let account = self.buyer.account(&self.them, Direction::Bought);
        let ours: u64 = account
            .into_iter()
            .flat_map(|account| account.payments())
            .filter(|payment| payment.ours)
            .map(|payment| payment.amount_sat)
            .sum();
        let left_sat: u64 = self.wallet.values().map(|(_, sat)| sat).sum();
        self.table.hold(ours == left_sat && left_sat <= self.word_sat, || format!("{ours} sat are in the books"));
        self.table.hold(self.buyer.ledger().sum() == 0, || "the ledger sums to something".into());
        self.table.played.lost_msat = self.table.played.lost_msat.max(prepaid);
    }
}

/// The one object of all games: 13 groups, the last one short.
fn object() -> &'static Object {
    static OBJECT: OnceLock<Object> = OnceLock::new();
    OBJECT.get_or_init(|| Object::new(Dice::of(7).garbage(12 * GROUP_LEN as usize + 5)))
}
