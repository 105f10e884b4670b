//! Outgoing payments by id.
//!
//! An id is paid once: its signed transaction is stored before it is sent, and is sent until it is in a block, also
//! after a restart, also when the server says no or nothing. A timeout is never taken for "not paid".
//!
//! Several ids may share a transaction (a batch), and a transaction may be replaced by a dearer one that pays the same
//! ids (a bump). All versions of a payment spend a coin in common, so at most one of them is ever in a block: that one
//! is the payment then, else the newest is.

mod adopt;
mod build;
mod bump;
mod pay;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;

use bitcoin::{Address, OutPoint, Txid};

use crate::network::Network;
use crate::view::{Standing, View};
use crate::watch::FINAL_DEPTH;

pub(crate) use build::Fee;
pub use bump::{Bump, BumpError};
pub use pay::{MAX_BATCH, PayError, Terms};
pub use rows::Paid;
pub(crate) use rows::{Open, SELECT, Version, read_payment, write_state};

/// Names a payment; chosen at random or by derivation by the one who pays, the same for each retry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(pub [u8; 32]);

impl fmt::Debug for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A payment as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub id: PaymentId,
    pub address: Address,
    pub sat: u64,
    /// ms since the epoch.
    pub created_ms: u64,
    /// Known once signed; another one when it was bumped, or when an older version was mined after all.
    pub txid: Option<Txid>,
    /// The output that pays; known once signed.
    pub vout: Option<u32>,
    /// Its part of the transaction's fee; known once signed.
    pub fee_sat: Option<u64>,
    pub state: PaymentState,
}

impl Payment {
    /// The output that pays, once signed.
    pub fn outpoint(&self) -> Option<OutPoint> {
        Some(OutPoint::new(self.txid?, self.vout?))
    }
}

/// How far a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// Stored, not signed: no coin is touched, and none will be until the same id is paid again.
    Intent,
    /// Signed and stored; sent as soon as a server can be reached.
    Signed,
    /// A server has it.
    Broadcast,
    /// In a block; `depth` is 1 in the tip.
    Confirmed { height: u32, depth: u32 },
    /// [`FINAL_DEPTH`] deep.
    Final { height: u32 },
    /// An unconfirmed transaction, not made for this id, spends the same coins; either may still confirm.
    Replaced { by: Txid },
    /// The same coins were spent by a confirmed transaction: this payment can't happen any more.
    Conflicted { by: Txid },
}

/// Where each payment of `open` stands now, if that changed; `listed` are the transactions that the server just named.
pub(crate) fn changed_payments(open: Vec<Open>, view: &View<'_>, listed: &HashSet<Txid>) -> Vec<Payment> {
    let step = |Open { mut payment, versions }: Open| {
        let (version, standing) = judge(payment.txid?, &versions, view)?;
        let state = next_state(payment.state, standing, listed.contains(&version.txid));
        let changed = state != payment.state || payment.txid != Some(version.txid);
        payment = Payment { state, txid: Some(version.txid), vout: Some(version.vout), ..payment };
        payment.fee_sat = Some(version.fee_sat);
        changed.then_some(payment)
    };
    open.into_iter().filter_map(step).collect()
}

/// Which version is the payment, and where it stands: the one in a block; else the one that was it so far, unless that
/// can't happen any more and another one can. `versions` has the newest first.
fn judge(current: Txid, versions: &[Version], view: &View<'_>) -> Option<(Version, Standing)> {
    let own = |by: &Txid| versions.iter().any(|version| version.txid == *by);
    let stand = |version: &Version| {
        let standing = match view.standing(version.txid) {
            Standing::Replaced { by, confirmed: false } if own(&by) => Standing::Unconfirmed,
            standing => standing,
        };
        (*version, standing)
    };
    let mut all: Vec<_> = versions.iter().map(stand).collect();
    // Stable: of several that can happen, the current one, else the newest.
    all.sort_by_key(|(version, standing)| match standing {
        Standing::Confirmed { .. } => 0,
        Standing::Replaced { confirmed: true, .. } => 3,
        Standing::Unconfirmed | Standing::Gone | Standing::Replaced { .. } if version.txid == current => 1,
        Standing::Unconfirmed | Standing::Gone | Standing::Replaced { .. } => 2,
    });
    all.first().copied()
}

fn next_state(state: PaymentState, standing: Standing, listed: bool) -> PaymentState {
    match standing {
        Standing::Confirmed { height, depth, .. } if depth >= FINAL_DEPTH => PaymentState::Final { height },
        Standing::Confirmed { height, depth, .. } => PaymentState::Confirmed { height, depth },
        Standing::Replaced { by, confirmed: true } => PaymentState::Conflicted { by },
        Standing::Replaced { by, confirmed: false } => PaymentState::Replaced { by },
        Standing::Unconfirmed | Standing::Gone if state == PaymentState::Signed && !listed => PaymentState::Signed,
        Standing::Unconfirmed | Standing::Gone => PaymentState::Broadcast,
    }
}
