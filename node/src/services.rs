//! The goods: one file each.

mod chunks;

pub(crate) use chunks::Chunks;
