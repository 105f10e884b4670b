//! A wallet without threads, sockets and waiting: the turns of the real one, one at a time, against a server that is a
//! stream. The fuzz targets play that server; the product uses none of this.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::{Address, OutPoint, Txid};
use tokio::sync::mpsc;

use super::schedule::Schedule;
use super::{Core, now_ms};
use crate::addresses::{AddressError, PayeeRef};
use crate::chain::HistoryEntry;
use crate::channel::{
    self, ChannelError, ChannelId, ChannelKey, EndError, Ending, FundError, Funding, Role, SignError, Voucher,
    WatchError,
};
use crate::electrum::ServerUrl;
use crate::electrum::line::{Job, Worker};
use crate::events::{Events, WalletEvent};
use crate::keys::Keys;
use crate::network::Network;
use crate::payments::{Bump, BumpError, PayError, Payment, PaymentId, Terms};
use crate::state::{OpenError, State, StoreError};
use crate::status::WalletStatus;

/// The ceiling of the fee rate, in sat/vB.
pub const MAX_FEE_RATE_SAT_VB: u64 = 100;

/// The wallet, which is somewhere in its day.
pub struct Rehearsal {
    core: Core,
    worker: Worker,
    events: mpsc::Receiver<WalletEvent>,
}

impl Rehearsal {
    /// Opens the regtest wallet of `keys` in `dir`, or makes it; its one server is the stream that it will be given.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be used.
    pub fn open(dir: &Path, keys: Keys) -> Result<Self, OpenError> {
        let state = State::open(dir, Network::Regtest, keys, false)?;
        let url = ServerUrl { tls: false, host: "rehearsal".to_owned(), port: 1 };
        let schedule = Schedule::new(vec![url], Duration::ZERO, &state)?;
        let (events, reports) = Events::channel();
        let core = Core::new(state, events, schedule, MAX_FEE_RATE_SAT_VB)?;
        Ok(Self { core, worker: Worker::new(), events: reports })
    }

    /// Does the job that is due `ahead` of now, over `stream` where that is to connect; false when none is due.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read or written.
    pub fn turn<S>(&mut self, ahead: Duration, stream: impl FnOnce() -> S) -> Result<bool, StoreError>
    where
        S: Read + Write + Send + 'static,
    {
        let Core { schedule, state, .. } = &mut self.core;
        let Some(job) = schedule.next_job(state, Instant::now() + ahead, now_ms())? else { return Ok(false) };
        let outcome = match job {
            Job::Connect { expected, known, .. } => self.worker.greet(Box::new(stream()), &expected, known),
            job => self.worker.run(job),
        };
        self.core.take(outcome)?;
        Ok(true)
    }

    /// The next snapshot for the consumer.
    ///
    /// # Errors
    ///
    /// When one can't be read.
    pub fn poll_event(&mut self) -> Result<Option<WalletEvent>, StoreError> {
        self.core.events.send(&self.core.state)?;
        Ok(self.events.try_recv().ok())
    }

    /// As [`crate::WalletHandle::status`].
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub fn status(&self) -> Result<WalletStatus, StoreError> {
        self.core.status()
    }

    /// As [`crate::WalletHandle::history`].
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub fn history(&mut self) -> Result<Vec<HistoryEntry>, StoreError> {
        self.core.history()
    }

    /// As [`crate::WalletHandle::payment`].
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be read.
    pub fn payment(&mut self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        self.core.payment(id)
    }

    /// As [`crate::WalletHandle::address_for`], for ever.
    ///
    /// # Errors
    ///
    /// When too many addresses wait for payment, or the wallet's file can't be written.
    pub fn address_for(&mut self, payee: PayeeRef) -> Result<Address, AddressError> {
        self.core.address_for(payee, u64::MAX >> 1)
    }

    /// As [`crate::WalletHandle::receive_address`].
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be written.
    pub fn receive_address(&mut self) -> Result<Address, AddressError> {
        self.core.receive_address()
    }

    /// As [`crate::WalletHandle::pay`], at any fee under the ceiling.
    ///
    /// # Errors
    ///
    /// Nothing was signed.
    pub fn pay(&mut self, id: PaymentId, address: Address, sat: u64) -> Result<Vec<Payment>, PayError> {
        self.core.pay_all(&[Terms { id, address, sat }], u64::MAX)
    }

    /// As [`crate::WalletHandle::bump`], at any fee under the ceiling.
    ///
    /// # Errors
    ///
    /// Nothing was signed.
    pub fn bump(&mut self, txid: Txid) -> Result<Bump, BumpError> {
        self.core.bump(txid, None, u64::MAX)
    }

    /// As [`crate::WalletHandle::channel_key`].
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be written.
    pub fn channel_key(&mut self, id: ChannelId, role: Role) -> Result<ChannelKey, ChannelError> {
        self.core.channel_key(id, role)
    }

    /// As [`crate::WalletHandle::fund_channel`], at any fee under the ceiling.
    ///
    /// # Errors
    ///
    /// Nothing was signed.
    pub fn fund_channel(&mut self, id: ChannelId, terms: &channel::Terms) -> Result<Funding, FundError> {
        self.core.fund_channel(id, terms, u64::MAX)
    }

    /// As [`crate::WalletHandle::watch_channel`].
    ///
    /// # Errors
    ///
    /// When the output is not what was agreed on.
    pub fn watch_channel(
        &mut self,
        id: ChannelId,
        terms: &channel::Terms,
        raw: &[u8],
        vout: u32,
    ) -> Result<OutPoint, WatchError> {
        self.core.watch_channel(id, terms, raw, vout)
    }

    /// As [`crate::WalletHandle::close_channels`].
    ///
    /// # Errors
    ///
    /// Nothing was signed.
    pub fn close_channels(&mut self, closes: &[(ChannelId, Voucher)]) -> Result<Ending, EndError> {
        self.core.close_channels(closes, None)
    }

    /// As [`crate::WalletHandle::sign_voucher`].
    ///
    /// # Errors
    ///
    /// Nothing was signed.
    pub fn sign_voucher(&mut self, id: ChannelId, cum_sat: u64) -> Result<Voucher, SignError> {
        self.core.sign_voucher(id, cum_sat)
    }
}
