//! How long an object is, and ranges of its 16 KiB groups.

use std::ops::Range;

/// Bytes in a group: the unit that is verified, counted and written.
///
/// 16 KiB keeps the hash tree at 0.39 % of the object and is one full pass of the widest SIMD hashing.
pub const GROUP_LEN: u64 = 16 * 1024;

/// Bytes of an inner node in an outboard and on the wire: the hashes of its two children.
pub const PAIR_LEN: usize = 64;

/// The largest object, 256 TiB: above what file systems hold in one file, and small enough that no sum of offsets,
/// proofs and charges comes near the end of a `u64`.
pub const MAX_SIZE: u64 = 1 << 48;

/// The length of an object in bytes, at most [`MAX_SIZE`].
///
/// From a peer it is a claim until the object's last group has verified: only that one's proof fixes the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// A size of `bytes`; `None` above [`MAX_SIZE`].
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes <= MAX_SIZE { Some(Self(bytes)) } else { None }
    }

    /// The length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many groups the object has: at least 1, since the empty object is one empty group.
    #[must_use]
    pub const fn group_count(self) -> u64 {
        let count = self.0.div_ceil(GROUP_LEN);
        if count == 0 { 1 } else { count }
    }

    /// All groups of the object.
    #[must_use]
    pub const fn groups(self) -> Groups {
        Groups { start: 0, end: self.group_count() }
    }

    /// Bytes of the object that lie in `groups`: what is charged for them. Groups past the end count as 0.
    #[must_use]
    pub fn bytes_in(self, groups: Groups) -> u64 {
        let end = groups.end.saturating_mul(GROUP_LEN).min(self.0);
        end.saturating_sub(groups.offset())
    }

    /// Bytes on the wire for `groups`: their own and 64 for each inner node that proves them.
    #[must_use]
    pub fn encoded_len(self, groups: Groups) -> u64 {
        let pairs = inner_nodes(self.group_count(), groups.start, groups.end);
        self.bytes_in(groups).saturating_add(pairs.saturating_mul(PAIR_LEN as u64))
    }

    /// Bytes of the object's outboard: 64 for each inner node above its groups.
    #[must_use]
    pub const fn outboard_len(self) -> u64 {
        self.group_count().saturating_sub(1).saturating_mul(PAIR_LEN as u64)
    }
}

/// A range of groups, `start` to `end` exclusive, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Groups {
    start: u64,
    end: u64,
}

impl Groups {
    /// The groups from `start` to `end`, exclusive; `None` if that is empty or past the largest object.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start < end && end <= MAX_SIZE / GROUP_LEN { Some(Self { start, end }) } else { None }
    }

    /// The first group.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The group after the last.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many groups, at least 1.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The byte offset of the first group in the object.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.start.saturating_mul(GROUP_LEN)
    }

    /// The numbers of these groups.
    #[must_use]
    pub const fn indices(self) -> Range<u64> {
        self.start..self.end
    }

    /// Whether group `index` is one of these.
    #[must_use]
    pub const fn contains(self, index: u64) -> bool {
        self.start <= index && index < self.end
    }

    /// The first groups that fit in `bytes`, at least one.
    #[must_use]
    pub fn within(self, bytes: u64) -> Self {
        let end = self.start.saturating_add((bytes / GROUP_LEN).max(1));
        Self { start: self.start, end: end.min(self.end) }
    }
}

/// Inner nodes of a tree over `leaves` that lie above at least one leaf of `start..end`.
///
/// Recursion is as deep as the tree, at most 34.
fn inner_nodes(leaves: u64, start: u64, end: u64) -> u64 {
    let end = end.min(leaves);
    if start >= end || leaves < 2 {
        return 0;
    }
    if start == 0 && end == leaves {
        return leaves.saturating_sub(1);
    }
    // BLAKE3: the left child holds the largest power of two that leaves something for the right.
    let left = leaves.div_ceil(2).next_power_of_two();
    let right = leaves.saturating_sub(left);
    1_u64.saturating_add(inner_nodes(left, start, end)).saturating_add(inner_nodes(
        right,
        start.saturating_sub(left),
        end.saturating_sub(left),
    ))
}
