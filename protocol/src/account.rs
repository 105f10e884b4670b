//! One account per peer and direction: monotone counters, of which a [`Tab`] is a view (MONEY.md 1).
//!
//! **Invariant:** every counter is signed by whom it hurts or proven by the chain; merging is `max` per key, so lost,
//! doubled and reordered messages change nothing. `held` is local and never leaves the node.

mod block;
mod conduct;
mod journal;
mod line;
mod payment;
mod reminder;

use std::collections::BTreeMap;

pub use block::Block;
pub use conduct::{Bill, Conduct, Elapsed};
pub use journal::{Change, Entry, EntryError};
pub use line::{Line, LineError};
pub use payment::{OutPoint, Payment, Repaid, TopUpLine};
pub use reminder::{Reminded, Reminder, ReminderError};

use crate::credit::{History, Trust};
use crate::id::{QuoteId, TopUpId};
use crate::money::{Msat, Price};
use crate::offer::Service;
use crate::time::Timestamp;

/// Tails up to this many bytes are forgiven before a peer's holds stay held; larger accounts have a share, too.
pub const TAIL_FLOOR_BYTES: u64 = 64 * 1024;

/// One part in this many of what a peer signed for is the tail that it may leave.
pub const TAIL_SHARE: u64 = 1000;

/// Lines kept one by one, some 300 KB: of those whose stream is gone, the oldest beyond this are folded into one total.
pub const MAX_LINES: usize = 256;

/// Payments from other wallets that a seller's word is taken for: each is a person's deed, and costs a fee.
const MAX_FOREIGN: usize = 256;

/// Which way the goods go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// We sold to the peer.
    Sold,
    /// We bought from the peer.
    Bought,
}

/// What an account comes to: the view that admission reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tab {
    /// What counts as paid by the buyer.
    pub paid: Msat,
    /// What the buyer signed for.
    pub spent: Msat,
    /// What was admitted or sent and is not signed for.
    pub held: Msat,
}

impl Tab {
    /// What is lacking before work of this cost may start, 0 where it may: `spent + held + cost <= paid + allowance`.
    #[must_use]
    pub fn missing(&self, cost: Msat, allowance: Msat) -> Msat {
        let owed = self.spent.saturating_add(self.held).saturating_add(cost);
        owed.saturating_sub(self.paid.saturating_add(allowance))
    }

    /// What may still be used before anything is missing.
    #[must_use]
    pub fn room(&self, allowance: Msat) -> Msat {
        let covered = self.paid.saturating_add(allowance);
        covered.saturating_sub(self.spent.saturating_add(self.held))
    }

    /// What the buyer owes beyond what it paid.
    #[must_use]
    pub fn debt(&self) -> Msat {
        self.spent.saturating_sub(self.paid)
    }

    /// What the buyer has left with the seller: an overpayment is balance, never debt.
    #[must_use]
    pub fn prepaid(&self) -> Msat {
        self.paid.saturating_sub(self.spent)
    }
}

/// Quotes that are no longer kept one by one, as one total.
///
/// Nothing can change any more under those that were settled. Of one that was not, what was never signed for stays a
/// tail for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Folded {
    /// How many there were.
    pub quotes: u64,
    /// Bytes signed for.
    pub units: u64,
    /// What they cost.
    pub spent: Msat,
    /// Sold: bytes that were sent under them and never signed for.
    pub tail_units: u64,
    /// What those cost.
    pub tail: Msat,
    /// The highest number of a quote among them under which anything was signed for.
    pub newest: u64,
}

impl Folded {
    /// The total with one more line in it.
    fn with(self, line: &Line) -> Self {
        Self {
            quotes: self.quotes.saturating_add(1),
            units: self.units.saturating_add(line.signed_units()),
            spent: self.spent.saturating_add(line.spent()),
            tail_units: self.tail_units.saturating_add(line.unsigned_units()),
            tail: self.tail.saturating_add(line.held()),
            newest: if line.signed_units() > 0 { self.newest.max(line.quote().quote().number) } else { self.newest },
        }
    }

    /// Whether a quote of this number, of which no line is kept, may be among them.
    #[must_use]
    pub const fn covers(&self, number: u64) -> bool {
        // Rows of older programs don't say.
        number <= self.newest || (self.newest == 0 && self.spent.msat() > 0)
    }
}

/// What one peer bought from us, or we from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    lines: BTreeMap<QuoteId, Line>,
    folded: Folded,
    topups: BTreeMap<TopUpId, TopUpLine>,
    payments: BTreeMap<OutPoint, Payment>,
    history: History,
    block: Option<Block>,
    conduct: Conduct,
}

impl Account {
    /// The account as it counts now.
    #[must_use]
    pub fn tab(&self) -> Tab {
        Tab { paid: self.paid(), spent: self.spent(), held: self.held() }
    }

    /// What counts as paid: credited payments, and what was given.
    #[must_use]
    pub fn paid(&self) -> Msat {
        self.paid_by_chain().saturating_add(self.history.granted())
    }

    /// The part of [`Account::paid`] that the buyer paid.
    #[must_use]
    pub fn paid_by_chain(&self) -> Msat {
        let credited = self.payments.values().filter(|payment| payment.is_credited());
        credited.fold(Msat::ZERO, |sum, payment| sum.saturating_add(payment.amount()))
    }

    /// The part of [`Account::paid`] that is final: six blocks deep.
    #[must_use]
    pub fn paid_final(&self) -> Msat {
        let deep = self.payments.values().filter(|payment| payment.is_final());
        deep.fold(Msat::ZERO, |sum, payment| sum.saturating_add(payment.amount()))
    }

    /// What is signed for.
    #[must_use]
    pub fn spent(&self) -> Msat {
        self.lines.values().fold(self.folded.spent, |sum, line| sum.saturating_add(line.spent()))
    }

    /// What was admitted or sent and is not signed for, tails that are forgiven excepted.
    #[must_use]
    pub fn held(&self) -> Msat {
        let open = self.lines.values().filter(|line| !line.has_ended());
        let open = open.fold(Msat::ZERO, |sum, line| sum.saturating_add(line.held()));
        if self.tails_forgiven() { open } else { open.saturating_add(self.tail()) }
    }

    /// Bytes that were sent in streams that ended and were never signed for.
    #[must_use]
    pub fn tail_bytes(&self) -> u64 {
        let ended = self.lines.values().filter(|line| line.has_ended());
        ended.fold(self.folded.tail_units, |sum, line| sum.saturating_add(line.unsigned_units()))
    }

    /// Whether the tails are small enough that their holds are let go; what they cost then is [`Account::tails`].
    #[must_use]
    pub fn tails_forgiven(&self) -> bool {
        let signed = self.lines.values().fold(self.folded.units, |sum, line| sum.saturating_add(line.signed_units()));
        self.tail_bytes() <= TAIL_FLOOR_BYTES.max(signed / TAIL_SHARE)
    }

    /// What forgiven tails cost: exposure that no hold covers.
    #[must_use]
    pub fn tails(&self) -> Msat {
        if self.tails_forgiven() { self.tail() } else { Msat::ZERO }
    }

    fn tail(&self) -> Msat {
        let ended = self.lines.values().filter(|line| line.has_ended());
        ended.fold(self.folded.tail, |sum, line| sum.saturating_add(line.held()))
    }

    /// Realised trade: the lesser of what is finally paid and what is signed for (`R`, undecayed).
    #[must_use]
    pub fn realised(&self) -> Msat {
        self.paid_final().min(self.spent())
    }

    /// How the peer has behaved, as credit reads it.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The owner's word against the buyer, if there is one.
    #[must_use]
    pub const fn block(&self) -> Option<&Block> {
        self.block.as_ref()
    }

    /// [`Account::realised`] since the last default: what a line may stand on.
    #[must_use]
    pub fn earned(&self) -> Msat {
        self.realised().saturating_sub(self.conduct.voided)
    }

    /// What is held against the buyer.
    #[must_use]
    pub const fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    /// How the buyer has paid what it owed: finally, where it counts for it; at all, where it counts against it.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let strikes = self.conduct.strikes;
        let mut trust = Trust { strikes, ..Trust::default() };
        for payment in self.payments.values() {
            let Some(repaid) = payment.repaid.filter(|repaid| repaid.epoch == strikes) else {
                continue;
            };
            if repaid.late_weight > 0 {
                let weight = u64::from(repaid.late_weight);
                trust.late = trust.late.saturating_add(Msat::new(repaid.debt.msat().saturating_mul(weight)));
            } else if payment.is_final() {
                trust.on = trust.on.saturating_add(repaid.debt);
            }
        }
        trust
    }

    /// The dearest price that balance paid under top-ups may be charged, if any such balance is left.
    ///
    /// Money is used in the order in which it came; a top-up's ceiling ends with its money.
    #[must_use]
    pub fn price_ceiling(&self, service: Service) -> Option<Price> {
        let spent = self.spent();
        let mut credited: Vec<&Payment> = self.payments.values().filter(|payment| payment.is_credited()).collect();
        credited.sort_by_key(|payment| (payment.height, payment.outpoint));
        let mut paid = self.history.granted();
        let mut lowest: Option<Price> = None;
        for payment in credited {
            paid = paid.saturating_add(payment.amount());
            let promised = self.topups.get(&payment.topup).and_then(|line| line.ceiling(service));
            if let Some(promised) = promised.filter(|_| paid > spent) {
                lowest = Some(lowest.map_or(promised, |price| price.min(promised)));
            }
        }
        lowest
    }

    /// The quotes that are not folded.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.values()
    }

    /// The quote of this name.
    #[must_use]
    pub fn line(&self, id: &QuoteId) -> Option<&Line> {
        self.lines.get(id)
    }

    /// What was folded.
    #[must_use]
    pub const fn folded(&self) -> Folded {
        self.folded
    }

    /// The top-ups, by id.
    pub fn topups(&self) -> impl Iterator<Item = &TopUpLine> {
        self.topups.values()
    }

    /// The top-up of this name.
    #[must_use]
    pub fn topup(&self, id: &TopUpId) -> Option<&TopUpLine> {
        self.topups.get(id)
    }

    /// Whether a payment was seen under this top-up, in whatever state.
    #[must_use]
    pub fn is_paid(&self, topup: &TopUpId) -> bool {
        self.payments.values().any(|payment| payment.topup == *topup)
    }

    /// The payments, by outpoint.
    pub fn payments(&self) -> impl Iterator<Item = &Payment> {
        self.payments.values()
    }

    /// Whether one more payment by another wallet is believed, of those that a seller tells.
    #[must_use]
    pub fn takes_foreign(&self) -> bool {
        self.payments.values().filter(|payment| !payment.ours).count() < MAX_FOREIGN
    }

    /// Sets how deep each payment must be; `needed` gets a payment and answers its depth (MONEY.md 4).
    pub fn recredit(&mut self, needed: impl Fn(&Payment) -> u32) {
        for payment in self.payments.values_mut() {
            payment.needed = needed(payment);
        }
    }

    /// The history with trade that has become real since, to be journaled; nothing where nothing has.
    #[must_use]
    pub fn grown_history(&self, now: Timestamp) -> Option<History> {
        let mut history = self.history.clone();
        history.counted = history.counted.max(self.conduct.voided);
        history.count(now, self.realised()).then_some(history)
    }

    /// Folds a change into the account: a row replaces the row of its key.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Line(line) => drop(self.lines.insert(line.id(), line.clone())),
            Change::Fold { quotes, total } => {
                quotes.iter().for_each(|id| drop(self.lines.remove(id)));
                self.folded = *total;
            }
            Change::TopUp { line, gives_up } => {
                gives_up.iter().for_each(|id| drop(self.topups.remove(id)));
                self.topups.insert(line.id, line.clone());
            }
            Change::Payment(payment) => drop(self.payments.insert(payment.outpoint, payment.clone())),
            Change::History(history) => self.history = history.clone(),
            Change::Block(block) => self.block.clone_from(block),
            Change::Conduct(conduct) => self.conduct = conduct.clone(),
            Change::Spending { .. } => {}
        }
    }

    /// Which lines to fold so that at most [`MAX_LINES`] are kept, settled ones first; settled free ones go at once.
    ///
    /// An unsettled line may still be signed for, and then its receipt comes at the next connection: none is waited for
    /// while that many others come and go, or a buyer that never signs would fill the memory at a msat a line.
    #[must_use]
    pub fn foldable(&self) -> Option<Change> {
        let excess = self.lines.len().saturating_sub(MAX_LINES);
        let mut ended: Vec<&Line> = self.lines.values().filter(|line| line.has_ended()).collect();
        ended.sort_by_key(|line| (!line.is_settled(), line.opened()));
        let free = |line: &Line| line.is_settled() && line.spent() == Msat::ZERO;
        let places = ended.iter().enumerate();
        let chosen: Vec<&Line> =
            places.filter(|(place, line)| *place < excess || free(line)).map(|(_, line)| *line).collect();
        if chosen.is_empty() {
            return None;
        }
        let total = chosen.iter().fold(self.folded, |total, line| total.with(line));
        Some(Change::Fold { quotes: chosen.iter().map(|line| line.id()).collect(), total })
    }
}

#[cfg(test)]
mod tests;
