//! The offers of others: judged before gossip forwards them, asked for by a late joiner, and told to one that asks.
//!
//! ```text
//! gossip ─ judge ─▶ Driver::receive_offer ◀─ OfferSync::ask ◀─ stream ─ OfferSync::answer (of a peer)
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p_identity::PeerId;
use pedlar_net::{GossipMessage, NetHandle, OpenError, Stream, Verdict};
use pedlar_protocol::book;
use pedlar_protocol::book::sync::{Intake, MAX_EXCHANGES, Request, START, SyncViolation, Told};
use pedlar_protocol::offer::OfferError;
use pedlar_protocol::rate::{Limit, PeerRates};
use pedlar_protocol::wire::FrameKind;
use tokio::io::split;
use tokio::sync::mpsc;
use tokio::time::{Instant, error::Elapsed, sleep_until, timeout};

use crate::driver::{Driver, now};
use crate::manners::Conduct;
use crate::session::{FrameReader, FrameWriter, IoError};

/// The name of the protocol: `/pedlar/<network>/offers-sync/1`.
pub(crate) const PROTOCOL: &str = "offers-sync";

/// Offers that are judged of those that one neighbour sends: 40,000 sellers refresh theirs at this rate, and neighbours
/// share what comes. It keeps one that floods with ever new identities from filling the book before others are heard.
const HEARD: Limit = Limit { every: Duration::from_micros(62_500), burst: 512 };

/// Peers that a new node asks: a single one may be new itself, or keep things back.
const JOIN: usize = 3;

/// How often one peer is asked after that: what gossip has lost is found again before it ends.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// The same while nobody has answered.
const RETRY: Duration = Duration::from_secs(30);

/// How long either side gives one exchange: 1 MiB over a slow line.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long the other side may be silent within one.
const SILENCE: Duration = Duration::from_secs(10);

/// Exchanges that one peer may have: a whole book at once, and then as many as it takes every ten minutes.
const EXCHANGES: Limit = Limit { every: Duration::from_secs(30), burst: MAX_EXCHANGES as u32 };

/// Peers that broke the protocol and are not asked again; when there are more, all get another chance.
const MAX_BLAMED: usize = 256;

/// How useful a peer is that broke it: too little for gossip to choose it, and the first to go when connections are
/// trimmed.
const BLAMED: f64 = -40.0;

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    /// No stream.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] IoError),
    /// It took too long as a whole.
    #[error("the exchange takes too long")]
    Slow(#[from] Elapsed),
    /// The peer asks more often than it may.
    #[error("the peer asks too often")]
    TooOften,
    /// The peer breaks the protocol.
    #[error(transparent)]
    Violation(#[from] SyncViolation),
    /// It told what can never be an offer: it did not check it.
    #[error("a bad offer: {0}")]
    Offer(OfferError),
}

impl ExchangeError {
    /// Whether it is the peer's fault, whatever the line and the clocks are like.
    const fn is_a_breach(&self) -> bool {
        matches!(self, Self::Violation(_) | Self::Offer(_) | Self::Io(IoError::Frame(_)))
    }
}

/// Judges offers before they are forwarded.
pub(crate) async fn judge(driver: &Driver, net: &NetHandle, mut messages: mpsc::Receiver<GossipMessage>) {
    let mut heard = PeerRates::new(HEARD);
    while let Some(GossipMessage { id, source, data }) = messages.recv().await {
        if !heard.spend(now(), source) {
            net.verdict(id, source, Verdict::Ignore).await;
            continue;
        }
        let verdict = match driver.receive_offer(&Bytes::from(data)) {
            book::Verdict::Accept => Verdict::Accept,
            book::Verdict::Ignore(_) => Verdict::Ignore,
            book::Verdict::Reject(error) => {
                tracing::debug!(%source, %error, "an offer is rejected");
                Verdict::Reject
            }
        };
        net.verdict(id, source, verdict).await;
    }
}

/// Both sides of offers-sync.
pub(crate) struct OfferSync {
    driver: Arc<Driver>,
    net: NetHandle,
    answered: Mutex<PeerRates>,
    blamed: Mutex<BTreeSet<PeerId>>,
}

impl OfferSync {
    pub(crate) fn new(driver: Arc<Driver>, net: NetHandle) -> Self {
        Self { driver, net, answered: Mutex::new(PeerRates::new(EXCHANGES)), blamed: Mutex::default() }
    }

    /// Asks the first peers that are met, and then one every ten minutes.
    pub(crate) async fn run(&self, mut met: mpsc::Receiver<PeerId>) {
        let (mut joined, mut asking) = (0, FuturesUnordered::new());
        let mut next = Instant::now() + RETRY;
        loop {
            tokio::select! {
                Some(peer) = met.recv(), if joined + asking.len() < JOIN => asking.push(self.ask(peer)),
                Some(answered) = asking.next() => {
                    joined += usize::from(answered);
                    next = Instant::now() + if answered { AGAIN } else { RETRY };
                }
                () = sleep_until(next) => {
                    next = Instant::now() + RETRY;
                    if let (Some(peer), true) = (self.anybody().await, asking.len() < JOIN) {
                        asking.push(self.ask(peer));
                    }
                }
            }
        }
    }

    /// Answers one request of a peer; how it behaved.
    pub(crate) async fn answer(&self, peer: PeerId, stream: Stream) -> Conduct {
        let answered = tokio::select! {
            answered = timeout(DEADLINE, self.try_answer(peer, stream)) => answered,
            () = self.driver.stopping() => return Conduct::Sensible,
        };
        let Err(error) = answered.unwrap_or_else(|slow| Err(slow.into())) else {
            return Conduct::Sensible;
        };
        self.note(peer, &error).await;
        let nonsense = error.is_a_breach() || matches!(&error, ExchangeError::Io(error) if error.is_nonsense());
        if nonsense { Conduct::Nonsense } else { Conduct::Sensible }
    }

    async fn try_answer(&self, peer: PeerId, stream: Stream) -> Result<(), ExchangeError> {
        let (read, write) = split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read, FrameKind::Control), FrameWriter::new(write));
        let request = Request::decode(reader.next_within(SILENCE).await?.payload)?;
        if !held(&self.answered).spend(now(), peer) {
            return Err(ExchangeError::TooOften);
        }
        let answer = self.driver.read(|market| market.offers_answer(now(), &request));
        for frame in answer.frames() {
            writer.send(FrameKind::Control, frame.encode()).await?;
        }
        writer.finish().await;
        Ok(())
    }

    /// Asks one peer for all that is missing here; whether it answered to the end.
    async fn ask(&self, peer: PeerId) -> bool {
        if held(&self.blamed).contains(&peer) {
            return false;
        }
        let (mut from, mut news) = (START, 0);
        for _ in 0..MAX_EXCHANGES {
            let request = self.driver.read(|market| market.offers_request(now(), from));
            let asked = timeout(DEADLINE, self.exchange(peer, &request, &mut news)).await;
            match asked.unwrap_or_else(|slow| Err(slow.into())) {
                Ok(Some(next)) => from = next,
                Ok(None) => break,
                Err(error) => {
                    self.note(peer, &error).await;
                    return false;
                }
            }
        }
        tracing::info!(%peer, news, "asked a peer for offers");
        true
    }

    /// One exchange; where to go on, if there is more.
    async fn exchange(&self, peer: PeerId, request: &Request, news: &mut usize) -> Result<Option<u64>, ExchangeError> {
        let (read, write) = split(self.net.open(peer, Vec::new(), PROTOCOL).await?);
        let (mut reader, mut writer) = (FrameReader::new(read, FrameKind::Control), FrameWriter::new(write));
        writer.send(FrameKind::Control, request.encode()).await?;
        let mut intake = Intake::new(request);
        loop {
            match intake.handle_frame(reader.next_within(SILENCE).await?.payload)? {
                Told::Offer(bytes) => match self.driver.receive_offer(&bytes) {
                    book::Verdict::Accept => *news += 1,
                    // Also an honest peer tells what has just ended or come by gossip.
                    book::Verdict::Ignore(_) => {}
                    book::Verdict::Reject(error) => return Err(ExchangeError::Offer(error)),
                },
                Told::End { next } => return Ok(next),
            }
            // Each offer costs a signature check: others have their turn in between.
            tokio::task::yield_now().await;
        }
    }

    /// A connected peer that speaks the protocol, by chance.
    async fn anybody(&self) -> Option<PeerId> {
        let speaks = |info: &pedlar_net::PeerInfo| info.protocols.contains(&PROTOCOL);
        let mut peers: Vec<PeerId> = self.net.peers().await.into_iter().filter(speaks).map(|info| info.peer).collect();
        peers.retain(|peer| !held(&self.blamed).contains(peer));
        let lot = getrandom::u64().unwrap_or_default().checked_rem(peers.len() as u64)?;
        usize::try_from(lot).ok().and_then(|lot| peers.get(lot)).copied()
    }

    async fn note(&self, peer: PeerId, error: &ExchangeError) {
        tracing::debug!(%peer, %error, "offers are not exchanged");
        if !error.is_a_breach() {
            return;
        }
        {
            let mut blamed = held(&self.blamed);
            if blamed.len() >= MAX_BLAMED {
                blamed.clear();
            }
            blamed.insert(peer);
        }
        self.net.set_score(peer, BLAMED).await;
    }
}

/// Each change of these is one insertion or removal: a panic leaves nothing half done.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
