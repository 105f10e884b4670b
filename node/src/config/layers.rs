//! Where each value comes from: flags over environment over file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What flags say, by key; a key without values is not said.
pub type Flags = BTreeMap<&'static str, Vec<String>>;

/// A setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key in the file.
    pub key: &'static str,
    /// Its value, in a form that the file takes, too.
    pub value: Value,
    /// Where that came from.
    pub origin: Origin,
}

/// The value of a setting as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// One value; nothing where neither a source nor the default says any.
    One(Option<String>),
    /// Any number of values.
    Many(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(value) => f.write_str(value.as_deref().unwrap_or("-")),
            Self::Many(values) if values.is_empty() => f.write_str("-"),
            Self::Many(values) => f.write_str(&values.join(", ")),
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No source says anything.
    Default,
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
            Self::Default => f.write_str("the default"),
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
    /// Tables of the file that hold nothing, and where they begin: their names may be misspelt all the same.
    empty: Vec<(String, Origin)>,
    settings: Vec<Setting>,
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
        let (mut file, mut empty) = (BTreeMap::new(), Vec::new());
        let at = |offset| Origin::File { path: path.to_owned(), line: line_of(&text, offset) };
        match DeTable::parse(&text) {
            Ok(table) => flatten("", table.get_ref(), &at, &mut file, &mut empty),
            Err(e) => {
                let origin = at(e.span().map_or(0, |span| span.start));
                return Err(ConfigError::Syntax { origin, reason: e.message().to_owned() });
            }
        }
        Ok(Self { flags, env, file, empty, settings: Vec::new() })
    }

    /// The single value of `key`: the first source's that has it, else `default`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is a list or `parse` refuses it.
    pub(super) fn one<T: fmt::Display, P: fmt::Display>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, P>,
    ) -> Result<T, ConfigError> {
        let (value, origin) = self.single(key, parse)?.unwrap_or((default, Origin::Default));
        self.settings.push(Setting { key, value: Value::One(Some(value.to_string())), origin });
        Ok(value)
    }

    /// The single value of `key`, where any source has it.
    ///
    /// # Errors
    /// As [`Layers::one`].
    pub(super) fn maybe<T: fmt::Display, P: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, P>,
    ) -> Result<Option<T>, ConfigError> {
        let (value, origin) = self.single(key, parse)?.map_or((None, Origin::Default), |(value, at)| (Some(value), at));
        self.settings.push(Setting { key, value: Value::One(value.as_ref().map(T::to_string)), origin });
        Ok(value)
    }

    /// The values of `key`: the first source's that has any, else `default`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the first that `parse` refuses.
    pub(super) fn list<T: fmt::Display, P: fmt::Display>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, P>,
    ) -> Result<Vec<T>, ConfigError> {
        let split = |text: String| text.split(',').map(|part| part.trim().to_owned()).collect();
        let (values, origin) = match self.take(key, split) {
            Some(Written { values, origin }) => {
                let parsed = values.iter().map(|value| parse_at(key, value, &origin, &parse));
                (parsed.collect::<Result<_, _>>()?, origin)
            }
            None => (default, Origin::Default),
        };
        self.settings.push(Setting { key, value: Value::Many(values.iter().map(T::to_string).collect()), origin });
        Ok(values)
    }

    /// All settings in the order in which they were asked for, once all are.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`] for the first line of the file that nobody took.
    pub(super) fn finish(self) -> Result<Vec<Setting>, ConfigError> {
        let Self { file, empty, settings, .. } = self;
        let line = |origin: &Origin| match origin {
            Origin::File { line, .. } => *line,
            Origin::Default | Origin::Flag | Origin::Env(_) => 0,
        };
        let holds_settings = |table: &str| {
            let within = |key: &str| key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
            settings.iter().any(|setting| within(setting.key))
        };
        let unknown_tables = empty.into_iter().filter(|(table, _)| !holds_settings(table));
        let unknown = file.into_iter().map(|(key, Written { origin, .. })| (key, origin)).chain(unknown_tables);
        match unknown.min_by_key(|(_, origin)| line(origin)) {
            Some((key, origin)) => {
                let known = settings.iter().map(|setting| setting.key).collect();
                Err(ConfigError::Unknown { origin, key, known })
            }
            None => Ok(settings),
        }
    }

    fn single<T, P: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, P>,
    ) -> Result<Option<(T, Origin)>, ConfigError> {
        let Some(Written { values, origin }) = self.take(key, |text| vec![text]) else {
            return Ok(None);
        };
        match values.as_slice() {
            [value] => Ok(Some((parse_at(key, value, &origin, parse)?, origin))),
            _ => {
                let reason = "one value is expected".to_owned();
                Err(ConfigError::Value { origin, key, value: values.join(", "), reason })
            }
        }
    }

    fn take(&mut self, key: &'static str, split: impl Fn(String) -> Vec<String>) -> Option<Written> {
        let in_file = self.file.remove(key);
        let flag = self.flags.remove(key).filter(|values| !values.is_empty());
        let variable = format!("PEDLAR_{}", key.replace('.', "_").to_uppercase());
        match (flag, (self.env)(&variable)) {
            (Some(values), _) => Some(Written { values, origin: Origin::Flag }),
            (None, Some(text)) => Some(Written { values: split(text), origin: Origin::Env(variable) }),
            (None, None) => in_file,
        }
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
        value: without_login(value),
        reason: reason.to_string(),
    };
    parse(value).map_err(refused)
}

/// A value as it may be shown: of a URL with a name and a password, neither.
fn without_login(value: &str) -> String {
    let parts = value.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
    parts.map_or_else(|| value.to_owned(), |(scheme, host)| format!("{scheme}://…@{host}"))
}

/// Puts the values of a table under their dotted keys, and the names of tables without any beside them.
fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    at: &impl Fn(usize) -> Origin,
    into: &mut BTreeMap<String, Written>,
    empty: &mut Vec<(String, Origin)>,
) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if inner.is_empty() => empty.push((name, at(key.span().start))),
            DeValue::Table(inner) => flatten(&format!("{name}."), inner, at, into, empty),
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
