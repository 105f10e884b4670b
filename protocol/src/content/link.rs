//! Links: what people hand each other to name an object.

use std::fmt;
use std::str::FromStr;

use cid::{Cid, Version};
use multiaddr::{Multiaddr, Protocol};
use multihash::Multihash;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Root, Size};

/// The longest link in bytes: what a QR code, a chat message and an argument of a shell all carry.
pub const MAX_LINK_LEN: usize = 4 * 1024;

/// The most addresses in a link: as many as a provider record holds.
pub const MAX_ADDRS: usize = 8;

/// The longest name in bytes: leaves room for our own endings under the 255 of file systems.
pub const MAX_NAME_LEN: usize = 128;

/// Multicodec of plain bytes: the CID of a file.
const RAW_CODEC: u64 = 0x55;

/// Multicodec of a collection, from the private-use range 0x300000 to 0x3fffff.
const COLLECTION_CODEC: u64 = 0x30_7064;

/// Multihash code of BLAKE3.
const BLAKE3_CODE: u64 = 0x1e;

const SCHEME: &str = "pedlar:";

/// Escaped in values: all but what RFC 3986 lets stand in a query without a meaning of its own.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// What a root is the root of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The bytes of a file.
    File,
    /// The manifest of a folder.
    Collection,
}

impl Kind {
    const fn codec(self) -> u64 {
        match self {
            Self::File => RAW_CODEC,
            Self::Collection => COLLECTION_CODEC,
        }
    }
}

/// A link to a file or a folder, `pedlar:<CIDv1>[?name=…&size=…&addr=…&addr=…]`, values percent-encoded, unknown keys ignored.
///
/// Only the root is certain. The name is a hint and the size a claim of whoever wrote the link; neither is safe to use
/// as a file name or to allocate by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What the link names.
    pub root: Root,
    /// What that is.
    pub kind: Kind,
    /// What it might be called; at most [`MAX_NAME_LEN`] bytes.
    pub name: Option<String>,
    /// How long it is said to be: of a folder, all files together.
    pub size: Option<Size>,
    /// Where it is said to be sold: at most [`MAX_ADDRS`], each ending in `/p2p/<PeerId>`.
    pub addrs: Vec<Multiaddr>,
}

/// What is wrong with a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Longer than [`MAX_LINK_LEN`].
    #[error("a link has at most {MAX_LINK_LEN} bytes, this one {0}")]
    TooLong(usize),
    /// Does not begin with `pedlar:`.
    #[error("a link begins with `{SCHEME}`")]
    Scheme,
    /// What follows the scheme is no CID.
    #[error("`{0}` is not a content id (CIDv1 in base32, such as bafk…)")]
    Cid(String),
    /// The CID uses another hash.
    #[error("the content id uses hash 0x{0:x}; only BLAKE3 (0x1e) with 32 bytes can be verified")]
    Hash(u64),
    /// The CID names another kind of data.
    #[error("the content id has codec 0x{0:x}; a file has 0x55, a folder 0x{COLLECTION_CODEC:x}")]
    Codec(u64),
    /// A part of the query is not `key=value` in percent-encoded UTF-8.
    #[error("`{0}` is not `key=value` in percent-encoded UTF-8")]
    Field(String),
    /// `name` or `size` comes twice.
    #[error("`{0}` comes twice")]
    Twice(&'static str),
    /// The name is empty or too long.
    #[error("a name has 1 to {MAX_NAME_LEN} bytes, this one {0}")]
    Name(usize),
    /// The size is no number, or too large.
    #[error("`{0}` is not a size in bytes of at most 256 TiB")]
    Size(String),
    /// The address is none, or does not say whose it is.
    #[error("`{0}` is not an address that ends in /p2p/<PeerId>")]
    Addr(String),
    /// More than [`MAX_ADDRS`] addresses.
    #[error("a link has at most {MAX_ADDRS} addresses")]
    TooManyAddrs,
}

impl Link {
    /// A link with nothing but the root.
    #[must_use]
    pub const fn new(kind: Kind, root: Root) -> Self {
        Self { root, kind, name: None, size: None, addrs: Vec::new() }
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), LinkError> {
        match key {
            "name" if self.name.is_some() => return Err(LinkError::Twice("name")),
            "name" if value.is_empty() || value.len() > MAX_NAME_LEN => {
                return Err(LinkError::Name(value.len()));
            }
            "name" => self.name = Some(value),
            "size" if self.size.is_some() => return Err(LinkError::Twice("size")),
            "size" => match value.parse().ok().and_then(Size::new) {
                Some(size) => self.size = Some(size),
                None => return Err(LinkError::Size(value)),
            },
            "addr" if self.addrs.len() >= MAX_ADDRS => return Err(LinkError::TooManyAddrs),
            "addr" => self.addrs.push(parse_addr(value)?),
            _ => {}
        }
        Ok(())
    }
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        if text.len() > MAX_LINK_LEN {
            return Err(LinkError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(LinkError::Scheme)?;
        let (cid, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, root) = parse_cid(cid)?;
        let mut link = Self::new(kind, root);
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let wrong = || LinkError::Field(field.to_owned());
            let (key, value) = field.split_once('=').ok_or_else(wrong)?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| wrong())?;
            link.set(key, value.into_owned())?;
        }
        Ok(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = Multihash::wrap(BLAKE3_CODE, self.root.as_bytes()).map_err(|_| fmt::Error)?;
        let cid = Cid::new_v1(self.kind.codec(), hash);
        write!(f, "{SCHEME}{cid}")?;
        let name = self.name.iter().map(|name| ("name", name.clone()));
        let size = self.size.iter().map(|size| ("size", size.bytes().to_string()));
        let addrs = self.addrs.iter().map(|addr| ("addr", addr.to_string()));
        for (nth, (key, value)) in name.chain(size).chain(addrs).enumerate() {
            let joint = if nth == 0 { '?' } else { '&' };
            write!(f, "{joint}{key}={}", utf8_percent_encode(&value, ESCAPED))?;
        }
        Ok(())
    }
}

fn parse_cid(text: &str) -> Result<(Kind, Root), LinkError> {
    let wrong = || LinkError::Cid(text.to_owned());
    let cid = Cid::try_from(text).map_err(|_| wrong())?;
    // Only the canonical spelling, so that one object has one link.
    if cid.version() != Version::V1 || cid.to_string() != text {
        return Err(wrong());
    }
    let kind = match cid.codec() {
        RAW_CODEC => Kind::File,
        COLLECTION_CODEC => Kind::Collection,
        other => return Err(LinkError::Codec(other)),
    };
    let code = cid.hash().code();
    let digest: Result<[u8; 32], _> = cid.hash().digest().try_into();
    match digest {
        Ok(digest) if code == BLAKE3_CODE => Ok((kind, Root::from(digest))),
        Ok(_) | Err(_) => Err(LinkError::Hash(code)),
    }
}

fn parse_addr(text: String) -> Result<Multiaddr, LinkError> {
    match text.parse::<Multiaddr>() {
        Ok(addr) if matches!(addr.iter().last(), Some(Protocol::P2p(_))) => Ok(addr),
        Ok(_) | Err(_) => Err(LinkError::Addr(text)),
    }
}
