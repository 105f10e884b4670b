//! What both sides agree on before any money moves, and the script that it makes.

use std::str::FromStr;

use bdk_wallet::miniscript::{Miniscript, Segwitv0};
use bitcoin::{Address, PublicKey, ScriptBuf};

use super::MIN_OUTPUT_SAT;
use crate::network::{MAX_HEIGHT, Network};

/// What a channel is: who may take what, until when. Equal terms make an equal script on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub buyer_pk: PublicKey,
    pub seller_pk: PublicKey,
    /// What is locked up.
    pub capacity_sat: u64,
    /// From this height on the buyer alone can take everything back.
    pub expiry_height: u32,
    /// Where the buyer's share goes: P2WPKH. What can't be relayed would keep the seller from closing at all.
    pub change_spk: ScriptBuf,
    /// What of a voucher counts for nothing, because closing may cost it; no transaction depends on it.
    pub close_fee_sat: u64,
}

impl Terms {
    /// Whether a channel of these terms can be used at all.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), TermsError> {
        if !self.change_spk.is_p2wpkh() {
            return Err(TermsError::ChangeScript);
        }
        if !(1..=MAX_HEIGHT).contains(&self.expiry_height) {
            return Err(TermsError::Expiry { height: self.expiry_height });
        }
        if !(2 * MIN_OUTPUT_SAT..=bitcoin::Amount::MAX_MONEY.to_sat()).contains(&self.capacity_sat) {
            return Err(TermsError::Capacity { sat: self.capacity_sat });
        }
        if self.close_fee_sat > self.capacity_sat {
            return Err(TermsError::CloseFee { sat: self.close_fee_sat, capacity_sat: self.capacity_sat });
        }
        if self.buyer_pk == self.seller_pk || !self.buyer_pk.compressed || !self.seller_pk.compressed {
            return Err(TermsError::Keys);
        }
        Ok(())
    }

    /// `and_v(v:pk(buyer),or_d(pk(seller),after(expiry)))`: 78 bytes from height 32,768 on.
    ///
    /// # Errors
    ///
    /// As [`Terms::check`].
    pub fn script(&self) -> Result<ScriptBuf, TermsError> {
        self.check()?;
        let Self { buyer_pk, seller_pk, expiry_height, .. } = self;
        let policy = format!("and_v(v:pk({buyer_pk}),or_d(pk({seller_pk}),after({expiry_height})))");
        let script = Miniscript::<PublicKey, Segwitv0>::from_str(&policy).map_err(|_| TermsError::Keys)?;
        Ok(script.encode())
    }

    /// The script of the output that holds the money.
    ///
    /// # Errors
    ///
    /// As [`Terms::check`].
    pub fn funding_spk(&self) -> Result<ScriptBuf, TermsError> {
        Ok(self.script()?.to_p2wsh())
    }

    /// The address that is paid to open the channel.
    ///
    /// # Errors
    ///
    /// As [`Terms::check`].
    pub fn address(&self, network: Network) -> Result<Address, TermsError> {
        Ok(Address::p2wsh(&self.script()?, bitcoin::Network::from(network)))
    }

    /// The most that a voucher may give, in sat: the buyer's output always exists, else the seller's own would be the
    /// one that the buyer's signature covers.
    pub fn most_sat(&self) -> u64 {
        self.capacity_sat.saturating_sub(MIN_OUTPUT_SAT)
    }
}

/// What is wrong with the terms of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    #[error("the buyer's change must go to a P2WPKH address: nothing else is sure to be relayed")]
    ChangeScript,
    #[error("a channel can't end at height {height}")]
    Expiry { height: u32 },
    #[error("{sat} sat can't be shared out: a channel holds {} sat at least", 2 * MIN_OUTPUT_SAT)]
    Capacity { sat: u64 },
    #[error("closing would cost {sat} sat of {capacity_sat} sat")]
    CloseFee { sat: u64, capacity_sat: u64 },
    #[error("a channel takes two different, compressed keys")]
    Keys,
}
