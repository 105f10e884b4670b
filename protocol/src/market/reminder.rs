//! After a restore from a backup: what was forgotten is learned from those that it was signed with.
//!
//! | who was restored | is reminded by | takes |
//! |---|---|---|
//! | the buyer | the seller, when asked | its own receipts, as what it spent; words under which the seller was paid |
//! | the seller | the buyer, when told that it was | its own quotes with the buyer's receipts; its own words, for which the wallet is asked |
//!
//! Nobody can make a restored node take what it never signed, or one paper twice: quotes are lines by their name,
//! receipts are merged by `max`, and numbers up to the newest folded one are in the total already. Who keeps papers back
//! keeps what they would have cost: at most what was signed for since the backup.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

use crate::account::{Account, Change, Direction, Line, Payment, Reminded, Reminder, ReminderError, Tab, TopUpLine};
use crate::credit::{History, SignedGrant};
use crate::id::{PayeeId, TopUpId};
use crate::market::Market;
use crate::market::payments::{TOPUP_BLOCKS, payee_of};
use crate::money::{Msat, Price};
use crate::session::quote::{SignedQuote, SignedReceipt};
use crate::settlement::SignedTopUp;
use crate::time::Timestamp;

/// Peers of which is remembered in one run that they were asked or told: one more begins anew, which repeats an exchange.
const MAX_REMEMBERED: usize = 4096;

/// How long after a seller's word a payment to its address is surely the buyer's: well within the time for which the
/// address is held.
const SURE_BLOCKS: u64 = TOPUP_BLOCKS / 4;

/// What a restored market has asked for, and which restored sellers were told, in this run.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// When the rows were restored from a backup, if they were.
    restored: Option<Timestamp>,
    recalled: BTreeSet<PeerId>,
    /// With what the seller counted then.
    reminded: BTreeMap<PeerId, Tab>,
}

/// An address that may be a buyer's again: its wallet's [`Market::handle_claimable`] comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whom it is for.
    pub payee: PayeeId,
    /// The address.
    pub address: String,
    /// A block up to this height holds a payment to it.
    pub height: u64,
    /// The word that was given.
    pub word: SignedTopUp,
}

impl Market {
    /// The rows come from a backup that was made into a node again `at` this time: no number of a quote that was given since
    /// the backup is given again, also where the clock has been set back.
    pub fn handle_backup(&mut self, at: Timestamp) {
        self.last_number = self.last_number.max(at.ms());
        self.memory.restored = Some(at);
    }

    /// When the rows were restored from a backup, if they were: for buyers, who then remind.
    #[must_use]
    pub const fn restored(&self) -> Option<Timestamp> {
        self.memory.restored
    }

    /// Whether this seller is still to be asked what was forgotten.
    #[must_use]
    pub fn forgets(&self, seller: &PeerId) -> bool {
        self.memory.restored.is_some() && !self.memory.recalled.contains(seller)
    }

    /// The seller has told all that it has, or can't.
    pub fn handle_recalled(&mut self, seller: PeerId) {
        if self.memory.recalled.len() >= MAX_REMEMBERED {
            self.memory.recalled.clear();
        }
        self.memory.recalled.insert(seller);
    }

    /// Whether a restored seller, which counts this, is to be reminded: it counts less than we know, and did not say the
    /// same when it was reminded last.
    #[must_use]
    pub fn reminds(&self, seller: &PeerId, counts: Tab) -> bool {
        let ours = self.account(seller, Direction::Bought).map(Account::tab).unwrap_or_default();
        let less = counts.paid < ours.paid || counts.spent < ours.spent;
        less && self.memory.reminded.get(seller) != Some(&counts)
    }

    /// The seller was reminded of all that we have, and counts this now.
    pub fn handle_reminded(&mut self, seller: PeerId, counts: Tab) {
        if self.memory.reminded.len() >= MAX_REMEMBERED {
            self.memory.reminded.clear();
        }
        self.memory.reminded.insert(seller, counts);
    }

    /// What both sides have signed, after `from`.
    #[must_use]
    pub fn reminder(&self, peer: &PeerId, direction: Direction, from: Reminded) -> Reminder {
        self.account(peer, direction).map(|account| Reminder::of(account, from)).unwrap_or_default()
    }

    /// The seller reminds us, who were reminded up to `from`: how far we are now, nothing when that was all.
    ///
    /// # Errors
    /// [`ReminderError`] when it does not go on; nothing of it is taken.
    pub fn handle_reminder(
        &mut self,
        now: Timestamp,
        seller: PeerId,
        from: Reminded,
        reminder: &Reminder,
    ) -> Result<Option<Reminded>, ReminderError> {
        let reached = reminder.reaches(from)?;
        if self.memory.restored.is_none() || reminder.is_empty() {
            return Ok(None);
        }
        for (quote, receipt) in &reminder.lines {
            self.take_line(now, seller, Direction::Bought, quote, receipt);
        }
        for word in &reminder.topups {
            self.take_word(now, seller, word, &reminder.payments);
        }
        // The payments of lines that are known, and now also of those that were forgotten.
        self.take_told_payments(now, seller, &reminder.payments);
        Ok(Some(reached))
    }

    /// A buyer reminds us: what is left for the wallet to say. Who was never restored has forgotten nothing.
    pub fn handle_buyers_reminder(&mut self, now: Timestamp, buyer: PeerId, reminder: &Reminder) -> Vec<Claim> {
        if self.memory.restored.is_none() {
            return Vec::new();
        }
        if let Some(grant) = &reminder.grant {
            self.take_own_grant(now, buyer, grant);
        }
        for (quote, receipt) in &reminder.lines {
            self.take_line(now, buyer, Direction::Sold, quote, receipt);
        }
        self.stage_consequences(buyer, Direction::Sold, now);
        reminder.topups.iter().filter_map(|word| self.claim(&buyer, word)).collect()
    }

    /// The wallet can give the address back to its payee: to be stored before it does.
    pub fn handle_claimable(&mut self, now: Timestamp, claim: Claim) {
        let Claim { payee, word, .. } = claim;
        let (id, buyer, amount_sat) = (word.topup().id, word.topup().buyer, word.topup().min_sat);
        if self.account(&buyer, Direction::Sold).is_none_or(|account| account.topup(&id).is_none()) {
            let line = TopUpLine { id, amount_sat, topup: Some(word), created: now, closed: true, payee: Some(payee) };
            self.stage(buyer, Direction::Sold, Change::TopUp { line, gives_up: Vec::new() });
        }
    }

    /// Top-ups that our own wallet may have paid, which this market does not know: id, address, amount in sat.
    #[must_use]
    pub fn unexplained(&self, seller: &PeerId) -> Vec<(TopUpId, String, u64)> {
        let restored = self.memory.restored.is_some();
        let account = self.account(seller, Direction::Bought).filter(|_| restored);
        let topups = account.into_iter().flat_map(|account| {
            account.topups().filter_map(|line| {
                let address = line.topup.as_ref()?.topup().address.clone();
                let paid = || account.payments().filter(|payment| payment.topup == line.id);
                let sat = paid().next().map_or(line.amount_sat, |payment| payment.amount_sat);
                (!paid().any(|payment| payment.ours)).then_some((line.id, address, sat))
            })
        });
        topups.collect()
    }

    fn take_line(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        direction: Direction,
        quote: &SignedQuote,
        receipt: &SignedReceipt,
    ) {
        let says = quote.quote();
        let account = self.account(&peer, direction);
        let folded = account.is_some_and(|account| account.folded().covers(says.number));
        let known = account.and_then(|account| account.line(&quote.id())).cloned();
        // One whose stream is open is signed for in it.
        let open = self.live.contains_key(&quote.id()) || known.as_ref().is_some_and(|line| !line.has_ended());
        if says.network != self.network || says.price == Price::FREE || open || (folded && known.is_none()) {
            return;
        }
        let opened = Timestamp::from_ms(says.number).min(now);
        let before = known.unwrap_or_else(|| Line::forgotten(direction, quote.clone(), opened));
        let mut line = before.clone();
        line.recall(receipt.clone());
        let cost = line.spent().saturating_sub(before.spent());
        if line != before && (direction == Direction::Bought || self.bears(&peer, cost, now)) {
            self.stage(peer, direction, Change::Line(line));
            self.stage_consequences(peer, direction, now);
        }
    }

    /// Whether a buyer may have signed for so much more: what it paid for, and as a debt what its credit line carries when
    /// that counts as trade, or the pool. A debt that anybody can sign would leave nothing for others; it counts once what
    /// paid for it is known.
    fn bears(&self, buyer: &PeerId, cost: Msat, now: Timestamp) -> bool {
        let account = self.account(buyer, Direction::Sold).cloned().unwrap_or_default();
        let spent = account.spent().saturating_add(cost);
        let debt = spent.saturating_sub(account.paid());
        let mut history = account.history().clone();
        history.count(now, account.paid_final().min(spent));
        let line = self.line_with(&account, &history, now);
        let grown = debt.saturating_sub(account.tab().debt());
        debt <= line || self.pool(now).covers(grown, &self.terms.credit)
    }

    /// Takes the seller's word for a top-up that we have forgotten, where the seller says what it was paid under it: else
    /// words would cost it nothing, and fill our memory.
    fn take_word(&mut self, now: Timestamp, seller: PeerId, word: &SignedTopUp, told: &[Payment]) {
        let id = word.topup().id;
        let paid = told.iter().find(|payment| payment.topup == id);
        let known = self.topup_bought(&id).is_some();
        let room = self.account(&seller, Direction::Bought).is_none_or(|account| account.takes_foreign());
        if let Some(payment) = paid.filter(|_| !known && room && word.topup().network == self.network) {
            let (amount_sat, topup) = (payment.amount_sat, Some(word.clone()));
            let line = TopUpLine { id, amount_sat, topup, created: now, closed: true, payee: None };
            self.stage(seller, Direction::Bought, Change::TopUp { line, gives_up: Vec::new() });
        }
    }

    /// Takes a gift that we have forgotten: our own signature says that it was given.
    fn take_own_grant(&mut self, now: Timestamp, buyer: PeerId, grant: &SignedGrant) {
        let history =
            self.account(&buyer, Direction::Sold).map(|account| account.history().clone()).unwrap_or_default();
        if grant.amount() > history.granted() {
            let history = History { grant: Some((grant.clone(), now)), ..history };
            self.stage(buyer, Direction::Sold, Change::History(history));
        }
    }

    /// What the wallet is asked for a word of ours, unless payments under it are known.
    fn claim(&self, buyer: &PeerId, word: &SignedTopUp) -> Option<Claim> {
        let says = word.topup();
        let account = self.account(buyer, Direction::Sold);
        if says.network != self.network || account.is_some_and(|account| account.is_paid(&says.id)) {
            return None;
        }
        let known = account.and_then(|account| account.topup(&says.id)).and_then(|line| line.payee);
        let given = says.until_height.saturating_sub(TOPUP_BLOCKS);
        Some(Claim {
            payee: known.unwrap_or_else(|| payee_of(buyer, &says.id)),
            address: says.address.clone(),
            height: given.saturating_add(SURE_BLOCKS),
            word: word.clone(),
        })
    }
}
