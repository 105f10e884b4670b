//! What the fuzz targets reach of this crate's inside; the product uses none of it.

use std::path::Path;

use libp2p_identity::PeerId;
use pedlar_proto::v1::{self, account_reply};
use pedlar_protocol::account::Entry;
use pedlar_protocol::content::Root;
use pedlar_protocol::market::Market;
use pedlar_protocol::time::Timestamp;
use prost::Message;
use rusqlite::Connection;

use crate::accounts::Told;
use crate::cmd::Request;
use crate::evidence::{FileError, check};
use crate::shop::load;
use crate::store::Journal;

/// A request as it comes over the local socket, written again; nothing where it is none.
#[must_use]
pub fn request(line: &[u8]) -> Option<String> {
    let request: Request = serde_json::from_slice(line).ok()?;
    serde_json::to_string(&request).ok()
}

/// Takes in a seller's reply on the account stream; false when it means nothing, or its word can't stand.
pub fn account_reply(market: &mut Market, now: Timestamp, seller: PeerId, reply: &[u8]) -> bool {
    let reply = v1::AccountReply::decode(reply).ok().and_then(|reply| reply.reply);
    let Some(account_reply::Reply::Sync(reply)) = reply else { return false };
    Told::parse(reply).is_ok_and(|told| told.tell(market, now, seller).is_ok())
}

/// Reads a file of evidence; between how many pairs of nodes it proves anything, nothing where it is refused.
#[must_use]
pub fn evidence(mut file: &[u8]) -> Option<usize> {
    let read = check(&mut file, |_| Ok::<(), FileError>(()));
    read.ok().map(|evidence| evidence.proven().count())
}

/// What a journal's file holds: its entries, and the roots of what is for sale; the reason where it can't be read.
///
/// # Errors
/// As a person is told.
pub fn journal(path: &Path, me: &PeerId) -> Result<(Vec<Entry>, Vec<Root>), String> {
    let (_, entries) = Journal::open(path, me).map_err(|e| e.to_string())?;
    let goods = Connection::open(path).and_then(|db| load(&db)).map_err(|e| e.to_string())?;
    Ok((entries, goods.into_iter().map(|shelved| shelved.blob.root).collect()))
}
