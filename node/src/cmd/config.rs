//! `pedlar config …`: the settings.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Remote, Verb};
use crate::api::Out;
use crate::cli::screen::Screen;
use crate::config::{Config, Flags, Origin, Setting, Value};
use crate::failure::Failure;
use crate::home::Home;
use crate::node::Node;

const EXAMPLES: &str = "\
Examples:
  pedlar config show
  pedlar config show --origin
  PEDLAR_MIN_TOPUP_SAT=5000 pedlar config show --json | jq -r 'select(.key) | \"\\(.key) \\(.value)\"'

While the node runs, these are the settings that it started with, its flags included. Otherwise they are those that a node
started here would have.";

/// What can be done with settings.
#[derive(Debug, Clone, clap::Subcommand, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Request {
    Show(Args),
}

/// Show every setting with its value; no secret is a setting.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Say where each value comes from: a flag, the environment, a line of the file, the default.
    #[arg(long)]
    origin: bool,
}

/// What `config show` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// One setting.
    Setting {
        /// Its key in the file.
        key: String,
        /// Its value; null where it has none.
        value: Value,
        /// With `--origin`: `flag`, `env`, `file` or `default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        origin: Option<Kind>,
        /// With `--origin`: the variable, or the file and its line.
        #[serde(skip_serializing_if = "Option::is_none")]
        place: Option<String>,
    },
}

/// What kind of source a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The command line.
    Flag,
    /// The environment.
    Env,
    /// `config.toml`.
    File,
    /// Nobody said anything.
    Default,
}

/// Whose settings they are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Whether they are those of the running node.
    running: bool,
    /// Where the file is, or would be.
    file: String,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(Line::Setting { key, value, origin, place }: Line, screen: &mut Screen) -> io::Result<()> {
        let from = match (origin, place) {
            (Some(Kind::Flag), _) => "the command line".to_owned(),
            (Some(Kind::Default), _) => "the default".to_owned(),
            (Some(Kind::Env | Kind::File), place) => place.unwrap_or_default(),
            (None, _) => String::new(),
        };
        screen.row(["SETTING", "VALUE", ""], [key, value.to_string(), from]);
        Ok(())
    }

    fn sum_up(Summary { running, file }: Summary, screen: &mut Screen) -> io::Result<()> {
        match running {
            true => screen.text(format_args!("The running node has these; what {file} says counts at its next start.")),
            false => screen.text(format_args!("A node started here has these; they are changed in {file}.")),
        }
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        for line in self.lines(&node.settings) {
            out.line(line).await?;
        }
        Ok(Summary { running: true, file: node.home.home().config_file().display().to_string() })
    }
}

impl Args {
    /// Shows what a node that is started here would have.
    ///
    /// # Errors
    /// A setting that is wrong or unknown, with its line.
    pub(super) fn perform(&self, home: &Home, screen: &mut Screen) -> Result<(), Failure> {
        for line in self.lines(&here(home)?.1) {
            screen.line::<Self>(line)?;
        }
        screen.summary::<Self>(Summary { running: false, file: home.config_file().display().to_string() })
    }

    fn lines(&self, settings: &[Setting]) -> impl Iterator<Item = Line> {
        settings.iter().map(|Setting { key, value, origin }| {
            let (kind, place) = match origin {
                Origin::Default => (Kind::Default, None),
                Origin::Flag => (Kind::Flag, None),
                Origin::Env(_) => (Kind::Env, Some(origin.to_string())),
                Origin::File { .. } => (Kind::File, Some(origin.to_string())),
            };
            let origin = self.origin.then_some(kind);
            Line::Setting { key: (*key).to_owned(), value: value.clone(), origin, place: place.filter(|_| self.origin) }
        })
    }
}

/// The settings as the environment and the file of `home` have them.
///
/// # Errors
/// The first that is wrong or unknown, with its line.
pub(crate) fn here(home: &Home) -> Result<(Config, Vec<Setting>), Failure> {
    let env = |name: &str| std::env::var(name).ok();
    Config::load(&home.config_file(), Flags::new(), env).map_err(|e| Failure::usage("config", e))
}
