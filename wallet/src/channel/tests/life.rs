//! How channels of two wallets end.

use bitcoin::FeeRate;
use bitcoin::consensus::encode::deserialize;

use super::two::*;
use super::*;
use crate::payments::{PayError, PaymentId};
use crate::tests::stranger;

#[test]
fn a_close_brings_each_side_its_share_and_is_raised_when_stuck() {
    let mut two = Two::new();
    two.opened(1);
    let before = [total_of(&two.buyer), total_of(&two.seller)];
    let voucher = two.voucher(1, 20_000);
    let first = two.close(&[(id(1), voucher)], 3).unwrap();
    assert_eq!(two.close(&[(id(1), voucher)], 9).unwrap(), first, "the same again");
    assert_eq!(fact(&two.seller, 1).end.unwrap().state, TxState::Unconfirmed);
    assert_eq!(fact(&two.buyer, 1).end, None, "the buyer was not told yet");
    two.seller = two.seller.reopen();
    assert!(is_live(&two.seller, &first), "after a crash, too");
    let now_ms = two.seller.now_ms();
    let low = two.seller.state.raise_close(id(1), Some(FeeRate::from_sat_per_vb_u32(3)), &FEE, now_ms);
    assert!(matches!(low, Err(EndError::RateTooLow { .. })), "{low:?}");
    let raised = two.seller.state.raise_close(id(1), None, &FEE, now_ms).unwrap();
    let second: Transaction = deserialize(&raised.raw).unwrap();
    assert!(raised.fee_sat >= 3 * 170 + 170 && is_live(&two.seller, &second) && !is_live(&two.seller, &first));
    let above = two.seller.state.raise_close(id(1), Some(FeeRate::from_sat_per_vb_u32(101)), &FEE, now_ms);
    assert!(matches!(above, Err(EndError::AboveCeiling { .. })));
    two.mine(&[&second]);
    let end = two.end(1);
    assert_eq!((end.txid, end.shares), (raised.txid, Shares::Closed { cum_sat: 20_000 }));
    assert_eq!(end.fee_sat, Some(raised.fee_sat));
    assert_eq!(total_of(&two.buyer), before[0] + 30_000);
    assert_eq!(total_of(&two.seller), before[1] + 20_000 - raised.fee_sat);
    assert_eq!(two.buyer.state.channels_sat(), 0);
    assert!(two.seller.state.live_transactions().unwrap().is_empty(), "nothing is to be sent any more");
    assert!(matches!(two.seller.state.raise_close(id(1), None, &FEE, now_ms), Err(EndError::NothingToRaise)));
    // A block is taken back, and the older version mined in its place.
    two.buyer.reorg(1);
    two.seller.reorg(1);
    assert!(is_live(&two.seller, &second));
    assert_eq!(fact(&two.seller, 1).end.unwrap().state, TxState::Unconfirmed);
    two.mine(&[&first]);
    assert_eq!((two.end(1).txid, two.end(1).fee_sat), (first.compute_txid(), Some(509)));
    two.seller.blocks_of(143);
    assert_eq!(two.seller.state.channel_scripts().len(), 1);
    two.seller.blocks_of(2);
    two.seller = two.seller.reopen();
    assert!(two.seller.state.channel_scripts().is_empty(), "it is over");
}

#[test]
fn a_batch_is_one_transaction_and_a_small_voucher_takes_a_coin_for_the_fee() {
    let mut two = Two::new();
    let fundings: Vec<_> = (1..=4).map(|number| two.open(number)).collect();
    two.mine(&fundings.iter().collect::<Vec<_>>());
    let batch: Vec<_> = (1..=3).map(|number| (id(number), two.voucher(number, 1_000 * u64::from(number)))).collect();
    let tx = two.close(&batch, 2).unwrap();
    assert!(matches!(two.close(&batch[..2], 2), Err(EndError::Ending)), "one of them alone would take its place");
    let twice = [batch[0], batch[0]];
    assert!(matches!(two.close(&twice, 2), Err(EndError::Count { found: 2 })));
    assert!(matches!(two.close(&[], 2), Err(EndError::Count { found: 0 })));
    two.mine(&[&tx]);
    for number in 1..=3 {
        assert_eq!(two.end(number).shares, Shares::Closed { cum_sat: 1_000 * u64::from(number) });
    }
    let small = two.voucher(4, 100);
    let stolen = Voucher { cum_sat: 40_000, ..small };
    assert!(matches!(two.close(&[(id(4), stolen)], 2), Err(EndError::Voucher(VoucherError::Forged))));
    let tx = two.close(&[(id(4), small)], 5).unwrap();
    assert_eq!(tx.input.len(), 2, "with a coin of the seller's");
    // That coin is taken.
    let now_ms = two.seller.now_ms();
    let terms = crate::payments::Terms { id: PaymentId([9; 32]), address: stranger(), sat: 25_000 };
    let paid = two.seller.state.pay_all(&[terms], &FEE, now_ms);
    assert!(matches!(paid, Err(PayError::Short { .. })), "{paid:?}");
    let raised = two.seller.state.raise_close(id(4), Some(FeeRate::from_sat_per_vb_u32(30)), &FEE, now_ms).unwrap();
    let raised: Transaction = deserialize(&raised.raw).unwrap();
    assert!(raised.input.len() == 2 && raised.input[1].previous_output == tx.input[1].previous_output, "the same coin");
    let dear = two.seller.state.raise_close(id(4), Some(FeeRate::from_sat_per_vb_u32(70)), &FEE, now_ms).unwrap();
    let dear: Transaction = deserialize(&dear.raw).unwrap();
    assert_eq!(dear.input.len(), 4, "and more of them where it is not enough");
    two.mine(&[&dear]);
    assert_eq!(two.end(4).shares, Shares::Closed { cum_sat: 100 });
}

#[test]
fn both_end_a_channel_as_they_agree() {
    for (number, asks) in [(1, Role::Buyer), (2, Role::Seller)] {
        let mut two = Two::new();
        two.opened(number);
        two.voucher(number, 30_000);
        let before = [total_of(&two.buyer), total_of(&two.seller)];
        let terms = OfferTerms { fee_from: asks, seller_spk: None };
        let offer = two.seller.state.settle_offer(id(number), Role::Seller, 20_000, terms, &FEE).unwrap();
        assert!(two.seller.state.live_transactions().unwrap().is_empty(), "half signed, it is not sent");
        let now_ms = two.buyer.now_ms();
        let mut shaved = offer.clone();
        shaved.split.paid_sat += 1;
        let refused = two.buyer.state.sign_settle(id(number), Role::Buyer, &shaved, &FEE, now_ms);
        assert!(matches!(refused, Err(EndError::NotAgreed)));
        let settled = two.buyer.state.sign_settle(id(number), Role::Buyer, &offer, &FEE, now_ms).unwrap();
        let tx: Transaction = deserialize(&settled.ending.raw).unwrap();
        assert!(is_live(&two.buyer, &tx) && tx.vsize().abs_diff(170) <= 1);
        // The seller completes its own with the buyer's signature.
        let back = Offer { sig: settled.sig, ..offer };
        let now_ms = two.seller.now_ms();
        let same = two.seller.state.sign_settle(id(number), Role::Seller, &back, &FEE, now_ms).unwrap();
        assert_eq!(same.ending, settled.ending);
        two.mine(&[&tx]);
        let fee_sat = settled.ending.fee_sat;
        let (buyer_sat, seller_sat) =
            if asks == Role::Buyer { (30_000 - fee_sat, 20_000) } else { (30_000, 20_000 - fee_sat) };
        assert_eq!(two.end(number).shares, Shares::Settled { buyer_sat, seller_sat });
        assert_eq!([total_of(&two.buyer), total_of(&two.seller)], [before[0] + buyer_sat, before[1] + seller_sat]);
    }
}

#[test]
fn an_unused_channel_is_given_back_at_once() {
    let mut two = Two::new();
    two.opened(1);
    let terms = OfferTerms { fee_from: Role::Buyer, seller_spk: None };
    let offer = two.buyer.state.settle_offer(id(1), Role::Buyer, 0, terms, &FEE).unwrap();
    let now_ms = two.seller.now_ms();
    let settled = two.seller.state.sign_settle(id(1), Role::Seller, &offer, &FEE, now_ms).unwrap();
    let tx: Transaction = deserialize(&settled.ending.raw).unwrap();
    two.mine(&[&tx]);
    let buyer_sat = CAPACITY - settled.ending.fee_sat;
    assert_eq!(two.end(1).shares, Shares::Settled { buyer_sat, seller_sat: 0 });
    assert_eq!(tx.output.len(), 1);
}

#[test]
fn what_nobody_closed_comes_back_after_its_end() {
    let mut two = Two::new();
    two.opened(1);
    two.voucher(1, 30_000);
    let before = total_of(&two.buyer);
    let now_ms = two.buyer.now_ms();
    let early = two.buyer.state.refund_channel(id(1), &FEE, now_ms);
    assert!(matches!(early, Err(EndError::TooEarly { expiry_height: END, .. })), "{early:?}");
    two.reach(END);
    let refund = two.buyer.state.refund_channel(id(1), &FEE, now_ms).unwrap();
    assert!(refund.vbytes.abs_diff(121) <= 1 && refund.fee_sat.abs_diff(2 * refund.vbytes) <= 1, "{refund:?}");
    assert_eq!(two.buyer.state.refund_channel(id(1), &FEE, now_ms).unwrap(), refund, "the same again");
    let dearer = two.buyer.state.refund_channel(id(1), &fee(9), now_ms).unwrap();
    let tx: Transaction = deserialize(&dearer.raw).unwrap();
    assert_eq!(tx.lock_time.to_consensus_u32(), END);
    two.buyer = two.buyer.reopen();
    assert!(is_live(&two.buyer, &tx));
    two.mine(&[&tx]);
    assert_eq!(two.end(1).shares, Shares::Refunded);
    assert_eq!(total_of(&two.buyer), before + CAPACITY - dearer.fee_sat);
}

#[test]
fn a_close_that_a_refund_has_beaten_is_made_again_without_it() {
    let mut two = Two::new();
    let fundings: Vec<_> = (1..=2).map(|number| two.open(number)).collect();
    two.mine(&fundings.iter().collect::<Vec<_>>());
    let batch: Vec<_> = (1..=2).map(|number| (id(number), two.voucher(number, 20_000))).collect();
    let beaten = two.close(&batch, 2).unwrap();
    two.reach(END);
    let now_ms = two.buyer.now_ms();
    let refund = two.buyer.state.refund_channel(id(1), &FEE, now_ms).unwrap();
    let refund: Transaction = deserialize(&refund.raw).unwrap();
    two.mine(&[&refund]);
    assert_eq!(two.end(1).shares, Shares::Refunded);
    assert!(!is_live(&two.seller, &beaten), "it can't happen any more");
    assert_eq!(fact(&two.seller, 2).end, None);
    let again = two.close(&batch[1..], 2).unwrap();
    two.mine(&[&again]);
    assert_eq!(two.end(2).shares, Shares::Closed { cum_sat: 20_000 });
}

#[test]
fn a_funding_that_is_replaced_or_taken_back_is_told() {
    let mut two = Two::new();
    let funding = two.open(1);
    assert_eq!(two.facts(1).map(|fact| fact.state), [TxState::Unconfirmed, TxState::Unseen]);
    two.seller.show(&[&funding]);
    assert_eq!(fact(&two.seller, 1).state, TxState::Unconfirmed);
    two.seller.evict(&funding);
    assert_eq!(fact(&two.seller, 1).state, TxState::Unseen, "it counts as nothing");
    let row = two.seller.state.channel_row(id(1)).unwrap().unwrap();
    two.seller.state.forget_channel(id(1)).unwrap();
    two.seller = two.seller.reopen();
    assert!(two.seller.state.channel_scripts().is_empty(), "it is not waited for for ever");
    let (terms, vout) = (row.terms.unwrap(), row.funded.unwrap().outpoint().vout);
    let raw = bitcoin::consensus::serialize(&funding);
    two.seller.state.watch_channel(id(1), &terms, &raw, vout).unwrap();
    two.seller = two.seller.reopen();
    two.buyer.state.forget_channel(id(1)).unwrap();
    two.mine(&[&funding]);
    assert!(two.facts(1).iter().all(|fact| matches!(fact.state, TxState::Confirmed { depth: 1, .. })));
    two.voucher(1, 1_000);
    two.seller.state.forget_channel(id(1)).unwrap();
    two.buyer.reorg(1);
    two.seller.reorg(1);
    assert!(is_live(&two.buyer, &funding), "it is sent again");
    assert_eq!(two.facts(1).map(|fact| fact.state), [TxState::Unconfirmed, TxState::Unseen], "as before the block");
    // The same words elsewhere spend the coin.
    let rival = crate::tests::spend(funding.input[0].previous_output, &stranger(), 90_000);
    two.mine(&[&rival]);
    let by = rival.compute_txid();
    assert_eq!(fact(&two.buyer, 1).state, TxState::Conflicted { by });
    assert!(!is_live(&two.buyer, &funding));
    let feed = two.buyer.reopen();
    assert_eq!(fact(&feed, 1).state, TxState::Conflicted { by }, "after a restart, too");
    assert_eq!(feed.state.channels_sat(), 0);
}
