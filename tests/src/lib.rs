//! What the end-to-end stories under `it/` are told with.
//!
//! | file | holds |
//! |---|---|
//! | [`cluster`] | a chain, its server and nodes that are processes, for one story |
//! | [`dice`] | chance that can be had again |
//! | [`disk`] | disks that fill up |
//! | [`games`] | games of honest and cheating sides, in the pure core |
//! | [`hostile`] | peers that speak our protocols by hand, and not always as agreed |
//! | [`lying_electrum`] | an Electrum server that lies when it is told to |
//! | [`real_chain`] | Bitcoin Core and electrs |
//! | [`real_wallet`] | Electrum, the wallet that people have |
//! | [`sim`] | markets over a virtual clock, with whoever comes to trade |
//! | [`strace`] | power cuts at a chosen call of the system |
//! | [`journal`] | what a node has written down, as it finds it after a power cut |
//!
//! **Invariant:** a story waits for what it needs and never for a time; what it waits for comes within [`PATIENCE`] or
//! the story fails and says what did not happen. Nothing is shared between stories, so they run in parallel.
//!
//! [`PATIENCE`]: cluster::PATIENCE

pub mod cluster;
pub mod dice;
pub mod disk;
pub mod games;
pub mod hostile;
pub mod journal;
pub mod lying_electrum;
pub mod real_chain;
pub mod real_wallet;
pub mod sim;
pub mod strace;
