//! A channel under everything that can happen to it, in any order: I14 of MONEY.md over the wallets themselves.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::FeeRate;
use proptest::test_runner::TestRunner;

use super::two::*;
use super::*;
use crate::payments::{PaymentId, Terms as Payment};
use crate::tests::{Feed, stranger};

/// What happens next; what can't happen then is refused.
#[derive(Debug, Clone)]
enum Step {
    Voucher(u64),
    Close(u32),
    Raise(u32),
    /// Both agree on so much, at a fee of whoever asks.
    Settle(u64, bool),
    Refund(u32),
    /// Somebody pays with other coins.
    Pay(bool),
    /// One of the transactions that wait is mined.
    Mine(usize),
    Blocks(u32),
    /// The last block is taken back.
    Reorg,
    Crash(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..CAPACITY).prop_map(Step::Voucher),
        3 => (1..60_u32).prop_map(Step::Close),
        2 => (1..90_u32).prop_map(Step::Raise),
        2 => (0..CAPACITY, any::<bool>()).prop_map(|(sat, by_seller)| Step::Settle(sat, by_seller)),
        2 => (1..90_u32).prop_map(Step::Refund),
        1 => any::<bool>().prop_map(Step::Pay),
        3 => any::<usize>().prop_map(Step::Mine),
        2 => (1..30_u32).prop_map(Step::Blocks),
        2 => Just(Step::Reorg),
        1 => any::<bool>().prop_map(Step::Crash),
    ]
}

struct Storm {
    two: Two,
    funding: Transaction,
    newest: Option<Voucher>,
    /// What ended the channel, in a block.
    mined: Option<Transaction>,
    payments: u8,
}

impl Storm {
    fn new() -> Self {
        let mut two = Two::new();
        let funding = two.open(1);
        two.mine(&[&funding]);
        Self { two, funding, newest: None, mined: None, payments: 0 }
    }

    fn take(mut self, step: &Step) -> Self {
        let now_ms = self.two.buyer.now_ms().max(self.two.seller.now_ms());
        let Two { buyer, seller } = &mut self.two;
        match *step {
            Step::Voucher(sat) => {
                let had = self.newest.map_or(0, |newest| newest.cum_sat);
                match buyer.state.sign_voucher(id(1), sat) {
                    Ok(voucher) => self.newest = Some(voucher),
                    Err(SignError::Lower { .. }) => assert!(sat < had),
                    Err(error) => assert!(sat > CAPACITY - MIN_OUTPUT_SAT, "{error}"),
                }
            }
            Step::Close(rate) => drop(self.newest.map(|voucher| {
                let _ = seller.state.close_channels(&[(id(1), voucher)], &fee(rate), now_ms);
            })),
            Step::Raise(rate) => {
                let _ = seller.state.raise_close(id(1), Some(FeeRate::from_sat_per_vb_u32(rate)), &FEE, now_ms);
            }
            Step::Settle(paid_sat, by_seller) => {
                let fee_from = if by_seller { Role::Seller } else { Role::Buyer };
                let terms = OfferTerms { fee_from, seller_spk: None };
                if let Ok(offer) = seller.state.settle_offer(id(1), Role::Seller, paid_sat, terms, &fee(3)) {
                    let _ = buyer.state.sign_settle(id(1), Role::Buyer, &offer, &FEE, now_ms);
                }
            }
            Step::Refund(rate) => drop(buyer.state.refund_channel(id(1), &fee(rate), now_ms)),
            Step::Pay(by_seller) => {
                self.payments += 1;
                let to = Payment { id: PaymentId([self.payments; 32]), address: stranger(), sat: 3_000 };
                let _ = if by_seller { seller } else { buyer }.state.pay_all(&[to], &FEE, now_ms);
            }
            Step::Mine(which) => self.mine(which),
            Step::Blocks(count) => [buyer, seller].into_iter().for_each(|feed| feed.blocks_of(count)),
            Step::Reorg => {
                let tip = fact(&self.two.seller, 1).end.map(|end| end.state);
                [&mut self.two.buyer, &mut self.two.seller].into_iter().for_each(|feed| drop(feed.reorg(1)));
                if matches!(tip, Some(TxState::Confirmed { depth: 1, .. })) {
                    self.mined = None;
                }
            }
            Step::Crash(of_seller) => {
                let Two { buyer, seller } = self.two;
                self.two = match of_seller {
                    true => Two { seller: seller.reopen(), buyer },
                    false => Two { buyer: buyer.reopen(), seller },
                };
            }
        }
        self.two.judge();
        self
    }

    /// Everything that may still be mined and spends the channel, of both sides.
    fn rivals(&self) -> Vec<Arc<Transaction>> {
        let spends = |tx: &Arc<Transaction>| tx.input.iter().any(|input| self.is_funding(input));
        let all = [&self.two.buyer, &self.two.seller].map(|feed| feed.state.live_versions().unwrap());
        all.into_iter().flatten().filter(spends).collect()
    }

    fn is_funding(&self, input: &bitcoin::TxIn) -> bool {
        input.previous_output == self.row().outpoint()
    }

    fn row(&self) -> Funded {
        self.two.seller.state.channel_row(id(1)).unwrap().unwrap().funded.unwrap()
    }

    fn mine(&mut self, which: usize) {
        let rivals = self.rivals();
        if let Some(tx) = rivals.get(which % rivals.len().max(1)).filter(|_| self.mined.is_none()) {
            self.two.mine(&[tx]);
            self.mined = Some(tx.as_ref().clone());
        }
    }

    fn check(&self) {
        let funded = self.row();
        let output = self.funding.output[funded.outpoint().vout as usize].clone();
        let most = self.newest.map_or(0, |newest| newest.cum_sat);
        for tx in self.rivals() {
            assert!(total(&tx) < self.spent(&tx), "nothing comes from nowhere");
            let place = tx.input.iter().position(|input| self.is_funding(input)).unwrap();
            let raw = bitcoin::consensus::serialize(tx.as_ref());
            let (script, sat) = (output.script_pubkey.as_bytes(), output.value.to_sat());
            bitcoinconsensus::verify(script, sat, &raw, None, place).expect("both can send what they hold");
        }
        for feed in [&self.two.buyer, &self.two.seller] {
            let mut spent = HashSet::new();
            for tx in feed.state.live_transactions().unwrap() {
                assert!(tx.input.iter().all(|input| spent.insert(input.previous_output)), "no coin is spent twice");
            }
        }
        assert_eq!(self.two.buyer.state.channel_row(id(1)).unwrap().unwrap().signed_sat, most);
        let ends = self.two.facts(1).map(|fact| fact.end.filter(|end| matches!(end.state, TxState::Confirmed { .. })));
        match &self.mined {
            None => assert_eq!(ends.map(|end| end.map(|end| end.txid)), [None; 2]),
            Some(tx) => {
                let shares = ends.map(|end| end.map(|end| (end.txid, end.shares)));
                assert!(shares[0] == shares[1] && shares[0].unwrap().0 == tx.compute_txid(), "{shares:?}");
                if let Shares::Closed { cum_sat } = shares[0].unwrap().1 {
                    assert!(cum_sat <= most, "the seller has no more than it was given");
                }
                let live = [&self.two.buyer, &self.two.seller].map(|feed| feed.state.live_ends(false).unwrap());
                assert!(live.concat().is_empty(), "nothing that ends it is sent any more");
            }
        }
    }

    /// What goes into a transaction of ours.
    fn spent(&self, tx: &Transaction) -> u64 {
        let coin = |feed: &Feed, outpoint| feed.state.wallet.list_output().find(|coin| coin.outpoint == outpoint);
        let value = |input: &bitcoin::TxIn| match self.is_funding(input) {
            true => CAPACITY,
            false => coin(&self.two.seller, input.previous_output).unwrap().txout.value.to_sat(),
        };
        tx.input.iter().map(value).sum()
    }
}

#[test]
fn whatever_happens_a_channel_pays_out_once_and_no_more_than_it_holds() {
    let (mut ended, mut undone) = ([0; 3], 0);
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let fired = std::cell::RefCell::new((&mut ended, &mut undone));
    // Half of them begin near the channel's end.
    let seasons = (any::<bool>(), prop::collection::vec(step(), 8..24));
    let played = TestRunner::new(config).run(&seasons, |(late, steps)| {
        let mut storm = Storm::new();
        if late {
            storm.two.reach(END);
        }
        for step in &steps {
            let was_mined = storm.mined.is_some();
            storm = storm.take(step);
            storm.check();
            let (ended, undone) = &mut *fired.borrow_mut();
            **undone += usize::from(was_mined && storm.mined.is_none());
            if !was_mined && let Some(end) = fact(&storm.two.seller, 1).end.filter(|_| storm.mined.is_some()) {
                let kind = match end.shares {
                    Shares::Closed { .. } => 0,
                    Shares::Settled { .. } => 1,
                    Shares::Refunded => 2,
                };
                ended[kind] += 1;
            }
        }
        Ok(())
    });
    played.unwrap();
    println!("closed, settled, refunded: {ended:?}; faults fired: {undone} ends taken back");
    assert!(ended.iter().all(|count| *count > 0) && undone > 0, "each end was seen, and some were taken back");
}
