//! Selling: quotes, admission, and the buyer's receipts.

use std::time::Duration;

use libp2p_identity::PeerId;

use crate::account::{Account, Change, Direction, Line, LineError, Payment, Tab};
use crate::content::{Groups, Size};
use crate::credit::{MAX_GRANT_BYTES, SignedGrant};
use crate::id::QuoteId;
use crate::market::Market;
use crate::market::standing::Footing;
use crate::money::{Msat, Price};
use crate::offer::Service;
use crate::refusal::Refusal;
use crate::session::quote::{Quote, SignedQuote, SignedReceipt};
use crate::session::{Brake, FIRST_WINDOW, Request};
use crate::time::Timestamp;
use crate::wire::Signed;

/// How long a quote may be used: a day, so that a large download is one line in the account.
const QUOTE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Quotes that may be in use at once: each is a few hundred bytes of memory.
const MAX_LIVE: usize = 4096;

/// Of these, what one buyer may have: more streams than it is served on at once, and no way to take all places.
const MAX_LIVE_EACH: usize = 64;

/// When a buyer is told to come back while all places are taken.
const BUSY: Refusal = Refusal::Busy { retry_after: Duration::from_secs(10) };

/// Payments told to a buyer when it asks, the newest first.
const MAX_TOLD: usize = 16;

/// A quote in use: its stream is open.
#[derive(Debug)]
pub(super) struct Live {
    buyer: PeerId,
    line: Line,
    size: Size,
    brake: Brake,
}

impl Live {
    /// Takes a receipt: only what counts in the line lets go of the brake.
    fn sign(&mut self, receipt: SignedReceipt) -> Result<u64, LineError> {
        let counted = self.line.sign(receipt)?;
        self.brake.handle_signed(counted);
        Ok(counted)
    }
}

/// How the books stand, for a buyer who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Synced {
    /// For each receipt that came: its quote, and the units that count.
    pub lines: Vec<(QuoteId, u64)>,
    /// The account.
    pub tab: Tab,
    /// The credit line.
    pub allowance: Msat,
    /// What was given.
    pub grant: Option<SignedGrant>,
    /// What the buyer paid, the newest first.
    pub payments: Vec<Payment>,
    /// When we were restored from a backup, if we were: the buyer then reminds us.
    pub restored: Option<Timestamp>,
}

impl Market {
    /// A buyer asks the price of an object of this size; the caller has made sure that it can be served, and that a file
    /// is one of its collection's, whose price it has.
    ///
    /// # Errors
    /// [`Refusal`] when the buyer is blocked, it is not for sale, or no place is free.
    pub fn handle_open(
        &mut self,
        now: Timestamp,
        buyer: PeerId,
        request: Request,
        size: Size,
    ) -> Result<SignedQuote, Refusal> {
        self.check_block(&buyer)?;
        let price = self.shop().price_of(request.published()).ok_or(Refusal::NotFound)?;
        let own = self.live.values().filter(|live| live.buyer == buyer).count();
        if self.live.len() >= MAX_LIVE || own >= MAX_LIVE_EACH {
            return Err(BUSY);
        }
        self.grant(now, buyer, price);
        let account = self.account(&buyer, Direction::Sold);
        let prepaid = account.and_then(|account| account.price_ceiling(Service::Chunks));
        let max_window = match account {
            Some(account) if !account.tails_forgiven() => FIRST_WINDOW,
            Some(_) | None => self.terms.max_window,
        };
        self.last_number = now.ms().max(self.last_number.saturating_add(1));
        let quote = Quote {
            network: self.network.clone(),
            buyer,
            seller: self.me,
            number: self.last_number,
            offer_seq: self.offer.as_ref().map_or(0, |signed| signed.offer().sequence),
            service: Service::Chunks,
            object: *request.object().as_bytes(),
            collection: request.collection().copied(),
            whole: self.shop().whole_of(&request),
            size: size.bytes(),
            price: [prepaid, self.ceiling()].into_iter().flatten().fold(price, Price::min),
            expires: now.saturating_add(QUOTE_LIFE),
        };
        let quote = SignedQuote::sign(quote, &self.key);
        let line = Line::new(Direction::Sold, quote.clone(), now);
        self.live.insert(quote.id(), Live { buyer, line, size, brake: Brake::up_to(max_window) });
        Ok(quote)
    }

    /// The buyer wants a range and signs for what it has: what of the range is admitted, from its first group on.
    ///
    /// # Errors
    /// [`Refusal::PayFirst`] or [`Refusal::OverLimit`] with what is missing; [`Refusal::Malformed`] for a receipt that
    /// does not count, or when more is wanted than may be unsigned; [`Refusal::PriceMoved`] when the quote has ended;
    /// [`Refusal::Blocked`] when the owner has blocked the buyer meanwhile.
    pub fn handle_want(
        &mut self,
        now: Timestamp,
        quote: &QuoteId,
        groups: Groups,
        receipt: Option<Signed>,
    ) -> Result<Groups, Refusal> {
        if let Some(receipt) = receipt {
            self.handle_receipt(now, quote, receipt)?;
        }
        let live = self.live.get(quote).ok_or(Refusal::PriceMoved)?;
        if now > live.line.quote().quote().expires {
            return Err(Refusal::PriceMoved);
        }
        self.check_block(&live.buyer)?;
        let unbraked = live.brake.admit(live.size, groups).ok_or(Refusal::Malformed)?;
        let footing = self.footing(&live.buyer, now);
        let admitted = self.affordable(live, &footing, unbraked)?;
        let units = live.size.bytes_in(admitted);
        let Some(live) = self.live.get_mut(quote) else {
            return Err(Refusal::PriceMoved);
        };
        live.line.admit(units);
        live.brake.handle_admitted(units);
        self.stage_live(quote);
        Ok(admitted)
    }

    /// The buyer's stream is gone; `sent` bytes of payload may have left in all, so they are counted before each write.
    /// Its last receipt, if one came, counts.
    pub fn handle_end(&mut self, now: Timestamp, quote: &QuoteId, sent: u64, receipt: Option<Signed>) {
        if let Some(receipt) = receipt {
            // A last receipt that does not count leaves a tail: nothing else follows from it.
            let _ = self.handle_receipt(now, quote, receipt);
        }
        if let Some(live) = self.live.get_mut(quote) {
            live.line.end(sent);
        }
        self.stage_live(quote);
        if let Some(live) = self.live.remove(quote) {
            self.stage_consequences(live.buyer, Direction::Sold, now);
        }
    }

    /// A buyer tells its newest receipts, for quotes of any age, and asks how the books stand.
    pub fn handle_sync(&mut self, now: Timestamp, buyer: PeerId, receipts: Vec<SignedReceipt>) -> Synced {
        let lines =
            receipts.into_iter().map(|receipt| (receipt.quote_id(), self.take_receipt(buyer, receipt))).collect();
        self.stage_consequences(buyer, Direction::Sold, now);
        let account = self.account(&buyer, Direction::Sold);
        let mut payments: Vec<Payment> =
            account.map(|account| account.payments().cloned().collect()).unwrap_or_default();
        payments.sort_by_key(|payment| std::cmp::Reverse((payment.depth == 0, payment.height)));
        payments.truncate(MAX_TOLD);
        let footing = self.footing(&buyer, now);
        Synced {
            lines,
            tab: footing.tab,
            allowance: footing.allowance,
            grant: account.and_then(|account| account.history().grant.clone()).map(|(grant, _)| grant),
            payments,
            restored: self.restored(),
        }
    }

    /// The part of `groups` that the account carries.
    fn affordable(&self, live: &Live, footing: &Footing, groups: Groups) -> Result<Groups, Refusal> {
        let quote = live.line.quote();
        let before = live.line.admitted_units();
        let spent = quote.charge(before);
        let room = footing.tab.room(footing.allowance);
        let units = quote.quote().price.affordable(spent.saturating_add(room)).saturating_sub(before);
        let part = groups.within(units);
        let admitted = if live.size.bytes_in(groups) <= units { groups } else { part };
        let cost = quote.charge(before.saturating_add(live.size.bytes_in(admitted))).saturating_sub(spent);
        let missing = footing.tab.missing(cost, footing.allowance);
        if missing > Msat::ZERO {
            return Err(self.unpaid(&live.buyer, footing, missing));
        }
        let owed = footing.tab.spent.saturating_add(footing.tab.held).saturating_add(cost);
        let unsecured = owed.saturating_sub(footing.tab.paid);
        let at_stake = unsecured.saturating_add(footing.tails);
        if unsecured > Msat::ZERO && !self.terms.credit.within_line(at_stake, footing.realised) {
            return Err(Refusal::OverLimit { missing: unsecured });
        }
        Ok(admitted)
    }

    fn unpaid(&self, buyer: &PeerId, footing: &Footing, missing: Msat) -> Refusal {
        match footing.allowance {
            Msat::ZERO if self.is_overdue(buyer) => Refusal::PastDue,
            Msat::ZERO => Refusal::PayFirst { missing, min_topup_sat: self.terms.min_topup_sat },
            _ => Refusal::OverLimit { missing },
        }
    }

    fn handle_receipt(&mut self, now: Timestamp, quote: &QuoteId, receipt: Signed) -> Result<(), Refusal> {
        let live = self.live.get_mut(quote).ok_or(Refusal::PriceMoved)?;
        let receipt = SignedReceipt::parse(receipt, &live.buyer).map_err(|_| Refusal::Malformed)?;
        live.sign(receipt).map_err(|_| Refusal::Malformed)?;
        let buyer = live.buyer;
        self.stage_live(quote);
        self.stage_consequences(buyer, Direction::Sold, now);
        self.review_conduct(now, buyer);
        Ok(())
    }

    /// Takes a receipt that came outside its session; the units that count under its quote now.
    ///
    /// A quote that is not known was folded: it is acknowledged as it stands. One that does not count is answered with
    /// what does, and one that is not news is not written again.
    fn take_receipt(&mut self, buyer: PeerId, receipt: SignedReceipt) -> u64 {
        let (id, units) = (receipt.quote_id(), receipt.units());
        if let Some(live) = self.live.get_mut(&id).filter(|live| live.buyer == buyer) {
            let before = live.line.signed_units();
            let counted = live.sign(receipt).unwrap_or(before);
            if counted > before {
                self.stage_live(&id);
            }
            return counted;
        }
        let known = self.account(&buyer, Direction::Sold).and_then(|account| account.line(&id));
        let Some(mut line) = known.cloned() else {
            return units;
        };
        let before = line.signed_units();
        let counted = line.sign(receipt).unwrap_or(before);
        if counted > before {
            self.stage(buyer, Direction::Sold, Change::Line(line));
        }
        counted
    }

    /// Brings a live line into the account, from the first admission to the end of the stream. Free quotes stay out of
    /// it: they can't be owed, and cost a stranger nothing.
    fn stage_live(&mut self, quote: &QuoteId) {
        let Some(live) = self.live.get(quote) else {
            return;
        };
        let held = self.account(&live.buyer, Direction::Sold).is_some_and(|account| account.line(quote).is_some());
        let used = held || live.line.admitted_units() > 0;
        if used && live.line.quote().quote().price > Price::FREE {
            self.stage(live.buyer, Direction::Sold, Change::Line(live.line.clone()));
        }
    }

    /// Gives a stranger its first window, where the owner gives any.
    fn grant(&mut self, now: Timestamp, buyer: PeerId, price: Price) {
        let known = self.account(&buyer, Direction::Sold).is_some_and(|account| *account != Account::default());
        if known || price == Price::FREE || self.terms.credit.grant == Msat::ZERO {
            return;
        }
        if let Some(amount) = self.pool(now).grant(&self.terms.credit) {
            let amount = price.charge(MAX_GRANT_BYTES).map_or(amount, |most| most.min(amount));
            let grant = SignedGrant::sign(&buyer, amount, &self.key);
            let history = crate::credit::History { grant: Some((grant, now)), ..Default::default() };
            self.stage(buyer, Direction::Sold, Change::History(history));
        }
    }
}
