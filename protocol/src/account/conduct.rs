//! What a seller holds against a buyer: a debt with its bill, and a default (MONEY.md 2.1).
//!
//! ```text
//! debt ─(0.8 of the line, or 24 h)─▶ bill ─(due)─▶ overdue ─(7 d)─▶ default
//!   ▲                                  └──── paid ◀────┘              │
//!   └───────────── from 0, K doubled ◀──── all paid ◀─────────────────┘
//! ```

use std::time::Duration;

use pedlar_proto::v1;

use crate::account::Repaid;
use crate::money::Msat;
use crate::time::Timestamp;

/// The most that one step of a bill's clock counts beyond what new blocks prove. A clock of ours that jumps, or a night in
/// which we were down and could see no payment, must not put an honest buyer into default: 7 days are 28 such steps.
const MAX_STEP: Duration = Duration::from_secs(6 * 3600);

/// What each new block proves of time that has passed.
const BLOCK_TIME: Duration = Duration::from_secs(600);

/// A bill's clock moves in steps of at least this, so that it is not written every minute.
const MIN_STEP: Duration = Duration::from_secs(600);

/// How long a payment that was seen and does not count yet stops the clock of a bill: once, or it could be stopped for ever.
const PAUSE_BLOCKS: u64 = 144;

/// The most times that a late payment counts.
const MAX_LATE_WEIGHT: u64 = 8;

const MS_PER_DAY: u64 = 86_400_000;

/// A demand to pay what is owed, and the clock that runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bill {
    /// It is settled when so much is paid in all.
    pub upto: Msat,
    /// When it was made.
    pub issued: Timestamp,
    /// Seconds of its clock until it is due.
    pub due_s: u32,
    /// Seconds after that until it is in default.
    pub default_s: u32,
    /// How far its clock has run, in ms.
    pub aged_ms: u64,
    /// The time up to which it was run.
    pub counted: Timestamp,
    /// The newest block then.
    pub counted_height: u64,
    /// When it came past due.
    pub overdue: Option<Timestamp>,
    /// The newest block when a payment first stopped its clock.
    pub paused_height: Option<u64>,
}

/// What makes a bill's clock go, or stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed {
    /// The time.
    pub now: Timestamp,
    /// The newest block.
    pub height: u64,
    /// Whether a payment that settles it was seen and does not count yet.
    pub under_way: bool,
}

impl Bill {
    /// Runs the clock up to a time, and tells whether the bill is past due by now.
    #[must_use]
    pub fn aged(mut self, elapsed: Elapsed) -> Self {
        let step = elapsed.now.since(self.counted);
        if step < MIN_STEP && elapsed.now >= self.counted {
            return self.judged(elapsed.now);
        }
        if elapsed.under_way && self.paused_height.is_none() {
            self.paused_height = Some(elapsed.height);
        }
        let paused = self.paused_height.is_some_and(|at| elapsed.height < at.saturating_add(PAUSE_BLOCKS));
        if !(elapsed.under_way && paused) {
            let blocks = u32::try_from(elapsed.height.saturating_sub(self.counted_height)).unwrap_or(u32::MAX);
            let proven = BLOCK_TIME.saturating_mul(blocks);
            self.aged_ms = self.aged_ms.saturating_add(to_ms(step.min(MAX_STEP.saturating_add(proven))));
        }
        (self.counted, self.counted_height) = (elapsed.now, elapsed.height);
        self.judged(elapsed.now)
    }

    fn judged(mut self, now: Timestamp) -> Self {
        if self.aged_ms >= self.due_ms() && self.overdue.is_none() {
            self.overdue = Some(now);
        }
        self
    }

    /// Whether it is given up.
    #[must_use]
    pub fn is_in_default(&self) -> bool {
        let limit = self.due_ms().saturating_add(u64::from(self.default_s).saturating_mul(1000));
        self.overdue.is_some() && self.aged_ms >= limit
    }

    /// What a payment that settles it now counts: 0 in time, else `min(1 + days late, 8)`.
    #[must_use]
    pub fn late_weight(&self) -> u32 {
        let days = self.aged_ms.saturating_sub(self.due_ms()).checked_div(MS_PER_DAY).unwrap_or(0);
        let weight = u32::try_from(days.saturating_add(1).min(MAX_LATE_WEIGHT)).unwrap_or(0);
        if self.overdue.is_some() { weight } else { 0 }
    }

    /// When it will be due if nothing stops its clock.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        self.counted.saturating_add(Duration::from_millis(self.due_ms().saturating_sub(self.aged_ms)))
    }

    fn due_ms(&self) -> u64 {
        u64::from(self.due_s).saturating_mul(1000)
    }

    fn to_wire(self) -> v1::Bill {
        v1::Bill {
            upto_msat: self.upto.msat(),
            issued_ms: self.issued.ms(),
            due_s: self.due_s,
            default_s: self.default_s,
            aged_ms: self.aged_ms,
            counted_ms: self.counted.ms(),
            counted_height: self.counted_height,
            overdue_ms: self.overdue.map_or(0, Timestamp::ms),
            paused_height: self.paused_height.unwrap_or(0),
        }
    }

    fn from_wire(wire: &v1::Bill) -> Self {
        Self {
            upto: Msat::new(wire.upto_msat),
            issued: Timestamp::from_ms(wire.issued_ms),
            due_s: wire.due_s,
            default_s: wire.default_s,
            aged_ms: wire.aged_ms,
            counted: Timestamp::from_ms(wire.counted_ms),
            counted_height: wire.counted_height,
            overdue: time_of(wire.overdue_ms),
            paused_height: Some(wire.paused_height).filter(|height| *height > 0),
        }
    }
}

/// What is held against a buyer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conduct {
    /// When the present debt began.
    pub owing_since: Option<Timestamp>,
    /// The open bill.
    pub bill: Option<Bill>,
    /// Defaults so far.
    pub strikes: u32,
    /// When the default began that is not cured yet.
    pub defaulted: Option<Timestamp>,
    /// Signed for before the last default: it counts towards no line any more.
    pub voided: Msat,
    /// What the line carried of the debt in default.
    pub lost_line: Msat,
}

impl Conduct {
    /// How debt that is settled now counts for trust.
    #[must_use]
    pub fn judge(&self, debt: Msat) -> Repaid {
        // What cures a default was owed before it: it counts no more.
        let epoch = if self.defaulted.is_some() { self.strikes.saturating_sub(1) } else { self.strikes };
        Repaid { debt, late_weight: self.bill.map_or(0, |bill| bill.late_weight()), epoch }
    }

    pub(super) fn to_wire(&self) -> v1::Conduct {
        v1::Conduct {
            owing_since_ms: self.owing_since.map_or(0, Timestamp::ms),
            bill: self.bill.map(Bill::to_wire),
            strikes: self.strikes,
            defaulted_ms: self.defaulted.map_or(0, Timestamp::ms),
            voided_msat: self.voided.msat(),
            lost_line_msat: self.lost_line.msat(),
        }
    }

    pub(super) fn from_wire(wire: &v1::Conduct) -> Self {
        Self {
            owing_since: time_of(wire.owing_since_ms),
            bill: wire.bill.as_ref().map(Bill::from_wire),
            strikes: wire.strikes,
            defaulted: time_of(wire.defaulted_ms),
            voided: Msat::new(wire.voided_msat),
            lost_line: Msat::new(wire.lost_line_msat),
        }
    }
}

fn time_of(ms: u64) -> Option<Timestamp> {
    (ms > 0).then(|| Timestamp::from_ms(ms))
}

fn to_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
