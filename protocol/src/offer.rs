//! Offers: the one signed price sheet that each seller gossips.
//!
//! ```text
//! draft Offer ── SignedOffer::sign ──────────────────────────▶ SignedOffer ─▶ gossip
//! gossip ─▶ UnverifiedOffer::parse ── UnverifiedOffer::verify ─▶ SignedOffer ─▶ book
//! ```
//!
//! **Invariant:** a [`SignedOffer`] is valid for ever: its size, encoding, network, signature and inner consistency were
//! checked. Whether it is timely is asked anew each time, of the [book](crate::book).

mod clock;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

pub use clock::{OfferClock, Stamp};

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use libp2p_identity::{PeerId, ed25519};
use multiaddr::{Multiaddr, Protocol};
use pedlar_proto::v1;
use prost::Message;

use crate::content::{Kind, Root, Size};
use crate::money::{Msat, Price};
use crate::text::{Name, NameError};
use crate::time::Timestamp;
use crate::wire::{Network, OpenError, Signed};

/// The longest signed offer, in bytes: 16 titles with long names and 8 addresses fit, and a full book stays small.
pub const MAX_OFFER_LEN: usize = 4 << 10;
/// How long an offer may live: three refreshes, so that two may be lost.
pub const MAX_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
/// How long an offer lives at least: a shorter one would be forgotten before its seller's rate limit.
pub const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// The most addresses of one seller: as many as our provider records keep.
pub const MAX_ADDRESSES: usize = 8;
/// The most listings of one offer: three services are planned, the rest is room for new ones.
pub const MAX_LISTINGS: usize = 8;
/// The most featured titles of one listing.
pub const MAX_TITLES: usize = 16;

const DOMAIN: &str = "pedlar offer v1";

/// What a seller sells, at which prices and terms, until when.
///
/// A draft may hold anything; only what [`SignedOffer`] wraps has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The market that the offer is for.
    pub network: Network,
    /// The seller, who signs.
    pub seller: PeerId,
    /// Grows with each offer of this seller; a newer one replaces an older one.
    pub sequence: u64,
    /// When it was signed.
    pub issued: Timestamp,
    /// When it ends: [`MIN_LIFETIME`] to [`MAX_LIFETIME`] after it was issued.
    pub expires: Timestamp,
    /// Where the seller listens, at most [`MAX_ADDRESSES`]; each may end in `/p2p/<seller>`, never in another peer.
    pub addresses: Vec<Multiaddr>,
    /// How the seller takes money.
    pub rails: BTreeSet<RailKind>,
    /// Credit terms.
    pub terms: Terms,
    /// One listing per service, at most [`MAX_LISTINGS`]; none says that the seller stopped selling.
    pub listings: Vec<Listing>,
}

impl Offer {
    /// The listing of a service, if it is sold.
    #[must_use]
    pub fn listing(&self, service: Service) -> Option<&Listing> {
        self.listings.iter().find(|listing| listing.service == service)
    }

    fn check(&self) -> Result<(), OfferError> {
        let lifetime = self.expires.since(self.issued);
        if !(MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime) {
            return Err(OfferError::Lifetime { lifetime });
        }
        at_most(MAX_ADDRESSES, self.addresses.len(), "addresses")?;
        at_most(MAX_LISTINGS, self.listings.len(), "listings")?;
        if self.addresses.iter().any(|address| is_of_another(address, &self.seller)) {
            return Err(OfferError::ForeignAddress);
        }
        if Msat::from_sat(self.terms.min_topup_sat).is_none() {
            return Err(OfferError::TopUp);
        }
        all_differ(self.listings.iter().map(|listing| listing.service), "service")?;
        self.listings.iter().try_for_each(Listing::check)
    }
}

/// A good that is sold. An offer's listings of services that this version does not know are skipped when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Content-addressed bytes.
    Chunks,
}

impl Service {
    /// Every service, in the order in which they are shown.
    pub const ALL: [Self; 1] = [Self::Chunks];

    /// The name in protocols, on the command line and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chunks => "chunks",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, UnknownService> {
        Self::ALL.into_iter().find(|service| service.as_str() == name).ok_or(UnknownService)
    }
}

/// A text that names no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such service; there is: chunks")]
pub struct UnknownService;

/// A way to pay. Rails that this version does not know are skipped when an offer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RailKind {
    /// A transaction on the network's chain.
    Onchain,
}

/// What a buyer on credit, or one that pays in advance, must know beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// From invoice to due, in seconds.
    pub due_s: u32,
    /// From due to default, in seconds.
    pub default_s: u32,
    /// The smallest advance accepted on chain, in sat.
    pub min_topup_sat: u64,
}

/// One service at its price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What is sold.
    pub service: Service,
    /// The price of roots that have none of their own.
    pub price: Price,
    /// The price of the dearest root, at least `price`; no quote is above it.
    pub ceiling: Price,
    /// What the seller means to send to all buyers together, in bytes per second; 0 when not stated.
    pub capacity_bytes_per_s: u64,
    /// Featured content, at most [`MAX_TITLES`], each root once.
    pub titles: Vec<Title>,
}

impl Listing {
    fn check(&self) -> Result<(), OfferError> {
        if self.ceiling < self.price {
            return Err(OfferError::Ceiling { price: self.price, ceiling: self.ceiling });
        }
        at_most(MAX_TITLES, self.titles.len(), "titles")?;
        all_differ(self.titles.iter().map(|title| title.root), "title")
    }
}

/// Content that the seller features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// What the seller calls it.
    pub name: Name,
    /// Its BLAKE3 root.
    pub root: Root,
    /// Its size, as the seller claims.
    pub size: Size,
    /// A file or a folder.
    pub kind: Kind,
}

/// An offer that was read and looks right, but whose signature is not checked yet.
///
/// It exists because the signature costs more than all other checks: what is late or repeated is dropped before it.
#[derive(Clone, Debug)]
pub struct UnverifiedOffer {
    bytes: Bytes,
    signed: Signed,
    offer: Offer,
}

impl UnverifiedOffer {
    /// Reads a signed offer of `network`.
    ///
    /// # Errors
    /// When the bytes can never be a valid offer of this network, whatever the time is.
    pub fn parse(network: &Network, bytes: &Bytes) -> Result<Self, OfferError> {
        let signed = Signed::decode(bytes, MAX_OFFER_LEN)?;
        let message = v1::Offer::decode(signed.body().clone()).map_err(|_| OfferError::Malformed)?;
        if message.network != network.as_str() {
            return Err(OfferError::Network);
        }
        let offer = wire::offer(network, message)?;
        offer.check()?;
        Ok(Self { bytes: bytes.clone(), signed, offer })
    }

    /// What the offer claims.
    #[must_use]
    pub const fn claims(&self) -> &Offer {
        &self.offer
    }

    /// Checks the signature; from here on the offer is the seller's word.
    ///
    /// # Errors
    /// When the seller named in it did not sign it.
    pub fn verify(self) -> Result<SignedOffer, OfferError> {
        self.signed.verify(DOMAIN, &self.offer.seller)?;
        // A copy: a slice would keep the whole buffer that it was received in.
        Ok(SignedOffer { bytes: Bytes::copy_from_slice(&self.bytes), offer: self.offer })
    }
}

/// A valid offer and the exact bytes that its seller signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedOffer {
    bytes: Bytes,
    offer: Offer,
}

impl SignedOffer {
    /// Signs one's own offer.
    ///
    /// # Errors
    /// When others would reject it: it contradicts itself, breaks a bound, or is not the offer of `key`'s owner.
    pub fn sign(key: &ed25519::Keypair, offer: Offer) -> Result<Self, OfferError> {
        if offer.seller != crate::wire::peer_id(key) {
            return Err(OpenError::BadSignature.into());
        }
        offer.check()?;
        let body = wire::message(&offer).encode_to_vec().into();
        let bytes = Signed::sign(key, DOMAIN, body).encode();
        if bytes.len() > MAX_OFFER_LEN {
            return Err(OpenError::TooLong { len: bytes.len(), max: MAX_OFFER_LEN }.into());
        }
        Ok(Self { bytes, offer })
    }

    /// The bytes to gossip, at most [`MAX_OFFER_LEN`].
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the seller signed.
    #[must_use]
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }
}

/// Why bytes can never be a valid offer; who forwards such bytes did not check them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The envelope, its size or its signature.
    #[error(transparent)]
    Envelope(#[from] OpenError),
    /// The message inside does not decode.
    #[error("not an offer")]
    Malformed,
    /// It is for another market.
    #[error("an offer of another network")]
    Network,
    /// It lives too long, not long enough, or ends before it begins.
    #[error("an offer lives 1 minute to 2 hours, not {} s", lifetime.as_secs())]
    Lifetime {
        /// From issue to expiry.
        lifetime: Duration,
    },
    /// A list is longer than allowed.
    #[error("{len} {what}, at most {max} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// A service or a title stands there twice.
    #[error("the same {what} twice")]
    Twice {
        /// What is doubled.
        what: &'static str,
    },
    /// An address that is no multiaddr.
    #[error("not an address")]
    Address,
    /// An address of another peer: it would send buyers to someone who never asked for them.
    #[error("an address of another peer")]
    ForeignAddress,
    /// The price is above its own ceiling.
    #[error("the price {price} is above the ceiling {ceiling}")]
    Ceiling {
        /// The price.
        price: Price,
        /// The ceiling.
        ceiling: Price,
    },
    /// The smallest top-up is more than all the money there is.
    #[error("the smallest top-up is more than all the money there is")]
    TopUp,
    /// A title's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A title's root is not 32 bytes long, or its size is above all bounds.
    #[error("not content: its root or size is impossible")]
    Content,
}

/// Whether an address ends in a peer that is not `seller`; a relay may stand in the middle.
fn is_of_another(address: &Multiaddr, seller: &PeerId) -> bool {
    matches!(address.iter().last(), Some(Protocol::P2p(peer)) if peer != *seller)
}

const fn at_most(max: usize, len: usize, what: &'static str) -> Result<(), OfferError> {
    if len > max { Err(OfferError::TooMany { what, len, max }) } else { Ok(()) }
}

fn all_differ<T: Ord>(items: impl Iterator<Item = T>, what: &'static str) -> Result<(), OfferError> {
    let mut seen = BTreeSet::new();
    for item in items {
        if !seen.insert(item) {
            return Err(OfferError::Twice { what });
        }
    }
    Ok(())
}
