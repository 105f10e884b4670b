//! A Pedlar node: sessions, disk, the local API and the command line, wired to the swarm, the wallet and the market.

mod accounts;
mod api;
pub mod backup;
pub mod blobs;
mod cli;
mod cmd;
pub mod config;
mod driver;
mod evidence;
pub mod failure;
#[doc(hidden)]
pub mod fuzzing;
pub mod home;
mod identity;
mod manners;
pub mod node;
mod offers;
mod purchase;
mod service;
mod services;
mod session;
mod shop;
pub mod socket;
mod store;

pub use cli::{command, main, run};
pub use pedlar_protocol::money;
