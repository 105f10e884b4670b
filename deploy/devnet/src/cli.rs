//! The command line of `pedlar-devnet`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::control::{self, Steer};
use crate::market::{Market, Plan, sample};
use crate::node::Home;
use crate::table;

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
    /// Run the purchase, print the result, and exit
    #[arg(long)]
    once: bool,
    /// How many nodes; the last one buys
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=32))]
    nodes: u16,
    /// Keep all homes in this folder [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Use a real Electrum server on regtest instead of the embedded chain; wallets are then funded from outside
    #[arg(long, value_name = "URL")]
    electrum: Option<String>,
    /// Seconds between blocks of the embedded chain
    #[arg(long, value_name = "SECS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    block_interval: u64,
    /// Print JSON lines, the first of them `ready`
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

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    runtime.block_on(run(args)).unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn run(args: Args) -> Result<ExitCode> {
    match (&args.verb, &args.dir) {
        (None, _) => market(&args).await.map(|()| ExitCode::SUCCESS),
        (Some(_), None) => bail!("which market? name its folder: pedlar-devnet --dir DIR …"),
        (Some(Verb::Steer(request)), Some(dir)) => {
            println!("{}", control::ask(dir, request).await?);
            Ok(ExitCode::SUCCESS)
        }
        (Some(Verb::On { node, verb }), Some(dir)) => on(dir, node, verb).await,
    }
}

/// What a node of the market is, too.
fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program")
}

/// Runs a verb on a node, its output and its exit code as they are.
async fn on(dir: &Path, node: &str, verb: &[String]) -> Result<ExitCode> {
    let home = Home::new(&this_program()?, dir, node);
    ensure!(home.dir.is_dir(), "there is no node {node} in {}: the nodes are seller-1 …, buyer", dir.display());
    let status = home.command(verb).status().await?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

async fn market(args: &Args) -> Result<()> {
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
        electrum: args.electrum.clone(),
        block_interval: Duration::from_secs(args.block_interval),
    };
    let json = args.json;
    let say = |text: &str| {
        if !json {
            println!("{text}")
        }
    };
    // Installed before any node is up, so that Ctrl-C never leaves one behind.
    let mut stop = Stop::new()?;
    let up = tokio::select! {
        market = Market::start(&plan, &say) => market?,
        () = stop.wait() => return Ok(()),
    };
    if json {
        println!("{}", up.ready());
    }
    let outcome = tokio::select! {
        outcome = trade(args, &plan, &up) => outcome,
        () = stop.wait() => Ok(()),
    };
    say("taking the market down");
    outcome.and(up.stop().await)
}

/// The purchase, where one is asked for, and the time after it.
async fn trade(args: &Args, plan: &Plan, market: &Market) -> Result<()> {
    let show = !args.json;
    if args.once || (show && stdout().is_terminal()) || args.file.is_some() {
        let file = match &args.file {
            Some(file) => file.canonicalize().with_context(|| format!("reading {}", file.display()))?,
            None => sample(&plan.dir)?,
        };
        let summary = demonstrate(market, &file, &plan.dir.join("bought"), show).await?;
        if !show {
            println!("{summary}");
        }
    }
    if args.once {
        return Ok(());
    }
    if show {
        table::hints(market, &plan.dir);
    }
    table::watch(market, show).await
}

/// Publishes, finds, pays, downloads, verifies, and holds both books side by side.
async fn demonstrate(market: &Market, file: &Path, dest: &Path, show: bool) -> Result<Value> {
    let say = |text: String| {
        if show {
            println!("{text}")
        }
    };
    let link = market.publish(file).await?;
    say(format!("published {} at {} sellers: {link}", file.display(), market.sellers().len()));
    // Without the addresses in it, the buyer has to find the sellers by itself.
    let link = link.split('?').next().unwrap_or(&link).to_owned();
    for offer in market.offers().await? {
        say(format!("offer of {}: {} msat/GiB", offer["peer"], offer["price_msat_per_gib"]));
    }
    let mut last = String::new();
    let mut summary = market
        .purchase(&link, dest, |line| {
            let kind = line["type"].as_str().unwrap_or_default();
            if kind != last || kind != "progress" {
                kind.clone_into(&mut last);
                say(format!("buyer: {line}"));
            }
        })
        .await?;
    let (bought, original) = (hash(dest)?, hash(file)?);
    ensure!(bought == original, "bought {bought}, published {original}");
    say(format!("verified: {} bytes, BLAKE3 {bought}", summary["bytes"]));
    let mut books = Vec::new();
    for seller in summary["sellers"].as_array().cloned().unwrap_or_default() {
        let seller = seller["peer"].as_str().context("a seller without an id")?;
        let (sold, held) = market.books(seller).await?;
        say(format!("books of the seller {seller}\n  {sold}\nbooks of the buyer\n  {held}\nthey agree to the msat"));
        books.push(json!({ "peer": seller, "sold": sold, "bought": held }));
    }
    ensure!(!books.is_empty(), "nothing was bought from anybody");
    summary["books"] = json!(books);
    summary["blake3"] = json!(bought);
    Ok(summary)
}

/// The hash of a file; of a folder, that of the paths and hashes of its regular files, which are what is sold of it.
fn hash(path: &Path) -> Result<String> {
    let (mut hashes, mut places) = (BTreeMap::new(), vec![path.to_owned()]);
    while let Some(place) = places.pop() {
        let reading = || format!("reading {}", place.display());
        let found = place.symlink_metadata().with_context(reading)?;
        if found.is_dir() {
            for child in place.read_dir().with_context(reading)? {
                places.push(child?.path());
            }
        } else if found.is_file() {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(std::fs::File::open(&place).with_context(reading)?)?;
            hashes.insert(place.strip_prefix(path)?.to_owned(), hasher.finalize().to_hex().to_string());
        }
    }
    if let Some(file) = hashes.remove(Path::new("")) {
        return Ok(file);
    }
    let folder = hashes.iter().flat_map(|(path, hash)| [path.as_os_str().as_encoded_bytes(), hash.as_bytes()].concat());
    Ok(blake3::hash(&folder.collect::<Vec<_>>()).to_hex().to_string())
}

/// Ctrl-C, or a polite kill.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
