//! Keys, fundings and vouchers of two wallets.

use std::collections::HashSet;

use bitcoin::consensus::encode::deserialize;

use super::two::*;
use super::*;
use crate::payments::{Fee, PayError};
use crate::tests::Feed;

#[test]
fn a_key_is_the_same_each_time_and_no_other_channels() {
    let mut feed = Feed::new();
    let first = feed.state.channel_key(id(1), Role::Buyer).unwrap();
    let second = feed.state.channel_key(id(2), Role::Buyer).unwrap();
    let sold = feed.state.channel_key(id(3), Role::Seller).unwrap();
    assert_eq!(sold.change_spk, None);
    let keys: HashSet<_> = [&first, &second, &sold].iter().map(|key| key.public_key).collect();
    assert_eq!(keys.len(), 3);
    assert_ne!(first.change_spk, second.change_spk);
    assert!(matches!(feed.state.channel_key(id(1), Role::Seller), Err(ChannelError::OtherRole)));
    let mut feed = feed.reopen();
    assert_eq!(feed.state.channel_key(id(1), Role::Buyer).unwrap(), first);
    feed.state.forget_channel(id(3)).unwrap();
    let after = feed.state.channel_key(id(4), Role::Seller).unwrap();
    assert_ne!(after, sold, "a key is never allotted again");
    let wanted = bitcoin::secp256k1::Secp256k1::new();
    let path: bitcoin::bip32::DerivationPath = "m/1001'/1'/0'/1'".parse().unwrap();
    let master = feed.state.keys.master(bitcoin::Network::Regtest).unwrap();
    let derived = master.derive_priv(&wanted, &path).unwrap().private_key.public_key(&wanted);
    assert_eq!(second.public_key.inner, derived);
}

#[test]
fn a_channel_is_funded_once_and_with_coins_of_its_own() {
    let mut two = Two::new();
    let terms = two.terms(1);
    let now_ms = two.buyer.now_ms();
    let dear = two.buyer.state.fund_channel(id(1), &terms, &Fee { max_sat: 10, ..FEE }, now_ms);
    assert!(matches!(dear, Err(FundError::Pay(PayError::FeeAboveLimit { .. }))), "{dear:?}");
    let other = Terms { capacity_sat: 20_000, ..terms.clone() };
    let funding = two.buyer.state.fund_channel(id(1), &other, &FEE, now_ms).unwrap();
    let tx: Transaction = deserialize(&funding.raw).unwrap();
    assert_eq!(tx.output[funding.outpoint.vout as usize].script_pubkey, other.funding_spk().unwrap());
    assert!(tx.vsize().abs_diff(153) <= 1, "{} vB", tx.vsize());
    // After a crash before it was sent.
    two.buyer = two.buyer.reopen();
    assert!(is_live(&two.buyer, &tx));
    assert_eq!(two.buyer.state.fund_channel(id(1), &other, &FEE, now_ms).unwrap(), funding);
    let changed = two.buyer.state.fund_channel(id(1), &terms, &FEE, now_ms);
    assert!(matches!(changed, Err(FundError::Channel(ChannelError::OtherTerms))));
    assert_eq!(two.buyer.state.reserved_sat().unwrap(), 20_000 + funding.fee_sat);
    assert!(matches!(
        two.buyer.state.bump(tx.compute_txid(), None, &FEE, now_ms),
        Err(crate::payments::BumpError::Channel)
    ));
    let mut spent: HashSet<_> = tx.input.iter().map(|input| input.previous_output).collect();
    for number in 2..=3 {
        let next = two.open(number);
        assert!(next.input.iter().all(|input| spent.insert(input.previous_output)), "no coin is chosen twice");
    }
    assert_eq!(fact(&two.buyer, 1).state, TxState::Unconfirmed);
    let events = two.buyer.show(&[&tx]).changed;
    assert!(!events.contains(&crate::events::EventKey::Channel(id(1))), "nothing is new: {events:?}");
    two.mine(&[&tx]);
    assert!(matches!(fact(&two.buyer, 1).state, TxState::Confirmed { depth: 1, .. }));
    assert_eq!(two.buyer.state.channels_sat(), 20_000);
    assert_eq!(two.buyer.state.fund_channel(id(1), &other, &FEE, now_ms).unwrap(), funding, "still the same");
}

#[test]
fn only_our_key_and_address_and_an_output_as_agreed_will_do() {
    let mut two = Two::new();
    let terms = two.terms(1);
    let now_ms = two.buyer.now_ms();
    let mut fund = |terms: Terms| two.buyer.state.fund_channel(id(1), &terms, &FEE, now_ms);
    let foreign = Terms { buyer_pk: Pair::new(1).funded.terms().buyer_pk, ..terms.clone() };
    assert!(matches!(fund(foreign), Err(FundError::Channel(ChannelError::OtherKey))));
    let elsewhere = Terms { change_spk: p2wpkh(1), ..terms.clone() };
    assert!(matches!(fund(elsewhere), Err(FundError::Channel(ChannelError::OtherKey))));
    let funding = fund(terms.clone()).unwrap();
    let mut watch = |terms: &Terms, raw: &[u8], vout| two.seller.state.watch_channel(id(1), terms, raw, vout);
    let vout = funding.outpoint.vout;
    assert!(matches!(watch(&terms, &funding.raw[1..], vout), Err(WatchError::Unreadable)));
    assert!(matches!(watch(&terms, &[], vout), Err(WatchError::Unreadable)));
    assert!(matches!(watch(&terms, &funding.raw, 1 - vout), Err(WatchError::NotPaid)));
    assert!(matches!(watch(&terms, &funding.raw, u32::MAX), Err(WatchError::NotPaid)));
    let less = Terms { capacity_sat: CAPACITY - 1, ..terms.clone() };
    assert!(matches!(watch(&less, &funding.raw, vout), Err(WatchError::Amount { sat: CAPACITY, .. })));
    let longer = Terms { expiry_height: END + 1, ..terms.clone() };
    assert!(matches!(watch(&longer, &funding.raw, vout), Err(WatchError::NotPaid)));
    assert!(two.seller.state.channel_scripts().is_empty(), "nothing is looked at before");
    let mut watch = |terms: &Terms, raw: &[u8], vout| two.seller.state.watch_channel(id(1), terms, raw, vout);
    watch(&terms, &funding.raw, vout).unwrap();
    watch(&terms, &funding.raw, vout).unwrap();
    let longer = watch(&Terms { expiry_height: END + 1, ..terms.clone() }, &funding.raw, vout);
    assert!(matches!(longer, Err(WatchError::Channel(ChannelError::OtherTerms))));
}

#[test]
fn vouchers_only_rise_also_over_a_crash() {
    let mut two = Two::new();
    assert!(matches!(two.buyer.state.sign_voucher(id(1), 1), Err(SignError::Channel(ChannelError::Unknown))));
    let terms = two.terms(1);
    assert!(matches!(two.buyer.state.sign_voucher(id(1), 1), Err(SignError::Channel(ChannelError::Unfunded))));
    two.opened(1);
    let voucher = two.voucher(1, 10_000);
    let funded = two.seller.state.channel_row(id(1)).unwrap().unwrap().funded.unwrap();
    funded.verify(&voucher).unwrap();
    assert_eq!(two.buyer.state.channels_sat(), CAPACITY - 10_000);
    two.buyer = two.buyer.reopen();
    let lower = two.buyer.state.sign_voucher(id(1), 9_999);
    assert!(matches!(lower, Err(SignError::Lower { cum_sat: 9_999, signed_sat: 10_000 })), "{lower:?}");
    assert_eq!(two.voucher(1, 10_000), voucher);
    let all = two.buyer.state.sign_voucher(id(1), terms.most_sat() + 1);
    assert!(matches!(all, Err(SignError::Voucher(VoucherError::Amount { .. }))));
    two.voucher(1, terms.most_sat());
    // What can't be stored is not given away.
    let full = "CREATE TEMP TRIGGER full BEFORE UPDATE ON main.pedlar_channels BEGIN SELECT raise(FAIL, 'full'); END";
    two.opened(2);
    two.buyer.state.db.execute_batch(full).unwrap();
    assert!(matches!(two.buyer.state.sign_voucher(id(2), 5), Err(SignError::Channel(ChannelError::Store(_)))));
    two.buyer.state.db.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(two.buyer.state.channel_row(id(2)).unwrap().unwrap().signed_sat, 0);
}

#[test]
fn a_channel_that_a_restored_wallet_has_forgotten_is_taken_back() {
    let mut two = Two::new();
    let copy = two.buyer.copy();
    (1..=3).for_each(|number| drop(two.terms(number)));
    let funding = two.open(4);
    two.mine(&[&funding]);
    let voucher = two.voucher(4, 10_000);
    let row = two.seller.state.channel_row(id(4)).unwrap().unwrap();
    let (terms, vout) = (row.terms.unwrap(), row.funded.unwrap().outpoint().vout);
    let raw = bitcoin::consensus::serialize(&funding);

    two.buyer = two.buyer.back_from(copy);
    let adopt = |feed: &mut Feed, role, terms: &Terms, newest| {
        feed.state.adopt_channel(id(4), role, terms, (&raw, vout), newest)
    };
    let early = adopt(&mut two.buyer, Role::Buyer, &terms, Some(voucher));
    assert!(matches!(early, Err(AdoptError::Channel(ChannelError::Restoring))));
    two.buyer.state.end_search().unwrap();
    let forged = Voucher { cum_sat: 20_000, ..voucher };
    assert!(matches!(adopt(&mut two.buyer, Role::Buyer, &terms, Some(forged)), Err(AdoptError::Voucher(_))));
    let other = Terms { expiry_height: END + 1, ..terms.clone() };
    assert!(matches!(adopt(&mut two.buyer, Role::Buyer, &other, None), Err(AdoptError::Watch(WatchError::NotPaid))));
    for _ in 0..2 {
        assert!(adopt(&mut two.buyer, Role::Buyer, &terms, Some(voucher)).unwrap());
    }
    assert!(!adopt(&mut Feed::other(), Role::Buyer, &terms, None).unwrap(), "it is nobody else's");
    let lower = two.buyer.state.sign_voucher(id(4), 9_999);
    assert!(matches!(lower, Err(SignError::Lower { signed_sat: 10_000, .. })));
    assert_eq!(two.voucher(4, 10_000), voucher);
    let fresh = two.buyer.state.channel_key(id(5), Role::Buyer).unwrap();
    assert!(fresh.public_key != terms.buyer_pk && fresh.change_spk.as_ref() != Some(&terms.change_spk));
    two.buyer.mine(&[&funding]);
    assert!(matches!(fact(&two.buyer, 4).state, TxState::Confirmed { .. }));
    // The seller, from its words alone.
    let mut seller = Feed::other();
    assert!(adopt(&mut seller, Role::Seller, &terms, Some(voucher)).unwrap());
    let now_ms = seller.now_ms();
    seller.state.close_channels(&[(id(4), voucher)], &FEE, now_ms).unwrap();
}
