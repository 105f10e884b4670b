//! A Pedlar node: sessions, disk, the local API and the command line, wired to the swarm, the wallet and the market.

mod accounts;
#[allow(dead_code, unused_imports, reason = "the verbs, which use it, come next")]
mod api;
pub mod blobs;
pub mod config;
mod driver;
pub mod failure;
pub mod home;
pub mod node;
mod purchase;
mod service;
mod services;
mod session;
mod shop;
mod store;

use std::process::ExitCode;

/// Temporary.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
