//! Accounts over time: bills for what is owed, their clock, default and its cure (MONEY.md 2.1).
//!
//! **Invariant:** whoever is in default or past due has no credit line; a default makes R and `on` 0, so that
//! trade before it never carries a second loss ((C)).

use std::time::Duration;

use libp2p_identity::PeerId;

use crate::account::{Account, Bill, Change, Conduct, Direction, Elapsed};
use crate::credit::{History, Ratio};
use crate::market::{Market, standing};
use crate::money::Msat;
use crate::time::Timestamp;

/// A bill is made when the debt reaches this part of the line.
const BILL_SHARE: Ratio = Ratio { num: 8, den: 10 };

/// A debt that has stood so long is billed, however small a part of the line it is.
const BILL_AFTER: Duration = Duration::from_secs(24 * 3600);

impl Market {
    /// Lets time pass for all accounts: bills what has stood long, and marks what is past due or in default.
    pub fn handle_clock(&mut self, now: Timestamp) {
        let owing = self.accounts().filter(|(_, direction, account)| {
            let open = account.tab().debt() > Msat::ZERO || *account.conduct() != Conduct::default();
            *direction == Direction::Sold && open
        });
        for buyer in owing.map(|(peer, _, _)| *peer).collect::<Vec<_>>() {
            self.review_conduct(now, buyer);
            self.age_bill(now, buyer);
        }
    }

    /// Looks whether what a buyer has paid settles what is held against it. Nothing is billed and no clock runs here: a
    /// reorg that takes a payment and gives it back leaves all as it was.
    pub(super) fn settle_conduct(&mut self, now: Timestamp, buyer: PeerId) {
        if let Some(account) = self.account(&buyer, Direction::Sold) {
            let conduct = self.settled(account, now);
            self.put_conduct(buyer, conduct);
        }
    }

    /// Bills a buyer, where it owes enough or has owed long enough.
    pub(super) fn review_conduct(&mut self, now: Timestamp, buyer: PeerId) {
        let Some(account) = self.account(&buyer, Direction::Sold) else {
            return;
        };
        let mut conduct = self.settled(account, now);
        conduct.bill = conduct.bill.or_else(|| self.new_bill(account, &conduct, now));
        self.put_conduct(buyer, conduct);
    }

    /// Runs the clock of a buyer's bill up to now.
    fn age_bill(&mut self, now: Timestamp, buyer: PeerId) {
        let Some(account) = self.account(&buyer, Direction::Sold) else {
            return;
        };
        let conduct = account.conduct().clone();
        match conduct.bill.map(|bill| bill.aged(self.elapsed(account, &bill, now))) {
            Some(bill) if bill.is_in_default() => self.put_default(now, buyer, conduct),
            Some(bill) => self.put_conduct(buyer, Conduct { bill: Some(bill), ..conduct }),
            None => {}
        }
    }

    /// Whether a bill of this buyer is past due.
    pub(super) fn is_overdue(&self, buyer: &PeerId) -> bool {
        self.account(buyer, Direction::Sold)
            .and_then(|account| account.conduct().bill)
            .is_some_and(|bill| bill.overdue.is_some())
    }

    /// Whether a buyer is in default.
    pub(super) fn is_in_default(&self, buyer: &PeerId) -> bool {
        self.account(buyer, Direction::Sold).is_some_and(|account| account.conduct().defaulted.is_some())
    }

    /// What is held against a buyer once what it has paid is looked at.
    fn settled(&self, account: &Account, now: Timestamp) -> Conduct {
        let (tab, mut conduct) = (account.tab(), account.conduct().clone());
        if tab.debt() == Msat::ZERO {
            (conduct.owing_since, conduct.defaulted, conduct.lost_line) = (None, None, Msat::ZERO);
        } else {
            conduct.owing_since = conduct.owing_since.or(Some(now));
        }
        // The rest of a bill that no payment can carry waits for the next one.
        conduct.bill = conduct.bill.filter(|bill| self.is_payable(bill.upto.saturating_sub(tab.paid)));
        conduct
    }

    fn elapsed(&self, account: &Account, bill: &Bill, now: Timestamp) -> Elapsed {
        let lacking = bill.upto.saturating_sub(account.paid());
        let waiting = account.payments().filter(|payment| !payment.is_credited());
        let waiting = waiting.fold(Msat::ZERO, |sum, payment| sum.saturating_add(payment.amount()));
        Elapsed { now, height: self.tip_height, under_way: waiting >= lacking }
    }

    /// The bill for a debt that is large or old enough for one.
    fn new_bill(&self, account: &Account, conduct: &Conduct, now: Timestamp) -> Option<Bill> {
        let debt = account.tab().debt();
        let large = debt >= BILL_SHARE.of(self.line_with(account, account.history(), now));
        let old = conduct.owing_since.is_some_and(|since| now.since(since) >= BILL_AFTER);
        let due = self.is_payable(debt) && (large || old) && conduct.defaulted.is_none();
        due.then(|| Bill {
            upto: account.spent(),
            issued: now,
            due_s: self.terms.credit.due_s,
            default_s: self.terms.credit.default_s,
            counted: now,
            counted_height: self.tip_height,
            ..Bill::default()
        })
    }

    /// Whether a debt can be paid: less than the smallest payment could only be paid with a loss.
    fn is_payable(&self, debt: Msat) -> bool {
        debt > Msat::ZERO && debt >= Msat::from_sat(self.terms.min_topup_sat).unwrap_or(Msat::MAX)
    }

    /// The bill is given up: its debt is bad, and all trade up to now carries no line any more.
    fn put_default(&mut self, now: Timestamp, buyer: PeerId, conduct: Conduct) {
        let Some(account) = self.account(&buyer, Direction::Sold) else {
            return;
        };
        // A deep reorg takes trade back, not what was lent on it.
        let earned = account.realised().max(account.history().counted).saturating_sub(conduct.voided);
        let lost = standing::outstanding(account).min(self.terms.credit.line(earned));
        let history = History { decayed: Msat::ZERO, decayed_at: now, ..account.history().clone() };
        let conduct = Conduct {
            bill: None,
            strikes: conduct.strikes.saturating_add(1),
            defaulted: Some(now),
            voided: account.spent(),
            lost_line: lost.max(conduct.lost_line),
            ..conduct
        };
        self.put_conduct(buyer, conduct);
        self.stage(buyer, Direction::Sold, Change::History(history));
    }

    fn put_conduct(&mut self, buyer: PeerId, conduct: Conduct) {
        if self.account(&buyer, Direction::Sold).is_some_and(|account| *account.conduct() != conduct) {
            self.stage(buyer, Direction::Sold, Change::Conduct(conduct));
        }
    }
}
