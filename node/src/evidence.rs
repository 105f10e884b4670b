//! Evidence files: the papers of an account, for whoever is to be convinced by them.
//!
//! JSON, one record a line; the first says what the file is. Papers are the exact bytes that were signed, in hex.
//!
//! **Invariant:** reading one takes no more memory than its papers do, whatever it holds, and believes nothing in it that
//! is not signed or paid.

mod check;
mod gather;

use std::io;

use bitcoin::hex::{DisplayHex, FromHex};
use bytes::Bytes;
use pedlar_proto::v1;
use pedlar_protocol::wire::{OpenError, Signed};
use serde::{Deserialize, Serialize};

pub(crate) use check::{Checked, Fault, FileError, check};
pub(crate) use gather::gather;

/// The version of the format.
const VERSION: u32 = 1;

/// One line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Record {
    /// The first line.
    Evidence {
        /// Of the format.
        version: u32,
        /// The node that wrote it.
        node: String,
        /// The one with whom it has the account.
        peer: String,
        /// The newest block that it had seen.
        tip_height: u64,
    },
    /// A quote, and the newest receipt under it where there is one.
    Sale {
        /// Signed by the seller.
        quote: Paper,
        /// Signed by the buyer.
        #[serde(skip_serializing_if = "Option::is_none")]
        receipt: Option<Paper>,
    },
    /// The seller's word for an advance.
    Topup {
        /// Signed by the seller.
        topup: Paper,
    },
    /// A transaction that pays under a top-up above it.
    Payment {
        /// Whose top-up: its id in hex.
        topup: String,
        /// The transaction as it is on the chain, in hex.
        transaction: String,
        /// Which of its outputs pays.
        vout: u32,
        /// The block that holds it, 0 for none: for whoever looks it up.
        height: u64,
    },
    /// A gift.
    Grant {
        /// Signed by the seller.
        grant: Paper,
        /// Who gave it.
        seller: String,
        /// Who has it.
        buyer: String,
    },
    /// What this file can't prove: papers that the node has no more.
    Unproven {
        /// What it is, in words.
        what: String,
        /// What it comes to.
        msat: u64,
    },
}

/// A signed paper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paper {
    /// The bytes that were signed, in hex.
    body: String,
    /// ed25519, in hex.
    signature: String,
}

impl Paper {
    fn of(signed: &Signed) -> Self {
        let v1::Signed { body, signature } = signed.to_wire();
        Self { body: body.to_lower_hex_string(), signature: signature.to_lower_hex_string() }
    }

    fn read(&self) -> Result<Signed, Fault> {
        let bytes = |hex: &str| Vec::<u8>::from_hex(hex).map(Bytes::from).map_err(|_| Fault::NoHex);
        let wire = v1::Signed { body: bytes(&self.body)?, signature: bytes(&self.signature)? };
        Signed::from_wire(wire).map_err(|error: OpenError| Fault::Signature(error))
    }
}

/// Writes a file's lines.
///
/// # Errors
/// What the system says.
pub(crate) fn write(records: &[Record], file: &mut impl io::Write) -> io::Result<()> {
    for record in records {
        serde_json::to_writer(&mut *file, record)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}
