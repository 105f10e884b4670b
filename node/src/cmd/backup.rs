//! `pedlar backup …`: one file that, with the words, brings the node back.

use std::io;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use pedlar_wallet::{LadderError, OpenError, SeedFile};
use serde::{Deserialize, Serialize};

use super::config::here;
use super::up::{shut, taken};
use super::{Done, Remote, Verb, init};
use crate::api::Out;
use crate::backup::{self, CreateError, Created, RestoreError, Restored, Sealer, UnpackError};
use crate::cli::prompt::{self, Passphrase};
use crate::cli::screen::Screen;
use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::node::Node;
use crate::store::JournalError;

const CREATE_EXAMPLES: &str = "\
Examples:
  pedlar backup create pedlar-$(date +%F).backup
  pedlar backup create /media/stick/pedlar.backup --passphrase-file pass     while no node runs here

The words open it, and only they: keep the two apart. It holds accounts, payments, addresses, settings and what is
published; not the published files. A file that exists is never overwritten.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  pedlar backup restore pedlar.backup --home ~/pedlar
  pedlar backup restore pedlar.backup --words-file words --passphrase-file pass

The home must be new. Nothing is paid until the chain was searched for what the node did after the backup; what it bought
and sold since then it learns from the other side, as far as both have signed it. Never run both, the old node and the
restored one.";

/// What can be done with backups.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    Create(Args),
    Restore(RestoreArgs),
}

/// Write all that the words do not restore into one encrypted file; the node may run meanwhile.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = CREATE_EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The file to make.
    // The node has another working directory.
    #[arg(value_parser = PathBufValueParser::new().try_map(std::path::absolute))]
    file: PathBuf,
    /// While no node runs here: read the passphrase from this file.
    #[arg(long, value_name = "FILE", env = "PEDLAR_PASSPHRASE_FILE", hide_env_values = true)]
    #[serde(skip)]
    passphrase_file: Option<PathBuf>,
}

/// Make a home of a backup and its words.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(crate) struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Read the 12 words from this file.
    #[arg(long, value_name = "FILE")]
    words_file: Option<PathBuf>,
    /// Read the passphrase that is to protect the words from this file; an empty file protects nothing.
    #[arg(long, value_name = "FILE", env = "PEDLAR_PASSPHRASE_FILE", hide_env_values = true)]
    passphrase_file: Option<PathBuf>,
}

/// What `backup create` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The file is made.
    Backup {
        /// Where.
        path: String,
        /// Its length.
        bytes: u64,
        /// When its first part was copied, in ms since the epoch.
        created_ms: u64,
        /// Whose it is.
        peer_id: String,
    },
}

/// What `backup restore` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum RestoreLine {
    /// The home is made.
    Restored {
        /// Where.
        home: String,
        /// Who the node is.
        peer_id: String,
        /// Which coins it uses.
        network: String,
        /// When the backup was made, in ms since the epoch.
        created_ms: u64,
        /// Rows of accounts.
        entries: usize,
        /// What is published and has to be hashed again before it is sold.
        published: usize,
    },
    /// The books were not right when the backup was made.
    Finding {
        /// In what.
        finding: String,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(Line::Backup { path, bytes, .. }: Line, screen: &mut Screen) -> io::Result<()> {
        screen.text(format_args!("{path}, {}", indicatif::BinaryBytes(bytes)))
    }

    fn sum_up(_: Done, screen: &mut Screen) -> io::Result<()> {
        screen.text("The words open it: pedlar backup restore. What is traded from now on is not in it.")
    }
}

impl Verb for RestoreArgs {
    type Line = RestoreLine;
    type Summary = Done;

    fn show(line: RestoreLine, screen: &mut Screen) -> io::Result<()> {
        match line {
            RestoreLine::Restored { home, peer_id, network, published, .. } => {
                screen.text(format_args!("Node {peer_id} on {network} lives in {home}."))?;
                match published {
                    0 => Ok(()),
                    _ => screen.text(format_args!(
                        "Of {published} published files and folders the hash trees are not in a backup: `pedlar published` \
                         shows them, `pedlar publish` makes them anew."
                    )),
                }
            }
            RestoreLine::Finding { finding } => {
                screen.text(format_args!("The books were not right before: {finding}."))
            }
        }
    }

    fn sum_up(_: Done, screen: &mut Screen) -> io::Result<()> {
        screen.text("Start it with `pedlar up`. It pays once it has searched the chain.")
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Done, Failure> {
        let created = backup::create(node.home.home(), &node.driver, &node.sealer, self.file).await;
        out.line(line_of(created.map_err(not_created)?)).await?;
        Ok(Done {})
    }
}

impl Args {
    /// Backs up a home in which no node runs.
    ///
    /// # Errors
    /// A wrong passphrase, no home, a file that exists.
    pub(super) fn perform(&self, home: &Home, screen: &mut Screen) -> Result<(), Failure> {
        if !home.is_initialized() {
            return Err(Failure::usage("not_initialized", format!("there is no node in {home} yet")));
        }
        let _lock = home.lock().map_err(taken)?;
        let passphrase = prompt::passphrase(self.passphrase_file.as_deref(), Passphrase::Known)?;
        let keys = SeedFile::open(&home.seed(), &passphrase).map_err(shut)?;
        let sealer = Sealer::of(&keys).ok_or_else(|| Failure::system("these words give no identity"))?;
        let network = here(home)?.0.network;
        let created = backup::create_offline(home, network, &sealer, self.file.clone()).map_err(not_created)?;
        screen.line::<Self>(line_of(created))?;
        screen.summary::<Self>(Done {})
    }
}

/// Makes a home of a backup.
///
/// # Errors
/// [`Exit::Passphrase`] for other words, [`Exit::Integrity`] for a backup that is not as it was made, a home that is not
/// new; nothing is left behind.
pub(crate) fn restore(args: &RestoreArgs, home: &Home, screen: &mut Screen) -> Result<(), Failure> {
    let words = init::known_words(args.words_file.as_deref())?;
    let passphrase = prompt::passphrase(args.passphrase_file.as_deref(), Passphrase::New)?;
    let restored = backup::restore(&args.file, &words, &passphrase, home);
    let Restored { peer_id, network, created, entries, goods, findings } = restored.map_err(not_restored)?;
    let (home, created_ms) = (home.to_string(), created.ms());
    let line = RestoreLine::Restored { home, peer_id, network, created_ms, entries, published: goods };
    screen.line::<RestoreArgs>(line)?;
    for finding in findings {
        screen.line::<RestoreArgs>(RestoreLine::Finding { finding })?;
    }
    screen.summary::<RestoreArgs>(Done {})
}

fn line_of(created: Created) -> Line {
    let Created { path, bytes, created, peer_id } = created;
    Line::Backup { path: path.display().to_string(), bytes, created_ms: created.ms(), peer_id }
}

fn not_created(error: CreateError) -> Failure {
    match error {
        CreateError::Exists(_) => Failure::usage("exists", error).hint("name another file"),
        CreateError::Failed(_) => Failure::system(error),
    }
}

fn not_restored(error: RestoreError) -> Failure {
    match error {
        RestoreError::NotEmpty(_) => Failure::usage("exists", error).hint("choose another folder: --home DIR"),
        RestoreError::Unreadable(_) => Failure::usage("unreadable", error),
        RestoreError::OtherWords => Failure::new(Exit::Passphrase, "wrong_words", error),
        RestoreError::Unpack(UnpackError::Newer { .. })
        | RestoreError::Journal(JournalError::Version(LadderError::Newer { .. }))
        | RestoreError::Wallet(OpenError::Version(LadderError::Newer { .. })) => {
            Failure::new(Exit::Failure, "newer", error).hint("use a program that is as new")
        }
        RestoreError::Unpack(UnpackError::Write(_)) | RestoreError::Seed(_) | RestoreError::Io(_) => {
            Failure::system(error)
        }
        RestoreError::NoBackup
        | RestoreError::Unpack(UnpackError::Damaged(_) | UnpackError::Read(_))
        | RestoreError::Config(_)
        | RestoreError::Journal(_)
        | RestoreError::Wallet(_) => {
            Failure::new(Exit::Integrity, "damaged_backup", error).hint("use another copy of it, or an older backup")
        }
    }
}
