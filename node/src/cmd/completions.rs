//! `pedlar completions`: what a shell needs to complete verbs and flags.

use std::io::{self, Write};

use clap_complete::{Shell, generate};

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  pedlar completions bash > ~/.local/share/bash-completion/completions/pedlar
  pedlar completions zsh > ~/.zfunc/_pedlar        # where fpath has ~/.zfunc
  pedlar completions fish > ~/.config/fish/completions/pedlar.fish";

/// Print a script that completes verbs and flags in a shell.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// For which shell.
    shell: Shell,
}

/// Prints the script for `command`: the one verb whose output is no lines of JSON, since a shell reads it.
///
/// # Errors
/// When the output can't be written.
pub(crate) fn perform(args: &Args, mut command: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "pedlar", &mut script);
    io::stdout().write_all(&script).map_err(Failure::output)
}
