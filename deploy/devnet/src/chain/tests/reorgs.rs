//! Blocks that come off again, and blocks that confirm something else than what waited.

use super::*;

#[test]
fn a_reorg_puts_transactions_back() {
    let (chain, payer) = (Chain::new(b"back"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let paid = payer.spend(&[coin], 1_000);
    chain.submit(&paid).unwrap();
    chain.mine_to_self(1);
    let child = payer.spend(&owned(&paid), 1_000);
    chain.submit(&child).unwrap();
    let (height, old) = (chain.height(), chain.block_hash(chain.height()));

    chain.reorg(1).unwrap();
    assert_eq!(chain.height(), height + 1);
    assert_ne!(chain.block_hash(height), old);
    assert_eq!(chain.mempool(), [paid.compute_txid(), child.compute_txid()]);
    assert_eq!(chain.tx(&paid.compute_txid()).unwrap().height, None);

    chain.mine_to_self(1);
    assert_eq!(chain.tx(&child.compute_txid()).unwrap().height, Some(height + 2));
}

#[test]
fn a_reorg_with_a_double_spend_drops_the_payment_for_good() {
    let (chain, payer) = (Chain::new(b"double"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let (paid, cheat) = (payer.spend(from_ref(&coin), 1_000), payer.spend(&[coin], 0));
    chain.submit(&paid).unwrap();
    chain.mine_to_self(6);
    let height = chain.height();
    chain.reorg_with(6, from_ref(&cheat)).unwrap();
    assert_eq!(chain.height(), height + 1);
    assert_eq!(chain.tx(&paid.compute_txid()), None);
    assert_eq!(chain.tx(&cheat.compute_txid()).unwrap().height, Some(height - 5));
}

#[test]
fn a_chosen_block_beats_what_waits() {
    let (chain, payer) = (Chain::new(b"chosen"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let waiting = payer.spend(from_ref(&coin), 5_000);
    let child = payer.spend(&owned(&waiting), 1_000);
    chain.submit(&waiting).unwrap();
    chain.submit(&child).unwrap();
    let cheat = payer.spend(&[coin], 200);
    let follow_up = payer.spend(&owned(&cheat), 0);
    chain.mine_with(&[cheat, follow_up]).unwrap();
    assert_eq!(chain.mempool(), []);
    assert_eq!(chain.block(chain.height()).unwrap().txdata.len(), 3);
}

#[test]
fn a_refused_block_leaves_everything_as_it_was() {
    let (chain, payer) = (Chain::new(b"refused"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let mined = payer.spend(from_ref(&coin), 1_000);
    chain.submit(&mined).unwrap();
    chain.mine_to_self(2);
    let waiting = payer.spend(&owned(&mined), 1_000);
    chain.submit(&waiting).unwrap();
    let before = (chain.tip(), chain.mempool());

    let mut forged = payer.spend(from_ref(&coin), 2_000);
    forged.output[0].value -= Amount::from_sat(1);
    let refused = chain.reorg_with(2, &[forged]).unwrap_err();
    assert_eq!(refused, ReorgError::Refused(SubmitError::Script(0)));
    let twice = [payer.spend(from_ref(&coin), 1_000), payer.spend(from_ref(&coin), 2_000)];
    let refused = chain.reorg_with(2, &twice).unwrap_err();
    assert_eq!(refused, ReorgError::Refused(SubmitError::MissingInput(coin.0)));

    assert_eq!((chain.tip(), chain.mempool()), before);
    assert_eq!(chain.tx(&mined.compute_txid()).unwrap().height, Some(chain.height() - 1));
    chain.mine_to_self(1);
    assert_eq!(chain.tx(&waiting.compute_txid()).unwrap().height, Some(chain.height()));
}

#[test]
fn a_coinbase_that_came_off_takes_its_spends_along() {
    let (chain, payer) = (Chain::new(b"coinbase"), Payer::new(1));
    chain.mine(1, &payer.wpkh().script_pubkey());
    let coinbase = chain.block(chain.height()).unwrap().txdata[0].clone();
    chain.mine_to_self(99);
    let tx = payer.spend(&owned(&coinbase)[..1], 1_000);
    chain.submit(&tx).unwrap();
    chain.reorg(100).unwrap();
    assert_eq!(chain.mempool(), []);
    assert_eq!(chain.tx(&coinbase.compute_txid()), None);
}

#[test]
fn block_1_stays() {
    let chain = Chain::new(b"deep");
    let refused = chain.reorg(FIRST_BLOCKS).unwrap_err();
    assert_eq!(refused, ReorgError::TooDeep { depth: FIRST_BLOCKS, most: FIRST_BLOCKS - 1 });
    let id = chain.network_id();
    chain.reorg(FIRST_BLOCKS - 1).unwrap();
    assert_eq!((chain.network_id(), chain.height()), (id, FIRST_BLOCKS + 1));
}
