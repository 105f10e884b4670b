//! Offers between their protobuf form and their domain form. What stands alone is checked here, what belongs together
//! in `Offer::check`.

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use pedlar_proto::v1;

use super::{Listing, Offer, OfferError, RailKind, Service, Terms, Title};
use crate::content::{Kind, Size};
use crate::money::Price;
use crate::text::Name;
use crate::time::Timestamp;
use crate::wire::Network;

/// The domain form of a message of `network`.
///
/// # Errors
/// When a part of it is nothing that any version could mean. Services and rails of later versions are left out.
pub(super) fn offer(network: &Network, message: v1::Offer) -> Result<Offer, OfferError> {
    let terms = message.terms.unwrap_or_default();
    Ok(Offer {
        network: network.clone(),
        seller: PeerId::from_bytes(&message.seller).map_err(|_| OfferError::Malformed)?,
        sequence: message.sequence,
        issued: Timestamp::from_ms(message.issued_ms),
        expires: Timestamp::from_ms(message.expires_ms),
        addresses: message.addresses.into_iter().map(address).collect::<Result<_, _>>()?,
        rails: message.rails.into_iter().filter_map(rail).collect(),
        terms: Terms { due_s: terms.due_s, default_s: terms.default_s, min_topup_sat: terms.min_topup_sat },
        listings: message.listings.into_iter().filter_map(listing).collect::<Result<_, _>>()?,
    })
}

/// The protobuf form of an offer.
pub(super) fn message(offer: &Offer) -> v1::Offer {
    v1::Offer {
        network: offer.network.to_string(),
        seller: offer.seller.to_bytes().into(),
        sequence: offer.sequence,
        issued_ms: offer.issued.ms(),
        expires_ms: offer.expires.ms(),
        addresses: offer.addresses.iter().map(|address| address.to_vec().into()).collect(),
        rails: offer.rails.iter().copied().map(rail_code).map(i32::from).collect(),
        terms: Some(v1::Terms {
            due_s: offer.terms.due_s,
            default_s: offer.terms.default_s,
            min_topup_sat: offer.terms.min_topup_sat,
        }),
        listings: offer.listings.iter().map(listing_message).collect(),
    }
}

fn address(bytes: Bytes) -> Result<Multiaddr, OfferError> {
    Multiaddr::try_from(Vec::from(bytes)).map_err(|_| OfferError::Address)
}

fn rail(code: i32) -> Option<RailKind> {
    match v1::Rail::try_from(code).ok()? {
        v1::Rail::Unspecified => None,
        v1::Rail::Onchain => Some(RailKind::Onchain),
    }
}

const fn rail_code(rail: RailKind) -> v1::Rail {
    match rail {
        RailKind::Onchain => v1::Rail::Onchain,
    }
}

impl Service {
    /// The service of a code on the wire; nothing for one that this version does not know.
    #[must_use]
    pub(crate) fn from_code(code: i32) -> Option<Self> {
        match v1::Service::try_from(code).ok()? {
            v1::Service::Unspecified => None,
            v1::Service::Chunks => Some(Self::Chunks),
        }
    }

    /// Its code on the wire.
    #[must_use]
    pub(crate) fn code(self) -> i32 {
        let code = match self {
            Self::Chunks => v1::Service::Chunks,
        };
        code.into()
    }
}

fn listing(message: v1::Listing) -> Option<Result<Listing, OfferError>> {
    let service = Service::from_code(message.service)?;
    let titles = message.titles.into_iter().map(title).collect::<Result<_, _>>();
    Some(titles.map(|titles| Listing {
        service,
        price: Price::per_gib(message.price_msat_per_gib),
        ceiling: Price::per_gib(message.ceiling_msat_per_gib),
        capacity_bytes_per_s: message.capacity_bytes_per_s,
        titles,
    }))
}

fn listing_message(listing: &Listing) -> v1::Listing {
    v1::Listing {
        service: listing.service.code(),
        price_msat_per_gib: listing.price.msat_per_gib(),
        ceiling_msat_per_gib: listing.ceiling.msat_per_gib(),
        capacity_bytes_per_s: listing.capacity_bytes_per_s,
        titles: listing.titles.iter().map(title_message).collect(),
    }
}

fn title(message: v1::Title) -> Result<Title, OfferError> {
    let root = <[u8; 32]>::try_from(message.root.as_ref()).map_err(|_| OfferError::Content)?;
    let size = Size::new(message.size).ok_or(OfferError::Content)?;
    let kind = if message.collection { Kind::Collection } else { Kind::File };
    Ok(Title { name: Name::new(message.name)?, root: root.into(), size, kind })
}

fn title_message(title: &Title) -> v1::Title {
    v1::Title {
        name: title.name.as_str().to_owned(),
        root: Bytes::copy_from_slice(title.root.as_bytes()),
        size: title.size.bytes(),
        collection: title.kind == Kind::Collection,
    }
}
