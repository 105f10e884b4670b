//! A payment to a seller as its owner sees it: on its way, made, or the reason why it is not.

use pedlar_protocol::budget::OverBudget;
use pedlar_protocol::money::Msat;
use pedlar_protocol::settlement::AdvanceError;
use pedlar_wallet::{PayError, PaymentState};

use crate::accounts::ExchangeError;
use crate::driver::Driver;
use crate::session::BuyFailure;
use crate::store::StoreError;

/// Money on its way, as its owner sees it.
#[derive(Debug, Clone)]
pub(crate) enum PaymentNews {
    /// Our wallet has signed and stored it.
    Paid { txid: String, amount_sat: u64, fee_sat: u64, address: String },
    /// Our wallet has too little: somebody else may pay this.
    PayThis { uri: String, amount_sat: u64 },
    /// It is paid already, by us or by somebody else, and does not count yet.
    Awaited { amount_sat: u64 },
    /// It counts.
    Credited { paid: Msat },
}

/// Why an advance was not paid, or does not count yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PaymentFailure {
    /// The rule for advances.
    #[error(transparent)]
    Advance(#[from] AdvanceError),
    /// The seller.
    #[error(transparent)]
    Seller(#[from] ExchangeError),
    /// The seller's address is none of this network.
    #[error("the seller's address: {0}")]
    Address(#[from] pedlar_wallet::ParseAddressError),
    /// Our wallet.
    #[error(transparent)]
    Wallet(#[from] PayError),
    /// Our journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The seller's price after it was paid.
    #[error("the seller was paid and does not quote: {0}")]
    Quote(Box<BuyFailure>),
    /// What the owner allows without being asked.
    #[error(transparent)]
    Budget(#[from] OverBudget),
    /// The seller's books, again and again.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Our own payment.
    #[error("the payment {txid} can't happen any more: {by} has spent its coins")]
    Conflicted { txid: String, by: String },
    /// The owner stopped it in time.
    #[error("interrupted: nothing was paid")]
    Interrupted,
    /// The owner did not want to wait.
    #[error("the payment is not confirmed yet: it counts when it is, whether or not somebody waits")]
    NotConfirmed,
}

/// A seller that has money of ours and says that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seller does not count what it was paid: {left} are left there by our books, {available} by its own")]
pub(crate) struct Denied {
    pub(crate) left: Msat,
    pub(crate) available: Msat,
}

/// What was paid.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToppedUp {
    pub(crate) txid: Option<String>,
    pub(crate) fee_sat: u64,
    /// What can be bought there now.
    pub(crate) available: Msat,
}

/// Tells of a payment that our wallet has made, now or before.
pub(super) async fn taken(
    driver: &Driver,
    payment: pedlar_wallet::Payment,
    tell: &(dyn Fn(PaymentNews) + Send + Sync),
) -> Result<ToppedUp, PaymentFailure> {
    // Before the wallet's own event: whoever plans another advance is to know of it.
    driver.note_payment(payment.clone()).await?;
    let paid = ToppedUp::of(&payment);
    let (txid, fee_sat) = (paid.txid.clone().unwrap_or_default(), paid.fee_sat);
    if let PaymentState::Conflicted { by } = payment.state {
        // Its top-up is given up, so that the next try asks for another one.
        return Err(PaymentFailure::Conflicted { txid, by: by.to_string() });
    }
    tell(PaymentNews::Paid { txid, amount_sat: payment.sat, fee_sat, address: payment.address.to_string() });
    Ok(paid)
}

impl ToppedUp {
    pub(super) fn of(payment: &pedlar_wallet::Payment) -> Self {
        Self {
            txid: payment.txid.map(|txid| txid.to_string()),
            fee_sat: payment.fee_sat.unwrap_or(0),
            available: Msat::ZERO,
        }
    }
}
