//! The seller's side of a session: order, and the brake on what is not signed for.

use crate::content::{Groups, Size};
use crate::session::{Frame, PIPELINED_WANTS, Request, Want, Window};
use crate::wire::Signed;

/// What the seller does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SellerStep {
    /// Answer with a quote, or a refusal.
    Quote(Request),
    /// Have the market look at the receipt and admit the work, then serve it.
    Serve(Want),
    /// Take the last receipt and end.
    End(Option<Signed>),
}

/// A frame that breaks the order: the stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SellerViolation {
    /// Not the frame that may come now.
    #[error("a frame out of order")]
    Order,
    /// A range beyond the object.
    #[error("a range beyond the object")]
    Range,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    Quoted(Size),
    Ended,
}

/// Frames of one buyer, in order.
#[derive(Debug)]
pub struct SellerSession {
    state: State,
}

impl Default for SellerSession {
    fn default() -> Self {
        Self { state: State::Fresh }
    }
}

impl SellerSession {
    /// Takes the buyer's next frame.
    ///
    /// # Errors
    /// [`SellerViolation`] when it may not come now.
    pub fn handle_frame(&mut self, frame: Frame) -> Result<SellerStep, SellerViolation> {
        match (self.state, frame) {
            (State::Fresh, Frame::Open(request)) => {
                self.state = State::Asked;
                Ok(SellerStep::Quote(request))
            }
            (State::Quoted(size), Frame::Want(want)) => {
                if want.groups.end() > size.group_count() {
                    return Err(SellerViolation::Range);
                }
                Ok(SellerStep::Serve(want))
            }
            (State::Quoted(_), Frame::Close { receipt, .. }) => {
                self.state = State::Ended;
                Ok(SellerStep::End(receipt))
            }
            _ => Err(SellerViolation::Order),
        }
    }

    /// The quote has gone out, for an object of this size.
    pub const fn handle_quoted(&mut self, size: Size) {
        self.state = State::Quoted(size);
    }
}

/// How much may be sent before the buyer signs: the seller's own count, no meter (MONEY.md 1.2).
///
/// The unsigned part never exceeds two windows, one for each Want that may be on its way. So no Want gets more than one:
/// else nothing would be left for the next of a buyer whose windows are larger than ours.
#[derive(Debug, Clone, Copy)]
pub struct Brake {
    window: Window,
    admitted: u64,
    signed: u64,
}

impl Brake {
    /// A brake whose window grows to `max` bytes of payload.
    #[must_use]
    pub fn up_to(max: u64) -> Self {
        Self { window: Window::up_to(max), admitted: 0, signed: 0 }
    }

    /// The part of `groups` that may be served now, from their first on; nothing while too much is unsigned.
    #[must_use]
    pub fn admit(&self, size: Size, groups: Groups) -> Option<Groups> {
        let window = self.window.after(self.signed);
        let unsigned = self.admitted.saturating_sub(self.signed);
        let room = window.saturating_mul(PIPELINED_WANTS as u64).saturating_sub(unsigned).min(window);
        let wanted = size.bytes_in(groups);
        if wanted <= room {
            return Some(groups);
        }
        let part = groups.within(room);
        (size.bytes_in(part) <= room).then_some(part)
    }

    /// `bytes` more were admitted.
    pub const fn handle_admitted(&mut self, bytes: u64) {
        self.admitted = self.admitted.saturating_add(bytes);
    }

    /// The buyer has signed for `signed` bytes since the session began.
    pub fn handle_signed(&mut self, signed: u64) {
        self.signed = self.signed.max(signed);
    }
}
