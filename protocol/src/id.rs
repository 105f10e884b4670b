//! Names of 32 bytes: each kind its own type, so that a quote's id is never taken for a top-up's.

use std::fmt::{Debug, Display, Formatter, Result as FmtResult};

/// A value that was no 32-byte id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 32 bytes, this has {have}")]
pub struct IdError {
    /// Bytes that were there.
    pub have: usize,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError { have: bytes.len() })
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl Debug for $name {
            fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    )*};
}

ids! {
    /// The name of a quote: the BLAKE3 of its signed bytes.
    QuoteId;
    /// The name of a top-up, and of the payment that fulfils it: chosen at random by the buyer.
    TopUpId;
    /// Whom the wallet makes an address for: it knows no more of a buyer than this.
    PayeeId;
}
