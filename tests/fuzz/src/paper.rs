//! What two peers sign about money, and the rows that keep it.

use pedlar_protocol::account::{Change, Direction, Entry, Line};
use pedlar_protocol::credit::SignedGrant;
use pedlar_protocol::id::{QuoteId, TopUpId};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::offer::Service;
use pedlar_protocol::session::quote::{Quote, SignedQuote, SignedReceipt};
use pedlar_protocol::settlement::{SignedTopUp, TopUp};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::peer_id;

use crate::signer::{grown, key, network};

/// Quotes, receipts, top-ups and grants, signed well: what is understood is signed again to the same meaning.
pub fn paper(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let (seller, buyer) = (peer_id(key(0)), peer_id(key(1)));
    match kind % 4 {
        0 => {
            if let Ok(quote) = SignedQuote::parse(grown(good_quote().signed(), "pedlar quote v1", data)) {
                assert_eq!(SignedQuote::sign(quote.quote().clone(), key(0)).quote(), quote.quote());
                assert!(quote.charge(quote.quote().size) < Msat::MAX);
            }
        }
        1 => {
            let good = SignedReceipt::sign(QuoteId([7; 32]), 1, key(0));
            let _ = SignedReceipt::parse(grown(good.signed(), "pedlar receipt v1", data), &seller);
        }
        2 => {
            let good = SignedTopUp::sign(good_topup(), key(0));
            if let Ok(topup) = SignedTopUp::parse(grown(good.signed(), "pedlar topup v1", data)) {
                assert_eq!(SignedTopUp::sign(topup.topup().clone(), key(0)).topup(), topup.topup());
            }
        }
        _ => {
            let good = SignedGrant::sign(&buyer, Msat::new(1), key(0));
            let _ = SignedGrant::parse(grown(good.signed(), "pedlar grant v1", data), &buyer, &seller);
        }
    }
}

/// Files of evidence: a good one with whatever comes after it, and whatever comes instead of it.
pub fn evidence(data: &[u8]) {
    let heading = br#"{"type":"evidence","version":1,"node":"a","peer":"b","tip_height":1}"#;
    for file in [data.to_vec(), [heading, b"\n".as_slice(), data].concat()] {
        // What is proven of signed papers alone, none of which stands here, is nothing.
        assert_eq!(pedlar_node::fuzzing::evidence(&file).unwrap_or(0), 0);
    }
}

/// Rows of the journal, from a damaged or a newer file: what is understood is written and read again alike.
pub fn entry(data: &[u8]) {
    let (seller, buyer) = (peer_id(key(0)), peer_id(key(1)));
    let change = Change::Line(Line::new(Direction::Sold, good_quote(), Timestamp::EPOCH));
    let good = Entry { peer: buyer, direction: Direction::Sold, change };
    // Without its check, which ends the row: else nothing that follows would be looked at.
    let good = good.encode();
    let unchecked = &good[..good.len() - 10];
    for bytes in [data.to_vec(), [unchecked, data].concat()] {
        if let Ok(entry) = Entry::decode(&bytes, &seller) {
            assert_eq!(Entry::decode(&entry.encode(), &seller), Ok(entry));
        }
    }
}

pub(crate) fn good_quote() -> SignedQuote {
    let quote = Quote {
        network: network(),
        buyer: peer_id(key(1)),
        seller: peer_id(key(0)),
        number: 1,
        offer_seq: 0,
        service: Service::Chunks,
        object: [7; 32],
        collection: None,
        whole: None,
        size: 1 << 20,
        price: Price::per_gib(10_000),
        expires: Timestamp::EPOCH,
    };
    SignedQuote::sign(quote, key(0))
}

pub(crate) fn good_topup() -> TopUp {
    TopUp {
        id: TopUpId([7; 32]),
        network: network(),
        buyer: peer_id(key(1)),
        seller: peer_id(key(0)),
        address: "bcrt1qexample".to_owned(),
        min_sat: 1_000,
        ceilings: [(Service::Chunks, Price::per_gib(10_000))].into(),
        until_height: 1,
    }
}
