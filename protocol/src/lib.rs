//! Every decision of a Pedlar node, as pure values and state machines: what is valid, what it costs, who gets credit,
//! the order of a session, when to pay.
//!
//! **Invariant:** nothing here does IO, reads a clock, draws a random number or knows of tokio, the swarm or bitcoin.
//! Time and randomness are arguments; maps are ordered, so the same inputs give the same trace.

// Tests may overflow: they fail then. The build without tests is linted too, so nothing slips through here.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod account;
pub mod book;
pub mod budget;
pub mod channel;
pub mod content;
pub mod credit;
pub mod evidence;
pub mod id;
pub mod ledger;
pub mod market;
pub mod money;
pub mod offer;
pub mod rate;
pub mod refusal;
pub mod session;
pub mod settlement;
pub mod text;
pub mod time;
pub mod wire;
