//! What a person or a program gets to see: text, or JSON lines instead of it.

use std::fmt::Display;
use std::io::{IsTerminal, stdout};

use serde_json::Value;

/// The output of this program.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    json: bool,
}

impl Screen {
    /// The output; `json` where the user asked for it.
    #[must_use]
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Text, for people alone.
    pub fn say(self, text: impl Display) {
        if !self.json {
            println!("{text}");
        }
    }

    /// A line of JSON, for programs alone.
    pub fn line(self, line: &Value) {
        if self.json {
            println!("{line}");
        }
    }

    /// Whether a person sees what is drawn.
    #[must_use]
    pub fn is_watched(self) -> bool {
        !self.json && stdout().is_terminal()
    }
}
