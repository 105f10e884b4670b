//! Amounts of money and prices of bytes.
//!
//! **Invariant:** money has no arithmetic operators. Every sum is checked, so an overflow is a value that the caller
//! must look at and never a wrapped balance.

use std::fmt;
use std::str::FromStr;

const MSAT_PER_SAT: u64 = 1_000;
const BYTES_PER_GIB: u128 = 1 << 30;
const PER_GIB: &str = "/GiB";

/// An amount in thousandths of a satoshi, the unit of every balance, charge and counter.
///
/// All bitcoin there will ever be is 2.1 × 10^18 msat, which fits a `u64` and the signed integers of SQLite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msat(u64);

impl Msat {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount that can be written; far above all bitcoin there will ever be.
    pub const MAX: Self = Self(u64::MAX);

    /// An amount of `msat` thousandths of a satoshi.
    #[must_use]
    pub const fn new(msat: u64) -> Self {
        Self(msat)
    }

    /// An amount of whole satoshis, `None` when it does not fit.
    #[must_use]
    pub fn from_sat(sat: u64) -> Option<Self> {
        sat.checked_mul(MSAT_PER_SAT).map(Self)
    }

    /// The number of msat.
    #[must_use]
    pub const fn msat(self) -> u64 {
        self.0
    }

    /// Whole satoshis, rounded down: what may be given away.
    #[must_use]
    pub const fn floor_sat(self) -> u64 {
        self.0 / MSAT_PER_SAT
    }

    /// Whole satoshis, rounded up: what must be asked for so that the amount is covered.
    #[must_use]
    pub const fn ceil_sat(self) -> u64 {
        self.0.div_ceil(MSAT_PER_SAT)
    }

    /// The sum, `None` when it does not fit.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The sum, at most [`Msat::MAX`]: for views, where more than all bitcoin is as good as infinite.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, `None` when `other` is more.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The difference, zero when `other` is more: what is missing, what is left.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Prints sat, with the fraction only where there is one, and msat below one satoshi; [`Msat::from_str`] reads it back.
impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / MSAT_PER_SAT, self.0 % MSAT_PER_SAT) {
            (sat, 0) => write!(f, "{sat} sat"),
            (0, msat) => write!(f, "{msat} msat"),
            (sat, msat) => write!(f, "{sat}.{msat:03} sat"),
        }
    }
}

/// Reads `50000sat`, `12msat`, `1.5sat` or a bare number, which means sat.
impl FromStr for Msat {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        match text.strip_suffix("msat") {
            Some(number) => whole(number.trim_end()).map(Self),
            None => sat_with_fraction(text.strip_suffix("sat").unwrap_or(text).trim_end()),
        }
    }
}

/// A price of bytes in msat per GiB (2^30 bytes), the unit of chunks and bandwidth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(u64);

impl Price {
    /// For nothing.
    pub const FREE: Self = Self(0);

    /// A price of `msat` per GiB.
    #[must_use]
    pub const fn per_gib(msat: u64) -> Self {
        Self(msat)
    }

    /// The price in msat per GiB.
    #[must_use]
    pub const fn msat_per_gib(self) -> u64 {
        self.0
    }

    /// What `bytes` cost: `ceil(bytes × price / 2^30)`, `None` when that does not fit.
    ///
    /// `bytes` is the cumulative count under one quote. A 16 KiB group costs 0.15 msat at 10 sat per GiB, so charging
    /// group by group would round a bill up more than sixfold.
    #[must_use]
    pub fn charge(self, bytes: u64) -> Option<Msat> {
        let product = u128::from(bytes).checked_mul(u128::from(self.0))?;
        u64::try_from(product.div_ceil(BYTES_PER_GIB)).ok().map(Msat)
    }

    /// The most bytes whose charge is no more than `amount`: the inverse of [`Price::charge`], without end when free.
    #[must_use]
    pub fn affordable(self, amount: Msat) -> u64 {
        let product = u128::from(amount.0).saturating_mul(BYTES_PER_GIB);
        let bytes = product.checked_div(u128::from(self.0));
        bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX)
    }
}

/// Prints the amount and its unit; [`Price::from_str`] reads it back.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{PER_GIB}", Msat(self.0))
    }
}

/// Reads `7777sat/GiB`, `12msat/GiB` or a bare number, which means sat per GiB.
impl FromStr for Price {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let amount = match text.strip_suffix(PER_GIB) {
            Some(amount) => amount,
            None if text.ends_with("sat") => return Err(AmountError::PerWhat),
            None => text,
        };
        amount.parse().map(|Msat(msat)| Self(msat))
    }
}

/// Why a text is no amount and no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The number is missing, signed, or not made of digits.
    #[error("not an amount: write it like 50000sat or 12msat")]
    NotANumber,
    /// More than three places after the point.
    #[error("an amount is counted in thousandths of a satoshi: at most three places after the point")]
    TooFine,
    /// More than fits.
    #[error("more than all the money there is")]
    TooLarge,
    /// A price without its unit of bytes.
    #[error("a price needs its unit: write it like 7777sat/GiB")]
    PerWhat,
}

fn sat_with_fraction(number: &str) -> Result<Msat, AmountError> {
    let (sat, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(fraction.len()).map_err(|_| AmountError::TooFine)?;
    let scale = 3_u32.checked_sub(digits).ok_or(AmountError::TooFine)?;
    let fraction = whole(fraction)?.saturating_mul(10_u64.saturating_pow(scale));
    Msat::from_sat(whole(sat)?).and_then(|sat| sat.checked_add(Msat(fraction))).ok_or(AmountError::TooLarge)
}

/// Digits only: `u64::from_str` would take a leading `+`.
fn whole(digits: &str) -> Result<u64, AmountError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AmountError::NotANumber);
    }
    digits.parse().map_err(|_| AmountError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        assert_eq!("50000sat".parse(), Ok(Msat(50_000_000)));
        assert_eq!("12msat".parse(), Ok(Msat(12)));
        assert_eq!("7".parse(), Ok(Msat(7_000)));
        assert_eq!("1.5 sat".parse(), Ok(Msat(1_500)));
        assert_eq!("1.2345sat".parse::<Msat>(), Err(AmountError::TooFine));
        assert_eq!("18446744073709552sat".parse::<Msat>(), Err(AmountError::TooLarge));
        for bad in ["", "sat", "+1", "-1", "1e3", "1.", ".5", "1,5", "0.5msat", " 1", "1.-1"] {
            assert_eq!(bad.parse::<Msat>(), Err(AmountError::NotANumber), "{bad:?}");
        }
    }

    #[test]
    fn prices_are_read_with_their_units() {
        assert_eq!("7777sat/GiB".parse(), Ok(Price(7_777_000)));
        assert_eq!("12msat/GiB".parse(), Ok(Price(12)));
        assert_eq!("10".parse(), Ok(Price(10_000)));
        assert_eq!("10sat".parse::<Price>(), Err(AmountError::PerWhat));
        assert_eq!("10sat/MiB".parse::<Price>(), Err(AmountError::NotANumber));
    }

    #[test]
    fn amounts_print_their_unit() {
        let shown = [0, 345, 1_000, 12_345, 1_005].map(|msat| Msat(msat).to_string());
        assert_eq!(shown, ["0 sat", "345 msat", "1 sat", "12.345 sat", "1.005 sat"]);
        assert_eq!(Price(7_777_000).to_string(), "7777 sat/GiB");
    }

    #[test]
    fn a_charge_is_rounded_up_once() {
        let price = Price(10_000);
        assert_eq!(price.charge(0), Some(Msat::ZERO));
        assert_eq!(price.charge(1), Some(Msat(1)));
        assert_eq!(price.charge(1 << 20), Some(Msat(10)));
        assert_eq!(price.charge(1 << 30), Some(Msat(10_000)));
        assert_eq!(Price(u64::MAX).charge(u64::MAX), None);
        assert_eq!(Price::FREE.charge(u64::MAX), Some(Msat::ZERO));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(msat: u64) {
            prop_assert_eq!(Msat(msat).to_string().parse(), Ok(Msat(msat)));
            prop_assert_eq!(Price(msat).to_string().parse(), Ok(Price(msat)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (text.parse::<Msat>(), text.parse::<Price>());
        }

        #[test]
        fn satoshis_enclose_the_amount(msat in 0..u64::MAX - MSAT_PER_SAT) {
            let amount = Msat(msat);
            let floor = Msat::from_sat(amount.floor_sat()).unwrap();
            let ceil = Msat::from_sat(amount.ceil_sat()).unwrap();
            prop_assert!(floor <= amount && amount <= ceil && ceil.saturating_sub(floor) <= Msat(MSAT_PER_SAT));
        }

        #[test]
        fn one_byte_more_than_is_affordable_costs_more(amount in 0_u64..1 << 50, price in 1_u64..1 << 40) {
            let bytes = Price(price).affordable(Msat(amount));
            prop_assert!(Price(price).charge(bytes).unwrap() <= Msat(amount));
            prop_assert!(bytes == u64::MAX || Price(price).charge(bytes + 1).is_none_or(|charge| charge > Msat(amount)));
        }

        #[test]
        fn a_charge_grows_with_bytes_and_price(bytes in 0_u64..1 << 50, more in 0_u64..1 << 50, price in 0_u64..1 << 40) {
            let charge = |price, bytes| Price(price).charge(bytes).unwrap();
            prop_assert!(charge(price, bytes) <= charge(price, bytes + more));
            prop_assert!(charge(price, bytes) <= charge(price + 1, bytes));
        }

        /// However a delivery is cut into windows, the steps of the cumulative charge add up to the charge of the whole.
        #[test]
        fn windows_change_no_total(windows in prop::collection::vec(0_u64..1 << 30, 0..50), price in 0_u64..1 << 40) {
            let (mut bytes, mut total) = (0, Msat::ZERO);
            for window in windows {
                let before = Price(price).charge(bytes).unwrap();
                bytes += window;
                let step = Price(price).charge(bytes).unwrap().checked_sub(before).unwrap();
                total = total.checked_add(step).unwrap();
            }
            prop_assert_eq!(Some(total), Price(price).charge(bytes));
        }
    }
}
