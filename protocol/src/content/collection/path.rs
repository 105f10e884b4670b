//! Where a file lies in its collection.

use std::fmt;

use crate::text::escape;

/// The longest path in bytes: a quarter of what Linux takes, so that there is room for the folder it goes to.
pub const MAX_PATH_LEN: usize = 1024;

/// The longest part of a path in bytes: what file systems take.
pub const MAX_PART_LEN: usize = 255;

/// What stands for `/` in a folded path: the lowest character, which no path holds.
pub(super) const FOLDED_SEPARATOR: char = '\0';

/// A path in a collection: relative, UTF-8, its parts joined by `/`, none of them empty, `.` or `..`, without NUL and
/// backslash. Shown escaped: a stranger wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(String);

/// Why a path may not stand in a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    Encoding,
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// Longer than [`MAX_PATH_LEN`].
    #[error("it has {0} bytes, at most {MAX_PATH_LEN} are allowed")]
    TooLong(usize),
    /// An empty part: it begins or ends with `/`, or has two of them in a row.
    #[error("it has an empty part")]
    EmptyPart,
    /// A part `.` or `..`.
    #[error("it has a part `.` or `..`")]
    Dots,
    /// A NUL character.
    #[error("it has a NUL character")]
    Nul,
    /// A backslash, which other systems take for a separator.
    #[error("it has a backslash")]
    Backslash,
    /// A part longer than [`MAX_PART_LEN`].
    #[error("it has a part of {0} bytes, at most {MAX_PART_LEN} are allowed")]
    PartTooLong(usize),
}

impl EntryPath {
    /// Takes a path as it came.
    ///
    /// # Errors
    /// [`PathError`] says why it may not stand.
    pub fn new(path: impl Into<String>) -> Result<Self, PathError> {
        let path = path.into();
        match path.len() {
            0 => return Err(PathError::Empty),
            len if len > MAX_PATH_LEN => return Err(PathError::TooLong(len)),
            _ => {}
        }
        for part in path.split('/') {
            check_part(part)?;
        }
        Ok(Self(path))
    }

    /// Takes a path as it came, in bytes.
    ///
    /// # Errors
    /// [`PathError`] says why it may not stand.
    pub fn from_bytes(path: &[u8]) -> Result<Self, PathError> {
        Self::new(std::str::from_utf8(path).map_err(|_| PathError::Encoding)?)
    }

    /// The raw text: never print it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders that it lies in, outermost first, and its own name.
    #[must_use]
    pub fn split(&self) -> (Vec<&str>, &str) {
        match self.0.rsplit_once('/') {
            Some((folders, name)) => (folders.split('/').collect(), name),
            None => (Vec::new(), &self.0),
        }
    }

    /// The path with upper and lower case made one (Unicode full case folding), separators below all other characters.
    pub(super) fn folded(&self) -> String {
        let folded = unicase::UniCase::unicode(&self.0).to_folded_case();
        folded.chars().map(|char| if char == '/' { FOLDED_SEPARATOR } else { char }).collect()
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0).fmt(f)
    }
}

fn check_part(part: &str) -> Result<(), PathError> {
    match part {
        "" => Err(PathError::EmptyPart),
        "." | ".." => Err(PathError::Dots),
        _ if part.contains('\0') => Err(PathError::Nul),
        _ if part.contains('\\') => Err(PathError::Backslash),
        _ if part.len() > MAX_PART_LEN => Err(PathError::PartTooLong(part.len())),
        _ => Ok(()),
    }
}
