//! How buying from one seller goes wrong.

use pedlar_net::OpenError;
use pedlar_protocol::content::{CollectionError, VerifyError, Whole};
use pedlar_protocol::market::BuyError;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::{BuyerViolation, CloseCode, FrameDecodeError};

use crate::blobs::WriteError;
use crate::session::frames::IoError;
use crate::session::sink::SinkError;
use crate::store::StoreError;

/// Why a purchase from one seller ended before all was there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuyFailure {
    /// The stream.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The seller won't.
    #[error("{0}")]
    Refused(Refusal),
    /// The seller's quote is not bought under.
    #[error(transparent)]
    Quote(#[from] BuyError),
    /// What came is not what was asked for.
    #[error("wrong bytes: {0}")]
    Integrity(#[from] VerifyError),
    /// What comes can be no list of files.
    #[error("wrong list of files: {0}")]
    Collection(#[from] CollectionError),
    /// The folder is not what the seller said it was.
    #[error("the seller says {} bytes in {} objects, the folder has {} in {}", .said.bytes, .said.objects, .whole.bytes, .whole.objects)]
    Whole {
        /// The seller's word.
        said: Whole,
        /// What the manifest says.
        whole: Whole,
    },
    /// The seller breaks the protocol.
    #[error("the seller breaks the protocol: {0}")]
    Violation(#[from] BuyerViolation),
    /// The seller's frame means nothing.
    #[error("the seller sent a bad frame: {0}")]
    Decode(#[from] FrameDecodeError),
    /// A frame that has no place here.
    #[error("the seller sent a frame out of order")]
    Order,
    /// The limit leaves no room for a further group.
    #[error("the limit is reached")]
    Limit,
    /// No stream to the seller.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The owner stopped it.
    #[error("interrupted")]
    Interrupted,
    /// Our own disk.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Our own journal.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BuyFailure {
    /// Whether the same seller may do better the next time: its connection broke, or its quote has ended.
    pub(crate) const fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Refused(Refusal::PriceMoved))
    }

    /// Whether the seller sent what no honest one does.
    pub(crate) const fn is_fault(&self) -> bool {
        use BuyFailure::{Collection, Decode, Integrity, Order, Violation, Whole};
        matches!(self, Integrity(_) | Collection(_) | Whole { .. } | Violation(_) | Decode(_) | Order)
    }

    /// What the seller is told at the end of a session that ends so.
    pub(super) const fn close_code(&self) -> CloseCode {
        match self {
            // Whatever came that was not asked for, be it payload or frames.
            Self::Integrity(_)
            | Self::Collection(_)
            | Self::Whole { .. }
            | Self::Violation(_)
            | Self::Decode(_)
            | Self::Order
            | Self::Quote(BuyError::Quote(_) | BuyError::Other(_)) => CloseCode::BadData,
            Self::Quote(BuyError::TooDear { .. } | BuyError::Expired) => CloseCode::Price,
            Self::Limit => CloseCode::Limit,
            Self::Io(_) | Self::Refused(_) | Self::Open(_) | Self::Interrupted | Self::Write(_) | Self::Store(_) => {
                CloseCode::ShuttingDown
            }
        }
    }
}

impl From<SinkError> for BuyFailure {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Verify(wrong) => wrong.into(),
            SinkError::Range(_) => BuyerViolation::NotWanted.into(),
            SinkError::Order => Self::Order,
            SinkError::Write(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seller_is_told_why_it_is_left() {
        let (said, whole) = (Whole { bytes: 1, objects: 1 }, Whole { bytes: 2, objects: 1 });
        let codes: [(BuyFailure, CloseCode); 8] = [
            (VerifyError::Truncated.into(), CloseCode::BadData),
            (CollectionError::Magic.into(), CloseCode::BadData),
            (BuyFailure::Whole { said, whole }, CloseCode::BadData),
            (BuyerViolation::NotWanted.into(), CloseCode::BadData),
            (BuyError::Other("size").into(), CloseCode::BadData),
            (BuyError::Expired.into(), CloseCode::Price),
            (BuyFailure::Limit, CloseCode::Limit),
            (BuyFailure::Interrupted, CloseCode::ShuttingDown),
        ];
        for (failure, code) in codes {
            assert_eq!(failure.close_code(), code, "{failure}");
        }
    }
}
