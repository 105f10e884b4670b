//! The figures of a release build, each a ratio of what was measured in one run.
//!
//! ```text
//! cargo bench -p pedlar-tests --bench transfer -- [--only NAME,…] [--size MIB] [--pairs N] [--idle-minutes N]
//! ```
//!
//! | file | measures |
//! |---|---|
//! | [`rounds`] | a paid purchase against an unpaid one, a bare copy, `sendme` and libtorrent, in turns |
//! | [`bare`] | the bare copy: the same swarm carries the same file with no hashing and no account |
//! | [`others`] | programs of others: `sendme`, libtorrent, `b3sum`; skipped loudly where they are missing |
//! | [`memory`] | the peak of both sides for a small and a large file |
//! | [`transports`] | TLS, Noise and QUIC |
//! | [`publish`] | publishing against `b3sum` |
//! | [`crowd`] | many buyers at once on one seller |
//! | [`offers`] | checking offers against verifying their signatures |
//! | [`idle`] | a node that does nothing in a market of 50 |
//! | [`market`], [`measure`] | what they share: nodes as processes, and what the system says of a process |
//!
//! All files lie in `TMPDIR`, which should be on a disk. Absolute figures say nothing on a shared machine; a ratio is the
//! median of the ratios of runs that took turns.

mod bare;
mod crowd;
mod idle;
mod market;
mod measure;
mod memory;
mod offers;
mod others;
mod publish;
mod rounds;
mod transports;

use std::process::ExitCode;

use measure::Report;

/// The program that the nodes run.
const PROGRAM: &str = env!("CARGO_BIN_EXE_pedlar-under-test");

const USAGE: &str = "\
Usage: cargo bench -p pedlar-tests --bench transfer -- [OPTION…]

  --only NAME,…       only these: rounds, memory, transports, publish, offers, crowd, idle   (default: all)
  --against NAME,…    in `rounds`, only against these: unpaid, bare, sendme, libtorrent   (default: all),
                      before: the program of an earlier build that BEFORE_EXE names
  --size MIB          bytes of a transfer   (default: 1024)
  --pairs N           runs of each, in turns   (default: 5)
  --buyers N          buyers in `crowd`   (default: 200)
  --idle-minutes N    how long `idle` watches   (default: 10)

SENDME_EXE names `sendme`, B3SUM_EXE `b3sum`, where they are not in the PATH.";

/// What is to be measured.
struct Options {
    only: Vec<String>,
    against: Vec<String>,
    size: u64,
    pairs: usize,
    buyers: usize,
    idle_minutes: u64,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Option<Self> {
        let mut options =
            Self { only: Vec::new(), against: Vec::new(), size: 1024, pairs: 5, buyers: 200, idle_minutes: 10 };
        let mut args = args;
        let names = |list: String| list.split(',').map(str::to_owned).collect();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // What cargo tells every bench.
                "--bench" => {}
                "--only" => options.only = names(args.next()?),
                "--against" => options.against = names(args.next()?),
                "--size" => options.size = args.next()?.parse().ok()?,
                "--pairs" => options.pairs = args.next()?.parse().ok()?,
                "--buyers" => options.buyers = args.next()?.parse().ok()?,
                "--idle-minutes" => options.idle_minutes = args.next()?.parse().ok()?,
                _ => return None,
            }
        }
        options.size <<= 20;
        (options.size > 0 && options.pairs > 0 && options.buyers > 0).then_some(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if args.next_if(|arg| arg == bare::ROLE).is_some() {
        runtime.block_on(bare::run(args));
        return ExitCode::SUCCESS;
    }
    let Some(options) = Options::parse(args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    runtime.block_on(measure_all(&options));
    ExitCode::SUCCESS
}

async fn measure_all(options: &Options) {
    let mut report = Report::begin();
    if options.wants("rounds") {
        rounds::measure(options, &mut report).await;
    }
    if options.wants("memory") {
        memory::measure(&mut report).await;
    }
    if options.wants("transports") {
        transports::measure(options, &mut report).await;
    }
    if options.wants("publish") {
        publish::measure(options, &mut report).await;
    }
    if options.wants("offers") {
        offers::measure(options, &mut report);
    }
    if options.wants("crowd") {
        crowd::measure(options, &mut report).await;
    }
    if options.wants("idle") {
        idle::measure(options, &mut report).await;
    }
    report.end();
}
