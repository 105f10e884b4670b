//! File names out of what strangers suggest.

use std::path::Path;

use pedlar_protocol::content::{MAX_NAME_LEN, Root};
use pedlar_protocol::text::is_hidden;

/// A name for a new file in the folder that the user chose, made from an untrusted hint.
///
/// The last part of a path, without control characters or those that reorder or hide text (a name must look like what
/// it is), without dots and spaces at its ends (no `..`, no hidden file), at most [`MAX_NAME_LEN`] bytes. `None` when
/// nothing is left.
#[must_use]
pub fn safe_name(hint: &str) -> Option<String> {
    let last = hint.rsplit(['/', '\\']).next()?;
    let visible: String = last.chars().filter(|c| !is_hidden(*c)).collect();
    let bare = visible.trim_matches(|c: char| c == '.' || c.is_whitespace());
    let cut = &bare[..bare.floor_char_boundary(MAX_NAME_LEN)];
    (!cut.is_empty()).then(|| cut.to_owned())
}

/// What the file at `path` is called to others: its own name made safe, or its root.
pub(super) fn name_of(path: &Path, root: Root) -> String {
    let own = path.file_name().and_then(|name| safe_name(&name.to_string_lossy()));
    own.unwrap_or_else(|| root.to_string())
}
