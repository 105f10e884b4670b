//! The state file of a download: a header, a bit for each verified group, and the hash tree as far as it is known.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use pedlar_protocol::content::{Root, Size};

use super::files::reserve;
use super::have::Have;

/// What a state file begins with; the last byte is the version of its layout.
const MAGIC: [u8; 16] = *b"pedlar download\x01";

/// Where the bits begin: behind a header that shares no block of the disk with them.
pub(super) const HAVE_AT: u64 = 4096;

/// Where the hash tree begins.
pub(super) fn outboard_at(size: Size) -> u64 {
    HAVE_AT + Have::file_len(size)
}

/// The length of the whole file in bytes.
pub(super) fn file_len(size: Size) -> u64 {
    outboard_at(size) + size.outboard_len()
}

/// Makes `state` that of a new download, with room for all bits and the whole hash tree; durable when this returns.
pub(super) fn begin(state: &File, root: Root, size: Size) -> io::Result<()> {
    state.set_len(0)?;
    reserve(state, file_len(size))?;
    state.write_all_at(&header(root, size), 0)?;
    state.sync_all()
}

/// Whether `state` is that of a download of this object, and whole.
pub(super) fn is_for(state: &File, root: Root, size: Size) -> io::Result<bool> {
    let expected = header(root, size);
    let mut found = vec![0; expected.len()];
    let whole = state.metadata()?.len() == file_len(size);
    if whole {
        state.read_exact_at(&mut found, 0)?;
    }
    Ok(whole && found == expected)
}

/// Magic, root, and size in 8 bytes little-endian.
fn header(root: Root, size: Size) -> Vec<u8> {
    [MAGIC.as_slice(), root.as_bytes(), &size.bytes().to_le_bytes()].concat()
}
