//! The keys of a backup, derived from the words.

use std::str::FromStr;

use age::x25519::{Identity, Recipient};
use bech32::{Bech32, Hrp};
use libp2p_identity::ed25519::Keypair;
use pedlar_wallet::Keys;
use zeroize::Zeroizing;

use crate::identity;

/// The context under which the age key is derived; another one would open no backup that was ever made.
const CONTEXT: &str = "pedlar backup v1";

/// How an age key begins as text, the only form in which the library takes one.
const PREFIX: Hrp = Hrp::parse_unchecked("age-secret-key-");

/// What makes backups: it can't open them.
pub(crate) struct Sealer {
    pub(super) recipient: Recipient,
    /// The node's own key: whoever learned the recipient could make a file that opens, and not one that is signed.
    pub(super) key: Keypair,
}

impl Sealer {
    /// The one of these words; there is none only where the identity can't be derived.
    pub(crate) fn of(keys: &Keys) -> Option<Self> {
        let key = identity::keypair(&identity::secret(keys))?;
        Some(Self { recipient: opener(keys)?.to_public(), key })
    }
}

/// What opens the backups of these words.
pub(super) fn opener(keys: &Keys) -> Option<Identity> {
    let secret = keys.derive(CONTEXT);
    let text = bech32::encode_upper::<Bech32>(PREFIX, secret.as_slice()).map(Zeroizing::new).ok()?;
    Identity::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pedlar_wallet::Words;

    #[test]
    fn the_key_of_known_words_stays_what_it_is() {
        let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        let recipient = Sealer::of(&Words::parse(words).unwrap().keys()).unwrap().recipient;
        assert_eq!(recipient.to_string(), "age17tpkc5v3tp364ecd6lx09evftu72ktyrtqcetfcuxt45ycfj33qswv79qg");
    }
}
