//! The BLAKE3 tree with leaves of 16 KiB: its shape, from `bao-tree`, and the hashes of its nodes.

use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use super::size::{GROUP_LEN, Groups, PAIR_LEN, Size};

/// BLAKE3's own leaves are chunks of 1 KiB; a group is 2^4 of them.
const GROUP_CHUNKS_LOG: u8 = 4;

/// The shape of the tree of an object.
pub(super) fn of(size: Size) -> BaoTree {
    BaoTree::new(size.bytes(), BlockSize::from_chunk_log(GROUP_CHUNKS_LOG))
}

/// `groups` in the chunks of 1 KiB that `bao-tree` counts in.
///
/// A range that ends with the object stays open: a closed one would be split inside its last group.
pub(super) fn chunks(size: Size, groups: Groups) -> ChunkRanges {
    let chunk = |group: u64| ChunkNum(group.saturating_mul(1 << GROUP_CHUNKS_LOG));
    if groups.end() >= size.group_count() {
        ChunkRanges::from(chunk(groups.start())..)
    } else {
        ChunkRanges::from(chunk(groups.start())..chunk(groups.end()))
    }
}

/// The group that holds a chunk of 1 KiB.
pub(super) const fn group_of(chunk: ChunkNum) -> u64 {
    chunk.0 >> GROUP_CHUNKS_LOG
}

/// The hash of group `index`, whose length the caller has checked: it is empty only as the root of an empty object.
pub(super) fn group_hash(index: u64, bytes: &[u8], is_root: bool) -> ChainingValue {
    if is_root {
        return *blake3::hash(bytes).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index.saturating_mul(GROUP_LEN));
    hasher.update(bytes).finalize_non_root()
}

/// The hash of the inner node with these children.
pub(super) fn pair_hash(left: &ChainingValue, right: &ChainingValue, is_root: bool) -> ChainingValue {
    if is_root {
        *hazmat::merge_subtrees_root(left, right, Mode::Hash).as_bytes()
    } else {
        hazmat::merge_subtrees_non_root(left, right, Mode::Hash)
    }
}

/// The two children of an inner node; `None` unless `bytes` are exactly a pair.
pub(super) fn children(bytes: &[u8]) -> Option<(ChainingValue, ChainingValue)> {
    let pair: &[u8; PAIR_LEN] = bytes.try_into().ok()?;
    let (left, right) = pair.split_first_chunk()?;
    Some((*left, right.try_into().ok()?))
}
