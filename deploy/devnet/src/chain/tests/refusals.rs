//! Each rule with a transaction that breaks it and nothing else.

use bitcoin::opcodes::all::{OP_DROP, OP_PUSHNUM_1};
use bitcoin::script::Builder;

use super::*;

/// What Core would call it.
fn refusal(chain: &Chain, tx: &Transaction) -> String {
    let before = chain.mempool();
    let refusal = chain.submit(tx).expect_err("it breaks a rule").to_string();
    assert_eq!(chain.mempool(), before);
    refusal
}

#[test]
fn malformed_transactions() {
    let (chain, payer) = (Chain::new(b"form"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let broken = |change: fn(&mut Transaction)| refusal(&chain, &payer.spend_with(from_ref(&coin), 1_000, change));
    assert_eq!(broken(|tx| tx.input.clear()), "bad-txns-vin-empty");
    assert_eq!(broken(|tx| tx.output.clear()), "bad-txns-vout-empty");
    assert_eq!(broken(|tx| tx.input.push(tx.input[0].clone())), "bad-txns-inputs-duplicate");
    assert_eq!(broken(|tx| tx.input.push(input(OutPoint::null()))), "bad-txns-prevout-null");
    assert_eq!(broken(|tx| tx.input[0].previous_output = OutPoint::null()), "coinbase");
    assert_eq!(broken(|tx| tx.output[0].value = Amount::MAX_MONEY + Amount::from_sat(1)), "bad-txns-vout-toolarge");
    assert_eq!(
        broken(|tx| {
            tx.output[0].value = Amount::MAX_MONEY;
            tx.output.push(tx.output[0].clone());
        }),
        "bad-txns-txouttotal-toolarge"
    );
    let below = broken(|tx| tx.output[0].value = Amount::MAX_MONEY);
    assert!(below.starts_with("bad-txns-in-belowout, value in (0.00100000 BTC) < value out"), "{below}");
}

#[test]
fn nonstandard_transactions() {
    let (chain, payer) = (Chain::new(b"standard"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let broken = |change: fn(&mut Transaction)| refusal(&chain, &payer.spend_with(from_ref(&coin), 1_000, change));
    assert_eq!(broken(|tx| tx.version = Version(4)), "version");
    assert_eq!(
        broken(|tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![OP_DROP.to_u8(); 20])),
        "scriptpubkey"
    );
    assert_eq!(broken(|tx| tx.output[0].script_pubkey = ScriptBuf::new_op_return([])), "tx-size-small");
    assert_eq!(broken(|tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 100_000])), "tx-size");
    assert_eq!(
        broken(|tx| tx.input[0].script_sig = Builder::new().push_opcode(OP_DROP).into_script()),
        "scriptsig-not-pushonly"
    );
    assert_eq!(
        broken(|tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![OP_PUSHNUM_1.to_u8(); 1651])),
        "scriptsig-size"
    );
    let dust = broken(|tx| tx.output.push(TxOut { value: Amount::from_sat(293), ..tx.output[0].clone() }));
    assert_eq!(dust, "dust, output 1 is below 0.00000294 BTC");
}

#[test]
fn the_fee_floor_is_exact() {
    let (chain, payer) = (Chain::new(b"floor"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let vsize = payer.spend(from_ref(&coin), 1_000).vsize() as u64;
    // A signature may come out a byte shorter: ask for the floor of what was really signed.
    let below = payer.spend(from_ref(&coin), vsize - 2);
    assert_eq!(refusal(&chain, &below), format!("min relay fee not met, {} < {}", vsize - 2, below.vsize()));
    chain.submit(&payer.spend(&[coin], vsize + 1)).unwrap();
}

#[test]
fn coins_that_are_not_there() {
    let (chain, payer) = (Chain::new(b"missing"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let unknown = (OutPoint { vout: 7, ..coin.0 }, coin.1.clone());
    assert!(refusal(&chain, &payer.spend(&[unknown], 1_000)).starts_with("bad-txns-inputs-missingorspent"));
    let tx = payer.spend(from_ref(&coin), 1_000);
    chain.submit(&tx).unwrap();
    assert_eq!(refusal(&chain, &tx), "txn-already-in-mempool");
    chain.mine_to_self(1);
    assert_eq!(refusal(&chain, &tx), "txn-already-known");
    let again = payer.spend(&[coin], 2_000);
    assert!(refusal(&chain, &again).starts_with("bad-txns-inputs-missingorspent"));
}

#[test]
fn a_coinbase_matures_after_100_blocks() {
    let (chain, payer) = (Chain::new(b"maturity"), Payer::new(1));
    chain.mine(1, &payer.wpkh().script_pubkey());
    let coinbase = chain.block(chain.height()).unwrap().txdata[0].clone();
    let tx = payer.spend(&owned(&coinbase)[..1], 1_000);
    chain.mine_to_self(98);
    assert_eq!(refusal(&chain, &tx), "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 99");
    chain.mine_to_self(1);
    chain.submit(&tx).unwrap();
}

#[test]
fn a_lock_time_holds_until_the_block_after() {
    let (chain, payer) = (Chain::new(b"locktime"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let tip = chain.height();
    let at =
        |height| payer.spend_with(from_ref(&coin), 1_000, |tx| tx.lock_time = LockTime::from_height(height).unwrap());
    assert_eq!(refusal(&chain, &at(tip + 1)), "non-final");
    chain.submit(&at(tip)).unwrap();

    let coin = payer.coin(&chain, 100_000);
    let median = chain.read(|state| state.ledger.median_time(state.ledger.height()));
    let at = |time| payer.spend_with(from_ref(&coin), 1_000, |tx| tx.lock_time = LockTime::from_time(time).unwrap());
    assert_eq!(refusal(&chain, &at(median)), "non-final");
    chain.submit(&at(median - 1)).unwrap();
}

#[test]
fn a_relative_lock_counts_blocks_from_its_coin() {
    let (chain, payer) = (Chain::new(b"csv"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let after =
        |blocks| payer.spend_with(from_ref(&coin), 1_000, |tx| tx.input[0].sequence = Sequence::from_height(blocks));
    assert_eq!(refusal(&chain, &after(3)), "non-BIP68-final");
    chain.mine_to_self(2);
    chain.submit(&after(3)).unwrap();
    // On a waiting parent, any lock at all is too long.
    let child = payer.spend_with(&owned(&after(3)), 1_000, |tx| tx.input[0].sequence = Sequence::from_height(1));
    assert_eq!(refusal(&chain, &child), "non-BIP68-final");
}

#[test]
fn a_relative_lock_counts_time_from_the_block_before_its_coin() {
    let (chain, payer) = (Chain::new(b"csv time"), Payer::new(1));
    let coin = payer.coin(&chain, 100_000);
    let tx = payer.spend_with(&[coin], 1_000, |tx| tx.input[0].sequence = Sequence::from_512_second_intervals(20));
    let start = chain.read(|state| state.ledger.median_time(state.ledger.height() - 1));
    let mine_at = |time| chain.change(|state| state.mine(ScriptBuf::new(), time));
    let median = || chain.read(|state| state.ledger.median_time(state.ledger.height()));
    while median() < start + 20 * 512 {
        assert_eq!(refusal(&chain, &tx), "non-BIP68-final");
        mine_at(start + 20 * 512);
    }
    chain.submit(&tx).unwrap();
}

#[test]
fn a_taproot_spend_needs_its_signature_to_the_last_bit() {
    let (chain, payer) = (Chain::new(b"taproot"), Payer::new(1));
    let coins = [payer.coin_at(&chain, &payer.taproot(), 100_000), payer.coin(&chain, 50_000)];
    let tx = payer.spend(&coins, 1_000);
    for bit in [0, 255, 511] {
        let mut flipped = tx.clone();
        let mut signature = flipped.input[0].witness[0].to_vec();
        signature[bit / 8] ^= 1 << (bit % 8);
        flipped.input[0].witness = Witness::from_slice(&[signature]);
        assert_eq!(refusal(&chain, &flipped), "mempool-script-verify-flag-failed, input 0");
    }
    chain.submit(&tx).unwrap();
}

#[test]
fn a_signature_commits_to_amount_and_outputs() {
    let (chain, payer) = (Chain::new(b"segwit"), Payer::new(1));
    let coins = [payer.coin(&chain, 100_000), payer.coin(&chain, 50_000)];
    let mut tx = payer.spend(&coins, 1_000);
    tx.output[0].value -= Amount::from_sat(1);
    assert_eq!(refusal(&chain, &tx), "mempool-script-verify-flag-failed, input 0");
    let mut tx = payer.spend(&coins, 1_000);
    tx.input[1].witness = Payer::new(2).spend(&coins, 1_000).input[1].witness.clone();
    assert_eq!(refusal(&chain, &tx), "mempool-script-verify-flag-failed, input 1");
}

#[test]
fn only_so_many_hang_together() {
    let (chain, payer) = (Chain::new(b"cluster"), Payer::new(1));
    let mut tx = payer.spend(&[payer.coin(&chain, 1_000_000)], 200);
    for _ in 0..64 {
        chain.submit(&tx).unwrap();
        tx = payer.spend(&owned(&tx), 200);
    }
    assert_eq!(refusal(&chain, &tx), "too-large-cluster");
    chain.mine_to_self(1);
    chain.submit(&tx).unwrap();
}
