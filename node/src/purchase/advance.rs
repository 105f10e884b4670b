//! Paying a seller in advance: its word first, then the payment, then the wait until it counts.

use libp2p_identity::PeerId;
use pedlar_net::{Multiaddr, NetHandle};
use pedlar_protocol::book::Ranked;
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::market::Paying;
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::session::Request;
use pedlar_protocol::settlement::{Advance, AdvanceError, Onchain, first_step, plan_advance};
use pedlar_wallet::PayError;
use tokio_util::sync::CancellationToken;

use crate::accounts;
use crate::driver::{Driver, now};
use crate::purchase::payment::{Denied, PaymentFailure, PaymentNews, ToppedUp, taken};
use crate::purchase::wait::{Wait, left};
use crate::purchase::{Buyer, Found, News, Order, OrderError, Tell, Trade, find};
use crate::store::StoreError;

/// An advance to one seller.
pub(crate) struct TopUpOrder {
    pub(crate) seller: PeerId,
    pub(crate) addrs: Vec<Multiaddr>,
    pub(crate) amount_sat: u64,
    pub(crate) max_fee_sat: u64,
    /// Without coins, show a link to be paid by another wallet.
    pub(crate) ask_others: bool,
    /// Whether no person has said so: then the budget bounds it.
    pub(crate) unasked: bool,
    /// What must be there to be used when it counts; 0 where it is only to count.
    pub(crate) needed: Msat,
    /// What is bought there costs so much.
    pub(crate) price: Price,
}

impl Buyer {
    /// Sees to it that the best seller delivers: pays what it asks in advance, where it does not have that from us already,
    /// waits until it counts, and refreshes its quote. [`Denied`] where it has enough from us, and says that it has not:
    /// nothing was paid now.
    pub(super) async fn pay_advance(
        &self,
        order: &Order,
        best: &Ranked,
        found: Found,
        trade: &mut Trade,
        stop: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<Result<Found, Denied>, OrderError> {
        let plan = self.plan(order, best, &found, trade.left(order.max));
        let Found { seller, addrs, offered, whole, held, min_topup_sat, served, .. } = found;
        let (price, size) = (offered.quote.quote().price, offered.size);
        let tell_payment = |news| tell(News::Payment(news));
        let available = if let Some(advance) = plan.advance {
            let amount_sat = advance.map_err(PaymentFailure::from)?.amount_sat;
            // A stream would idle out while we wait for a block.
            offered.decline().await;
            let topup = TopUpOrder {
                seller,
                addrs: addrs.clone(),
                amount_sat,
                max_fee_sat: plan.max_fee_sat,
                ask_others: true,
                unasked: order.prepay_sat.is_none(),
                needed: best.charge,
                price,
            };
            let paid = top_up(&self.driver, &self.net, topup, stop, &tell_payment).await;
            if let Err(PaymentFailure::Denied(_)) = paid {
                self.driver.commit(|market| market.handle_failed(&seller)).await?;
            }
            let paid = paid?;
            trade.fees_sat = trade.fees_sat.saturating_add(paid.fee_sat);
            trade.txid = paid.txid;
            paid.available
        } else {
            offered.decline().await;
            let left = self.driver.read(|market| market.left_with(&seller));
            tell_payment(PaymentNews::Awaited { amount_sat: left.floor_sat() });
            let wait = Wait { seller, addrs: addrs.clone(), id: None, needed: best.charge, price };
            match wait.until_counted(&self.driver, &self.net, stop).await {
                Err(PaymentFailure::Denied(denied)) => return Ok(Err(denied)),
                counted => counted?.1,
            }
        };
        let asked = find::ask(&self.driver, &self.net, seller, addrs.clone(), Request::Chunks(order.link.root)).await;
        // What was paid for is what was quoted before, also where the seller promised others a worse price.
        let offered = match asked {
            Ok(offered) => offered.unchanged(price, size).await,
            Err(failure) => Err(failure),
        };
        let offered = offered.map_err(|failure| PaymentFailure::Quote(Box::new(failure)))?;
        Ok(Ok(Found { seller, addrs, offered, whole, available, held, min_topup_sat, served }))
    }

    /// What would be paid to this seller in advance. Whatever it says: what it has from us by our own books is not paid
    /// again.
    pub(super) fn plan(&self, order: &Order, best: &Ranked, found: &Found, max: Option<Msat>) -> Plan {
        let price = found.offered.quote.quote().price;
        let left = self.driver.read(|market| left(market, &found.seller, found.held, price));
        let missing = best.advance.min(best.charge.saturating_sub(left));
        let rail = Onchain { fee_sat: best.candidate.setup_fee.ceil_sat(), min_sat: found.min_topup_sat };
        let unasked = first_step(price, found.served).saturating_sub(left);
        let plan = || plan_advance(missing, rail, order.prepay_sat, unasked, max);
        let advance = (missing > Msat::ZERO).then(plan);
        let amount_sat = advance.and_then(Result::ok).map_or(0, |advance| advance.amount_sat);
        let fee_sat = order.max_fee_sat.unwrap_or(rail.fee_sat.saturating_mul(2));
        // The fee must leave what the object costs, which may be more than the advance where some is prepaid.
        let room = max.map(|max| max.floor_sat().saturating_sub(amount_sat.max(best.charge.ceil_sat())));
        Plan { advance, max_fee_sat: room.map_or(fee_sat, |room| room.min(fee_sat)) }
    }
}

/// What would be paid to a seller in advance.
pub(super) struct Plan {
    /// Nothing where it has enough from us.
    advance: Option<Result<Advance, AdvanceError>>,
    max_fee_sat: u64,
}

impl Plan {
    /// The amount, its fee now and the largest that is paid, in sat; also where nobody has allowed it yet.
    pub(super) fn in_sat(&self) -> Option<(u64, u64, u64)> {
        let (amount_sat, fee_sat) = match self.advance? {
            Ok(Advance { amount_sat, fee_sat }) => (amount_sat, fee_sat),
            Err(AdvanceError::NeedsWord { amount_sat, fee_sat }) => (amount_sat, fee_sat),
            Err(AdvanceError::TooSmall { .. } | AdvanceError::OverLimit { .. }) => return None,
        };
        Some((amount_sat, fee_sat, self.max_fee_sat))
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
    let TopUpOrder { seller, amount_sat, max_fee_sat, unasked, needed, price, .. } = order;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| StoreError::Write(error.to_string().into()))?;
    let random = TopUpId(random);
    let id = driver.commit(|market| match unasked {
        true => market.handle_unasked_topup(now(), seller, amount_sat, max_fee_sat, random),
        false => Ok(market.handle_topup_wanted(now(), seller, amount_sat, random)),
    });
    let id = id.await??;
    let mut paid = match driver.read(|market| market.paying(&seller, &id)) {
        Paying::Ours => match driver.topup_payment(id).await {
            Some(payment) => taken(driver, payment, tell).await?,
            None => ToppedUp::default(),
        },
        Paying::Others => {
            tell(PaymentNews::Awaited { amount_sat });
            ToppedUp::default()
        }
        Paying::Unpaid | Paying::Counts | Paying::Conflicted => {
            let paid = pay_under(driver, net, &order, id, stop, tell).await;
            driver.settle_spending(id).await?;
            paid?
        }
    };
    let wait = Wait { seller, addrs: order.addrs, id: Some(id), needed, price };
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
    if order.unasked {
        driver.commit(|market| market.handle_unasked(now(), id, amount_sat.saturating_add(max_fee_sat))).await??;
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
