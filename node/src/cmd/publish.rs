//! `pedlar publish`: puts a file or a folder up for sale.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::builder::{PathBufValueParser, TypedValueParser};
use indicatif::BinaryBytes;
use pedlar_protocol::content::{Link, MAX_ADDRS};
use pedlar_protocol::money::{AmountError, Price};
use pedlar_protocol::text::{Name, NameError, escape};
use serde::{Deserialize, Serialize};

use super::up::listening;
use super::{Remote, Verb};
use crate::api::Out;
use crate::blobs::{PublishError, Skipped};
use crate::cli::screen::Screen;
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::shop::{Publication, PublishFailure, Shelved};

const EXAMPLES: &str = "\
Examples:
  pedlar publish film.mkv --price 10sat/GiB
  pedlar publish draft.pdf --copy --name 'A draft'
  pedlar publish photos/           a folder: its regular files, under one link

Of a folder, links, sockets and whatever else is no regular file are skipped, each with a line.
Without --price it has the price of `pedlar sell chunks --price P`.";

/// Sell a file or a folder: from where it lies, for as long as it does not change.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The file, or the folder.
    // The node has another working directory.
    #[arg(value_parser = PathBufValueParser::new().try_map(std::path::absolute))]
    path: PathBuf,
    /// What it costs, such as 10sat/GiB; a bare number is sat/GiB.
    #[arg(long = "price", value_name = "PRICE", value_parser = price)]
    price_msat_per_gib: Option<u64>,
    /// What buyers see it called; by default the name of the file or folder.
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// Keep a copy in the home, so that the original may change.
    #[arg(long)]
    #[serde(default)]
    copy: bool,
}

/// What `publish` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// More is hashed.
    Progress {
        /// Hashed so far.
        bytes: u64,
        /// The size of all.
        total: u64,
    },
    /// No part of the folder: links, sockets and the like are not sold.
    Skipped {
        /// Where it lies.
        path: String,
        /// What it is.
        reason: String,
    },
    /// It is for sale.
    Published(Published),
}

/// A file or folder that is for sale.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Published {
    /// What buyers need.
    pub(super) link: String,
    root: String,
    /// In bytes.
    pub(super) size: u64,
    /// As buyers see it, escaped.
    pub(super) name: String,
    /// Absent where it has none of its own and the shop has none, either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) price_msat_per_gib: Option<u64>,
    /// Where it lies.
    pub(super) path: String,
}

/// What publishing came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    bytes: u64,
    seconds: f64,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        let published = match line {
            Line::Progress { bytes, total } => {
                screen.progress(bytes, total);
                return Ok(());
            }
            Line::Skipped { path, reason } => return screen.text(format_args!("{path} is {reason}: skipped")),
            Line::Published(published) => published,
        };
        let price = published.price_msat_per_gib.map(|msat| format!(" for {}", Price::per_gib(msat)));
        screen.text(format_args!("{} is for sale{}.", published.name, price.unwrap_or_default()))?;
        screen.text(published.link)
    }

    fn sum_up(Summary { bytes, seconds }: Summary, screen: &mut Screen) -> io::Result<()> {
        screen.text(format_args!("{} in {seconds:.1} s", BinaryBytes(bytes)))
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let begun = Instant::now();
        let out = Arc::new(out);
        let progress = {
            let out = Arc::clone(&out);
            move |bytes, total| out.progress(|| Line::Progress { bytes, total })
        };
        let (shelved, skipped) = node.shop.publish(self.publication()?, progress).await.map_err(not_published)?;
        let bytes = shelved.size().bytes();
        for Skipped { path, what } in skipped {
            let path = escape(&path.to_string_lossy()).to_string();
            out.line(Line::Skipped { path, reason: what.to_owned() }).await?;
        }
        out.line(Line::Published(Published::of(node, &shelved))).await?;
        Ok(Summary { bytes, seconds: begun.elapsed().as_secs_f64() })
    }
}

impl Args {
    fn publication(self) -> Result<Publication, Failure> {
        let name = self.name.map(Name::new).transpose().map_err(|e| Failure::usage("name", e))?;
        Ok(Publication { path: self.path, name, price: self.price_msat_per_gib.map(Price::per_gib), copy: self.copy })
    }
}

impl Published {
    /// What is for sale as its owner sees it, with a link that leads to this node.
    pub(super) fn of(node: &Node, shelved: &Shelved) -> Self {
        let Shelved { blob, name, price, .. } = shelved;
        let addrs = listening(node).iter().filter_map(|addr| addr.parse().ok()).take(MAX_ADDRS).collect();
        let (name_hint, size) = (Some(name.as_str().to_owned()), Some(shelved.size()));
        let link = Link { root: blob.root, kind: shelved.kind(), name: name_hint, size, addrs };
        let default = node.driver.read(|market| market.shop().price());
        Self {
            link: link.to_string(),
            root: blob.root.to_string(),
            size: shelved.size().bytes(),
            name: name.to_string(),
            price_msat_per_gib: price.or(default).map(Price::msat_per_gib),
            path: shelved.path().display().to_string(),
        }
    }
}

/// Reads a price in msat per GiB.
pub(super) fn price(text: &str) -> Result<u64, AmountError> {
    text.parse().map(Price::msat_per_gib)
}

fn name(text: &str) -> Result<String, NameError> {
    Name::new(text).map(|name| name.as_str().to_owned())
}

fn not_published(failure: PublishFailure) -> Failure {
    match &failure {
        PublishFailure::NoPrice => Failure::usage("no_price", failure),
        PublishFailure::File(PublishError::NotFound(_)) => Failure::new(Exit::NotFound, "no_such_file", failure),
        PublishFailure::File(
            PublishError::NotAFile(_)
            | PublishError::TooLarge(_)
            | PublishError::Path { .. }
            | PublishError::Folder(_)
            | PublishError::OwnHome(_),
        ) => Failure::usage("not_publishable", failure),
        PublishFailure::File(PublishError::Cancelled) | PublishFailure::Interrupted => {
            Failure::new(Exit::Interrupted, "interrupted", failure)
        }
        PublishFailure::File(_) | PublishFailure::Store(_) => Failure::system(failure),
    }
}
