//! Chance that can be had again: each story that uses it prints the seed, and `PEDLAR_SEED` gives it back.

/// A sequence of numbers that follows from its seed (splitmix64).
#[derive(Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// New dice, or those of `PEDLAR_SEED`.
    ///
    /// # Panics
    /// When `PEDLAR_SEED` is no number, or the system has no randomness.
    pub fn new() -> Self {
        Self::of(seed())
    }

    /// The dice of this seed.
    pub const fn of(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Dice for somebody else, that follow from these.
    pub fn split(&mut self) -> Self {
        Self { state: self.below(u64::MAX) }
    }

    /// A number below `end`, which is not 0; the same chance for each, nearly.
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// So many bytes without order.
    pub fn garbage(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// A new seed, or `PEDLAR_SEED`; it is printed.
///
/// # Panics
/// When `PEDLAR_SEED` is no number, or the system has no randomness.
pub fn seed() -> u64 {
    let given = std::env::var("PEDLAR_SEED").ok();
    let seed = given.map(|seed| seed.parse().expect("PEDLAR_SEED is a number"));
    let seed = seed.unwrap_or_else(|| getrandom::u64().expect("randomness"));
    println!("PEDLAR_SEED={seed}");
    seed
}

/// How long a long run is: as said, or `PEDLAR_ROUNDS`.
///
/// # Panics
/// When `PEDLAR_ROUNDS` is no number.
pub fn rounds(usual: u64) -> u64 {
    let given = std::env::var("PEDLAR_ROUNDS").ok();
    given.map_or(usual, |rounds| rounds.parse().expect("PEDLAR_ROUNDS is a number"))
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
