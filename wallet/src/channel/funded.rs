//! A channel whose funding is known: the vouchers over it, and the witnesses that spend it.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey, VerifyOnly};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, ecdsa, transaction};

use super::{Terms, TermsError};

/// What the sequence of every input says: a lock time counts, and whoever signed may replace it (BIP125).
pub(super) const SEQUENCE: Sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;

/// The buyer's word that the seller may take `cum_sat` in all; a later one, of more, takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voucher {
    /// All that was ever given over this channel.
    pub cum_sat: u64,
    /// ECDSA, compact, low s; `SIGHASH_SINGLE|ANYONECANPAY` over the template of [`Funded`].
    pub sig: [u8; 64],
}

/// A channel with the output that holds its money.
///
/// The template of a voucher: nVersion 2, nLockTime 0, this input alone with nSequence 0xfffffffd, and one output at the
/// same place, `capacity − cum_sat` to the buyer. What the seller adds to it is not covered by the signature.
#[derive(Debug, Clone)]
pub struct Funded {
    terms: Terms,
    outpoint: OutPoint,
    script: ScriptBuf,
    verifier: Secp256k1<VerifyOnly>,
}

impl Funded {
    /// # Errors
    ///
    /// As [`Terms::check`].
    pub fn new(terms: Terms, outpoint: OutPoint) -> Result<Self, TermsError> {
        let script = terms.script()?;
        Ok(Self { terms, outpoint, script, verifier: Secp256k1::verification_only() })
    }

    /// What was agreed on.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The output that holds the money.
    pub fn outpoint(&self) -> OutPoint {
        self.outpoint
    }

    /// Checks a voucher against our own template; needs no wallet, and hardly more time than the signature itself.
    ///
    /// # Errors
    ///
    /// Why it is worth nothing.
    pub fn verify(&self, voucher: &Voucher) -> Result<(), VoucherError> {
        let message = self.voucher_message(voucher.cum_sat)?;
        let signature = Signature::from_compact(&voucher.sig).map_err(|_| VoucherError::Forged)?;
        let key = &self.terms.buyer_pk.inner;
        self.verifier.verify_ecdsa(&message, &signature, key).map_err(|_| VoucherError::Forged)
    }

    /// Signs a voucher; who calls has stored that it does.
    pub(crate) fn sign_voucher(
        &self,
        cum_sat: u64,
        key: &SecretKey,
        secp: &Secp256k1<All>,
    ) -> Result<Voucher, VoucherError> {
        let signature = secp.sign_ecdsa_low_r(&self.voucher_message(cum_sat)?, key);
        Ok(Voucher { cum_sat, sig: signature.serialize_compact() })
    }

    fn voucher_message(&self, cum_sat: u64) -> Result<Message, VoucherError> {
        let most_sat = self.terms.most_sat();
        if cum_sat == 0 || cum_sat > most_sat {
            return Err(VoucherError::Amount { cum_sat, most_sat });
        }
        let template = spending(vec![self.input()], vec![self.change(self.terms.capacity_sat - cum_sat)], 0);
        self.message(&template, 0, EcdsaSighashType::SinglePlusAnyoneCanPay).ok_or(VoucherError::Forged)
    }

    /// What a signature of this channel's input at `place` of `tx` is over.
    pub(super) fn message(&self, tx: &Transaction, place: usize, kind: EcdsaSighashType) -> Option<Message> {
        let hash = SighashCache::new(tx).p2wsh_signature_hash(place, &self.script, self.capacity(), kind).ok()?;
        Some(Message::from_digest(hash.to_byte_array()))
    }

    /// The witness that spends the money; without the seller's signature, that of a refund.
    pub(super) fn witness(&self, seller: Option<ecdsa::Signature>, buyer: ecdsa::Signature) -> Witness {
        let seller = seller.map(|signature| signature.to_vec()).unwrap_or_default();
        Witness::from_slice(&[seller, buyer.to_vec(), self.script.to_bytes()])
    }

    pub(super) fn verifies(&self, message: &Message, signature: &[u8; 64], key: &bitcoin::PublicKey) -> bool {
        let signature = Signature::from_compact(signature);
        signature.is_ok_and(|signature| self.verifier.verify_ecdsa(message, &signature, &key.inner).is_ok())
    }

    pub(super) fn input(&self) -> TxIn {
        TxIn {
            previous_output: self.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: SEQUENCE,
            witness: Witness::new(),
        }
    }

    /// The buyer's output.
    pub(super) fn change(&self, sat: u64) -> TxOut {
        TxOut { value: Amount::from_sat(sat), script_pubkey: self.terms.change_spk.clone() }
    }

    pub(super) fn capacity(&self) -> Amount {
        Amount::from_sat(self.terms.capacity_sat)
    }
}

/// A transaction of nVersion 2 that no block below `lock_height` takes.
pub(super) fn spending(input: Vec<TxIn>, output: Vec<TxOut>, lock_height: u32) -> Transaction {
    let lock_time = absolute::LockTime::from_consensus(lock_height);
    Transaction { version: transaction::Version::TWO, lock_time, input, output }
}

/// Why a voucher is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    #[error("a voucher of {cum_sat} sat: this channel takes from 1 to {most_sat} sat")]
    Amount { cum_sat: u64, most_sat: u64 },
    #[error("the buyer did not sign this voucher, or not for this channel")]
    Forged,
}
