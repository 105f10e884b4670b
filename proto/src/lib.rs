//! The wire and journal schema of Pedlar: the types that `prost` generates from `pedlar/v1/*.proto`.
//!
//! **Invariant:** no logic and no validation lives here. `pedlar-protocol` turns these types into domain types, once,
//! and refuses what is not valid.

#![allow(missing_docs, clippy::doc_markdown)]

/// Version 1 of the schema: offers, sessions, accounts, the journal and backups.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/pedlar.v1.rs"));
}
