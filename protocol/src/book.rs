//! The book: the offers a node knows, bounded however many are sent.
//!
//! ```text
//! bytes ─▶ screen: parse, timely? newer? in rate? ─▶ signature ─▶ insert: room? ─▶ entry   (cheap checks before dear ones)
//! ```
//!
//! **Invariant:** a seller with history (a *regular*) is never evicted by strangers; strangers have at most
//! [`PLACES_PER_SUBNET`] places per subnet and [`MAX_STRANGERS`] together, and one that must give way is drawn at random
//! from the most crowded subnet, so that a flood mostly evicts itself.

mod rank;
mod subnet;
pub mod sync;
#[cfg(test)]
mod tests;

pub use rank::{Candidate, Ranked, rank};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use libp2p_identity::PeerId;

use crate::offer::{Listing, Offer, OfferError, Service, SignedOffer, UnverifiedOffer};
use crate::rate::{Limit, Rate};
use crate::time::Timestamp;
use crate::wire::Network;
use subnet::Subnet;

/// The most strangers whose offers are kept.
///
/// With the regulars that is at most 20 MiB of signed bytes, and about three times as much with their parsed form.
pub const MAX_STRANGERS: usize = 4_096;
/// The most sellers that can be regulars at a time; it takes a paid delivery to become one.
pub const MAX_REGULARS: usize = 1_024;
/// The most strangers of one IPv4 /24 or IPv6 /48: more than live in one house, fewer than one attacker would like.
pub const PLACES_PER_SUBNET: usize = 16;
/// How far ahead of our clock an offer may be: clocks differ, but not by more.
pub const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

/// Offers of one seller: one a minute, and a few more for a seller that was just set up.
const SELLER_LIMIT: Limit = Limit { every: Duration::from_secs(60), burst: 3 };
/// Evictions of strangers by strangers. Each admits an offer of up to 4 KiB that is then forwarded by every node, so a
/// flood of new identities costs the network at most 32 KiB/s.
const CHURN_LIMIT: Limit = Limit { every: Duration::from_millis(125), burst: 64 };

/// What becomes of an offer that arrived, in gossip's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the book and worth forwarding.
    Accept,
    /// It is not kept and not forwarded, but who sent it did nothing wrong.
    Ignore(Ignored),
    /// It can never be valid: who sent it did not check it.
    Reject(OfferError),
}

/// Why a valid offer is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It has ended.
    #[error("the offer has expired")]
    Expired,
    /// It was issued more than [`MAX_AHEAD`] after our own time.
    #[error("the offer is from the future")]
    Future,
    /// It is this node's own, come back.
    #[error("the offer is our own")]
    Own,
    /// The book has this one or a newer one of the seller.
    #[error("a newer offer of the seller is known")]
    NotNewer,
    /// The seller sends more than one a minute.
    #[error("the seller sends too many offers")]
    TooOften,
    /// All places are taken, and they changed hands often enough just now.
    #[error("the book is crowded")]
    Crowded,
}

/// The offers known of one network, one per seller.
#[derive(Clone, Debug)]
pub struct Book {
    network: Network,
    entries: BTreeMap<PeerId, Entry>,
    strangers: BTreeMap<Subnet, BTreeSet<PeerId>>,
    regulars: BTreeSet<PeerId>,
    churn: Rate,
}

#[derive(Clone, Debug)]
struct Entry {
    signed: SignedOffer,
    rate: Rate,
    place: Place,
}

/// What an entry counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Regular,
    Stranger(Subnet),
}

impl Book {
    /// An empty book of one network.
    #[must_use]
    pub const fn new(network: Network) -> Self {
        Self {
            network,
            entries: BTreeMap::new(),
            strangers: BTreeMap::new(),
            regulars: BTreeSet::new(),
            churn: Rate::FRESH,
        }
    }

    /// Judges bytes that someone sent by all but the signature, which costs more than all the rest.
    ///
    /// Before the signature, so that repeating costs the one who repeats more than us; and apart from it, so that nobody
    /// waits for the book while a signature is checked. Nothing is noted yet: anybody can claim to be any seller.
    ///
    /// # Errors
    /// What becomes of the offer, unless its signature is worth being checked.
    pub fn screen(&self, now: Timestamp, bytes: &Bytes) -> Result<UnverifiedOffer, Verdict> {
        let unverified = UnverifiedOffer::parse(&self.network, bytes).map_err(Verdict::Reject)?;
        self.admissible(now, unverified.claims()).map_err(Verdict::Ignore)?;
        Ok(unverified)
    }

    /// Keeps an offer that was verified; `random` is any fresh random number, it chooses who gives way in a full book.
    ///
    /// # Errors
    /// When it is not timely, not newer, over its seller's rate, or there is no place for it.
    pub fn insert(&mut self, now: Timestamp, signed: SignedOffer, random: u64) -> Result<(), Ignored> {
        let rate = self.admissible(now, signed.offer())?;
        let seller = signed.offer().seller;
        let place = self.place_of(signed.offer());
        let unmoved = self.entries.get(&seller).is_some_and(|entry| entry.place == place);
        if let Place::Stranger(subnet) = place
            && !unmoved
        {
            self.make_room(now, subnet, random)?;
        }
        self.remove(&seller);
        if let Place::Stranger(subnet) = place {
            self.strangers.entry(subnet).or_default().insert(seller);
        }
        self.entries.insert(seller, Entry { signed, rate, place });
        Ok(())
    }

    /// Makes a seller a regular: one that delivered to us, whom strangers can't evict.
    ///
    /// Returns whether it is one now; beyond [`MAX_REGULARS`] nobody becomes one.
    pub fn keep(&mut self, seller: PeerId) -> bool {
        if self.regulars.len() >= MAX_REGULARS {
            return self.regulars.contains(&seller);
        }
        self.regulars.insert(seller);
        if let Some(entry) = self.remove(&seller) {
            self.entries.insert(seller, Entry { place: Place::Regular, ..entry });
        }
        true
    }

    /// Forgets what has ended; due about once a minute.
    pub fn expire(&mut self, now: Timestamp) {
        let ended = |entry: &Entry| entry.signed.offer().expires <= now;
        let sellers: Vec<_> =
            self.entries.iter().filter(|(_, entry)| ended(entry)).map(|(seller, _)| *seller).collect();
        for seller in sellers {
            self.remove(&seller);
        }
    }

    /// The live offer of a seller.
    #[must_use]
    pub fn offer(&self, now: Timestamp, seller: &PeerId) -> Option<&SignedOffer> {
        self.entries.get(seller).map(|entry| &entry.signed).filter(|signed| now < signed.offer().expires)
    }

    /// Every live offer, in the order of the sellers' ids.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &SignedOffer> {
        self.entries.values().map(|entry| &entry.signed).filter(move |signed| now < signed.offer().expires)
    }

    /// The live offers that list a service, each with that listing.
    pub fn offers(&self, now: Timestamp, service: Service) -> impl Iterator<Item = (&Offer, &Listing)> {
        self.live(now).map(SignedOffer::offer).filter_map(move |offer| Some((offer, offer.listing(service)?)))
    }

    /// How many sellers have an entry, ended ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The rate of the seller after this offer, or why the offer is not wanted.
    fn admissible(&self, now: Timestamp, offer: &Offer) -> Result<Rate, Ignored> {
        if offer.expires <= now {
            return Err(Ignored::Expired);
        }
        if offer.issued > now.saturating_add(MAX_AHEAD) {
            return Err(Ignored::Future);
        }
        let held = self.entries.get(&offer.seller);
        if held.is_some_and(|held| held.signed.offer().sequence >= offer.sequence) {
            return Err(Ignored::NotNewer);
        }
        held.map_or(Rate::FRESH, |held| held.rate).spend(now, SELLER_LIMIT).ok_or(Ignored::TooOften)
    }

    fn place_of(&self, offer: &Offer) -> Place {
        match self.regulars.contains(&offer.seller) {
            true => Place::Regular,
            false => Place::Stranger(Subnet::of(&offer.addresses)),
        }
    }

    /// Sees to a free place for one more stranger of `subnet`.
    fn make_room(&mut self, now: Timestamp, subnet: Subnet, random: u64) -> Result<(), Ignored> {
        let neighbours = self.strangers.get(&subnet).map_or(0, BTreeSet::len);
        let subnet_is_full = subnet.is_limited() && neighbours >= PLACES_PER_SUBNET;
        if !subnet_is_full && self.strangers.values().map(BTreeSet::len).sum::<usize>() < MAX_STRANGERS {
            return Ok(());
        }
        self.churn = self.churn.spend(now, CHURN_LIMIT).ok_or(Ignored::Crowded)?;
        let crowd = if subnet_is_full { self.strangers_of(|other, _| other == subnet) } else { self.most_crowded() };
        if let Some(unlucky) = draw(&crowd, random) {
            self.remove(unlucky);
        }
        Ok(())
    }

    /// The strangers of the most crowded subnet, of all of them where several are.
    fn most_crowded(&self) -> Vec<PeerId> {
        let most = self.strangers.values().map(BTreeSet::len).max().unwrap_or_default();
        self.strangers_of(|_, sellers| sellers == most)
    }

    /// The strangers of the subnets that `chosen` picks by name and number of sellers.
    fn strangers_of(&self, chosen: impl Fn(Subnet, usize) -> bool) -> Vec<PeerId> {
        let picked = self.strangers.iter().filter(|(subnet, sellers)| chosen(**subnet, sellers.len()));
        picked.flat_map(|(_, sellers)| sellers).copied().collect()
    }

    fn remove(&mut self, seller: &PeerId) -> Option<Entry> {
        let entry = self.entries.remove(seller)?;
        if let Place::Stranger(subnet) = entry.place
            && let Some(sellers) = self.strangers.get_mut(&subnet)
        {
            sellers.remove(seller);
            if sellers.is_empty() {
                self.strangers.remove(&subnet);
            }
        }
        Some(entry)
    }
}

fn draw(crowd: &[PeerId], random: u64) -> Option<&PeerId> {
    let lot = random.checked_rem(u64::try_from(crowd.len()).ok()?)?;
    crowd.get(usize::try_from(lot).ok()?)
}
