//! The chain as its users see it; every transaction here is really signed.

mod audit;
mod core;
mod refusals;
mod reorgs;
mod replacement;

use std::slice::from_ref;

use bitcoin::key::{Keypair, Secp256k1, TapTweak, TweakedKeypair};
use bitcoin::locktime::absolute::LockTime;
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, CompressedPublicKey, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    ecdsa, taproot,
};

use super::*;

/// A coin that a test may spend.
pub(crate) type Owned = (OutPoint, TxOut);

/// One key, with a P2WPKH and a P2TR address.
pub(crate) struct Payer {
    secp: Secp256k1<All>,
    keys: Keypair,
}

impl Payer {
    pub(crate) fn new(seed: u8) -> Self {
        let secp = Secp256k1::new();
        let keys = Keypair::from_secret_key(&secp, &SecretKey::from_slice(&[seed; 32]).unwrap());
        Self { secp, keys }
    }

    pub(crate) fn wpkh(&self) -> Address {
        Address::p2wpkh(&CompressedPublicKey(self.keys.public_key()), Network::Regtest)
    }

    fn taproot(&self) -> Address {
        Address::p2tr(&self.secp, self.keys.x_only_public_key().0, None, Network::Regtest)
    }

    /// A confirmed coin of ours.
    pub(crate) fn coin(&self, chain: &Chain, sat: u64) -> Owned {
        self.coin_at(chain, &self.wpkh(), sat)
    }

    fn coin_at(&self, chain: &Chain, address: &Address, sat: u64) -> Owned {
        let txid = chain.fund(address, Amount::from_sat(sat)).unwrap();
        chain.mine_to_self(1);
        let tx = chain.tx(&txid).unwrap().tx;
        owned(&tx).into_iter().find(|(_, output)| output.script_pubkey == address.script_pubkey()).unwrap()
    }

    /// Pays all of the coins but the fee back to ourselves.
    pub(crate) fn spend(&self, coins: &[Owned], fee_sat: u64) -> Transaction {
        self.spend_with(coins, fee_sat, |_| ())
    }

    /// Pays all of one coin but the fee to somebody.
    pub(crate) fn spend_to(&self, coin: &Owned, to: &Script, fee_sat: u64) -> Transaction {
        self.spend_with(from_ref(coin), fee_sat, |tx| tx.output[0].script_pubkey = to.into())
    }

    /// The same, with something changed before it is signed.
    fn spend_with(&self, coins: &[Owned], fee_sat: u64, change: impl FnOnce(&mut Transaction)) -> Transaction {
        let value = coins.iter().map(|coin| coin.1.value).sum::<Amount>() - Amount::from_sat(fee_sat);
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(|coin| input(coin.0)).collect(),
            output: vec![TxOut { value, script_pubkey: self.wpkh().script_pubkey() }],
        };
        change(&mut tx);
        self.sign(&mut tx, coins);
        tx
    }

    fn sign(&self, tx: &mut Transaction, coins: &[Owned]) {
        let prevouts: Vec<_> = coins.iter().map(|coin| coin.1.clone()).collect();
        let mut cache = SighashCache::new(tx.clone());
        for (index, output) in prevouts.iter().enumerate().take(tx.input.len()) {
            let script = &output.script_pubkey;
            tx.input[index].witness = if script.is_p2tr() {
                let all = Prevouts::All(&prevouts);
                let digest = cache.taproot_key_spend_signature_hash(index, &all, TapSighashType::Default).unwrap();
                let tweaked: TweakedKeypair = self.keys.tap_tweak(&self.secp, None);
                let signature = self.secp.sign_schnorr_no_aux_rand(&Message::from(digest), tweaked.as_keypair());
                let sighash_type = TapSighashType::Default;
                Witness::p2tr_key_spend(&taproot::Signature { signature, sighash_type })
            } else {
                let digest = cache.p2wpkh_signature_hash(index, script, output.value, EcdsaSighashType::All).unwrap();
                let signature = self.secp.sign_ecdsa(&Message::from(digest), &self.keys.secret_key());
                Witness::p2wpkh(&ecdsa::Signature::sighash_all(signature), &self.keys.public_key())
            };
        }
    }
}

fn input(previous_output: OutPoint) -> TxIn {
    let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() }
}

/// All outputs of a transaction as coins.
pub(crate) fn owned(tx: &Transaction) -> Vec<Owned> {
    let txid = tx.compute_txid();
    (0..).zip(&tx.output).map(|(vout, output)| (OutPoint { txid, vout }, output.clone())).collect()
}

#[test]
fn blocks_are_valid_down_to_genesis() {
    let chain = Chain::new(b"valid");
    assert_eq!(chain.height(), FIRST_BLOCKS);
    assert_eq!(chain.block_hash(0), Some(bitcoin::constants::genesis_block(Network::Regtest).block_hash()));
    for height in 1..=chain.height() {
        let block = chain.block(height).unwrap();
        block.header.validate_pow(bitcoin::Target::MAX_ATTAINABLE_REGTEST).unwrap();
        assert_eq!(Some(block.header.prev_blockhash), chain.block_hash(height - 1));
        assert!(block.check_merkle_root() && block.check_witness_commitment());
        if height > 16 {
            // The library reads heights as pushed bytes, but Core writes those up to 16 as opcodes.
            assert_eq!(block.bip34_block_height().unwrap(), u64::from(height));
        }
    }
}

#[test]
fn two_chains_differ_from_block_1_on() {
    let (one, other) = (Chain::new(b"one"), Chain::new(b"other"));
    assert_ne!(one.network_id(), other.network_id());
    assert_eq!(one.network_id(), one.block_hash(1).unwrap().to_string()[..8]);
}

#[test]
fn a_fork_goes_its_own_way() {
    let one = Chain::new(b"one");
    let other = one.fork();
    let at_the_fork = one.tip();
    one.mine_to_self(1);
    assert_eq!((other.tip(), other.network_id()), (at_the_fork, one.network_id()));
    other.mine_to_self(2);
    assert_eq!(one.height() + 1, other.height());
}

#[test]
fn the_subsidy_halves_every_150_blocks() {
    let chain = Chain::new(b"halving");
    chain.mine_to_self(150);
    let minted = |height| chain.block(height).unwrap().txdata[0].output[0].value;
    assert_eq!(minted(149), Amount::from_int_btc(50));
    assert_eq!(minted(150), Amount::from_int_btc(25));
    assert_eq!(minted(300), Amount::from_sat(1_250_000_000));
}

#[test]
fn fees_go_to_the_miner() {
    let (chain, payer) = (Chain::new(b"fees"), Payer::new(1));
    let tx = payer.spend(&[payer.coin(&chain, 100_000)], 777);
    chain.submit(&tx).unwrap();
    chain.mine(1, &payer.wpkh().script_pubkey());
    let coinbase = chain.block(chain.height()).unwrap().txdata[0].clone();
    assert_eq!(coinbase.output[0].value, Amount::from_int_btc(25) + Amount::from_sat(777));
    assert_eq!(coinbase.output[0].script_pubkey, payer.wpkh().script_pubkey());
}

#[test]
fn the_purse_pays_many_times_within_one_block_and_says_when_it_is_dry() {
    let (chain, payer) = (Chain::new(b"purse"), Payer::new(1));
    for _ in 0..60 {
        chain.fund(&payer.wpkh(), Amount::from_int_btc(1)).unwrap();
    }
    assert_eq!(chain.mempool().len(), 60);
    chain.mine_to_self(1);
    assert_eq!(chain.mempool().len(), 0);
    chain.fund(&payer.wpkh(), Amount::from_int_btc(1_000)).unwrap();
    let dry = chain.fund(&payer.wpkh(), Amount::from_int_btc(100_000)).unwrap_err();
    assert!(matches!(dry, FundError::Short { have, need } if have < need), "{dry}");
    let dust = chain.fund(&payer.wpkh(), Amount::from_sat(293)).unwrap_err();
    assert!(matches!(dust, FundError::Refused(SubmitError::Dust { .. })), "{dust}");
    assert!(chain.fund(&payer.wpkh(), Amount::from_sat(u64::MAX)).is_err());
}

#[test]
fn parents_are_mined_before_children_and_dearer_ones_first() {
    let (chain, payer) = (Chain::new(b"order"), Payer::new(1));
    let coins: Vec<_> = (0..3).map(|_| payer.coin(&chain, 100_000)).collect();
    let cheap = payer.spend(&coins[..1], 200);
    let child = payer.spend(&owned(&cheap), 50_000);
    let middle = payer.spend(&coins[1..2], 1_000);
    let dear = payer.spend(&coins[2..], 9_000);
    for tx in [&cheap, &child, &middle, &dear] {
        chain.submit(tx).unwrap();
    }
    chain.mine_to_self(1);
    let mined = chain.block(chain.height()).unwrap().txdata.into_iter().skip(1).collect::<Vec<_>>();
    assert_eq!(mined, [dear, middle, cheap, child]);
}

#[test]
fn changes_wake_subscribers() {
    let chain = Chain::new(b"wake");
    let mut changes = chain.subscribe();
    assert!(!changes.has_changed().unwrap());
    chain.mine_to_self(1);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    chain.submit(&chain.block(1).unwrap().txdata[0]).unwrap_err();
    assert!(!changes.has_changed().unwrap(), "a refusal changes nothing");
}
