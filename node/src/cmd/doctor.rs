//! `pedlar doctor`: looks whether all is well, and says what to do where it is not.
//!
//! ```text
//! the running node, or its files ─▶ Patient ─ each of CHECKS ─▶ Health ─▶ a line
//! ```
//!
//! **Invariant:** nothing is changed: no lock is taken, no file of the home is opened by SQLite while no node has it, no
//! certificate is pinned. A check that can't be made because of what another one found is left out.

mod books;
mod files;
mod network;
mod patient;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Remote, Verb};
use crate::api::Out;
use crate::cli::prompt::{self, Passphrase};
use crate::cli::screen::Screen;
use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::node::Node;
use patient::Patient;

const EXAMPLES: &str = "\
Examples:
  pedlar doctor
  pedlar doctor --json | jq -r 'select(.ok == false) | .hint'
  pedlar doctor --passphrase-file pass     while no node runs here, to audit the accounts, too

Nothing is changed. Exit code: 0 if all is well, 1 if a check fails; each that fails says what to do.";

/// Every check, in the order in which it is made: first what the others rest on, last what takes time.
const CHECKS: &[Check] = &[
    Check { name: "node", look: files::node },
    Check { name: "config", look: files::config },
    Check { name: "seed", look: files::seed },
    Check { name: "permissions", look: files::permissions },
    Check { name: "space", look: files::space },
    Check { name: "journal", look: books::journal },
    Check { name: "wallet", look: books::wallet },
    Check { name: "ledger", look: books::ledger },
    Check { name: "published", look: books::published },
    Check { name: "listen", look: network::listen },
    Check { name: "peers", look: network::peers },
    Check { name: "reachable", look: network::reachable },
    Check { name: "electrum", look: network::electrum },
    Check { name: "clock", look: network::clock },
];

/// Lines that wait to be shown; there are hardly more.
const QUEUE: usize = 32;

/// Look whether all is well with the node and its data, and what to do where it is not.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Read the passphrase from this file; it is needed while no node runs, to know whose accounts they are.
    #[arg(long, value_name = "FILE", env = "PEDLAR_PASSPHRASE_FILE", hide_env_values = true)]
    #[serde(skip)]
    passphrase_file: Option<PathBuf>,
}

/// What `doctor` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// What one check found.
    Check {
        /// Which one; of those about several things there is one line for each.
        name: String,
        /// Whether all is well.
        ok: bool,
        /// What was seen.
        found: String,
        /// What to do: a command or a setting. Absent where all is well.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

/// What the examination came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    checks: usize,
    failed: usize,
}

/// One thing that is looked at; nothing comes out where it can't be.
struct Check {
    name: &'static str,
    look: fn(&Patient) -> Vec<Health>,
}

/// What a check found.
struct Health {
    found: String,
    /// What to do, where something is to be done.
    hint: Option<String>,
}

impl Health {
    fn well(found: impl Into<String>) -> Self {
        Self { found: found.into(), hint: None }
    }

    fn ill(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { found: found.into(), hint: Some(hint.into()) }
    }
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(Line::Check { name, ok, found, hint }: Line, screen: &mut Screen) -> io::Result<()> {
        screen.text(format_args!("{}  {name:<12}{found}", if ok { "ok  " } else { "FAIL" }))?;
        hint.map_or(Ok(()), |hint| screen.text(format_args!("{:18}-> {hint}", "")))
    }

    fn sum_up(Summary { checks, failed }: Summary, screen: &mut Screen) -> io::Result<()> {
        match failed {
            0 => screen.text(format_args!("All is well: {checks} checks.")),
            _ => screen.text(format_args!("{failed} of {checks} checks failed.")),
        }
    }

    fn exit_code(summary: &Summary) -> ExitCode {
        if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(u8::from(Exit::Failure)) }
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let patient = Patient::of_node(node).await?;
        let (mut examination, mut summary) = (Examination::begin(move || patient)?, Summary::none());
        while let Some(line) = examination.next().await? {
            summary.count(&line);
            out.line(line).await?;
        }
        Ok(summary)
    }
}

impl Args {
    /// Looks at a home in which no node runs.
    ///
    /// # Errors
    /// Where there is no home at all, and when the screen can't be written to.
    pub(super) async fn perform(&self, home: &Home, screen: &mut Screen) -> Result<ExitCode, Failure> {
        if !home.is_initialized() && !home.journal().exists() && !home.config_file().exists() {
            let message = format!("there is no node in {home} yet");
            return Err(Failure::usage("not_initialized", message).hint("make it first: pedlar init"));
        }
        let passphrase = match (&self.passphrase_file, prompt::is_possible() && home.is_initialized()) {
            (None, false) => None,
            (file, _) => Some(prompt::passphrase(file.as_deref(), Passphrase::Known)?),
        };
        let home = home.clone();
        let gather = move || Patient::of_home(home, passphrase);
        let (mut examination, mut summary) = (Examination::begin(gather)?, Summary::none());
        while let Some(line) = examination.next().await? {
            summary.count(&line);
            screen.line::<Self>(line)?;
        }
        let code = Self::exit_code(&summary);
        screen.summary::<Self>(summary).map(|()| code)
    }
}

impl Summary {
    const fn none() -> Self {
        Self { checks: 0, failed: 0 }
    }

    fn count(&mut self, Line::Check { ok, .. }: &Line) {
        self.checks += 1;
        self.failed += usize::from(!ok);
    }
}

/// Every check, made on a thread of its own, which a person who has seen enough need not wait for.
struct Examination {
    lines: mpsc::Receiver<Line>,
    thread: Option<JoinHandle<()>>,
}

impl Examination {
    /// Gathers what is to be looked at, and begins to look.
    fn begin(gather: impl FnOnce() -> Patient + Send + 'static) -> Result<Self, Failure> {
        let (sender, lines) = mpsc::channel(QUEUE);
        let look = move || {
            let patient = gather();
            for Check { name, look } in CHECKS {
                for Health { found, hint } in look(&patient) {
                    let line = Line::Check { name: (*name).to_owned(), ok: hint.is_none(), found, hint };
                    if sender.blocking_send(line).is_err() {
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("doctor".into()).spawn(look).map_err(Failure::system)?;
        Ok(Self { lines, thread: Some(thread) })
    }

    /// What the next check found; nothing when all are made.
    ///
    /// # Errors
    /// When one of them broke off: what was not looked at is not well.
    async fn next(&mut self) -> Result<Option<Line>, Failure> {
        if let Some(line) = self.lines.recv().await {
            return Ok(Some(line));
        }
        // Its last act was to let go of the lines.
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(Failure::system("a check broke off, which is a mistake in this program")),
            Some(Ok(())) | None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn checks_have_names_of_their_own() {
        let names: BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[tokio::test]
    async fn a_check_that_breaks_off_is_no_good_news() {
        let mut examination = Examination::begin(|| panic!("as a check might")).unwrap();
        assert!(examination.next().await.is_err());
    }
}
