//! A chain of blocks without the blocks: which payment stands at which height, and what two wallets say of it.

use libp2p_identity::PeerId;
use pedlar_protocol::account::OutPoint;
use pedlar_protocol::id::{PayeeId, TopUpId};
use pedlar_protocol::market::{Incoming, Outgoing};
use pedlar_protocol::settlement::FINAL_DEPTH;

use crate::dice::Dice;

/// What the network takes for a payment, in sat: 141 vB at 1 sat/vB.
pub(super) const FEE_SAT: u64 = 141;

/// A payment of a buyer to a seller.
#[derive(Debug, Clone)]
pub(super) struct Coin {
    /// The top-up that it fulfils: a wallet pays each once.
    pub(super) id: TopUpId,
    pub(super) buyer: PeerId,
    pub(super) seller: PeerId,
    pub(super) payee: PayeeId,
    pub(super) sat: u64,
    /// The block that holds it, 0 while none does.
    pub(super) height: u64,
    /// Whether it ever was in a block, and whether it ever was final: a reorg takes neither back here.
    pub(super) seen: bool,
    pub(super) settled: bool,
    /// Its coins were spent otherwise after a reorg: it is in no block any more.
    pub(super) undone: bool,
}

/// The best chain, and all that was ever broadcast.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) tip: u64,
    pub(super) coins: Vec<Coin>,
}

/// A payment that has come so far for the first time: who paid whom, how much in msat, and whether it is final.
pub(super) struct Progress {
    pub(super) buyer: PeerId,
    pub(super) seller: PeerId,
    pub(super) msat: u64,
    pub(super) settled: bool,
}

impl Chain {
    pub(super) const fn new() -> Self {
        Self { tip: 100, coins: Vec::new() }
    }

    /// A wallet pays. The same top-up again is the same payment.
    pub(super) fn broadcast(&mut self, id: TopUpId, buyer: PeerId, seller: PeerId, payee: PayeeId, sat: u64) {
        if !self.coins.iter().any(|coin| coin.id == id) {
            self.coins.push(Coin {
                id,
                buyer,
                seller,
                payee,
                sat,
                height: 0,
                seen: false,
                settled: false,
                undone: false,
            });
        }
    }

    /// `blocks` more, the first of them with all that waits.
    pub(super) fn mine(&mut self, blocks: u64) {
        let first = self.tip + 1;
        self.tip += blocks;
        let waiting = self.coins.iter_mut().filter(|coin| coin.height == 0 && !coin.undone);
        waiting.for_each(|coin| coin.height = first);
    }

    /// The newest `depth` blocks are replaced by one more: what was in them waits again, is in another block, or never comes
    /// back. How many payments moved, and how many are undone.
    pub(super) fn reorganise(&mut self, depth: u64, dice: &mut Dice) -> (u64, u64) {
        let (kept, tip) = (self.tip - depth, self.tip + 1);
        let (mut moved, mut undone) = (0, 0);
        for coin in self.coins.iter_mut().filter(|coin| coin.height > kept) {
            coin.undone = dice.below(6) == 0;
            coin.height = if coin.undone || dice.below(3) == 0 { 0 } else { kept + 1 + dice.below(tip - kept) };
            (moved, undone) = (moved + 1, undone + u64::from(coin.undone));
        }
        self.tip = tip;
        (moved, undone)
    }

    /// Payments that have come further than ever before.
    pub(super) fn progress(&mut self) -> Vec<Progress> {
        let tip = self.tip;
        let mut news = Vec::new();
        for coin in self.coins.iter_mut().filter(|coin| coin.height > 0 && !coin.settled) {
            let progress =
                |settled| Progress { buyer: coin.buyer, seller: coin.seller, msat: coin.sat * 1_000, settled };
            if !coin.seen {
                news.push(progress(false));
            }
            let settled = tip + 1 - coin.height >= FINAL_DEPTH.into();
            if settled {
                news.push(progress(true));
            }
            (coin.seen, coin.settled) = (true, settled);
        }
        news
    }

    /// Where a payment stands, as the seller's wallet and the buyer's see it.
    pub(super) fn facts(&self, coin: &Coin) -> (Incoming, Outgoing) {
        let depth = if coin.height == 0 { 0 } else { (self.tip + 1 - coin.height).min(FINAL_DEPTH.into()) as u32 };
        let (outpoint, height, amount_sat) = (OutPoint { txid: coin.id.0, vout: 0 }, coin.height, coin.sat);
        (
            Incoming { payee: coin.payee, outpoint, amount_sat, height, depth },
            Outgoing { id: coin.id, outpoint, amount_sat, fee_sat: FEE_SAT, height, depth, conflicted: coin.undone },
        )
    }
}
