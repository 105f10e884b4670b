//! A whole Pedlar market on one machine.
//!
//! Layout: [`chain`] is an in-memory regtest chain that checks real transactions by the rules of Bitcoin Core;
//! [`electrum`] serves it to wallets over the Electrum protocol.
//!
//! **Invariant:** nothing here is used by the product. Wallets meet this chain only as bytes on a socket, exactly as they
//! meet a public server.

pub mod chain;
pub mod electrum;
