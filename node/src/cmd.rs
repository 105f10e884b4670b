//! The verbs, one file each, which holds both of its sides.
//!
//! ```text
//! Args ─ clap, serde ─▶ socket ─▶ Remote::run ─ Line … Summary ─▶ socket ─▶ Verb::show, Verb::sum_up     (or --json)
//! ```
//!
//! **Invariant:** a verb that succeeds ends in exactly one summary, because [`Remote::run`] returns it; one that fails
//! ends in a [`Failure`] instead.

pub(crate) mod account;
mod advice;
pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod get;
pub(crate) mod init;
pub(crate) mod market;
pub(crate) mod peers;
pub(crate) mod publish;
pub(crate) mod published;
pub(crate) mod sell;
pub(crate) mod status;
mod text;
pub(crate) mod unpublish;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod wallet;

use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::{self, Answer, Last, LineSender, Out};
use crate::cli::prompt;
use crate::cli::screen::Screen;
use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::node::Node;
pub(crate) use text::Text;

/// What a verb says, and how a person sees it.
pub(crate) trait Verb {
    /// The lines before the summary, told apart by their `type`.
    type Line: Serialize + DeserializeOwned + Send;
    /// The last line.
    type Summary: Serialize + DeserializeOwned + Send;

    /// Shows a line to a person.
    ///
    /// # Errors
    /// When the screen can't be written to.
    fn show(line: Self::Line, screen: &mut Screen) -> io::Result<()>;

    /// Shows the summary to a person.
    ///
    /// # Errors
    /// When the screen can't be written to.
    fn sum_up(summary: Self::Summary, screen: &mut Screen) -> io::Result<()>;

    /// What the process ends with after this summary: a verb may have done what it was asked to and still have bad news.
    fn exit_code(_summary: &Self::Summary) -> ExitCode {
        ExitCode::SUCCESS
    }
}

/// A verb that the running node carries out; the value is its arguments.
pub(crate) trait Remote: Verb {
    /// Does it; dropped when the client goes away.
    ///
    /// # Errors
    /// What is in the way, as the person is told.
    fn run(self, node: &Node, out: Out<Self::Line>) -> impl Future<Output = Result<Self::Summary, Failure>> + Send;

    /// Takes what a rehearsal showed as what will be agreed to: whatever changes in the meantime, no more is spent.
    fn agree(&mut self, _shown: &Self::Line) {}

    /// What the client waits for after the summary came and before it shows it.
    ///
    /// # Errors
    /// When that does not happen.
    fn settle(_home: &Home) -> impl Future<Output = Result<(), Failure>> + Send {
        std::future::ready(Ok(()))
    }
}

/// The lines of a verb that has nothing to say but its summary.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NoLine {}

/// The summary of a verb that has said everything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {}

/// What the running node can be asked for, as it is typed and as it travels.
#[derive(Debug, Clone, clap::Subcommand, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(crate) enum Request {
    Down(down::Args),
    Status(status::Args),
    Doctor(doctor::Args),
    Peers(peers::Args),
    Market(market::Args),
    Publish(publish::Args),
    Unpublish(unpublish::Args),
    Published(published::Args),
    Sell(sell::Args),
    Get(get::Args),
    /// Typed as `backup create`, whose other half needs no node.
    #[command(skip)]
    Backup(backup::Args),
    /// Coins: receive, see and send them.
    #[command(subcommand)]
    Wallet(wallet::Request),
    /// Accounts with other nodes: who owes whom, and advances.
    #[command(subcommand)]
    Account(account::Request),
    /// Settings: see them, and where they come from.
    #[command(subcommand)]
    Config(config::Request),
}

/// Evaluates `$do` with the arguments of whichever verb `$request` is.
macro_rules! each_verb {
    ($request:expr, $args:ident => $do:expr) => {
        match $request {
            Request::Down($args) => $do,
            Request::Status($args) => $do,
            Request::Doctor($args) => $do,
            Request::Peers($args) => $do,
            Request::Market($args) => $do,
            Request::Publish($args) => $do,
            Request::Unpublish($args) => $do,
            Request::Published($args) => $do,
            Request::Sell($args) => $do,
            Request::Get($args) => $do,
            Request::Backup($args) => $do,
            Request::Wallet(wallet::Request::Receive($args)) => $do,
            Request::Wallet(wallet::Request::Balance($args)) => $do,
            Request::Wallet(wallet::Request::Send($args)) => $do,
            Request::Wallet(wallet::Request::History($args)) => $do,
            Request::Wallet(wallet::Request::Bump($args)) => $do,
            Request::Wallet(wallet::Request::Trust($args)) => $do,
            Request::Account(account::Request::List($args)) => $do,
            Request::Account(account::Request::Show($args)) => $do,
            Request::Account(account::Request::Pay($args)) => $do,
            Request::Account(account::Request::Block($args)) => $do,
            Request::Account(account::Request::Unblock($args)) => $do,
            Request::Account(account::Request::Export($args)) => $do,
            Request::Config(config::Request::Show($args)) => $do,
        }
    };
}

impl Request {
    /// The same request, with a name for what it pays where it is to be known before the node is asked.
    fn named(self) -> Result<Self, Failure> {
        match self {
            Self::Wallet(wallet::Request::Send(args)) => Ok(Self::Wallet(wallet::Request::Send(args.named()?))),
            other => Ok(other),
        }
    }

    /// The same request as a dry run, where money is spent and nobody has agreed to it yet.
    fn rehearsal(&self) -> Option<Self> {
        match self {
            Self::Get(args) => args.rehearsal().map(Self::Get),
            Self::Wallet(wallet::Request::Send(args)) => {
                args.rehearsal().map(|args| Self::Wallet(wallet::Request::Send(args)))
            }
            Self::Wallet(wallet::Request::Bump(args)) => {
                args.rehearsal().map(|args| Self::Wallet(wallet::Request::Bump(args)))
            }
            Self::Account(account::Request::Pay(args)) => {
                args.rehearsal().map(|args| Self::Account(account::Request::Pay(args)))
            }
            _ => None,
        }
    }

    /// What was rehearsed, within what it showed.
    fn in_earnest(self) -> Self {
        match self {
            Self::Get(args) => Self::Get(args.in_earnest()),
            Self::Wallet(wallet::Request::Send(args)) => Self::Wallet(wallet::Request::Send(args.in_earnest())),
            Self::Wallet(wallet::Request::Bump(args)) => Self::Wallet(wallet::Request::Bump(args.in_earnest())),
            Self::Account(account::Request::Pay(args)) => Self::Account(account::Request::Pay(args.in_earnest())),
            other => other,
        }
    }
}

/// The node's side: carries out a request and sends its lines.
///
/// # Errors
/// The failure that takes the summary's place.
pub(crate) async fn answer(request: Request, node: Arc<Node>, lines: LineSender) -> Result<(), Failure> {
    each_verb!(request, args => carry_out(args, &node, lines).await)
}

/// The client's side: asks the node of `home`, after the person has agreed where that is due.
///
/// # Errors
/// The failure that the node told of, or why it could not be asked.
pub(crate) async fn perform(mut request: Request, home: &Home, screen: &mut Screen) -> Result<ExitCode, Failure> {
    if let Some(mut rehearsal) = request.rehearsal() {
        if prompt::is_possible() {
            follow(&mut rehearsal, home, screen).await?;
        }
        prompt::consent("Go ahead?")?;
        request = rehearsal.in_earnest();
    }
    let mut request = request.named()?;
    match (follow(&mut request, home, screen).await, &request) {
        (Err(failure), Request::Wallet(wallet::Request::Send(args))) => Err(args.unanswered(failure)),
        (Err(failure), Request::Account(account::Request::Pay(args))) => Err(args.unanswered(failure)),
        (Err(failure), Request::Config(config::Request::Show(args))) if is_not_running(&failure) => {
            args.perform(home, screen).map(|()| ExitCode::SUCCESS)
        }
        (Err(failure), Request::Backup(args)) if is_not_running(&failure) && home.is_initialized() => {
            args.perform(home, screen).map(|()| ExitCode::SUCCESS)
        }
        (Err(failure), Request::Doctor(args)) if is_not_running(&failure) => args.perform(home, screen).await,
        (outcome, _) => outcome,
    }
}

/// Whether nothing was asked because nobody is there; one that went away in the middle has its say instead.
fn is_not_running(failure: &Failure) -> bool {
    failure.exit == Exit::NotRunning && failure.code == api::NOT_RUNNING
}

async fn carry_out<V: Remote>(verb: V, node: &Node, lines: LineSender) -> Result<(), Failure> {
    let summary = verb.run(node, Out::new(lines.clone())).await?;
    let last = api::to_line(&Last::Summary(summary)).map_err(Failure::system)?;
    // A client that has gone does not need it.
    let _ = lines.send(last).await;
    Ok(())
}

async fn follow(request: &mut Request, home: &Home, screen: &mut Screen) -> Result<ExitCode, Failure> {
    let answers = api::ask(home, request).await?;
    each_verb!(request, args => present(args, answers, home, screen).await)
}

/// Shows an answer to a request of this kind, whatever its arguments were.
async fn present<V: Remote>(
    verb: &mut V,
    mut answers: api::Answers,
    home: &Home,
    screen: &mut Screen,
) -> Result<ExitCode, Failure> {
    loop {
        let text = answers.next().await?;
        match Answer::<V::Line, V::Summary>::parse(&text)? {
            Answer::Line(line) => {
                verb.agree(&line);
                if screen.is_json() { screen.raw(&text)? } else { screen.line::<V>(line)? }
            }
            Answer::Summary(summary) => {
                // A node that goes down waits for its clients.
                drop(answers);
                V::settle(home).await?;
                let code = V::exit_code(&summary);
                return screen.summary::<V>(summary).map(|()| code);
            }
        }
    }
}
