//! The wallet thread: it owns the coins, answers commands, and decides what the line does next.

mod channels;
mod core;
mod outbox;
pub(crate) mod rehearsal;
mod schedule;
mod servers;

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};

pub(crate) use self::core::Core;
use crate::electrum::line::Line;
use crate::events::{Events, WalletEvent};
use crate::keys::Keys;
use crate::state::{OpenError, State, StoreError};
use crate::status::{WalletConfig, WalletStatus};
use schedule::Schedule;

/// Commands answered in a row before the line and the events have their turn.
const COMMANDS_A_TURN: usize = 64;

/// The longest sleep, which bounds what a lost wake-up could cost; also the wait after the disk failed.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// A question put to the wallet, with its way back.
pub(crate) type Command = Box<dyn FnOnce(&mut Core) + Send>;

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
    let state = State::open(&config.dir, config.network, keys, config.restore)?;
    let (events, reports) = Events::channel();
    let several = config.servers.len() > 1;
    let schedule = Schedule::new(config.servers, config.poll, &state)?;
    let core = Core::new(state, events, schedule, config.max_fee_rate_sat_vb)?;
    let (status, watcher) = watch::channel(core.status()?);
    let (opened, is_open) = std::sync::mpsc::sync_channel(1);
    let join = std::thread::Builder::new().name("pedlar-wallet".into()).spawn(move || {
        // The lines wake this thread, so this thread opens them.
        let open = |name| Line::open(name, std::thread::current());
        let lines = open("pedlar-line").and_then(|line| Ok((line, several.then(|| open("pedlar-scout")).transpose()?)));
        match lines {
            Ok((line, scout)) => {
                let _ = opened.send(Ok(()));
                WalletThread { core, line, scout, status }.run(inbox);
            }
            Err(e) => drop(opened.send(Err(e))),
        }
    })?;
    is_open.recv().map_err(io::Error::other)??;
    Ok(Running { join, status: watcher, events: reports })
}

struct WalletThread {
    core: Core,
    /// To the server in use.
    line: Line,
    /// To the others, one after the other, where there are any.
    scout: Option<Line>,
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
        // What can't be read either is told when it can be.
        let _ = self.publish();
    }

    fn turn(&mut self) -> Result<(), StoreError> {
        let outcome = self.line.poll_outcome();
        let taken = outcome.map_or(Ok(()), |outcome| self.core.take(outcome));
        let scouted = match self.scout.as_mut().and_then(Line::poll_outcome) {
            Some(outcome) => self.core.take_scouted(outcome),
            None => Ok(()),
        };
        let (core, now) = (&mut self.core, Instant::now());
        if !self.line.is_busy()
            && let Some(job) = core.schedule.next_job(&core.state, now, now_ms())?
        {
            self.line.start(job);
        }
        if let Some(scout) = self.scout.as_mut().filter(|scout| !scout.is_busy())
            && let Some(job) = core.schedule.next_visit(&core.state, now)?
        {
            scout.start(job);
        }
        core.events.send(&core.state)?;
        let told = core.state.unwritten() == self.status.borrow().unwritten.as_ref();
        if std::mem::take(&mut core.stale) || !told {
            self.publish()?;
        }
        taken.and(scouted)
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        let status = self.core.status()?;
        self.status.send_if_modified(|last| {
            let changed = *last != status;
            *last = status;
            changed
        });
        Ok(())
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
