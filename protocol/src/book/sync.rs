//! Offers-sync: what a late joiner asks for, and what it is told. Gossip carries no history, so without it a new node
//! would wait for each seller's next refresh.
//!
//! ```text
//! asker ── Request: a range of sellers, and whose offers of it are here ─▶ answerer
//! asker ◀── Told::Offer: lacking or older, at most MAX_OFFERS and MAX_BYTES ── answerer
//! asker ◀── Told::End: and where to go on ── answerer
//! ```
//!
//! One such exchange a stream. Sellers are named by the first eight bytes of their keys, which are as good as random and
//! rise as the book does: a range of them can be asked about in one frame, however large the book is.
//!
//! **Invariant:** an answer is bounded in offers and bytes and each exchange asks about sellers beyond the one before, so
//! that it ends whoever answers; and what is told is judged as if it were gossiped.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use libp2p_identity::PeerId;
use pedlar_proto::v1::{self, offers_answer};
use prost::Message;

use super::Book;
use crate::offer::{MAX_OFFER_LEN, SignedOffer};
use crate::time::Timestamp;

/// The most offers that a request says are here: 16 bytes each, they fit a control frame.
pub const MAX_HELD: usize = 960;
/// The most offers of one answer.
pub const MAX_OFFERS: usize = 512;
/// The most bytes of offers in one answer, 1 MiB: a book that is full to the brim takes twenty exchanges.
pub const MAX_BYTES: usize = 1 << 20;
/// The most exchanges with one peer in a row: a full book takes fewer.
pub const MAX_EXCHANGES: usize = 24;

/// Where sellers begin: the `from` of a first request.
pub const START: u64 = 0;

/// Which offers are asked for: those of a range of sellers that are not `held`, or newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    from: u64,
    to: u64,
    held: BTreeMap<u64, u64>,
}

/// What is told in answer: whole signed offers, and the first seller that did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In the order of their sellers.
    pub offers: Vec<Bytes>,
    /// Where the next request should begin, if this one was too large for one answer.
    pub next: Option<u64>,
}

/// One frame of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A signed offer; unchecked.
    Offer(Bytes),
    /// All that this answer holds was told.
    End {
        /// As [`Answer::next`].
        next: Option<u64>,
    },
}

/// Why the other side breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncViolation {
    /// The frame does not decode.
    #[error("not a message of offers-sync")]
    Malformed,
    /// The range is empty, or what is held is out of order, out of range or more than [`MAX_HELD`].
    #[error("a request that contradicts itself")]
    Request,
    /// More than [`MAX_OFFERS`] or [`MAX_BYTES`], or one offer above its own bound.
    #[error("an answer beyond its bound")]
    TooMuch,
    /// The answer would have us go on where we were, or outside of what we asked for.
    #[error("an answer that leads nowhere")]
    Nowhere,
}

impl Request {
    /// Reads the frame of an asker.
    ///
    /// # Errors
    /// [`SyncViolation`]; nothing is answered then.
    pub fn decode(bytes: Bytes) -> Result<Self, SyncViolation> {
        let v1::OffersRequest { from, to, sellers, sequences } =
            v1::OffersRequest::decode(bytes).map_err(|_| SyncViolation::Malformed)?;
        let rising = sellers.is_sorted_by(|left, right| left < right);
        let within = sellers.iter().all(|seller| (from..=to).contains(seller));
        if from > to || !rising || !within || sellers.len() > MAX_HELD || sellers.len() != sequences.len() {
            return Err(SyncViolation::Request);
        }
        Ok(Self { from, to, held: sellers.into_iter().zip(sequences).collect() })
    }

    /// The frame, at most a control frame's length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (sellers, sequences) = self.held.iter().unzip();
        v1::OffersRequest { from: self.from, to: self.to, sellers, sequences }.encode_to_vec()
    }

    fn wants(&self, offer: &SignedOffer) -> bool {
        let seller = start_of_key(&offer.offer().seller);
        let held = self.held.get(&seller);
        (self.from..=self.to).contains(&seller) && held.is_none_or(|sequence| *sequence < offer.offer().sequence)
    }
}

impl Told {
    /// Reads a frame of an answer.
    ///
    /// # Errors
    /// [`SyncViolation::Malformed`], [`SyncViolation::TooMuch`].
    pub fn decode(bytes: Bytes) -> Result<Self, SyncViolation> {
        let message = v1::OffersAnswer::decode(bytes).map_err(|_| SyncViolation::Malformed)?;
        match message.answer.ok_or(SyncViolation::Malformed)? {
            offers_answer::Answer::Offer(offer) if offer.len() > MAX_OFFER_LEN => Err(SyncViolation::TooMuch),
            offers_answer::Answer::Offer(offer) => Ok(Self::Offer(offer)),
            offers_answer::Answer::End(v1::OffersEnd { next }) => Ok(Self::End { next }),
        }
    }

    /// The frame, at most a control frame's length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let answer = match self {
            Self::Offer(offer) => offers_answer::Answer::Offer(offer.clone()),
            Self::End { next } => offers_answer::Answer::End(v1::OffersEnd { next: *next }),
        };
        v1::OffersAnswer { answer: Some(answer) }.encode_to_vec()
    }
}

impl Answer {
    /// The frames of it, in order.
    pub fn frames(self) -> impl Iterator<Item = Told> {
        let end = Told::End { next: self.next };
        self.offers.into_iter().map(Told::Offer).chain([end])
    }
}

/// The asker's count of one answer.
#[derive(Clone, Debug)]
pub struct Intake {
    from: u64,
    to: u64,
    offers: usize,
    bytes: usize,
}

impl Intake {
    /// Nothing came yet of what was asked for.
    #[must_use]
    pub const fn new(request: &Request) -> Self {
        Self { from: request.from, to: request.to, offers: 0, bytes: 0 }
    }

    /// Takes in one frame; at the end, `next` is where to go on, nothing when all sellers were asked about.
    ///
    /// # Errors
    /// [`SyncViolation`]; no more is read of this answer.
    pub fn handle_frame(&mut self, bytes: Bytes) -> Result<Told, SyncViolation> {
        match Told::decode(bytes)? {
            Told::Offer(offer) => {
                self.offers = self.offers.saturating_add(1);
                self.bytes = self.bytes.saturating_add(offer.len());
                if self.offers > MAX_OFFERS || self.bytes > MAX_BYTES {
                    return Err(SyncViolation::TooMuch);
                }
                Ok(Told::Offer(offer))
            }
            Told::End { next: Some(next) } => {
                let forward = self.from < next && next <= self.to && self.offers > 0;
                if forward { Ok(Told::End { next: Some(next) }) } else { Err(SyncViolation::Nowhere) }
            }
            Told::End { next: None } => Ok(Told::End { next: self.to.checked_add(1) }),
        }
    }
}

impl Book {
    /// Asks for the offers of sellers from `from` on, as far as one frame goes; those of `me` are not wanted.
    #[must_use]
    pub fn request(&self, now: Timestamp, from: u64, me: &PeerId) -> Request {
        let sequences = self.live(now).map(|signed| (start_of_key(&signed.offer().seller), signed.offer().sequence));
        let mut held: BTreeMap<u64, u64> = sequences.collect();
        held.insert(start_of_key(me), u64::MAX);
        let mut held = held.split_off(&from);
        let beyond = held.keys().nth(MAX_HELD).copied();
        if let Some(beyond) = beyond {
            held.split_off(&beyond);
        }
        Request { from, to: beyond.map_or(u64::MAX, |beyond| beyond.saturating_sub(1)), held }
    }

    /// What a peer that asks is told: live offers that it lacks or has older, `own` among them.
    #[must_use]
    pub fn answer(&self, now: Timestamp, request: &Request, own: Option<&SignedOffer>) -> Answer {
        let own = own.filter(|own| now < own.offer().expires);
        let wanted = self.live(now).chain(own).filter(|signed| request.wants(signed));
        let wanted: BTreeMap<u64, &SignedOffer> =
            wanted.map(|signed| (start_of_key(&signed.offer().seller), signed)).collect();
        let mut answer = Answer { offers: Vec::new(), next: None };
        let mut bytes: usize = 0;
        for (seller, signed) in wanted {
            bytes = bytes.saturating_add(signed.bytes().len());
            if bytes > MAX_BYTES || answer.offers.len() >= MAX_OFFERS {
                answer.next = Some(seller);
                break;
            }
            answer.offers.push(signed.bytes().clone());
        }
        answer
    }
}

/// The first eight bytes of a seller's key; all sellers of the book carry theirs in their ids, after a head of four.
fn start_of_key(seller: &PeerId) -> u64 {
    const HEAD: usize = 4;
    let start = seller.as_ref().digest().get(HEAD..).and_then(|key| key.first_chunk());
    start.map_or(START, |start| u64::from_be_bytes(*start))
}
