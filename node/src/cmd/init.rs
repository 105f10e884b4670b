//! `pedlar init`: makes a home, with new words or restored ones.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pedlar_protocol::wire::peer_id;
use pedlar_wallet::{CreateSeedError, Network, SeedFile, Words};
use serde::{Deserialize, Serialize};

use super::{Done, Verb};
use crate::cli::prompt::{self, Passphrase};
use crate::cli::screen::Screen;
use crate::config::{Config, Flags};
use crate::failure::Failure;
use crate::home::{FILE_MODE, Home};
use crate::identity;

const EXAMPLES: &str = "\
Examples:
  pedlar init --electrum ssl://electrum.example.org:60002
  pedlar init --network regtest --electrum tcp://127.0.0.1:50001 --words-file words --passphrase-file pass
  pedlar init --restore --words-file words --electrum ssl://electrum.example.org:60002";

/// Make a home for a node: 12 words, their passphrase, an identity.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Which coins: signet (the default) or regtest.
    #[arg(long)]
    network: Option<String>,
    /// What tells this regtest chain from others: 8 hex digits; by default those of its first block.
    #[arg(long, value_name = "HEX")]
    network_id: Option<String>,
    /// Ask this Electrum server about coins; may be given more than once.
    #[arg(long, value_name = "URL")]
    electrum: Vec<String>,
    /// Take up a node whose words you have.
    #[arg(long)]
    restore: bool,
    /// Write the new words to this file, which must not exist; with --restore, read them from it.
    #[arg(long, value_name = "FILE")]
    words_file: Option<PathBuf>,
    /// Read the passphrase that protects the words from this file; an empty file protects nothing.
    #[arg(long, value_name = "FILE", env = "PEDLAR_PASSPHRASE_FILE", hide_env_values = true)]
    passphrase_file: Option<PathBuf>,
}

/// What `init` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The home is made.
    Initialized {
        /// Where.
        home: String,
        /// Who the node is.
        peer_id: String,
        /// Which coins it uses.
        network: String,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(Line::Initialized { home, peer_id, network }: Line, screen: &mut Screen) -> io::Result<()> {
        screen.text(format_args!("Node {peer_id} on {network} lives in {home}."))
    }

    fn sum_up(_: Done, screen: &mut Screen) -> io::Result<()> {
        screen.text("Start it with `pedlar up`.")
    }
}

/// Makes the home; nothing that exists is overwritten.
///
/// # Errors
/// A wrong setting, a home or a file of words that exists, no terminal where one is needed.
pub(crate) fn perform(args: &Args, home: &Home, screen: &mut Screen) -> Result<(), Failure> {
    if home.is_initialized() {
        let message = format!("there is a node in {home} already");
        return Err(Failure::usage("exists", message).hint("choose another folder: --home DIR"));
    }
    let config = args.config(home)?;
    home.create().map_err(Failure::system)?;
    let words = if args.restore {
        known_words(args.words_file.as_deref())?
    } else {
        Words::generate().map_err(Failure::system)?
    };
    let passphrase = prompt::passphrase(args.passphrase_file.as_deref(), Passphrase::New)?;
    if args.restore {
        write_missing(&home.restored_mark(), "")?;
    } else {
        // First of all, so that there is never a home whose words nobody has.
        args.hand_over(&words)?;
    }
    write_missing(&home.config_file(), &settings(&config)?)?;
    SeedFile::create(&home.seed(), &words, &passphrase).map_err(|e| match e {
        CreateSeedError::Exists => Failure::usage("exists", e),
        other => Failure::system(other),
    })?;
    let keypair = identity::keypair(&identity::secret(&words.keys()));
    let peer_id = keypair.as_ref().map(peer_id).ok_or_else(|| Failure::system("these words give no identity"))?;
    let network = config.network.to_string();
    screen.line::<Args>(Line::Initialized { home: home.to_string(), peer_id: peer_id.to_string(), network })?;
    screen.summary::<Args>(Done {})
}

impl Args {
    /// The settings that the node is to have; those of a file that is there already stand.
    fn config(&self, home: &Home) -> Result<Config, Failure> {
        let single = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let flags = Flags::from([
            ("network", single(&self.network)),
            ("network_id", single(&self.network_id)),
            ("electrum", self.electrum.clone()),
        ]);
        let path = home.config_file();
        if path.exists() && flags.values().any(|values| !values.is_empty()) {
            let message = format!("{} exists, and settings are not changed by flags", path.display());
            return Err(Failure::usage("config_exists", message).hint("edit it and leave the flags out, or remove it"));
        }
        let (config, _) =
            Config::load(&path, flags, |name| std::env::var(name).ok()).map_err(|e| Failure::usage("config", e))?;
        if config.network == Network::Signet && config.electrum.is_empty() {
            return Err(Failure::usage("no_electrum", "signet needs an Electrum server, and none is built in")
                .hint("name one that you trust: pedlar init --electrum ssl://electrum.example.org:60002"));
        }
        Ok(config)
    }

    /// Gives new words to their owner: into a file, or onto the terminal, never into JSON.
    fn hand_over(&self, words: &Words) -> Result<(), Failure> {
        let phrase = words.phrase();
        if let Some(file) = &self.words_file {
            return write_new(file, &format!("{}\n", phrase.as_str()));
        }
        if !prompt::is_possible() {
            return Err(Failure::usage("words_file_needed", "there is no terminal to show the new words on")
                .hint("give a file to write them to: --words-file FILE"));
        }
        let shown = writeln!(
            io::stderr(),
            "Write these 12 words on paper. They are the node and its coins: whoever has them has both.\n\n  {}\n",
            phrase.as_str()
        );
        shown.map_err(Failure::output)
    }
}

/// The words to restore, from the file or the terminal.
pub(super) fn known_words(file: Option<&Path>) -> Result<Words, Failure> {
    let text = match file {
        Some(file) => prompt::secret_file(file)?,
        None if prompt::is_possible() => prompt::line("The 12 words: ")?,
        None => {
            return Err(Failure::usage("words_needed", "there is no terminal to ask for the words")
                .hint("give a file that holds them: --words-file FILE"));
        }
    };
    Words::parse(&text).map_err(|e| Failure::usage("words", e))
}

/// What the file says of the settings that `init` decides.
fn settings(config: &Config) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Settings {
        network: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        network_id: Option<String>,
        electrum: Vec<String>,
    }
    let settings = Settings {
        network: config.network.to_string(),
        network_id: config.network_id.as_ref().map(ToString::to_string),
        electrum: config.electrum.iter().map(ToString::to_string).collect(),
    };
    let text = toml::to_string(&settings).map_err(Failure::system)?;
    Ok(format!("# The settings of this node. An unknown key is an error that names its line.\n{text}"))
}

/// Writes a file where there is none: what an attempt that failed later left behind is as good.
fn write_missing(path: &Path, text: &str) -> Result<(), Failure> {
    if path.exists() { Ok(()) } else { write_new(path, text) }
}

/// Writes a file that must not exist, for its owner alone.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    written().map_err(|e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage("exists", format!("{} exists and is never overwritten", path.display()))
        }
        _ => Failure::system(format!("{}: {e}", path.display())),
    })
}
