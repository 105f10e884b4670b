//! The choice of coins and fee, and the signature.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bdk_wallet::error::CreateTxError;
use bdk_wallet::{KeychainKind, SignOptions};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, FeeRate, Psbt, ScriptBuf, Transaction, Txid, WPubkeyHash, Weight};

use super::{OutPoint, PayError, Terms};
use crate::state::{State, StoreError};

/// One coin in, payee and change out, all P2WPKH: what a payment costs when nobody can say which coins it will have.
const TYPICAL_VBYTES: u64 = 141;
/// What each further payee adds: a P2WPKH output.
const PAYEE_VBYTES: u64 = 31;
/// The heaviest transaction that is relayed (Core's `MAX_STANDARD_TX_WEIGHT`).
const MAX_WEIGHT: Weight = Weight::from_wu(400_000);
/// The least that a P2WPKH witness weighs: of 2^24 signatures one is shorter.
const MIN_WITNESS: Weight = Weight::from_wu(105);
/// How much more it may weigh, which is what the fee is computed for.
const WITNESS_SLACK: u64 = 4;
/// How often a lower rate is tried where a leftover too small for change would lift the fee above the ceiling.
const TRIES_UNDER_CEILING: u32 = 24;

/// What may be paid to the miners.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fee {
    /// The rate to pay.
    pub(crate) rate: FeeRate,
    /// The owner's ceiling: nothing is signed above, whoever asks.
    pub(crate) ceiling: FeeRate,
    /// The most for this transaction, as whoever asks says, in sat.
    pub(crate) max_sat: u64,
}

impl State {
    /// The transaction that pays all of `terms`, with its fee in sat, signed; nothing is stored.
    pub(super) fn build_and_sign(&mut self, terms: &[Terms], fee: &Fee) -> Result<(Transaction, u64), PayError> {
        let payees: Vec<_> = terms.iter().map(|to| (to.address.script_pubkey(), Amount::from_sat(to.sat))).collect();
        // Shown to nobody yet and used up only by what is signed: another try gets the same.
        let change = self.wallet.next_unused_address(KeychainKind::Internal).script_pubkey();
        let psbt = self.under_ceiling(fee, |state, rate| state.build(&payees, rate, change.clone()))?;
        self.sign(psbt, fee)
    }

    /// What the fee of one transaction with a payment of each of `amounts` (sat) would be now, in sat, also when there
    /// are no coins for it.
    pub(crate) fn estimate_fee(&mut self, amounts: &[u64], fee: &Fee) -> Result<u64, StoreError> {
        let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros());
        // More than can exist would overflow the library's sums.
        let most = Amount::MAX_MONEY.to_sat() / u64::try_from(amounts.len().max(1)).unwrap_or(u64::MAX);
        let payees: Vec<_> = amounts.iter().map(|&sat| (to.clone(), Amount::from_sat(sat.min(most)))).collect();
        let change = self.dry_change();
        let typical = || typical_fee(fee.rate.min(fee.ceiling), amounts.len());
        match self.under_ceiling(fee, |state, rate| state.build(&payees, rate, change.clone())) {
            Ok(psbt) => Ok(psbt.fee().map_or_else(|_| typical(), Amount::to_sat)),
            Err(PayError::Store(e)) => Err(e),
            Err(_) => Ok(typical()),
        }
    }

    /// Builds at the wanted rate or, where that would break the ceiling, at a lower one.
    ///
    /// A leftover too small for change goes to the miners and lifts the rate; at a lower rate it is change.
    pub(super) fn under_ceiling(
        &mut self,
        fee: &Fee,
        mut build: impl FnMut(&mut Self, FeeRate) -> Result<Psbt, PayError>,
    ) -> Result<Psbt, PayError> {
        let mut rate = fee.rate.min(fee.ceiling);
        let mut fee_sat = 0;
        for _ in 0..TRIES_UNDER_CEILING {
            let psbt = build(self, rate)?;
            let least = least_weight(&psbt);
            if least > MAX_WEIGHT {
                return Err(PayError::TooHeavy);
            }
            fee_sat = psbt.fee().map_err(|_| PayError::Unsignable)?.to_sat();
            // The lowest rate is taken with what signatures may weigh: below, nothing is relayed.
            let slack = if rate > FeeRate::BROADCAST_MIN { 0 } else { WITNESS_SLACK * psbt.inputs.len() as u64 };
            if fee.ceiling.fee_wu(least + Weight::from_wu(slack)).is_some_and(|most| fee_sat <= most.to_sat()) {
                return Ok(psbt);
            }
            let kwu = rate.to_sat_per_kwu();
            rate = FeeRate::from_sat_per_kwu(kwu.saturating_sub(kwu / 64 + 1)).max(FeeRate::BROADCAST_MIN);
        }
        Err(PayError::AboveCeiling { fee_sat, ceiling_sat_vb: fee.ceiling.to_sat_per_vb_floor() })
    }

    fn build(&mut self, to: &[(ScriptBuf, Amount)], rate: FeeRate, change: ScriptBuf) -> Result<Psbt, PayError> {
        let mut unspendable = self.unspendable()?;
        unspendable.extend(self.beaten_coins()?);
        let mut builder = self.wallet.build_tx();
        builder.set_recipients(to.to_vec()).fee_rate(rate).unspendable(unspendable).drain_to(change);
        builder.finish().map_err(not_built)
    }

    /// Coins that must not be chosen: those of live payments, whatever the server says of them; what strangers sent and
    /// may still take back; the change of a payment that was bumped, since an older version may be mined instead; what the
    /// end of a channel brings, since what spends it would make raising its fee dear.
    pub(crate) fn unspendable(&self) -> Result<Vec<OutPoint>, StoreError> {
        let versions = self.live_versions()?;
        let mut spenders: HashMap<OutPoint, usize> = HashMap::new();
        for input in versions.iter().flat_map(|tx| &tx.input) {
            *spenders.entry(input.previous_output).or_default() += 1;
        }
        let alone =
            |tx: &&Arc<Transaction>| tx.input.iter().all(|input| spenders.get(&input.previous_output) == Some(&1));
        let ends: HashSet<Txid> = self.live_ends(false)?.iter().map(Transaction::compute_txid).collect();
        let safe: HashSet<Txid> =
            versions.iter().filter(alone).map(|tx| tx.compute_txid()).filter(|txid| !ends.contains(txid)).collect();
        let waiting = self
            .wallet
            .list_unspent()
            .filter(|coin| coin.chain_position.is_unconfirmed() && !safe.contains(&coin.outpoint.txid))
            .map(|coin| coin.outpoint);
        let waiting: Vec<_> = waiting.collect();
        Ok(spenders.into_keys().chain(waiting).collect())
    }

    /// The address that change of a transaction goes to which is only measured.
    pub(super) fn dry_change(&self) -> ScriptBuf {
        self.wallet.peek_address(KeychainKind::Internal, 0).script_pubkey()
    }

    /// The transaction with its fee in sat, signed, if that is within the limits of `fee`.
    pub(super) fn sign(&self, mut psbt: Psbt, fee: &Fee) -> Result<(Transaction, u64), PayError> {
        let fee_sat = psbt.fee().map_err(|_| PayError::Unsignable)?.to_sat();
        if fee_sat > fee.max_sat {
            return Err(PayError::FeeAboveLimit { fee_sat, max_fee_sat: fee.max_sat });
        }
        let mut master = self.keys.master(self.network.into()).map_err(|_| PayError::Unsignable)?;
        let signed = psbt.sign(&master, self.wallet.secp_ctx());
        master.private_key.non_secure_erase();
        signed.map_err(|_| PayError::Unsignable)?;
        match self.wallet.finalize_psbt(&mut psbt, SignOptions::default()) {
            Ok(true) => {}
            _ => return Err(PayError::Unsignable),
        }
        let tx = psbt.extract_tx().map_err(|_| PayError::Unsignable)?;
        Ok((tx, fee_sat))
    }
}

/// The least that the transaction can weigh once it is signed.
pub(super) fn least_weight(psbt: &Psbt) -> Weight {
    let tx = &psbt.unsigned_tx;
    let inputs = u64::try_from(tx.input.len()).unwrap_or(u64::MAX);
    // Two more for the marker and flag that only a witness brings.
    tx.weight() + Weight::from_wu(2) + MIN_WITNESS.checked_mul(inputs).unwrap_or(Weight::MAX)
}

pub(super) fn not_built(error: CreateTxError) -> PayError {
    match error {
        CreateTxError::CoinSelection(short) => {
            PayError::Short { have_sat: short.available.to_sat(), need_sat: short.needed.to_sat() }
        }
        _ => PayError::Unsignable,
    }
}

fn typical_fee(rate: FeeRate, payees: usize) -> u64 {
    let more = u64::try_from(payees.saturating_sub(1)).unwrap_or(u64::MAX);
    let vbytes = TYPICAL_VBYTES.saturating_add(more.saturating_mul(PAYEE_VBYTES));
    rate.fee_vb(vbytes).map_or(u64::MAX, Amount::to_sat)
}
