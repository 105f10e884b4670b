//! What really happened between one seller and its buyers, from the bytes that left and the coins that came alone; and
//! the bounds of MONEY.md 2.3, held against that, not against the market's own books.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use pedlar_protocol::credit::Rules;
use pedlar_protocol::id::QuoteId;
use pedlar_protocol::money::{Msat, Price};

use super::Violation;

/// What passed under a quote, in bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Passed {
    price_msat_per_gib: u64,
    admitted: u64,
    sent: u64,
    signed: u64,
    ended: bool,
}

impl Passed {
    /// What the buyer has or will have, in msat: of an open stream all that was admitted.
    fn value(&self) -> u64 {
        self.charge(if self.ended { self.sent.max(self.signed) } else { self.admitted })
    }

    fn charge(&self, bytes: u64) -> u64 {
        Price::per_gib(self.price_msat_per_gib).charge(bytes).map_or(u64::MAX, Msat::msat)
    }
}

/// One identity, in msat.
#[derive(Debug, Default)]
struct Deal {
    lines: BTreeMap<QuoteId, Passed>,
    /// Sent, or admitted in a stream that is open.
    value: u64,
    signed: u64,
    /// Ever in a block; ever final.
    paid: u64,
    settled: u64,
    /// On its way when the seller went down: that is the seller's own loss (MONEY.md 1.4).
    excused: u64,
}

impl Deal {
    /// R: final and signed for, undecayed.
    fn realised(&self) -> u64 {
        self.settled.min(self.signed)
    }

    /// What it has for nothing.
    fn taken(&self) -> u64 {
        self.value.saturating_sub(self.paid)
    }

    fn unsecured(&self) -> u64 {
        self.taken().saturating_sub(self.excused)
    }

    /// ξ·μ·R.
    fn line(&self, rules: &Rules) -> u64 {
        rules.mu.of(rules.xi.of(Msat::new(self.realised()))).msat()
    }
}

/// One seller's dealings.
#[derive(Debug)]
pub(super) struct Truth {
    rules: Rules,
    deals: BTreeMap<PeerId, Deal>,
    /// How often a bound was held against what happened, and how often something unsecured was at stake then.
    pub(super) checks: u64,
    pub(super) unsecured: u64,
}

impl Truth {
    pub(super) const fn new(rules: Rules) -> Self {
        Self { rules, deals: BTreeMap::new(), checks: 0, unsecured: 0 }
    }

    fn update(&mut self, buyer: PeerId, quote: QuoteId, change: impl FnOnce(&mut Passed)) {
        let deal = self.deals.entry(buyer).or_default();
        let line = deal.lines.entry(quote).or_default();
        let (value, signed) = (line.value(), line.charge(line.signed));
        change(line);
        deal.value = deal.value - value + line.value();
        deal.signed = deal.signed - signed + line.charge(line.signed);
    }

    pub(super) fn admitted(&mut self, buyer: PeerId, quote: QuoteId, price: Price, bytes: u64) {
        self.update(buyer, quote, |line| {
            line.price_msat_per_gib = price.msat_per_gib();
            line.admitted += bytes;
        });
    }

    /// The seller has got a receipt, and may count it as far as it admitted so much.
    pub(super) fn signed(&mut self, buyer: PeerId, quote: QuoteId, units: u64) {
        if self.deals.get(&buyer).is_some_and(|deal| deal.lines.contains_key(&quote)) {
            self.update(buyer, quote, |line| {
                if units <= line.admitted {
                    line.signed = line.signed.max(units);
                }
            });
        }
    }

    /// The stream is gone; `sent` bytes had left.
    pub(super) fn ended(&mut self, buyer: PeerId, quote: QuoteId, sent: u64) {
        if self.deals.get(&buyer).is_some_and(|deal| deal.lines.contains_key(&quote)) {
            self.update(buyer, quote, |line| {
                line.sent = sent.min(line.admitted);
                line.ended = true;
            });
        }
    }

    /// The seller went down while the stream was open, or before its end was stored.
    pub(super) fn interrupted(&mut self, buyer: PeerId, quote: QuoteId) {
        if let Some(deal) = self.deals.get_mut(&buyer)
            && let Some(line) = deal.lines.get(&quote)
        {
            // Its receipts of after the last stored one may be lost, too, until they are told again.
            deal.excused += line.charge(line.admitted);
        }
    }

    pub(super) fn paid(&mut self, buyer: PeerId, msat: u64, settled: bool) {
        let deal = self.deals.entry(buyer).or_default();
        *(if settled { &mut deal.settled } else { &mut deal.paid }) += msat;
    }

    /// (A): what this identity has unsecured is within its line, which it got `line` of from the seller. Called when
    /// more was admitted.
    ///
    /// # Errors
    /// [`Violation`].
    pub(super) fn check_a(&mut self, buyer: PeerId, line: Msat) -> Result<(), Violation> {
        self.checks += 1;
        let Some(deal) = self.deals.get(&buyer) else { return Ok(()) };
        let (unsecured, most) = (deal.unsecured(), deal.line(&self.rules));
        self.unsecured += u64::from(unsecured > 0);
        if line > Msat::ZERO && unsecured > most {
            let what = format!("{buyer} has {unsecured} msat unsecured, its trade carries {most}");
            return Err(Violation { part: "(A)", what });
        }
        Ok(())
    }

    /// (B): what no line carries is within the pool of strangers.
    ///
    /// # Errors
    /// [`Violation`].
    pub(super) fn check_b(&mut self) -> Result<(), Violation> {
        self.checks += 1;
        let rules = &self.rules;
        let strangers: u64 = self.deals.values().map(|deal| deal.unsecured().saturating_sub(deal.line(rules))).sum();
        let size = rules.stake.msat() + rules.mu.of(rules.phi.of(Msat::new(self.realised()))).msat();
        if strangers > size {
            let deals: Vec<&Deal> = self.deals.values().filter(|deal| deal.unsecured() > 0).take(4).collect();
            let what =
                format!("strangers have {strangers} msat unsecured, the pool is {size}; some of them: {deals:?}");
            return Err(Violation { part: "(B)", what });
        }
        Ok(())
    }

    /// The bound of MONEY.md 2.3 over everybody.
    ///
    /// # Errors
    /// [`Violation`].
    pub(super) fn check_bound(&self) -> Result<(), Violation> {
        let (lost, most) = (self.deals.values().map(Deal::unsecured).sum::<u64>(), self.bound());
        if lost > most {
            return Err(Violation { part: "bound", what: format!("{lost} msat lost or outstanding, {most} at stake") });
        }
        Ok(())
    }

    /// B0 + (φ+ξ)·μ·R_total, in msat.
    pub(super) fn bound(&self) -> u64 {
        let (rules, realised) = (&self.rules, Msat::new(self.realised()));
        let shares = rules.phi.of(realised).saturating_add(rules.xi.of(realised));
        rules.stake.msat() + rules.mu.of(shares).msat()
    }

    /// ξ·μ of so much, and the pool: what one identity and what all strangers may have, in msat.
    pub(super) fn shares(&self, paid: u64) -> (u64, u64) {
        let rules = &self.rules;
        let pool = rules.stake.saturating_add(rules.mu.of(rules.phi.of(Msat::new(self.realised()))));
        (rules.mu.of(rules.xi.of(Msat::new(paid))).msat(), pool.msat())
    }

    /// R_total, in msat.
    pub(super) fn realised(&self) -> u64 {
        self.deals.values().map(Deal::realised).sum()
    }

    /// What all have for nothing, in msat.
    pub(super) fn loss(&self) -> u64 {
        self.deals.values().map(Deal::taken).sum()
    }

    /// What these identities have for nothing, and the most that theirs may be: ξ·μ of what they paid, in msat.
    pub(super) fn take<'a>(&self, buyers: impl Iterator<Item = &'a PeerId>) -> (u64, u64) {
        let deals = buyers.filter_map(|buyer| self.deals.get(buyer));
        deals.fold((0, 0), |(taken, paid), deal| (taken + deal.taken(), paid + deal.paid))
    }

    /// All that came, and all that left, in msat.
    pub(super) fn turnover(&self) -> (u64, u64) {
        self.deals.values().fold((0, 0), |(paid, value), deal| (paid + deal.paid, value + deal.value))
    }
}
