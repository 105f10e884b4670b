//! The market simulator: real markets over a virtual clock, a chain that is only heights, and whoever comes to trade.
//!
//! | file | holds |
//! |---|---|
//! | `season` | one honest seller and its buyers, hour by hour, for 120 days |
//! | `agents` | those buyers: honest, and bent on taking what they can (MONEY.md 2.4) |
//! | `shopper` | an honest buyer among sellers that cheat it (MONEY.md 2.5) |
//! | `storm` | nodes that trade by messages, while everything that can go wrong does |
//! | `stall` | the seller's rule: ours, which is the real market's word, and three that others have |
//! | `truth` | what really happened, and the bounds (A) and (B) held against it |
//! | `node`, `chain` | a market with its journal and its clock; payments at their heights |
//!
//! **Invariant:** the same seed gives the same trace. It knows `pedlar-protocol` and nothing that waits, so it is built
//! against a `protocol` with a fault in it, too, and must find that.

mod agents;
mod chain;
mod node;
mod season;
mod shopper;
mod stall;
mod storm;
mod truth;

use std::fmt::{Display, Formatter, Result as FmtResult};

use pedlar_protocol::content::{Root, Size};
use pedlar_protocol::credit::{MAX_GRANT, Rules};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::time::Timestamp;

use agents::{Agent, Builder, Dropper, Honest, Random, Relapser, Taker};
use season::Season;
pub use season::{Report, Take};
pub use shopper::{Habit, Kind, Losses, Shopped, shop};
pub use stall::Policy;
pub use storm::{Faults, Sky, Storms, storm};

/// When every run begins.
const START: Timestamp = Timestamp::from_ms(1_800_000_000_000);

/// Dear enough that a window of 64 KiB costs 61 sat: limits are reached with few bytes, and few signatures.
const PRICE: Price = Price::per_gib(1_000_000_000);

/// Where gifts are given: the largest gift buys a MiB, nearly.
const GIFT_PRICE: Price = Price::per_gib(1_000_000);

/// The one object that is sold everywhere.
fn root() -> Root {
    Root::of(b"goods")
}

fn size() -> Size {
    Size::new((64 << 20) + 5).expect("a size")
}

/// A bound that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one: `(A)`, `(B)`, `bound`, `audit`.
    pub part: &'static str,
    /// With the amounts.
    pub what: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "{} is broken: {}", self.part, self.what)
    }
}

/// A hash over all that happened, to tell two runs apart.
#[derive(Debug, Default)]
struct Trace(blake3::Hasher);

impl Trace {
    fn note(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.0.update(&number.to_le_bytes());
        }
    }
}

impl Display for Trace {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "{}", self.0.finalize().to_hex())
    }
}

/// Who comes to the seller beside the honest ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Nobody.
    Honest,
    /// One that never pays.
    Freeloader,
    /// One with 50 new names an hour.
    Whitewasher,
    /// One that is honest for 5 days, and again.
    Build5,
    /// One that is honest for 30 days, and again.
    Build30,
    /// One that pays only what was written off long ago, and is honest again.
    Relapser,
    /// One that never signs for the last window.
    Dropper,
    /// One that does anything.
    Random,
    /// All of them at once.
    All,
    /// The one with new names, where each stranger is given 1 MiB for a sat.
    Gifts,
}

impl Scenario {
    /// All, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Honest,
        Self::Freeloader,
        Self::Whitewasher,
        Self::Build5,
        Self::Build30,
        Self::Relapser,
        Self::Dropper,
        Self::Random,
        Self::All,
        Self::Gifts,
    ];

    /// As it stands in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Honest => "honest buyers only",
            Self::Freeloader => "freeloader",
            Self::Whitewasher => "whitewasher, 50 names/h",
            Self::Build5 => "build 5 days and exit",
            Self::Build30 => "build 30 days and exit",
            Self::Relapser => "relapser",
            Self::Dropper => "tail dropper",
            Self::Random => "random adversary",
            Self::All => "all at once",
            Self::Gifts => "gifts, 5 names/h",
        }
    }

    fn cheats(self, season: &mut Season, names: u64) -> Vec<Box<dyn Agent>> {
        match self {
            Self::Honest => Vec::new(),
            Self::Freeloader => vec![Box::new(Taker::freeloader(season))],
            Self::Whitewasher => vec![Box::new(Taker::whitewasher(names))],
            Self::Build5 => vec![Box::new(Builder::new(season, 5))],
            Self::Build30 => vec![Box::new(Builder::new(season, 30))],
            Self::Relapser => vec![Box::new(Relapser::new(season))],
            Self::Dropper => vec![Box::new(Dropper::new())],
            Self::Random => vec![Box::new(Random::new(season))],
            Self::Gifts => vec![Box::new(Taker::whitewasher(names.div_ceil(10)))],
            Self::All => {
                let each = Self::ALL.into_iter().filter(|scenario| !matches!(scenario, Self::All | Self::Gifts));
                each.flat_map(|scenario| scenario.cheats(season, names)).collect()
            }
        }
    }
}

/// One season of so many days: ten honest buyers, and who comes in this scenario; a whitewasher has `names` an hour.
#[must_use]
pub fn season(seed: u64, policy: Policy, scenario: Scenario, days: u64, names: u64) -> Report {
    let gifts = scenario == Scenario::Gifts;
    let price = if gifts { GIFT_PRICE } else { PRICE };
    let grant = if gifts { MAX_GRANT } else { Msat::ZERO };
    let mut season = Season::new(seed, policy, price, Rules { grant, ..Rules::default() });
    let mut agents: Vec<Box<dyn Agent>> = Vec::new();
    for _ in 0..10 {
        agents.push(Box::new(Honest::new(&mut season, if gifts { 32 } else { 1 })));
    }
    agents.extend(scenario.cheats(&mut season, names));
    season.run(agents, days)
}
