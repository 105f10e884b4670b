//! `pedlar account export`: the papers of one account, for others to verify.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use pedlar_net::PeerId;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::{Done, Remote, Text, Verb};
use crate::evidence::{self, Record};
use crate::failure::{Exit, Failure};
use crate::node::Node;

const EXAMPLES: &str = "\
Examples:
  pedlar account export 12D3Koo… account.evidence
  pedlar verify account.evidence        anybody can, anywhere, without a node

The file holds quotes, receipts, advances and the transactions that paid them: what was bought, when and for how much.
A file that exists is never overwritten.";

/// Write the signed papers and payments of one account to a file, which anybody can verify.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The other node.
    peer: Text<PeerId>,
    /// The file to make.
    // The node has another working directory.
    #[arg(value_parser = PathBufValueParser::new().try_map(std::path::absolute))]
    file: PathBuf,
}

/// What `account export` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The file is made.
    Exported {
        /// Where.
        path: String,
        /// How many records it has.
        records: usize,
        /// How many of them own up to what is not proven.
        unproven: usize,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(Line::Exported { path, records, unproven }: Line, screen: &mut Screen) -> io::Result<()> {
        screen.text(format_args!("{path}: {records} records, {unproven} of them without proof"))
    }

    fn sum_up(_: Done, screen: &mut Screen) -> io::Result<()> {
        screen.text("Anybody can verify it: pedlar verify FILE.")
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let Self { peer: Text(peer), file } = self;
        let records = evidence::gather(&node.driver, &peer).await.map_err(Failure::system)?;
        let unknown = || Failure::new(Exit::NotFound, "no_account", format!("there is no account with {peer}"));
        let records = records.ok_or_else(unknown)?;
        let unproven = records.iter().filter(|record| matches!(record, Record::Unproven { .. })).count();
        let line = Line::Exported { path: file.display().to_string(), records: records.len(), unproven };
        let written = spawn_blocking(move || create(&file, &records).map_err(|error| not_written(&file, &error)));
        written.await.map_err(Failure::system)??;
        out.line(line).await?;
        Ok(Done {})
    }
}

/// Makes the file, for its owner alone: it says what was bought.
fn create(path: &Path, records: &[Record]) -> io::Result<()> {
    let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
    let written = evidence::write(records, &mut file).and_then(|()| file.flush());
    if written.is_err() {
        // Half a file would pass for a damaged one.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    let text = format!("{} can't be written: {error}", path.display());
    match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage("exists", text).hint("name another file"),
        _ => Failure::system(text),
    }
}
