//! Where each transaction of the wallet stands at one moment.

use std::collections::HashMap;

use bdk_wallet::Wallet;
use bdk_wallet::chain::{CanonicalizationParams, ChainPosition, ConfirmationBlockTime};
use bitcoin::{BlockHash, Transaction, Txid};

/// A snapshot of the tip and of where each valid transaction stands that the wallet knows, also of those that move none of
/// its coins: what ends a channel may not.
pub(crate) struct View<'a> {
    wallet: &'a Wallet,
    pub(crate) tip: u32,
    standing: HashMap<Txid, ChainPosition<ConfirmationBlockTime>>,
}

/// Where one transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Confirmed {
        height: u32,
        block_hash: BlockHash,
        /// 1 in the tip; not capped.
        depth: u32,
    },
    Unconfirmed,
    /// Another transaction spends one of its inputs.
    Replaced {
        by: Txid,
        confirmed: bool,
    },
    /// Neither in a block nor in the mempool that was seen last, and nothing known took its place.
    Gone,
}

impl<'a> View<'a> {
    pub(crate) fn of(wallet: &'a Wallet) -> Self {
        let tip = wallet.latest_checkpoint().block_id();
        let valid = wallet.tx_graph().list_canonical_txs(wallet.local_chain(), tip, CanonicalizationParams::default());
        let standing = valid.map(|tx| (tx.tx_node.txid, tx.chain_position)).collect();
        Self { wallet, tip: tip.height, standing }
    }

    pub(crate) fn standing(&self, txid: Txid) -> Standing {
        let tx = || self.wallet.tx_graph().get_tx(txid);
        self.valid(txid).unwrap_or_else(|| tx().map_or(Standing::Gone, |tx| self.rival(&tx)))
    }

    /// Where a transaction stands that the wallet may not know, because it moves none of its coins.
    pub(crate) fn standing_of(&self, tx: &Transaction) -> Standing {
        self.valid(tx.compute_txid()).unwrap_or_else(|| self.rival(tx))
    }

    fn valid(&self, txid: Txid) -> Option<Standing> {
        Some(match self.standing.get(&txid)? {
            ChainPosition::Confirmed { anchor, .. } => Standing::Confirmed {
                height: anchor.block_id.height,
                block_hash: anchor.block_id.hash,
                depth: (self.tip + 1).saturating_sub(anchor.block_id.height),
            },
            ChainPosition::Unconfirmed { .. } => Standing::Unconfirmed,
        })
    }

    fn rival(&self, tx: &Transaction) -> Standing {
        let rivals = self.wallet.tx_graph().direct_conflicts(tx);
        let valid = rivals.filter_map(|(_, by)| self.standing.get(&by).map(|position| (by, position.is_confirmed())));
        // Several are possible where it spends several coins: one in a block decides.
        let first = valid.max_by_key(|&(by, confirmed)| (confirmed, by));
        first.map_or(Standing::Gone, |(by, confirmed)| Standing::Replaced { by, confirmed })
    }
}
