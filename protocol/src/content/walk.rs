//! The walk over the part of a tree that proves a range of groups, the same for seller and buyer.

use bao_tree::BaoTree;
use bao_tree::iter::{BaoChunk, ResponseIter};
use blake3::hazmat::ChainingValue;

use super::size::{Groups, PAIR_LEN, Size};
use super::{Root, tree};

/// What comes next in a response: an inner node or a group, each before what lies right of it (pre-order).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// An inner node: [`PAIR_LEN`] bytes.
    Parent {
        /// Its byte offset in the object's outboard.
        offset: u64,
    },
    /// A group of the object.
    Group {
        /// Its number; it lies at byte `index × GROUP_LEN`.
        index: u64,
        /// Its length in bytes: 16 KiB, or less for the last.
        len: usize,
    },
}

impl Item {
    /// The item's length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "only the group of the empty object is empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::Parent { .. } => PAIR_LEN,
            Self::Group { len, .. } => len,
        }
    }
}

/// The range does not lie within the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("groups end at {end}, the object has {count}")]
pub struct OutOfRange {
    /// The end that was asked for.
    pub end: u64,
    /// How many groups there are.
    pub count: u64,
}

/// The bytes are not those under this root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of group {group} are not those under the root")]
pub struct Mismatch {
    /// The group that failed; for an inner node the first group of the range under it.
    pub group: u64,
}

/// A walk from the root down to a range of groups that takes nothing but what the root commits to.
///
/// [`Walk::peek`] says what comes next, [`Walk::accept`] takes its bytes and steps on. A refusal leaves the walk where
/// it was. Memory: the hashes still expected, at most one for each level of the tree.
#[derive(Debug)]
pub struct Walk {
    tree: BaoTree,
    steps: ResponseIter,
    next: Option<BaoChunk>,
    expected: Vec<ChainingValue>,
    group: u64,
}

impl Walk {
    /// A walk over `groups` of the object under `root`.
    ///
    /// # Errors
    /// [`OutOfRange`] if the object of that size has fewer groups.
    pub fn new(root: Root, size: Size, groups: Groups) -> Result<Self, OutOfRange> {
        let count = size.group_count();
        if groups.end() > count {
            return Err(OutOfRange { end: groups.end(), count });
        }
        let tree = tree::of(size);
        let mut steps = ResponseIter::new(tree, tree::chunks(size, groups));
        let next = steps.next();
        Ok(Self { tree, steps, next, expected: vec![*root.as_bytes()], group: groups.start() })
    }

    /// The item that comes next; `None` when all groups of the range were accepted.
    #[must_use]
    pub fn peek(&self) -> Option<Item> {
        Some(match self.next? {
            BaoChunk::Parent { node, .. } => {
                let position = self.tree.post_order_offset(node)?.value();
                Item::Parent { offset: position.saturating_mul(PAIR_LEN as u64) }
            }
            BaoChunk::Leaf { start_chunk, size, .. } => Item::Group { index: tree::group_of(start_chunk), len: size },
        })
    }

    /// Takes the bytes of the item that comes next.
    ///
    /// # Errors
    /// [`Mismatch`] if they are not those that the root commits to, are of another length, or nothing is expected.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        let mismatch = Mismatch { group: self.group };
        let (Some(next), Some(expected)) = (self.next, self.expected.last()) else {
            return Err(mismatch);
        };
        match next {
            BaoChunk::Parent { is_root, left, right, .. } => {
                let (left_hash, right_hash) = tree::children(bytes).ok_or(mismatch)?;
                if tree::pair_hash(&left_hash, &right_hash, is_root) != *expected {
                    return Err(mismatch);
                }
                self.expected.pop();
                self.expected.extend(right.then_some(right_hash));
                self.expected.extend(left.then_some(left_hash));
            }
            BaoChunk::Leaf { start_chunk, size, is_root, .. } => {
                let index = tree::group_of(start_chunk);
                if bytes.len() != size || tree::group_hash(index, bytes, is_root) != *expected {
                    return Err(mismatch);
                }
                self.expected.pop();
                self.group = index.saturating_add(1);
            }
        }
        self.next = self.steps.next();
        Ok(())
    }
}
