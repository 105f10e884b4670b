//! One object from one seller: a quote, a session, and once more where the connection broke.

use std::sync::Mutex;

use libp2p_identity::PeerId;
use pedlar_net::Multiaddr;
use pedlar_protocol::money::Price;
use pedlar_protocol::session::{Plan, Request};
use tokio_util::sync::CancellationToken;

use crate::accounts;
use crate::blobs::{WriteError, folder_of};
use crate::purchase::part::Part;
use crate::purchase::{Buyer, OrderError, find};
use crate::session::{Bought, BuyFailure, Offered, Purchase, lock};

/// How often a seller that broke off is asked again before the next one is.
pub(super) const TRIES: usize = 2;

/// An object to be bought from one seller.
pub(super) struct Lot<'a> {
    pub(super) request: Request,
    pub(super) seller: PeerId,
    pub(super) addrs: &'a [Multiaddr],
    /// The most that it may ask.
    pub(super) price: Price,
    pub(super) part: &'a Part,
    /// Who brings what of it, and what it may cost at all sellers together.
    pub(super) plan: &'a Mutex<Plan>,
}

/// What came of a lot.
#[derive(Default)]
pub(super) struct Sale {
    pub(super) bought: Bought,
    /// What went wrong, also where the second try went well.
    pub(super) failures: Vec<BuyFailure>,
    /// Why it ended without the seller's fault.
    pub(super) stopped: Option<Stopped>,
    /// Whether all is there that no other seller brings.
    pub(super) complete: bool,
}

/// An end on our own side.
pub(super) enum Stopped {
    /// The owner.
    Interrupted,
    /// The disk.
    Write(WriteError),
    /// The journal.
    Store(crate::store::StoreError),
}

impl Stopped {
    /// What the owner is told, of whom so many bytes are still to come to this folder.
    pub(super) fn into_error(self, dest: &std::path::Path, missing: u64) -> OrderError {
        match self {
            Self::Interrupted => OrderError::Interrupted,
            Self::Write(source) => OrderError::Write { folder: folder_of(dest), missing, source },
            Self::Store(error) => error.into(),
        }
    }
}

impl Sale {
    /// Whether the seller's connection is gone.
    pub(super) fn is_cut_off(&self) -> bool {
        matches!(self.failures.last(), Some(BuyFailure::Io(_) | BuyFailure::Open(_))) && !self.complete
    }

    fn end(mut self, failure: BuyFailure) -> Self {
        match failure {
            BuyFailure::Interrupted => self.stopped = Some(Stopped::Interrupted),
            // Ours, not the seller's: no other one can help.
            BuyFailure::Write(error) => self.stopped = Some(Stopped::Write(error)),
            BuyFailure::Store(error) => self.stopped = Some(Stopped::Store(error)),
            failure => self.failures.push(failure),
        }
        self
    }
}

impl Buyer {
    /// Buys what is missing of a lot and nobody else brings; `offered` is the seller's quote, where it has given one.
    pub(super) async fn buy_lot(
        &self,
        lot: &Lot<'_>,
        offered: Option<Offered>,
        stop: &CancellationToken,
        mut progress: impl FnMut(u64) + Send,
    ) -> Sale {
        let mut sale = Sale::default();
        let mut offered = match offered {
            Some(offered) => Ok(offered),
            None => self.ask_again(lot, stop).await,
        };
        for attempt in 1..=TRIES {
            let outcome = match offered {
                Ok(offered) => {
                    let root = *lot.request.object();
                    let run = Purchase { driver: &self.driver, root, part: lot.part, plan: lot.plan, stop };
                    let (bought, outcome) = run.from(offered, &mut progress).await;
                    sale.bought.add(bought);
                    outcome
                }
                Err(failure) => Err(failure),
            };
            match outcome {
                Ok(()) => return Sale { complete: true, ..sale },
                Err(failure) if failure.is_worth_another_try() && attempt < TRIES => sale.failures.push(failure),
                Err(failure) => return sale.end(failure),
            }
            offered = self.ask_again(lot, stop).await;
        }
        sale
    }

    async fn ask_again(&self, lot: &Lot<'_>, stop: &CancellationToken) -> Result<Offered, BuyFailure> {
        let size = lock(lot.part).size();
        let asked = find::ask(&self.driver, &self.net, lot.seller, lot.addrs.to_vec(), lot.request);
        let asked = stop.run_until_cancelled(asked).await.ok_or(BuyFailure::Interrupted)?;
        asked?.unchanged(lot.price, size).await
    }

    /// The books are to agree before we go. Where the connection is gone, they do so when there is one again: to wait for a
    /// dead seller here would keep us from the next.
    pub(super) async fn settle(&self, seller: PeerId, addrs: &[Multiaddr]) {
        accounts::settle(&self.driver, &self.net, seller, addrs.to_vec()).await;
    }
}
