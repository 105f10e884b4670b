//! `pedlar unpublish`: takes a file or a folder out of the shop.

use std::io;

use pedlar_protocol::content::Link;
use serde::{Deserialize, Serialize};

use super::{NoLine, Remote, Text, Verb};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::failure::{Exit, Failure};
use crate::node::Node;

/// Stop selling a file or a folder, which itself is left alone.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = "Example:\n  pedlar unpublish pedlar:bafk…")]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Its link, as `pedlar published` prints it.
    link: Text<Link>,
}

/// What is sold no more.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    root: String,
}

impl Verb for Args {
    type Line = NoLine;
    type Summary = Summary;

    fn show(line: NoLine, _: &mut Screen) -> io::Result<()> {
        match line {}
    }

    fn sum_up(_: Summary, screen: &mut Screen) -> io::Result<()> {
        screen.text("It is sold no more.")
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, _: Out<NoLine>) -> Result<Summary, Failure> {
        let Text(link) = self.link;
        let was_there = node.shop.unpublish(link.root).await.map_err(Failure::system)?;
        if !was_there {
            return Err(Failure::new(Exit::NotFound, "not_published", "this link is not published here")
                .hint("pedlar published lists what is"));
        }
        Ok(Summary { root: link.root.to_string() })
    }
}
