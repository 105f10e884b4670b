//! Verification of a response as it arrives, cut into pieces anywhere.

use bytes::{Bytes, BytesMut};

use super::Root;
use super::size::{Groups, Size};
use super::walk::{Item, Mismatch, OutOfRange, Walk};

/// An item whose bytes are proven to be those under the root; only a [`Verifier`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    item: Item,
    bytes: Bytes,
}

impl Verified {
    /// Which inner node or group it is.
    #[must_use]
    pub const fn item(&self) -> Item {
        self.item
    }

    /// Its bytes, as long as the item.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Bytes that are charged: a group's length, 0 for an inner node.
    #[must_use]
    pub const fn payload_len(&self) -> u64 {
        match self.item {
            Item::Parent { .. } => 0,
            Item::Group { len, .. } => len as u64,
        }
    }
}

/// Why a response was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Bytes that are not those under the root; nothing of that group was passed on.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// Bytes after the end of the response.
    #[error("{bytes} bytes after the end of the response")]
    Surplus {
        /// How many.
        bytes: usize,
    },
    /// The response ended early.
    #[error("the response ended before it was complete")]
    Truncated,
}

/// Takes the bytes of one response in pieces of any length and yields what they prove.
///
/// The response is the items of a [`Walk`] one after the other, with no size in front. Memory: one item at most that
/// is cut by the end of a piece; whole items are slices of the piece they came in, never copied.
#[derive(Debug)]
pub struct Verifier {
    walk: Walk,
    cut: BytesMut,
}

impl Verifier {
    /// A verifier for a response that holds `groups` of the object under `root`.
    ///
    /// # Errors
    /// [`OutOfRange`] if an object of that size has fewer groups.
    pub fn new(root: Root, size: Size, groups: Groups) -> Result<Self, OutOfRange> {
        Ok(Self { walk: Walk::new(root, size, groups)?, cut: BytesMut::new() })
    }

    /// The next proven item, taken off the front of `input`; `None` when that is used up or the response complete.
    ///
    /// # Errors
    /// [`VerifyError::Mismatch`] or [`VerifyError::Surplus`]; the response is then worthless, close the stream.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Verified>, VerifyError> {
        let Some(item) = self.walk.peek() else {
            return if input.is_empty() { Ok(None) } else { Err(VerifyError::Surplus { bytes: input.len() }) };
        };
        let Some(bytes) = self.take(item.len(), input) else {
            return Ok(None);
        };
        self.walk.accept(&bytes)?;
        Ok(Some(Verified { item, bytes }))
    }

    /// Whether all of the response was seen and verified.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.walk.peek().is_none()
    }

    /// Ends the response.
    ///
    /// # Errors
    /// [`VerifyError::Truncated`] if something is missing.
    pub fn finish(self) -> Result<(), VerifyError> {
        if self.is_complete() { Ok(()) } else { Err(VerifyError::Truncated) }
    }

    /// `len` bytes from what an earlier piece left and the front of `input`; `None`, keeping what came, if too few.
    fn take(&mut self, len: usize, input: &mut Bytes) -> Option<Bytes> {
        if self.cut.is_empty() && input.len() >= len {
            return Some(input.split_to(len));
        }
        let lacking = len.saturating_sub(self.cut.len()).min(input.len());
        self.cut.reserve(len.saturating_sub(self.cut.len()));
        self.cut.extend_from_slice(&input.split_to(lacking));
        (self.cut.len() == len).then(|| self.cut.split().freeze())
    }
}
