//! The choice of coins and fee, and the signature.

use std::collections::HashSet;

use bdk_wallet::error::CreateTxError;
use bdk_wallet::{KeychainKind, SignOptions};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, FeeRate, Psbt, ScriptBuf, Transaction, WPubkeyHash};

use super::{OutPoint, PayError, Terms};
use crate::state::{State, StoreError};

/// One coin in, payee and change out, all P2WPKH: what a payment costs when nobody can say which coins it will have.
const TYPICAL_VBYTES: u64 = 141;

impl State {
    /// The transaction of `terms` with its fee in sat, signed; nothing is stored.
    pub(super) fn build_and_sign(&mut self, terms: &Terms, rate: FeeRate) -> Result<(Transaction, u64), PayError> {
        let mut psbt = self.build(terms.address.script_pubkey(), terms.sat, rate, Change::Revealed)?;
        let fee_sat = psbt.fee().map_err(|_| PayError::Unsignable)?.to_sat();
        if fee_sat > terms.max_fee_sat {
            return Err(PayError::FeeAboveLimit { fee_sat, max_fee_sat: terms.max_fee_sat });
        }
        self.sign(&mut psbt)?;
        let tx = psbt.extract_tx().map_err(|_| PayError::Unsignable)?;
        Ok((tx, fee_sat))
    }

    /// What the fee of a payment of `sat` would be now, in sat, also when there are no coins for it.
    pub(crate) fn estimate_fee(&mut self, sat: u64, rate: FeeRate) -> Result<u64, StoreError> {
        let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros());
        // More than can exist would overflow the library's sums.
        match self.build(to, sat.min(Amount::MAX_MONEY.to_sat()), rate, Change::Dry) {
            Ok(psbt) => Ok(psbt.fee().map_or_else(|_| typical_fee(rate), Amount::to_sat)),
            Err(PayError::Store(e)) => Err(e),
            Err(_) => Ok(typical_fee(rate)),
        }
    }

    /// Checks what needs no choice of coins.
    pub(super) fn check(&self, terms: &Terms) -> Result<(), PayError> {
        if !self.network.has(&terms.address) {
            return Err(PayError::OtherNetwork { expected: self.network });
        }
        let min_sat = terms.address.script_pubkey().minimal_non_dust().to_sat();
        if terms.sat < min_sat {
            return Err(PayError::Dust { min_sat });
        }
        if terms.sat > Amount::MAX_MONEY.to_sat() {
            return Err(PayError::Short { have_sat: self.wallet.balance().total().to_sat(), need_sat: terms.sat });
        }
        Ok(())
    }

    fn build(&mut self, to: ScriptBuf, sat: u64, rate: FeeRate, change: Change) -> Result<Psbt, PayError> {
        let unspendable = self.unspendable()?;
        let dry_change = self.wallet.peek_address(KeychainKind::Internal, 0).script_pubkey();
        let mut builder = self.wallet.build_tx();
        builder.add_recipient(to, Amount::from_sat(sat)).fee_rate(rate).unspendable(unspendable);
        if matches!(change, Change::Dry) {
            builder.drain_to(dry_change);
        }
        builder.finish().map_err(|e| match e {
            CreateTxError::CoinSelection(short) => {
                PayError::Short { have_sat: short.available.to_sat(), need_sat: short.needed.to_sat() }
            }
            _ => PayError::Unsignable,
        })
    }

    /// Coins that must not be chosen: those of live payments, whatever the server says of them, and what strangers
    /// sent and may still take back.
    fn unspendable(&self) -> Result<Vec<OutPoint>, StoreError> {
        let live = self.live_transactions()?;
        let ours: HashSet<_> = live.iter().map(|(_, tx)| tx.compute_txid()).collect();
        let reserved = live.iter().flat_map(|(_, tx)| tx.input.iter().map(|input| input.previous_output));
        let foreign = self
            .wallet
            .list_unspent()
            .filter(|coin| coin.chain_position.is_unconfirmed() && !ours.contains(&coin.outpoint.txid))
            .map(|coin| coin.outpoint);
        Ok(reserved.chain(foreign).collect())
    }

    fn sign(&self, psbt: &mut Psbt) -> Result<(), PayError> {
        let mut master = self.keys.master(self.network.into()).map_err(|_| PayError::Unsignable)?;
        let signed = psbt.sign(&master, self.wallet.secp_ctx());
        master.private_key.non_secure_erase();
        signed.map_err(|_| PayError::Unsignable)?;
        match self.wallet.finalize_psbt(psbt, SignOptions::default()) {
            Ok(true) => Ok(()),
            _ => Err(PayError::Unsignable),
        }
    }
}

/// Where change goes.
enum Change {
    /// To the next change address, which is used up.
    Revealed,
    /// Nowhere: the transaction is only measured.
    Dry,
}

fn typical_fee(rate: FeeRate) -> u64 {
    rate.fee_vb(TYPICAL_VBYTES).map_or(u64::MAX, Amount::to_sat)
}
