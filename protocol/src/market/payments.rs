//! Money that comes and goes: top-ups on both sides, payments by outpoint, the depth at which they count.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p_identity::PeerId;

use crate::account::{Account, Change, Direction, OutPoint, Payment, TopUpLine};
use crate::id::{PayeeId, TopUpId};
use crate::market::{Market, advances};
use crate::money::Msat;
use crate::offer::Service;
use crate::refusal::Refusal;
use crate::settlement::{SignedTopUp, TopUp, TopUpError};
use crate::time::Timestamp;
use crate::wire::Signed;

/// Unpaid top-ups of strangers at once: each is an address that the wallet watches.
pub const MAX_OPEN_TOPUPS: usize = 100;

/// An unpaid top-up is given up after this.
pub const TOPUP_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Blocks for which an address is watched: two weeks of them, twice [`TOPUP_LIFE`].
pub const TOPUP_BLOCKS: u64 = 2016;

/// When a stranger is told to come back while too many others hold an address.
const CROWDED: Refusal = Refusal::NotYet { retry_after: Duration::from_secs(3600) };

/// A fact of our wallet: an output to an address that it made for a payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// Whom the address was made for.
    pub payee: PayeeId,
    /// The output.
    pub outpoint: OutPoint,
    /// Its amount in sat.
    pub amount_sat: u64,
    /// The block that holds it, 0 while none does, or no more.
    pub height: u64,
    /// Blocks on top, its own counted.
    pub depth: u32,
}

/// A fact of our wallet: a payment that we made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// The top-up that it fulfils.
    pub id: TopUpId,
    /// The output that pays.
    pub outpoint: OutPoint,
    /// Its amount in sat.
    pub amount_sat: u64,
    /// The transaction's fee in sat.
    pub fee_sat: u64,
    /// The block that holds it, 0 while none does, or no more.
    pub height: u64,
    /// Blocks on top, its own counted.
    pub depth: u32,
    /// Whether its coins were spent otherwise: it can't happen any more.
    pub conflicted: bool,
}

/// What follows from a buyer's request for a top-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopUpStep {
    /// The wallet must make an address for this payee; then [`Market::handle_address`].
    NeedAddress(PayeeId),
    /// The word that was given before.
    Given(Box<SignedTopUp>),
}

/// Why a seller's top-up is not paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoTopUp {
    /// It can't be read, or the seller did not sign it.
    #[error(transparent)]
    Malformed(#[from] TopUpError),
    /// It is not the one that was asked for.
    #[error("the top-up's {0} is not the one asked for")]
    Other(&'static str),
    /// The seller takes no less than this.
    #[error("the seller takes no advance under {min_sat} sat")]
    TooSmall {
        /// The smallest, in sat.
        min_sat: u64,
    },
}

impl Market {
    /// A buyer asks where to pay `amount_sat`.
    ///
    /// # Errors
    /// [`Refusal::PayFirst`] when it means to pay less than is taken; [`Refusal::NotYet`] when too many strangers hold
    /// an address; [`Refusal::Blocked`] when it is blocked and owes nothing.
    pub fn handle_topup_request(
        &mut self,
        now: Timestamp,
        buyer: PeerId,
        id: TopUpId,
        amount_sat: u64,
    ) -> Result<TopUpStep, Refusal> {
        let min_topup_sat = self.terms.min_topup_sat;
        if amount_sat < min_topup_sat {
            let missing = Msat::from_sat(min_topup_sat).unwrap_or(Msat::MAX);
            return Err(Refusal::PayFirst { missing, min_topup_sat });
        }
        self.check_payable(&buyer)?;
        let account = self.account(&buyer, Direction::Sold);
        let known = account.and_then(|account| account.topup(&id)).and_then(|line| line.topup.clone());
        if let Some(topup) = known {
            return Ok(TopUpStep::Given(Box::new(topup)));
        }
        let open = account.and_then(|account| account.topups().find(|line| !line.closed));
        if let Some(payee) = open.and_then(|line| line.payee) {
            return Ok(TopUpStep::NeedAddress(payee));
        }
        let stranger = account.is_none_or(|account| account.paid_by_chain() == Msat::ZERO);
        if stranger && self.open_topups_of_strangers(now) >= MAX_OPEN_TOPUPS {
            return Err(CROWDED);
        }
        // The place is taken before the wallet works: many may ask at once.
        let payee = payee_of(&buyer, &id);
        let line = TopUpLine { id, amount_sat, topup: None, created: now, closed: false, payee: Some(payee) };
        self.put_topup(buyer, Direction::Sold, line);
        Ok(TopUpStep::NeedAddress(payee))
    }

    /// The wallet has made the address: our word, to be sent once it is stored. Older ones of this address are given up,
    /// and forgotten where nothing was paid under them: else asking would cost nothing and fill our memory.
    pub fn handle_address(
        &mut self,
        now: Timestamp,
        buyer: PeerId,
        id: TopUpId,
        amount_sat: u64,
        payee: PayeeId,
        address: String,
    ) -> SignedTopUp {
        let account = self.account(&buyer, Direction::Sold);
        let older: Vec<TopUpLine> = account.map(|account| older_topups(account, &id)).unwrap_or_default();
        let (paid, unpaid): (Vec<_>, Vec<_>) =
            older.into_iter().partition(|line| account.is_some_and(|account| account.is_paid(&line.id)));
        for line in paid {
            self.put_topup(buyer, Direction::Sold, TopUpLine { closed: true, ..line });
        }
        let ceilings = self.ceiling().map(|price| BTreeMap::from([(Service::Chunks, price)]));
        let topup = TopUp {
            id,
            network: self.network.clone(),
            buyer,
            seller: self.me,
            address,
            min_sat: self.terms.min_topup_sat,
            ceilings: ceilings.unwrap_or_default(),
            until_height: self.tip_height.saturating_add(TOPUP_BLOCKS),
        };
        let topup = SignedTopUp::sign(topup, &self.key);
        let line =
            TopUpLine { id, amount_sat, topup: Some(topup.clone()), created: now, closed: false, payee: Some(payee) };
        let gives_up = unpaid.iter().map(|line| line.id).collect();
        self.stage(buyer, Direction::Sold, Change::TopUp { line, gives_up });
        topup
    }

    /// Our wallet sees a payment to us, in whatever state: the newest fact replaces the older one.
    pub fn handle_incoming(&mut self, now: Timestamp, fact: Incoming) {
        let Some(buyer) = self.payees.get(&fact.payee).copied() else {
            return;
        };
        let Some(account) = self.account(&buyer, Direction::Sold) else {
            return;
        };
        let paying = |line: &&TopUpLine| line.payee == Some(fact.payee);
        let Some(newest) = account.topups().filter(paying).max_by_key(|line| (line.created, line.id)).cloned() else {
            return;
        };
        let known = account.payments().find(|payment| payment.outpoint == fact.outpoint).cloned();
        let payment = Payment {
            outpoint: fact.outpoint,
            topup: known.as_ref().map_or(newest.id, |payment| payment.topup),
            amount_sat: fact.amount_sat,
            height: fact.height,
            depth: fact.depth,
            needed: known.as_ref().map_or(0, |payment| payment.needed),
            repaid: known.as_ref().and_then(|payment| payment.repaid),
            fee_sat: 0,
            ours: false,
        };
        let debt = account.tab().debt();
        self.put_payment(buyer, Direction::Sold, payment);
        self.note_repaid(buyer, fact.outpoint, debt);
        self.settle_conduct(now, buyer);
        if fact.depth > 0 && !newest.closed {
            self.put_topup(buyer, Direction::Sold, TopUpLine { closed: true, ..newest });
        }
        self.stage_consequences(buyer, Direction::Sold, now);
    }

    /// Our wallet has made a payment, in whatever state: the newest fact replaces the older one, also where another
    /// transaction makes the payment now. What made it before counts no more, and is known as ours for ever.
    pub fn handle_outgoing(&mut self, now: Timestamp, fact: Outgoing) {
        let Some((seller, line)) = self.topup_bought(&fact.id) else {
            return;
        };
        let before = |old: &&Payment| old.ours && old.topup == fact.id && old.outpoint != fact.outpoint;
        let account = self.account(&seller, Direction::Bought);
        let before = account.map(|account| account.payments().filter(before).cloned().collect::<Vec<_>>());
        for old in before.unwrap_or_default() {
            self.put_payment(seller, Direction::Bought, Payment { height: 0, depth: 0, ..old });
        }
        let payment = Payment {
            outpoint: fact.outpoint,
            topup: fact.id,
            amount_sat: fact.amount_sat,
            height: fact.height,
            depth: fact.depth,
            needed: 0,
            repaid: None,
            fee_sat: fact.fee_sat,
            ours: true,
        };
        self.put_payment(seller, Direction::Bought, payment);
        self.disprove(&seller, fact.outpoint);
        // Open until it counts, not until it is in a block: an open one is what is paid again, under its own id.
        let counts =
            self.account(&seller, Direction::Bought).is_some_and(|account| advances::counts(account, &fact.id));
        let closed = fact.conflicted || counts;
        if closed != line.closed {
            self.put_topup(seller, Direction::Bought, TopUpLine { closed, ..line });
        }
        self.stage_consequences(seller, Direction::Bought, now);
    }

    /// A block came, or blocks went: `paid` is judged at this height from now on.
    pub fn handle_tip(&mut self, height: u64) {
        self.tip_height = height;
        self.recredit();
    }

    /// The seller gave its word: to be stored before anything is paid. A word under which was paid stands.
    ///
    /// # Errors
    /// [`NoTopUp`] says why nothing is paid under it: its price promise must be there, and no worse than the offer's.
    pub fn handle_topup(
        &mut self,
        now: Timestamp,
        seller: PeerId,
        id: TopUpId,
        signed: Signed,
    ) -> Result<SignedTopUp, NoTopUp> {
        let topup = SignedTopUp::parse(signed)?;
        let says = topup.topup();
        let account = self.account(&seller, Direction::Bought);
        let line = account.and_then(|account| account.topup(&id)).cloned().ok_or(NoTopUp::Other("id"))?;
        let paid = account.is_some_and(|account| account.is_paid(&id));
        let offered = self.book.offer(now, &seller).and_then(|offer| offer.offer().listing(Service::Chunks));
        let promised = says.ceilings.get(&Service::Chunks);
        let other = [
            ("id", says.id != id),
            ("network", says.network != self.network),
            ("buyer", says.buyer != self.me),
            ("seller", says.seller != seller),
            ("height", says.until_height <= self.tip_height),
            ("price", promised.is_none_or(|price| offered.is_some_and(|listing| *price > listing.ceiling))),
            ("word", paid && line.topup.as_ref() != Some(&topup)),
        ];
        if let Some((field, _)) = other.iter().find(|(_, differs)| *differs) {
            return Err(NoTopUp::Other(field));
        }
        if line.amount_sat < says.min_sat {
            return Err(NoTopUp::TooSmall { min_sat: says.min_sat });
        }
        self.put_topup(seller, Direction::Bought, TopUpLine { topup: Some(topup.clone()), ..line });
        Ok(topup)
    }

    /// The top-up of this name that we asked for, and of whom.
    #[must_use]
    pub fn topup_bought(&self, id: &TopUpId) -> Option<(PeerId, TopUpLine)> {
        let mut bought = self.accounts().filter(|(_, direction, _)| *direction == Direction::Bought);
        bought.find_map(|(peer, _, account)| account.topup(id).map(|line| (*peer, line.clone())))
    }

    /// The seller says what it was paid under our top-ups: news only where another wallet paid, and only to our gain.
    ///
    /// A payment that is in no block yet leaves its top-up open, and so does any where we pay ourselves: else a lie would
    /// have us ask for, and pay, a new one.
    pub(super) fn take_told_payments(&mut self, now: Timestamp, seller: PeerId, told: &[Payment]) {
        for payment in told.iter().filter(|payment| advances::is_possible(payment)) {
            if self.is_known_elsewhere(&seller, &payment.outpoint) {
                continue;
            }
            let Some(account) = self.account(&seller, Direction::Bought) else {
                return;
            };
            let line = account.topup(&payment.topup).filter(|line| line.topup.is_some()).cloned();
            let known = account.payments().find(|known| known.outpoint == payment.outpoint);
            let foreign = match known {
                Some(known) => !known.ours,
                None => account.takes_foreign(),
            };
            let foreign = foreign && advances::told_by_others(account, payment) <= advances::MAX_SAT;
            if let Some(line) = line.filter(|_| foreign) {
                let depth = self.depth_of(payment.height);
                let payment = Payment { depth, ours: false, fee_sat: 0, repaid: None, ..payment.clone() };
                let ours = advances::ours(account, &line.id).next().is_some();
                self.put_payment(seller, Direction::Bought, payment);
                if depth > 0 && !line.closed && !ours {
                    self.put_topup(seller, Direction::Bought, TopUpLine { closed: true, ..line });
                }
            }
        }
        self.stage_consequences(seller, Direction::Bought, now);
    }

    /// How deep a block is, its own place counted; 0 for none.
    pub(super) fn depth_of(&self, height: u64) -> u32 {
        let above = self.tip_height.saturating_add(1).saturating_sub(height);
        if height == 0 { 0 } else { u32::try_from(above).unwrap_or(u32::MAX) }
    }

    pub(super) fn put_topup(&mut self, peer: PeerId, direction: Direction, line: TopUpLine) {
        self.stage(peer, direction, Change::TopUp { line, gives_up: Vec::new() });
    }

    fn put_payment(&mut self, peer: PeerId, direction: Direction, payment: Payment) {
        let known = self
            .account(&peer, direction)
            .and_then(|account| account.payments().find(|known| known.outpoint == payment.outpoint).cloned());
        let news = known.is_none_or(|known| Payment { needed: payment.needed, ..known } != payment);
        if news {
            self.stage(peer, direction, Change::Payment(payment));
            self.recredit();
        }
    }

    /// Notes what part of `debt` a payment settled when it first counted.
    fn note_repaid(&mut self, buyer: PeerId, outpoint: OutPoint, debt: Msat) {
        let account = self.account(&buyer, Direction::Sold);
        let known = account.and_then(|account| account.payments().find(|payment| payment.outpoint == outpoint));
        let first = known.filter(|payment| payment.is_credited() && payment.repaid.is_none()).cloned();
        if let Some(payment) = first {
            let repaid = account.map(|account| account.conduct().judge(payment.amount().min(debt)));
            self.stage(buyer, Direction::Sold, Change::Payment(Payment { repaid, ..payment }));
        }
    }

    fn open_topups_of_strangers(&self, now: Timestamp) -> usize {
        let sold = self.accounts().filter(|(_, direction, _)| *direction == Direction::Sold);
        let strangers = sold.filter(|(_, _, account)| account.paid_by_chain() == Msat::ZERO);
        let fresh = |line: &&TopUpLine| !line.closed && now.since(line.created) < TOPUP_LIFE;
        strangers.map(|(_, _, account)| account.topups().filter(fresh).count()).sum()
    }
}

fn older_topups(account: &Account, newest: &TopUpId) -> Vec<TopUpLine> {
    account.topups().filter(|line| !line.closed && line.id != *newest).cloned().collect()
}

/// What the wallet knows of a buyer: nothing that tells who it is.
pub(super) fn payee_of(buyer: &PeerId, id: &TopUpId) -> PayeeId {
    let mut name = blake3::Hasher::new_derive_key("pedlar payee v1");
    name.update(&buyer.to_bytes()).update(&id.0);
    PayeeId(*name.finalize().as_bytes())
}
