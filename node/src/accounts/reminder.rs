//! After a restore: a buyer asks each seller what it has forgotten, and reminds sellers that say they were restored.
//!
//! A page a stream, as all of this protocol; who turns out not to understand it is left as it is.

use std::time::Duration;

use libp2p_identity::PeerId;
use pedlar_net::{Multiaddr, NetHandle};
use pedlar_proto::v1::{self, account_reply, account_request};
use pedlar_protocol::account::{Direction, Reminded, Reminder};
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::market::Claim;
use pedlar_protocol::refusal::Refusal;
use tokio::time::timeout;

use super::{ExchangeError, SellersView, exchange, take_sync};
use crate::driver::{Driver, NOT_STORED, now};

/// Pages of one account: with 16 lines each some hundred are there; a peer that has more is a liar.
const MAX_PAGES: usize = 256;

/// How often a seller is reminded anew because it counts more than before: what paid for a line may come after it.
const ROUNDS: usize = 3;

/// How long a seller waits for its wallet to see what it has just looked for, before it says how its books stand.
const WALLET_LOOKS: Duration = Duration::from_secs(4);

/// Asks a seller for all that we have forgotten, page by page.
///
/// # Errors
/// [`ExchangeError`]; what came before stays, and the seller is asked again.
pub(super) async fn recall(
    driver: &Driver,
    net: &NetHandle,
    seller: PeerId,
    addrs: &[Multiaddr],
) -> Result<(), ExchangeError> {
    let (me, mut from) = (driver.read(|market| market.me()), Reminded::default());
    for _ in 0..MAX_PAGES {
        let above_topup = from.topup.map(|id| id.0.to_vec().into()).unwrap_or_default();
        let request = account_request::Request::Recall(v1::Recall { above_number: from.number, above_topup });
        let wire = match exchange(net, seller, addrs.to_vec(), request).await {
            Ok(account_reply::Reply::Reminder(wire)) => wire,
            // It knows no such question.
            Err(ExchangeError::Refused(Refusal::Malformed)) => break,
            Ok(_) => return Err(ExchangeError::Malformed),
            Err(error) => return Err(error),
        };
        let page = Reminder::from_wire(wire, &me, &seller).map_err(|_| ExchangeError::Malformed)?;
        let reached = driver.commit(|market| market.handle_reminder(now(), seller, from, &page)).await?;
        match reached.map_err(|_| ExchangeError::Malformed)? {
            Some(reached) => from = reached,
            None => break,
        }
    }
    driver.update(|market| market.handle_recalled(seller));
    Ok(())
}

/// Reminds a seller, which counts what `view` says, of all that we have, page by page; how its books stand then.
///
/// # Errors
/// [`ExchangeError`]; the seller is reminded again.
pub(super) async fn remind(
    driver: &Driver,
    net: &NetHandle,
    seller: PeerId,
    addrs: &[Multiaddr],
    mut view: SellersView,
) -> Result<SellersView, ExchangeError> {
    for _ in 0..ROUNDS {
        let counts = view.counts();
        if !driver.read(|market| market.reminds(&seller, counts)) {
            break;
        }
        let mut from = Reminded::default();
        for _ in 0..MAX_PAGES {
            let page = driver.read(|market| market.reminder(&seller, Direction::Bought, from));
            driver.stored().await?;
            let request = account_request::Request::Reminder(page.to_wire());
            let account_reply::Reply::Sync(reply) = exchange(net, seller, addrs.to_vec(), request).await? else {
                return Err(ExchangeError::Malformed);
            };
            view = take_sync(driver, seller, reply).await?;
            if page.is_empty() {
                break;
            }
            from = page.reaches(from).map_err(|_| ExchangeError::Malformed)?;
        }
        driver.update(|market| market.handle_reminded(seller, counts));
    }
    Ok(view)
}

/// Answers a buyer that has forgotten; what it has signed is its own.
pub(super) async fn answer_recall(
    driver: &Driver,
    buyer: PeerId,
    recall: &v1::Recall,
) -> Result<account_reply::Reply, Refusal> {
    let topup = match recall.above_topup.as_ref() {
        [] => None,
        id => Some(TopUpId::try_from(id).map_err(|_| Refusal::Malformed)?),
    };
    let from = Reminded { number: recall.above_number, topup };
    let page = driver.read(|market| market.reminder(&buyer, Direction::Sold, from));
    driver.stored().await.map_err(|_| NOT_STORED)?;
    Ok(account_reply::Reply::Reminder(page.to_wire()))
}

/// Takes in what a buyer reminds us of.
pub(super) async fn take_reminder(driver: &Driver, buyer: PeerId, wire: v1::Reminder) -> Result<(), Refusal> {
    if driver.read(|market| market.restored()).is_none() {
        return Ok(());
    }
    // Here and not with the market, so that nobody waits for it while many signatures are checked.
    let me = driver.read(|market| market.me());
    let page = Reminder::from_wire(wire, &buyer, &me).map_err(|_| Refusal::Malformed)?;
    let claims = driver.commit(|market| market.handle_buyers_reminder(now(), buyer, &page)).await;
    let mut sought = Vec::new();
    for claim in claims.map_err(|_| NOT_STORED)? {
        let id = claim.word.topup().id;
        if give_back(driver, claim).await? {
            sought.push(id);
        }
    }
    let seen = async {
        let mut money = driver.money();
        let unseen = |id: &TopUpId| {
            driver.read(|market| market.account(&buyer, Direction::Sold).is_none_or(|account| !account.is_paid(id)))
        };
        while sought.iter().any(unseen) && money.changed().await.is_ok() {}
    };
    // If not, the next exchange tells.
    let _ = timeout(WALLET_LOOKS, seen).await;
    Ok(())
}

/// Gives an address back to the buyer that has our word for it, where the wallet can; whether it does.
async fn give_back(driver: &Driver, claim: Claim) -> Result<bool, Refusal> {
    let Ok(address) = driver.network().parse_address(&claim.address) else { return Ok(false) };
    let height = u32::try_from(claim.height).unwrap_or(u32::MAX);
    let payee = pedlar_wallet::PayeeRef(claim.payee.0);
    let can = driver.wallet().can_claim(payee, address.clone(), height).await.map_err(|_| NOT_STORED)?;
    if !can {
        return Ok(false);
    }
    // Stored first: else the wallet would tell of a payment for nobody.
    driver.commit(|market| market.handle_claimable(now(), claim)).await.map_err(|_| NOT_STORED)?;
    driver.wallet().claim_address(payee, address, height).await.map_err(|_| NOT_STORED)
}
