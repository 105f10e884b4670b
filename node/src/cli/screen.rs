//! What a person or a program gets to see.
//!
//! Each of the two outputs speaks text on a terminal and JSON lines elsewhere, or JSON on both when `--json` asks for it.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write, stderr, stdout};

use indicatif::{ProgressBar, ProgressStyle};
use pedlar_protocol::text::{Visible, is_hidden};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Serialize;

use crate::api::{Last, to_line};
use crate::cmd::Verb;
use crate::failure::Failure;

/// How a transfer is shown while it lasts.
const BAR: &str = "{wide_bar} {binary_bytes} / {binary_total_bytes}  {binary_bytes_per_sec}  {eta}";

/// Both outputs of this process.
pub(crate) struct Screen {
    json: bool,
    json_errors: bool,
    table: Vec<Vec<String>>,
    bar: Option<ProgressBar>,
}

impl Screen {
    /// The screen; `json` where the user asked for it.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json: json || !stdout().is_terminal(),
            json_errors: json || !stderr().is_terminal(),
            table: Vec::new(),
            bar: None,
        }
    }

    /// Whether lines are printed as they are.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// A line of a verb that runs in this process.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn line<V: Verb>(&mut self, line: V::Line) -> Result<(), Failure> {
        if self.json { self.json(&line) } else { V::show(line, self).map_err(Failure::output) }
    }

    /// The summary of a verb that runs in this process.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn summary<V: Verb>(&mut self, summary: V::Summary) -> Result<(), Failure> {
        if self.json {
            return self.json(&Last::Summary(summary));
        }
        V::sum_up(summary, self).and_then(|()| self.finish()).map_err(Failure::output)
    }

    /// A line of JSON as the node sent it.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn raw(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(stdout(), "{line}").map_err(Failure::output)
    }

    /// A line of text.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn text(&mut self, text: impl Display) -> io::Result<()> {
        self.finish()?;
        writeln!(stdout(), "{}", visible(&text.to_string()))
    }

    /// How many there are of something: `1 offer`, `2 offers`.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn count(&mut self, number: usize, thing: &str) -> io::Result<()> {
        self.text(format_args!("{number} {thing}{}", if number == 1 { "" } else { "s" }))
    }

    /// A row of a table under `header`; rows wait for each other, so that their columns meet.
    pub(crate) fn row<const N: usize>(&mut self, header: [&str; N], cells: [String; N]) {
        if self.table.is_empty() {
            self.table.push(header.map(str::to_owned).to_vec());
        }
        self.table.push(cells.to_vec());
    }

    /// How far a transfer is.
    pub(crate) fn progress(&mut self, bytes: u64, total: u64) {
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style)
        });
        bar.set_length(total);
        bar.set_position(bytes);
    }

    /// A text that a phone reads from the terminal.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn qr(&mut self, text: &str) -> io::Result<()> {
        let Ok(code) = QrCode::new(text) else {
            // Too long for a code: the text itself was shown, too.
            return Ok(());
        };
        // Light on dark, as most terminals are; readers take both.
        let image = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
        self.text(image)
    }

    /// The failure that ends the program.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
        let text = match to_line(&Last::<()>::Error(failure.clone())) {
            Ok(json) if self.json_errors => json,
            Ok(_) | Err(_) => {
                let hint = failure.hint.iter().map(|hint| format!("\nhint: {hint}"));
                visible(&format!("error: {failure}{}", hint.collect::<String>())).into_owned()
            }
        };
        // With nobody to read it, the exit code has to do.
        let _ = writeln!(stderr(), "{text}");
    }

    /// Ends the bar and prints the rows that wait.
    fn finish(&mut self) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let rows = std::mem::take(&mut self.table);
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(stdout(), "{}", visible(cells.join("  ").trim_end()))?;
        }
        Ok(())
    }

    fn json(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        self.raw(&to_line(line).map_err(Failure::system)?)
    }
}

/// Lines of text of which nothing steers the terminal, whoever wrote what stands in them; ends of lines are ours.
fn visible(lines: &str) -> Cow<'_, str> {
    if !lines.contains(|char| char != '\n' && is_hidden(char)) {
        return Cow::Borrowed(lines);
    }
    let mut shown = String::with_capacity(lines.len());
    for (number, line) in lines.split('\n').enumerate() {
        if number > 0 {
            shown.push('\n');
        }
        // Writing to a String can't fail.
        let _ = Visible::new(&mut shown, usize::MAX).write(format_args!("{line}"));
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_and_not_done() {
        assert_eq!(visible("a film\nin two lines"), "a film\nin two lines");
        assert_eq!(visible("gone\u{1b}[2J\nname\u{202e}4pm\r"), "gone\\u{1b}[2J\nname\\u{202e}4pm\\u{d}");
    }

    #[test]
    fn json_hides_nothing_and_loses_nothing() {
        let hostile = "\0\u{1b}[2J\u{9b}\u{202e}\u{200b}\u{e0041}</script>\u{feff}😀";
        let line = to_line(&[hostile]).unwrap();
        assert!(!line.contains(is_hidden) && line.contains("\\u202e") && line.contains("\\udb40\\udc41"), "{line}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&line).unwrap(), [hostile]);
    }
}
