use std::collections::BTreeMap;

use bytes::Bytes;
use libp2p_identity::ed25519::{Keypair, SecretKey};
use proptest::prelude::*;

use super::*;
use crate::money::Price;
use crate::offer::Service;
use crate::session::quote::Quote;
use crate::settlement::TopUp;
use crate::time::Timestamp;
use crate::wire::peer_id;

fn key(n: u8) -> Keypair {
    Keypair::from(SecretKey::try_from_bytes([n; 32]).unwrap())
}

fn quote(number: u64) -> SignedQuote {
    let quote = Quote {
        network: "signet".parse().unwrap(),
        buyer: peer_id(&key(2)),
        seller: peer_id(&key(1)),
        number,
        offer_seq: 0,
        service: Service::Chunks,
        object: [7; 32],
        collection: None,
        whole: None,
        size: 1 << 30,
        price: Price::per_gib(10_000),
        expires: Timestamp::EPOCH,
    };
    SignedQuote::sign(quote, &key(1))
}

fn topup() -> SignedTopUp {
    let topup = TopUp {
        id: TopUpId([9; 32]),
        network: "signet".parse().unwrap(),
        buyer: peer_id(&key(2)),
        seller: peer_id(&key(1)),
        address: "tb1qexample".to_owned(),
        min_sat: 1_000,
        ceilings: BTreeMap::from([(Service::Chunks, Price::per_gib(10_000))]),
        until_height: 1,
    };
    SignedTopUp::sign(topup, &key(1))
}

fn receipt(quote: &SignedQuote, units: u64, signer: u8) -> Signed {
    SignedReceipt::sign(quote.id(), units, &key(signer)).signed().clone()
}

const OUTPUT: OutPoint = OutPoint { txid: [3; 32], vout: 1 };

#[test]
fn what_is_signed_and_paid_is_proven_once() {
    let mut evidence = Evidence::default();
    let (one, two) = (quote(1), quote(2));
    let sale = evidence.take_sale(one.signed().clone(), Some(receipt(&one, 1 << 29, 2))).unwrap();
    assert_eq!((sale.units, sale.charged), (1 << 29, Msat::new(5_000)));
    assert_eq!(evidence.take_sale(two.signed().clone(), None).unwrap().charged, Msat::ZERO);
    let id = topup().topup().id;
    assert_eq!(evidence.take_payment(&id, OUTPUT, 5), Err(EvidenceError::NoTopUp(id)));
    evidence.take_topup(topup().signed().clone()).unwrap();
    assert_eq!(evidence.take_payment(&id, OUTPUT, 5), Ok(Msat::new(5_000)));
    let grant = SignedGrant::sign(&peer_id(&key(2)), Msat::new(7), &key(1)).signed().clone();
    let (seller, buyer) = (peer_id(&key(1)), peer_id(&key(2)));
    assert_eq!(evidence.take_grant(grant.clone(), seller, buyer), Ok(Msat::new(7)));

    let before: Vec<_> = evidence.proven().map(|(seller, buyer, proven)| (*seller, *buyer, *proven)).collect();
    let proven = Proven { charged: Msat::new(5_000), paid: Msat::new(5_000), granted: Msat::new(7) };
    assert_eq!(before, [(seller, buyer, proven)]);
    let twice = [
        evidence.take_sale(one.signed().clone(), Some(receipt(&one, 1 << 30, 2))).map(drop),
        evidence.take_topup(topup().signed().clone()).map(drop),
        evidence.take_payment(&id, OUTPUT, 5).map(drop),
        evidence.take_grant(grant, seller, buyer).map(drop),
    ];
    assert!(twice.iter().all(|taken| matches!(taken, Err(EvidenceError::Twice(_)))), "{twice:?}");
    let after: Vec<_> = evidence.proven().map(|(seller, buyer, proven)| (*seller, *buyer, *proven)).collect();
    assert_eq!(before, after, "what proves nothing changes nothing");
}

#[test]
fn nobody_signs_for_somebody_else() {
    let mut evidence = Evidence::default();
    let (one, two) = (quote(1), quote(2));
    let taken = evidence.take_sale(one.signed().clone(), Some(receipt(&one, 1, 1)));
    assert!(matches!(taken, Err(EvidenceError::Receipt(_))), "{taken:?}");
    let taken = evidence.take_sale(one.signed().clone(), Some(receipt(&two, 1, 2)));
    assert!(matches!(taken, Err(EvidenceError::OtherQuote { .. })), "{taken:?}");
    let (seller, buyer) = (peer_id(&key(1)), peer_id(&key(2)));
    let own = SignedGrant::sign(&buyer, Msat::new(7), &key(2)).signed().clone();
    assert!(matches!(evidence.take_grant(own, seller, buyer), Err(EvidenceError::Grant(_))));
    assert_eq!(evidence.proven().count(), 0);
}

proptest! {
    /// Any flipped bit of any paper is found.
    #[test]
    fn a_changed_paper_proves_nothing(which in 0_usize..4, bit in any::<prop::sample::Index>()) {
        let quote = quote(1);
        let receipt = receipt(&quote, 1 << 20, 2);
        let grant = SignedGrant::sign(&peer_id(&key(2)), Msat::new(7), &key(1)).signed().clone();
        let papers = [quote.signed().clone(), receipt.clone(), topup().signed().clone(), grant];
        let mut bytes = papers[which].encode().to_vec();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut evidence = Evidence::default();
        // What can't even be decoded is found too.
        if let Ok(changed) = Signed::decode(&Bytes::from(bytes), usize::MAX) {
            let taken = match which {
                0 => evidence.take_sale(changed, Some(receipt)).map(drop),
                1 => evidence.take_sale(quote.signed().clone(), Some(changed)).map(drop),
                2 => evidence.take_topup(changed).map(drop),
                _ => evidence.take_grant(changed, peer_id(&key(1)), peer_id(&key(2))).map(drop),
            };
            prop_assert!(taken.is_err());
        }
        prop_assert_eq!(evidence.proven().count(), 0);
    }
}
