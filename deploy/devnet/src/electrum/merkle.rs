//! Merkle branches, of transactions in a block and of headers under a checkpoint.

use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// The siblings on the way from the leaf at `pos` up to the root, and the root.
///
/// An odd level repeats its last node, as Bitcoin does. `None` when there is no such leaf.
pub(super) fn branch(mut level: Vec<sha256d::Hash>, mut pos: usize) -> Option<(Vec<sha256d::Hash>, sha256d::Hash)> {
    level.get(pos)?;
    let mut siblings = Vec::new();
    while level.len() > 1 {
        siblings.push(*level.get(pos ^ 1).or(level.get(pos))?);
        level = level.chunks(2).map(parent).collect();
        pos /= 2;
    }
    Some((siblings, *level.first()?))
}

/// The node above one or two nodes.
fn parent(pair: &[sha256d::Hash]) -> sha256d::Hash {
    let mut engine = sha256d::Hash::engine();
    for node in pair.first().into_iter().chain(pair.last()) {
        engine.input(node.as_byte_array());
    }
    sha256d::Hash::from_engine(engine)
}
