//! The owner's own word that somebody is to be sold nothing.

use pedlar_proto::v1;

use crate::text::{Name, NameError};
use crate::time::Timestamp;

/// Why and since when a buyer is sold nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// When the owner said so.
    pub since: Timestamp,
    /// What the owner noted, for nobody else.
    pub note: Option<Name>,
}

impl Block {
    /// The row of a block, or of its end.
    pub(super) fn to_wire(block: Option<&Self>) -> v1::Block {
        let note = block.and_then(|block| block.note.as_ref()).map(|note| note.as_str().to_owned());
        v1::Block { since_ms: block.map(|block| block.since.ms()), note: note.unwrap_or_default() }
    }

    /// A row as it stood in the journal.
    pub(super) fn from_wire(wire: v1::Block) -> Result<Option<Self>, NameError> {
        let note = if wire.note.is_empty() { None } else { Some(Name::new(wire.note)?) };
        Ok(wire.since_ms.map(|since_ms| Self { since: Timestamp::from_ms(since_ms), note }))
    }
}
