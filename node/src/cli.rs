//! The command line: what can be typed, and the way from there to a verb and back to an exit code.

pub(crate) mod log;
pub(crate) mod prompt;
pub(crate) mod screen;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use rustix::process::DumpableBehavior;

use crate::cmd::{self, Request, backup, completions, init, up, verify};
use crate::failure::{Exit, Failure};
use crate::home::Home;
use screen::Screen;

const EXAMPLES: &str = "\
Examples:
  pedlar init --electrum ssl://electrum.example.org:60002
  pedlar up
  pedlar publish film.mkv --price 10sat/GiB
  pedlar get pedlar:bafk… --prepay 2000sat

Exit codes:
  0 done        1 failure    2 usage        3 partial            4 not found      5 node not running
  6 locked     10 funds     11 over limit  12 wrong passphrase  13 unconfirmed   14 no seller
  15 integrity  20 network  130 interrupted";

/// Heads the flags that every verb has.
const GLOBAL: &str = "Everywhere";

/// Sells and buys data for bitcoin, from peer to peer.
#[derive(Debug, Parser)]
#[command(name = "pedlar", version, after_help = EXAMPLES)]
struct Cli {
    /// Keep everything in this folder; without it, in the XDG folders.
    #[arg(long, global = true, value_name = "DIR", env = "PEDLAR_HOME", hide_env_values = true, help_heading = GLOBAL)]
    home: Option<PathBuf>,
    /// Print JSON lines, as is done anyway where the output is no terminal.
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// Log more, on stderr; twice, still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    verbose: u8,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Up(up::Args),
    Completions(completions::Args),
    Verify(verify::Args),
    /// Backups: all that the words do not restore, in one encrypted file.
    #[command(subcommand)]
    Backup(backup::Command),
    #[command(flatten)]
    Node(Request),
}

/// All that can be typed, for those who show or complete it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program with these arguments, the first of which is its name.
///
/// Its memory, which may hold keys, is in no core dump, and other programs of its user can't read it.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A system without it has nothing to hide the memory with.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let args: Vec<OsString> = args.into_iter().collect();
    // A mistake in the arguments is told in the form that they ask for, too.
    let mut screen = Screen::new(args.iter().any(|arg| arg == "--json"));
    match parse(&args).and_then(|cli| cli.map_or(Ok(ExitCode::SUCCESS), |cli| perform(cli, &mut screen))) {
        Ok(code) => code,
        Err(failure) => {
            screen.fail(&failure);
            failure.exit_code()
        }
    }
}

/// The command; nothing where help or the version was asked for, which is printed then.
fn parse(args: &[OsString]) -> Result<Option<Cli>, Failure> {
    let error = match Cli::try_parse_from(args) {
        Ok(cli) => return Ok(Some(cli)),
        Err(error) => error,
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return error.print().map(|()| None).map_err(Failure::output);
    }
    let text = error.to_string();
    let message = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    Err(Failure::usage("usage", message.trim()).hint("pedlar --help, and --help after any verb, shows what there is"))
}

fn perform(cli: Cli, screen: &mut Screen) -> Result<ExitCode, Failure> {
    let env = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = Home::resolve(cli.home.as_deref(), env).map_err(|e| Failure::usage("no_home", e))?;
    let done = |()| ExitCode::SUCCESS;
    match cli.verb {
        Verb::Init(args) => init::perform(&args, &home, screen).map(done),
        Verb::Up(args) => up::perform(&args, cli.verbose, &home, screen).map(done),
        Verb::Completions(args) => completions::perform(&args, Cli::command()).map(done),
        Verb::Verify(args) => verify::perform(&args, screen).map(done),
        Verb::Backup(backup::Command::Create(args)) => ask_node(Request::Backup(args), &home, screen),
        Verb::Backup(backup::Command::Restore(args)) => backup::restore(&args, &home, screen).map(done),
        Verb::Node(request) => ask_node(request, &home, screen),
    }
}

fn ask_node(request: Request, home: &Home, screen: &mut Screen) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::system)?;
    runtime.block_on(async {
        tokio::select! {
            outcome = cmd::perform(request, home, screen) => outcome,
            // The node sees the connection close, and cancels the verb.
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted", "interrupted")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::Shell;

    fn parsed(line: &str) -> Result<Option<Cli>, Failure> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples() {
        fn check(command: &clap::Command) {
            for verb in command.get_subcommands() {
                let nested = verb.get_subcommands().next().is_some();
                assert!(nested || verb.get_after_help().is_some(), "{} has no examples", verb.get_name());
                assert!(verb.get_about().is_some(), "{} is not explained", verb.get_name());
                check(verb);
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn shells_take_the_completions_and_find_every_verb_in_them() {
        fn names(command: &clap::Command) -> Vec<String> {
            let verbs = command.get_subcommands();
            verbs.flat_map(|verb| names(verb).into_iter().chain([verb.get_name().to_owned()])).collect()
        }
        let dir = tempfile::tempdir().unwrap();
        for (shell, kind) in [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)] {
            let (mut script, path) = (Vec::new(), dir.path().join(shell));
            clap_complete::generate(kind, &mut Cli::command(), "pedlar", &mut script);
            std::fs::write(&path, &script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for verb in names(&Cli::command()) {
                assert!(script.contains(&verb), "{shell} does not know {verb}");
            }
            match std::process::Command::new(shell).arg("-n").arg(&path).output() {
                Ok(read) => assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr)),
                Err(_) => assert_ne!(shell, "bash", "there is no bash to ask"),
            }
        }
    }

    #[test]
    fn what_can_not_be_meant_is_a_mistake_of_usage() {
        for line in [
            "pedlar",
            "pedlar fly",
            "pedlar publish",
            "pedlar publish f --price 10sat",
            "pedlar publish f --price -1",
            "pedlar unpublish http://example.org",
            "pedlar sell chunks",
            "pedlar sell chunks --price 1 --stop",
            "pedlar sell storage --price 1",
            "pedlar market nothing",
            "pedlar wallet receive --amount 1.5sat",
            "pedlar account show nobody",
            "pedlar --home",
            "pedlar completions cobol",
            "pedlar config",
        ] {
            let failure = parsed(line).expect_err(line);
            assert_eq!((failure.exit, &*failure.code), (Exit::Usage, "usage"), "{line}");
            assert!(!failure.message.is_empty() && !failure.message.starts_with("error"), "{line}: {failure}");
        }
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for line in ["pedlar --home /h --json status", "pedlar status --json --home /h"] {
            let cli = parsed(line).unwrap().unwrap();
            assert!(cli.json && cli.home.is_some_and(|home| home.ends_with("h")), "{line}");
        }
    }
}
