//! The log: for people, on stderr, so that stdout is the verb's alone.
//!
//! **Invariant:** whatever is logged, by whom, and whoever wrote it, one event is one line of bounded length in which
//! nothing steers a terminal or is hidden; panics likewise. Secrets have no form that could be logged: their types print
//! nothing of them.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use std::panic::{self, PanicHookInfo};
use std::thread;

use pedlar_protocol::text::Visible;
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::failure::Failure;

/// The most characters of one value: the addresses of a peer fit, what a server makes up does not.
const MAX_VALUE: usize = 1024;

/// Starts the log of this process with these directives, such as `info,pedlar_net=debug`.
///
/// # Errors
/// When the directives can't be read, or there is a log already.
pub(crate) fn start(directives: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(directives).map_err(|e| Failure::usage("config", format!("log: {e}")))?;
    let log = tracing_subscriber::fmt().fmt_fields(VisibleFields).with_env_filter(filter).with_writer(io::stderr);
    // On a full disk it would say so on the same stderr, and panic there.
    let log = log.log_internal_errors(false);
    log.with_ansi(io::stderr().is_terminal()).try_init().map_err(Failure::system)?;
    // Libraries panic with what a server said in their message.
    panic::set_hook(Box::new(lament));
    Ok(())
}

fn lament(panic: &PanicHookInfo<'_>) {
    let mut line = String::new();
    let _ = Visible::new(&mut line, MAX_VALUE).write(format_args!("{panic}"));
    let thread = thread::current();
    let _ = writeln!(io::stderr(), "thread '{}' {line}", thread.name().unwrap_or("?"));
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        let _ = writeln!(io::stderr(), "{trace}");
    }
}

/// Writes the fields of events and spans as the library does, and each value visible.
struct VisibleFields;

impl<'writer> FormatFields<'writer> for VisibleFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut values = Values { writer, any: false, outcome: Ok(()) };
        fields.record(&mut values);
        values.outcome
    }
}

struct Values<'writer> {
    writer: Writer<'writer>,
    any: bool,
    outcome: fmt::Result,
}

impl Values<'_> {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        if std::mem::replace(&mut self.any, true) {
            self.writer.write_char(' ')?;
        }
        if field.name() != "message" {
            write!(self.writer, "{}=", field.name())?;
        }
        Visible::new(&mut self.writer, MAX_VALUE).write(value)
    }
}

impl Visit for Values<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.outcome.is_ok() {
            self.outcome = self.put(field, format_args!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_is_logged_is_one_line_in_which_nothing_is_hidden() {
        let lines = Lines::default();
        let made = lines.clone();
        let log = tracing_subscriber::fmt().fmt_fields(VisibleFields).with_ansi(false);
        let log = log.with_writer(move || made.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let hostile = "\u{1b}[2J\n\u{202e}\u{9b}\0";
            let span = tracing::info_span!("span", %hostile);
            let _inside = span.enter();
            tracing::info!(agent = hostile, error = %"x".repeat(1 << 20), "message {hostile}");
        });
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line = log.strip_suffix('\n').unwrap();
        assert!(!line.contains(pedlar_protocol::text::is_hidden), "{line}");
        assert_eq!(line.matches("\\u{1b}[2J\\u{a}\\u{202e}\\u{9b}\\u{0}").count(), 2, "{line}");
        assert!(line.contains("message \\u{1b}") && line.contains("agent=\"\\u{1b}"), "{line}");
        assert!(line.len() < 2 * MAX_VALUE, "{}", line.len());
    }
}
