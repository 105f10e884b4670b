//! What this node sells and at which prices; and the offer that says so.

use std::collections::{BTreeMap, BTreeSet};

use multiaddr::Multiaddr;

use crate::content::{Kind, Root, Size, Whole};
use crate::market::Market;
use crate::money::Price;
use crate::offer::{Listing, MAX_TITLES, Offer, OfferError, Service, SignedOffer, Title};
use crate::session::Request;
use crate::settlement::RailKind;
use crate::text::Name;
use crate::time::Timestamp;

/// One published object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goods {
    /// What it is called.
    pub name: Name,
    /// Its length; of a collection, all files together.
    pub size: Size,
    /// Of a collection: all that is sold under its root.
    pub whole: Option<Whole>,
    /// Its own price, where it has one.
    pub price: Option<Price>,
}

/// What is for sale.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shop {
    closed: bool,
    price: Option<Price>,
    capacity_bytes_per_s: u64,
    goods: BTreeMap<Root, Goods>,
}

impl Shop {
    /// Whether the owner has stopped selling: what is published stays, and nothing is sold.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The price of roots without their own.
    #[must_use]
    pub const fn price(&self) -> Option<Price> {
        self.price
    }

    /// The objects that are published.
    pub fn goods(&self) -> impl Iterator<Item = (&Root, &Goods)> {
        self.goods.iter()
    }

    /// What an object costs; nothing where it is not sold.
    #[must_use]
    pub fn price_of(&self, root: &Root) -> Option<Price> {
        let goods = self.goods.get(root).filter(|_| !self.closed)?;
        goods.price.or(self.price)
    }

    /// What is sold under the root of a collection, which a quote for its manifest says.
    pub(super) fn whole_of(&self, request: &Request) -> Option<Whole> {
        match request {
            Request::Chunks(root) => self.goods.get(root)?.whole,
            Request::Entry { .. } => None,
        }
    }

    /// The dearest price of any root; nothing while nothing is sold.
    #[must_use]
    pub fn ceiling(&self) -> Option<Price> {
        if self.closed {
            return None;
        }
        let own = self.goods.values().filter_map(|goods| goods.price).max();
        self.price.max(own)
    }

    fn listing(&self) -> Option<Listing> {
        let ceiling = self.ceiling()?;
        let titles = self.goods.iter().take(MAX_TITLES);
        Some(Listing {
            service: Service::Chunks,
            price: self.price.unwrap_or(ceiling),
            ceiling,
            capacity_bytes_per_s: self.capacity_bytes_per_s,
            titles: titles
                .map(|(root, goods)| Title {
                    name: goods.name.clone(),
                    root: *root,
                    size: goods.size,
                    kind: if goods.whole.is_some() { Kind::Collection } else { Kind::File },
                })
                .collect(),
        })
    }
}

impl Market {
    /// The owner sets the price of roots without their own, where there is one, and sells or stops selling.
    pub fn handle_price(&mut self, now: Timestamp, price: Option<Price>, closed: bool) {
        self.shop.price = price;
        self.shop.closed = closed;
        self.clock.changed(now);
    }

    /// The owner says how much is sent to all buyers together, in bytes a second; 0: not stated.
    pub fn handle_capacity(&mut self, now: Timestamp, bytes_per_s: u64) {
        self.shop.capacity_bytes_per_s = bytes_per_s;
        self.clock.changed(now);
    }

    /// The owner publishes an object, or changes its name or price.
    pub fn handle_published(&mut self, now: Timestamp, root: Root, goods: Goods) {
        self.shop.goods.insert(root, goods);
        self.clock.changed(now);
    }

    /// The owner takes an object out of the shop; whether it was there.
    pub fn handle_unpublished(&mut self, now: Timestamp, root: &Root) -> bool {
        self.clock.changed(now);
        self.shop.goods.remove(root).is_some()
    }

    /// When the next offer is due; nothing while nothing is sold and everybody knows.
    #[must_use]
    pub fn offer_due(&self, now: Timestamp) -> Option<Timestamp> {
        (self.shop.ceiling().is_some() || self.offered.is_some()).then(|| self.clock.due(now))
    }

    /// The dearest price that may be asked now: the shop's, and no more than the live offer says until the next one is out.
    pub(super) fn ceiling(&self) -> Option<Price> {
        let ceiling = self.shop.ceiling()?;
        Some(self.offered.map_or(ceiling, |offered| offered.min(ceiling)))
    }

    /// The offer to be gossiped now, if one is due; `random` is any fresh random number.
    ///
    /// # Errors
    /// [`OfferError`] when addresses or titles make no valid offer.
    pub fn poll_offer(
        &mut self,
        now: Timestamp,
        addresses: &[Multiaddr],
        random: u64,
    ) -> Result<Option<SignedOffer>, OfferError> {
        if self.offer_due(now).is_none_or(|due| due > now) {
            return Ok(None);
        }
        // An offer without a listing takes back the one before it.
        let listing = self.shop.listing();
        self.offered = listing.as_ref().map(|listing| listing.ceiling);
        let stamp = self.clock.stamp(now, random);
        let offer = Offer {
            network: self.network.clone(),
            seller: self.me,
            sequence: stamp.sequence,
            issued: stamp.issued,
            expires: stamp.expires,
            addresses: addresses.iter().take(crate::offer::MAX_ADDRESSES).cloned().collect(),
            rails: BTreeSet::from([RailKind::Onchain]),
            terms: crate::offer::Terms {
                due_s: self.terms.credit.due_s,
                default_s: self.terms.credit.default_s,
                min_topup_sat: self.terms.min_topup_sat,
            },
            listings: listing.into_iter().collect(),
        };
        let signed = SignedOffer::sign(&self.key, offer)?;
        self.offer = Some(signed.clone());
        Ok(Some(signed))
    }
}
