//! Replacing a payment's transaction by a dearer one (BIP125): the same payees and amounts, the same coins and perhaps
//! more, less change.

use std::sync::Arc;

use bdk_wallet::KeychainKind;
use bitcoin::{FeeRate, Psbt, ScriptBuf, Transaction, Txid, Weight};

use super::build::{least_weight, not_built};
use super::pay::versions;
use super::{Fee, PayError, Payment, PaymentId, PaymentState, Terms};
use crate::state::{State, StoreError};

/// What a replacement pays on top for its own relay (BIP125 rule 4).
const INCREMENT: FeeRate = FeeRate::from_sat_per_vb_u32(1);
/// How often the rate is raised where what the change lost doesn't make up for the relay.
const TRIES: u32 = 4;

/// A bump, made or only looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bump {
    /// The transaction that was to be sent so far.
    pub replaces: Txid,
    /// The one that is sent from now on; `None` while it was only looked at.
    pub txid: Option<Txid>,
    /// The payments that it makes, as before.
    pub payments: Vec<PaymentId>,
    /// What they pay in all.
    pub amount_sat: u64,
    pub old_fee_sat: u64,
    pub fee_sat: u64,
    /// sat per vbyte, rounded up.
    pub rate_sat_vb: u64,
}

/// What is bumped: the payments of one transaction, and that transaction.
struct Stuck {
    txid: Txid,
    payments: Vec<Payment>,
    fee_sat: u64,
    rate: FeeRate,
    /// Where its change goes, if it has any.
    change: Option<ScriptBuf>,
}

impl State {
    /// Looks at what a bump to `rate`, or to what is asked for now, would cost; nothing is signed or kept.
    ///
    /// # Errors
    ///
    /// As [`State::bump`].
    pub(crate) fn look_at_bump(&mut self, txid: Txid, rate: Option<FeeRate>, fee: &Fee) -> Result<Bump, BumpError> {
        let stuck = self.stuck(txid)?;
        let change = stuck.change.clone().unwrap_or_else(|| self.dry_change());
        let psbt = self.build_bump(&stuck, rate, fee, change)?;
        let fee_sat = psbt.fee().map_err(|_| PayError::Unsignable)?.to_sat();
        Ok(stuck.bump(None, fee_sat, least_weight(&psbt)))
    }

    /// Replaces the transaction that makes a payment by one that pays `rate`, or what is asked for now: `txid` may be
    /// any version of it. When it returns, the new one is stored; it is not sent here.
    ///
    /// # Errors
    ///
    /// Nothing was signed: there is nothing to bump, or the coins or the limits of `fee` don't allow it.
    pub(crate) fn bump(
        &mut self,
        txid: Txid,
        rate: Option<FeeRate>,
        fee: &Fee,
        now_ms: u64,
    ) -> Result<Bump, BumpError> {
        if self.is_restoring()? {
            return Err(PayError::Restoring.into());
        }
        let stuck = self.stuck(txid)?;
        let change = match &stuck.change {
            Some(script) => script.clone(),
            None => self.wallet.next_unused_address(KeychainKind::Internal).script_pubkey(),
        };
        let psbt = self.build_bump(&stuck, rate, fee, change)?;
        let (tx, fee_sat) = self.sign(psbt, fee)?;
        let terms: Vec<_> = stuck.payments.iter().map(Terms::of).collect();
        let parts = versions(&terms, &tx, fee_sat).ok_or(PayError::Unsignable)?;
        self.insert_version(&parts, &tx)?;
        let bump = stuck.bump(Some(tx.compute_txid()), fee_sat, tx.weight());
        // Later than what it replaces was ever seen, so that it is the one that counts.
        let last_seen = self.wallet.tx_graph().get_tx_node(stuck.txid).and_then(|node| node.last_seen);
        let seen = last_seen.unwrap_or_default().saturating_add(1).max(now_ms / 1000);
        self.wallet.apply_unconfirmed_txs([(tx, seen)]);
        // As for a payment: the deed is done.
        let _ = self.commit(|_| Ok(()));
        Ok(bump)
    }

    fn stuck(&self, txid: Txid) -> Result<Stuck, BumpError> {
        let payments = self.payments_of(txid)?;
        let first = payments.first().ok_or(BumpError::Unknown)?;
        if self.funds_channel(first.id)? {
            return Err(BumpError::Channel);
        }
        match first.state {
            PaymentState::Confirmed { height, .. } | PaymentState::Final { height } => {
                return Err(BumpError::Confirmed { height });
            }
            PaymentState::Conflicted { by } | PaymentState::Replaced { by } => return Err(BumpError::Rival { by }),
            PaymentState::Intent | PaymentState::Signed | PaymentState::Broadcast => {}
        }
        let current = first.txid.ok_or(BumpError::Unknown)?;
        let live = self.live_transactions()?;
        let tx = live.iter().find(|tx| tx.compute_txid() == current).ok_or(BumpError::Unknown)?;
        let spends = |child: &&Arc<Transaction>| child.input.iter().any(|input| input.previous_output.txid == current);
        if let Some(child) = live.iter().find(spends) {
            return Err(BumpError::Spent { by: child.compute_txid() });
        }
        let fee_sat: u64 = payments.iter().filter_map(|payment| payment.fee_sat).sum();
        let change = tx.output.iter().find(|output| {
            let keychain = self.wallet.spk_index().index_of_spk(output.script_pubkey.clone());
            matches!(keychain, Some((KeychainKind::Internal, _)))
        });
        Ok(Stuck {
            txid: current,
            // Rounded up, so that what is more than this is more than the rate.
            rate: FeeRate::from_sat_per_kwu((fee_sat * 1000).div_ceil(tx.weight().to_wu().max(1))),
            change: change.map(|output| output.script_pubkey.clone()),
            payments,
            fee_sat,
        })
    }

    /// Builds the replacement, dear enough to be relayed in the place of what it replaces.
    fn build_bump(
        &mut self,
        stuck: &Stuck,
        wanted: Option<FeeRate>,
        fee: &Fee,
        change: ScriptBuf,
    ) -> Result<Psbt, BumpError> {
        let least = FeeRate::from_sat_per_kwu(stuck.rate.to_sat_per_kwu() + INCREMENT.to_sat_per_kwu());
        let wanted = match wanted {
            Some(rate) if rate < least => {
                return Err(BumpError::RateTooLow { least_sat_vb: least.to_sat_per_vb_ceil() });
            }
            Some(rate) => rate,
            None => fee.rate.max(least),
        };
        if wanted > fee.ceiling {
            let (rate_sat_vb, ceiling_sat_vb) = (wanted.to_sat_per_vb_ceil(), fee.ceiling.to_sat_per_vb_floor());
            return Err(BumpError::AboveCeiling { rate_sat_vb, ceiling_sat_vb });
        }
        for more in 0..TRIES {
            let rate =
                FeeRate::from_sat_per_kwu(wanted.to_sat_per_kwu() + u64::from(more) * INCREMENT.to_sat_per_kwu());
            let psbt = self.under_ceiling(&Fee { rate, ..*fee }, |state, rate| {
                state.replacement(stuck.txid, rate.max(least), change.clone())
            })?;
            let fee_sat = psbt.fee().map_err(|_| PayError::Unsignable)?.to_sat();
            // Signatures may weigh a little more than the least.
            let vbytes = least_weight(&psbt).to_vbytes_ceil().saturating_add(psbt.inputs.len() as u64 * 2);
            if fee_sat >= stuck.fee_sat.saturating_add(vbytes) {
                return Ok(psbt);
            }
        }
        Err(PayError::Unsignable.into())
    }

    fn replacement(&mut self, replaced: Txid, rate: FeeRate, change: ScriptBuf) -> Result<Psbt, PayError> {
        let mut unspendable = self.unspendable()?;
        unspendable.extend(self.beaten_coins()?);
        // New coins of a replacement must be confirmed (BIP125 rule 2).
        let unconfirmed = self.wallet.list_unspent().filter(|coin| coin.chain_position.is_unconfirmed());
        unspendable.extend(unconfirmed.map(|coin| coin.outpoint));
        let mut builder = self.wallet.build_fee_bump(replaced).map_err(|_| PayError::Unsignable)?;
        builder.fee_rate(rate).unspendable(unspendable).drain_to(change);
        builder.finish().map_err(not_built)
    }
}

impl Stuck {
    fn bump(&self, txid: Option<Txid>, fee_sat: u64, weight: Weight) -> Bump {
        Bump {
            replaces: self.txid,
            txid,
            payments: self.payments.iter().map(|payment| payment.id).collect(),
            amount_sat: self.payments.iter().map(|payment| payment.sat).sum(),
            old_fee_sat: self.fee_sat,
            fee_sat,
            rate_sat_vb: fee_sat.div_ceil(weight.to_vbytes_ceil().max(1)),
        }
    }
}

/// Why nothing was bumped.
#[derive(Debug, thiserror::Error)]
pub enum BumpError {
    #[error("no payment of this wallet has that transaction")]
    Unknown,
    #[error("it is in block {height} already: there is nothing to bump")]
    Confirmed { height: u32 },
    #[error("{by}, which this wallet did not make, spends its coins")]
    Rival { by: Txid },
    #[error("its change is spent by {by}: bump that one, a miner takes both for its fee")]
    Spent { by: Txid },
    #[error("it funds a channel, which would be another one if it were replaced")]
    Channel,
    #[error("too little: a replacement pays at least {least_sat_vb} sat/vB here")]
    RateTooLow { least_sat_vb: u64 },
    #[error("it would pay {rate_sat_vb} sat/vB, above the ceiling of {ceiling_sat_vb} sat/vB")]
    AboveCeiling { rate_sat_vb: u64, ceiling_sat_vb: u64 },
    #[error(transparent)]
    Pay(#[from] PayError),
}

impl From<StoreError> for BumpError {
    fn from(error: StoreError) -> Self {
        Self::Pay(error.into())
    }
}

impl From<crate::status::Closed> for BumpError {
    fn from(error: crate::status::Closed) -> Self {
        Self::Pay(error.into())
    }
}
