//! `pedlar market`: what others offer.

use std::io;

use pedlar_protocol::content::Link;
use pedlar_protocol::money::Price;
use pedlar_protocol::offer::{Listing, Offer, Service, Title};
use serde::{Deserialize, Serialize};

use super::{Remote, Text, Verb};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::driver::now;
use crate::failure::Failure;
use crate::node::Node;

/// List the offers of others, the cheapest first.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Examples:\n  pedlar market\n  pedlar market chunks --json")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Only offers of this service: chunks.
    service: Option<Text<Service>>,
}

/// What `market` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// What one seller asks for one service.
    Offer(Offered),
}

/// What one seller asks for one service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offered {
    peer: String,
    service: String,
    /// The price of what has none of its own.
    price_msat_per_gib: u64,
    /// The price of the dearest.
    ceiling_msat_per_gib: u64,
    /// The smallest advance taken.
    min_topup_sat: u64,
    expires: String,
    addrs: Vec<String>,
    titles: Vec<Featured>,
}

/// Content that a seller features.
#[derive(Debug, Serialize, Deserialize)]
struct Featured {
    /// As the seller calls it, escaped.
    name: String,
    /// As the seller claims, in bytes.
    size: u64,
    link: String,
}

/// How many there are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    offers: usize,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(Line::Offer(offer): Line, screen: &mut Screen) -> io::Result<()> {
        const HEADER: [&str; 5] = ["SERVICE", "PRICE", "SELLER", "TITLE", "LINK"];
        let price = Price::per_gib(offer.price_msat_per_gib).to_string();
        let mut titles = offer.titles.into_iter();
        let first = titles.next().map(|title| (title.name, title.link)).unwrap_or_default();
        screen.row(HEADER, [offer.service, price, offer.peer, first.0, first.1]);
        for title in titles {
            screen.row(HEADER, [String::new(), String::new(), String::new(), title.name, title.link]);
        }
        Ok(())
    }

    fn sum_up(Summary { offers }: Summary, screen: &mut Screen) -> io::Result<()> {
        match offers {
            0 => screen.text("No offer is known yet. Nodes tell each other within seconds of connecting: pedlar peers"),
            _ => screen.count(offers, "offer"),
        }
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let mut offers: Vec<Offered> = node.driver.read(|market| {
            let wanted =
                Service::ALL.into_iter().filter(|service| self.service.as_ref().is_none_or(|only| only.0 == *service));
            wanted.flat_map(|service| market.book().offers(now(), service)).map(Offered::from).collect()
        });
        offers.sort_by(|a, b| {
            (&a.service, a.price_msat_per_gib, &a.peer).cmp(&(&b.service, b.price_msat_per_gib, &b.peer))
        });
        let summary = Summary { offers: offers.len() };
        for offer in offers {
            out.line(Line::Offer(offer)).await?;
        }
        Ok(summary)
    }
}

impl From<(&Offer, &Listing)> for Offered {
    fn from((offer, listing): (&Offer, &Listing)) -> Self {
        Self {
            peer: offer.seller.to_string(),
            service: listing.service.to_string(),
            price_msat_per_gib: listing.price.msat_per_gib(),
            ceiling_msat_per_gib: listing.ceiling.msat_per_gib(),
            min_topup_sat: offer.terms.min_topup_sat,
            expires: offer.expires.to_string(),
            addrs: offer.addresses.iter().map(ToString::to_string).collect(),
            titles: listing.titles.iter().map(Featured::from).collect(),
        }
    }
}

impl From<&Title> for Featured {
    fn from(title: &Title) -> Self {
        let link = Link { size: Some(title.size), ..Link::new(title.kind, title.root) };
        Self { name: title.name.to_string(), size: title.size.bytes(), link: link.to_string() }
    }
}
