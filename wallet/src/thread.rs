//! The wallet thread: it owns the coins, answers commands, and decides what the line does next.

mod schedule;

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bdk_wallet::Update;
use bdk_wallet::chain::ChainPosition;
use bitcoin::{Address, BlockHash, FeeRate, Txid};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};

use crate::addresses::{AddressError, PayeeRef};
use crate::chain::AbsorbError;
use crate::electrum::line::{Line, Outcome};
use crate::electrum::{Fingerprint, ServerFault, ServerUrl};
use crate::events::{EventKey, Events, WalletEvent};
use crate::handle::{HistoryEntry, ServerState, WalletConfig, WalletStatus};
use crate::keys::Keys;
use crate::payments::{Bump, BumpError, Fee, PayError, Payment, PaymentId, PaymentState, Terms};
use crate::state::{OpenError, State, StoreError};
use schedule::Schedule;

/// Lowest fee rate paid, in sat/vB: older nodes relay nothing below. Also the rate until a server has an estimate, which
/// it hasn't where blocks are not full.
const MIN_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(1);
/// Highest estimate believed, in sat/vB, whatever the configured limit.
const MAX_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(500);
/// Commands answered in a row before the line and the events have their turn.
const COMMANDS_A_TURN: usize = 64;

/// The longest sleep, which bounds what a lost wake-up could cost; also the wait after the disk failed.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// How soon a consumer whose queue was full is tried again.
const RETRY_EVENTS: Duration = Duration::from_millis(50);

/// A question put to the wallet, with its way back.
pub(crate) type Command = Box<dyn FnOnce(&mut Core) + Send>;

/// What commands may touch.
pub(crate) struct Core {
    state: State,
    events: Events,
    schedule: Schedule,
    /// What a server last asked for.
    rate: FeeRate,
    /// The owner's ceiling: never more, whatever a server asks for.
    ceiling: FeeRate,
    /// The balance changed since the status was published.
    stale: bool,
    closing: bool,
}

/// The ends of a running wallet.
pub(crate) struct Running {
    pub(crate) join: JoinHandle<()>,
    pub(crate) status: watch::Receiver<WalletStatus>,
    pub(crate) events: mpsc::Receiver<WalletEvent>,
}

/// Opens the wallet and starts its thread and its line.
///
/// # Errors
///
/// As [`State::open`]; or no server is configured, or the system gives no thread.
pub(crate) fn start(config: WalletConfig, keys: Keys, inbox: mpsc::Receiver<Command>) -> Result<Running, OpenError> {
    let mut servers = config.servers.into_iter();
    let server = servers.next().ok_or(OpenError::NoServer)?;
    let state = State::open(&config.dir, config.network, keys, config.restore)?;
    let (events, reports) = Events::channel();
    let schedule = Schedule::new(server, servers.collect(), config.poll, &state)?;
    let ceiling = FeeRate::from_sat_per_vb(config.max_fee_rate_sat_vb).unwrap_or(MAX_RATE).clamp(MIN_RATE, MAX_RATE);
    let mut core = Core { state, events, schedule, rate: MIN_RATE, ceiling, stale: false, closing: false };
    core.mark_all()?;
    let (status, watcher) = watch::channel(core.status(ServerState::Connecting, None)?);
    let (opened, is_open) = std::sync::mpsc::sync_channel(1);
    let join = std::thread::Builder::new().name("pedlar-wallet".into()).spawn(move || {
        // The line wakes this thread, so this thread opens it.
        match Line::open(std::thread::current()) {
            Ok(line) => {
                let _ = opened.send(Ok(()));
                WalletThread { core, line, status }.run(inbox);
            }
            Err(e) => drop(opened.send(Err(e))),
        }
    })?;
    is_open.recv().map_err(io::Error::other)??;
    Ok(Running { join, status: watcher, events: reports })
}

struct WalletThread {
    core: Core,
    line: Line,
    status: watch::Sender<WalletStatus>,
}

impl WalletThread {
    fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        while self.answer(&mut inbox) {
            let nap = match self.turn() {
                Ok(()) => self.core.nap(&self.line),
                Err(e) => {
                    self.lament(&e);
                    LONGEST_NAP
                }
            };
            std::thread::park_timeout(nap);
        }
        // The file is closed before the queue, by whose closing others know that all is over.
        drop(self);
    }

    /// Answers waiting commands; false when the wallet is to end.
    fn answer(&mut self, inbox: &mut mpsc::Receiver<Command>) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            match inbox.try_recv() {
                Ok(command) => command(&mut self.core),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        !self.core.closing
    }

    /// Says once that the disk refuses: it is tried every second, and the log may be on the same one.
    fn lament(&mut self, error: &StoreError) {
        if self.status.borrow().unwritten.is_none() {
            tracing::error!("wallet: {error}");
        }
        let last = self.status.borrow().clone();
        // What can't be read either is told when it can be.
        let _ = self.publish(last.server, last.synced_at_ms);
    }

    fn turn(&mut self) -> Result<(), StoreError> {
        let outcome = self.line.poll_outcome();
        let taken = outcome.map_or(Ok(()), |outcome| self.take(outcome));
        if !self.line.is_busy()
            && let Some(job) = self.core.schedule.next_job(&self.core.state, Instant::now(), now_ms())?
        {
            self.line.start(job);
        }
        self.core.events.send(&self.core.state)?;
        let told = self.core.state.unwritten() == self.status.borrow().unwritten.as_ref();
        if std::mem::take(&mut self.core.stale) || !told {
            let last = self.status.borrow().clone();
            self.publish(last.server, last.synced_at_ms)?;
        }
        taken
    }

    fn take(&mut self, outcome: Outcome) -> Result<(), StoreError> {
        let core = &mut self.core;
        match outcome {
            Outcome::Connected(greeting) => {
                let server = core.schedule.server().clone();
                core.state.meet(&server, greeting.certificate, greeting.block_1)?;
                core.schedule.handle_connected();
                let synced = self.status.borrow().synced_at_ms;
                return self.publish(ServerState::Up { server, since_ms: now_ms() }, synced);
            }
            Outcome::Synced(response) => {
                if core.absorb(response)? {
                    core.schedule.handle_synced(Instant::now());
                    let server = self.status.borrow().server.clone();
                    return self.publish(server, Some(now_ms()));
                }
                return self.fail(ServerFault::Misbehaved);
            }
            Outcome::Scanned(response) => {
                let active = response.last_active_indices.values().copied().max();
                if !core.absorb(response)? {
                    return self.fail(ServerFault::Misbehaved);
                }
                if core.schedule.handle_scanned(active) {
                    core.state.finish_restoring()?;
                }
            }
            Outcome::Broadcast { txid, accepted } => core.handle_broadcast(txid, accepted)?,
            Outcome::Fee(Some(rate)) => core.rate = rate.max(MIN_RATE),
            Outcome::Fee(None) => {}
            Outcome::Ponged { new_block } => core.schedule.handle_ponged(new_block, Instant::now()),
            Outcome::Failed(fault) => return self.fail(fault),
        }
        Ok(())
    }

    fn fail(&mut self, reason: ServerFault) -> Result<(), StoreError> {
        let server = self.core.schedule.server().clone();
        tracing::warn!(%server, "electrum server: {reason}");
        self.core.schedule.handle_failed(Instant::now());
        let last = self.status.borrow().clone();
        let since_ms = match last.server {
            ServerState::Down { since_ms, .. } => since_ms,
            ServerState::Up { .. } | ServerState::Connecting => now_ms(),
        };
        self.publish(ServerState::Down { server, since_ms, reason }, last.synced_at_ms)
    }

    fn publish(&mut self, server: ServerState, synced_at_ms: Option<u64>) -> Result<(), StoreError> {
        let status = self.core.status(server, synced_at_ms)?;
        self.status.send_if_modified(|last| {
            let changed = *last != status;
            *last = status;
            changed
        });
        Ok(())
    }
}

impl Core {
    pub(crate) fn address_for(&mut self, payee: PayeeRef, expires_ms: u64) -> Result<Address, AddressError> {
        self.state.address_for(payee, expires_ms, now_ms())
    }

    pub(crate) fn receive_address(&mut self) -> Result<Address, StoreError> {
        self.state.receive_address()
    }

    pub(crate) fn pay_all(&mut self, terms: &[Terms], max_fee_sat: u64) -> Result<Vec<Payment>, PayError> {
        let payments = self.state.pay_all(terms, &self.fee(max_fee_sat), now_ms())?;
        let unsent = |payment: &&Payment| payment.state == PaymentState::Signed;
        payments.iter().filter(unsent).filter_map(|payment| payment.txid).for_each(|txid| self.schedule.send_now(txid));
        self.events.mark(payments.iter().map(|payment| EventKey::Outgoing(payment.id)));
        self.stale = true;
        Ok(payments)
    }

    pub(crate) fn look_at_bump(&mut self, txid: Txid, rate: Option<FeeRate>) -> Result<Bump, BumpError> {
        let fee = self.fee(u64::MAX);
        self.state.look_at_bump(txid, rate, &fee)
    }

    pub(crate) fn bump(&mut self, txid: Txid, rate: Option<FeeRate>, max_fee_sat: u64) -> Result<Bump, BumpError> {
        let bump = self.state.bump(txid, rate, &self.fee(max_fee_sat), now_ms())?;
        bump.txid.into_iter().for_each(|txid| self.schedule.send_now(txid));
        self.events.mark(bump.payments.iter().map(|&id| EventKey::Outgoing(id)));
        self.stale = true;
        Ok(bump)
    }

    pub(crate) fn payment(&mut self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        self.state.payment(id)
    }

    pub(crate) fn estimate_fee(&mut self, amounts: &[u64]) -> Result<u64, StoreError> {
        let fee = self.fee(u64::MAX);
        self.state.estimate_fee(amounts, &fee)
    }

    fn fee(&self, max_sat: u64) -> Fee {
        Fee { rate: self.rate, ceiling: self.ceiling, max_sat }
    }

    pub(crate) fn block_1(&mut self) -> Result<Option<BlockHash>, StoreError> {
        self.state.block_1()
    }

    pub(crate) fn trust(&mut self, server: &ServerUrl, certificate: Fingerprint) -> Result<(), StoreError> {
        self.state.trust(server, certificate)
    }

    pub(crate) fn shut_down(&mut self) {
        self.closing = true;
    }

    pub(crate) fn history(&mut self) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut entries = self.state.history()?;
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.height.unwrap_or(u32::MAX), entry.time_ms)));
        Ok(entries)
    }

    /// Reports, at the start, everything that may still change.
    fn mark_all(&mut self) -> Result<(), StoreError> {
        let tip = self.state.wallet.latest_checkpoint().height();
        let incoming = self.state.recent_incoming(tip, now_ms())?;
        let payments = self.state.open_payments(tip)?;
        self.events.mark(incoming.iter().map(|i| EventKey::Incoming(i.outpoint)));
        self.events.mark(payments.iter().map(|open| EventKey::Outgoing(open.payment.id)));
        self.events.mark([EventKey::Tip]);
        Ok(())
    }

    /// Takes in news; false when they can't be true.
    fn absorb(&mut self, update: impl Into<Update>) -> Result<bool, StoreError> {
        match self.state.absorb(update, now_ms()) {
            Ok(absorbed) => {
                self.schedule.handle_absorbed(&absorbed, Instant::now());
                self.events.mark(absorbed.changed);
                self.stale = true;
                Ok(true)
            }
            Err(AbsorbError::Implausible) => Ok(false),
            Err(AbsorbError::Store(e)) => {
                // It is taken in and not written: what it changed is found again, but not that the tip moved.
                self.events.mark([EventKey::Tip]);
                self.schedule.handle_unwritten(Instant::now());
                Err(e)
            }
        }
    }

    fn handle_broadcast(&mut self, txid: Txid, accepted: bool) -> Result<(), StoreError> {
        if accepted {
            let payments = self.state.mark_broadcast(txid)?;
            self.schedule.handle_sent(txid);
            self.events.mark(payments.into_iter().map(EventKey::Outgoing));
        } else {
            // Refused, or had already: the next sync tells which, and until then it is tried again.
            tracing::warn!(%txid, "electrum server took no payment transaction; it is sent again");
        }
        Ok(())
    }

    fn status(&self, server: ServerState, synced_at_ms: Option<u64>) -> Result<WalletStatus, StoreError> {
        let tip = self.state.wallet.latest_checkpoint();
        let balance = self.state.wallet.balance();
        Ok(WalletStatus {
            tip_height: tip.height(),
            tip_hash: tip.hash(),
            confirmed_sat: balance.confirmed.to_sat(),
            pending_sat: (balance.total() - balance.confirmed).to_sat(),
            reserved_sat: self.state.reserved_sat()?,
            server,
            synced_at_ms,
            restoring: self.state.is_restoring()?,
            unwritten: self.state.unwritten().cloned(),
        })
    }

    fn nap(&self, line: &Line) -> Duration {
        match (self.events.is_empty(), line.is_busy()) {
            (false, _) => RETRY_EVENTS,
            (true, true) => LONGEST_NAP,
            (true, false) => self.schedule.idle(Instant::now()).min(LONGEST_NAP),
        }
    }
}

impl State {
    fn history(&self) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut paid = self.paid_by()?;
        let entry = |tx: bdk_wallet::WalletTx<'_>| {
            let (sent, received) = self.wallet.sent_and_received(&tx.tx_node.tx);
            let (height, time_s) = match tx.chain_position {
                ChainPosition::Confirmed { anchor, .. } => {
                    (Some(anchor.block_id.height), Some(anchor.confirmation_time))
                }
                ChainPosition::Unconfirmed { first_seen, .. } => (None, first_seen),
            };
            HistoryEntry {
                txid: tx.tx_node.txid,
                received_sat: received.to_sat(),
                sent_sat: sent.to_sat(),
                fee_sat: self.wallet.calculate_fee(&tx.tx_node.tx).ok().map(|fee| fee.to_sat()),
                height,
                time_ms: time_s.map(|s| s.saturating_mul(1000)),
                payments: paid.remove(&tx.tx_node.txid).unwrap_or_default(),
            }
        };
        Ok(self.wallet.transactions().map(entry).collect())
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
