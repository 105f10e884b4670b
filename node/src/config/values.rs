//! How single settings are written.

use std::fmt;
use std::str::FromStr;

use pedlar_protocol::money::Msat;
use pedlar_protocol::settlement::DUST_SAT;
use pedlar_wallet::Network;

/// Why `bitcoin` is no network yet; said wherever somebody asks for it.
const NO_MAINNET: &str = "bitcoin is refused until this program verifies block headers itself: until then a single \
     Electrum server could pretend that you were paid; use signet";

/// Reads the name of a network.
pub(super) fn network(text: &str) -> Result<Network, &'static str> {
    match text {
        "signet" => Ok(Network::Signet),
        "regtest" => Ok(Network::Regtest),
        "bitcoin" | "mainnet" => Err(NO_MAINNET),
        _ => Err("there is signet and regtest"),
    }
}

/// Reads a whole number of sat, with or without the unit.
pub(crate) fn sat(text: &str) -> Result<u64, String> {
    let amount: Msat = text.parse().map_err(|e| format!("{e}"))?;
    let sat = amount.floor_sat();
    if Msat::from_sat(sat) == Some(amount) { Ok(sat) } else { Err("only whole sat can be paid on chain".to_owned()) }
}

/// Reads the smallest advance that is taken: at least what the network carries.
pub(super) fn topup(text: &str) -> Result<u64, String> {
    match sat(text)? {
        dust if dust < DUST_SAT => Err(format!("below {DUST_SAT} sat it is dust, a payment that no node passes on")),
        sat => Ok(sat),
    }
}

/// Reads a number of bytes: `65536`, `64KiB`, `16 MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, &'static str> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let number: u64 = number.trim_end().parse().map_err(|_| "write it like 65536, 64KiB or 16MiB")?;
    number.checked_mul(unit).ok_or("more bytes than can be counted")
}

/// What tells one regtest chain from another: 8 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkId(String);

/// A text that is no [`NetworkId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("8 hex digits are expected, such as 0f9188f1")]
pub struct NetworkIdError;

impl FromStr for NetworkId {
    type Err = NetworkIdError;

    fn from_str(text: &str) -> Result<Self, NetworkIdError> {
        let is_id = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { Ok(Self(text.to_ascii_lowercase())) } else { Err(NetworkIdError) }
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
