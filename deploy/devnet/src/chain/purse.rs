//! The chain's own wallet: it owns what is mined for nobody else, and funds everybody.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::key::Secp256k1;
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, P2wpkhError, SighashCache};
use bitcoin::transaction::{self, InputWeightPrediction, predict_weight};
use bitcoin::{
    Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, ecdsa,
};

use super::rules::SubmitError;

/// Fee of the chain's own payments, in sat/vB: above the floor, so that a test may pay less and still be relayed.
pub(super) const FEE_SAT_PER_VB: u64 = 2;

/// Why the purse did not pay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FundError {
    /// Too few mature coins.
    #[error("the chain's purse has {have} to spend and {need} is needed with the fee: mine more blocks to it")]
    Short {
        /// All that it could spend now.
        have: Amount,
        /// Amount and fee.
        need: Amount,
    },
    /// The payment itself broke a rule; a dust amount, for example.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// The digest to be signed could not be made.
    #[error("cannot sign for the chain's purse: {0}")]
    Sign(#[from] P2wpkhError),
}

/// One P2WPKH key. It holds no state: its coins are what the chain's index says of its script.
#[derive(Clone)]
pub struct Purse {
    secp: Secp256k1<All>,
    key: SecretKey,
    public: CompressedPublicKey,
    script: ScriptBuf,
}

impl Purse {
    /// The purse of the chain with this tag, the same each time.
    #[must_use]
    pub fn new(tag: &[u8]) -> Self {
        let secp = Secp256k1::new();
        let key = derive(tag);
        let public = CompressedPublicKey(key.public_key(&secp));
        let script = ScriptBuf::new_p2wpkh(&public.wpubkey_hash());
        Self { secp, key, public, script }
    }

    /// The script that its coins are locked with.
    #[must_use]
    pub fn script(&self) -> &ScriptBuf {
        &self.script
    }

    /// A signed payment from as many of the coins as it takes, in their order, at this rate; change comes back.
    ///
    /// # Errors
    /// [`FundError`] when the coins are too few.
    pub fn pay(
        &self,
        coins: impl Iterator<Item = (OutPoint, Amount)>,
        to: ScriptBuf,
        amount: Amount,
        fee_sat_per_vb: u64,
    ) -> Result<Transaction, FundError> {
        if amount > Amount::MAX_MONEY {
            return Err(SubmitError::OutputTooLarge.into());
        }
        let (mut inputs, mut have) = (Vec::new(), Amount::ZERO);
        let mut need = amount + self.fee(0, &to, fee_sat_per_vb);
        for coin in coins {
            have += coin.1;
            inputs.push(coin);
            need = amount + self.fee(inputs.len(), &to, fee_sat_per_vb);
            if have >= need {
                break;
            }
        }
        let change = have.checked_sub(need).ok_or(FundError::Short { have, need })?;
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: inputs.iter().map(|(outpoint, _)| spend(*outpoint)).collect(),
            output: vec![TxOut { value: amount, script_pubkey: to }],
        };
        if change >= self.script.minimal_non_dust() {
            tx.output.push(TxOut { value: change, script_pubkey: self.script.clone() });
        }
        let witnesses = self.sign(&tx, inputs.into_iter().map(|(_, value)| value))?;
        for (input, witness) in tx.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
        Ok(tx)
    }

    fn sign(&self, tx: &Transaction, values: impl Iterator<Item = Amount>) -> Result<Vec<Witness>, P2wpkhError> {
        let mut cache = SighashCache::new(tx);
        let sign = |(index, value)| {
            let digest = cache.p2wpkh_signature_hash(index, &self.script, value, EcdsaSighashType::All)?;
            let signature = self.secp.sign_ecdsa(&Message::from(digest), &self.key);
            Ok(Witness::p2wpkh(&ecdsa::Signature::sighash_all(signature), &self.public.0))
        };
        values.enumerate().map(sign).collect()
    }

    fn fee(&self, inputs: usize, to: &ScriptBuf, fee_sat_per_vb: u64) -> Amount {
        let inputs = std::iter::repeat_n(InputWeightPrediction::P2WPKH_MAX, inputs);
        let weight = predict_weight(inputs, [to.len(), self.script.len()]);
        Amount::from_sat(weight.to_vbytes_ceil().saturating_mul(fee_sat_per_vb))
    }
}

fn spend(previous_output: OutPoint) -> TxIn {
    let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() }
}

/// The first hash in a chain of hashes that is a valid key; practically always the first.
fn derive(tag: &[u8]) -> SecretKey {
    let mut digest = sha256::Hash::hash(&[b"pedlar devnet purse ".as_slice(), tag].concat());
    loop {
        if let Ok(key) = SecretKey::from_slice(digest.as_byte_array()) {
            return key;
        }
        digest = sha256::Hash::hash(digest.as_byte_array());
    }
}
