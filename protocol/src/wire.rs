//! What every message on the wire shares: the name of the network, the frame round it, the signature under it.
//!
//! **Invariant:** a bound is checked before anything is allocated, and a signature covers the exact bytes carried, never
//! a re-encoding of them.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use libp2p_identity::{PeerId, PublicKey, ed25519};
use pedlar_proto::v1;
use prost::Message;

/// The longest protobuf message in a frame, 16 KiB: the largest, a map of counters, needs less than half.
pub const MAX_CONTROL_LEN: usize = 16 << 10;

/// The most raw bao bytes in a frame: 16 groups of 16 KiB, and 64 hash pairs of 64 bytes, more than the tree above and
/// between 16 groups has at any size of object.
pub const MAX_DATA_LEN: usize = (256 << 10) + 64 * 64;

/// What the payload of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// One protobuf message.
    Control,
    /// Raw bao bytes: hash pairs and groups in the order of the tree.
    Data,
}

impl FrameKind {
    /// The longest payload of this kind, in bytes.
    #[must_use]
    pub const fn max_len(self) -> usize {
        match self {
            Self::Control => MAX_CONTROL_LEN,
            Self::Data => MAX_DATA_LEN,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Data => 1,
        }
    }
}

/// The four bytes before each payload: its kind, then its length in 24 bits, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    kind: FrameKind,
    len: u32,
}

impl FrameHeader {
    /// The length of a header, in bytes.
    pub const LEN: usize = 4;

    /// The header of a payload of `len` bytes.
    ///
    /// # Errors
    /// When the payload is empty or longer than its kind allows.
    pub fn new(kind: FrameKind, len: usize) -> Result<Self, FrameError> {
        let bounded = u32::try_from(len).ok().filter(|_| len <= kind.max_len());
        match bounded {
            None => Err(FrameError::TooLong { len, max: kind.max_len() }),
            Some(0) => Err(FrameError::Empty),
            Some(len) => Ok(Self { kind, len }),
        }
    }

    /// Reads a header; what it returns is safe to allocate.
    ///
    /// # Errors
    /// When the kind is unknown, or the length is zero or above the bound of the kind.
    pub fn parse([kind, high, mid, low]: [u8; Self::LEN]) -> Result<Self, FrameError> {
        let kind = match kind {
            0 => FrameKind::Control,
            1 => FrameKind::Data,
            unknown => return Err(FrameError::UnknownKind(unknown)),
        };
        let len = u32::from_be_bytes([0, high, mid, low]);
        Self::new(kind, usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// The header as it is sent.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let [_, high, mid, low] = self.len.to_be_bytes();
        [self.kind.code(), high, mid, low]
    }

    /// What follows.
    #[must_use]
    pub const fn kind(self) -> FrameKind {
        self.kind
    }

    /// The length of what follows, in bytes: at least 1, at most [`FrameKind::max_len`].
    #[must_use]
    pub fn payload_len(self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }
}

/// Why four bytes begin no frame, or a payload fits none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The top byte names no kind of frame.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// No message is empty, so an empty frame is only work for the receiver.
    #[error("empty frame")]
    Empty,
    /// Above the bound of its kind.
    #[error("frame of {len} bytes, at most {max} are allowed")]
    TooLong {
        /// What was announced, in bytes.
        len: usize,
        /// The bound, in bytes.
        max: usize,
    },
}

/// The name of a network as protocols, topics and signed messages carry it: `signet`, `regtest-0a1b2c3d`.
///
/// 1 to 32 characters of `a-z`, `0-9` and `-`, so that it can stand in a protocol name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(String);

impl Network {
    /// The longest name, in bytes; `regtest-` and 8 hex digits are 16.
    pub const MAX_LEN: usize = 32;

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(name: &str) -> Result<Self, NetworkError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > Self::MAX_LEN || !name.bytes().all(allowed) {
            return Err(NetworkError);
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no name of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is named by 1 to 32 characters of a-z, 0-9 and -")]
pub struct NetworkError;

/// A message and the signature over its exact bytes.
///
/// What is signed is `domain || 0x00 || body`, so that a signature given for one kind of message is worth nothing under
/// another. A domain is a constant of the module that owns the message and has no NUL. The bytes are canonical: a third
/// party can't make a second envelope of the same message that looks new to those who forward it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    body: Bytes,
    signature: [u8; Self::SIGNATURE_LEN],
}

impl Signed {
    /// The length of an ed25519 signature, in bytes.
    const SIGNATURE_LEN: usize = 64;

    /// Signs `body` under `domain`.
    #[must_use]
    pub fn sign(key: &ed25519::Keypair, domain: &'static str, body: Bytes) -> Self {
        let mut signature = [0; Self::SIGNATURE_LEN];
        signature.iter_mut().zip(key.sign(&signed_bytes(domain, &body))).for_each(|(to, from)| *to = from);
        Self { body, signature }
    }

    /// Takes an envelope that travelled inside another message, and believes nothing in it; [`Signed::verify`] comes next.
    ///
    /// # Errors
    /// When the signature has not 64 bytes.
    pub fn from_wire(wire: v1::Signed) -> Result<Self, OpenError> {
        let signature = wire.signature.as_ref().try_into().map_err(|_| OpenError::Malformed)?;
        Ok(Self { body: wire.body, signature })
    }

    /// The envelope as a part of another message.
    #[must_use]
    pub fn to_wire(&self) -> v1::Signed {
        v1::Signed { body: self.body.clone(), signature: Bytes::copy_from_slice(&self.signature) }
    }

    /// Reads an envelope of at most `max_len` bytes and believes nothing in it; [`Signed::verify`] comes next.
    ///
    /// # Errors
    /// When the bytes are too many, no envelope, or not the canonical encoding of one.
    pub fn decode(bytes: &Bytes, max_len: usize) -> Result<Self, OpenError> {
        if bytes.len() > max_len {
            return Err(OpenError::TooLong { len: bytes.len(), max: max_len });
        }
        let message = v1::Signed::decode(bytes.clone()).map_err(|_| OpenError::Malformed)?;
        let signed = Self::from_wire(message)?;
        if signed.encode() != bytes { Err(OpenError::Malformed) } else { Ok(signed) }
    }

    /// The envelope as it is sent.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.to_wire().encode_to_vec().into()
    }

    /// The signed message; a claim until [`Signed::verify`] has passed.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Checks that `signer` signed this body under `domain`.
    ///
    /// # Errors
    /// When the signer's id holds no ed25519 key, or the signature is not his.
    pub fn verify(&self, domain: &'static str, signer: &PeerId) -> Result<(), OpenError> {
        let key = public_key(signer).ok_or(OpenError::NoKey)?;
        let genuine = key.verify(&signed_bytes(domain, &self.body), &self.signature);
        if genuine { Ok(()) } else { Err(OpenError::BadSignature) }
    }
}

/// Opens an envelope whose signer is known beforehand: the body of [`Signed::decode`] after [`Signed::verify`].
///
/// # Errors
/// As those two.
pub fn open(domain: &'static str, signer: &PeerId, bytes: &Bytes, max_len: usize) -> Result<Bytes, OpenError> {
    let signed = Signed::decode(bytes, max_len)?;
    signed.verify(domain, signer)?;
    Ok(signed.body)
}

/// The ed25519 key that a peer id carries inline.
///
/// `None` for ids that are hashes of keys, of another kind of key, or a second spelling of a key: one key is one account.
#[must_use]
pub fn public_key(peer: &PeerId) -> Option<ed25519::PublicKey> {
    const IDENTITY_CODE: u64 = 0;
    let hash = peer.as_ref();
    let inline = (hash.code() == IDENTITY_CODE).then(|| hash.digest())?;
    let key = PublicKey::try_decode_protobuf(inline).ok().filter(|key| key.to_peer_id() == *peer)?;
    key.try_into_ed25519().ok()
}

/// The peer id of an ed25519 key.
#[must_use]
pub fn peer_id(key: &ed25519::Keypair) -> PeerId {
    PublicKey::from(key.public()).to_peer_id()
}

/// Why an envelope is refused; none of these can become valid later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Above the bound of the message.
    #[error("signed message of {len} bytes, at most {max} are allowed")]
    TooLong {
        /// The length, in bytes.
        len: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// The bytes are no envelope, or a second spelling of one.
    #[error("not a signed message")]
    Malformed,
    /// The peer id of the signer holds no ed25519 key.
    #[error("the signer's id holds no ed25519 key")]
    NoKey,
    /// The signature is not the signer's, or is for other bytes or another kind of message.
    #[error("the signature does not match")]
    BadSignature,
}

fn signed_bytes(domain: &'static str, body: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], body].concat()
}

#[cfg(test)]
mod tests;
