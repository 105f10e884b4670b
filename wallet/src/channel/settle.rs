//! How a channel ends without a voucher: both sign a split, or the buyer takes everything back after its end.

use bitcoin::secp256k1::{All, Secp256k1, SecretKey};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, ecdsa};

use super::funded::spending;
use super::{Funded, MIN_OUTPUT_SAT, Role};

/// How both sides end a channel by agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// What the seller gets, before a fee that is its own.
    pub paid_sat: u64,
    /// What the miners get, from the share of `fee_from`.
    pub fee_sat: u64,
    /// Who asked for it: that side pays the fee.
    pub fee_from: Role,
    /// Where the seller's share goes, P2WPKH; `None` where it has none.
    pub seller_spk: Option<ScriptBuf>,
}

impl Funded {
    /// The transaction of an agreed split, the buyer's output first; a share under [`MIN_OUTPUT_SAT`] goes to the miners.
    ///
    /// # Errors
    ///
    /// When the split can't be, or leaves nothing to anybody.
    pub fn settlement(&self, split: &Split) -> Result<Transaction, SplitError> {
        let capacity_sat = self.terms().capacity_sat;
        let short = SplitError::Short { capacity_sat };
        let fee_of = |role| if split.fee_from == role { split.fee_sat } else { 0 };
        let buyer_sat = capacity_sat.checked_sub(split.paid_sat).and_then(|sat| sat.checked_sub(fee_of(Role::Buyer)));
        let seller_sat = split.paid_sat.checked_sub(fee_of(Role::Seller)).ok_or(short)?;
        let buyer = Some(buyer_sat.ok_or(short)?).filter(|&sat| sat >= MIN_OUTPUT_SAT).map(|sat| self.change(sat));
        let seller = match &split.seller_spk {
            _ if seller_sat < MIN_OUTPUT_SAT => None,
            Some(spk) if spk.is_p2wpkh() => {
                Some(TxOut { value: Amount::from_sat(seller_sat), script_pubkey: spk.clone() })
            }
            Some(_) | None => return Err(SplitError::SellerScript),
        };
        let outputs: Vec<_> = buyer.into_iter().chain(seller).collect();
        if outputs.is_empty() { Err(short) } else { Ok(spending(vec![self.input()], outputs, 0)) }
    }

    /// Whether `signature` is the `role`'s under the settlement `tx`.
    pub(crate) fn agrees(&self, tx: &Transaction, role: Role, signature: &[u8; 64]) -> bool {
        let message = self.message(tx, 0, EcdsaSighashType::All);
        message.is_some_and(|message| self.verifies(&message, signature, self.key(role)))
    }

    /// One side's signature under a settlement or a refund.
    pub(crate) fn sign_all(&self, tx: &Transaction, key: &SecretKey, secp: &Secp256k1<All>) -> Option<[u8; 64]> {
        let message = self.message(tx, 0, EcdsaSighashType::All)?;
        Some(secp.sign_ecdsa_low_r(&message, key).serialize_compact())
    }

    /// The settlement with both signatures.
    pub(crate) fn settled(&self, mut tx: Transaction, buyer: &[u8; 64], seller: &[u8; 64]) -> Option<Transaction> {
        let witness = self.witness(Some(sighash_all(seller)?), sighash_all(buyer)?);
        tx.input.first_mut()?.witness = witness;
        Some(tx)
    }

    /// What gives the buyer everything back from its end on, not yet signed.
    ///
    /// # Errors
    ///
    /// When the fee would leave too little.
    pub(crate) fn refund(&self, fee_sat: u64) -> Result<Transaction, SplitError> {
        let capacity_sat = self.terms().capacity_sat;
        let rest = capacity_sat.checked_sub(fee_sat).filter(|&sat| sat >= MIN_OUTPUT_SAT);
        let change = self.change(rest.ok_or(SplitError::Short { capacity_sat })?);
        Ok(spending(vec![self.input()], vec![change], self.terms().expiry_height))
    }

    /// The refund with the buyer's signature.
    pub(crate) fn refunded(&self, mut tx: Transaction, buyer: &[u8; 64]) -> Option<Transaction> {
        let witness = self.witness(None, sighash_all(buyer)?);
        tx.input.first_mut()?.witness = witness;
        Some(tx)
    }

    fn key(&self, role: Role) -> &bitcoin::PublicKey {
        match role {
            Role::Buyer => &self.terms().buyer_pk,
            Role::Seller => &self.terms().seller_pk,
        }
    }
}

pub(super) fn sighash_all(signature: &[u8; 64]) -> Option<ecdsa::Signature> {
    bitcoin::secp256k1::ecdsa::Signature::from_compact(signature).ok().map(ecdsa::Signature::sighash_all)
}

/// Why a channel can't be shared out that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    #[error("the shares and the fee don't fit into the {capacity_sat} sat of the channel, or leave nothing")]
    Short { capacity_sat: u64 },
    #[error("the seller's share must go to a P2WPKH address")]
    SellerScript,
}
