//! The command line of `pedlar-devnet`.

use std::io::{IsTerminal, stdin};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::{self, Steer};
use crate::market::{Market, Plan};
use crate::node::{Home, NODE_MARK};
use crate::purchase::{demonstrate, sample};
use crate::screen::Screen;
use crate::table;

/// What the first seller asks, in sat per GiB.
const PRICE_SAT: u64 = 7_000;

/// The exit code of a purchase that was told to stop.
const INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  pedlar-devnet                                   a market that stays up until Ctrl-C
  pedlar-devnet --once --file big.iso             one purchase of a real file, then exit
  pedlar-devnet --dir /tmp/market                 keep all homes in a folder of yours
  pedlar-devnet --dir /tmp/market mine 6          while it runs: mine six blocks
  pedlar-devnet --dir /tmp/market on buyer status while it runs: any verb on any node";

/// A whole Pedlar market on one machine: a chain, three sellers, a buyer, and a purchase between them.
#[derive(Debug, Parser)]
#[command(name = "pedlar-devnet", version, after_help = EXAMPLES, args_conflicts_with_subcommands = false)]
struct Args {
    /// Publish and buy this file or folder instead of a made-up sample
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Run the purchase, print the result, and exit: 0 when all of it went well, 130 when it was interrupted
    #[arg(long)]
    once: bool,
    /// How many nodes; the last one buys
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=32))]
    nodes: u16,
    /// Keep all homes in this folder [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Use a real Electrum server on regtest instead of the embedded chain; it says what to pay to which wallet, and waits
    #[arg(long, value_name = "URL")]
    electrum: Option<String>,
    /// Seconds between blocks of the embedded chain
    #[arg(long, value_name = "SECS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    block_interval: u64,
    /// Print JSON lines: `ready` first, `fund` where coins are to be paid, after a purchase its `summary`
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Steer(Steer),
    /// Run a verb on a node of the market: `on buyer status`
    On {
        /// `seller-1` …, `buyer`
        node: String,
        /// The verb and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        verb: Vec<String>,
    },
}

/// Runs the program: the market, or one of its nodes, which is this program again.
pub fn main() -> ExitCode {
    if std::env::var_os(NODE_MARK).is_some() {
        return pedlar_node::main();
    }
    let args = Args::parse();
    let json = args.json;
    let runtime = tokio::runtime::Runtime::new().context("starting");
    let ended = runtime.and_then(|runtime| runtime.block_on(run(args)));
    match ended {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => fail(json, "interrupted", INTERRUPTED, "interrupted"),
        Err(error) => fail(json, "failure", 1, &format!("{error:#}")),
    }
}

/// How it ended, where nothing failed.
#[derive(Debug, Clone, Copy)]
enum Ended {
    /// What was asked for is done.
    Done,
    /// The purchase that was asked for was told to stop.
    Interrupted,
}

/// Tells why it ends, in the form that the verbs of a node have for that.
fn fail(json: bool, code: &str, exit: u8, message: &str) -> ExitCode {
    match json {
        true => eprintln!("{}", json!({ "type": "error", "code": code, "exit": exit, "message": message })),
        false => eprintln!("error: {message}"),
    }
    ExitCode::from(exit)
}

async fn run(args: Args) -> Result<Ended> {
    match (&args.verb, &args.dir) {
        (None, _) => market(&args).await,
        (Some(_), None) => bail!("which market? name its folder: pedlar-devnet --dir DIR …"),
        (Some(Verb::Steer(request)), Some(dir)) => {
            println!("{}", control::ask(dir, request).await?);
            Ok(Ended::Done)
        }
        (Some(Verb::On { node, verb }), Some(dir)) => on(dir, node, verb),
    }
}

/// What a node of the market is, too.
fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program")
}

/// Becomes a verb on a node: output, signals and exit code are its own. Comes back only when it can't.
fn on(dir: &Path, node: &str, verb: &[String]) -> Result<Ended> {
    let home = Home::new(&this_program()?, dir, node);
    let makes_home = matches!(verb.first().map(String::as_str), Some("init" | "backup"));
    let nobody = || format!("there is no node {node} in {}: the nodes are seller-1 …, buyer", dir.display());
    ensure!(makes_home || home.dir.is_dir(), nobody());
    Err(home.command(verb).as_std_mut().exec()).context("starting a verb")
}

async fn market(args: &Args) -> Result<Ended> {
    let temporary = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            None
        }
        None => Some(tempfile::Builder::new().prefix("pedlar-devnet-").tempdir()?),
    };
    let dir = args.dir.clone().or_else(|| temporary.as_ref().map(|temporary| temporary.path().to_owned()));
    let dir = dir.context("no folder")?.canonicalize()?;
    let plan = Plan {
        program: this_program()?,
        dir,
        nodes: usize::from(args.nodes),
        price_sat: PRICE_SAT,
        electrum: args.electrum.clone(),
        block_interval: Duration::from_secs(args.block_interval),
    };
    let screen = Screen::new(args.json);
    let stopped = if args.once { Ended::Interrupted } else { Ended::Done };
    // Installed before any node is up, so that Ctrl-C never leaves one behind.
    let mut stop = Stop::new()?;
    let market = tokio::select! {
        market = Market::start(&plan, screen) => market?,
        () = stop.wait() => return Ok(stopped),
    };
    screen.line(&market.ready());
    let outcome = tokio::select! {
        outcome = trade(args, &market, screen) => outcome.map(|()| Ended::Done),
        () = stop.wait() => Ok(stopped),
    };
    screen.say("taking the market down");
    let down = market.stop().await;
    outcome.and_then(|ended| down.map(|()| ended))
}

/// The purchase, where one is asked for, and the time after it.
async fn trade(args: &Args, market: &Market, screen: Screen) -> Result<()> {
    if market.chain.is_none() {
        market.fund(screen).await?;
    }
    if args.once || screen.is_watched() || args.file.is_some() {
        let file = match &args.file {
            Some(file) => file.canonicalize().with_context(|| format!("reading {}", file.display()))?,
            None => sample(&market.plan.dir)?,
        };
        screen.line(&demonstrate(market, &file, screen).await?);
    }
    if args.once {
        return Ok(());
    }
    table::hints(market, screen);
    table::watch(market, screen).await
}

/// Ctrl-C, a polite kill, or a terminal that is closed.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Stop {
    fn new() -> Result<Self> {
        // Without one, as under nohup, whoever started it does not want it to end with the terminal.
        let has_terminal = stdin().is_terminal();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: has_terminal.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    async fn wait(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hangup => {}
        }
    }
}
