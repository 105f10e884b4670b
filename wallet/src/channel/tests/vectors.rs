//! Transactions that Bitcoin's consensus code accepts, and those that it refuses.

use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{Witness, absolute, ecdsa, transaction};

use super::*;
use crate::channel::settle::sighash_all;

fn split(paid_sat: u64, fee_from: Role) -> Split {
    let seller_spk = (paid_sat > 0).then(|| p2wpkh(200));
    Split { paid_sat, fee_sat: 300, fee_from, seller_spk }
}

#[test]
fn every_honest_end_is_valid_and_as_small_as_it_is_said_to_be() {
    for (count, vbytes) in [(1, 170), (2, 151), (10, 132), (50, 129)] {
        let pairs: Vec<_> = (0..count).map(Pair::new).collect();
        let tx = close(&pairs, 20_000, 5_000, &[]);
        assert!(is_valid(&tx, &pairs, &[]), "{count} channels");
        let each = tx.vsize().div_ceil(usize::from(count));
        println!("close of {count}: {each} vB each");
        assert!(each.abs_diff(vbytes) <= 2, "{each} vB each of {count}");
        assert!(is_valid(&close(&pairs, 20_000, 15_000, &[]), &pairs, &[]), "and a dearer one by the same vouchers");
        let coins = [coin(40_000)];
        assert!(is_valid(&close(&pairs, 20_000, 30_000, &coins), &pairs, &coins), "and one with a coin for the fee");
    }
    let pairs = [Pair::new(1)];
    for (tx, vbytes) in [
        (pairs[0].settlement(&split(20_000, Role::Buyer)), 170),
        (pairs[0].settlement(&split(20_000, Role::Seller)), 170),
        (pairs[0].settlement(&split(0, Role::Buyer)), 139),
        (pairs[0].refund(300), 121),
    ] {
        assert!(is_valid(&tx, &pairs, &[]));
        println!("settlement or refund with {} outputs: {} vB", tx.output.len(), tx.vsize());
        assert!(tx.vsize().abs_diff(vbytes) <= 1, "{} vB", tx.vsize());
    }
}

#[test]
fn what_a_close_weighs_is_known_before_it_is_signed() {
    let pairs: Vec<_> = (0..3).map(Pair::new).collect();
    let coins = [coin(40_000)];
    let parts = pairs.iter().map(|pair| (pair.funded.clone(), pair.voucher(20_000))).collect();
    let most = Close { parts, coins: coins.to_vec(), spk: p2wpkh(200) }.most_weight();
    let real = close(&pairs, 20_000, 5_000, &coins).weight();
    assert!(real <= most && (most - real).to_wu() <= 20, "{real} of {most}");
}

#[test]
fn a_close_that_takes_anything_from_a_buyer_is_refused() {
    let pairs: Vec<_> = (0..10).map(Pair::new).collect();
    let parts = pairs.iter().map(|pair| (pair.funded.clone(), pair.voucher(20_000))).collect();
    let close = Close { parts, coins: Vec::new(), spk: p2wpkh(200) };
    let honest = close.unsigned(190_000);
    let refused = |what, spoil: &dyn Fn(&mut Transaction)| {
        let mut tx = honest.clone();
        spoil(&mut tx);
        // The seller signs whatever it likes: it is the buyers' signatures that don't hold.
        assert!(!is_valid(&sign_close(&pairs, &close, tx), &pairs, &[]), "{what}");
    };
    assert!(is_valid(&sign_close(&pairs, &close, honest.clone()), &pairs, &[]));
    refused("a sat less for one buyer", &|tx| tx.output[4].value -= Amount::ONE_SAT);
    refused("a sat more, too", &|tx| tx.output[4].value += Amount::ONE_SAT);
    refused("two outputs change places", &|tx| tx.output.swap(2, 3));
    refused("an output is dropped", &|tx| drop(tx.output.remove(9)));
    refused("the seller's own output comes first", &|tx| tx.output.rotate_right(1));
    refused("all outputs are dropped but one", &|tx| tx.output.truncate(1));
    refused("another lock time", &|tx| tx.lock_time = absolute::LockTime::from_consensus(1));
    refused("another version", &|tx| tx.version = transaction::Version::ONE);
    refused("another sequence", &|tx| tx.input[0].sequence = bitcoin::Sequence::MAX);
}

#[test]
fn a_refund_before_its_time_or_by_another_is_refused() {
    let pairs = [Pair::new(1)];
    let pair = &pairs[0];
    let mut early = pair.funded.refund(300).unwrap();
    early.lock_time = absolute::LockTime::from_consensus(EXPIRY - 1);
    assert!(!is_valid(&pair.sign_refund(early.clone()), &pairs, &[]), "a block too early");
    early.lock_time = absolute::LockTime::from_consensus(EXPIRY);
    assert!(is_valid(&pair.sign_refund(early.clone()), &pairs, &[]));
    early.input[0].sequence = bitcoin::Sequence::MAX;
    assert!(!is_valid(&pair.sign_refund(early), &pairs, &[]), "with a lock time that does not count");
    let tx = pair.funded.refund(300).unwrap();
    let seller = pair.funded.sign_all(&tx, &pair.seller, &pair.secp).unwrap();
    assert!(!is_valid(&pair.funded.refunded(tx, &seller).unwrap(), &pairs, &[]), "the seller has no refund");
}

#[test]
fn neither_side_alone_spends_a_channel_by_agreement() {
    let pairs = [Pair::new(1)];
    let pair = &pairs[0];
    let tx = pair.funded.settlement(&split(20_000, Role::Buyer)).unwrap();
    for key in [&pair.buyer, &pair.seller] {
        let sig = pair.funded.sign_all(&tx, key, &pair.secp).unwrap();
        assert!(!is_valid(&pair.funded.settled(tx.clone(), &sig, &sig).unwrap(), &pairs, &[]));
    }
    let mut shaved = pair.settlement(&split(20_000, Role::Buyer));
    shaved.output[1].value += Amount::ONE_SAT;
    assert!(!is_valid(&shaved, &pairs, &[]), "a sat more than both agreed on");
    // A signature under a settlement is no voucher, and a voucher none under a settlement.
    let voucher = pair.voucher(20_000);
    let mut tx = pair.funded.settlement(&split(30_000, Role::Seller)).unwrap();
    let seller = sighash_all(&pair.funded.sign_all(&tx, &pair.seller, &pair.secp).unwrap()).unwrap();
    let signature = bitcoin::secp256k1::ecdsa::Signature::from_compact(&voucher.sig).unwrap();
    for sighash_type in [EcdsaSighashType::All, EcdsaSighashType::SinglePlusAnyoneCanPay] {
        let witness: Witness = pair.funded.witness(Some(seller), ecdsa::Signature { signature, sighash_type });
        tx.input[0].witness = witness;
        assert!(!is_valid(&tx, &pairs, &[]), "{sighash_type}");
    }
}

/// A seller checks one with each window, and every microsecond of it is paid by nobody.
#[test]
#[ignore = "a measurement: cargo test --release, on a quiet machine"]
fn a_voucher_takes_hardly_longer_than_its_signature() {
    const COUNT: u64 = 20_000;
    let pair = Pair::new(1);
    let vouchers: Vec<_> = (1..=COUNT).map(|cum_sat| pair.voucher(cum_sat)).collect();
    let bare: Vec<_> = vouchers
        .iter()
        .map(|voucher| {
            let template = Close { parts: vec![(pair.funded.clone(), *voucher)], coins: Vec::new(), spk: p2wpkh(0) };
            let kind = EcdsaSighashType::SinglePlusAnyoneCanPay;
            let message = pair.funded.message(&template.unsigned(0), 0, kind).unwrap();
            (message, bitcoin::secp256k1::ecdsa::Signature::from_compact(&voucher.sig).unwrap())
        })
        .collect();
    let key = pair.buyer.public_key(&pair.secp);
    let rate = |verify: &dyn Fn()| {
        let begun = std::time::Instant::now();
        verify();
        COUNT as f64 / begun.elapsed().as_secs_f64()
    };
    let alone = rate(&|| bare.iter().for_each(|(message, sig)| pair.secp.verify_ecdsa(message, sig, &key).unwrap()));
    let whole = rate(&|| vouchers.iter().for_each(|voucher| pair.funded.verify(voucher).unwrap()));
    println!("vouchers: {whole:.0}/s, bare signatures: {alone:.0}/s, ratio {:.2}", whole / alone);
    assert!(whole / alone >= 0.6);
}
