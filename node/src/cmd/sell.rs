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
  pedlar sell chunks --stop";

/// Sell what is published, at this price where it has none of its own; or stop.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES, group(clap::ArgGroup::new("how").required(true)))]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// What to sell: chunks, the bytes of published files.
    service: Text<Service>,
    /// What it costs, such as 10sat/GiB; a bare number is sat/GiB.
    #[arg(long = "price", value_name = "PRICE", value_parser = price, group = "how")]
    price_msat_per_gib: Option<u64>,
    /// Sell nothing; what is published stays, for when selling goes on.
    #[arg(long, group = "how")]
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
        let Self { service: Text(service), price_msat_per_gib, stop } = self;
        let set = match (price_msat_per_gib, stop) {
            (Some(msat), false) => node.shop.sell(Some(Price::per_gib(msat))).await,
            (None, true) => node.shop.stop().await,
            (Some(_), true) | (None, false) => {
                return Err(Failure::usage("usage", "either a price or to stop is to be given"));
            }
        };
        set.map_err(Failure::system)?;
        out.line(Line::Selling { service: service.to_string(), price_msat_per_gib }).await?;
        Ok(Done {})
    }
}
