//! Between the market, the journal and the wallet: every decision is stored before its effect, and every fact of the
//! wallet is told to the market. The one file that speaks both `Msat` and sat, `PeerId` and payee.
//!
//! **Invariant:** the market's lock is never held across an await, and nothing that [`Driver::commit`] answers leaves
//! the node before it returns.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::Address;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use libp2p_identity::PeerId;
use pedlar_protocol::account::OutPoint;
use pedlar_protocol::book::{Book, Verdict};
use pedlar_protocol::id::{PayeeId, TopUpId};
use pedlar_protocol::market::{Incoming, Market, Outgoing, TOPUP_BLOCKS, TOPUP_LIFE, TopUpStep, WalletBooks};
use pedlar_protocol::offer::UnverifiedOffer;
use pedlar_protocol::rate::{Limit, PeerRates};
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::settlement::SignedTopUp;
use pedlar_protocol::time::Timestamp;
use pedlar_wallet as wallet;
use pedlar_wallet::{IncomingState, PayeeRef, PaymentId, PaymentState, Records, WalletEvent, WalletHandle};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::store::{SharedMarket, Store, StoreError, lock};

/// When a peer is told to come back while the journal can't be written.
pub(crate) const NOT_STORED: Refusal = Refusal::NotYet { retry_after: Duration::from_secs(30) };

/// When a buyer is told to come back while no address can be made.
const NO_ADDRESS: Refusal = Refusal::NotYet { retry_after: Duration::from_secs(600) };

/// Requests of one peer on account streams: twenty a second, far more than waiting for a payment takes, and a hundred
/// after a rest.
const REQUESTS: Limit = Limit { every: Duration::from_millis(50), burst: 100 };

// As long as a seller's word for an address holds, nobody else gets it.
const _: () = assert!(TOPUP_BLOCKS < wallet::ADDRESS_HOLD_BLOCKS as u64);

/// The time, for all that is not tested with another clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The market with what makes its decisions durable and real.
pub(crate) struct Driver {
    market: SharedMarket,
    store: Store,
    wallet: WalletHandle,
    network: wallet::Network,
    money: watch::Sender<u64>,
    stopping: CancellationToken,
    requests: Mutex<PeerRates>,
}

impl Driver {
    pub(crate) fn new(
        market: SharedMarket,
        store: Store,
        wallet: WalletHandle,
        network: wallet::Network,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            market,
            store,
            wallet,
            network,
            money: watch::channel(0).0,
            stopping,
            requests: Mutex::new(PeerRates::new(REQUESTS)),
        }
    }

    /// Looks at the market; what is seen may not be stored yet, so it is for people, not for peers.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Market) -> T) -> T {
        look(&lock(&self.market))
    }

    /// Changes the book, of which nothing is stored.
    pub(crate) fn update_book<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        self.update(|market| change(market.book_mut()))
    }

    /// Changes the market; its answer must not leave the node before [`Driver::stored`] returns.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Market) -> T) -> T {
        change(&mut lock(&self.market))
    }

    /// Counts one more request of a peer on an account stream; whether it may be.
    pub(crate) fn may_ask(&self, peer: PeerId) -> bool {
        // Each change is one insertion: a panic leaves nothing half done.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).spend(now(), peer)
    }

    /// Judges an offer that came, and keeps it if it is accepted.
    pub(crate) fn receive_offer(&self, bytes: &Bytes) -> Verdict {
        let signed = match self.read(|market| market.screen_offer(now(), bytes)).map(UnverifiedOffer::verify) {
            Ok(Ok(signed)) => signed,
            Ok(Err(error)) => return Verdict::Reject(error),
            Err(verdict) => return verdict,
        };
        let random = getrandom::u64().unwrap_or_default();
        self.update(|market| market.handle_offer(now(), signed, random))
    }

    /// Waits until all that was staged so far is on the disk.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be stored now: the changes stand and are stored later.
    pub(crate) async fn stored(&self) -> Result<(), StoreError> {
        self.store.flushed(self.read(Market::staged_in_all)).await
    }

    /// Changes the market, and answers when all that it staged is on the disk.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be stored now: the change stands and is stored later, but its answer must not leave.
    pub(crate) async fn commit<T>(&self, change: impl FnOnce(&mut Market) -> T) -> Result<T, StoreError> {
        let answer = self.update(change);
        self.stored().await?;
        Ok(answer)
    }

    /// The chain that is paid on.
    pub(crate) const fn network(&self) -> wallet::Network {
        self.network
    }

    /// The wallet.
    pub(crate) const fn wallet(&self) -> &WalletHandle {
        &self.wallet
    }

    /// The journal.
    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// Resolves when the node goes down.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Changes with each fact that the wallet told: to wait for money.
    pub(crate) fn money(&self) -> watch::Receiver<u64> {
        self.money.subscribe()
    }

    /// A buyer's request for a top-up, with the address that the wallet makes for it; all stored.
    ///
    /// # Errors
    /// [`Refusal`] for the buyer.
    pub(crate) async fn give_topup(&self, buyer: PeerId, id: TopUpId, amount_sat: u64) -> Result<SignedTopUp, Refusal> {
        let step = self.commit(|market| market.handle_topup_request(now(), buyer, id, amount_sat)).await;
        let payee = match step.map_err(|_| NO_ADDRESS)?? {
            TopUpStep::Given(topup) => return Ok(*topup),
            TopUpStep::NeedAddress(payee) => payee,
        };
        let expires_ms = now().saturating_add(TOPUP_LIFE).ms();
        let address = self.wallet.address_for(PayeeRef(payee.0), expires_ms).await.map_err(|error| {
            tracing::warn!(%buyer, %error, "no address for a top-up");
            NO_ADDRESS
        })?;
        let address = address.to_string();
        let given = self.commit(|market| market.handle_address(now(), buyer, id, amount_sat, payee, address)).await;
        given.map_err(|_| NO_ADDRESS)
    }

    /// Tells the market what the wallet tells, until the wallet ends.
    pub(crate) async fn follow_wallet(&self, mut events: mpsc::Receiver<WalletEvent>) {
        while let Some(event) = events.recv().await {
            let told = self.commit(|market| tell(market, event)).await;
            if let Err(error) = told {
                // It stays staged, and the wallet tells it again at the next start.
                tracing::error!(%error, "a payment is not stored yet");
            }
            self.money.send_modify(|news| *news = news.wrapping_add(1));
        }
    }

    /// Pays a top-up that the seller has signed, under its own id: the same call again pays nothing twice.
    ///
    /// # Errors
    /// [`wallet::PayError`]; nothing was signed then.
    pub(crate) async fn pay_topup(
        &self,
        id: TopUpId,
        address: Address,
        amount_sat: u64,
        max_fee_sat: u64,
    ) -> Result<wallet::Payment, wallet::PayError> {
        let terms = wallet::Terms { id: PaymentId(id.0), address, sat: amount_sat };
        // Made before this node was restored, by a transaction of which only the chain knows.
        let found = self.wallet.adopt(terms.clone()).await.map_err(|error| match error {
            wallet::ReadError::Store(error) => wallet::PayError::Store(error),
            wallet::ReadError::Closed(error) => wallet::PayError::Closed(error),
        })?;
        match found {
            Some(paid) if (&paid.address, paid.sat) == (&terms.address, terms.sat) => Ok(paid),
            Some(_) | None => self.wallet.pay(terms.id, terms.address, terms.sat, max_fee_sat).await,
        }
    }

    /// Where this node was restored: finds the payments to this seller that its wallet made and its journal has lost.
    pub(crate) async fn find_payments(&self, seller: &PeerId) {
        for (id, address, sat) in self.read(|market| market.unexplained(seller)) {
            let Ok(address) = self.network.parse_address(&address) else { continue };
            let found = self.wallet.adopt(wallet::Terms { id: PaymentId(id.0), address, sat }).await;
            if let Err(error) = found {
                tracing::warn!(%seller, %error, "a payment of before the restore is not found yet");
            }
        }
    }

    /// Takes down how a payment of ours stands, where the wallet's event of it may not have come yet.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be stored now.
    pub(crate) async fn note_payment(&self, payment: wallet::Payment) -> Result<(), StoreError> {
        self.commit(|market| tell(market, WalletEvent::Outgoing(payment))).await
    }

    /// Takes down what a payment that nobody asked for has cost, where it is known by now.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be stored now.
    pub(crate) async fn settle_spending(&self, id: TopUpId) -> Result<(), StoreError> {
        let sat = match self.wallet.payment(PaymentId(id.0)).await {
            Ok(None) => 0,
            Ok(Some(wallet::Payment { sat, fee_sat: Some(fee_sat), .. })) => sat.saturating_add(fee_sat),
            // Not signed yet, or the wallet can't be asked: it may cost what was taken down.
            Ok(Some(_)) | Err(_) => return Ok(()),
        };
        self.commit(|market| market.handle_spent(&id, sat)).await
    }

    /// Our wallet's payment under a top-up, as it stands: its transaction may have been replaced since it was made.
    pub(crate) async fn topup_payment(&self, id: TopUpId) -> Option<wallet::Payment> {
        self.wallet.payment(PaymentId(id.0)).await.ok().flatten()
    }
}

fn tell(market: &mut Market, event: WalletEvent) {
    match event {
        WalletEvent::Tip { height } => market.handle_tip(u64::from(height)),
        WalletEvent::Incoming(payment) => market.handle_incoming(now(), incoming(&payment)),
        WalletEvent::Outgoing(payment) => {
            outgoing(&payment).into_iter().for_each(|payment| market.handle_outgoing(now(), payment));
        }
        // No channel is opened yet.
        WalletEvent::Channel(_) => {}
    }
}

/// All that the wallet's file says of payments, as an audit compares it with the accounts.
pub(crate) fn wallet_books(records: &Records) -> WalletBooks {
    WalletBooks {
        incoming: records.incoming.iter().map(incoming).collect(),
        outgoing: records.payments.iter().filter_map(outgoing).collect(),
    }
}

fn incoming(payment: &wallet::Incoming) -> Incoming {
    let (height, depth) = match payment.state {
        IncomingState::Confirmed { height, depth, .. } => (height, depth),
        IncomingState::Seen | IncomingState::Replaced { .. } | IncomingState::Evicted | IncomingState::Reorged => {
            (0, 0)
        }
    };
    let outpoint = payment.outpoint;
    Incoming {
        payee: PayeeId(payment.payee.0),
        outpoint: OutPoint { txid: outpoint.txid.to_byte_array(), vout: outpoint.vout },
        amount_sat: payment.sat,
        height: u64::from(height),
        depth,
    }
}

/// Nothing while it is not signed.
fn outgoing(payment: &wallet::Payment) -> Option<Outgoing> {
    let outpoint = payment.outpoint()?;
    let (height, depth) = match payment.state {
        PaymentState::Confirmed { height, depth } => (height, depth),
        PaymentState::Final { height } => (height, wallet::FINAL_DEPTH),
        PaymentState::Intent
        | PaymentState::Signed
        | PaymentState::Broadcast
        | PaymentState::Replaced { .. }
        | PaymentState::Conflicted { .. } => (0, 0),
    };
    let conflicted = matches!(payment.state, PaymentState::Conflicted { .. });
    Some(Outgoing {
        id: TopUpId(payment.id.0),
        outpoint: OutPoint { txid: outpoint.txid.to_byte_array(), vout: outpoint.vout },
        amount_sat: payment.sat,
        fee_sat: payment.fee_sat.unwrap_or(0),
        height: u64::from(height),
        depth,
        conflicted,
    })
}
