//! A buyer and a seller whose servers are played by hand.

use bitcoin::FeeRate;
use bitcoin::consensus::encode::deserialize;

use super::*;
use crate::payments::Fee;
use crate::tests::Feed;

pub(super) const FEE: Fee = fee(2);
pub(super) const END: u32 = 40;

pub(super) const fn fee(sat_vb: u32) -> Fee {
    Fee { rate: FeeRate::from_sat_per_vb_u32(sat_vb), ceiling: FeeRate::from_sat_per_vb_u32(100), max_sat: 10_000 }
}

pub(super) fn id(number: u8) -> ChannelId {
    ChannelId([number; 32])
}

/// A buyer and a seller, each with a wallet and a view of the chain of its own.
pub(super) struct Two {
    pub(super) buyer: Feed,
    pub(super) seller: Feed,
}

impl Two {
    pub(super) fn new() -> Self {
        let mut two = Self { buyer: Feed::new(), seller: Feed::other() };
        (0..3).for_each(|_| drop(two.buyer.fund(100_000)));
        (0..3).for_each(|_| drop(two.seller.fund(10_000)));
        two
    }

    pub(super) fn terms(&mut self, number: u8) -> Terms {
        let buyer = self.buyer.state.channel_key(id(number), Role::Buyer).unwrap();
        let seller = self.seller.state.channel_key(id(number), Role::Seller).unwrap();
        Terms {
            buyer_pk: buyer.public_key,
            seller_pk: seller.public_key,
            capacity_sat: CAPACITY,
            expiry_height: END,
            change_spk: buyer.change_spk.unwrap(),
            close_fee_sat: 1_000,
        }
    }

    /// A funded channel that waits for its block.
    pub(super) fn open(&mut self, number: u8) -> Transaction {
        let terms = self.terms(number);
        let now_ms = self.buyer.now_ms();
        let funding = self.buyer.state.fund_channel(id(number), &terms, &FEE, now_ms).unwrap();
        let watched = self.seller.state.watch_channel(id(number), &terms, &funding.raw, funding.outpoint.vout);
        assert_eq!(watched.unwrap(), funding.outpoint);
        self.judge();
        deserialize(&funding.raw).unwrap()
    }

    /// A channel whose funding is in a block.
    pub(super) fn opened(&mut self, number: u8) {
        let funding = self.open(number);
        self.mine(&[&funding]);
    }

    pub(super) fn mine(&mut self, txs: &[&Transaction]) {
        self.buyer.mine(txs);
        self.seller.mine(txs);
    }

    /// Empty blocks up to this height.
    pub(super) fn reach(&mut self, end: u32) {
        for feed in [&mut self.buyer, &mut self.seller] {
            let height = feed.state.wallet.latest_checkpoint().height();
            feed.blocks_of(end - height);
        }
    }

    /// As the wallet thread does after each command.
    pub(super) fn judge(&mut self) {
        self.buyer.state.judge_now().unwrap();
        self.seller.state.judge_now().unwrap();
    }

    pub(super) fn voucher(&mut self, number: u8, cum_sat: u64) -> Voucher {
        self.buyer.state.sign_voucher(id(number), cum_sat).unwrap()
    }

    pub(super) fn close(&mut self, closes: &[(ChannelId, Voucher)], sat_vb: u32) -> Result<Transaction, EndError> {
        let now_ms = self.seller.now_ms();
        let ending = self.seller.state.close_channels(closes, &fee(sat_vb), now_ms)?;
        let tx: Transaction = deserialize(&ending.raw).unwrap();
        assert_eq!(ending.vbytes, tx.vsize() as u64);
        assert!(is_live(&self.seller, &tx), "it is to be sent");
        self.judge();
        Ok(tx)
    }

    pub(super) fn facts(&self, number: u8) -> [ChannelFact; 2] {
        [&self.buyer, &self.seller].map(|feed| fact(feed, number))
    }

    /// How both see the end of a channel.
    pub(super) fn end(&self, number: u8) -> ChannelEnd {
        let [buyer, seller] = self.facts(number).map(|fact| fact.end.unwrap());
        assert_eq!((buyer.txid, buyer.shares, buyer.state), (seller.txid, seller.shares, seller.state));
        seller
    }
}

pub(super) fn fact(feed: &Feed, number: u8) -> ChannelFact {
    feed.state.channel_fact(id(number), 0).unwrap()
}

pub(super) fn is_live(feed: &Feed, tx: &Transaction) -> bool {
    let live = feed.state.live_transaction(tx.compute_txid()).unwrap();
    live.is_some_and(|live| *live == *tx) && feed.state.live_transactions().unwrap().iter().any(|live| **live == *tx)
}

pub(super) fn total_of(feed: &Feed) -> u64 {
    feed.state.wallet.balance().total().to_sat()
}
