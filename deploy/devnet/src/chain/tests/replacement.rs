//! Full RBF: what a replacement must pay, and what it takes with it.

use super::*;

#[test]
fn a_replacement_pays_more_and_evicts_descendants() {
    let (chain, payer) = (Chain::new(b"rbf"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let first = payer.spend_with(from_ref(&coin), 1_000, |tx| tx.input[0].sequence = Sequence::MAX);
    let child = payer.spend(&owned(&first), 2_000);
    chain.submit(&first).unwrap();
    chain.submit(&child).unwrap();

    // Dearer than what it conflicts with, but not than all it would evict.
    let refused = chain.submit(&payer.spend(from_ref(&coin), 3_050)).unwrap_err();
    assert!(matches!(refused, SubmitError::InsufficientFee { .. }), "{refused}");
    assert!(refused.to_string().starts_with("insufficient fee, rejecting replacement"));

    let better = payer.spend(&[coin], 3_111);
    chain.submit(&better).unwrap();
    assert_eq!(chain.mempool(), [better.compute_txid()]);
    assert_eq!(chain.tx(&first.compute_txid()), None);
    assert_eq!(chain.tx(&child.compute_txid()), None);
}

#[test]
fn a_replacement_needs_the_better_rate_too() {
    let (chain, payer) = (Chain::new(b"rate"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let others: Vec<_> = (0..5).map(|_| payer.coin(&chain, 100_000)).collect();
    chain.submit(&payer.spend(from_ref(&coin), 1_100)).unwrap();
    // Six inputs: 3,000 sat is more fee, but less per byte.
    let large = payer.spend(&[vec![coin], others].concat(), 3_000);
    let refused = chain.submit(&large).unwrap_err();
    let SubmitError::InsufficientRate { fee, least } = refused else { panic!("{refused}") };
    assert_eq!(fee, Amount::from_sat(3_000));
    assert!(least > Amount::from_sat(3_000) && least < Amount::from_sat(6_000), "{least}");
}

#[test]
fn a_replacement_cannot_spend_what_it_replaces() {
    let (chain, payer) = (Chain::new(b"itself"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let first = payer.spend(from_ref(&coin), 1_000);
    chain.submit(&first).unwrap();
    let odd = payer.spend(&[coin, owned(&first).remove(0)], 50_000);
    assert_eq!(chain.submit(&odd), Err(SubmitError::SpendsConflicting(first.compute_txid())));
}

#[test]
fn a_replacement_evicts_100_at_most() {
    let (chain, payer) = (Chain::new(b"hundred"), Payer::new(1));
    let coins: Vec<_> = (0..101).map(|_| payer.coin(&chain, 10_000)).collect();
    for coin in &coins {
        chain.submit(&payer.spend(from_ref(coin), 200)).unwrap();
    }
    let all = payer.spend(&coins, 200_000);
    assert_eq!(chain.submit(&all), Err(SubmitError::TooManyReplacements(101)));
    chain.submit(&payer.spend(&coins[1..], 200_000)).unwrap();
    assert_eq!(chain.mempool().len(), 2);
}
