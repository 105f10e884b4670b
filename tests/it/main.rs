//! The end-to-end suites: one module per story.
//!
//! Each story has its own chain, its own nodes (processes) and its own folder. `cargo test -p pedlar-tests purchase`
//! tells one; those that are ignored take long: `cargo test -p pedlar-tests -- --ignored`.

mod advances;
mod backup;
mod bits;
mod blocks;
mod budget;
mod changed;
mod cli;
mod crash;
mod devnet;
mod disk_full;
mod doctor;
mod electrum_down;
mod evidence;
mod fees;
mod flood;
mod folders;
mod frames;
mod freeloader;
mod games;
mod hostile_text;
mod integrity;
mod interrupted;
mod late_joiner;
mod limits;
mod link;
mod market;
mod migration;
mod mutants;
mod offers;
mod pins;
mod purchase;
mod real_chain;
mod real_channels;
mod real_wallet;
mod reorg;
mod secrets;
mod servers;
mod several;
mod sigterm;
mod swarm_of_sellers;
mod verbs;
mod wallet;

use pedlar_tests::cluster::World;

const MIB: u64 = 1 << 20;

/// What the honest sellers of most stories ask: a MiB costs 6.8 sat, so that a mistake of a group shows.
const PRICE: &str = "7000sat/GiB";

/// Windows that never grow: a few MiB then take seconds, in which a session can be disturbed.
const SMALL_WINDOWS: &str = "[limits]\nmax_window = \"64KiB\"\n";

/// A fresh world for one story.
async fn world() -> World {
    World::new(env!("CARGO_BIN_EXE_pedlar-under-test")).await
}
