//! Paying a seller in advance: its word first, then the payment, then the wait until it counts.

use std::time::Duration;

use libp2p_identity::PeerId;
use pedlar_net::{Multiaddr, NetHandle};
use pedlar_protocol::account::Direction;
use pedlar_protocol::book::Ranked;
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::market::{Market, Paying};
use pedlar_protocol::money::Msat;
use pedlar_protocol::session::Request;
use pedlar_protocol::settlement::{AdvanceError, Onchain, first_step, plan_advance};
use pedlar_wallet::{PayError, PaymentState};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accounts::{self, ExchangeError, SellersView};
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
    /// Somebody else pays it already.
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

/// An advance to one seller.
pub(crate) struct TopUpOrder {
    pub(crate) seller: PeerId,
    pub(crate) addrs: Vec<Multiaddr>,
    pub(crate) amount_sat: u64,
    pub(crate) max_fee_sat: u64,
    /// Without coins, show a link to be paid by another wallet.
    pub(crate) ask_others: bool,
    /// What must be there to be used when it counts; 0 where it is only to count.
    pub(crate) needed: Msat,
}

/// What was paid.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToppedUp {
    pub(crate) txid: Option<String>,
    pub(crate) fee_sat: u64,
    /// What can be bought there now.
    pub(crate) available: Msat,
}

impl Buyer {
    /// Sees to it that the best seller delivers: pays what it asks in advance, where it does not have that from us already,
    /// waits until it counts, and refreshes its quote.
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
        // Whatever the seller says: what it has from us by our own books is not paid again.
        let left = self.driver.read(|market| market.left_with(&seller));
        let missing = best.advance.min(best.charge.saturating_sub(left));
        let tell_payment = |news| tell(News::Payment(news));
        let available = if missing > Msat::ZERO {
            let rail = Onchain { fee_sat: best.candidate.setup_fee.ceil_sat(), min_sat: min_topup_sat };
            let max = trade.left(order.max);
            let unasked = first_step(price, served).saturating_sub(left);
            let advance = plan_advance(missing, rail, order.prepay_sat, unasked, max).map_err(PaymentFailure::from)?;
            // A stream would idle out while we wait for a block.
            offered.decline().await;
            let max_fee_sat = match max {
                // The fee must leave what the object costs, which may be more than the advance where some is prepaid.
                Some(max) => max.floor_sat().saturating_sub(advance.amount_sat.max(best.charge.ceil_sat())),
                None => advance.fee_sat.saturating_mul(2),
            };
            let (addrs, amount_sat) = (addrs.clone(), advance.amount_sat);
            let topup = TopUpOrder { seller, addrs, amount_sat, max_fee_sat, ask_others: true, needed: best.charge };
            let paid = top_up(&self.driver, &self.net, topup, stop, &tell_payment).await?;
            trade.fees_sat = trade.fees_sat.saturating_add(paid.fee_sat);
            trade.txid = paid.txid;
            paid.available
        } else {
            offered.decline().await;
            let wait = Wait { seller, addrs: addrs.clone(), id: None, needed: best.charge };
            wait.until_counted(&self.driver, &self.net, stop).await?.1
        };
        let asked = find::ask(&self.driver, &self.net, seller, addrs.clone(), Request::Chunks(order.link.root)).await;
        // What was paid for is what was quoted before, also where the seller promised others a worse price.
        let offered = asked.and_then(|offered| offered.unchanged(price, size));
        let offered = offered.map_err(|failure| PaymentFailure::Quote(Box::new(failure)))?;
        Ok(Found { seller, addrs, offered, whole, available, min_topup_sat, served })
    }
}

/// Pays a seller in advance and waits until it counts on both sides.
///
/// The same advance asked for again, after whatever happened, is the same payment until it counts.
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
    let TopUpOrder { seller, amount_sat, needed, .. } = order;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| StoreError::Write(error.to_string().into()))?;
    let id = driver.commit(|market| market.handle_topup_wanted(now(), seller, amount_sat, TopUpId(random))).await?;
    let mut paid = match driver.read(|market| market.paying(&seller, &id)) {
        Paying::Ours => match driver.topup_payment(id).await {
            Some(payment) => taken(driver, payment, tell).await?,
            None => ToppedUp::default(),
        },
        Paying::Others => {
            tell(PaymentNews::Awaited { amount_sat });
            ToppedUp::default()
        }
        Paying::Unpaid | Paying::Counts | Paying::Conflicted => pay_under(driver, net, &order, id, stop, tell).await?,
    };
    let wait = Wait { seller, addrs: order.addrs, id: Some(id), needed };
    let (counts, available) = wait.until_counted(driver, net, stop).await?;
    tell(PaymentNews::Credited { paid: counts });
    if let Some(payment) = driver.topup_payment(id).await {
        paid = ToppedUp::of(&payment);
    }
    Ok(ToppedUp { available, ..paid })
}

/// Gets the seller's word on a top-up, and pays under it.
async fn pay_under(
    driver: &Driver,
    net: &NetHandle,
    order: &TopUpOrder,
    id: TopUpId,
    stop: &CancellationToken,
    tell: &(dyn Fn(PaymentNews) + Send + Sync),
) -> Result<ToppedUp, PaymentFailure> {
    let TopUpOrder { seller, ref addrs, amount_sat, max_fee_sat, ask_others, .. } = *order;
    let asked = accounts::request_topup(driver, net, seller, addrs.clone(), id, amount_sat);
    let topup = stop.run_until_cancelled(asked).await.ok_or(PaymentFailure::Interrupted)??;
    let address = driver.network().parse_address(&topup.topup().address)?;
    // The owner may have gone while the seller took its time.
    if stop.is_cancelled() {
        return Err(PaymentFailure::Interrupted);
    }
    match driver.pay_topup(id, address.clone(), amount_sat, max_fee_sat).await {
        Ok(payment) => taken(driver, payment, tell).await,
        Err(PayError::Short { .. }) if ask_others => {
            let amount = bitcoin::Amount::from_sat(amount_sat);
            let uri = pedlar_wallet::bip21(&address, Some(amount), Some("Pedlar top-up"), None);
            tell(PaymentNews::PayThis { uri, amount_sat });
            Ok(ToppedUp::default())
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells of a payment that our wallet has made, now or before.
async fn taken(
    driver: &Driver,
    payment: pedlar_wallet::Payment,
    tell: &(dyn Fn(PaymentNews) + Send + Sync),
) -> Result<ToppedUp, PaymentFailure> {
    let paid = ToppedUp::of(&payment);
    let (txid, fee_sat) = (paid.txid.clone().unwrap_or_default(), paid.fee_sat);
    if let PaymentState::Conflicted { by } = payment.state {
        // Its top-up is given up, so that the next try asks for another one.
        driver.note_payment(payment).await?;
        return Err(PaymentFailure::Conflicted { txid, by: by.to_string() });
    }
    tell(PaymentNews::Paid { txid, amount_sat: payment.sat, fee_sat, address: payment.address.to_string() });
    Ok(paid)
}

impl ToppedUp {
    fn of(payment: &pedlar_wallet::Payment) -> Self {
        Self {
            txid: payment.txid.map(|txid| txid.to_string()),
            fee_sat: payment.fee_sat.unwrap_or(0),
            available: Msat::ZERO,
        }
    }
}

/// What is waited for after a payment, or instead of one.
struct Wait {
    seller: PeerId,
    addrs: Vec<Multiaddr>,
    /// The top-up that was paid now; nothing where what was paid before is enough.
    id: Option<TopUpId>,
    /// What must be there to be used; 0 where it is only to count.
    needed: Msat,
}

/// How our own books stand while we wait.
struct Standing {
    paid: Msat,
    left: Msat,
    paying: Option<Paying>,
    /// Whether all that is waited for counts in our chain.
    counts: bool,
    /// Whether something of it is being used at this moment, so that the seller may hold it.
    is_used: bool,
}

impl Wait {
    /// Waits until the money counts, in our books and in the seller's; what counts in all, and what can be bought there.
    ///
    /// # Errors
    /// [`Denied`] where the seller does not say so for [`SLOW_SELLER`] after our chain did.
    async fn until_counted(
        self,
        driver: &Driver,
        net: &NetHandle,
        stop: &CancellationToken,
    ) -> Result<(Msat, Msat), PaymentFailure> {
        let counted = stop.run_until_cancelled(self.follow(driver, net)).await;
        counted.unwrap_or_else(|| {
            let is_paying = self.id.is_some() || driver.read(|market| market.is_paying(&self.seller));
            Err(if is_paying { PaymentFailure::NotConfirmed } else { PaymentFailure::Interrupted })
        })
    }

    async fn follow(&self, driver: &Driver, net: &NetHandle) -> Result<(Msat, Msat), PaymentFailure> {
        let mut money = driver.money();
        let (mut due, mut available): (Option<Instant>, Msat) = (None, Msat::ZERO);
        loop {
            money.mark_unchanged();
            let view = accounts::sync(driver, net, self.seller, self.addrs.clone()).await;
            let ours = driver.read(|market| self.standing(market));
            if let (Some(Paying::Conflicted), Some(payment)) = (ours.paying, self.payment(driver).await) {
                taken(driver, payment, &|_| ()).await?;
            }
            match view {
                Ok(view) if ours.counts && self.is_enough(&ours, &view) => return Ok((ours.paid, view.available)),
                Ok(view) => available = view.available,
                Err(error) => {
                    tracing::debug!(seller = %self.seller, %error, "the seller can't be asked about a payment")
                }
            }
            // A reorganisation takes back what counted, and the seller's time with it.
            due = (ours.counts && !ours.is_used).then(|| due.unwrap_or_else(|| Instant::now() + SLOW_SELLER));
            if due.is_some_and(|due| due <= Instant::now()) {
                return Err(Denied { left: ours.left, available }.into());
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_AGAIN) => {}
                _ = money.changed() => {}
            }
        }
    }

    fn standing(&self, market: &Market) -> Standing {
        let account = market.account(&self.seller, Direction::Bought);
        let paying = self.id.map(|id| market.paying(&self.seller, &id));
        Standing {
            paid: account.map(|account| account.paid()).unwrap_or_default(),
            left: market.left_with(&self.seller),
            paying,
            counts: paying.map_or_else(|| !market.is_paying(&self.seller), |paying| paying == Paying::Counts),
            is_used: account.is_some_and(|account| account.lines().any(|line| !line.has_ended())),
        }
    }

    /// Whether there is what is needed, or as much as our own books have: the rest is not for the seller to give.
    fn is_enough(&self, ours: &Standing, view: &SellersView) -> bool {
        match self.needed {
            Msat::ZERO => view.paid >= ours.paid,
            needed => view.available >= needed.min(ours.left),
        }
    }

    async fn payment(&self, driver: &Driver) -> Option<pedlar_wallet::Payment> {
        driver.topup_payment(self.id?).await
    }
}
