//! The wait until money counts on both sides, by our own books first: a seller may be behind, or lie.

use std::time::Duration;

use libp2p_identity::PeerId;
use pedlar_net::{Multiaddr, NetHandle};
use pedlar_protocol::account::Direction;
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::market::{Market, Paying};
use pedlar_protocol::money::{Msat, Price};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accounts::{self, SellersView};
use crate::driver::Driver;
use crate::purchase::payment::{Denied, PaymentFailure, taken};

/// How often the seller is asked while a payment is on its way: it sees blocks a moment before or after us.
const ASK_AGAIN: Duration = Duration::from_millis(1500);

/// How long a seller may take to count what our chain shows as paid: its server may be a few blocks behind.
const SLOW_SELLER: Duration = Duration::from_secs(300);

/// What we have left with a seller by our own books, less what it may hold for bytes that it has sent.
pub(super) fn left(market: &Market, seller: &PeerId, held: Msat, price: Price) -> Msat {
    market.left_with(seller).saturating_sub(market.believed_held(seller, held, price))
}

/// What is waited for after a payment, or instead of one.
pub(super) struct Wait {
    pub(super) seller: PeerId,
    pub(super) addrs: Vec<Multiaddr>,
    /// The top-up that was paid now; nothing where what was paid before is enough.
    pub(super) id: Option<TopUpId>,
    /// What must be there to be used; 0 where it is only to count.
    pub(super) needed: Msat,
    pub(super) price: Price,
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
    pub(super) async fn until_counted(
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
            let held = view.as_ref().map_or(Msat::ZERO, |view| view.held);
            let ours = driver.read(|market| self.standing(market, held));
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

    fn standing(&self, market: &Market, held: Msat) -> Standing {
        let account = market.account(&self.seller, Direction::Bought);
        let paying = self.id.map(|id| market.paying(&self.seller, &id));
        Standing {
            paid: account.map(|account| account.paid()).unwrap_or_default(),
            left: left(market, &self.seller, held, self.price),
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
