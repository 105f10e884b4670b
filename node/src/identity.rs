//! Who this node is: an ed25519 key derived from the words, so that words restore it.

use libp2p_identity::ed25519::{Keypair, SecretKey};
use pedlar_wallet::Keys;
use zeroize::Zeroizing;

/// The context under which the identity is derived; another one would be another node.
const CONTEXT: &str = "pedlar identity v1";

/// The key's seed.
pub(crate) fn secret(keys: &Keys) -> Zeroizing<[u8; 32]> {
    keys.derive(CONTEXT)
}

/// The key of a seed; any 32 bytes are one, so there is nothing only where that changes.
pub(crate) fn keypair(secret: &Zeroizing<[u8; 32]>) -> Option<Keypair> {
    // The library erases the bytes that it is given.
    let mut seed = secret.clone();
    SecretKey::try_from_bytes(seed.as_mut_slice()).ok().map(Keypair::from)
}
