//! What the line does next: connect, send, search, sync, ask for the fee, ping.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::spk_client::FullScanRequest;
use bitcoin::Txid;

use crate::chain::Absorbed;
use crate::electrum::line::Job;
use crate::electrum::{Expected, ServerUrl};
use crate::state::{State, StoreError};

/// The least that `poll` is taken for: a server isn't asked in a busy loop.
const SHORTEST_POLL: Duration = Duration::from_millis(100);
/// The first wait after a failure; each further one doubles it, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How often the connection is tried when nothing else goes over it; new blocks are noticed by it.
const PING_EVERY: Duration = Duration::from_secs(5);
/// How often the fee is asked for: a block's time is ten minutes, so a minute is fresh.
const FEE_EVERY: Duration = Duration::from_secs(60);
/// How long after a payment's transaction was sent, or missed in a sync, it is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(10);
/// Addresses without history in a row after which a restore has found everything (MONEY.md 2.5).
const RESTORE_GAP: u32 = 1000;
/// Where the search ends whatever the server says: a lie about each address would make it endless.
const RESTORE_LIMIT: u32 = 50_000;
/// Addresses searched in one job: few enough that their transactions are fetched within its time.
const SCAN_STEP: u32 = 100;

/// When which job is due.
pub(super) struct Schedule {
    server: ServerUrl,
    /// Tried in turn when the one in use fails.
    others: VecDeque<ServerUrl>,
    connected: bool,
    failures: u32,
    poll: Duration,
    retry_at: Instant,
    sync_at: Instant,
    ping_at: Instant,
    fee_at: Instant,
    /// A reorganisation was seen: headers and proofs cached before it are worth nothing.
    resync: bool,
    scan: Option<Scan>,
    /// Transactions to be sent and when, the oldest payment's first; at most one entry for each live one.
    outbox: Vec<(Txid, Instant)>,
}

impl Schedule {
    pub(super) fn new(
        server: ServerUrl,
        others: VecDeque<ServerUrl>,
        poll: Duration,
        state: &State,
    ) -> Result<Self, StoreError> {
        let now = Instant::now();
        let live = state.live_transactions()?;
        Ok(Self {
            server,
            others,
            connected: false,
            failures: 0,
            poll: poll.max(SHORTEST_POLL),
            retry_at: now,
            sync_at: now,
            ping_at: now,
            fee_at: now,
            resync: false,
            scan: state.is_restoring()?.then(Scan::start),
            outbox: live.into_iter().map(|tx| (tx.compute_txid(), now)).collect(),
        })
    }

    /// The server in use, or tried next.
    pub(super) fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// The job that is due now, if any.
    pub(super) fn next_job(&mut self, state: &State, now: Instant, now_ms: u64) -> Result<Option<Job>, StoreError> {
        if !self.connected {
            return if now < self.retry_at { Ok(None) } else { self.connect(state).map(Some) };
        }
        if let Some(job) = self.next_broadcast(state, now)? {
            return Ok(Some(job));
        }
        if let Some(scan) = &self.scan {
            return Ok(Some(scan.job(state, now_ms)));
        }
        if now >= self.sync_at {
            self.ping_at = now + PING_EVERY;
            let request = state.sync_request(now_ms);
            let resync = std::mem::take(&mut self.resync);
            return Ok(Some(match resync {
                true => Job::Resync { request, known: state.known_transactions() },
                false => Job::Sync(request),
            }));
        }
        if now >= self.fee_at {
            self.fee_at = now + FEE_EVERY;
            return Ok(Some(Job::EstimateFee));
        }
        if now >= self.ping_at {
            self.ping_at = now + PING_EVERY;
            return Ok(Some(Job::Ping));
        }
        Ok(None)
    }

    /// How long nothing is due.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        let next = if self.connected {
            let sends = self.outbox.iter().map(|&(_, at)| at);
            sends.chain([self.sync_at, self.ping_at, self.fee_at]).min().unwrap_or(now)
        } else {
            self.retry_at
        };
        next.saturating_duration_since(now)
    }

    pub(super) fn handle_connected(&mut self) {
        self.connected = true;
    }

    pub(super) fn handle_failed(&mut self, now: Instant) {
        let wait = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.connected = false;
        self.retry_at = now + wait;
        self.sync_at = self.retry_at;
        if let Some(next) = self.others.pop_front() {
            self.others.push_back(std::mem::replace(&mut self.server, next));
        }
    }

    pub(super) fn handle_synced(&mut self, now: Instant) {
        self.failures = 0;
        self.sync_at = if self.resync { now } else { now + self.poll };
    }

    pub(super) fn handle_ponged(&mut self, new_block: bool, now: Instant) {
        if new_block {
            self.sync_at = now;
        }
    }

    /// Moves the search on; true when it is over.
    pub(super) fn handle_scanned(&mut self, last_active: Option<u32>) -> bool {
        self.scan = self.scan.take().and_then(|scan| scan.advance(last_active));
        self.scan.is_none()
    }

    pub(super) fn handle_absorbed(&mut self, absorbed: &Absorbed, now: Instant) {
        self.resync |= absorbed.reorged;
        self.outbox.retain(|(txid, _)| !absorbed.listed.contains(txid));
        for &txid in &absorbed.unlisted {
            self.send_at(txid, now + RESEND_AFTER);
        }
    }

    /// News could not be written: whether they were of a reorganisation is not known any more.
    pub(super) fn handle_unwritten(&mut self, now: Instant) {
        self.resync = true;
        self.sync_at = now + self.poll;
    }

    pub(super) fn handle_sent(&mut self, txid: Txid) {
        self.outbox.retain(|&(queued, _)| queued != txid);
    }

    /// Queues a transaction to be sent at once.
    pub(super) fn send_now(&mut self, txid: Txid) {
        self.send_at(txid, Instant::now());
    }

    fn send_at(&mut self, txid: Txid, at: Instant) {
        if !self.outbox.iter().any(|&(queued, _)| queued == txid) {
            self.outbox.push((txid, at));
        }
    }

    fn connect(&mut self, state: &State) -> Result<Job, StoreError> {
        let url = self.server.clone();
        let expected = Expected {
            genesis: bitcoin::constants::genesis_block(bitcoin::Network::from(state.network)).block_hash(),
            block_1: state.block_1()?,
            pin: state.pin(&url)?,
        };
        Ok(Job::Connect { url, expected, known: state.known_transactions() })
    }

    fn next_broadcast(&mut self, state: &State, now: Instant) -> Result<Option<Job>, StoreError> {
        while let Some(due) = self.outbox.iter().position(|&(_, at)| at <= now) {
            let (txid, _) = self.outbox.remove(due);
            if let Some(tx) = state.live_transaction(txid)? {
                self.outbox.insert(due, (txid, now + RESEND_AFTER));
                return Ok(Some(Job::Broadcast(tx)));
            }
        }
        Ok(None)
    }
}

/// How far the search for restored coins is.
#[derive(Clone, Copy)]
struct Scan {
    keychain: KeychainKind,
    next: u32,
    empty: u32,
}

impl Scan {
    fn start() -> Self {
        Self { keychain: KeychainKind::External, next: 0, empty: 0 }
    }

    fn job(self, state: &State, now_ms: u64) -> Job {
        let (keychain, range) = (self.keychain, self.next..self.next.saturating_add(SCAN_STEP));
        let scripts: Vec<_> =
            range.map(|index| (index, state.wallet.peek_address(keychain, index).script_pubkey())).collect();
        let request = FullScanRequest::builder_at(now_ms / 1000)
            .chain_tip(state.wallet.latest_checkpoint())
            .spks_for_keychain(keychain, scripts);
        Job::Scan(request.build())
    }

    fn advance(self, last_active: Option<u32>) -> Option<Self> {
        let next = self.next.saturating_add(SCAN_STEP);
        let empty = match last_active {
            Some(index) => next.saturating_sub(index.saturating_add(1)),
            None => self.empty.saturating_add(SCAN_STEP),
        };
        match self.keychain {
            _ if empty < RESTORE_GAP && next < RESTORE_LIMIT => Some(Self { next, empty, ..self }),
            KeychainKind::External => Some(Self { keychain: KeychainKind::Internal, next: 0, empty: 0 }),
            KeychainKind::Internal => None,
        }
    }
}
