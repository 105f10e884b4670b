//! Sessions over real streams: frames, the seller's side, the buyer's side.

mod buyer;
mod frames;
mod seller;
mod sink;

pub(crate) use buyer::{Bought, BuyFailure, Offered, Purchase};
pub(crate) use frames::{FrameReader, FrameWriter, IoError};
pub(crate) use seller::{Session, SessionError, sell};
pub(crate) use sink::lock;
