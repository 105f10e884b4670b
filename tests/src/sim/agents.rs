//! Buyers of MONEY.md 2.4: the honest one, and those that take as much as the seller's rule lets them.

use libp2p_identity::PeerId;
use pedlar_protocol::money::Msat;

use super::season::{Buyer, Season, Signing};
use super::truth::Truth;
use crate::dice::Dice;

/// A mebibyte costs 977 sat at the price of the simulator.
const MIB: u64 = 1 << 20;

/// What is bought in one window at first.
const WINDOW: u64 = 64 * 1024;

const HOURS_A_DAY: u64 = 24;

/// By which part of the bound somebody's take is bounded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Backing {
    /// Its own line: ξ·μ of what it paid.
    Line,
    /// The pool of all strangers.
    Pool,
    /// Either.
    Both,
}

impl Backing {
    /// The most, in msat, of somebody who paid `paid`.
    pub(super) fn of(self, paid: u64, truth: &Truth) -> u64 {
        let (line, pool) = truth.shares(paid);
        match self {
            Self::Line => line,
            Self::Pool => pool,
            Self::Both => line + pool,
        }
    }
}

/// Somebody who comes to the seller each hour.
pub(super) trait Agent {
    /// Who it is.
    fn name(&self) -> &'static str;

    /// One hour of it.
    fn act(&mut self, season: &mut Season);

    /// The identities under which it got anything.
    fn ids(&self) -> &[PeerId];

    /// What its take stands on.
    fn backing(&self) -> Backing;

    /// Of an honest one: hours from its first purchase to its first one on credit.
    fn postpaid_after(&self) -> Option<u64> {
        None
    }
}

/// Pays what it owes, in 2 of 100 cases 1 to 4 days late.
pub(super) struct Honest {
    buyer: Buyer,
    ids: Vec<PeerId>,
    dice: Dice,
    bytes: u64,
    pays_at: Option<u64>,
    hungry: bool,
    began: Option<u64>,
    postpaid: Option<u64>,
}

impl Honest {
    pub(super) fn new(season: &mut Season, mib: u64) -> Self {
        let buyer = season.buyer(true);
        let (ids, dice) = (vec![buyer.id], season.dice.split());
        Self { buyer, ids, dice, bytes: mib * MIB, pays_at: None, hungry: false, began: None, postpaid: None }
    }

    fn shop(&mut self, season: &mut Season) {
        let bought = season.buy(&mut self.buyer, self.bytes, Signing::All);
        if bought.bytes > 0 {
            self.began.get_or_insert(season.hour);
        }
        let (debt, _) = season.owes(&self.buyer);
        if debt > Msat::ZERO {
            self.postpaid.get_or_insert(season.hour);
        }
        // What was refused is paid for, with four more days in advance, and fetched when that counts.
        self.hungry = bought.missing.is_some();
        if let Some(missing) = bought.missing {
            let more = season.price.charge(self.bytes * 4).unwrap_or_default();
            let sat = missing.saturating_add(debt).saturating_add(more).ceil_sat();
            season.pay(&self.buyer, sat);
            self.pays_at = None;
        }
    }

    fn settle(&mut self, season: &mut Season) {
        let (debt, line) = season.owes(&self.buyer);
        if debt == Msat::ZERO {
            return self.pays_at = None;
        }
        let (dice, hour) = (&mut self.dice, season.hour);
        let pays_at = *self.pays_at.get_or_insert_with(|| {
            let late = if dice.below(100) < 2 { 72 + HOURS_A_DAY * (1 + dice.below(4)) } else { 0 };
            let soon = if debt.msat() * 2 >= line.msat() { 0 } else { 48 };
            hour + soon.max(late)
        });
        if pays_at <= season.hour && !self.hungry {
            season.pay(&self.buyer, debt.ceil_sat());
            // Until it counts.
            self.pays_at = Some(season.hour + 2);
        }
    }
}

impl Agent for Honest {
    fn name(&self) -> &'static str {
        "honest"
    }

    fn act(&mut self, season: &mut Season) {
        if self.hungry || season.hour % HOURS_A_DAY == u64::from(self.buyer.id.to_bytes()[9]) % HOURS_A_DAY {
            self.shop(season);
        }
        self.settle(season);
    }

    fn ids(&self) -> &[PeerId] {
        &self.ids
    }

    fn backing(&self) -> Backing {
        Backing::Line
    }

    fn postpaid_after(&self) -> Option<u64> {
        Some(self.postpaid?.saturating_sub(self.began?))
    }
}

/// Comes each hour and never pays: under one name, or under so many new ones.
pub(super) struct Taker {
    buyer: Option<Buyer>,
    names: u64,
    ids: Vec<PeerId>,
}

impl Taker {
    /// One that keeps its name.
    pub(super) fn freeloader(season: &mut Season) -> Self {
        Self { buyer: Some(season.buyer(false)), names: 1, ids: Vec::new() }
    }

    /// One that has so many new names an hour.
    pub(super) const fn whitewasher(names: u64) -> Self {
        Self { buyer: None, names, ids: Vec::new() }
    }
}

impl Agent for Taker {
    fn name(&self) -> &'static str {
        if self.buyer.is_some() { "freeloader" } else { "whitewasher" }
    }

    fn act(&mut self, season: &mut Season) {
        for _ in 0..self.names {
            let mut new = None;
            let buyer = match &mut self.buyer {
                Some(buyer) => buyer,
                None => new.insert(season.buyer(false)),
            };
            season.faults += 1;
            // Signing costs it nothing, and opens the next window.
            let bought = season.buy(buyer, MIB, Signing::All);
            if bought.bytes > 0 && self.ids.last() != Some(&buyer.id) {
                self.ids.push(buyer.id);
            }
        }
    }

    fn ids(&self) -> &[PeerId] {
        &self.ids
    }

    fn backing(&self) -> Backing {
        Backing::Pool
    }
}

/// Is honest for some days, takes what it can and is gone; and comes again.
pub(super) struct Builder {
    days: u64,
    since: u64,
    honest: Honest,
    ids: Vec<PeerId>,
}

impl Builder {
    pub(super) fn new(season: &mut Season, days: u64) -> Self {
        let honest = Honest::new(season, 4);
        Self { days, since: 0, ids: honest.ids.clone(), honest }
    }
}

impl Agent for Builder {
    fn name(&self) -> &'static str {
        if self.days < 10 { "build 5 days and exit" } else { "build 30 days and exit" }
    }

    fn act(&mut self, season: &mut Season) {
        if season.hour < self.since + self.days * HOURS_A_DAY {
            return self.honest.act(season);
        }
        season.faults += 1;
        while season.buy(&mut self.honest.buyer, 16 * MIB, Signing::ButLast).bytes > 2 * WINDOW {}
        self.honest = Honest::new(season, 4);
        self.ids.extend(&self.honest.ids);
        self.since = season.hour;
    }

    fn ids(&self) -> &[PeerId] {
        &self.ids
    }

    fn backing(&self) -> Backing {
        Backing::Line
    }
}

/// Is honest for some days, takes what it can, pays that only when it is long written off, and takes again.
pub(super) struct Relapser {
    since: u64,
    honest: Honest,
}

impl Relapser {
    /// Days of honest trade; and days until it pays what it took then: a bill is due after 3, written off after 10.
    const HONEST: u64 = 8;
    const SILENT: u64 = 12;

    pub(super) fn new(season: &mut Season) -> Self {
        Self { since: 0, honest: Honest::new(season, 4) }
    }
}

impl Agent for Relapser {
    fn name(&self) -> &'static str {
        "relapser"
    }

    fn act(&mut self, season: &mut Season) {
        let hours = season.hour - self.since;
        let honest = Self::HONEST * HOURS_A_DAY;
        let silent = honest + Self::SILENT * HOURS_A_DAY;
        if hours < honest {
            return self.honest.act(season);
        }
        season.faults += 1;
        let buyer = &mut self.honest.buyer;
        if hours == honest || hours == silent + 3 {
            while season.buy(buyer, 16 * MIB, Signing::All).bytes > 2 * WINDOW {}
        } else if hours == silent || hours == silent + 1 {
            let (debt, _) = season.owes(buyer);
            if debt > Msat::ZERO {
                season.pay(buyer, debt.ceil_sat());
            }
        } else if hours > silent + 3 {
            // What it took last is paid, and it is honest again.
            self.since = season.hour;
        }
    }

    fn ids(&self) -> &[PeerId] {
        &self.honest.ids
    }

    fn backing(&self) -> Backing {
        Backing::Line
    }
}

/// Pays for one window in advance and never signs for the last one; every six hours under a new name.
pub(super) struct Dropper {
    buyer: Option<Buyer>,
    ids: Vec<PeerId>,
}

impl Dropper {
    pub(super) const fn new() -> Self {
        Self { buyer: None, ids: Vec::new() }
    }
}

impl Agent for Dropper {
    fn name(&self) -> &'static str {
        "tail dropper"
    }

    fn act(&mut self, season: &mut Season) {
        if season.hour.is_multiple_of(6) {
            let buyer = season.buyer(false);
            let sat = season.price.charge(WINDOW * (1 + season.dice.below(3))).unwrap_or_default().ceil_sat();
            season.pay(&buyer, sat);
            self.ids.push(buyer.id);
            self.buyer = Some(buyer);
        } else if let Some(buyer) = &mut self.buyer {
            season.faults += 1;
            let signing = if season.dice.below(2) == 0 { Signing::Never } else { Signing::ButLast };
            season.buy(buyer, WINDOW * 2, signing);
        }
    }

    fn ids(&self) -> &[PeerId] {
        &self.ids
    }

    fn backing(&self) -> Backing {
        Backing::Pool
    }
}

/// Does what its dice say, under some names at once.
pub(super) struct Random {
    dice: Dice,
    buyers: Vec<Buyer>,
    ids: Vec<PeerId>,
    kept: Vec<(usize, super::stall::Opened, u64)>,
}

impl Random {
    pub(super) fn new(season: &mut Season) -> Self {
        let dice = season.dice.split();
        let buyers: Vec<Buyer> = (0..4).map(|_| season.buyer(false)).collect();
        Self { dice, ids: buyers.iter().map(|buyer| buyer.id).collect(), buyers, kept: Vec::new() }
    }

    fn step(&mut self, season: &mut Season) {
        let place = self.dice.below(self.buyers.len() as u64) as usize;
        let buyer = &mut self.buyers[place];
        match self.dice.below(12) {
            0..=2 => drop(season.pay(buyer, 1 + self.dice.below(2_000))),
            3 => {
                let (debt, _) = season.owes(buyer);
                if debt > Msat::ZERO {
                    season.pay(buyer, debt.ceil_sat());
                }
            }
            4..=7 => drop(season.buy(buyer, WINDOW * (1 + self.dice.below(32)), Signing::All)),
            8 => drop(season.buy(buyer, WINDOW * (1 + self.dice.below(32)), Signing::ButLast)),
            9 => self.kept.extend(season.snatch(buyer).map(|(opened, sent)| (place, opened, sent))),
            10 => {
                if let Some((owner, opened, sent)) = self.kept.pop() {
                    season.tell(&self.buyers[owner], &opened, sent + self.dice.below(2));
                }
            }
            _ if self.dice.below(20) == 0 => {
                let new = season.buyer(false);
                self.ids.push(new.id);
                self.kept.retain(|(owner, _, _)| *owner != place);
                self.buyers[place] = new;
            }
            _ => {}
        }
    }
}

impl Agent for Random {
    fn name(&self) -> &'static str {
        "random adversary"
    }

    fn act(&mut self, season: &mut Season) {
        season.faults += 1;
        for _ in 0..self.dice.below(4) {
            self.step(season);
        }
    }

    fn ids(&self) -> &[PeerId] {
        &self.ids
    }

    fn backing(&self) -> Backing {
        Backing::Both
    }
}
