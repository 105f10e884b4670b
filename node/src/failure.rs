//! How a verb fails: the one shape in which every error reaches a person or a program.

use std::borrow::Cow;
use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// What the exit code says; scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", from = "u8")]
#[repr(u8)]
pub enum Exit {
    /// Something failed, and nothing below says it better.
    Failure = 1,
    /// The command or the configuration is wrong.
    Usage = 2,
    /// A part was done.
    Partial = 3,
    /// There is no such thing.
    NotFound = 4,
    /// No node runs in this home.
    NotRunning = 5,
    /// Another node runs in this home.
    Locked = 6,
    /// Money is missing.
    Funds = 10,
    /// It would cost more than was allowed.
    OverLimit = 11,
    /// The passphrase is wrong.
    Passphrase = 12,
    /// The payment is not deep enough yet.
    Unconfirmed = 13,
    /// Nobody sells it at this price.
    NoSeller = 14,
    /// What came was not what was asked for.
    Integrity = 15,
    /// The network failed: trying again may help.
    Network = 20,
    /// The user ended it.
    Interrupted = 130,
}

impl Exit {
    const ALL: [Self; 14] = [
        Self::Failure,
        Self::Usage,
        Self::Partial,
        Self::NotFound,
        Self::NotRunning,
        Self::Locked,
        Self::Funds,
        Self::OverLimit,
        Self::Passphrase,
        Self::Unconfirmed,
        Self::NoSeller,
        Self::Integrity,
        Self::Network,
        Self::Interrupted,
    ];
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit as Self
    }
}

/// A number that this version does not know is a plain failure.
impl From<u8> for Exit {
    fn from(number: u8) -> Self {
        Self::ALL.into_iter().find(|exit| *exit as u8 == number).unwrap_or(Self::Failure)
    }
}

const UNANSWERED: &str = "node_ended";

/// A verb's end without a summary, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Tells cases of one exit apart, such as `insufficient_funds`.
    pub code: Cow<'static, str>,
    /// The exit code.
    pub exit: Exit,
    /// What happened, in a sentence.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, code: &'static str, message: impl fmt::Display) -> Self {
        Self { code: Cow::Borrowed(code), exit, message: message.to_string(), hint: None }
    }

    /// The node was asked and ended before it had answered: what was asked for may have been done.
    pub(crate) fn unanswered() -> Self {
        Self::new(Exit::NotRunning, UNANSWERED, "the node ended before it had answered").hint(
            "it may have done what you asked: look before you ask again, at `pedlar wallet history` where you paid something",
        )
    }

    /// Whether that is what happened.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.code == UNANSWERED
    }

    /// A mistake in what was typed or configured.
    pub fn usage(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, code, message)
    }

    /// A failure of this machine: its disk, its terminal, its randomness.
    pub fn system(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failure, "system", message)
    }

    /// The output can't be written: its reader has gone, or the disk is full.
    pub(crate) fn output(error: std::io::Error) -> Self {
        Self::new(Exit::Failure, "output", format!("the output can't be written: {error}"))
    }

    /// The failure with what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What the process ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(u8::from(self.exit))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_its_journey() {
        let short = Failure::new(Exit::Funds, "insufficient_funds", "too little").hint("send more");
        let text = serde_json::to_string(&short).unwrap();
        assert_eq!(text, r#"{"code":"insufficient_funds","exit":10,"message":"too little","hint":"send more"}"#);
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), short);
    }

    #[test]
    fn exit_codes_keep_their_numbers() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from(u8::from(exit)), exit);
        }
        assert_eq!([Exit::Usage, Exit::NoSeller, Exit::Interrupted].map(u8::from), [2, 14, 130]);
        assert_eq!(Exit::from(77), Exit::Failure);
    }
}
