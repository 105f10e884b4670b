//! `pedlar published`: what this node has for sale.

use std::io;

use indicatif::BinaryBytes;
use pedlar_protocol::money::Price;
use serde::{Deserialize, Serialize};

use super::publish::Published;
use super::{Remote, Verb};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::failure::Failure;
use crate::node::Node;

/// List the files and folders that are for sale here.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar published")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {}

/// What `published` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A file or folder that is for sale.
    Published {
        /// As when it was published.
        #[serde(flatten)]
        published: Published,
        /// Why it is refused to buyers, where it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
}

/// How many there are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    published: usize,
    bytes: u64,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(Line::Published { published, refused }: Line, screen: &mut Screen) -> io::Result<()> {
        let Published { name, size, price_msat_per_gib, path, link, .. } = published;
        let price = price_msat_per_gib.map(|msat| format!(", {}", Price::per_gib(msat))).unwrap_or_default();
        let refused = refused.map(|reason| format!(", refused to buyers: {reason}")).unwrap_or_default();
        screen.text(format_args!("{name}, {}{price}, {path}{refused}\n  {link}", BinaryBytes(size)))
    }

    fn sum_up(Summary { published, .. }: Summary, screen: &mut Screen) -> io::Result<()> {
        screen.count(published, "title")
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let shelf = node.shop.shelf().all();
        let checks = shelf.clone();
        let refusals = move || checks.iter().map(|one| one.refusal().map(|why| why.to_string())).collect::<Vec<_>>();
        let refusals = tokio::task::spawn_blocking(refusals).await.map_err(Failure::system)?;
        let mut summary = Summary { published: shelf.len(), bytes: 0 };
        for (shelved, refused) in shelf.iter().zip(refusals) {
            summary.bytes = summary.bytes.saturating_add(shelved.size().bytes());
            out.line(Line::Published { published: Published::of(node, shelved), refused }).await?;
        }
        Ok(summary)
    }
}
