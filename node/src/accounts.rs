//! The account stream: newest counters, and top-ups. Never refused for debt; the limits are everybody's (DESIGN.md 3).
//!
//! One request and one reply a stream, so nothing here is ever half done.

mod reminder;

use std::sync::Arc;
use std::time::Duration;

use libp2p_identity::PeerId;
use pedlar_net::{Multiaddr, NetHandle, OpenError, Stream};
use pedlar_proto::v1::{self, account_reply, account_request};
use pedlar_protocol::account::{Direction, Payment, Tab};
use pedlar_protocol::id::{QuoteId, TopUpId};
use pedlar_protocol::market::{MAX_SYNCED, Market, NoTopUp, SyncError, Synced};
use pedlar_protocol::money::Msat;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::quote::SignedReceipt;
use pedlar_protocol::settlement::SignedTopUp;
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{FrameKind, Signed};
use prost::Message;
use tokio::io::split;

use crate::driver::{Driver, NOT_STORED, now};
use crate::manners::Conduct;
use crate::session::{FrameReader, FrameWriter, IoError};
use crate::store::StoreError;

/// The name of the protocol: `/pedlar/<network>/account/1`.
pub(crate) const PROTOCOL: &str = "account";

/// How long either side waits for the other.
const DEADLINE: Duration = Duration::from_secs(15);

/// When one that asks more often is told to come back.
const AGAIN: Duration = Duration::from_secs(1);

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// No stream.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The reply means nothing.
    #[error("the peer sent a bad reply")]
    Malformed,
    /// The peer won't.
    #[error("{0}")]
    Refused(Refusal),
    /// The seller's top-up is not paid.
    #[error(transparent)]
    TopUp(#[from] NoTopUp),
    /// The seller's word on the books can't stand.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// Our journal.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a seller's books stand towards us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SellersView {
    pub(crate) paid: Msat,
    pub(crate) spent: Msat,
    /// What it says to have sent and not been signed for.
    pub(crate) held: Msat,
    /// What could be bought now without paying.
    pub(crate) available: Msat,
    pub(crate) min_topup_sat: u64,
    pub(crate) tip_height: u64,
    /// It was restored from a backup, and may count less than there was.
    restored: bool,
}

impl SellersView {
    /// What the seller counts of what we have.
    const fn counts(&self) -> Tab {
        Tab { paid: self.paid, spent: self.spent, held: Msat::ZERO }
    }
}

/// Answers one request of a peer; how it behaved.
pub(crate) async fn answer(driver: Arc<Driver>, peer: PeerId, stream: Stream) -> Conduct {
    let (read, write) = split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read, FrameKind::Control), FrameWriter::new(write));
    let asked = tokio::select! {
        asked = reader.next_within(DEADLINE) => asked,
        () = driver.stopping() => return Conduct::Sensible,
    };
    let frame = match asked {
        Ok(frame) => frame,
        Err(error) if error.is_nonsense() => return Conduct::Nonsense,
        Err(_) => return Conduct::Sensible,
    };
    let request = v1::AccountRequest::decode(frame.payload).ok().and_then(|request| request.request);
    let reply = match request {
        _ if !driver.may_ask(peer) => Err(Refusal::Busy { retry_after: AGAIN }),
        Some(account_request::Request::Sync(sync)) => answer_sync(&driver, peer, sync).await,
        Some(account_request::Request::Topup(request)) => answer_topup(&driver, peer, &request).await,
        Some(account_request::Request::Recall(recall)) => reminder::answer_recall(&driver, peer, &recall).await,
        Some(account_request::Request::Reminder(page)) => match reminder::take_reminder(&driver, peer, page).await {
            Ok(()) => answer_sync(&driver, peer, v1::Sync::default()).await,
            Err(refusal) => Err(refusal),
        },
        None => Err(Refusal::Malformed),
    };
    let conduct = if matches!(reply, Err(Refusal::Malformed)) { Conduct::Nonsense } else { Conduct::Sensible };
    let reply = reply.unwrap_or_else(|refusal| account_reply::Reply::Refused(refusal.to_wire()));
    let reply = v1::AccountReply { reply: Some(reply) };
    if writer.send(FrameKind::Control, reply.encode_to_vec()).await.is_ok() {
        writer.finish().await;
    }
    conduct
}

/// Tells a seller our newest receipts, and learns how its books stand; where either was restored, also what it has forgotten.
///
/// # Errors
/// [`ExchangeError`]; our books are as before, but for what the seller acknowledged, or reminded us of.
pub(crate) async fn sync(
    driver: &Driver,
    net: &NetHandle,
    seller: PeerId,
    addrs: Vec<Multiaddr>,
) -> Result<SellersView, ExchangeError> {
    if driver.read(|market| market.forgets(&seller)) {
        reminder::recall(driver, net, seller, &addrs).await?;
    }
    let mut view = tell(driver, net, seller, &addrs).await?;
    if view.restored {
        view = reminder::remind(driver, net, seller, &addrs, view).await?;
    }
    driver.find_payments(&seller).await;
    Ok(view)
}

async fn tell(
    driver: &Driver,
    net: &NetHandle,
    seller: PeerId,
    addrs: &[Multiaddr],
) -> Result<SellersView, ExchangeError> {
    loop {
        let receipts = driver.read(|market| market.unacknowledged(&seller));
        driver.stored().await?;
        let told = receipts.iter().map(|receipt| receipt.signed().to_wire()).collect();
        let request = account_request::Request::Sync(v1::Sync { receipts: told });
        let account_reply::Reply::Sync(reply) = exchange(net, seller, addrs.to_vec(), request).await? else {
            return Err(ExchangeError::Malformed);
        };
        let view = take_sync(driver, seller, reply).await?;
        // As many as fit: there may be more, unless the seller acknowledges none.
        if receipts.len() < MAX_SYNCED || driver.read(|market| market.unacknowledged(&seller)) == receipts {
            return Ok(view);
        }
    }
}

/// Tells a seller the receipts that it has not acknowledged, if there are any, and the swarm how useful it is; what
/// fails now is told at the next connection.
pub(crate) async fn settle(driver: &Driver, net: &NetHandle, seller: PeerId, addrs: Vec<Multiaddr>) {
    net.set_score(seller, driver.read(|market| market.usefulness(&seller)).into()).await;
    let told = |market: &Market| {
        let forgot = market.forgets(&seller) && market.account(&seller, Direction::Bought).is_some();
        market.unacknowledged(&seller).is_empty() && !forgot
    };
    if driver.read(told) {
        return;
    }
    // What was paid before a restore is known once the chain was searched.
    let mut wallet = driver.wallet().status();
    if wallet.wait_for(|status| !status.restoring).await.is_err() {
        return;
    }
    if let Err(error) = sync(driver, net, seller, addrs).await {
        tracing::debug!(%seller, %error, "a seller's books are not known yet");
    }
}

/// Asks a seller for its word on a top-up, and stores it.
///
/// # Errors
/// [`ExchangeError`]; nothing is to be paid then.
pub(crate) async fn request_topup(
    driver: &Driver,
    net: &NetHandle,
    seller: PeerId,
    addrs: Vec<Multiaddr>,
    id: TopUpId,
    amount_sat: u64,
) -> Result<SignedTopUp, ExchangeError> {
    let request = v1::TopUpRequest { id: id.0.to_vec().into(), amount_sat };
    let reply = exchange(net, seller, addrs, account_request::Request::Topup(request)).await?;
    let account_reply::Reply::Topup(signed) = reply else {
        return Err(ExchangeError::Malformed);
    };
    let signed = Signed::from_wire(signed).map_err(|_| ExchangeError::Malformed)?;
    Ok(driver.commit(|market| market.handle_topup(now(), seller, id, signed)).await??)
}

async fn exchange(
    net: &NetHandle,
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    request: account_request::Request,
) -> Result<account_reply::Reply, ExchangeError> {
    let (read, write) = split(net.open(peer, addrs, PROTOCOL).await?);
    let (mut reader, mut writer) = (FrameReader::new(read, FrameKind::Control), FrameWriter::new(write));
    let request = v1::AccountRequest { request: Some(request) };
    writer.send(FrameKind::Control, request.encode_to_vec()).await?;
    let frame = reader.next_within(DEADLINE).await?;
    writer.finish().await;
    let reply = v1::AccountReply::decode(frame.payload).map_err(|_| ExchangeError::Malformed)?;
    match reply.reply.ok_or(ExchangeError::Malformed)? {
        account_reply::Reply::Refused(refused) => Err(ExchangeError::Refused(Refusal::from_wire(&refused))),
        reply => Ok(reply),
    }
}

async fn answer_sync(driver: &Driver, buyer: PeerId, sync: v1::Sync) -> Result<account_reply::Reply, Refusal> {
    if sync.receipts.len() > MAX_SYNCED {
        return Err(Refusal::Malformed);
    }
    let signed = sync.receipts.into_iter().map(Signed::from_wire).collect::<Result<Vec<_>, _>>();
    // Here and not with the market, so that nobody waits for it while many signatures are checked.
    let receipts = signed.map_err(|_| Refusal::Malformed)?.into_iter();
    let receipts = receipts.filter_map(|signed| SignedReceipt::parse(signed, &buyer).ok()).collect();
    let synced = driver.commit(|market| {
        (market.handle_sync(now(), buyer, receipts), market.terms().min_topup_sat, market.tip_height())
    });
    let (mut synced, min_topup_sat, tip_height) = synced.await.map_err(|_| NOT_STORED)?;
    // Nobody is to remind us while the wallet can't look for what was paid.
    synced.restored = synced.restored.filter(|_| !driver.wallet().status().borrow().restoring);
    Ok(account_reply::Reply::Sync(wire_of(synced, min_topup_sat, tip_height)))
}

fn wire_of(synced: Synced, min_topup_sat: u64, tip_height: u64) -> v1::SyncReply {
    let acknowledged = |(quote, units): (QuoteId, u64)| v1::Acknowledged { quote_id: quote.0.to_vec().into(), units };
    v1::SyncReply {
        lines: synced.lines.into_iter().map(acknowledged).collect(),
        paid_msat: synced.tab.paid.msat(),
        spent_msat: synced.tab.spent.msat(),
        held_msat: synced.tab.held.msat(),
        allowance_msat: synced.allowance.msat(),
        min_topup_sat,
        tip_height,
        grant: synced.grant.map(|grant| grant.signed().to_wire()),
        payments: synced.payments.iter().map(Payment::to_wire).collect(),
        restored_ms: synced.restored.map_or(0, Timestamp::ms),
    }
}

async fn answer_topup(
    driver: &Driver,
    buyer: PeerId,
    request: &v1::TopUpRequest,
) -> Result<account_reply::Reply, Refusal> {
    let id = TopUpId::try_from(request.id.as_ref()).map_err(|_| Refusal::Malformed)?;
    let topup = driver.give_topup(buyer, id, request.amount_sat).await?;
    Ok(account_reply::Reply::Topup(topup.signed().to_wire()))
}

async fn take_sync(driver: &Driver, seller: PeerId, reply: v1::SyncReply) -> Result<SellersView, ExchangeError> {
    let view = SellersView::of(&reply);
    let told = Told::parse(reply)?;
    driver.commit(|market| told.tell(market, now(), seller)).await??;
    Ok(view)
}

impl SellersView {
    fn of(reply: &v1::SyncReply) -> Self {
        let (paid, spent) = (Msat::new(reply.paid_msat), Msat::new(reply.spent_msat));
        let (held, covered) = (Msat::new(reply.held_msat), paid.saturating_add(Msat::new(reply.allowance_msat)));
        Self {
            paid,
            spent,
            held,
            available: covered.saturating_sub(spent.saturating_add(held)),
            min_topup_sat: reply.min_topup_sat,
            tip_height: reply.tip_height,
            restored: reply.restored_ms > 0,
        }
    }
}

/// What a seller says of our account that may change it.
pub(crate) struct Told {
    lines: Vec<(QuoteId, u64)>,
    payments: Vec<Payment>,
    grant: Option<Signed>,
}

impl Told {
    /// # Errors
    /// [`ExchangeError::Malformed`] when a part of it can't be read.
    pub(crate) fn parse(reply: v1::SyncReply) -> Result<Self, ExchangeError> {
        let acknowledged =
            |line: &v1::Acknowledged| Some((QuoteId::try_from(line.quote_id.as_ref()).ok()?, line.units));
        let lines = reply.lines.iter().map(acknowledged).collect::<Option<Vec<_>>>();
        let payments = reply.payments.iter().map(Payment::from_wire).collect::<Option<Vec<_>>>();
        let grant = reply.grant.map(Signed::from_wire).transpose().map_err(|_| ExchangeError::Malformed)?;
        let (Some(lines), Some(payments)) = (lines, payments) else { return Err(ExchangeError::Malformed) };
        Ok(Self { lines, payments, grant })
    }

    /// # Errors
    /// [`SyncError`] when its word can't stand.
    pub(crate) fn tell(self, market: &mut Market, now: Timestamp, seller: PeerId) -> Result<(), SyncError> {
        market.handle_synced(now, seller, &self.lines, self.grant, &self.payments)
    }
}
