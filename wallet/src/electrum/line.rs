//! The line thread: it does one job at a time against the server, so that the wallet thread never waits for one.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::spk_client::{FullScanRequest, FullScanResponse, SyncRequest, SyncResponse};
use bitcoin::{FeeRate, Transaction, Txid};
use electrum_client::ElectrumApi;

use super::stream::Budget;
use super::{
    BATCH, Expected, FEE_TARGET, Greeting, ReadWrite, Server, ServerFault, ServerUrl, URGENT_TARGET, estimate,
};

/// One job is under way at most, so neither queue ever holds more.
const ONE: usize = 1;

/// Something to be done with the server.
pub(crate) enum Job {
    /// Connect; `known` transactions are not asked for again.
    Connect {
        url: ServerUrl,
        expected: Expected,
        known: Vec<Arc<Transaction>>,
    },
    /// Forget what was cached but these transactions, then sync: for after a reorganisation.
    Resync {
        request: SyncRequest<(KeychainKind, u32)>,
        known: Vec<Arc<Transaction>>,
    },
    Sync(SyncRequest<(KeychainKind, u32)>),
    Scan(FullScanRequest<KeychainKind>),
    Broadcast(Arc<Transaction>),
    EstimateFee,
    /// Connect to another server, for as long as it takes to see how high its chain is and to give it these.
    Visit {
        url: ServerUrl,
        expected: Expected,
        send: Vec<Arc<Transaction>>,
    },
    /// Keep the connection alive and learn of new blocks.
    Ping,
}

/// What came of a job.
pub(crate) enum Outcome {
    Connected(Greeting),
    Synced {
        response: SyncResponse,
        /// The height of the server's chain.
        tip: u32,
    },
    Scanned(FullScanResponse<KeychainKind>),
    /// `accepted` is false when the server refused, which it also does for a transaction that it has.
    Broadcast {
        txid: Txid,
        accepted: bool,
    },
    /// What the server asks for, where it knows: for a few blocks, and for the next two.
    Fee {
        usual: Option<FeeRate>,
        urgent: Option<FeeRate>,
    },
    Visited {
        greeting: Greeting,
        tip: u32,
        taken: Vec<Txid>,
    },
    Ponged {
        new_block: bool,
    },
    /// The connection is gone.
    Failed(ServerFault),
}

/// The wallet thread's end of the line.
pub(crate) struct Line {
    jobs: SyncSender<Job>,
    outcomes: Receiver<Outcome>,
    socket: Arc<Mutex<Socket>>,
    busy: bool,
}

impl Line {
    /// Starts a line thread of this name; it unparks `owner` after each job.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(crate) fn open(name: &str, owner: Thread) -> io::Result<Self> {
        let (jobs, to_do) = sync_channel::<Job>(ONE);
        let (done, outcomes) = sync_channel(ONE);
        let socket = Arc::new(Mutex::new(Socket::None));
        let hook = socket.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            let mut worker = Worker::hooked(hook);
            for job in to_do {
                let outcome = worker.run(job);
                if done.send(outcome).is_err() {
                    return;
                }
                owner.unpark();
            }
        })?;
        Ok(Self { jobs, outcomes, socket, busy: false })
    }

    /// Whether a job is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Hands over a job; only while none is under way.
    pub(crate) fn start(&mut self, job: Job) {
        self.busy = self.jobs.try_send(job).is_ok();
    }

    /// What came of the job under way, once it is done.
    #[must_use]
    pub(crate) fn poll_outcome(&mut self) -> Option<Outcome> {
        let outcome = match self.outcomes.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) if self.busy => Outcome::Failed(ServerFault::Misbehaved),
            Err(TryRecvError::Disconnected) => return None,
        };
        self.busy = false;
        Some(outcome)
    }
}

impl Drop for Line {
    /// Ends what is under way: a wallet that shuts down doesn't wait for a server.
    fn drop(&mut self) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Socket::Open(open) = std::mem::replace(&mut *socket, Socket::HungUp) {
            let _ = open.shutdown(Shutdown::Both);
        }
    }
}

/// The connection's socket, as far as the wallet thread is concerned.
enum Socket {
    None,
    Open(TcpStream),
    HungUp,
}

/// What the line thread knows and does.
pub(crate) struct Worker {
    server: Option<Server>,
    hook: Arc<Mutex<Socket>>,
}

impl Worker {
    /// One without a server.
    pub(crate) fn new() -> Self {
        Self::hooked(Arc::new(Mutex::new(Socket::None)))
    }

    fn hooked(hook: Arc<Mutex<Socket>>) -> Self {
        Self { server: None, hook }
    }

    /// Does a job; after a fault there is no server any more.
    pub(crate) fn run(&mut self, job: Job) -> Outcome {
        let attempted = self.attempt(job);
        self.conclude(attempted)
    }

    /// Does what [`Job::Connect`] asks for over a stream that is open already.
    pub(crate) fn greet(
        &mut self,
        stream: Box<dyn ReadWrite>,
        expected: &Expected,
        known: Vec<Arc<Transaction>>,
    ) -> Outcome {
        let greeted = Server::greet(stream, Budget::new(), expected, None).map(|(server, greeting)| {
            self.server = Some(server.forget(known));
            Outcome::Connected(greeting)
        });
        self.conclude(greeted)
    }

    fn conclude(&mut self, attempted: Result<Outcome, ServerFault>) -> Outcome {
        attempted.unwrap_or_else(|fault| {
            self.server = None;
            Outcome::Failed(fault)
        })
    }

    fn attempt(&mut self, job: Job) -> Result<Outcome, ServerFault> {
        match job {
            Job::Connect { url, expected, known } => {
                self.server = None;
                let hook = self.hook.clone();
                let (server, greeting) = Server::connect(&url, &expected, |socket| hang_on(&hook, socket))?;
                self.server = Some(server.forget(known));
                Ok(Outcome::Connected(greeting))
            }
            Job::Resync { request, known } => {
                self.server = self.server.take().map(|server| server.forget(known));
                self.attempt(Job::Sync(request))
            }
            Job::Sync(request) => {
                let server = self.server()?;
                let tip = server.tip()?;
                let response = server.job(|c| c.sync(request, BATCH, false))?;
                // It names a height, and has no headers up to there.
                if response.chain_update.as_ref().is_some_and(|chain| chain.height() < tip) {
                    return Err(ServerFault::Misbehaved);
                }
                Ok(Outcome::Synced { response, tip })
            }
            Job::Scan(request) => {
                self.server()?.job(|c| c.full_scan(request, usize::MAX, BATCH, false)).map(Outcome::Scanned)
            }
            Job::Broadcast(tx) => {
                let txid = tx.compute_txid();
                match self.server()?.job(|c| c.transaction_broadcast(&tx)) {
                    Ok(taken) => Ok(Outcome::Broadcast { txid, accepted: taken == txid }),
                    Err(ServerFault::Refused) => Ok(Outcome::Broadcast { txid, accepted: false }),
                    Err(fault) => Err(fault),
                }
            }
            Job::Visit { url, expected, send } => {
                let hook = self.hook.clone();
                let (server, greeting) = Server::connect(&url, &expected, |socket| hang_on(&hook, socket))?;
                let tip = server.tip()?;
                let taken = |tx: &Arc<Transaction>| match server.job(|c| c.transaction_broadcast(tx)) {
                    Ok(txid) => (txid == tx.compute_txid()).then_some(Ok(txid)),
                    Err(ServerFault::Refused) => None,
                    Err(fault) => Some(Err(fault)),
                };
                let taken = send.iter().filter_map(taken).collect::<Result<_, _>>()?;
                Ok(Outcome::Visited { greeting, tip, taken })
            }
            Job::EstimateFee => {
                let asked = |target| match self.server()?.job(|client| estimate(client, target)) {
                    Err(ServerFault::Refused) => Ok(None),
                    asked => asked,
                };
                Ok(Outcome::Fee { usual: asked(FEE_TARGET)?, urgent: asked(URGENT_TARGET)? })
            }
            Job::Ping => self.server()?.job(|client| {
                client.inner.ping()?;
                let mut new_block = false;
                // Drained: one pop alone would give the oldest of several.
                while client.inner.block_headers_pop_raw()?.is_some() {
                    new_block = true;
                }
                Ok(Outcome::Ponged { new_block })
            }),
        }
    }

    fn server(&self) -> Result<&Server, ServerFault> {
        self.server.as_ref().ok_or(ServerFault::Closed)
    }
}

fn hang_on(hook: &Mutex<Socket>, socket: TcpStream) {
    let mut held = hook.lock().unwrap_or_else(PoisonError::into_inner);
    match *held {
        Socket::HungUp => {
            let _ = socket.shutdown(Shutdown::Both);
        }
        Socket::None | Socket::Open(_) => *held = Socket::Open(socket),
    }
}
