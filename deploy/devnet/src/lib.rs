//! A whole Pedlar market on one machine: an embedded chain with an Electrum server, sellers and a buyer.
//!
//! | room | holds |
//! |---|---|
//! | [`chain`] | an in-memory regtest chain that checks real transactions by the rules of Bitcoin Core |
//! | [`electrum`] | serves it to wallets over the Electrum protocol |
//! | [`node`] | one node: a process of its own, this program once more |
//! | [`market`] | chain, nodes, coins for them |
//! | [`purchase`] | the purchase that shows that all of it works |
//! | [`control`] | steering a running market from another terminal |
//! | [`screen`] | what is said, to people and to programs |
//! | `cli`, `table` | the command line; how to try each verb, and the live view |
//!
//! **Invariant:** nothing here is used by the product. Wallets meet this chain only as bytes on a socket, exactly as
//! they meet a public server, and nodes are reached only through their own verbs.

// The output of this program is its lines.
#![allow(clippy::print_stdout)]

pub mod chain;
mod cli;
pub mod control;
pub mod electrum;
pub mod market;
pub mod node;
pub mod purchase;
pub mod screen;
mod table;

pub use cli::main;
pub use node::NODE_MARK;
