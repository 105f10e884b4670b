//! The control frames of a session, read once into what they mean.

use bytes::Bytes;
use pedlar_proto::v1::{self, open, session_frame};
use prost::Message;

use crate::content::{Groups, Root};
use crate::refusal::Refusal;
use crate::wire::Signed;

/// What a buyer asks a price for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The object under this root.
    Chunks(Root),
    /// A file of a collection, sold under the collection's root.
    Entry {
        /// What is published.
        collection: Root,
        /// What is wanted of it.
        entry: Root,
    },
}

impl Request {
    /// The root of the bytes that are asked for.
    #[must_use]
    pub const fn object(&self) -> &Root {
        match self {
            Self::Chunks(root) | Self::Entry { entry: root, .. } => root,
        }
    }

    /// The root that is for sale, and has a price.
    #[must_use]
    pub const fn published(&self) -> &Root {
        match self {
            Self::Chunks(root) | Self::Entry { collection: root, .. } => root,
        }
    }

    /// The collection that a file is sold under; nothing for what is sold under its own root.
    #[must_use]
    pub const fn collection(&self) -> Option<&Root> {
        match self {
            Self::Chunks(_) => None,
            Self::Entry { collection, .. } => Some(collection),
        }
    }

    fn to_wire(self) -> v1::ChunkRequest {
        let bytes = |root: &Root| Bytes::copy_from_slice(root.as_bytes());
        let entry = self.collection().map(|_| bytes(self.object())).unwrap_or_default();
        v1::ChunkRequest { root: bytes(self.published()), entry }
    }

    fn from_wire(chunks: &v1::ChunkRequest) -> Result<Self, FrameDecodeError> {
        let root =
            |bytes: &Bytes, field| <[u8; 32]>::try_from(bytes.as_ref()).map_err(|_| FrameDecodeError::Field(field));
        let published = root(&chunks.root, "root")?;
        if chunks.entry.is_empty() {
            return Ok(Self::Chunks(published.into()));
        }
        Ok(Self::Entry { collection: published.into(), entry: root(&chunks.entry, "entry")?.into() })
    }
}

/// A range that the buyer wants, with its receipt for what came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// What it wants.
    pub groups: Groups,
    /// What it signed; unchecked.
    pub receipt: Option<Signed>,
}

/// Why a side ends a session in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// All that was wanted has come.
    Done,
    /// A unit failed verification.
    BadData,
    /// The buyer's limit is reached.
    Limit,
    /// The price is more than the buyer pays.
    Price,
    /// The node goes down.
    ShuttingDown,
}

/// One control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The buyer asks for a price.
    Open(Request),
    /// The seller's price; unchecked.
    Quote(Signed),
    /// The buyer asks for units.
    Want(Want),
    /// The seller says which groups the raw frames that follow hold.
    Serving(Groups),
    /// The seller won't.
    Refused(Refusal),
    /// A side ends the session.
    Close {
        /// Why.
        code: CloseCode,
        /// The last receipt; unchecked.
        receipt: Option<Signed>,
    },
}

/// A frame that means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameDecodeError {
    /// Not a message of the schema.
    #[error("the frame can't be decoded")]
    Encoding,
    /// A field that is out of its domain, or missing.
    #[error("the frame's {0} is not valid")]
    Field(&'static str),
}

impl Frame {
    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let frame = match self {
            Self::Open(request) => {
                session_frame::Frame::Open(v1::Open { request: Some(open::Request::Chunks(request.to_wire())) })
            }
            Self::Quote(signed) => session_frame::Frame::Quote(signed.to_wire()),
            Self::Want(want) => session_frame::Frame::Want(v1::Want {
                first_group: want.groups.start(),
                groups: want.groups.count(),
                receipt: want.receipt.as_ref().map(Signed::to_wire),
            }),
            Self::Serving(groups) => {
                session_frame::Frame::Serving(v1::Serving { first_group: groups.start(), groups: groups.count() })
            }
            Self::Refused(refusal) => session_frame::Frame::Refused(refusal.to_wire()),
            Self::Close { code, receipt } => session_frame::Frame::Close(v1::Close {
                code: code.to_wire().into(),
                receipt: receipt.as_ref().map(Signed::to_wire),
            }),
        };
        v1::SessionFrame { frame: Some(frame) }.encode_to_vec()
    }

    /// Reads a frame; signatures in it are not checked yet.
    ///
    /// # Errors
    /// [`FrameDecodeError`] says what can't be read.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameDecodeError> {
        let wire = v1::SessionFrame::decode(bytes).map_err(|_| FrameDecodeError::Encoding)?;
        Ok(match wire.frame.ok_or(FrameDecodeError::Field("kind"))? {
            session_frame::Frame::Open(open) => Self::Open(request_of(&open)?),
            session_frame::Frame::Quote(signed) => Self::Quote(envelope(signed, "quote")?),
            session_frame::Frame::Want(want) => Self::Want(Want {
                groups: groups_of(want.first_group, want.groups)?,
                receipt: want.receipt.map(|signed| envelope(signed, "receipt")).transpose()?,
            }),
            session_frame::Frame::Serving(serving) => Self::Serving(groups_of(serving.first_group, serving.groups)?),
            session_frame::Frame::Refused(refused) => Self::Refused(Refusal::from_wire(&refused)),
            session_frame::Frame::Close(close) => Self::Close {
                code: CloseCode::from_wire(close.code()),
                receipt: close.receipt.map(|signed| envelope(signed, "receipt")).transpose()?,
            },
        })
    }
}

impl CloseCode {
    const fn to_wire(self) -> v1::CloseCode {
        match self {
            Self::Done => v1::CloseCode::Done,
            Self::BadData => v1::CloseCode::BadData,
            Self::Limit => v1::CloseCode::Limit,
            Self::Price => v1::CloseCode::Price,
            Self::ShuttingDown => v1::CloseCode::ShuttingDown,
        }
    }

    /// A code from the future only says that the session is over.
    const fn from_wire(code: v1::CloseCode) -> Self {
        match code {
            v1::CloseCode::Done | v1::CloseCode::Unspecified => Self::Done,
            v1::CloseCode::BadData => Self::BadData,
            v1::CloseCode::Limit => Self::Limit,
            v1::CloseCode::Price => Self::Price,
            v1::CloseCode::ShuttingDown => Self::ShuttingDown,
        }
    }
}

fn request_of(open: &v1::Open) -> Result<Request, FrameDecodeError> {
    match &open.request {
        Some(open::Request::Chunks(chunks)) => Request::from_wire(chunks),
        None => Err(FrameDecodeError::Field("request")),
    }
}

fn groups_of(first: u64, count: u64) -> Result<Groups, FrameDecodeError> {
    let end = first.checked_add(count);
    end.and_then(|end| Groups::new(first, end)).ok_or(FrameDecodeError::Field("range"))
}

fn envelope(signed: v1::Signed, field: &'static str) -> Result<Signed, FrameDecodeError> {
    Signed::from_wire(signed).map_err(|_| FrameDecodeError::Field(field))
}
