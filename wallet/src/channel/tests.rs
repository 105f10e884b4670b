//! The life of a channel without a wallet: every transaction that may spend it, judged by Bitcoin's consensus code.

mod life;
mod opening;
mod storm;
mod two;
mod vectors;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, PublicKey, ScriptBuf, Transaction, TxOut, Txid, WPubkeyHash};
use proptest::prelude::*;

use super::close::{Close, Coin};
use super::*;

const CAPACITY: u64 = 50_000;
const EXPIRY: u32 = 900_000;

/// A channel with the keys of both sides.
struct Pair {
    secp: Secp256k1<All>,
    buyer: SecretKey,
    seller: SecretKey,
    funded: Funded,
}

fn p2wpkh(byte: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([byte; 20]))
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

impl Pair {
    /// The channel of this number, with keys of its own.
    fn new(number: u8) -> Self {
        let secp = Secp256k1::new();
        let (buyer, seller) = (key(2 * number + 1), key(2 * number + 2));
        let terms = Terms {
            buyer_pk: PublicKey::new(buyer.public_key(&secp)),
            seller_pk: PublicKey::new(seller.public_key(&secp)),
            capacity_sat: CAPACITY,
            expiry_height: EXPIRY,
            change_spk: p2wpkh(number),
            close_fee_sat: 1_000,
        };
        let outpoint = OutPoint::new(Txid::from_byte_array([number; 32]), u32::from(number));
        Self { funded: Funded::new(terms, outpoint).unwrap(), secp, buyer, seller }
    }

    fn voucher(&self, cum_sat: u64) -> Voucher {
        self.funded.sign_voucher(cum_sat, &self.buyer, &self.secp).unwrap()
    }

    fn output(&self) -> TxOut {
        TxOut { value: self.funded.capacity(), script_pubkey: self.funded.terms().funding_spk().unwrap() }
    }

    fn settlement(&self, split: &Split) -> Transaction {
        let tx = self.funded.settlement(split).unwrap();
        let [buyer, seller] =
            [&self.buyer, &self.seller].map(|key| self.funded.sign_all(&tx, key, &self.secp).unwrap());
        assert!(self.funded.agrees(&tx, Role::Buyer, &buyer) && self.funded.agrees(&tx, Role::Seller, &seller));
        assert!(!self.funded.agrees(&tx, Role::Buyer, &seller));
        self.funded.settled(tx, &buyer, &seller).unwrap()
    }

    fn refund(&self, fee_sat: u64) -> Transaction {
        let tx = self.funded.refund(fee_sat).unwrap();
        self.sign_refund(tx)
    }

    fn sign_refund(&self, tx: Transaction) -> Transaction {
        let buyer = self.funded.sign_all(&tx, &self.buyer, &self.secp).unwrap();
        self.funded.refunded(tx, &buyer).unwrap()
    }
}

/// The close of these channels, each with a voucher of so much, at this fee.
fn close(pairs: &[Pair], cum_sat: u64, fee_sat: u64, coins: &[Coin]) -> Transaction {
    let parts = pairs.iter().map(|pair| (pair.funded.clone(), pair.voucher(cum_sat))).collect();
    let close = Close { parts, coins: coins.to_vec(), spk: p2wpkh(200) };
    sign_close(pairs, &close, close.unsigned(close.own_sat() - fee_sat))
}

fn sign_close(pairs: &[Pair], close: &Close, tx: Transaction) -> Transaction {
    let keys: Vec<_> = pairs.iter().map(|pair| pair.seller).collect();
    let coins = vec![key(250); close.coins.len()];
    close.sign(tx, &keys, &coins, &pairs[0].secp).unwrap()
}

/// A coin of the seller's own.
fn coin(sat: u64) -> Coin {
    let public = PublicKey::new(key(250).public_key(&Secp256k1::new()));
    let script_pubkey = ScriptBuf::new_p2wpkh(&public.wpubkey_hash().unwrap());
    let txout = TxOut { value: Amount::from_sat(sat), script_pubkey };
    Coin { outpoint: OutPoint::new(Txid::from_byte_array([99; 32]), 7), txout }
}

/// Whether every input of `tx` may spend what it spends: the channels' outputs first, then the coins.
fn is_valid(tx: &Transaction, pairs: &[Pair], coins: &[Coin]) -> bool {
    let spent = pairs.iter().map(Pair::output).chain(coins.iter().map(|coin| coin.txout.clone()));
    let raw = bitcoin::consensus::serialize(tx);
    spent.enumerate().all(|(place, output)| {
        bitcoinconsensus::verify(output.script_pubkey.as_bytes(), output.value.to_sat(), &raw, None, place).is_ok()
    })
}

fn total(tx: &Transaction) -> u64 {
    tx.output.iter().map(|output| output.value.to_sat()).sum()
}

#[test]
fn the_script_is_the_one_that_both_sides_can_build() {
    let pair = Pair::new(1);
    let terms = pair.funded.terms();
    assert_eq!(terms.script().unwrap().len(), 78);
    let asm = format!(
        "OP_PUSHBYTES_33 {} OP_CHECKSIGVERIFY OP_PUSHBYTES_33 {} OP_CHECKSIG OP_IFDUP OP_NOTIF OP_PUSHBYTES_3 a0bb0d OP_CLTV OP_ENDIF",
        terms.buyer_pk, terms.seller_pk
    );
    assert_eq!(terms.script().unwrap().to_asm_string(), asm);
    let address = terms.address(crate::Network::Regtest).unwrap();
    assert_eq!(address.script_pubkey(), terms.funding_spk().unwrap());
}

#[test]
fn terms_that_could_not_be_closed_are_refused() {
    let terms = Pair::new(1).funded.terms().clone();
    let p2pkh = ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_byte_array([1; 20]));
    let cases = [
        (Terms { change_spk: p2pkh, ..terms.clone() }, TermsError::ChangeScript),
        (Terms { change_spk: ScriptBuf::new(), ..terms.clone() }, TermsError::ChangeScript),
        (Terms { expiry_height: 0, ..terms.clone() }, TermsError::Expiry { height: 0 }),
        // From here on it would be a date.
        (Terms { expiry_height: 500_000_000, ..terms.clone() }, TermsError::Expiry { height: 500_000_000 }),
        (Terms { capacity_sat: 587, ..terms.clone() }, TermsError::Capacity { sat: 587 }),
        (Terms { capacity_sat: u64::MAX, ..terms.clone() }, TermsError::Capacity { sat: u64::MAX }),
        (Terms { seller_pk: terms.buyer_pk, ..terms.clone() }, TermsError::Keys),
    ];
    for (terms, error) in cases {
        assert_eq!(terms.script(), Err(error));
    }
}

#[test]
fn a_voucher_is_worth_something_on_its_own_channel_only() {
    let (pair, other) = (Pair::new(1), Pair::new(2));
    let voucher = pair.voucher(1_234);
    pair.funded.verify(&voucher).unwrap();
    assert_eq!(other.funded.verify(&voucher), Err(VoucherError::Forged));
    let moved = Funded::new(pair.funded.terms().clone(), OutPoint::new(Txid::all_zeros(), 0)).unwrap();
    assert_eq!(moved.verify(&voucher), Err(VoucherError::Forged));
    for cum_sat in [1_233, 1_235] {
        assert_eq!(pair.funded.verify(&Voucher { cum_sat, ..voucher }), Err(VoucherError::Forged));
    }
    for place in 0..64 {
        let mut sig = voucher.sig;
        sig[place] ^= 1;
        assert_eq!(pair.funded.verify(&Voucher { sig, ..voucher }), Err(VoucherError::Forged));
    }
    for cum_sat in [0, CAPACITY - 293, CAPACITY, u64::MAX] {
        let amount = VoucherError::Amount { cum_sat, most_sat: CAPACITY - 294 };
        assert_eq!(pair.funded.verify(&Voucher { cum_sat, ..voucher }), Err(amount));
        assert_eq!(pair.funded.sign_voucher(cum_sat, &pair.buyer, &pair.secp), Err(amount));
    }
    let foreign = other.funded.sign_voucher(1_234, &pair.seller, &pair.secp).unwrap();
    assert_eq!(pair.funded.verify(&foreign), Err(VoucherError::Forged));
}

#[test]
fn a_split_that_does_not_add_up_is_refused() {
    let funded = Pair::new(1).funded;
    let split = |paid_sat, fee_sat, fee_from| Split { paid_sat, fee_sat, fee_from, seller_spk: Some(p2wpkh(9)) };
    let short = Err(SplitError::Short { capacity_sat: CAPACITY });
    assert_eq!(funded.settlement(&split(CAPACITY + 1, 0, Role::Buyer)), short);
    assert_eq!(funded.settlement(&split(CAPACITY, 1, Role::Buyer)), short);
    assert_eq!(funded.settlement(&split(100, 101, Role::Seller)), short);
    assert_eq!(funded.settlement(&split(293, CAPACITY - 293 - 293, Role::Buyer)), short);
    assert_eq!(funded.settlement(&split(u64::MAX, u64::MAX, Role::Seller)), short);
    let nowhere = Split { seller_spk: None, ..split(1_000, 0, Role::Buyer) };
    assert_eq!(funded.settlement(&nowhere), Err(SplitError::SellerScript));
    assert_eq!(funded.refund(CAPACITY - 293), short);
}

proptest! {
    /// I14: whatever is agreed on, nobody gets more than what was locked up, and the seller no more than it was given.
    #[test]
    fn no_end_of_a_channel_pays_out_more_than_it_holds(
        cum_sat in 1..=CAPACITY - MIN_OUTPUT_SAT,
        fee_sat in 0..2 * CAPACITY,
        paid_sat in 0..2 * CAPACITY,
        own in prop::option::of(294..CAPACITY),
        by_seller: bool,
    ) {
        let pair = Pair::new(1);
        let buyer_spk = pair.funded.terms().change_spk.clone();
        let to = |tx: &Transaction, spk: &ScriptBuf| -> u64 {
            tx.output.iter().filter(|output| output.script_pubkey == *spk).map(|output| output.value.to_sat()).sum()
        };
        let coins: Vec<_> = own.map(coin).into_iter().collect();
        let added: u64 = coins.iter().map(|coin| coin.txout.value.to_sat()).sum();
        let close = Close { parts: vec![(pair.funded.clone(), pair.voucher(cum_sat))], coins, spk: p2wpkh(200) };
        let tx = close.unsigned(close.own_sat().saturating_sub(fee_sat));
        prop_assert_eq!(to(&tx, &buyer_spk), CAPACITY - cum_sat);
        prop_assert!(to(&tx, &close.spk) <= cum_sat + added);
        prop_assert!(total(&tx) <= CAPACITY + added);

        let fee_from = if by_seller { Role::Seller } else { Role::Buyer };
        let split = Split { paid_sat, fee_sat, fee_from, seller_spk: Some(p2wpkh(200)) };
        if let Ok(tx) = pair.funded.settlement(&split) {
            prop_assert!(total(&tx) + fee_sat <= CAPACITY);
            prop_assert!(to(&tx, &p2wpkh(200)) <= paid_sat && to(&tx, &buyer_spk) <= CAPACITY - paid_sat);
            prop_assert!(tx.output.iter().all(|output| output.value.to_sat() >= MIN_OUTPUT_SAT));
        }
        if let Ok(tx) = pair.funded.refund(fee_sat) {
            prop_assert_eq!(total(&tx) + fee_sat, CAPACITY);
            prop_assert_eq!(to(&tx, &buyer_spk), total(&tx));
        }
    }
}
