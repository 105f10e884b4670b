//! What the line does next: connect, send, search, sync, ask for the fee, ping.

use std::time::{Duration, Instant};

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::spk_client::FullScanRequest;
use bitcoin::Txid;

use crate::chain::Absorbed;
use crate::electrum::line::Job;
use crate::electrum::{Expected, ServerFault, ServerUrl};
use crate::state::{OpenError, State, StoreError};
use crate::thread::outbox::Outbox;
use crate::thread::servers::Servers;

/// The least that `poll` is taken for: a server isn't asked in a busy loop.
const SHORTEST_POLL: Duration = Duration::from_millis(100);
/// How often the connection is tried when nothing else goes over it; new blocks are noticed by it.
const PING_EVERY: Duration = Duration::from_secs(5);
/// How often the fee is asked for: a block's time is ten minutes, so a minute is fresh.
const FEE_EVERY: Duration = Duration::from_secs(60);
/// Addresses without history in a row after which a restore has found everything (MONEY.md 2.5).
const RESTORE_GAP: u32 = 1000;
/// Where the search ends whatever the server says: a lie about each address would make it endless.
const RESTORE_LIMIT: u32 = 50_000;
/// Addresses searched in one job: few enough that their transactions are fetched within its time.
const SCAN_STEP: u32 = 100;

/// When which job is due.
pub(super) struct Schedule {
    pub(super) servers: Servers,
    outbox: Outbox,
    connected: bool,
    poll: Duration,
    sync_at: Instant,
    /// When the sync under way was asked for.
    asked_at: Instant,
    ping_at: Instant,
    fee_at: Instant,
    /// A reorganisation was seen: headers and proofs cached before it are worth nothing.
    resync: bool,
    scan: Option<Scan>,
}

impl Schedule {
    /// # Errors
    ///
    /// [`OpenError::NoServer`] without servers.
    pub(super) fn new(servers: Vec<ServerUrl>, poll: Duration, state: &State) -> Result<Self, OpenError> {
        let (now, poll) = (Instant::now(), poll.max(SHORTEST_POLL));
        let live = state.live_transactions()?;
        Ok(Self {
            servers: Servers::new(servers, poll, now).ok_or(OpenError::NoServer)?,
            outbox: Outbox::new(live.iter().map(|tx| tx.compute_txid()), now),
            connected: false,
            poll,
            sync_at: now,
            asked_at: now,
            ping_at: now,
            fee_at: now,
            resync: false,
            scan: state.is_restoring()?.then(Scan::start),
        })
    }

    /// The job that is due now, if any.
    pub(super) fn next_job(&mut self, state: &State, now: Instant, now_ms: u64) -> Result<Option<Job>, StoreError> {
        if !self.connected {
            return if now < self.servers.connect_at() { Ok(None) } else { self.connect(state).map(Some) };
        }
        if let Some(tx) = self.outbox.next_due(state, now)? {
            return Ok(Some(Job::Broadcast(tx)));
        }
        if let Some(scan) = &self.scan {
            return Ok(Some(scan.job(state, now_ms)));
        }
        if now >= self.sync_at {
            self.asked_at = now;
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

    /// What the scout does now, if anything: it looks at a server that is not in use.
    pub(super) fn next_visit(&mut self, state: &State, now: Instant) -> Result<Option<Job>, StoreError> {
        // The server in use says first which chain this is.
        if state.block_1()?.is_none() {
            return Ok(None);
        }
        let Some(url) = self.servers.next_visit(now) else { return Ok(None) };
        let (expected, send) = (expected(&url, state)?, self.outbox.missed(state)?);
        Ok(Some(Job::Visit { url, expected, send }))
    }

    /// How long nothing is due.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        let next = if self.connected {
            let due = [self.outbox.due_at(), Some(self.sync_at), Some(self.ping_at), Some(self.fee_at)];
            due.into_iter().flatten().min().unwrap_or(now)
        } else {
            self.servers.connect_at()
        };
        let next = self.servers.visit_at().map_or(next, |visit| visit.min(next));
        next.saturating_duration_since(now)
    }

    pub(super) fn handle_connected(&mut self, now: Instant, now_ms: u64) {
        self.connected = true;
        // What another server said is not news of this one.
        (self.sync_at, self.fee_at) = (now, now);
        self.servers.handle_connected(now_ms);
        self.outbox.handle_connected(now);
    }

    pub(super) fn handle_failed(&mut self, fault: ServerFault, now: Instant, now_ms: u64) {
        self.connected = false;
        self.servers.handle_failed(fault, now, now_ms);
    }

    pub(super) fn handle_synced(&mut self, now: Instant) {
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

    /// Takes in what the server lists and what it doesn't.
    ///
    /// # Errors
    ///
    /// When it doesn't list what it took, and another one could take over.
    pub(super) fn handle_absorbed(&mut self, absorbed: &Absorbed, now: Instant) -> Result<(), ServerFault> {
        self.resync |= absorbed.reorged;
        if !self.outbox.handle_absorbed(absorbed, self.asked_at) {
            return Ok(());
        }
        self.servers.hurry(now);
        if self.servers.has_spare() { Err(ServerFault::Omits) } else { Ok(()) }
    }

    /// News could not be written: whether they were of a reorganisation is not known any more.
    pub(super) fn handle_unwritten(&mut self, now: Instant) {
        self.resync = true;
        self.sync_at = now + self.poll;
    }

    /// The server was given a transaction; when it has to be listed, that is looked at.
    pub(super) fn handle_given(&mut self, txid: Txid, accepted: bool, now: Instant) {
        let listed_at = self.outbox.handle_given(txid, accepted, now);
        self.sync_at = self.sync_at.min(listed_at);
    }

    /// Asks for news at once.
    pub(super) fn look_now(&mut self) {
        self.sync_at = Instant::now();
    }

    /// Queues a transaction to be sent at once.
    pub(super) fn send_now(&mut self, txid: Txid) {
        self.outbox.push(txid, Instant::now());
    }

    fn connect(&self, state: &State) -> Result<Job, StoreError> {
        let url = self.servers.current().clone();
        Ok(Job::Connect { expected: expected(&url, state)?, url, known: state.known_transactions() })
    }
}

/// What a server must be to be used, as far as is known.
fn expected(url: &ServerUrl, state: &State) -> Result<Expected, StoreError> {
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::from(state.network)).block_hash();
    Ok(Expected { genesis, block_1: state.block_1()?, pin: state.pin(url)? })
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
