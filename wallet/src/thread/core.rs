//! What the wallet thread knows and does; everything here takes milliseconds.

use std::path::Path;
use std::time::{Duration, Instant};

use bdk_wallet::Update;
use bitcoin::{Address, BlockHash, FeeRate, Transaction, Txid};

use super::schedule::Schedule;
use super::{LONGEST_NAP, now_ms};
use crate::addresses::{AddressError, Claimable, PayeeRef};
use crate::chain::{AbsorbError, HistoryEntry};
use crate::electrum::line::{Line, Outcome};
use crate::electrum::{Fingerprint, ServerFault, ServerUrl};
use crate::events::{EventKey, Events};
use crate::payments::{Bump, BumpError, Fee, PayError, Payment, PaymentId, PaymentState, Terms};
use crate::records::Records;
use crate::state::{OpenError, State, StoreError};
use crate::status::WalletStatus;

/// Lowest fee rate paid, in sat/vB: older nodes relay nothing below. Also the rate until a server has an estimate, which
/// it hasn't where blocks are not full.
pub(super) const MIN_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(1);
/// Highest estimate believed, in sat/vB, whatever the configured limit.
const MAX_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(500);
/// How soon a consumer whose queue was full is tried again.
const RETRY_EVENTS: Duration = Duration::from_millis(50);

/// What commands may touch.
pub(crate) struct Core {
    pub(super) state: State,
    pub(super) events: Events,
    pub(super) schedule: Schedule,
    /// What a server last asked for.
    pub(super) rate: FeeRate,
    /// What it asked for the next two blocks.
    pub(super) urgent: FeeRate,
    /// The owner's ceiling: never more, whatever a server asks for.
    ceiling: FeeRate,
    synced_at_ms: Option<u64>,
    /// What the status tells changed since it was published.
    pub(super) stale: bool,
    pub(super) closing: bool,
}

impl Core {
    pub(super) fn new(
        state: State,
        events: Events,
        schedule: Schedule,
        max_rate_sat_vb: u64,
    ) -> Result<Self, StoreError> {
        let ceiling = FeeRate::from_sat_per_vb(max_rate_sat_vb).unwrap_or(MAX_RATE).clamp(MIN_RATE, MAX_RATE);
        let (rate, urgent, synced_at_ms) = (MIN_RATE, MIN_RATE, None);
        let mut core =
            Self { state, events, schedule, rate, urgent, ceiling, synced_at_ms, stale: false, closing: false };
        core.mark_all()?;
        Ok(core)
    }

    pub(crate) fn address_for(&mut self, payee: PayeeRef, expires_ms: u64) -> Result<Address, AddressError> {
        self.state.address_for(payee, expires_ms, now_ms())
    }

    pub(crate) fn receive_address(&mut self) -> Result<Address, AddressError> {
        self.state.receive_address()
    }

    pub(crate) fn claim_address(
        &mut self,
        payee: PayeeRef,
        address: &Address,
        height: u32,
    ) -> Result<bool, StoreError> {
        let claimed = self.state.claim_address(payee, address, height)?;
        if claimed {
            self.schedule.look_now();
        }
        Ok(claimed)
    }

    pub(crate) fn can_claim(&mut self, payee: PayeeRef, address: &Address, height: u32) -> Result<bool, StoreError> {
        Ok(self.state.claimable(payee, address, height)? != Claimable::Never)
    }

    pub(crate) fn adopt(&mut self, terms: &Terms) -> Result<Option<Payment>, StoreError> {
        let payment = self.state.adopt(terms, now_ms())?;
        self.events.mark(payment.iter().map(|payment| EventKey::Outgoing(payment.id)));
        Ok(payment)
    }

    pub(crate) fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
        self.state.copy_to(path)
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

    pub(super) fn fee(&self, max_sat: u64) -> Fee {
        Fee { rate: self.rate, ceiling: self.ceiling, max_sat }
    }

    pub(crate) fn records(&mut self) -> Result<Records, OpenError> {
        Records::of(&self.state.db)
    }

    pub(crate) fn block_1(&mut self) -> Result<Option<BlockHash>, StoreError> {
        self.state.block_1()
    }

    pub(crate) fn trust(&mut self, server: &ServerUrl, certificate: Fingerprint) -> Result<(), StoreError> {
        self.state.trust(server, certificate)
    }

    pub(crate) fn transaction(&self, txid: Txid) -> Option<Transaction> {
        let graph = self.state.wallet.tx_graph();
        graph.get_tx(txid).map(|transaction| transaction.as_ref().clone())
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
        self.events.mark(self.state.channels.keys().copied().map(EventKey::Channel));
        self.events.mark([EventKey::Tip]);
        Ok(())
    }

    /// Takes in what came of a job with the server in use.
    pub(super) fn take(&mut self, outcome: Outcome) -> Result<(), StoreError> {
        let (now, now_ms) = (Instant::now(), now_ms());
        match outcome {
            Outcome::Connected(greeting) => {
                let server = self.schedule.servers.current().clone();
                self.state.meet(&server, greeting.certificate, greeting.block_1)?;
                self.schedule.handle_connected(now, now_ms);
                self.stale = true;
            }
            Outcome::Synced { response, tip } => match self.absorb(response)? {
                Ok(()) => {
                    self.schedule.handle_synced(now);
                    self.synced_at_ms = Some(now_ms);
                    let judged = self.schedule.servers.handle_synced(tip, self.tip());
                    judged.unwrap_or_else(|fault| self.fail(fault));
                }
                Err(fault) => self.fail(fault),
            },
            Outcome::Scanned(response) => {
                let active = response.last_active_indices.values().copied().max();
                match self.absorb(response)? {
                    Ok(()) if self.schedule.handle_scanned(active) => {
                        self.state.end_search()?;
                        self.mark_all()?;
                    }
                    Ok(()) => {}
                    Err(fault) => self.fail(fault),
                }
            }
            Outcome::Broadcast { txid, accepted } => self.handle_broadcast(txid, accepted)?,
            // What a server said before, or another one, is no estimate of this one.
            Outcome::Fee { usual, urgent } => {
                self.rate = usual.unwrap_or(MIN_RATE).max(MIN_RATE);
                self.urgent = urgent.unwrap_or(MIN_RATE).max(self.rate);
            }
            Outcome::Ponged { new_block } => self.schedule.handle_ponged(new_block, now),
            Outcome::Failed(fault) => self.fail(fault),
            Outcome::Visited { .. } => {}
        }
        Ok(())
    }

    /// Takes in what came of a look at another server.
    pub(super) fn take_scouted(&mut self, outcome: Outcome) -> Result<(), StoreError> {
        let seen = match outcome {
            Outcome::Visited { greeting, tip, taken } => {
                if let Some(server) = self.schedule.servers.visited().cloned() {
                    self.state.meet(&server, greeting.certificate, greeting.block_1)?;
                }
                for txid in taken {
                    let payments = self.state.mark_broadcast(txid)?;
                    self.events.mark(payments.into_iter().map(EventKey::Outgoing));
                }
                Ok(tip)
            }
            Outcome::Failed(fault) => Err(fault),
            Outcome::Connected(_)
            | Outcome::Synced { .. }
            | Outcome::Scanned(_)
            | Outcome::Broadcast { .. }
            | Outcome::Fee { .. }
            | Outcome::Ponged { .. } => return Ok(()),
        };
        let own_tip = self.tip();
        let fault = self.schedule.servers.handle_visited(seen, own_tip, Instant::now(), now_ms());
        fault.into_iter().for_each(|fault| self.fail(fault));
        self.stale = true;
        Ok(())
    }

    fn fail(&mut self, fault: ServerFault) {
        self.schedule.handle_failed(fault, Instant::now(), now_ms());
        self.stale = true;
    }

    fn tip(&self) -> u32 {
        self.state.wallet.latest_checkpoint().height()
    }

    /// Takes in news.
    ///
    /// # Errors
    ///
    /// The inner one when they can't be true, or what should be among them isn't.
    fn absorb(&mut self, update: impl Into<Update>) -> Result<Result<(), ServerFault>, StoreError> {
        match self.state.absorb(update, now_ms()) {
            Ok(absorbed) => {
                let judged = self.schedule.handle_absorbed(&absorbed, Instant::now());
                self.events.mark(absorbed.changed);
                self.stale = true;
                Ok(judged)
            }
            Err(AbsorbError::Implausible) => Ok(Err(ServerFault::Misbehaved)),
            Err(AbsorbError::Store(e)) => {
                // It is taken in and not written: what it changed is found again, but not that the tip moved.
                self.events.mark([EventKey::Tip]);
                self.schedule.handle_unwritten(Instant::now());
                Err(e)
            }
        }
    }

    fn handle_broadcast(&mut self, txid: Txid, accepted: bool) -> Result<(), StoreError> {
        self.schedule.handle_given(txid, accepted, Instant::now());
        if accepted {
            let payments = self.state.mark_broadcast(txid)?;
            self.events.mark(payments.into_iter().map(EventKey::Outgoing));
        } else {
            // Refused, or had already: the next sync tells which, and until then it is tried again.
            tracing::warn!(%txid, "electrum server took no payment transaction; it is sent again");
        }
        Ok(())
    }

    pub(super) fn status(&self) -> Result<WalletStatus, StoreError> {
        let tip = self.state.wallet.latest_checkpoint();
        let balance = self.state.wallet.balance();
        Ok(WalletStatus {
            tip_height: tip.height(),
            tip_hash: tip.hash(),
            confirmed_sat: balance.confirmed.to_sat(),
            pending_sat: (balance.total() - balance.confirmed).to_sat(),
            reserved_sat: self.state.reserved_sat()?,
            channels_sat: self.state.channels_sat(),
            servers: self.schedule.servers.statuses(),
            synced_at_ms: self.synced_at_ms,
            restoring: self.state.is_restoring()?,
            unwritten: self.state.unwritten().cloned(),
        })
    }

    pub(super) fn nap(&self, line: &Line) -> Duration {
        match (self.events.is_empty(), line.is_busy()) {
            (false, _) => RETRY_EVENTS,
            (true, true) => LONGEST_NAP,
            (true, false) => self.schedule.idle(Instant::now()).min(LONGEST_NAP),
        }
    }
}
