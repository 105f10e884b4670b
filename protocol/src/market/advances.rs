//! What we have left with a seller by our own books, so that no word of the seller has us pay it twice (MONEY.md 2.5).
//!
//! A payment is *on its way* from the moment it is signed until it counts, whatever its age: it still may, and then its
//! money is there. Only one whose coins were spent otherwise is given up.

use libp2p_identity::PeerId;

use crate::account::{Account, Change, Direction, OutPoint, Payment, TopUpLine};
use crate::budget::OverBudget;
use crate::credit::History;
use crate::id::TopUpId;
use crate::market::{Market, TOPUP_LIFE};
use crate::money::{Msat, Price};
use crate::session::PIPELINED_WANTS;
use crate::time::Timestamp;

/// All the bitcoin that there can be, in sat: what is said to be more is a lie.
pub(super) const MAX_SAT: u64 = 2_100_000_000_000_000;

/// How a top-up of ours stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paying {
    /// Nobody was seen to pay it.
    Unpaid,
    /// Our wallet pays: it is in no block, or not deep enough.
    Ours,
    /// Another wallet pays as much as was asked for, says the seller: it is in no block, or not deep enough.
    Others,
    /// It counts.
    Counts,
    /// Our payment can't happen any more: its coins were spent otherwise.
    Conflicted,
}

impl Market {
    /// We mean to pay this seller: the top-up to ask for. One of the same amount is taken again while our payment under it
    /// is on its way, or while it is new and nobody has paid it. `random` names a new one.
    pub fn handle_topup_wanted(&mut self, now: Timestamp, seller: PeerId, amount_sat: u64, random: TopUpId) -> TopUpId {
        if let Some(id) = self.topup_again(now, &seller, amount_sat) {
            return id;
        }
        let line = TopUpLine { id: random, amount_sat, topup: None, created: now, closed: false, payee: None };
        self.put_topup(seller, Direction::Bought, line);
        random
    }

    /// The same where no person said so: what it may cost is taken down with it, once for each top-up, at the last try.
    ///
    /// # Errors
    /// [`OverBudget`] where the owner's budget has no room for it; nothing is asked for then.
    pub fn handle_unasked_topup(
        &mut self,
        now: Timestamp,
        seller: PeerId,
        amount_sat: u64,
        max_fee_sat: u64,
        random: TopUpId,
    ) -> Result<TopUpId, OverBudget> {
        let id = self.topup_again(now, &seller, amount_sat).unwrap_or(random);
        if self.paying(&seller, &id) != Paying::Ours {
            self.handle_unasked(now, id, amount_sat.saturating_add(max_fee_sat))?;
        }
        Ok(self.handle_topup_wanted(now, seller, amount_sat, id))
    }

    /// We are about to pay a top-up that no person asked for, `sat` with the largest fee: to be stored before it is paid.
    ///
    /// It counts from now on: it may be days since it was first tried, and another try of it may have come to nothing.
    ///
    /// # Errors
    /// [`OverBudget`]; it is not to be paid then.
    pub fn handle_unasked(&mut self, now: Timestamp, id: TopUpId, sat: u64) -> Result<(), OverBudget> {
        let spending = self.spendings.plan(now, id, sat, &self.terms.budget)?;
        let forgets = self.spendings.expired(now).collect();
        self.stage(self.me, Direction::Bought, Change::Spending { spending, forgets });
        Ok(())
    }

    /// What a top-up that no person asked for has cost, fee included; 0 where it was not paid.
    pub fn handle_spent(&mut self, id: &TopUpId, sat: u64) {
        if let Some(spending) = self.spendings.come_to(id, sat) {
            self.stage(self.me, Direction::Bought, Change::Spending { spending, forgets: Vec::new() });
        }
    }

    /// A top-up of this amount that is to be paid under its own name.
    fn topup_again(&self, now: Timestamp, seller: &PeerId, amount_sat: u64) -> Option<TopUpId> {
        let account = self.account(seller, Direction::Bought)?;
        let same = account.topups().filter(|line| line.amount_sat == amount_sat);
        let usable = same.filter(|line| match paying(account, line) {
            Paying::Ours => true,
            Paying::Unpaid | Paying::Others => !line.closed && now.since(line.created) < TOPUP_LIFE,
            Paying::Counts | Paying::Conflicted => false,
        });
        // One that is being paid before one that nobody has paid.
        usable.max_by_key(|line| paying(account, line) == Paying::Ours).map(|line| line.id)
    }

    /// How our top-up of this name stands with this seller.
    #[must_use]
    pub fn paying(&self, seller: &PeerId, id: &TopUpId) -> Paying {
        let account = self.account(seller, Direction::Bought);
        let known = account.and_then(|account| account.topup(id).map(|line| paying(account, line)));
        known.unwrap_or(Paying::Unpaid)
    }

    /// Whether a payment of ours to this seller is on its way.
    #[must_use]
    pub fn is_paying(&self, seller: &PeerId) -> bool {
        self.account(seller, Direction::Bought).is_some_and(|account| on_its_way(account) > Msat::ZERO)
    }

    /// What we have left with this seller by our own books: what counts and what is on its way, less what we signed for.
    #[must_use]
    pub fn left_with(&self, seller: &PeerId) -> Msat {
        let left =
            |account: &Account| account.paid().saturating_add(on_its_way(account)).saturating_sub(account.spent());
        self.account(seller, Direction::Bought).map(left).unwrap_or_default()
    }

    /// What a seller says to have sent us without our receipt, as far as it can be so: nothing where it never served us,
    /// else what was on its way when a session of this price broke off.
    #[must_use]
    pub fn believed_held(&self, seller: &PeerId, held: Msat, price: Price) -> Msat {
        let account = self.account(seller, Direction::Bought);
        if account.is_none_or(|account| account.spent() == Msat::ZERO) {
            return Msat::ZERO;
        }
        let in_flight = self.terms.max_window.saturating_mul(u64::try_from(PIPELINED_WANTS).unwrap_or(u64::MAX));
        held.min(price.charge(in_flight).unwrap_or(Msat::MAX))
    }

    /// What this seller has served us well since it last failed (MONEY.md 2.5).
    #[must_use]
    pub fn served_well(&self, seller: &PeerId) -> Msat {
        let account = self.account(seller, Direction::Bought);
        account.map(|account| account.spent().saturating_sub(account.history().failed)).unwrap_or_default()
    }

    /// Whether an output stands under our account with another seller: it paid that one.
    pub(super) fn is_known_elsewhere(&self, seller: &PeerId, outpoint: &OutPoint) -> bool {
        self.known_elsewhere(seller, outpoint).is_some()
    }

    /// Our wallet paid this seller with an output that another one may have named as paid to it: there it counts no more.
    pub(super) fn disprove(&mut self, seller: &PeerId, outpoint: OutPoint) {
        if let Some((liar, told)) = self.known_elsewhere(seller, &outpoint)
            && !told.ours
            && told.height > 0
        {
            self.stage(liar, Direction::Bought, Change::Payment(Payment { height: 0, depth: 0, ..told }));
            self.recredit();
        }
    }

    fn known_elsewhere(&self, seller: &PeerId, outpoint: &OutPoint) -> Option<(PeerId, Payment)> {
        let mut others =
            self.accounts().filter(|(peer, direction, _)| *direction == Direction::Bought && peer != &seller);
        others.find_map(|(peer, _, account)| {
            let known = account.payments().find(|payment| payment.outpoint == *outpoint);
            known.map(|payment| (*peer, payment.clone()))
        })
    }

    /// This seller sent what was not asked for, or denies what it was paid: it is as one that has served nothing yet.
    pub fn handle_failed(&mut self, seller: &PeerId) {
        let Some(account) = self.account(seller, Direction::Bought) else {
            return;
        };
        let failed = account.spent();
        if account.history().failed < failed {
            let history = History { failed, ..account.history().clone() };
            self.stage(*seller, Direction::Bought, Change::History(history));
        }
    }
}

/// Whether an output can hold what a seller says it does.
pub(super) const fn is_possible(told: &Payment) -> bool {
    told.amount_sat <= MAX_SAT
}

/// All that other wallets paid by the seller's word, with this one, in sat.
pub(super) fn told_by_others(account: &Account, told: &Payment) -> u64 {
    let others = account.payments().filter(|known| !known.ours && known.outpoint != told.outpoint);
    others.fold(told.amount_sat, |sum, known| sum.saturating_add(known.amount_sat))
}

/// Our own payments under a top-up: several where a transaction was replaced.
pub(super) fn ours<'a>(account: &'a Account, id: &TopUpId) -> impl Iterator<Item = &'a Payment> {
    let id = *id;
    account.payments().filter(move |payment| payment.ours && payment.topup == id)
}

/// Whether a payment of ours under a top-up counts.
pub(super) fn counts(account: &Account, id: &TopUpId) -> bool {
    ours(account, id).any(Payment::is_credited)
}

fn paying(account: &Account, line: &TopUpLine) -> Paying {
    let mut own = ours(account, &line.id).peekable();
    if own.peek().is_some() {
        return match (counts(account, &line.id), own.any(|payment| payment.height > 0)) {
            (true, _) => Paying::Counts,
            // Closed without a block: it was given up.
            (false, false) if line.closed => Paying::Conflicted,
            (false, _) => Paying::Ours,
        };
    }
    let mut others = account.payments().filter(|payment| payment.topup == line.id).peekable();
    if others.peek().is_none() {
        return Paying::Unpaid;
    }
    let (credited, waiting): (Vec<_>, Vec<_>) = others.partition(|payment| payment.is_credited());
    match waiting.iter().any(|payment| payment.amount_sat >= line.amount_sat) {
        _ if !credited.is_empty() => Paying::Counts,
        true => Paying::Others,
        false => Paying::Unpaid,
    }
}

/// What our own payments that do not count yet will add.
fn on_its_way(account: &Account) -> Msat {
    let lines = account.topups().filter(|line| paying(account, line) == Paying::Ours);
    lines.fold(Msat::ZERO, |sum, line| sum.saturating_add(Msat::from_sat(line.amount_sat).unwrap_or(Msat::MAX)))
}
