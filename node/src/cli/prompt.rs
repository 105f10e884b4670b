//! What is asked of a person, and of the files that answer in their place.

use std::fs::File;
use std::io::{IsTerminal, Read, stderr, stdin};
use std::path::Path;

use console::Term;
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};

/// The longest passphrase or list of words in a file, in bytes.
const MAX_SECRET: u64 = 4096;

/// Whether a passphrase opens something or is chosen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passphrase {
    /// It was chosen before.
    Known,
    /// It is chosen now, so it is asked for twice.
    New,
}

/// The passphrase in `file`, less one end of line, else from the terminal without showing it.
///
/// Only an empty file is an empty passphrase: it must be meant.
///
/// # Errors
/// Without a file and a terminal, or when the person can't repeat it.
pub(crate) fn passphrase(file: Option<&Path>, kind: Passphrase) -> Result<Zeroizing<String>, Failure> {
    if let Some(file) = file {
        let mut text = secret_file(file)?;
        let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        let len = line.len();
        text.truncate(len);
        return Ok(text);
    }
    if !is_possible() {
        return Err(Failure::usage("passphrase_needed", "there is no terminal to ask for the passphrase")
            .hint("give a file that holds it: --passphrase-file FILE"));
    }
    let typed = hidden("Passphrase: ")?;
    if kind == Passphrase::Known {
        return Ok(typed);
    }
    if typed.is_empty() {
        return Err(Failure::usage("empty_passphrase", "an empty passphrase protects nothing")
            .hint("if you mean it, give an empty file: --passphrase-file FILE"));
    }
    if hidden("Once more: ")? != typed {
        return Err(Failure::usage("passphrase_mismatch", "the two passphrases differ: try again"));
    }
    Ok(typed)
}

/// The text of a small file that holds a secret.
///
/// # Errors
/// When it can't be read or is too long to be one.
pub(crate) fn secret_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let unreadable = |e: std::io::Error| Failure::usage("unreadable", format!("{}: {e}", path.display()));
    let mut text = Zeroizing::new(String::new());
    File::open(path).and_then(|file| file.take(MAX_SECRET + 1).read_to_string(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > MAX_SECRET {
        return Err(Failure::usage("unreadable", format!("{} is too long to hold a secret", path.display())));
    }
    Ok(text)
}

/// A line that is typed visibly.
///
/// # Errors
/// When the terminal fails.
pub(crate) fn line(question: &str) -> Result<Zeroizing<String>, Failure> {
    let term = Term::stderr();
    term.write_str(question).and_then(|()| term.read_line()).map(Zeroizing::new).map_err(Failure::system)
}

/// Asks whether to go on; anything but yes is no.
///
/// # Errors
/// [`Exit::Usage`] without a terminal, [`Exit::Interrupted`] on a no.
pub(crate) fn consent(question: &str) -> Result<(), Failure> {
    if !is_possible() {
        return Err(Failure::usage("consent_needed", "there is no terminal to ask whether you agree")
            .hint("--yes agrees beforehand; --dry-run shows to what"));
    }
    let answer = line(&format!("{question} [y/N] "))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Interrupted, "declined", "nothing was done")),
    }
}

/// Whether there is a person at both ends of the terminal.
pub(crate) fn is_possible() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

fn hidden(question: &str) -> Result<Zeroizing<String>, Failure> {
    let term = Term::stderr();
    term.write_str(question).and_then(|()| term.read_secure_line()).map(Zeroizing::new).map_err(Failure::system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<Zeroizing<String>, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, content).unwrap();
        passphrase(Some(&path), Passphrase::New)
    }

    #[test]
    fn a_passphrase_file_ends_in_at_most_one_line_end() {
        for (content, passphrase) in [("a b \n", "a b "), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), ("", "")] {
            assert_eq!(read(content).unwrap().as_str(), passphrase);
        }
    }

    #[test]
    fn what_is_no_passphrase_file_is_a_mistake_of_usage() {
        assert_eq!(read(&"x".repeat(5000)).unwrap_err().exit, Exit::Usage);
        assert_eq!(passphrase(Some(Path::new("/nowhere")), Passphrase::Known).unwrap_err().exit, Exit::Usage);
    }
}
