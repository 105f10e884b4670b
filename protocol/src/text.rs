//! Text that a stranger wrote: bounded when it is read, made visible when it is shown.

use std::fmt::{self, Write};

/// The most characters of a stranger's text that are ever shown; what follows is cut and marked with `…`.
pub const MAX_SHOWN: usize = 256;

/// A name that a stranger gave to something: 1 to 128 bytes of UTF-8, escaped wherever it is printed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Takes a name as it came.
    ///
    /// # Errors
    /// When it is empty or longer than [`Name::MAX_LEN`].
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(NameError { len: name.len() });
        }
        Ok(Self(name))
    }

    /// The raw text: never print it, never use it as a path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0).fmt(f)
    }
}

/// A name that is empty or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {max} bytes, not {len}", max = Name::MAX_LEN)]
pub struct NameError {
    /// The length of what was given, in bytes.
    pub len: usize,
}

/// Prints a stranger's text on one line, with everything that is invisible or steers the terminal as `\u{..}`.
///
/// That is: control characters (ANSI sequences, newlines, NUL), marks that reverse the direction of text, characters
/// without width, line separators and tags. A backslash is doubled, so that no text can pretend to be escaped. At most
/// [`MAX_SHOWN`] characters are printed. The danger is described in Unicode Technical Report 36.
#[must_use]
pub const fn escape(text: &str) -> Escaped<'_> {
    Escaped(text)
}

/// What [`escape`] returns.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.chars();
        for char in rest.by_ref().take(MAX_SHOWN) {
            match char {
                '\\' => f.write_str("\\\\")?,
                _ => write_visible(f, char)?,
            }
        }
        if rest.next().is_some() { f.write_char('…') } else { Ok(()) }
    }
}

/// Passes text on, whatever it is made of, with each hidden character as `\u{..}`, and cuts it after so many characters:
/// for logs, whose values come from everywhere, one of them in a library's own words.
///
/// Unlike [`escape`] it leaves backslashes alone, so that what was escaped before stays as it is.
#[derive(Debug)]
pub struct Visible<W> {
    inner: W,
    left: usize,
    cut: bool,
}

impl<W: Write> Visible<W> {
    /// What is written to this goes to `inner`, at most `most` characters of it and `…`.
    pub const fn new(inner: W, most: usize) -> Self {
        Self { inner, left: most, cut: false }
    }

    /// Writes a value as `format_args!` has it; one that is too long is cut, and its rest is never made.
    ///
    /// # Errors
    /// What `inner` says.
    pub fn write(&mut self, value: fmt::Arguments<'_>) -> fmt::Result {
        match self.write_fmt(value) {
            Err(_) if self.cut => Ok(()),
            written => written,
        }
    }
}

impl<W: Write> Write for Visible<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let Some(left) = self.left.checked_sub(1) else {
                if !std::mem::replace(&mut self.cut, true) {
                    self.inner.write_char('…')?;
                }
                // Ends whoever writes: a megabyte that nobody reads need not be formatted.
                return Err(fmt::Error);
            };
            self.left = left;
            write_visible(&mut self.inner, char)?;
        }
        Ok(())
    }
}

fn write_visible(to: &mut impl Write, char: char) -> fmt::Result {
    if is_hidden(char) { write!(to, "{}", char.escape_unicode()) } else { to.write_char(char) }
}

/// Whether a character steers a terminal, prints nothing, or changes how its neighbours print.
#[must_use]
pub fn is_hidden(char: char) -> bool {
    char.is_control() || is_invisible(char)
}

/// Whether a character that is no control character still prints nothing, or changes how its neighbours print.
const fn is_invisible(char: char) -> bool {
    matches!(char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' // soft hyphen, grapheme joiner, Arabic letter mark
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' // Khmer vowels, Mongolian selectors
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' // joiners, separators, direction
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' // selectors, byte order mark, annotations
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' // shorthand, music, tags
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_text_is_made_visible() {
        let shown = |text| escape(text).to_string();
        assert_eq!(shown("Tom & Jerry's Bücher 日本.mp4"), "Tom & Jerry's Bücher 日本.mp4");
        assert_eq!(shown("\x1b[2Jgone\n\r\0"), "\\u{1b}[2Jgone\\u{a}\\u{d}\\u{0}");
        assert_eq!(shown("invoice\u{202e}fdp.exe"), "invoice\\u{202e}fdp.exe");
        assert_eq!(shown("a\u{200b}b\u{feff}\u{85}"), "a\\u{200b}b\\u{feff}\\u{85}");
        assert_eq!(shown("\\u{1b}"), "\\\\u{1b}");
    }

    #[test]
    fn a_megabyte_is_cut() {
        let shown = escape(&"x".repeat(1 << 20)).to_string();
        assert_eq!(shown.chars().count(), MAX_SHOWN + 1);
        assert!(shown.ends_with('…'));
    }

    #[test]
    fn whatever_writes_is_made_visible_and_cut() {
        let written = |value: &dyn fmt::Debug, most| {
            let mut text = String::new();
            Visible::new(&mut text, most).write(format_args!("{value:?} and more")).unwrap();
            text
        };
        assert_eq!(written(&1, 20), "1 and more");
        assert_eq!(written(&["\x1b[2J", "\u{202e}"], 60), "[\"\\u{1b}[2J\", \"\\u{202e}\"] and more");
        assert_eq!(written(&"x".repeat(1 << 20), 5), "\"xxxx…");
        let mut text = String::new();
        Visible::new(&mut text, 9).write(format_args!("\0\u{9b}\u{2066}a\n")).unwrap();
        assert_eq!(text, "\\u{0}\\u{9b}\\u{2066}a\\u{a}");
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(Name::new(""), Err(NameError { len: 0 }));
        assert_eq!(Name::new("ä".repeat(65)), Err(NameError { len: 130 }));
        assert_eq!(Name::new("ä".repeat(64)).unwrap().as_str().len(), Name::MAX_LEN);
        assert_eq!(Name::new("a\tb").unwrap().to_string(), "a\\u{9}b");
    }

    proptest! {
        #[test]
        fn nothing_shown_steers_a_terminal(text: String) {
            prop_assert!(!escape(&text).to_string().chars().any(is_hidden));
        }
    }
}
