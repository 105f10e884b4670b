//! The chain the wallet lives on, its addresses, and payment links.

use std::fmt;
use std::str::FromStr;

use bitcoin::{Address, Amount};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The highest tip believed: two centuries of blocks. (From 500,000,000 a lock time is a date, and libraries panic.)
pub(crate) const MAX_HEIGHT: u32 = 10_000_000;

/// A bitcoin network. Mainnet is missing until headers are verified: a server alone can't be trusted with money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Regtest,
    Signet,
}

impl Network {
    /// Reads an address and checks that it belongs to this network.
    ///
    /// # Errors
    ///
    /// Not an address at all, or one of another network.
    pub fn parse_address(self, text: &str) -> Result<Address, ParseAddressError> {
        Address::from_str(text)
            .map_err(|_| ParseAddressError::NotAnAddress)?
            .require_network(self.into())
            .map_err(|_| ParseAddressError::OtherNetwork { expected: self })
    }

    /// Whether `address` can be paid on this network.
    pub(crate) fn has(self, address: &Address) -> bool {
        address.as_unchecked().is_valid_for_network(self.into())
    }
}

impl From<Network> for bitcoin::Network {
    fn from(network: Network) -> Self {
        match network {
            Network::Regtest => Self::Regtest,
            Network::Signet => Self::Signet,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regtest => "regtest",
            Self::Signet => "signet",
        })
    }
}

/// Why a text is no address to pay to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    #[error("not a bitcoin address: check for missing or changed letters")]
    NotAnAddress,
    #[error("an address of another network: this wallet is on {expected}")]
    OtherNetwork { expected: Network },
}

/// What BIP21 leaves bare in a value: RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A payment link (BIP21) that any wallet can pay: `bitcoin:ADDRESS?amount=BTC&label=…&message=…`.
pub fn bip21(address: &Address, amount: Option<Amount>, label: Option<&str>, message: Option<&str>) -> String {
    let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let fields = [
        amount.map(|a| format!("amount={}", a.display_in(bitcoin::Denomination::Bitcoin))),
        label.map(|l| format!("label={}", encode(l))),
        message.map(|m| format!("message={}", encode(m))),
    ];
    let query = fields.into_iter().flatten().collect::<Vec<_>>().join("&");
    format!("bitcoin:{address}{}{query}", if query.is_empty() { "" } else { "?" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGTEST: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    #[test]
    fn addresses_keep_to_their_network() {
        assert!(Network::Regtest.parse_address(REGTEST).is_ok());
        let expected = Network::Signet;
        assert_eq!(Network::Signet.parse_address(REGTEST), Err(ParseAddressError::OtherNetwork { expected }));
        assert_eq!(Network::Signet.parse_address("tb1qqq"), Err(ParseAddressError::NotAnAddress));
    }

    #[test]
    fn links_escape_what_people_write() {
        let address = Network::Regtest.parse_address(REGTEST).unwrap();
        assert_eq!(bip21(&address, None, None, None), format!("bitcoin:{REGTEST}"));
        assert_eq!(
            bip21(&address, Some(Amount::from_sat(123)), Some("a&b=c"), Some("Grüße 100%")),
            format!("bitcoin:{REGTEST}?amount=0.00000123&label=a%26b%3Dc&message=Gr%C3%BC%C3%9Fe%20100%25")
        );
    }
}
