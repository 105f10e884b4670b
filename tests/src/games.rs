//! Games in the pure core: one side plays by the rules of the market, the other as its dice say.
//!
//! ```text
//! seed ─▶ who cheats, the market, a strategy (how often which move) ─▶ moves ─▶ what the honest side lost
//! ```
//!
//! A game keeps books of its own, from the bytes that passed and the coins that moved alone, and holds the market's beside
//! them after each move. The same seed gives the same moves and the same end.
//!
//! **Invariant:** whatever the strategy, the honest side loses no more than it chose to leave with the other one.

mod buyers;
mod sellers;

use libp2p_identity::ed25519::{Keypair, SecretKey};
use pedlar_protocol::market::{Books, Market, audit_ledgers};
use pedlar_protocol::money::Price;
use pedlar_protocol::time::Timestamp;

use crate::dice::Dice;

/// When every game begins.
const START: Timestamp = Timestamp::from_ms(1_800_000_000_000);

/// The most moves of a game.
const MOVES: u64 = 40;

/// Prices of the games: from a msat for a few groups to a thousand sat for one.
const PRICES: [Price; 4] =
    [Price::per_gib(1_234_567), Price::per_gib(100_000_000), Price::per_gib(1_000_000_000), Price::per_gib(1 << 36)];

/// What a game came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// Every move with its outcome, as it is printed.
    pub trace: Vec<String>,
    /// Moves that no honest peer makes.
    pub cheats: u64,
    /// What the honest side lost at the worst moment, in msat.
    pub lost_msat: u64,
}

/// Plays the game of this seed: every second one has a cheating seller, the others cheating buyers.
///
/// # Panics
/// When the honest side loses more than it may, or its books are wrong.
pub fn play(seed: u64) -> Played {
    let dice = Dice::of(seed);
    if seed.is_multiple_of(2) { buyers::play(seed, dice) } else { sellers::play(seed, dice) }
}

/// How a game is kept: its dice, and what was done so far.
struct Table {
    seed: u64,
    dice: Dice,
    played: Played,
}

impl Table {
    fn new(seed: u64, dice: Dice) -> Self {
        Self { seed, dice, played: Played { trace: Vec::new(), cheats: 0, lost_msat: 0 } }
    }

    fn note(&mut self, what: String) {
        self.played.trace.push(what);
    }

    fn cheat(&mut self, what: String) {
        self.played.cheats += 1;
        self.note(what);
    }

    /// Ends the game where something does not hold.
    fn hold(&self, holds: bool, what: impl FnOnce() -> String) {
        assert!(holds, "game {}: {} after {:#?}", self.seed, what(), self.played.trace);
    }

    /// What holds for every node's books holds for the honest side's.
    fn audit(&self, market: &Market) {
        let findings = audit_ledgers(&[Books { market, wallet: None }]);
        self.hold(findings.is_empty(), || format!("{findings:?}"));
    }

    /// How often each move is made: more or less often than usual, and every fourth not at all.
    fn strategy<const N: usize>(&mut self, usual: [u64; N]) -> [u64; N] {
        usual.map(|weight| weight * self.dice.below(4))
    }

    /// One of these moves, as often as its weight says.
    fn pick<const N: usize>(&mut self, weights: &[u64; N]) -> usize {
        let sum: u64 = weights.iter().sum();
        let mut left = self.dice.below(sum.max(1));
        for (place, weight) in weights.iter().enumerate() {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return place,
            }
        }
        N - 1
    }
}

/// The key of the n-th player; making one takes longer than most moves.
fn key(n: u8) -> Keypair {
    SecretKey::try_from_bytes([n + 1; 32]).expect("32 bytes are a key").into()
}

/// Takes what is staged as stored, as the journal would.
fn store(market: &mut Market) {
    market.handle_stored(market.staged_in_all());
}
