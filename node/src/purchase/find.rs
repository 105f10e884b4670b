//! Who has an object, and what it costs there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter, Result as FmtResult};
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use libp2p_identity::PeerId;
use pedlar_net::{Multiaddr, NetHandle, OpenError};
use pedlar_protocol::account::Direction;
use pedlar_protocol::content::{EntryPath, Link, Whole};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::session::Request;
use tokio::time::{Instant, timeout_at};

use crate::accounts;
use crate::driver::{Driver, now};
use crate::purchase::payment::Denied;
use crate::purchase::{Buyer, OrderError};
use crate::session::{BuyFailure, Offered};

/// Sellers asked for: more quotes cost time and change the price little.
const MAX_SELLERS: usize = 20;

/// How long the slowest may take to quote, less than a seller keeps a quote open for one who does not buy yet.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the others still have once one has quoted: a seller that is gone must not hold up those that are there.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// The same in times of what that one took, so that all have their turn over a slow line.
const SLOWER: u32 = 4;

/// A seller with its quote, and an open stream to buy over.
pub(crate) struct Found {
    pub(crate) seller: PeerId,
    pub(crate) addrs: Vec<Multiaddr>,
    pub(crate) offered: Offered,
    /// All that it says to sell under the root.
    pub(crate) whole: Whole,
    /// What could be bought there now without paying.
    pub(crate) available: Msat,
    /// What it holds for bytes that it says to have sent.
    pub(crate) held: Msat,
    /// The smallest advance it takes, in sat.
    pub(crate) min_topup_sat: u64,
    /// What it has served us since it last failed.
    pub(crate) served: Msat,
}

/// Why a seller is none.
#[derive(Debug)]
pub(crate) struct SellerFailure {
    pub(crate) seller: PeerId,
    /// The file of a folder that it concerns.
    pub(crate) entry: Option<EntryPath>,
    pub(crate) why: Why,
}

/// What went wrong with it.
#[derive(Debug)]
pub(crate) enum Why {
    /// It could not be reached.
    Unreachable(OpenError),
    /// It was reached.
    Buying(BuyFailure),
    /// It does not count what it was paid.
    Denies(Denied),
}

impl SellerFailure {
    pub(crate) const fn buying(seller: PeerId, failure: BuyFailure) -> Self {
        Self { seller, entry: None, why: Why::Buying(failure) }
    }

    /// Whether it did what no honest seller does, so that it is trusted with no more than a stranger is.
    pub(super) const fn is_fault(&self) -> bool {
        match &self.why {
            Why::Denies(_) => true,
            Why::Unreachable(_) => false,
            Why::Buying(failure) => failure.is_fault(),
        }
    }

    /// What went wrong, and with what.
    pub(crate) fn reason(&self) -> String {
        match &self.entry {
            Some(entry) => format!("{entry}: {}", self.why),
            None => self.why.to_string(),
        }
    }
}

impl Display for SellerFailure {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "{}: {}", self.seller, self.reason())
    }
}

impl Display for Why {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Buying(failure) => failure.fmt(f),
            Self::Denies(denied) => denied.fmt(f),
        }
    }
}

impl Buyer {
    /// Everybody who has the object and quotes a price; the sellers that don't are told where none does.
    pub(super) async fn find(&self, link: &Link) -> Result<Vec<Found>, OrderError> {
        let (sellers, searched) = self.sellers(link).await;
        if sellers.is_empty() {
            return Err(OrderError::NotFound(searched));
        }
        let sellers = self.in_order(sellers, link);
        let mut silent: BTreeSet<PeerId> = sellers.iter().map(|(seller, _)| *seller).collect();
        let asked = stream::iter(sellers).map(|(seller, addrs)| self.ask(link, seller, addrs));
        let mut answers = pin!(asked.buffer_unordered(MAX_SELLERS));
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        let mut deadline = begun + PATIENCE;
        while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
            silent.remove(match &answer {
                Ok(one) => &one.seller,
                Err(failure) => &failure.seller,
            });
            match answer {
                Ok(one) => {
                    deadline = deadline.min(Instant::now() + STRAGGLERS.max(begun.elapsed() * SLOWER));
                    found.push(one);
                }
                Err(failure) => failures.push(failure),
            }
        }
        let timeout = |seller| SellerFailure { seller, entry: None, why: Why::Unreachable(OpenError::Timeout) };
        failures.extend(silent.into_iter().map(timeout));
        if !found.is_empty() {
            return Ok(found);
        }
        let unreachable = failures.iter().all(|failure| matches!(failure.why, Why::Unreachable(_)));
        Err(if unreachable { OrderError::Unreachable(failures) } else { OrderError::NoSeller(failures) })
    }

    /// Those to ask: first whom the link names, then who served us before, then the others in an order of chance. In an
    /// order that could be known, made up identities would take all places.
    fn in_order(&self, sellers: BTreeMap<PeerId, Vec<Multiaddr>>, link: &Link) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let linked: BTreeSet<PeerId> = link.addrs.iter().filter_map(peer_of).collect();
        let served = |seller: &PeerId| self.driver.read(|market| market.account(seller, Direction::Bought).is_some());
        let chance = RandomState::new();
        let mut sellers: Vec<_> = sellers.into_iter().collect();
        sellers.sort_by_cached_key(|(seller, _)| (!linked.contains(seller), !served(seller), chance.hash_one(seller)));
        sellers.truncate(MAX_SELLERS);
        sellers
    }

    /// Who may have it, with addresses; and what was searched, for people.
    async fn sellers(&self, link: &Link) -> (BTreeMap<PeerId, Vec<Multiaddr>>, String) {
        let me = self.driver.read(|market| market.me());
        let mut sellers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        for addr in &link.addrs {
            if let Some(peer) = peer_of(addr) {
                sellers.entry(peer).or_default().push(addr.clone());
            }
        }
        let looked_up = self.net.providers(*link.root.as_bytes(), MAX_SELLERS).await;
        let kademlia = match &looked_up {
            Ok(providers) => format!("Kademlia ({} providers)", providers.len()),
            Err(error) => format!("Kademlia ({error})"),
        };
        for provider in looked_up.unwrap_or_default() {
            sellers.entry(provider.peer).or_default().extend(provider.addrs);
        }
        let near = self.driver.network() == pedlar_wallet::Network::Regtest;
        let known = self.driver.read(|market| {
            let live = market.book().live(now());
            live.map(|signed| {
                let offer = signed.offer();
                let titles = offer.listings.iter().flat_map(|listing| &listing.titles);
                let has_it = titles.into_iter().any(|title| title.root == link.root);
                has_it.then(|| (offer.seller, pedlar_net::of_stranger(offer.addresses.iter().cloned(), near)))
            })
            .collect::<Vec<_>>()
        });
        let offers = known.len();
        for (seller, addrs) in known.into_iter().flatten() {
            sellers.entry(seller).or_default().extend(addrs);
        }
        sellers.remove(&me);
        (sellers, format!("{kademlia}, {offers} offers, {} addresses in the link", link.addrs.len()))
    }

    async fn ask(&self, link: &Link, seller: PeerId, addrs: Vec<Multiaddr>) -> Result<Found, SellerFailure> {
        let offered = ask(&self.driver, &self.net, seller, addrs.clone(), Request::Chunks(link.root)).await;
        let offered = match offered {
            Ok(offered) => offered.of_kind(link.kind).await,
            Err(failure) => Err(failure),
        };
        let offered = offered.map_err(|failure| match failure {
            BuyFailure::Open(error) => SellerFailure { seller, entry: None, why: Why::Unreachable(error) },
            failure => SellerFailure::buying(seller, failure),
        })?;
        let served = self.driver.read(|market| market.served_well(&seller));
        let (available, held, min_topup_sat) = match offered.quote.quote().price {
            Price::FREE => (Msat::ZERO, Msat::ZERO, 0),
            _ => match accounts::sync(&self.driver, &self.net, seller, addrs.clone()).await {
                Ok(view) => (view.available, view.held, view.min_topup_sat),
                Err(error) => {
                    tracing::debug!(%seller, %error, "a seller quotes and does not tell how its books stand");
                    (Msat::ZERO, Msat::ZERO, 0)
                }
            },
        };
        let whole = offered.whole(link.kind);
        Ok(Found { seller, addrs, offered, whole, available, held, min_topup_sat, served })
    }
}

fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last() {
        Some(multiaddr::Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// Asks one seller for its price.
pub(super) async fn ask(
    driver: &Driver,
    net: &NetHandle,
    seller: PeerId,
    addrs: Vec<Multiaddr>,
    request: Request,
) -> Result<Offered, BuyFailure> {
    let stream = net.open_bulk(seller, addrs, "chunks").await?;
    Offered::ask(driver, seller, request, stream).await
}
