//! `pedlar up`: runs the node in the foreground.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pedlar_net::SpawnError;

use pedlar_wallet::{Keys, LadderError, OpenError, OpenSeedError, SeedFile};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Done, Verb, answer};
use crate::api::{self, serve};
use crate::cli::log;
use crate::cli::prompt::{self, Passphrase};
use crate::cli::screen::Screen;
use crate::config::{Config, Flags, Setting};
use crate::failure::{Exit, Failure};
use crate::home::{Home, HomeLock, LockError};
use crate::node::{Node, StartError};

const EXAMPLES: &str = "\
Examples:
  pedlar up
  pedlar up --listen /ip4/0.0.0.0/tcp/4001 --bootstrap /ip4/203.0.113.7/tcp/4001/p2p/12D3Koo…
  pedlar up --passphrase-file /run/secrets/pedlar

Ctrl-C or `pedlar down` stops it. Settings: config.toml in the home, or PEDLAR_LISTEN and the like.";

/// Run the node in the foreground.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Read the passphrase from this file.
    #[arg(long, value_name = "FILE", env = "PEDLAR_PASSPHRASE_FILE", hide_env_values = true)]
    passphrase_file: Option<PathBuf>,
    /// Listen here; may be given more than once.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Enter the network here; may be given more than once.
    #[arg(long, value_name = "ADDR")]
    bootstrap: Vec<String>,
    /// Ask this Electrum server; may be given more than once.
    #[arg(long, value_name = "URL")]
    electrum: Vec<String>,
}

/// What `up` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The node runs: the local socket answers, peers can connect.
    Ready {
        /// Who the node is.
        peer_id: String,
        /// Where it listens, each address ready to be another node's `--bootstrap`.
        listen: Vec<String>,
        /// Its home.
        home: String,
    },
}

impl Verb for Args {
    type Line = Line;
    type Summary = Done;

    fn show(Line::Ready { peer_id, listen, home }: Line, screen: &mut Screen) -> io::Result<()> {
        screen.text(format_args!("Node {peer_id} is up in {home}."))?;
        listen.iter().try_for_each(|addr| screen.text(format_args!("  listens on {addr}")))
    }

    fn sum_up(_: Done, screen: &mut Screen) -> io::Result<()> {
        screen.text("The node is down.")
    }
}

/// Runs the node until a signal or `down` ends it; `verbose` counts the `-v`.
///
/// # Errors
/// What is in the way: [`Exit::Locked`], [`Exit::Passphrase`], a wrong setting, a port or a file that can't be used.
pub(crate) fn perform(args: &Args, verbose: u8, home: &Home, screen: &mut Screen) -> Result<(), Failure> {
    if !home.is_initialized() {
        let message = format!("there is no node in {home} yet");
        return Err(Failure::usage("not_initialized", message).hint("make it first: pedlar init"));
    }
    home.create().map_err(Failure::system)?;
    let lock = home.lock().map_err(taken)?;
    let config = Config::load(&home.config_file(), args.flags(verbose), |name| std::env::var(name).ok())
        .map_err(|e| Failure::usage("config", e))?;
    log::start(&config.0.log)?;
    let passphrase = prompt::passphrase(args.passphrase_file.as_deref(), Passphrase::Known)?;
    let keys = SeedFile::open(&home.seed(), &passphrase).map_err(shut)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::system)?;
    runtime.block_on(run(lock, config, keys, screen))
}

async fn run(lock: HomeLock, config: (Config, Vec<Setting>), keys: Keys, screen: &mut Screen) -> Result<(), Failure> {
    let told_to_stop = told_to_stop().map_err(Failure::system)?;
    tokio::pin!(told_to_stop);
    let listener = api::bind(&lock).map_err(Failure::system)?;
    let home = lock.home().to_string();
    let node = tokio::select! {
        node = Node::start(lock, config, keys) => Arc::new(node.map_err(not_started)?),
        () = &mut told_to_stop => return screen.summary::<Args>(Done {}),
    };
    let closing = CancellationToken::new();
    let answers = {
        let node = Arc::clone(&node);
        tokio::spawn(serve(listener, closing.clone(), move |request, lines| answer(request, Arc::clone(&node), lines)))
    };
    screen.line::<Args>(Line::Ready { peer_id: node.net.peer_id().to_string(), listen: listening(&node), home })?;
    node.run(told_to_stop).await;
    // After the node, so that verbs under way can tell how they ended.
    closing.cancel();
    let _ = answers.await;
    screen.summary::<Args>(Done {})
}

/// Where the node listens, with its id.
pub(crate) fn listening(node: &Node) -> Vec<String> {
    let me = node.net.peer_id();
    node.net.listen_addrs().iter().map(|addr| format!("{addr}/p2p/{me}")).collect()
}

impl Args {
    fn flags(&self, verbose: u8) -> Flags {
        let log = match verbose {
            0 => None,
            1 => Some("info,pedlar_node=debug,pedlar_net=debug,pedlar_wallet=debug"),
            2 => Some("debug"),
            _ => Some("trace"),
        };
        Flags::from([
            ("listen", self.listen.clone()),
            ("bootstrap", self.bootstrap.clone()),
            ("electrum", self.electrum.clone()),
            ("log", log.map(str::to_owned).into_iter().collect()),
        ])
    }
}

/// Resolves on the first SIGINT or SIGTERM.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

pub(super) fn taken(error: LockError) -> Failure {
    match error {
        LockError::Taken => Failure::new(Exit::Locked, "locked", error).hint("pedlar down stops it"),
        LockError::Io(_) => Failure::system(error),
    }
}

pub(super) fn shut(error: OpenSeedError) -> Failure {
    match error {
        OpenSeedError::WrongPassphrase => Failure::new(Exit::Passphrase, "wrong_passphrase", error),
        other => Failure::system(other),
    }
}

fn not_started(error: StartError) -> Failure {
    match &error {
        StartError::NoNetwork => Failure::new(Exit::Network, "no_network", error)
            .hint("check `electrum` in config.toml, or name the chain: network_id = \"…\""),
        StartError::Wallet(OpenError::NoServer) => Failure::usage("no_electrum", error)
            .hint("pedlar up --electrum ssl://electrum.example.org:60002, or `electrum` in config.toml"),
        StartError::Version(LadderError::Newer { .. })
        | StartError::Wallet(OpenError::Version(LadderError::Newer { .. })) => {
            Failure::new(Exit::Failure, "newer", error)
                .hint("start the program that wrote it, or a newer one: this one has changed nothing")
        }
        StartError::Wallet(OpenError::Locked) => Failure::new(Exit::Locked, "locked", error),
        StartError::Network(_) | StartError::Net(SpawnError::Address(_) | SpawnError::Network(_)) => {
            Failure::usage("config", error)
        }
        StartError::Net(SpawnError::Listen { .. }) => Failure::usage("listen", error).hint("is the port taken?"),
        _ => Failure::system(error),
    }
}
