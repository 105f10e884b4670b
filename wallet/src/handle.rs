//! How others talk to the wallet.

mod channels;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bitcoin::{Address, BlockHash, FeeRate, Transaction, Txid};
use tokio::sync::{mpsc, oneshot, watch};

use crate::addresses::{AddressError, PayeeRef};
use crate::chain::HistoryEntry;
use crate::electrum::{Fingerprint, ServerUrl};
use crate::events::WalletEvent;
use crate::keys::Keys;
use crate::payments::{Bump, BumpError, PayError, Payment, PaymentId, Terms};
use crate::records::Records;
use crate::state::{OpenError, StoreError};
use crate::status::{Closed, WalletConfig, WalletStatus};
use crate::thread::{self, Command, Core};

/// Commands that wait for the wallet thread; each is answered in milliseconds, so a full queue only slows its senders.
const COMMANDS: usize = 64;

/// A wallet that runs in its own thread; clones share it. It ends with [`WalletHandle::shutdown`] or the last handle.
#[derive(Clone)]
pub struct WalletHandle {
    shared: Arc<Shared>,
    status: watch::Receiver<WalletStatus>,
}

struct Shared {
    commands: mpsc::Sender<Command>,
    thread: std::thread::Thread,
    join: Mutex<Option<JoinHandle<()>>>,
}

impl WalletHandle {
    /// Opens the wallet of `keys` and starts its thread; needs no server. Reads the disk: call it where blocking is
    /// allowed.
    ///
    /// The receiver gets a snapshot of all that may still change, then each change.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be used, or no server is configured.
    pub fn open(config: WalletConfig, keys: Keys) -> Result<(Self, mpsc::Receiver<WalletEvent>), OpenError> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let running = thread::start(config, keys, inbox)?;
        let thread = running.join.thread().clone();
        let shared = Shared { commands, thread, join: Mutex::new(Some(running.join)) };
        Ok((Self { shared: Arc::new(shared), status: running.status }, running.events))
    }

    /// The wallet at a glance, now and as it changes.
    pub fn status(&self) -> watch::Receiver<WalletStatus> {
        self.status.clone()
    }

    /// The address of `payee`: the same each time, stored before it is returned, kept for this payee until
    /// `expires_ms` (ms since the epoch; see [`crate::ADDRESS_HOLD`]) and for ever once anything was paid to it.
    ///
    /// # Errors
    ///
    /// [`AddressError::TooMany`] when [`crate::MAX_UNPAID_ADDRESSES`] wait for payment; [`AddressError::Restoring`] for a
    /// new one while it is not known which are free.
    pub async fn address_for(&self, payee: PayeeRef, expires_ms: u64) -> Result<Address, AddressError> {
        self.ask(move |core| core.address_for(payee, expires_ms)).await?
    }

    /// Whether [`WalletHandle::claim_address`] would make the address this payee's, or it is.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub async fn can_claim(&self, payee: PayeeRef, address: Address, height: u32) -> Result<bool, ReadError> {
        Ok(self.ask(move |core| core.can_claim(payee, &address, height)).await??)
    }

    /// Gives an address back to the payee to whom it was given before this wallet was restored, where a block up to
    /// `height` holds a payment to it and it is nobody's; whether it is that payee's now. Its payments are told then.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be used.
    pub async fn claim_address(&self, payee: PayeeRef, address: Address, height: u32) -> Result<bool, ReadError> {
        Ok(self.ask(move |core| core.claim_address(payee, &address, height)).await??)
    }

    /// An address for the owner: the same until it is paid.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be written; [`AddressError::Restoring`] while it is not known which are free.
    pub async fn receive_address(&self) -> Result<Address, AddressError> {
        self.ask(Core::receive_address).await?
    }

    /// Pays `sat` to `address` under `id`; the same call again returns the same payment.
    ///
    /// When it returns, the signed transaction is stored, and is sent at once or when a server can be reached, until
    /// it is in a block; [`WalletEvent::Outgoing`] tells how far it is.
    ///
    /// # Errors
    ///
    /// Nothing was signed: other terms under this id, too little money, too dear, or not an address of this network.
    pub async fn pay(&self, id: PaymentId, address: Address, sat: u64, max_fee_sat: u64) -> Result<Payment, PayError> {
        let paid = self.pay_all(vec![Terms { id, address, sat }], max_fee_sat).await?;
        paid.into_iter().next().ok_or(PayError::Unsignable)
    }

    /// Pays all of `terms`, each under its id, with one transaction, or none of them; otherwise as
    /// [`WalletHandle::pay`]. The fee is the transaction's, and its limit too; each payment's part is recorded.
    ///
    /// # Errors
    ///
    /// As [`WalletHandle::pay`]; also for more than [`crate::MAX_BATCH`], or when only some were paid before.
    pub async fn pay_all(&self, terms: Vec<Terms>, max_fee_sat: u64) -> Result<Vec<Payment>, PayError> {
        self.ask(move |core| core.pay_all(&terms, max_fee_sat)).await?
    }

    /// The payment of these terms, if it is made: under its id, or before this wallet was restored, by a transaction of
    /// ours that pays just this and that no payment knows. Only for an address that nobody else pays to.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be used.
    pub async fn adopt(&self, terms: Terms) -> Result<Option<Payment>, ReadError> {
        Ok(self.ask(move |core| core.adopt(&terms)).await??)
    }

    /// What replacing a payment's transaction by a dearer one would cost now; `rate` in sat/vB, by default what is asked
    /// for now, and more than before in any case. Nothing is signed.
    ///
    /// # Errors
    ///
    /// As [`WalletHandle::bump`].
    pub async fn look_at_bump(&self, txid: Txid, rate_sat_vb: Option<u64>) -> Result<Bump, BumpError> {
        let rate = rate_sat_vb.map(rate);
        self.ask(move |core| core.look_at_bump(txid, rate)).await?
    }

    /// Replaces the transaction (`txid`, or any version of it) that makes payments of ours by one that pays more: same
    /// ids, payees and amounts, less change. It is stored when this returns, and sent as in [`WalletHandle::pay`]. If
    /// an older version is mined all the same, that one is the payment.
    ///
    /// # Errors
    ///
    /// Nothing was signed: it is no payment of ours, confirmed, built upon, or too dear.
    pub async fn bump(&self, txid: Txid, rate_sat_vb: Option<u64>, max_fee_sat: u64) -> Result<Bump, BumpError> {
        let rate = rate_sat_vb.map(rate);
        self.ask(move |core| core.bump(txid, rate, max_fee_sat)).await?
    }

    /// The payment of an id, if there is one.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, ReadError> {
        Ok(self.ask(move |core| core.payment(id)).await??)
    }

    /// The fee in sat that a payment of `sat` would have now, also without coins for it.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub async fn estimate_fee(&self, sat: u64) -> Result<u64, ReadError> {
        self.estimate_batch_fee(vec![sat]).await
    }

    /// The fee in sat that one transaction with a payment of each of `amounts` (sat) would have now, also without coins.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub async fn estimate_batch_fee(&self, amounts: Vec<u64>) -> Result<u64, ReadError> {
        Ok(self.ask(move |core| core.estimate_fee(&amounts)).await??)
    }

    /// All transactions of the wallet, the newest first.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>, ReadError> {
        Ok(self.ask(Core::history).await??)
    }

    /// The transaction of this id, where it moved coins of this wallet.
    ///
    /// # Errors
    ///
    /// When the wallet has ended.
    pub async fn transaction(&self, txid: Txid) -> Result<Option<Transaction>, ReadError> {
        Ok(self.ask(move |core| core.transaction(txid)).await?)
    }

    /// All that the wallet's file says, as it stands.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read, or is damaged.
    pub async fn records(&self) -> Result<Records, OpenError> {
        self.ask(|core| core.records()).await.map_err(|closed| OpenError::Io(io::Error::other(closed)))?
    }

    /// The hash of the chain's block 1, which tells regtest chains apart; `None` until a server was reached once.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub async fn block_1(&self) -> Result<Option<BlockHash>, ReadError> {
        Ok(self.ask(|core| core.block_1()).await??)
    }

    /// Pins `certificate` for `server`, in place of the one pinned before: no other one is trusted from now on.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be written.
    pub async fn trust(&self, server: ServerUrl, certificate: Fingerprint) -> Result<(), ReadError> {
        Ok(self.ask(move |core| core.trust(&server, certificate)).await??)
    }

    /// Copies the wallet's file as it is at this moment to `path`; [`crate::revive`] makes a wallet of it again.
    ///
    /// # Errors
    ///
    /// When either file refuses.
    pub async fn copy_to(&self, path: PathBuf) -> Result<(), ReadError> {
        Ok(self.ask(move |core| core.copy_to(&path)).await??)
    }

    /// Ends the wallet thread and waits for it; what it was about to send is sent after the next start.
    pub async fn shutdown(&self) {
        let _ = self.ask(Core::shut_down).await;
        // The queue closes as the thread's last act, so the join that follows doesn't block.
        self.shared.commands.closed().await;
        let join = self.shared.join.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(join) = join {
            let _ = join.join();
        }
    }

    /// Runs `question` on the wallet thread.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        let command: Command = Box::new(move |core| {
            // Who asked may have gone; the deed is done all the same.
            let _ = reply.send(question(core));
        });
        self.shared.commands.send(command).await.map_err(|_| Closed)?;
        self.shared.thread.unpark();
        answer.await.map_err(|_| Closed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

/// A rate of so many sat/vB; beyond what can be counted, the highest.
fn rate(sat_vb: u64) -> FeeRate {
    FeeRate::from_sat_per_vb(sat_vb).unwrap_or(FeeRate::MAX)
}

/// Why the wallet's own data could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Closed(#[from] Closed),
}
