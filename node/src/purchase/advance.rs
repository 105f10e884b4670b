//! Paying a seller in advance: its word first, then the payment, then the wait until it counts.

use std::time::Duration;

use libp2p_identity::PeerId;
use pedlar_net::{Multiaddr, NetHandle};
use pedlar_protocol::account::Direction;
use pedlar_protocol::book::Ranked;
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::money::Msat;
use pedlar_protocol::session::Request;
use pedlar_protocol::settlement::{AdvanceError, Onchain, first_step, plan_advance};
use pedlar_wallet::PayError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accounts::{self, ExchangeError};
use crate::driver::{Driver, now};
use crate::purchase::{Buyer, Found, News, Order, OrderError, Tell, Trade, find};
use crate::session::BuyFailure;
use crate::store::StoreError;

/// How often the seller is asked while a payment is on its way: it sees blocks a moment before or after us.
const ASK_AGAIN: Duration = Duration::from_millis(1500);

/// How long a seller may take to count what our chain shows as paid: its server may be a few blocks behind.
const SLOW_SELLER: Duration = Duration::from_secs(300);

/// Money on its way, as its owner sees it.
#[derive(Debug, Clone)]
pub(crate) enum PaymentNews {
    /// Our wallet has signed and stored it.
    Paid { txid: String, amount_sat: u64, fee_sat: u64, address: String },
    /// Our wallet has too little: somebody else may pay this.
    PayThis { uri: String, amount_sat: u64 },
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
    /// The owner did not want to wait.
    #[error("the payment is not confirmed yet: it counts when it is, whether or not somebody waits")]
    NotConfirmed,
}

/// An advance to one seller.
pub(crate) struct TopUpOrder {
    pub(crate) seller: PeerId,
    pub(crate) addrs: Vec<Multiaddr>,
    pub(crate) amount_sat: u64,
    pub(crate) max_fee_sat: u64,
    /// Without coins, show a link to be paid by another wallet.
    pub(crate) ask_others: bool,
}

/// What was paid.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToppedUp {
    pub(crate) txid: Option<String>,
    pub(crate) fee_sat: u64,
}

impl Buyer {
    /// Pays what the best seller asks in advance, and refreshes its quote.
    pub(super) async fn pay_advance(
        &self,
        order: &Order,
        best: &Ranked,
        found: Found,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<Found, OrderError> {
        let Found { seller, addrs, offered, whole, min_topup_sat, served, .. } = found;
        let (price, size) = (offered.quote.quote().price, offered.size);
        let rail = Onchain { fee_sat: best.candidate.setup_fee.ceil_sat(), min_sat: min_topup_sat };
        let max = trade.left(order.max);
        let advance = plan_advance(best.advance, rail, order.prepay_sat, first_step(price, served), max);
        let advance = advance.map_err(PaymentFailure::from)?;
        // A stream would idle out while we wait for a block.
        offered.decline().await;
        let max_fee_sat = match max {
            // The fee must leave what the object costs, which may be more than the advance where some is prepaid.
            Some(max) => max.floor_sat().saturating_sub(advance.amount_sat.max(best.charge.ceil_sat())),
            None => advance.fee_sat.saturating_mul(2),
        };
        let topup =
            TopUpOrder { seller, addrs: addrs.clone(), amount_sat: advance.amount_sat, max_fee_sat, ask_others: true };
        let tell_payment = |news| tell(News::Payment(news));
        let paid = top_up(&self.driver, &self.net, topup, stop, &tell_payment).await?;
        trade.fees_sat = trade.fees_sat.saturating_add(paid.fee_sat);
        trade.txid = paid.txid;
        let asked = find::ask(&self.driver, &self.net, seller, addrs.clone(), Request::Chunks(order.link.root)).await;
        // What was paid for is what was quoted before, also where the seller promised others a worse price.
        let offered = asked.and_then(|offered| offered.unchanged(price, size));
        let offered = offered.map_err(|failure| PaymentFailure::Quote(Box::new(failure)))?;
        Ok(Found { seller, addrs, offered, whole, available: best.charge, min_topup_sat, served })
    }
}

/// Pays a seller in advance and waits until it counts on both sides.
///
/// The same advance asked for again, after whatever happened, is the same payment.
///
/// # Errors
/// [`PaymentFailure`]; what was signed before stays signed, and counts when it confirms.
pub(crate) async fn top_up(
    driver: &Driver,
    net: &NetHandle,
    order: TopUpOrder,
    stop: &CancellationToken,
    tell: &(dyn Fn(PaymentNews) + Send + Sync),
) -> Result<ToppedUp, PaymentFailure> {
    let TopUpOrder { seller, addrs, amount_sat, max_fee_sat, ask_others } = order;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| StoreError::Write(error.to_string().into()))?;
    let id = driver.commit(|market| market.handle_topup_wanted(now(), seller, amount_sat, TopUpId(random))).await?;
    let topup = accounts::request_topup(driver, net, seller, addrs.clone(), id, amount_sat).await?;
    let address = driver.network().parse_address(&topup.topup().address)?;
    let mut paid = ToppedUp::default();
    match driver.pay_topup(id, address.clone(), amount_sat, max_fee_sat).await {
        Ok(payment) => {
            paid = ToppedUp::of(&payment);
            let (txid, fee_sat) = (paid.txid.clone().unwrap_or_default(), paid.fee_sat);
            tell(PaymentNews::Paid { txid, amount_sat, fee_sat, address: address.to_string() });
        }
        Err(PayError::Short { .. }) if ask_others => {
            let amount = bitcoin::Amount::from_sat(amount_sat);
            let uri = pedlar_wallet::bip21(&address, Some(amount), Some("Pedlar top-up"), None);
            tell(PaymentNews::PayThis { uri, amount_sat });
        }
        Err(error) => return Err(error.into()),
    }
    tokio::select! {
        counted = until_credited(driver, net, seller, addrs, id) => tell(PaymentNews::Credited { paid: counted? }),
        () = stop.cancelled() => return Err(PaymentFailure::NotConfirmed),
    }
    Ok(driver.topup_payment(id).await.map_or(paid, |payment| ToppedUp::of(&payment)))
}

impl ToppedUp {
    fn of(payment: &pedlar_wallet::Payment) -> Self {
        Self { txid: payment.txid.map(|txid| txid.to_string()), fee_sat: payment.fee_sat.unwrap_or(0) }
    }
}

/// Waits until a payment under the top-up counts, in our books and in the seller's.
///
/// A seller that is paid and does not say so for [`SLOW_SELLER`] is not waited for: it serves, or its refusal is told.
async fn until_credited(
    driver: &Driver,
    net: &NetHandle,
    seller: PeerId,
    addrs: Vec<Multiaddr>,
    id: TopUpId,
) -> Result<Msat, PaymentFailure> {
    let mut money = driver.money();
    let mut due: Option<Instant> = None;
    loop {
        money.mark_unchanged();
        let view = accounts::sync(driver, net, seller, addrs.clone()).await;
        let (paid, credited) = driver.read(|market| {
            let account = market.account(&seller, Direction::Bought);
            let credited = account
                .is_some_and(|account| account.payments().any(|payment| payment.topup == id && payment.is_credited()));
            (account.map(|account| account.paid()).unwrap_or_default(), credited)
        });
        // A reorganisation takes back what counted, and the seller's time with it.
        due = credited.then(|| due.unwrap_or_else(|| Instant::now() + SLOW_SELLER));
        match view {
            Ok(view) if credited && view.paid >= paid => return Ok(paid),
            _ if due.is_some_and(|due| due <= Instant::now()) => return Ok(paid),
            Ok(_) => {}
            Err(error) => tracing::debug!(%seller, %error, "the seller can't be asked about a payment"),
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN) => {}
            _ = money.changed() => {}
        }
    }
}
