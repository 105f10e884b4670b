//! The state file of a download: a header, a bit for each verified group, and the hash tree as far as it is known.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use pedlar_protocol::content::{Root, Size};

use super::files::reserve;
use super::have::Have;

/// What a state file begins with; the last byte is the version of its layout.
const MAGIC: [u8; 16] = *b"pedlar download\x01";

/// Bytes of magic, root and size.
const HEADER_LEN: usize = 16 + 32 + 8;

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

/// The size under which the download of this object was begun; nothing where `state` is none of it, or not whole.
pub(super) fn claimed(state: &File, root: Root) -> io::Result<Option<Size>> {
    let mut found = [0; HEADER_LEN];
    let len = state.metadata()?.len();
    if len < HEADER_LEN as u64 {
        return Ok(None);
    }
    state.read_exact_at(&mut found, 0)?;
    let bytes = found.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let size = bytes.and_then(Size::new);
    Ok(size.filter(|size| found.as_slice() == header(root, *size) && len == file_len(*size)))
}

/// Magic, root, and size in 8 bytes little-endian.
fn header(root: Root, size: Size) -> Vec<u8> {
    [MAGIC.as_slice(), root.as_bytes(), &size.bytes().to_le_bytes()].concat()
}
