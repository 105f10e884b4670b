//! An honest buyer among sellers of which half vanish with what they are paid first (MONEY.md 2.5).
//!
//! It knows only what its own market remembers. Paying costs nothing here: what is shown is the rule of what is left with
//! whom, not the rail.

use std::time::Duration;

use pedlar_protocol::budget::Budget;
use pedlar_protocol::content::{GROUP_LEN, Groups};
use pedlar_protocol::credit::Rules;
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::quote::{Quote, SignedQuote};
use pedlar_protocol::session::{MAX_WINDOW, Request, Window};
use pedlar_protocol::settlement::{Onchain, first_step, plan_advance};
use pedlar_protocol::time::Timestamp;

use super::chain::Chain;
use super::node::{Node, key};
use super::stall::{Opened, Receipt, Stall};
use super::{START, Violation, root, size};
use crate::dice::Dice;

/// A sat buys a MiB, nearly: most windows of a purchase are large ones.
const PRICE: Price = Price::per_gib(1_000_000);

/// What is bought at once where so much may be left, in bytes: 62 sat.
const PURCHASE: u64 = 64 << 20;

/// An advance to everybody, in sat, for a buyer that has no rule.
const FIXED_SAT: u64 = 100;

/// How a seller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it should be.
    Honest,
    /// Takes the first advance, and is gone.
    Vanishing,
    /// Serves well until enough is left with it, and is gone with that.
    Milking,
    /// Takes the first advance and sends bytes that don't verify.
    Griefing,
    /// Takes the first advance and asks five times as much.
    Repricing,
}

impl Kind {
    /// All that are not as they should be.
    pub const BAD: [Self; 4] = [Self::Vanishing, Self::Milking, Self::Griefing, Self::Repricing];

    /// As it stands in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Vanishing => "vanishing",
            Self::Milking => "milking",
            Self::Griefing => "griefing",
            Self::Repricing => "re-pricing",
        }
    }
}

/// What a buyer leaves with a seller that it pays first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// MONEY.md 2.5: a first step, then a tenth of what was served well; nine of ten purchases where that is most.
    FirstSteps,
    /// The same to everybody, wherever it comes to.
    Fixed,
}

/// What the sellers of a kind came to.
#[derive(Debug, Clone, Copy)]
pub struct Losses {
    /// Which.
    pub kind: Kind,
    /// Sellers that the buyer was cheated by.
    pub sellers: u64,
    /// What stayed with them, in msat.
    pub lost: u64,
    /// The most that may stay with them, in msat.
    pub bound: u64,
}

/// What a buyer came to.
#[derive(Debug)]
pub struct Shopped {
    /// The first bound that did not hold.
    pub broken: Option<Violation>,
    /// What it got for its money, in msat.
    pub spent: u64,
    /// What it lost.
    pub losses: Vec<Losses>,
}

impl Shopped {
    /// What it lost in all, in msat.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses.iter().map(|loss| loss.lost).sum()
    }
}

/// A seller as the buyer meets it.
struct Shop {
    kind: Kind,
    node: Node,
    /// Whether it has shown what it is.
    exposed: bool,
    /// The most that the rule ever allowed to be left with it, in msat.
    allowed: u64,
}

struct Shopper {
    now: Timestamp,
    dice: Dice,
    habit: Habit,
    chain: Chain,
    buyer: Node,
    shops: Vec<Shop>,
    broken: Option<Violation>,
}

/// Shops for so many purchases.
#[must_use]
pub fn shop(seed: u64, habit: Habit, purchases: u64) -> Shopped {
    let mut dice = Dice::of(seed);
    let budget = Budget { day_sat: u64::MAX, month_sat: u64::MAX };
    let mut buyer = Node::with_budget(key(&mut dice), Rules::default(), None, budget);
    buyer.market.handle_tip(100);
    let mut shopper = Shopper { now: START, dice, habit, chain: Chain::new(), buyer, shops: Vec::new(), broken: None };
    for kind in [Kind::Honest, Kind::Honest, Kind::Milking] {
        shopper.founded(kind);
    }
    for _ in 0..purchases {
        let shop = shopper.choose();
        shopper.purchase(shop);
    }
    shopper.finish()
}

impl Shopper {
    fn founded(&mut self, kind: Kind) -> usize {
        let mut node = Node::new(key(&mut self.dice), Rules::default(), Some(PRICE), false);
        node.market.handle_tip(self.chain.tip);
        self.shops.push(Shop { kind, node, exposed: false, allowed: 0 });
        self.shops.len() - 1
    }

    /// Where to buy: in nine of ten cases where most may be left, else anywhere; every second one of those is new and gone
    /// at once.
    fn choose(&mut self) -> usize {
        let known = self.shops.iter().enumerate().filter(|(_, shop)| !shop.exposed);
        let best = known.max_by_key(|(place, _)| (self.buyer.market.served_well(&self.id(*place)), *place));
        match best {
            Some((place, _)) if self.habit == Habit::FirstSteps && self.dice.below(10) < 9 => place,
            _ if self.dice.below(2) == 0 => self.founded(Kind::Vanishing),
            _ => {
                let kind = [Kind::Honest, Kind::Milking, Kind::Griefing, Kind::Repricing][self.dice.below(4) as usize];
                let fit = |shop: &Shop| shop.kind == kind && !shop.exposed;
                let fitting: Vec<usize> = (0..self.shops.len()).filter(|place| fit(&self.shops[*place])).collect();
                match fitting.len() as u64 {
                    0 => self.founded(kind),
                    count => fitting[self.dice.below(count) as usize],
                }
            }
        }
    }

    fn id(&self, shop: usize) -> libp2p_identity::PeerId {
        self.shops[shop].node.id
    }

    /// Buys as much as may be left with this seller, and what is left there already.
    fn purchase(&mut self, shop: usize) {
        let id = self.id(shop);
        self.shops[shop].node.market.handle_tip(self.chain.tip);
        let (served, left) = (self.buyer.market.served_well(&id), self.buyer.market.left_with(&id));
        let unasked = match self.habit {
            Habit::FirstSteps => first_step(PRICE, served),
            Habit::Fixed => Msat::from_sat(FIXED_SAT).unwrap_or_default(),
        };
        let most = self.shops[shop].allowed.max(unasked.msat());
        self.shops[shop].allowed = most;
        let sat = Msat::from_sat(unasked.floor_sat()).unwrap_or_default();
        let bytes = PRICE.affordable(sat.max(left)).min(PURCHASE) / GROUP_LEN * GROUP_LEN;
        let missing = PRICE.charge(bytes).unwrap_or_default().saturating_sub(left);
        let rail = Onchain { fee_sat: 0, min_sat: 1 };
        let advance =
            (missing > Msat::ZERO).then(|| plan_advance(missing, rail, None, unasked.saturating_sub(left), None));
        if let Some(Ok(advance)) = advance {
            let sat = if self.habit == Habit::Fixed { FIXED_SAT } else { advance.amount_sat };
            self.pay(shop, sat);
        }
        self.pass();
        self.fetch(shop, bytes);
    }

    /// Pays in advance, by itself: no person is asked.
    fn pay(&mut self, shop: usize, sat: u64) {
        let (us, them) = (self.buyer.id, self.id(shop));
        let random = TopUpId(self.dice.garbage(32).try_into().expect("32 bytes"));
        let id = self.buyer.market.handle_unasked_topup(self.now, them, sat, 0, random).expect("a wide budget");
        let Some((payee, Some(word))) = self.shops[shop].node.topup(self.now, us, id, sat) else { return };
        let signed = word.signed().clone();
        self.buyer.market.handle_topup(self.now, them, id, signed).expect("a sound word");
        self.chain.broadcast(id, us, them, payee, sat);
        let left = self.buyer.market.left_with(&them).msat() + sat * 1_000;
        let allowed = self.shops[shop].allowed;
        if left > allowed && self.habit == Habit::FirstSteps {
            let what = format!("{left} msat are left with {them}, {allowed} may be");
            self.broken.get_or_insert(Violation { part: "left", what });
        }
    }

    fn pass(&mut self) {
        self.now = self.now.saturating_add(Duration::from_secs(3_600));
        let told = self.chain.coins.iter().filter(|coin| coin.height > 0).count();
        self.chain.mine(6);
        self.buyer.market.handle_tip(self.chain.tip);
        for coin in &self.chain.coins[told..] {
            let (incoming, outgoing) = self.chain.facts(coin);
            if let Some(shop) = self.shops.iter_mut().find(|shop| shop.node.id == coin.seller) {
                shop.node.market.handle_tip(self.chain.tip);
                shop.node.incoming(self.now, coin.buyer, incoming);
            }
            self.buyer.market.handle_outgoing(self.now, outgoing);
        }
        self.buyer.store();
    }

    /// One session, as the seller is.
    fn fetch(&mut self, shop: usize, bytes: u64) {
        let (us, them) = (self.buyer.id, self.id(shop));
        let left = self.buyer.market.left_with(&them);
        let cheats = match self.shops[shop].kind {
            Kind::Honest => false,
            Kind::Milking => left > Msat::new(20_000),
            Kind::Vanishing | Kind::Griefing | Kind::Repricing => left > Msat::ZERO,
        };
        if cheats && self.shops[shop].kind != Kind::Repricing {
            // Silence, or bytes that don't verify: nothing is signed for.
            return self.expose(shop);
        }
        let Shop { node, .. } = &mut self.shops[shop];
        let Ok(opened) = node.open(self.now, us) else { return };
        let mut signed = opened.signed.clone().expect("a market signs");
        if cheats {
            let quote = SignedQuote::parse(signed).expect("a quote").quote().clone();
            let price = Price::per_gib(quote.price.msat_per_gib() * 5);
            signed = SignedQuote::sign(Quote { price, ..quote }, &node.key).signed().clone();
        }
        match self.buyer.market.handle_quote(self.now, them, Request::Chunks(root()), signed) {
            Ok(quote) if !cheats => self.receive(shop, &opened, &quote, bytes),
            Ok(quote) => {
                let what = format!("{} is taken, {PRICE} was promised", quote.quote().price);
                self.broken.get_or_insert(Violation { part: "price", what });
            }
            Err(_) => self.expose(shop),
        }
    }

    /// What an honest session brings.
    fn receive(&mut self, shop: usize, opened: &Opened, quote: &SignedQuote, bytes: u64) {
        let (us, node) = (self.buyer.key.clone(), &mut self.shops[shop].node);
        let mut got = 0;
        while got < bytes {
            let window = Window::up_to(MAX_WINDOW).after(got).min(bytes - got);
            let start = got / GROUP_LEN;
            let groups = Groups::new(start, start + window.div_ceil(GROUP_LEN)).expect("a range");
            let receipt = (got > 0).then_some(Receipt { units: got, signer: &us });
            match node.want(self.now, &opened.id, groups, receipt) {
                Ok(groups) => got += size().bytes_in(groups),
                Err(Refusal::PayFirst { .. } | Refusal::OverLimit { .. }) => break,
                Err(refusal) => {
                    let what = format!("an honest buyer is refused: {refusal}");
                    self.broken.get_or_insert(Violation { part: "refusal", what });
                    break;
                }
            }
            self.buyer.market.handle_verified(self.now, quote, got);
        }
        let receipt = (got > 0).then_some(Receipt { units: got, signer: &us });
        node.end(self.now, &opened.id, got, receipt);
        self.buyer.market.handle_left(self.now, &node.id, &opened.id);
        let known = [(opened.id, got)];
        self.buyer.market.handle_synced(self.now, node.id, &known, None, &[]).expect("an honest word");
        self.buyer.store();
    }

    /// The buyer goes elsewhere for good.
    fn expose(&mut self, shop: usize) {
        self.buyer.market.handle_failed(&self.id(shop));
        self.buyer.store();
        self.shops[shop].exposed = true;
    }

    fn finish(mut self) -> Shopped {
        let mut losses = Vec::new();
        for kind in Kind::BAD {
            let mut sum = Losses { kind, sellers: 0, lost: 0, bound: 0 };
            for shop in self.shops.iter().filter(|shop| shop.kind == kind && shop.exposed) {
                let lost = self.buyer.market.left_with(&shop.node.id).msat();
                sum = Losses { kind, sellers: sum.sellers + 1, lost: sum.lost + lost, bound: sum.bound + shop.allowed };
                if lost > shop.allowed && self.habit == Habit::FirstSteps {
                    let what =
                        format!("{lost} msat are lost to one that is {}, {} may be", kind.as_str(), shop.allowed);
                    self.broken.get_or_insert(Violation { part: "left", what });
                }
            }
            losses.push(sum);
        }
        let spent = self.buyer.market.accounts().map(|(_, _, account)| account.spent().msat()).sum();
        Shopped { broken: self.broken, spent, losses }
    }
}
