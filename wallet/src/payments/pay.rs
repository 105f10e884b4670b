//! Paying: one id, or several with one transaction.

use std::collections::HashSet;

use bdk_wallet::rusqlite;
use bitcoin::{Address, Transaction};

use super::{Fee, Network, Payment, PaymentId, PaymentState, Version};
use crate::state::{State, StoreError};

/// The most payments in one transaction: with outputs of 43 vB at most, a fifth of what is relayed, so that there is
/// room for the coins.
pub const MAX_BATCH: usize = 500;

/// What is to be paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub id: PaymentId,
    pub address: Address,
    pub sat: u64,
}

impl Terms {
    /// What a payment pays.
    pub(super) fn of(payment: &Payment) -> Self {
        Self { id: payment.id, address: payment.address.clone(), sat: payment.sat }
    }
}

impl State {
    /// Pays all of `terms` with one transaction, or returns the payments that these ids already are.
    ///
    /// When it returns, the signed transaction is stored; it is not sent here.
    ///
    /// # Errors
    ///
    /// Nothing is signed and nothing kept when the terms, the coins or the fee don't allow it.
    pub(crate) fn pay_all(&mut self, terms: &[Terms], fee: &Fee, now_ms: u64) -> Result<Vec<Payment>, PayError> {
        match self.signed_before(terms)? {
            0 => {}
            all if all == terms.len() => return self.payments(terms),
            _ => return Err(PayError::PartlyPaid),
        }
        if self.is_restoring()? {
            return Err(PayError::Restoring);
        }
        self.check(terms)?;
        self.insert_intents(terms, now_ms)?;
        let signed = self.build_and_sign(terms, fee);
        if signed.is_err() {
            self.delete_intents(terms)?;
        }
        let (tx, fee_sat) = signed?;
        let versions = versions(terms, &tx, fee_sat);
        self.insert_version(&versions.ok_or(PayError::Unsignable)?, &tx)?;
        // Only now, when the rows are safe: the coins must not look spent by a transaction that nobody will send.
        self.wallet.apply_unconfirmed_txs([(tx, now_ms / 1000)]);
        // The deed is done: where this is not written now it is with the next change, and the status says so.
        let _ = self.commit(|_| Ok(()));
        self.payments(terms)
    }

    /// How many of these are signed already.
    fn signed_before(&self, terms: &[Terms]) -> Result<usize, PayError> {
        let mut signed = 0;
        for to in terms {
            match self.payment(to.id)? {
                Some(known) if known.address != to.address || known.sat != to.sat => {
                    return Err(PayError::OtherTerms { address: known.address, sat: known.sat });
                }
                Some(known) if known.state != PaymentState::Intent => signed += 1,
                Some(_) | None => {}
            }
        }
        Ok(signed)
    }

    fn payments(&self, terms: &[Terms]) -> Result<Vec<Payment>, PayError> {
        let missing = || PayError::Store(StoreError(rusqlite::Error::QueryReturnedNoRows));
        terms.iter().map(|to| self.payment(to.id)?.ok_or_else(missing)).collect()
    }

    /// Checks what needs no choice of coins.
    fn check(&self, terms: &[Terms]) -> Result<(), PayError> {
        let mut ids = HashSet::new();
        if terms.is_empty() || terms.len() > MAX_BATCH || !terms.iter().all(|to| ids.insert(to.id)) {
            return Err(PayError::Count { found: ids.len() });
        }
        for to in terms {
            if !self.network.has(&to.address) {
                return Err(PayError::OtherNetwork { expected: self.network });
            }
            let min_sat = to.address.script_pubkey().minimal_non_dust().to_sat();
            if to.sat < min_sat {
                return Err(PayError::Dust { min_sat });
            }
        }
        let sum = terms.iter().try_fold(0_u64, |sum, to| sum.checked_add(to.sat));
        match sum.filter(|&sum| sum <= bitcoin::Amount::MAX_MONEY.to_sat()) {
            Some(_) => Ok(()),
            None => Err(PayError::Short {
                have_sat: self.wallet.balance().total().to_sat(),
                need_sat: sum.unwrap_or(u64::MAX),
            }),
        }
    }
}

/// The part of each payment in a transaction that pays all of them: its output, and an equal share of the fee, the
/// odd sat going to the first. `None` when an output is missing.
pub(super) fn versions(terms: &[Terms], tx: &Transaction, fee_sat: u64) -> Option<Vec<(PaymentId, Version)>> {
    let txid = tx.compute_txid();
    let count = u64::try_from(terms.len()).ok().filter(|&count| count > 0)?;
    let (share, odd) = (fee_sat / count, fee_sat % count);
    let mut taken = HashSet::new();
    let part = |(place, to): (u64, &Terms)| {
        let script = to.address.script_pubkey();
        // Two payments may be alike: each has an output of its own.
        let vout = (0..).zip(&tx.output).find_map(|(vout, output)| {
            let pays = output.script_pubkey == script && output.value.to_sat() == to.sat;
            (pays && taken.insert(vout)).then_some(vout)
        })?;
        Some((to.id, Version { txid, vout, fee_sat: share + u64::from(place < odd) }))
    };
    (0..).zip(terms).map(part).collect()
}

/// Why nothing was paid.
#[derive(Debug, thiserror::Error)]
pub enum PayError {
    #[error("this id already pays {sat} sat to {address}: use a new id for another payment")]
    OtherTerms { address: Address, sat: u64 },
    #[error("some of these payments are made already: make the others alone")]
    PartlyPaid,
    #[error("{found} payments with ids of their own: one transaction takes 1 to {MAX_BATCH}")]
    Count { found: usize },
    #[error("the address is not one of {expected}")]
    OtherNetwork { expected: Network },
    #[error("too little to be sent: the least for this address is {min_sat} sat")]
    Dust { min_sat: u64 },
    #[error("not enough spendable coins: {have_sat} sat, needed {need_sat} sat with the fee")]
    Short { have_sat: u64, need_sat: u64 },
    #[error("the fee would be {fee_sat} sat, above the limit of {max_fee_sat} sat: wait, or raise the limit")]
    FeeAboveLimit { fee_sat: u64, max_fee_sat: u64 },
    #[error("the fee would be {fee_sat} sat, above the ceiling of {ceiling_sat_vb} sat/vB")]
    AboveCeiling { fee_sat: u64, ceiling_sat_vb: u64 },
    #[error("it would take more coins than one transaction can carry: send less at a time")]
    TooHeavy,
    #[error("the transaction could not be built or signed")]
    Unsignable,
    #[error("the chain is still being searched for what this wallet did before it was restored")]
    Restoring,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Closed(#[from] crate::status::Closed),
}
