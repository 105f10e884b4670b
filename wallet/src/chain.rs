//! How news from a server change what the wallet believes, and what it believes of the past.

use std::collections::HashSet;
use std::sync::Arc;

use bdk_wallet::chain::ChainPosition;
use bdk_wallet::chain::spk_client::SyncRequest;
use bdk_wallet::{KeychainKind, Update, WalletTx};
use bitcoin::{Amount, Transaction, Txid};

use crate::events::EventKey;
use crate::network::MAX_HEIGHT;
use crate::payments::{Paid, changed_payments, write_state};
use crate::state::{State, StoreError};
use crate::view::{Standing, View};
use crate::watch::write_incoming;

/// What an update from the server changed.
#[derive(Debug)]
pub(crate) struct Absorbed {
    /// Snapshots to be reported.
    pub(crate) changed: Vec<EventKey>,
    /// A block that the wallet knew is no longer part of the chain.
    pub(crate) reorged: bool,
    /// Transactions of live payments that the server named.
    pub(crate) listed: Vec<Txid>,
    /// Those that it didn't name.
    pub(crate) unlisted: Vec<Txid>,
}

/// A transaction of the wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    pub txid: Txid,
    /// To addresses of this wallet, change included.
    pub received_sat: u64,
    /// From coins of this wallet.
    pub sent_sat: u64,
    /// Known where all inputs are ours.
    pub fee_sat: Option<u64>,
    /// `None` while unconfirmed.
    pub height: Option<u32>,
    /// The block's time, or when it was first seen, in ms since the epoch.
    pub time_ms: Option<u64>,
    /// What it pays under which id; empty for what came in.
    pub payments: Vec<Paid>,
}

impl State {
    /// Asks for the history of every address ever shown and of every channel that is looked at, and for the tip.
    pub(crate) fn sync_request(&self, now_ms: u64) -> SyncRequest<(KeychainKind, u32)> {
        // No keychain has them; the number only tells requests apart.
        let channels = self.channel_scripts().into_iter().map(|spk| ((KeychainKind::Internal, u32::MAX), spk));
        let request = self.wallet.start_sync_with_revealed_spks_at(now_ms / 1000).spks_with_indexes(channels);
        request.expected_spk_txids(self.expected_of_channels()).build()
    }

    /// All transactions of the wallet, so that a server isn't asked for them again.
    pub(crate) fn known_transactions(&self) -> Vec<Arc<Transaction>> {
        self.wallet.tx_graph().full_txs().map(|node| node.tx).collect()
    }

    /// Takes in what the server said and brings every payment's row up to date, in one transaction.
    ///
    /// # Errors
    ///
    /// [`AbsorbError::Implausible`] when it can't be true; then nothing of it is taken in.
    pub(crate) fn absorb(&mut self, update: impl Into<Update>, now_ms: u64) -> Result<Absorbed, AbsorbError> {
        let update = update.into();
        if !self.is_plausible(&update) {
            return Err(AbsorbError::Implausible);
        }
        let found = &update.tx_update;
        let listed: HashSet<Txid> =
            found.seen_ats.iter().map(|&(txid, _)| txid).chain(found.anchors.iter().map(|&(_, txid)| txid)).collect();
        let old_tip = self.wallet.latest_checkpoint().block_id();
        self.wallet.apply_update(update).map_err(|_| AbsorbError::Implausible)?;
        let live = self.live_transactions()?;
        self.keep_own(&live)?;
        let (payments, incoming, channels) = {
            let view = View::of(&self.wallet);
            let payments = changed_payments(self.open_payments(view.tip)?, &view, &listed);
            (payments, self.changed_incoming(&view)?, self.judge_channels(&view)?)
        };
        self.commit(|tx| {
            payments.iter().try_for_each(|payment| write_state(tx, payment))?;
            channels.write(tx)?;
            incoming.iter().try_for_each(|incoming| write_incoming(tx, incoming, now_ms))
        })?;
        let keys = payments.iter().map(|p| EventKey::Outgoing(p.id));
        let keys = keys.chain(incoming.iter().map(|i| EventKey::Incoming(i.outpoint)));
        let keys = keys.chain(self.tell_channels(channels));
        let moved = self.wallet.latest_checkpoint().block_id() != old_tip;
        let (here, away) = live.iter().map(|tx| tx.compute_txid()).partition(|txid| listed.contains(txid));
        Ok(Absorbed {
            changed: keys.chain(moved.then_some(EventKey::Tip)).collect(),
            reorged: self.wallet.local_chain().get(old_tip.height).is_none_or(|b| b.hash() != old_tip.hash),
            listed: here,
            unlisted: away,
        })
    }

    /// Whether heights and amounts are such that the libraries can be given them: a server can invent transactions, and
    /// sums of amounts panic when they overflow.
    fn is_plausible(&self, update: &Update) -> bool {
        let news = &update.tx_update;
        let confirmed: HashSet<Txid> = news.anchors.iter().map(|&(_, txid)| txid).collect();
        let mut counted: HashSet<Txid> = news.evicted_ats.iter().map(|&(txid, _)| txid).collect();
        let believed =
            self.wallet.transactions().map(|tx| (tx.tx_node.txid, tx.tx_node.tx, tx.chain_position.is_confirmed()));
        let graph = self.wallet.tx_graph();
        let revived = news.seen_ats.iter().map(|(txid, _)| txid).filter_map(|txid| graph.get_tx(*txid));
        let named = news.txs.iter().cloned().chain(revived).map(|tx| {
            let txid = tx.compute_txid();
            (txid, tx, confirmed.contains(&txid))
        });
        // What is believed from now on: all of it must be countable, and what waits for a block can't be more than there is.
        let sums = believed.chain(named).filter(|(txid, ..)| counted.insert(*txid)).try_fold(
            (Amount::ZERO, Amount::ZERO),
            |(all, waiting), (_, tx, is_confirmed)| {
                let (total, none) = (total_out(&tx)?, Amount::ZERO);
                let waits = if is_confirmed { none } else { total };
                Some((all.checked_add(total)?, waiting.checked_add(waits)?))
            },
        );
        update.chain.as_ref().is_none_or(|tip| tip.height() <= MAX_HEIGHT)
            && sums.is_some_and(|(_, waiting)| waiting <= Amount::MAX_MONEY)
    }

    /// Keeps live payments in the wallet's view although the server doesn't name them, or names an older version: they
    /// will be sent again, so their change is ours and their coins are not.
    fn keep_own(&mut self, live: &[Arc<Transaction>]) -> Result<(), StoreError> {
        let versions: HashSet<Txid> = self.live_versions()?.iter().map(|tx| tx.compute_txid()).collect();
        let view = View::of(&self.wallet);
        let graph = self.wallet.tx_graph();
        let again = |tx: &Arc<Transaction>| {
            let txid = tx.compute_txid();
            let beaten_at = match view.standing(txid) {
                Standing::Gone => graph.get_last_evicted(txid),
                Standing::Replaced { by, confirmed: false } if versions.contains(&by) => {
                    graph.get_tx_node(by).and_then(|node| node.last_seen).max(graph.get_last_evicted(txid))
                }
                Standing::Confirmed { .. } | Standing::Unconfirmed | Standing::Replaced { .. } => return None,
            };
            Some((tx.clone(), beaten_at.unwrap_or_default().saturating_add(1)))
        };
        let again: Vec<_> = live.iter().filter_map(again).collect();
        self.wallet.apply_unconfirmed_txs(again);
        Ok(())
    }

    /// All transactions that the wallet believes in, in no order.
    pub(crate) fn history(&self) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut paid = self.paid_by()?;
        let entry = |tx: WalletTx<'_>| {
            let (sent, received) = self.wallet.sent_and_received(&tx.tx_node.tx);
            let (height, time_s) = match tx.chain_position {
                ChainPosition::Confirmed { anchor, .. } => {
                    (Some(anchor.block_id.height), Some(anchor.confirmation_time))
                }
                ChainPosition::Unconfirmed { first_seen, .. } => (None, first_seen),
            };
            HistoryEntry {
                txid: tx.tx_node.txid,
                received_sat: received.to_sat(),
                sent_sat: sent.to_sat(),
                fee_sat: self.wallet.calculate_fee(&tx.tx_node.tx).ok().map(|fee| fee.to_sat()),
                height,
                time_ms: time_s.map(|s| s.saturating_mul(1000)),
                payments: paid.remove(&tx.tx_node.txid).unwrap_or_default(),
            }
        };
        Ok(self.wallet.transactions().map(entry).collect())
    }
}

/// What a transaction pays, or `None` for more than can exist.
fn total_out(tx: &Transaction) -> Option<Amount> {
    let mut values = tx.output.iter().map(|output| output.value);
    values.try_fold(Amount::ZERO, Amount::checked_add).filter(|&total| total <= Amount::MAX_MONEY)
}

/// Why an update from the server was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AbsorbError {
    #[error("the server's blocks don't connect to ours, or its heights or amounts can't be")]
    Implausible,
    #[error(transparent)]
    Store(#[from] StoreError),
}
