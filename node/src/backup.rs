//! A backup: one file that, with the words, brings a node back.
//!
//! ```text
//! journal, then wallet ─ copies ─▶ pack ─▶ age ─▶ FILE        FILE ─▶ age ─▶ unpack ─▶ checked ─▶ a home
//! ```
//!
//! The words open it and nothing else does: the age key is derived from them. It holds what they don't: accounts, signed
//! papers, payments by id, for whom each address is, settings, what is published. It holds no key, no file that is
//! published, and no hash tree.
//!
//! **Invariant:** the journal is copied before the wallet. So there is no payment in the journal's copy that the wallet's
//! does not know, which it could make again; what the wallet's copy knows more is told to the journal at the next start.

mod container;
mod create;
mod key;
mod restore;

pub use container::{Manifest, UnpackError, unpack};
pub(crate) use create::{CreateError, Created, create, create_offline};
pub(crate) use key::Sealer;
pub(crate) use restore::{RestoreError, Restored, restore};
