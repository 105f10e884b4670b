//! Where each value comes from: flags over environment over file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What flags say, by key; a key without values is not said.
pub type Flags = BTreeMap<&'static str, Vec<String>>;

/// Where the value of each key came from; a key that is missing has its default.
pub type Origins = BTreeMap<&'static str, Origin>;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// This environment variable.
    Env(String),
    /// This line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("the command line"),
            Self::Env(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file exists and can't be read.
    #[error("{} can't be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: {reason}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        reason: String,
    },
    /// The file has a key that means nothing.
    #[error("{origin}: there is no setting `{key}`; there is: {}", .known.join(", "))]
    Unknown {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
        /// The keys that mean something.
        known: Vec<&'static str>,
    },
    /// A value does not fit its key.
    #[error("{origin}: {key} = {value:?}: {reason}")]
    Value {
        /// Where.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The value as it was written.
        value: String,
        /// Why it does not fit.
        reason: String,
    },
}

/// A value as text, the form that all sources share; single values are lists of one.
struct Written {
    values: Vec<String>,
    origin: Origin,
}

/// The sources, from which keys are taken one by one; what nobody takes means nothing.
pub(super) struct Layers<E> {
    flags: Flags,
    env: E,
    file: BTreeMap<String, Written>,
    taken: Vec<&'static str>,
    origins: Origins,
}

impl<E: Fn(&str) -> Option<String>> Layers<E> {
    /// Reads the file at `path`, if there is one.
    ///
    /// # Errors
    /// When it can't be read or is not TOML.
    pub(super) fn open(path: &Path, flags: Flags, env: E) -> Result<Self, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        };
        let mut file = BTreeMap::new();
        let at = |offset| Origin::File { path: path.to_owned(), line: line_of(&text, offset) };
        match DeTable::parse(&text) {
            Ok(table) => flatten("", table.get_ref(), &at, &mut file),
            Err(e) => {
                let origin = at(e.span().map_or(0, |span| span.start));
                return Err(ConfigError::Syntax { origin, reason: e.message().to_owned() });
            }
        }
        Ok(Self { flags, env, file, taken: Vec::new(), origins: Origins::new() })
    }

    /// The single value of `key`, where any source has it.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is a list or `parse` refuses it.
    pub(super) fn one<T, P: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, P>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(Written { values, origin }) = self.take(key, |text| vec![text]) else {
            return Ok(None);
        };
        match values.as_slice() {
            [value] => parse_at(key, value, &origin, parse).map(Some),
            _ => {
                let reason = "one value is expected".to_owned();
                Err(ConfigError::Value { origin, key, value: values.join(", "), reason })
            }
        }
    }

    /// The values of `key`, where any source has it.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the first that `parse` refuses.
    pub(super) fn list<T, P: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, P>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let split = |text: String| text.split(',').map(|part| part.trim().to_owned()).collect();
        let Some(Written { values, origin }) = self.take(key, split) else {
            return Ok(None);
        };
        values.iter().map(|value| parse_at(key, value, &origin, &parse)).collect::<Result<_, _>>().map(Some)
    }

    /// Where the values came from, once all keys are taken.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] for the first line of the file that nobody took.
    pub(super) fn finish(self) -> Result<Origins, ConfigError> {
        let Self { file, taken: known, origins, .. } = self;
        let line = |written: &Written| match &written.origin {
            Origin::File { line, .. } => *line,
            Origin::Flag | Origin::Env(_) => 0,
        };
        match file.into_iter().min_by_key(|(_, written)| line(written)) {
            Some((key, Written { origin, .. })) => Err(ConfigError::Unknown { origin, key, known }),
            None => Ok(origins),
        }
    }

    fn take(&mut self, key: &'static str, split: impl Fn(String) -> Vec<String>) -> Option<Written> {
        self.taken.push(key);
        let in_file = self.file.remove(key);
        let flag = self.flags.remove(key).filter(|values| !values.is_empty());
        let variable = format!("PEDLAR_{}", key.replace('.', "_").to_uppercase());
        let written = match (flag, (self.env)(&variable)) {
            (Some(values), _) => Written { values, origin: Origin::Flag },
            (None, Some(text)) => Written { values: split(text), origin: Origin::Env(variable) },
            (None, None) => in_file?,
        };
        self.origins.insert(key, written.origin.clone());
        Some(written)
    }
}

fn parse_at<T, P: fmt::Display>(
    key: &'static str,
    value: &str,
    origin: &Origin,
    parse: impl Fn(&str) -> Result<T, P>,
) -> Result<T, ConfigError> {
    let refused = |reason: P| ConfigError::Value {
        origin: origin.clone(),
        key,
        value: value.to_owned(),
        reason: reason.to_string(),
    };
    parse(value).map_err(refused)
}

/// Puts the values of a table under their dotted keys.
fn flatten(prefix: &str, table: &DeTable<'_>, at: &impl Fn(usize) -> Origin, into: &mut BTreeMap<String, Written>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&format!("{name}."), inner, at, into),
            DeValue::Array(items) => {
                let values = items.iter().map(Spanned::get_ref).map(text_of).collect();
                into.insert(name, Written { values, origin: at(key.span().start) });
            }
            single => {
                into.insert(name, Written { values: vec![text_of(single)], origin: at(key.span().start) });
            }
        }
    }
}

/// A value as it would stand in an environment variable; what is nested deeper than a list fits no key.
fn text_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) | DeValue::Table(_) => format!("a {}", value.type_str()),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
