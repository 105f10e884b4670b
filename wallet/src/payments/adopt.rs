//! Transactions of ours that no payment knows: they were made after the copy that this wallet comes from.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bdk_wallet::rusqlite::params;
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, Txid};

use super::{Payment, PaymentState, Terms, changed_payments, pay, write_state};
use crate::state::{State, StoreError};
use crate::view::View;

impl State {
    /// The payment of these terms, if it is made: known, or by a transaction of ours that pays just this and that no
    /// payment knows. Only for an address that nobody else pays to: else another payment would pass for this one.
    ///
    /// # Errors
    ///
    /// When the file can't be read or written.
    pub(crate) fn adopt(&mut self, terms: &Terms, now_ms: u64) -> Result<Option<Payment>, StoreError> {
        let known = self.payment(terms.id)?.filter(|known| known.state != PaymentState::Intent);
        if known.is_some() {
            return Ok(known);
        }
        let Some(tx) = self.unknown_payment(terms)? else { return Ok(None) };
        self.insert_intents(std::slice::from_ref(terms), now_ms)?;
        self.add_version(std::slice::from_ref(terms), &tx)?;
        self.judge_payments()?;
        self.payment(terms.id)
    }

    /// Takes each transaction that stands in the way of payments of ours for a version of theirs, where it pays the same:
    /// they were bumped after the copy was made.
    ///
    /// # Errors
    ///
    /// When the file can't be read or written.
    pub(crate) fn adopt_rivals(&mut self) -> Result<(), StoreError> {
        let tip = self.wallet.latest_checkpoint().height();
        let mut beaten: BTreeMap<Txid, Vec<Terms>> = BTreeMap::new();
        for open in self.open_payments(tip)? {
            if let PaymentState::Replaced { by } | PaymentState::Conflicted { by } = open.payment.state {
                beaten.entry(by).or_default().push(Terms::of(&open.payment));
            }
        }
        for (by, terms) in beaten {
            let rival = self.wallet.tx_graph().get_tx(by);
            if let Some(rival) = rival.filter(|tx| self.is_ours(tx))
                && !self.is_known(by)?
            {
                self.add_version(&terms, &rival)?;
            }
        }
        self.judge_payments()
    }

    fn unknown_payment(&self, terms: &Terms) -> Result<Option<Arc<Transaction>>, StoreError> {
        let pays = |tx: &Transaction| pay::versions(std::slice::from_ref(terms), tx, 0).is_some();
        for found in self.wallet.transactions() {
            let tx = &found.tx_node.tx;
            if pays(tx) && self.is_ours(tx) && !self.is_known(found.tx_node.txid)? {
                return Ok(Some(Arc::clone(tx)));
            }
        }
        Ok(None)
    }

    /// Stores a transaction as a version of these payments; nothing where it does not pay all of them.
    fn add_version(&mut self, terms: &[Terms], tx: &Transaction) -> Result<(), StoreError> {
        let fee_sat = self.wallet.calculate_fee(tx).map_or(0, bitcoin::Amount::to_sat);
        match pay::versions(terms, tx, fee_sat) {
            Some(parts) => self.insert_version(&parts, tx),
            None => Ok(()),
        }
    }

    /// Brings the rows of all payments up to date with what the wallet sees.
    fn judge_payments(&mut self) -> Result<(), StoreError> {
        let changed = {
            let view = View::of(&self.wallet);
            let seen: HashSet<Txid> = self.wallet.transactions().map(|found| found.tx_node.txid).collect();
            changed_payments(self.open_payments(view.tip)?, &view, &seen)
        };
        self.commit(|tx| changed.iter().try_for_each(|payment| write_state(tx, payment)))
    }

    fn is_ours(&self, tx: &Transaction) -> bool {
        self.wallet.sent_and_received(tx).0 > bitcoin::Amount::ZERO
    }

    fn is_known(&self, txid: Txid) -> Result<bool, StoreError> {
        let mut query = self.db.prepare_cached("SELECT 1 FROM pedlar_transactions WHERE txid = ?1")?;
        Ok(query.exists(params![txid.to_byte_array()])?)
    }
}
