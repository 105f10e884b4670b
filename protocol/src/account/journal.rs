//! Changes of accounts as rows: the journal keeps the newest of each key, state is the fold of all (STYLE, habit 10).

use bytes::Bytes;
use libp2p_identity::PeerId;
use pedlar_proto::v1::{self, entry};
use prost::Message;

use crate::account::{Block, Conduct, Direction, Folded, Line, OutPoint, Payment, Repaid, TopUpLine};
use crate::budget::Spending;
use crate::credit::{History, SignedGrant};
use crate::id::{PayeeId, QuoteId, TopUpId};
use crate::money::Msat;
use crate::session::quote::{SignedQuote, SignedReceipt};
use crate::settlement::SignedTopUp;
use crate::time::Timestamp;
use crate::wire::Signed;

/// Bytes of a row's check: chance makes a damaged row pass once in 2^64.
const CHECK_LEN: usize = 8;

/// One change of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A quote's line as it stands now.
    Line(Line),
    /// Lines that are settled, moved into the total.
    Fold {
        /// The quotes whose rows go.
        quotes: Vec<QuoteId>,
        /// The total with them.
        total: Folded,
    },
    /// A top-up as it stands now.
    TopUp {
        /// Its row.
        line: TopUpLine,
        /// Unpaid ones of the same address, whose rows go.
        gives_up: Vec<TopUpId>,
    },
    /// A payment as it stands now.
    Payment(Payment),
    /// The history as it stands now.
    History(History),
    /// The owner's word against the peer, or its end.
    Block(Option<Block>),
    /// Sold: what is held against the buyer, as it stands now.
    Conduct(Conduct),
    /// What is spent without a person's word: of no account, under our own id.
    Spending {
        /// Its row.
        spending: Spending,
        /// Old ones, whose rows go.
        forgets: Vec<TopUpId>,
    },
}

/// A change with the account that it belongs to: a row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The other side.
    pub peer: PeerId,
    /// Which of the two accounts with it.
    pub direction: Direction,
    /// What changed.
    pub change: Change,
}

/// A row that can't be read: the file is damaged, or written by a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not a message of the schema.
    #[error("a journal row can't be decoded")]
    Encoding,
    /// It is not as it was written: the disk has changed it.
    #[error("a journal row is not as it was written")]
    Changed,
    /// A field that is out of its domain.
    #[error("a journal row's {0} is not valid")]
    Field(&'static str),
}

impl Entry {
    /// The row's key: a newer row of the same key replaces it.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        match &self.change {
            Change::Line(line) => self.key_of(b'q', &line.id().0),
            Change::Fold { .. } => self.key_of(b'f', &[]),
            Change::TopUp { line, .. } => self.key_of(b't', &line.id.0),
            Change::Payment(payment) => {
                let mut name = payment.outpoint.txid.to_vec();
                name.extend_from_slice(&payment.outpoint.vout.to_be_bytes());
                self.key_of(b'p', &name)
            }
            Change::History(_) => self.key_of(b'h', &[]),
            Change::Block(_) => self.key_of(b'b', &[]),
            Change::Conduct(_) => self.key_of(b'c', &[]),
            Change::Spending { spending, .. } => self.key_of(b's', &spending.id.0),
        }
    }

    /// Keys whose rows go with this one, in the same transaction.
    #[must_use]
    pub fn obsoletes(&self) -> Vec<Vec<u8>> {
        match &self.change {
            Change::Fold { quotes, .. } => quotes.iter().map(|id| self.key_of(b'q', &id.0)).collect(),
            Change::TopUp { gives_up, .. } => gives_up.iter().map(|id| self.key_of(b't', &id.0)).collect(),
            Change::Spending { forgets, .. } => forgets.iter().map(|id| self.key_of(b's', &id.0)).collect(),
            Change::Line(_) | Change::Payment(_) | Change::History(_) | Change::Block(_) | Change::Conduct(_) => {
                Vec::new()
            }
        }
    }

    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let change = match &self.change {
            Change::Line(line) => entry::Change::Line(v1::QuoteLine {
                quote: Some(line.quote().signed().to_wire()),
                receipt: line.receipt().map(|receipt| receipt.signed().to_wire()),
                admitted_units: line.admitted_units(),
                ended: line.has_ended(),
                opened_ms: line.opened().ms(),
                interrupted: line.was_interrupted(),
            }),
            Change::Fold { total, .. } => entry::Change::Folded(v1::Folded {
                quotes: total.quotes,
                units: total.units,
                spent_msat: total.spent.msat(),
                tail_units: total.tail_units,
                tail_msat: total.tail.msat(),
                newest_number: total.newest,
            }),
            Change::TopUp { line, .. } => entry::Change::Topup(v1::TopUpLine {
                id: line.id.0.to_vec().into(),
                amount_sat: line.amount_sat,
                topup: line.topup.as_ref().map(|topup| topup.signed().to_wire()),
                created_ms: line.created.ms(),
                closed: line.closed,
                payee: line.payee.map(|payee| payee.0.to_vec().into()).unwrap_or_default(),
            }),
            Change::Payment(payment) => entry::Change::Payment(v1::PaymentLine {
                topup_id: payment.topup.0.to_vec().into(),
                txid: payment.outpoint.txid.to_vec().into(),
                vout: payment.outpoint.vout,
                amount_sat: payment.amount_sat,
                height: payment.height,
                depth: payment.depth,
                fee_sat: payment.fee_sat,
                ours: payment.ours,
                repaid_msat: payment.repaid.map(|repaid| repaid.debt.msat()),
                late_weight: payment.repaid.map_or(0, |repaid| repaid.late_weight),
                repaid_epoch: payment.repaid.map_or(0, |repaid| repaid.epoch),
            }),
            Change::History(history) => entry::Change::History(v1::History {
                counted_msat: history.counted.msat(),
                decayed_msat: history.decayed.msat(),
                decayed_at_ms: history.decayed_at.ms(),
                grant: history.grant.as_ref().map(|(grant, _)| grant.signed().to_wire()),
                granted_at_ms: history.grant.as_ref().map_or(0, |(_, at)| at.ms()),
                failed_msat: history.failed.msat(),
            }),
            Change::Block(block) => entry::Change::Block(Block::to_wire(block.as_ref())),
            Change::Conduct(conduct) => entry::Change::Conduct(conduct.to_wire()),
            Change::Spending { spending, .. } => entry::Change::Spending(v1::Spending {
                topup_id: spending.id.0.to_vec().into(),
                at_ms: spending.at.ms(),
                sat: spending.sat,
            }),
        };
        let direction = match self.direction {
            Direction::Sold => v1::Direction::Sold,
            Direction::Bought => v1::Direction::Bought,
        };
        let peer = self.peer.to_bytes().into();
        let mut row = v1::Entry { peer, direction: direction.into(), change: Some(change), check: None };
        row.check = Some(check_of(&row));
        row.encode_to_vec()
    }

    /// Reads a row of the node `us`. Its check and all signatures are checked: a damaged row is found, not believed.
    ///
    /// # Errors
    /// [`EntryError`] says what can't be read.
    pub fn decode(bytes: &[u8], us: &PeerId) -> Result<Self, EntryError> {
        let mut wire = v1::Entry::decode(bytes).map_err(|_| EntryError::Encoding)?;
        if wire.check.take().is_some_and(|check| check != check_of(&wire)) {
            return Err(EntryError::Changed);
        }
        let peer = PeerId::from_bytes(&wire.peer).map_err(|_| EntryError::Field("peer"))?;
        let direction = match wire.direction() {
            v1::Direction::Sold => Direction::Sold,
            v1::Direction::Bought => Direction::Bought,
            v1::Direction::Unspecified => return Err(EntryError::Field("direction")),
        };
        let change = match wire.change.ok_or(EntryError::Field("change"))? {
            entry::Change::Line(line) => Change::Line(decode_line(direction, line)?),
            entry::Change::Folded(folded) => Change::Fold { quotes: Vec::new(), total: decode_folded(&folded) },
            entry::Change::Topup(line) => Change::TopUp { line: decode_topup(line)?, gives_up: Vec::new() },
            entry::Change::Payment(payment) => Change::Payment(decode_payment(&payment)?),
            entry::Change::History(history) => Change::History(decode_history(history, us, &peer, direction)?),
            entry::Change::Block(block) => {
                Change::Block(Block::from_wire(block).map_err(|_| EntryError::Field("note"))?)
            }
            entry::Change::Conduct(conduct) => Change::Conduct(Conduct::from_wire(&conduct)),
            entry::Change::Spending(spending) => {
                Change::Spending { spending: decode_spending(&spending)?, forgets: Vec::new() }
            }
        };
        Ok(Self { peer, direction, change })
    }

    fn key_of(&self, kind: u8, name: &[u8]) -> Vec<u8> {
        let direction = match self.direction {
            Direction::Sold => b's',
            Direction::Bought => b'b',
        };
        let mut key = vec![kind, direction];
        key.extend_from_slice(&self.peer.to_bytes());
        key.extend_from_slice(name);
        key
    }
}

/// What tells that a row was changed where no signature would: counters, heights, what is not signed yet.
fn check_of(unchecked: &v1::Entry) -> Bytes {
    let hash = blake3::hash(&unchecked.encode_to_vec());
    Bytes::copy_from_slice(hash.as_bytes().first_chunk::<CHECK_LEN>().unwrap_or(&[0; CHECK_LEN]))
}

fn decode_line(direction: Direction, wire: v1::QuoteLine) -> Result<Line, EntryError> {
    let signed = wire.quote.ok_or(EntryError::Field("quote"))?;
    let signed = Signed::from_wire(signed).map_err(|_| EntryError::Field("quote"))?;
    let quote = SignedQuote::parse(signed).map_err(|_| EntryError::Field("quote"))?;
    let receipt = match wire.receipt {
        Some(signed) => {
            let signed = Signed::from_wire(signed).map_err(|_| EntryError::Field("receipt"))?;
            let receipt = SignedReceipt::parse(signed, &quote.quote().buyer).ok();
            let own = receipt.filter(|receipt| receipt.quote_id() == quote.id());
            Some(own.ok_or(EntryError::Field("receipt"))?)
        }
        None => None,
    };
    let fresh = Line::new(direction, quote, Timestamp::from_ms(wire.opened_ms));
    Ok(fresh.restored(receipt, wire.admitted_units, wire.ended, wire.interrupted))
}

fn decode_folded(wire: &v1::Folded) -> Folded {
    Folded {
        quotes: wire.quotes,
        units: wire.units,
        spent: Msat::new(wire.spent_msat),
        tail_units: wire.tail_units,
        tail: Msat::new(wire.tail_msat),
        newest: wire.newest_number,
    }
}

fn decode_topup(wire: v1::TopUpLine) -> Result<TopUpLine, EntryError> {
    let topup = match wire.topup {
        Some(signed) => {
            let signed = Signed::from_wire(signed).map_err(|_| EntryError::Field("topup"))?;
            Some(SignedTopUp::parse(signed).map_err(|_| EntryError::Field("topup"))?)
        }
        None => None,
    };
    let payee = match wire.payee.as_ref() {
        [] => None,
        bytes => Some(PayeeId::try_from(bytes).map_err(|_| EntryError::Field("payee"))?),
    };
    Ok(TopUpLine {
        payee,
        id: TopUpId::try_from(wire.id.as_ref()).map_err(|_| EntryError::Field("topup id"))?,
        amount_sat: wire.amount_sat,
        topup,
        created: Timestamp::from_ms(wire.created_ms),
        closed: wire.closed,
    })
}

fn decode_payment(wire: &v1::PaymentLine) -> Result<Payment, EntryError> {
    let txid = wire.txid.as_ref().try_into().map_err(|_| EntryError::Field("txid"))?;
    Ok(Payment {
        outpoint: OutPoint { txid, vout: wire.vout },
        topup: TopUpId::try_from(wire.topup_id.as_ref()).map_err(|_| EntryError::Field("topup id"))?,
        amount_sat: wire.amount_sat,
        height: wire.height,
        depth: wire.depth,
        needed: 0,
        fee_sat: wire.fee_sat,
        ours: wire.ours,
        repaid: wire.repaid_msat.map(|msat| Repaid {
            debt: Msat::new(msat),
            late_weight: wire.late_weight,
            epoch: wire.repaid_epoch,
        }),
    })
}

fn decode_spending(wire: &v1::Spending) -> Result<Spending, EntryError> {
    Ok(Spending {
        id: TopUpId::try_from(wire.topup_id.as_ref()).map_err(|_| EntryError::Field("topup id"))?,
        at: Timestamp::from_ms(wire.at_ms),
        sat: wire.sat,
    })
}

fn decode_history(wire: v1::History, us: &PeerId, peer: &PeerId, direction: Direction) -> Result<History, EntryError> {
    let (buyer, seller) = match direction {
        Direction::Sold => (peer, us),
        Direction::Bought => (us, peer),
    };
    let grant = match wire.grant {
        Some(signed) => {
            let signed = Signed::from_wire(signed).map_err(|_| EntryError::Field("grant"))?;
            let grant = SignedGrant::parse(signed, buyer, seller).map_err(|_| EntryError::Field("grant"))?;
            Some((grant, Timestamp::from_ms(wire.granted_at_ms)))
        }
        None => None,
    };
    Ok(History {
        counted: Msat::new(wire.counted_msat),
        decayed: Msat::new(wire.decayed_msat),
        decayed_at: Timestamp::from_ms(wire.decayed_at_ms),
        grant,
        failed: Msat::new(wire.failed_msat),
    })
}
