//! The 12 words and what is derived from them.
//!
//! Words → 64-byte BIP39 seed → coin keys (BIP84) and channel keys (this crate only) and named secrets (BLAKE3, [`Keys::derive`]).

mod seed_file;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};

use bip39::{Language, Mnemonic};
use bitcoin::bip32::{ChildNumber, Xpriv, Xpub};
use bitcoin::secp256k1::{All, Secp256k1, SecretKey};
use zeroize::Zeroizing;

pub use seed_file::{CreateSeedError, OpenSeedError, Sealed, SeedFile};

/// Bytes of randomness behind 12 words (BIP39: 128 bits + 4 bits of checksum).
const ENTROPY_LEN: usize = 16;
const WORD_COUNT: usize = 12;
/// The coin type of all test networks (SLIP-44).
const TEST_COIN: u32 = 1;
/// Room for 12 words of at most 8 letters, so that the phrase is never moved and its old copy left in memory.
const PHRASE_CAPACITY: usize = WORD_COUNT * 9;

/// Twelve BIP39 words, English list; erased from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Words(Mnemonic);

impl Words {
    /// Draws new words from the system's random source.
    ///
    /// # Errors
    ///
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut entropy = Zeroizing::new([0; ENTROPY_LEN]);
        getrandom::fill(entropy.as_mut()).map_err(NoRandomness)?;
        Ok(Self::from_entropy(&entropy))
    }

    /// Reads 12 words, in any letter case, between any white space.
    ///
    /// # Errors
    ///
    /// Says how many words there are, which one isn't in the list (by position, since the word itself is a secret
    /// mistyped), or that the checksum doesn't fit.
    pub fn parse(text: &str) -> Result<Self, WordsError> {
        let have = text.split_whitespace().count();
        if have != WORD_COUNT {
            return Err(WordsError::Count { have });
        }
        let lower = Zeroizing::new(text.to_lowercase());
        Mnemonic::parse_in_normalized(Language::English, &lower).map(Self).map_err(|e| match e {
            bip39::Error::UnknownWord(index) => WordsError::Unknown { position: index + 1 },
            bip39::Error::BadWordCount(have) => WordsError::Count { have },
            bip39::Error::InvalidChecksum
            | bip39::Error::BadEntropyBitCount(_)
            | bip39::Error::AmbiguousLanguages(_) => WordsError::Checksum,
        })
    }

    /// The words in one line, to be shown once and written on paper.
    pub fn phrase(&self) -> Zeroizing<String> {
        let mut phrase = Zeroizing::new(String::with_capacity(PHRASE_CAPACITY));
        // Writing to a String can't fail.
        let _ = write!(phrase, "{}", self.0);
        phrase
    }

    /// The keys of these words (no BIP39 passphrase: what protects the words at rest is the seed file's).
    pub fn keys(&self) -> Keys {
        Keys { seed: Zeroizing::new(self.0.to_seed_normalized("")) }
    }

    fn from_entropy(entropy: &[u8; ENTROPY_LEN]) -> Self {
        // 128 bits is a BIP39 length: the only error the library has for this call is excluded by the type.
        Mnemonic::from_entropy(entropy).map_or_else(|_| unreachable!("128 bits are 12 words"), Self)
    }

    fn entropy(&self) -> Zeroizing<[u8; ENTROPY_LEN]> {
        let (all, _) = self.0.to_entropy_array();
        let all = Zeroizing::new(all);
        let mut entropy = Zeroizing::new([0; ENTROPY_LEN]);
        entropy.iter_mut().zip(all.iter()).for_each(|(to, from)| *to = *from);
        entropy
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Words(…)")
    }
}

/// Everything derived from the words: the 64-byte BIP39 seed, erased from memory when dropped.
pub struct Keys {
    seed: Zeroizing<[u8; 64]>,
}

impl Keys {
    /// A 32-byte secret of its own for each `context` (BLAKE3 `derive_key`), that words alone restore.
    ///
    /// `context` is a constant of the program such as `"pedlar identity v1"`: never user input, never reused.
    pub fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, self.seed.as_slice()))
    }

    /// The BIP32 master key; built for each signature, so that it doesn't stay in memory.
    ///
    /// # Errors
    ///
    /// For one seed in 2^127 (BIP32).
    pub(crate) fn master(&self, network: bitcoin::Network) -> Result<Xpriv, bitcoin::bip32::Error> {
        Xpriv::new_master(network, self.seed.as_slice())
    }

    /// The master fingerprint's key and the public account key `m/84'/1'/0'` (BIP84, coin type 1: test networks).
    ///
    /// # Errors
    ///
    /// As [`Keys::master`].
    pub(crate) fn account(
        &self,
        network: bitcoin::Network,
        secp: &Secp256k1<All>,
    ) -> Result<(bitcoin::bip32::Fingerprint, Xpub), bitcoin::bip32::Error> {
        let master = self.master(network)?;
        let path = [
            ChildNumber::from_hardened_idx(84)?,
            ChildNumber::from_hardened_idx(TEST_COIN)?,
            ChildNumber::from_hardened_idx(0)?,
        ];
        Ok((master.fingerprint(secp), Xpub::from_priv(secp, &master.derive_priv(secp, &path)?)))
    }

    /// The key of a channel, `m/1001'/1'/role'/index'`: a purpose of its own, so that no coin's key is ever one of a
    /// channel. Who asks erases it.
    ///
    /// # Errors
    ///
    /// As [`Keys::master`].
    pub(crate) fn channel_key(
        &self,
        network: bitcoin::Network,
        role: u32,
        index: u32,
        secp: &Secp256k1<All>,
    ) -> Result<SecretKey, bitcoin::bip32::Error> {
        self.secret([1001, TEST_COIN, role, index].map(ChildNumber::from_hardened_idx), network, secp)
    }

    /// The key of one of our coins, `m/84'/1'/0'/keychain/index`. Who asks erases it.
    ///
    /// # Errors
    ///
    /// As [`Keys::master`].
    pub(crate) fn coin_key(
        &self,
        network: bitcoin::Network,
        keychain: u32,
        index: u32,
        secp: &Secp256k1<All>,
    ) -> Result<SecretKey, bitcoin::bip32::Error> {
        let account = [84, TEST_COIN, 0].map(ChildNumber::from_hardened_idx);
        let coin = [keychain, index].map(ChildNumber::from_normal_idx);
        self.secret(account.into_iter().chain(coin), network, secp)
    }

    fn secret(
        &self,
        path: impl IntoIterator<Item = Result<ChildNumber, bitcoin::bip32::Error>>,
        network: bitcoin::Network,
        secp: &Secp256k1<All>,
    ) -> Result<SecretKey, bitcoin::bip32::Error> {
        let path = path.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut master = self.master(network)?;
        let derived = master.derive_priv(secp, &path);
        master.private_key.non_secure_erase();
        derived.map(|derived| derived.private_key)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// Why no words could be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random bytes to give: {0}")]
pub struct NoRandomness(getrandom::Error);

/// What is wrong with words that were typed in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    #[error("expected {WORD_COUNT} words, found {have}")]
    Count { have: usize },
    #[error("word {position} is not in the BIP39 English list: check its spelling")]
    Unknown { position: usize },
    #[error("every word is in the list but they don't fit together: check their order, and for swapped words")]
    Checksum,
}
