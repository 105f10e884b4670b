//! The outboard: an object's inner nodes in a file of their own, in post-order.
//!
//! Post-order, because then hashing a file from front to back appends to the outboard and never goes back, and the
//! inner nodes of an aligned part of the object lie together, so parts can be hashed by several threads and joined.

use blake3::hazmat::ChainingValue;

use super::size::{GROUP_LEN, Groups, PAIR_LEN, Size};
use super::{Root, tree};

/// The groups were not given whole, once and in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A group of another length than its place in the object has.
    #[error("group {group} has {len} bytes")]
    Length {
        /// The group.
        group: u64,
        /// The bytes given.
        len: usize,
    },
    /// A part that does not begin where the one before ends, or begins or ends unaligned.
    #[error("a part that begins at group {start} does not continue at {next}")]
    Order {
        /// Where the part begins.
        start: u64,
        /// Where it should.
        next: u64,
    },
    /// The object has groups that were not given.
    #[error("ended at group {next} of {count}")]
    Incomplete {
        /// The first group that is missing.
        next: u64,
        /// How many there are.
        count: u64,
    },
}

/// Computes an object's root and outboard from its groups, given in order.
///
/// For several threads: each builds a part with [`OutboardBuilder::part`], one [`append`](Self::append)s them. A part
/// holds 2^k groups and begins at a multiple of that; only the last may be shorter. Memory: the pairs not yet taken,
/// and one hash for each level of the tree.
#[derive(Debug)]
pub struct OutboardBuilder {
    size: Size,
    start: u64,
    next: u64,
    complete: Vec<Subtree>,
    pairs: Vec<u8>,
}

#[derive(Debug)]
struct Subtree {
    groups: u64,
    hash: ChainingValue,
}

impl OutboardBuilder {
    /// A builder for a whole object.
    #[must_use]
    pub const fn new(size: Size) -> Self {
        Self::part(size, 0)
    }

    /// A builder for the part of an object that begins at group `start`.
    #[must_use]
    pub const fn part(size: Size, start: u64) -> Self {
        Self { size, start, next: start, complete: Vec::new(), pairs: Vec::new() }
    }

    /// Adds the groups that follow: any number of whole ones, with the object's last perhaps shorter.
    ///
    /// # Errors
    /// [`BuildError::Length`] for a group of the wrong length, also one past the end; those before it are kept.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        if bytes.is_empty() && self.size.bytes() == 0 {
            return self.push_group(bytes);
        }
        bytes.chunks(GROUP_LEN as usize).try_for_each(|group| self.push_group(group))
    }

    /// Adds a part that continues this one.
    ///
    /// # Errors
    /// [`BuildError::Order`] if it does not begin where this one ends, or is longer than its start is aligned to.
    pub fn append(&mut self, part: Self) -> Result<(), BuildError> {
        let groups = part.next.saturating_sub(part.start);
        let aligned = part.start.is_multiple_of(groups.next_power_of_two());
        if part.start != self.next || !aligned {
            return Err(BuildError::Order { start: part.start, next: self.next });
        }
        self.pairs.extend_from_slice(&part.pairs);
        for subtree in part.complete {
            self.add(subtree);
        }
        Ok(())
    }

    /// The pairs completed since the last call, to be appended to the outboard file.
    #[must_use]
    pub fn take_pairs(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pairs)
    }

    /// The object's root, and the last pairs of its outboard.
    ///
    /// # Errors
    /// [`BuildError::Incomplete`] if groups are missing.
    pub fn finish(mut self) -> Result<(Root, Vec<u8>), BuildError> {
        let incomplete = BuildError::Incomplete { next: self.next, count: self.size.group_count() };
        if self.start != 0 || self.next != self.size.group_count() {
            return Err(incomplete);
        }
        // What is left are the subtrees along the right edge, which is not a full power of two.
        while let [.., _, _] = self.complete.as_slice() {
            self.merge();
        }
        let root = self.complete.pop().ok_or(incomplete)?;
        Ok((Root(root.hash), self.pairs))
    }

    fn push_group(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        let wrong = BuildError::Length { group: self.next, len: bytes.len() };
        let group = Groups::new(self.next, self.next.saturating_add(1)).ok_or(wrong)?;
        let count = self.size.group_count();
        if group.end() > count || self.size.bytes_in(group) != bytes.len() as u64 {
            return Err(wrong);
        }
        let hash = tree::group_hash(self.next, bytes, count == 1);
        self.add(Subtree { groups: 1, hash });
        Ok(())
    }

    /// Adds a complete subtree and merges it with its left siblings, as counting in binary carries.
    fn add(&mut self, subtree: Subtree) {
        self.next = self.next.saturating_add(subtree.groups);
        self.complete.push(subtree);
        while let [.., left, right] = self.complete.as_slice()
            && left.groups == right.groups
        {
            self.merge();
        }
    }

    /// Merges the last two subtrees, writing their pair.
    fn merge(&mut self) {
        let (Some(right), Some(left)) = (self.complete.pop(), self.complete.pop()) else {
            return;
        };
        let is_root = self.start == 0 && self.next == self.size.group_count() && self.complete.is_empty();
        self.pairs.reserve(PAIR_LEN);
        self.pairs.extend_from_slice(&left.hash);
        self.pairs.extend_from_slice(&right.hash);
        let hash = tree::pair_hash(&left.hash, &right.hash, is_root);
        self.complete.push(Subtree { groups: left.groups.saturating_add(right.groups), hash });
    }
}
