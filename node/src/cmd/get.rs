//! `get`: buys a file or a folder.

mod feed;
mod unbought;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::{PathBufValueParser, TypedValueParser};
use libp2p_identity::PeerId;
use pedlar_protocol::content::{Kind, Link};
use pedlar_protocol::money::Msat;
use serde::{Deserialize, Serialize};

use unbought::failure_of;
pub(super) use unbought::payment_failure;

use super::{Remote, Verb};
use crate::api::Out;
use crate::blobs::{PublishedBlob, safe_name};
use crate::cli::screen::Screen;
use crate::config::sat;
use crate::failure::Failure;
use crate::node::Node;
use crate::purchase::{News, Order, Outcome, PaymentNews};
use crate::shop::Shopkeeper;

const EXAMPLES: &str = "\
Examples:
  pedlar get pedlar:bafkr4i…                              buy it here, from what is prepaid
  pedlar get pedlar:bafkr4i… --dry-run                    what it costs, and where
  pedlar get pedlar:bafkr4i… -o film.mkv --prepay 5000sat as a stranger: pay 5,000 sat in advance
  pedlar get pedlar:bafkr4i… --max 50sat                  stop before more than 50 sat can be lost
  pedlar get pedlar:bagqmi… -o photos                     a folder: what is there is not bought again

An advance is not refundable: what is left of it buys at the same seller later. Without coins of its own the
node shows a payment link, and goes on when somebody has paid it.";

/// Buy a file or a folder by its link, and verify every 16 KiB of it.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The link: pedlar:…
    link: String,
    /// Where it goes: a path that is free, or a folder to put it into (for a folder that one ends with /)
    #[arg(short, long, value_name = "PATH", default_value = ".", value_parser = PathBufValueParser::new().try_map(absolute))]
    output: PathBuf,
    /// All that can be lost: price, fees, and an advance that is not used up
    #[arg(long = "max", value_name = "AMOUNT", value_parser = amount)]
    max_msat: Option<u64>,
    /// Pay this much in advance on chain if the best seller asks for it
    #[arg(long = "prepay", value_name = "AMOUNT", value_parser = sat)]
    prepay_sat: Option<u64>,
    /// Pay no fee above this for an advance; by default twice the estimate
    #[arg(long = "max-fee", value_name = "AMOUNT", value_parser = sat)]
    #[serde(default)]
    max_fee_sat: Option<u64>,
    /// Keep a file to yourself: a node that sells chunks sells on what it buys, at its price for all of them
    #[arg(long)]
    #[serde(default)]
    no_share: bool,
    /// Show the quotes and buy nothing
    #[arg(long)]
    #[serde(default)]
    dry_run: bool,
    /// Pay the advance without asking
    #[arg(long)]
    #[serde(skip)]
    yes: bool,
}

/// What is said on the way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// What the missing bytes cost at a seller, the cheapest first.
    Quote { peer: String, price_msat_per_gib: u64, cost_msat: u64, available_msat: u64 },
    /// What the best seller that asks for one gets in advance, and what that costs beside.
    Advance { peer: String, amount_sat: u64, fee_sat: u64, max_fee_sat: u64 },
    /// Our wallet has paid an advance.
    Payment { txid: String, amount_sat: u64, fee_sat: u64, address: String },
    /// Another wallet may pay the advance.
    Pay { uri: String, amount_sat: u64 },
    /// So much is left with the seller already, or on its way, and does not count there yet.
    Awaited { amount_sat: u64 },
    /// The advance counts.
    Credited { paid_msat: u64 },
    /// More is verified and written.
    Progress { bytes: u64, total: u64 },
    /// A seller failed; the next is asked.
    Failed { peer: String, reason: String },
}

/// What the purchase came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Where it is; nothing on a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    /// Bytes bought now: what was there already is not counted.
    bytes: u64,
    paid_msat: u64,
    fees_sat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<String>,
    seconds: f64,
    /// Whether it is for sale here from now on.
    #[serde(default)]
    shared: bool,
    sellers: Vec<Share>,
}

/// What was bought from one seller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Share {
    peer: String,
    bytes: u64,
    msat: u64,
    /// Bytes on the stream in both directions, proofs and receipts included.
    wire_bytes: u64,
}

impl Args {
    /// The same as a dry run, where an advance may be paid and nobody has agreed to it yet.
    pub(super) fn rehearsal(&self) -> Option<Self> {
        let unagreed = self.prepay_sat.is_some() && !self.yes && !self.dry_run;
        unagreed.then(|| Self { dry_run: true, ..self.clone() })
    }

    /// What was agreed to.
    pub(super) fn in_earnest(self) -> Self {
        Self { dry_run: false, ..self }
    }

    fn order(&self) -> Result<Order, Failure> {
        let link: Link = self.link.parse().map_err(|error| {
            Failure::usage("malformed_link", format!("the link can't be read: {error}"))
                .hint("a link looks like pedlar:bafkr4i…")
        })?;
        let dest = destination(&self.output, &link);
        if dest.symlink_metadata().is_ok() {
            let exists = format!("{} exists already", dest.display());
            let hint = match link.kind {
                Kind::File => "name another place with -o",
                Kind::Collection => "name another place with -o, or end this one with / to put the folder into it",
            };
            return Err(Failure::usage("exists", exists).hint(hint));
        }
        Ok(Order {
            link,
            dest,
            max: self.max_msat.map(Msat::new),
            prepay_sat: self.prepay_sat,
            max_fee_sat: self.max_fee_sat,
        })
    }
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        match line {
            Line::Quote { peer, price_msat_per_gib, cost_msat, available_msat } => {
                let price = pedlar_protocol::money::Price::per_gib(price_msat_per_gib);
                let (cost, available) = (Msat::new(cost_msat), Msat::new(available_msat));
                screen.text(format_args!("{peer}  {price}  costs {cost}, {available} prepaid"))
            }
            Line::Advance { peer, amount_sat, fee_sat, max_fee_sat } => screen.text(format_args!(
                "{amount_sat} sat in advance to {peer}, for a fee of about {fee_sat} sat and at most {max_fee_sat} sat"
            )),
            Line::Payment { txid, amount_sat, fee_sat, address } => screen.text(format_args!(
                "paid {amount_sat} sat (fee {fee_sat} sat) to {address} with {txid}; waiting until it counts"
            )),
            Line::Pay { uri, amount_sat } => {
                screen.text(format_args!("this wallet has too little: pay {amount_sat} sat from any wallet\n{uri}"))?;
                screen.qr(&uri)
            }
            Line::Awaited { amount_sat } => {
                screen.text(format_args!("{amount_sat} sat are paid to it already; waiting until they count there"))
            }
            Line::Credited { paid_msat } => {
                screen.text(format_args!("the advance counts: {} paid in all", Msat::new(paid_msat)))
            }
            Line::Progress { bytes, total } => {
                screen.progress(bytes, total);
                Ok(())
            }
            Line::Failed { peer, reason } => screen.text(format_args!("{peer} failed: {reason}")),
        }
    }

    fn sum_up(summary: Summary, screen: &mut Screen) -> io::Result<()> {
        let Some(path) = summary.path else {
            return screen.text(format_args!("nothing was bought"));
        };
        let (paid, fees) = (Msat::new(summary.paid_msat), summary.fees_sat);
        let (bytes, seconds, sellers) = (summary.bytes, summary.seconds, summary.sellers.len());
        screen.text(format_args!(
            "{} — {bytes} bytes from {sellers} seller(s) in {seconds:.1} s for {paid}, {fees} sat of fees",
            path.display()
        ))
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let order = self.order()?;
        let (teller, news) = feed::feed();
        let stop = node.stopping.child_token();
        // A client that goes away drops this future, and with it the guard: the purchase then signs and goes.
        let _guard = stop.clone().drop_guard();
        let (buyer, dry_run) = (Arc::clone(&node.buyer), self.dry_run);
        let shop = (!self.no_share).then(|| Arc::clone(&node.shop));
        let purchase = node.tasks().spawn(async move {
            let tell = move |news| teller.tell(news);
            match dry_run {
                true => buyer.quotes(&order, &tell).await.map(|_| None),
                false => {
                    let mut outcome = buyer.buy(&order, &stop, &tell).await?;
                    let shared = share(shop, outcome.blob.take()).await;
                    Ok(Some((outcome, shared)))
                }
            }
        });
        relay(news, &out).await?;
        let outcome = purchase.await.map_err(Failure::system)?;
        Ok(outcome.map_err(failure_of)?.map_or_else(nothing, |(outcome, shared)| summary_of(outcome, shared)))
    }

    /// Fees may rise while somebody decides.
    fn agree(&mut self, shown: &Line) {
        if let Line::Advance { max_fee_sat, .. } = shown {
            self.max_fee_sat = Some(*max_fee_sat);
        }
    }
}

/// Sells on what was bought, where that is wanted; whether it is for sale now.
async fn share(shop: Option<Arc<Shopkeeper>>, blob: Option<PublishedBlob>) -> bool {
    let Some((shop, blob)) = shop.zip(blob) else { return false };
    // What was bought is here, whether or not it can be sold.
    shop.resell(blob).await.unwrap_or_else(|error| {
        tracing::error!(%error, "what was bought is not sold on");
        false
    })
}

/// Tells the client all news but old progress.
async fn relay(mut news: feed::Feed, out: &Out<Line>) -> Result<(), Failure> {
    while let Some(news) = news.next().await {
        match news {
            News::Progress { bytes, total } => drop(out.progress(|| Line::Progress { bytes, total })),
            news => out.line(line_of(news)).await?,
        }
    }
    Ok(())
}

fn line_of(news: News) -> Line {
    match news {
        News::Quote { seller, price, cost, available } => Line::Quote {
            peer: seller.to_string(),
            price_msat_per_gib: price.msat_per_gib(),
            cost_msat: cost.msat(),
            available_msat: available.msat(),
        },
        News::Advance { seller, amount_sat, fee_sat, max_fee_sat } => {
            Line::Advance { peer: seller.to_string(), amount_sat, fee_sat, max_fee_sat }
        }
        News::Payment(PaymentNews::Paid { txid, amount_sat, fee_sat, address }) => {
            Line::Payment { txid, amount_sat, fee_sat, address }
        }
        News::Payment(PaymentNews::PayThis { uri, amount_sat }) => Line::Pay { uri, amount_sat },
        News::Payment(PaymentNews::Awaited { amount_sat }) => Line::Awaited { amount_sat },
        News::Payment(PaymentNews::Credited { paid }) => Line::Credited { paid_msat: paid.msat() },
        News::Progress { bytes, total } => Line::Progress { bytes, total },
        News::Failed { seller, reason } => Line::Failed { peer: seller.to_string(), reason },
    }
}

const fn nothing() -> Summary {
    Summary {
        path: None,
        bytes: 0,
        paid_msat: 0,
        fees_sat: 0,
        txid: None,
        seconds: 0.0,
        shared: false,
        sellers: Vec::new(),
    }
}

fn summary_of(outcome: Outcome, shared: bool) -> Summary {
    let from_one = |(peer, bought): &(PeerId, crate::session::Bought)| Share {
        peer: peer.to_string(),
        bytes: bought.bytes,
        msat: bought.cost.msat(),
        wire_bytes: bought.wire_bytes,
    };
    Summary {
        sellers: outcome.sellers.iter().map(from_one).collect(),
        path: Some(outcome.path),
        bytes: outcome.bytes,
        paid_msat: outcome.paid.msat(),
        fees_sat: outcome.fees_sat,
        txid: outcome.txid,
        seconds: outcome.took.as_secs_f64(),
        shared,
    }
}

/// The file or folder itself: in a folder it takes the name that the link hints at, made safe, or its root's.
///
/// A folder goes into another one only where that ends with `/`: else the same command given twice would buy it twice, the
/// second time into the first.
fn destination(output: &Path, link: &Link) -> PathBuf {
    let ends_with_slash = output.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !output.is_dir() || (link.kind == Kind::Collection && !ends_with_slash) {
        return output.components().collect();
    }
    let name = link.name.as_deref().and_then(safe_name);
    output.join(name.unwrap_or_else(|| link.root.to_string()))
}

/// The path for a node with another working directory; `.` and `..` are folders to put something into.
fn absolute(path: PathBuf) -> io::Result<PathBuf> {
    let is_folder = path.file_name().is_none();
    let path = std::path::absolute(path)?;
    Ok(if is_folder { path.join("") } else { path })
}

fn amount(text: &str) -> Result<u64, pedlar_protocol::money::AmountError> {
    text.parse::<Msat>().map(Msat::msat)
}
