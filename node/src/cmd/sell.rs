//! `pedlar sell`: starts, changes and stops selling.

use std::io;

use pedlar_protocol::money::Price;
use pedlar_protocol::offer::Service;
use serde::{Deserialize, Serialize};

use super::publish::price;
use super::{Done, Remote, Text, Verb};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::failure::Failure;
use crate::node::Node;

const EXAMPLES: &str = "\
Examples:
  pedlar sell chunks --price 10sat/GiB
  pedlar sell chunks --limit 20Mbit/s
  pedlar sell chunks --stop";

/// A piece of 256 KiB takes 4 s then: buyers wait 20 s for one, and some at once share the line.
const SLOWEST: u64 = 500_000 / 8;

/// Sell what is published, at this price where it has none of its own; or stop.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES, group(clap::ArgGroup::new("how").required(true).multiple(true)))]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// What to sell: chunks, the bytes of published files.
    service: Text<Service>,
    /// What it costs, such as 10sat/GiB; a bare number is sat/GiB.
    #[arg(long = "price", value_name = "PRICE", value_parser = price, group = "how")]
    price_msat_per_gib: Option<u64>,
    /// Send no more than this to all buyers together, such as 20Mbit/s; none takes the limit away.
    #[arg(long = "limit", value_name = "RATE", value_parser = rate, group = "how")]
    #[serde(default)]
    limit_bytes_per_s: Option<u64>,
    /// Sell nothing; what is published stays, for when selling goes on.
    #[arg(long, group = "how", conflicts_with_all = ["price_msat_per_gib", "limit_bytes_per_s"])]
    #[serde(default)]
    stop: bool,
}

/// What `sell` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// How selling stands now.
    Selling {
        /// What.
        service: String,
        /// At which price; absent once selling has stopped.
        #[serde(skip_serializing_if = "Option::is_none")]
        price_msat_per_gib: Option<u64>,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(Line::Selling { service, price_msat_per_gib }: Line, screen: &mut Screen) -> io::Result<()> {
        match price_msat_per_gib {
            Some(msat) => screen.text(format_args!("Selling {service} at {}.", Price::per_gib(msat))),
            None => screen.text(format_args!("Selling no {service} any more.")),
        }
    }

    fn sum_up(_: Done, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let Self { service: Text(service), price_msat_per_gib, limit_bytes_per_s, stop } = self;
        if let Some(bytes_per_s) = limit_bytes_per_s {
            node.shop.limit(bytes_per_s).await.map_err(Failure::system)?;
        }
        let set = match (price_msat_per_gib, stop) {
            (Some(msat), false) => node.shop.sell(Some(Price::per_gib(msat))).await,
            (None, true) => node.shop.stop().await,
            (None, false) if limit_bytes_per_s.is_some() => Ok(()),
            (Some(_), true) | (None, false) => {
                return Err(Failure::usage("usage", "a price, a limit, or to stop is to be given"));
            }
        };
        set.map_err(Failure::system)?;
        let price = node.driver.read(|market| market.shop().price().filter(|_| !market.shop().is_closed()));
        let price_msat_per_gib = price.map(Price::msat_per_gib);
        out.line(Line::Selling { service: service.to_string(), price_msat_per_gib }).await?;
        Ok(Done {})
    }
}

/// Reads bits a second as bytes a second; `none` is 0.
fn rate(text: &str) -> Result<u64, &'static str> {
    const UNITS: [(&str, u64); 3] = [("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)];
    const BAD: &str = "write it like 500kbit/s, 20Mbit/s or none";
    if text == "none" {
        return Ok(0);
    }
    let unit = UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
    let (number, bits) = unit.ok_or(BAD)?;
    let number: u64 = number.trim_end().parse().map_err(|_| BAD)?;
    let bytes = number.checked_mul(bits).ok_or(BAD)? / 8;
    if bytes < SLOWEST { Err("slower than 500kbit/s buyers give up") } else { Ok(bytes) }
}
