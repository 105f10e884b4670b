//! What a node can show of an account.

use bitcoin::Txid;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use pedlar_net::PeerId;
use pedlar_protocol::account::{Account, Direction, Payment};
use pedlar_protocol::market::Market;
use pedlar_protocol::money::Msat;
use pedlar_wallet::ReadError;

use super::{Paper, Record, VERSION};
use crate::driver::Driver;

/// All papers of both accounts with `peer`; nothing where there is no account.
///
/// # Errors
/// When the wallet's file can't be read.
pub(crate) async fn gather(driver: &Driver, peer: &PeerId) -> Result<Option<Vec<Record>>, ReadError> {
    let Some((mut records, payments)) = driver.read(|market| papers(market, peer)) else {
        return Ok(None);
    };
    for payment in payments {
        let found = driver.wallet().transaction(Txid::from_byte_array(payment.outpoint.txid)).await?;
        records.push(match found {
            Some(transaction) => Record::Payment {
                topup: payment.topup.0.to_lower_hex_string(),
                transaction: serialize_hex(&transaction),
                vout: payment.outpoint.vout,
                height: payment.height,
            },
            None => unproven(format!("a payment by another wallet, {}", payment.outpoint), payment.amount()),
        });
    }
    Ok(Some(records))
}

fn papers(market: &Market, peer: &PeerId) -> Option<(Vec<Record>, Vec<Payment>)> {
    let sides = [Direction::Sold, Direction::Bought];
    let accounts: Vec<(Direction, &Account)> =
        sides.into_iter().filter_map(|side| Some((side, market.account(peer, side)?))).collect();
    if accounts.is_empty() {
        return None;
    }
    let (node, peer_id) = (market.me().to_string(), peer.to_string());
    let mut records = vec![Record::Evidence {
        version: VERSION,
        node: node.clone(),
        peer: peer_id.clone(),
        tip_height: market.tip_height(),
    }];
    let mut payments = Vec::new();
    for (side, account) in accounts {
        let (seller, buyer) = match side {
            Direction::Sold => (&node, &peer_id),
            Direction::Bought => (&peer_id, &node),
        };
        records.extend(account.lines().map(|line| Record::Sale {
            quote: Paper::of(line.quote().signed()),
            receipt: line.receipt().map(|receipt| Paper::of(receipt.signed())),
        }));
        if account.folded().quotes > 0 {
            let what = format!("{} older quotes of {seller}, whose papers are gone", account.folded().quotes);
            records.push(unproven(what, account.folded().spent));
        }
        let words = account.topups().filter_map(|line| line.topup.as_ref());
        records.extend(words.map(|topup| Record::Topup { topup: Paper::of(topup.signed()) }));
        records.extend(account.history().grant.as_ref().map(|(grant, _)| Record::Grant {
            grant: Paper::of(grant.signed()),
            seller: seller.clone(),
            buyer: buyer.clone(),
        }));
        payments.extend(account.payments().filter(|payment| payment.depth > 0).cloned());
    }
    Some((records, payments))
}

fn unproven(what: String, amount: Msat) -> Record {
    Record::Unproven { what, msat: amount.msat() }
}
