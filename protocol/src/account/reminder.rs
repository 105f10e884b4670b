//! What two sides have signed, for the one of them that was restored from a backup and has forgotten it.
//!
//! **Invariant:** a reminder holds nothing but papers that both hold: quotes and words of the seller, receipts of the
//! buyer. Who has forgotten them takes its own signature for its memory, and is told nothing that it never signed.

use libp2p_identity::PeerId;
use pedlar_proto::v1;

use crate::account::{Account, Payment};
use crate::credit::SignedGrant;
use crate::id::TopUpId;
use crate::session::quote::{SignedQuote, SignedReceipt};
use crate::settlement::SignedTopUp;
use crate::wire::Signed;

/// Lines in one reminder: each has some 400 bytes, so that with the rest it fits a frame.
const MAX_LINES_REMINDED: usize = 16;

/// Top-ups in one reminder: each has some 300 bytes.
const MAX_TOPUPS_REMINDED: usize = 8;

/// Payments in one reminder: each has some 90 bytes.
const MAX_PAYMENTS_REMINDED: usize = 16;

/// How far a side is reminded: everything up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reminded {
    /// The number of a quote.
    pub number: u64,
    /// The id of a top-up.
    pub topup: Option<TopUpId>,
}

/// A part of what two sides have signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reminder {
    /// Quotes with the newest receipts under them, their numbers rising.
    pub lines: Vec<(SignedQuote, SignedReceipt)>,
    /// Words under which was paid, their ids rising.
    pub topups: Vec<SignedTopUp>,
    /// Payments under these, as a seller sees them.
    pub payments: Vec<Payment>,
    /// The seller's gift.
    pub grant: Option<SignedGrant>,
}

/// Bytes that are no reminder of an account between these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reminder's {0} is not valid")]
pub struct ReminderError(pub(crate) &'static str);

impl Reminder {
    /// What follows after `from` in this account.
    #[must_use]
    pub fn of(account: &Account, from: Reminded) -> Self {
        let signed = account.lines().filter_map(|line| Some((line.quote().clone(), line.receipt()?.clone())));
        let mut lines: Vec<_> = signed.filter(|(quote, _)| quote.quote().number > from.number).collect();
        lines.sort_by_key(|(quote, _)| quote.quote().number);
        lines.truncate(MAX_LINES_REMINDED);
        let paid = account.topups().filter(|line| Some(line.id) > from.topup && account.is_paid(&line.id));
        let topups: Vec<_> = paid.filter_map(|line| line.topup.clone()).take(MAX_TOPUPS_REMINDED).collect();
        let told = |payment: &&Payment| topups.iter().any(|word| word.topup().id == payment.topup);
        let payments = account.payments().filter(told).take(MAX_PAYMENTS_REMINDED).cloned().collect();
        let grant = account.history().grant.as_ref().map(|(grant, _)| grant.clone());
        Self { lines, topups, payments, grant }
    }

    /// Whether it is the last one: nothing follows page by page any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.topups.is_empty()
    }

    /// How far this one reminds who was reminded up to `from`.
    ///
    /// # Errors
    /// [`ReminderError`] when it does not go on from there: its sender would never end.
    pub fn reaches(&self, from: Reminded) -> Result<Reminded, ReminderError> {
        let numbers = std::iter::once(from.number).chain(self.lines.iter().map(|(quote, _)| quote.quote().number));
        let ids = std::iter::once(from.topup).chain(self.topups.iter().map(|word| Some(word.topup().id)));
        if !numbers.clone().is_sorted_by(|a, b| a < b) || !ids.clone().is_sorted_by(|a, b| a < b) {
            return Err(ReminderError("order"));
        }
        Ok(Reminded { number: numbers.last().unwrap_or_default(), topup: ids.last().flatten() })
    }

    /// Reads a reminder of what `buyer` bought from `seller`, and checks each signature.
    ///
    /// # Errors
    /// [`ReminderError`] names what is not valid, or not between these two.
    pub fn from_wire(wire: v1::Reminder, buyer: &PeerId, seller: &PeerId) -> Result<Self, ReminderError> {
        let too_many = wire.lines.len() > MAX_LINES_REMINDED
            || wire.topups.len() > MAX_TOPUPS_REMINDED
            || wire.payments.len() > MAX_PAYMENTS_REMINDED;
        if too_many {
            return Err(ReminderError("length"));
        }
        let lines = wire.lines.into_iter().map(|line| read_line(line, buyer, seller));
        let topups = wire.topups.into_iter().map(|word| read_topup(word, buyer, seller));
        let payments = wire.payments.iter().map(|payment| Payment::from_wire(payment).ok_or(ReminderError("payment")));
        let grant = wire.grant.map(|grant| {
            let signed = Signed::from_wire(grant).ok();
            signed.and_then(|signed| SignedGrant::parse(signed, buyer, seller).ok()).ok_or(ReminderError("grant"))
        });
        Ok(Self {
            lines: lines.collect::<Result<_, _>>()?,
            topups: topups.collect::<Result<_, _>>()?,
            payments: payments.collect::<Result<_, _>>()?,
            grant: grant.transpose()?,
        })
    }

    /// The reminder as it travels.
    #[must_use]
    pub fn to_wire(&self) -> v1::Reminder {
        let line = |(quote, receipt): &(SignedQuote, SignedReceipt)| v1::SignedLine {
            quote: Some(quote.signed().to_wire()),
            receipt: Some(receipt.signed().to_wire()),
        };
        v1::Reminder {
            lines: self.lines.iter().map(line).collect(),
            topups: self.topups.iter().map(|word| word.signed().to_wire()).collect(),
            payments: self.payments.iter().map(Payment::to_wire).collect(),
            grant: self.grant.as_ref().map(|grant| grant.signed().to_wire()),
        }
    }
}

fn read_line(
    wire: v1::SignedLine,
    buyer: &PeerId,
    seller: &PeerId,
) -> Result<(SignedQuote, SignedReceipt), ReminderError> {
    let quote = wire.quote.and_then(|signed| SignedQuote::parse(Signed::from_wire(signed).ok()?).ok());
    let quote = quote.filter(|quote| (&quote.quote().buyer, &quote.quote().seller) == (buyer, seller));
    let quote = quote.ok_or(ReminderError("quote"))?;
    let receipt = wire.receipt.and_then(|signed| SignedReceipt::parse(Signed::from_wire(signed).ok()?, buyer).ok());
    let receipt = receipt.filter(|receipt| receipt.quote_id() == quote.id()).ok_or(ReminderError("receipt"))?;
    Ok((quote, receipt))
}

fn read_topup(wire: v1::Signed, buyer: &PeerId, seller: &PeerId) -> Result<SignedTopUp, ReminderError> {
    let word = Signed::from_wire(wire).ok().and_then(|signed| SignedTopUp::parse(signed).ok());
    let word = word.filter(|word| (&word.topup().buyer, &word.topup().seller) == (buyer, seller));
    word.ok_or(ReminderError("top-up"))
}
