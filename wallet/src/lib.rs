//! The bitcoin wallet of a Pedlar node: keys, coins, payments and their depth.
//!
//! # Layout
//!
//! | room | holds |
//! |---|---|
//! | `keys` | the 12 words, the encrypted seed file, what is derived from them |
//! | `network` | [`Network`], addresses, BIP21 |
//! | `electrum` | one server: URL, bounded stream, pinned certificate, calls; `electrum::line` is its thread |
//! | `state` | the coins (BDK) and `wallet.sqlite`, one transaction per change |
//! | `restore` | copies of that file, and how one becomes a wallet again |
//! | `ladder` | the versions of a SQLite file, each brought to the newest after a copy was kept |
//! | `addresses` | who is to be paid at which address |
//! | `view` | where each transaction stands at one moment |
//! | `payments` | outgoing payments by id, and the choice of coins and fee |
//! | `watch` | incoming payments and their depth |
//! | [`channel`] | payment channels: script, vouchers and every transaction that ends one |
//! | `chain` | how news from a server change all that |
//! | `events` | snapshots on their way out |
//! | `records` | all that `wallet.sqlite` says, for an audit and for `pedlar doctor` |
//! | `thread` | the loop that owns all of it, and its rehearsal; `handle` is how others talk to it, `status` what it shows |
//!
//! # Invariants
//!
//! - **This crate knows nothing about peers, offers or prices.** For whom an address is, is an opaque [`PayeeRef`].
//! - **Nothing outside sees a coin key.** Keys are rebuilt from the seed for one signature and dropped.
//! - **Durable before the effect.** An address and its payee are stored before the address is returned; a payment's
//!   signed transaction is stored before it is sent, and of those that were ever sent for its id at most one can be mined.
//!   A voucher is stored before it is given away, and what ends a channel before it is sent.
//! - **Depth is a fact, credit a decision.** Events carry heights; what they are worth is decided elsewhere.
//! - **A server is believed about the chain (until headers are verified), never about anything else**: every reply is
//!   bounded in size and time, its text is never shown, and its mistakes can't end the wallet.
//! - The wallet thread never waits for the network: the line thread does, one job at a time, and owns nothing but the
//!   connection. What needs no server is answered at once whatever the server does.

mod addresses;
mod chain;
pub mod channel;
mod electrum;
mod events;
mod handle;
mod keys;
mod ladder;
mod network;
mod payments;
mod records;
mod restore;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod thread;
mod view;
mod watch;

pub use bitcoin::Txid;

pub use addresses::{ADDRESS_HOLD, ADDRESS_HOLD_BLOCKS, AddressError, MAX_UNPAID_ADDRESSES, PayeeRef};
pub use chain::HistoryEntry;
pub use electrum::{Fingerprint, FingerprintError, Seen, ServerFault, ServerUrl, UrlError};
pub use events::WalletEvent;
pub use handle::{ReadError, WalletHandle};
pub use keys::{CreateSeedError, Keys, NoRandomness, OpenSeedError, Sealed, SeedFile, Words, WordsError};
pub use ladder::{Ladder, LadderError};
pub use network::{Network, ParseAddressError, bip21};
pub use payments::{Bump, BumpError, MAX_BATCH, Paid, PayError, Payment, PaymentId, PaymentState, Terms};
pub use records::{Records, look_at_servers};
pub use restore::revive;
pub use state::{FILE_NAME, OpenError, StoreError};
pub use status::{Closed, ServerState, ServerStatus, WalletConfig, WalletStatus};
#[doc(hidden)]
pub use thread::rehearsal::{MAX_FEE_RATE_SAT_VB, Rehearsal};
pub use watch::{FINAL_DEPTH, Incoming, IncomingState};
