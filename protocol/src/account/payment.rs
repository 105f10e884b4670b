//! Money on its way: top-ups agreed on, and the outputs that paid them (MONEY.md 2.5, 4).

use std::fmt::{Display, Formatter, Result as FmtResult};

use pedlar_proto::v1;

use crate::id::{PayeeId, TopUpId};
use crate::money::{Msat, Price};
use crate::offer::Service;
use crate::settlement::{FINAL_DEPTH, SignedTopUp};
use crate::time::Timestamp;

/// A chain output: transaction id in internal byte order, and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutPoint {
    /// The transaction.
    pub txid: [u8; 32],
    /// The output's index.
    pub vout: u32,
}

impl Display for OutPoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        self.txid.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ":{}", self.vout)
    }
}

/// The debt that a payment settled when it was first credited, and how it counts for trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repaid {
    /// How much.
    pub debt: Msat,
    /// 0 when it came in time; late by d days it counts `min(1 + d, 8)` times.
    pub late_weight: u32,
    /// Defaults before the debt was made: those of before the last one count no more.
    pub epoch: u32,
}

/// An output that pays under a top-up, with its place in the chain as a fact and what is asked of it as a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The output: it is credited once.
    pub outpoint: OutPoint,
    /// The top-up under which it pays.
    pub topup: TopUpId,
    /// Its amount in sat.
    pub amount_sat: u64,
    /// The block that holds it, 0 while none does.
    pub height: u64,
    /// Blocks on top, its own counted: 0 while it is in none.
    pub depth: u32,
    /// Depth at which it counts; 0 is never stored, and means that no rule has looked at it. More than [`FINAL_DEPTH`] is
    /// what no depth that a wallet tells reaches: it is lowered once the tip is so far above.
    pub needed: u32,
    /// Sold: the debt that it settled when it was first credited. A reorg changes nothing in it: else an advance that
    /// was spent and comes back would pass for a debt that was paid.
    pub repaid: Option<Repaid>,
    /// Bought: the fee that our wallet paid, in sat.
    pub fee_sat: u64,
    /// Bought: whether our own wallet paid.
    pub ours: bool,
}

impl Payment {
    /// A payment as a seller tells it: where it stands in the chain is judged by our own height.
    #[must_use]
    pub fn from_wire(wire: &v1::Received) -> Option<Self> {
        Some(Self {
            outpoint: OutPoint { txid: wire.txid.as_ref().try_into().ok()?, vout: wire.vout },
            topup: TopUpId::try_from(wire.topup_id.as_ref()).ok()?,
            amount_sat: wire.amount_sat,
            height: wire.height,
            depth: 0,
            needed: 0,
            repaid: None,
            fee_sat: 0,
            ours: false,
        })
    }

    /// The payment as it is told to a buyer.
    #[must_use]
    pub fn to_wire(&self) -> v1::Received {
        v1::Received {
            topup_id: self.topup.0.to_vec().into(),
            txid: self.outpoint.txid.to_vec().into(),
            vout: self.outpoint.vout,
            amount_sat: self.amount_sat,
            height: self.height,
        }
    }

    /// Its amount, saturating: no output holds more than 21 million bitcoin.
    #[must_use]
    pub fn amount(&self) -> Msat {
        Msat::from_sat(self.amount_sat).unwrap_or(Msat::MAX)
    }

    /// Whether it is deep enough to count; one that is final stays so, whatever is paid after it.
    #[must_use]
    pub const fn is_credited(&self) -> bool {
        self.is_final() || (self.needed > 0 && self.depth >= self.needed)
    }

    /// Whether it is six deep, or as deep as so much has to be.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.depth >= FINAL_DEPTH && self.needed <= FINAL_DEPTH
    }
}

/// A top-up from its request to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUpLine {
    /// Its name.
    pub id: TopUpId,
    /// What the buyer means to pay, in sat.
    pub amount_sat: u64,
    /// The seller's word, absent until it was given.
    pub topup: Option<SignedTopUp>,
    /// When it was asked for.
    pub created: Timestamp,
    /// Paid, or given up: no further payment is expected under it.
    pub closed: bool,
    /// Sold: whom the wallet made the address for; an address stays the same until it is paid.
    pub payee: Option<PayeeId>,
}

impl TopUpLine {
    /// The dearest price that its money may be charged.
    #[must_use]
    pub fn ceiling(&self, service: Service) -> Option<Price> {
        self.topup.as_ref().and_then(|topup| topup.topup().ceilings.get(&service).copied())
    }
}
