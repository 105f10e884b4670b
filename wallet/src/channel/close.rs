//! The seller's close: one transaction for one channel or for many, by the vouchers that it holds.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, CompressedPublicKey, OutPoint, PrivateKey, ScriptBuf, Transaction, TxIn, TxOut, Weight, Witness, ecdsa,
};

use super::funded::{SEQUENCE, spending};
use super::{Funded, MIN_OUTPUT_SAT, Voucher};

/// The longest ECDSA signature of ours with the byte that says what it covers: 71 with a low r, 72 without.
const SIGNATURE_BYTES: usize = 72;

/// A coin of the seller's own that helps to pay the fee, P2WPKH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coin {
    pub(crate) outpoint: OutPoint,
    pub(crate) txout: TxOut,
}

/// What a close spends: each channel's money, the buyer's output at the same place, then the seller's coins.
pub(crate) struct Close {
    pub(crate) parts: Vec<(Funded, Voucher)>,
    pub(crate) coins: Vec<Coin>,
    /// Where the seller's money goes.
    pub(crate) spk: ScriptBuf,
}

impl Close {
    /// What the seller would get without a fee, in sat.
    pub(crate) fn own_sat(&self) -> u64 {
        let paid = self.parts.iter().map(|(_, voucher)| voucher.cum_sat);
        let coins = self.coins.iter().map(|coin| coin.txout.value.to_sat());
        paid.chain(coins).fold(0, u64::saturating_add)
    }

    /// What it weighs at most with all its signatures, the seller's output included.
    pub(crate) fn most_weight(&self) -> Weight {
        let mut tx = self.unsigned(MIN_OUTPUT_SAT);
        let signature = vec![0; SIGNATURE_BYTES];
        let channels = self.parts.iter().map(|(funded, _)| {
            let script = funded.terms().script().unwrap_or_default();
            Witness::from_slice(&[signature.clone(), signature.clone(), script.to_bytes()])
        });
        let coins = self.coins.iter().map(|_| Witness::from_slice(&[signature.clone(), vec![0; 33]]));
        for (input, witness) in tx.input.iter_mut().zip(channels.chain(coins)) {
            input.witness = witness;
        }
        tx.weight()
    }

    /// The transaction, not yet signed, that leaves the seller `rest_sat`: nothing where that would be dust.
    pub(crate) fn unsigned(&self, rest_sat: u64) -> Transaction {
        let input = |outpoint| TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: SEQUENCE,
            witness: Witness::new(),
        };
        let channels = self.parts.iter().map(|(funded, _)| funded.input());
        let inputs = channels.chain(self.coins.iter().map(|coin| input(coin.outpoint))).collect();
        let change = |(funded, voucher): &(Funded, Voucher)| {
            funded.change(funded.terms().capacity_sat.saturating_sub(voucher.cum_sat))
        };
        let own = (rest_sat >= MIN_OUTPUT_SAT)
            .then(|| TxOut { value: Amount::from_sat(rest_sat), script_pubkey: self.spk.clone() });
        spending(inputs, self.parts.iter().map(change).chain(own).collect(), 0)
    }

    /// The transaction with all signatures; `channel_keys` and `coin_keys` stand as the channels and the coins do.
    pub(crate) fn sign(
        &self,
        mut tx: Transaction,
        channel_keys: &[SecretKey],
        coin_keys: &[SecretKey],
        secp: &Secp256k1<All>,
    ) -> Option<Transaction> {
        if (channel_keys.len(), coin_keys.len()) != (self.parts.len(), self.coins.len()) {
            return None;
        }
        let mut witnesses = Vec::with_capacity(tx.input.len());
        for (place, ((funded, voucher), key)) in self.parts.iter().zip(channel_keys).enumerate() {
            let message = funded.message(&tx, place, EcdsaSighashType::All)?;
            let seller = ecdsa::Signature::sighash_all(secp.sign_ecdsa_low_r(&message, key));
            let signature = bitcoin::secp256k1::ecdsa::Signature::from_compact(&voucher.sig).ok()?;
            let buyer = ecdsa::Signature { signature, sighash_type: EcdsaSighashType::SinglePlusAnyoneCanPay };
            witnesses.push(funded.witness(Some(seller), buyer));
        }
        for (place, (coin, key)) in (self.parts.len()..).zip(self.coins.iter().zip(coin_keys)) {
            witnesses.push(coin_witness(&tx, place, coin, key, secp)?);
        }
        tx.input.iter_mut().zip(witnesses).for_each(|(input, witness)| input.witness = witness);
        Some(tx)
    }
}

fn coin_witness(
    tx: &Transaction,
    place: usize,
    coin: &Coin,
    key: &SecretKey,
    secp: &Secp256k1<All>,
) -> Option<Witness> {
    let TxOut { value, script_pubkey } = &coin.txout;
    let hash = SighashCache::new(tx).p2wpkh_signature_hash(place, script_pubkey, *value, EcdsaSighashType::All).ok()?;
    let signature = secp.sign_ecdsa_low_r(&Message::from_digest(hash.to_byte_array()), key);
    let public =
        CompressedPublicKey::from_private_key(secp, &PrivateKey::new(*key, bitcoin::NetworkKind::Test)).ok()?;
    Some(Witness::p2wpkh(&ecdsa::Signature::sighash_all(signature), &public.0))
}
