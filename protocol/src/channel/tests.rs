use super::*;
use proptest::prelude::*;

const TERMS: Terms = Terms { capacity_sat: 50_000, close_fee_sat: 3_400, refund_height: 5_000, min_conf: 2 };

fn voucher(cum_sat: u64) -> Voucher {
    Voucher { cum_sat, signature: Bytes::from_static(b"verified") }
}

fn funded(depth: u32) -> Fact {
    Fact { funding: Funding { height: 1_000, depth }, spent: None }
}

fn ended(how: Spend, depth: u32) -> Fact {
    Fact { spent: Some(Spent { how, depth }), ..funded(6) }
}

fn pair() -> [Channel; 2] {
    [Side::Buyer(BuyerState::Broadcast), Side::Seller(SellerState::FundingSeen)].map(|side| Channel::new(TERMS, side))
}

#[test]
fn a_voucher_is_taken_only_while_the_channel_is_active_and_only_higher() {
    for mut channel in pair() {
        assert_eq!(channel.take(1_001, voucher(9_000)), Err(VoucherError::NotActive));
        channel.handle_fact(1_001, funded(2));
        assert_eq!(channel.take(1_001, voucher(3_693)), Ok(Msat::ZERO));
        assert_eq!(channel.take(1_001, voucher(3_694)), Ok(Msat::new(294_000)));
        let lower = VoucherError::NotHigher { cum_sat: 3_694, newest_sat: 3_694 };
        assert_eq!(channel.take(1_001, voucher(3_694)), Err(lower));
        let over = VoucherError::OverCapacity { cum_sat: 49_707, most_sat: 49_706 };
        assert_eq!(channel.take(1_001, voucher(49_707)), Err(over));
        assert_eq!(channel.take(TERMS.stops_at(), voucher(9_000)), Err(VoucherError::NotActive));
        assert_eq!(channel.paid(), Msat::new(294_000));
    }
}

#[test]
fn a_funding_that_goes_takes_what_was_paid_with_it() {
    for mut channel in pair() {
        channel.handle_fact(1_001, funded(2));
        channel.take(1_001, voucher(10_000)).unwrap();
        assert_eq!(channel.paid(), Msat::new(6_600_000));
        channel.handle_fact(1_001, Fact::default());
        assert_eq!((channel.paid(), channel.side().is_active()), (Msat::ZERO, false));
    }
}

#[test]
fn what_the_close_did_not_use_comes_back_and_is_final_at_six() {
    for mut channel in pair() {
        channel.handle_fact(1_001, funded(2));
        channel.take(1_001, voucher(10_000)).unwrap();
        let cheap = Spend::Closed { cum_sat: 10_000, fee_sat: Some(400) };
        channel.handle_fact(1_020, ended(cheap, 5));
        assert_eq!((channel.paid(), channel.paid_final()), (Msat::new(9_600_000), Msat::ZERO));
        channel.handle_fact(1_021, ended(cheap, 6));
        assert_eq!(channel.paid_final(), Msat::new(9_600_000));
        channel.handle_fact(1_021, ended(Spend::Refunded, 6));
        assert_eq!(channel.paid_final(), Msat::ZERO);
    }
}

#[test]
fn closing_never_leads_back() {
    let [_, mut seller] = pair();
    seller.handle_fact(1_001, funded(2));
    assert!(seller.step(Side::Seller(SellerState::Closing)));
    assert!(!seller.step(Side::Seller(SellerState::Active)));
    for fact in [Fact::default(), funded(1), funded(6)] {
        seller.handle_fact(1_002, fact);
        assert_eq!(seller.take(1_002, voucher(9_000)), Err(VoucherError::NotActive));
    }
}

#[test]
fn a_buyer_takes_everything_back_only_from_the_refund_height_on() {
    let [mut buyer, _] = pair();
    let (refund, before) = (TERMS.refund_height, TERMS.refund_height - 1);
    buyer.handle_fact(before, funded(6));
    assert_eq!(buyer.side(), Side::Buyer(BuyerState::Active));
    buyer.handle_fact(refund, funded(6));
    assert_eq!(buyer.side(), Side::Buyer(BuyerState::Refunding));
    buyer.handle_fact(refund, ended(Spend::Refunded, 6));
    assert_eq!(buyer.side(), Side::Buyer(BuyerState::Refunded));
    buyer.handle_fact(before, funded(6));
    assert_eq!(buyer.side(), Side::Buyer(BuyerState::Settling));
}

#[test]
fn terms_that_are_too_short_or_too_small_are_refused() {
    assert_eq!(TERMS.check(3_992), Ok(()));
    assert_eq!(TERMS.check(3_993), Err(TermsError::TooShort { blocks: 1_007 }));
    let small = Terms { capacity_sat: 3_987, ..TERMS };
    assert_eq!(small.check(0), Err(TermsError::TooSmall { capacity_sat: 3_987, least_sat: 3_988 }));
    assert_eq!(close_fee_sat(20), TERMS.close_fee_sat);
}

fn spend() -> impl Strategy<Value = Spend> {
    prop_oneof![
        (0..60_000_u64, prop::option::of(0..9_000_u64))
            .prop_map(|(cum_sat, fee_sat)| Spend::Closed { cum_sat, fee_sat }),
        (0..60_000_u64).prop_map(|seller_sat| Spend::Settled { seller_sat }),
        Just(Spend::Refunded),
    ]
}

fn fact() -> impl Strategy<Value = Fact> {
    (0..8_u32, prop::option::weighted(0.2, (spend(), 0..8_u32))).prop_map(|(depth, spent)| Fact {
        funding: Funding { height: 1_000, depth },
        spent: spent.map(|(how, depth)| Spent { how, depth }),
    })
}

proptest! {
    /// Whatever the chain does and in whatever order vouchers come, they only rise and no more than the capacity counts;
    /// two sides that have the same voucher and see the same blocks agree.
    #[test]
    fn no_order_of_events_pays_more_than_the_capacity(
        events in prop::collection::vec((any::<bool>(), 0..60_000_u64, fact(), 1_000..5_100_u64), 0..40),
    ) {
        let [mut buyer, mut seller] = pair();
        for (is_voucher, cum_sat, fact, tip) in events {
            let before = seller.cum_sat();
            if is_voucher {
                if seller.take(tip, voucher(cum_sat)).is_ok() {
                    buyer.voucher = seller.voucher.clone();
                }
            } else {
                buyer.handle_fact(tip, fact);
                seller.handle_fact(tip, fact);
            }
            prop_assert!(seller.cum_sat() >= before && seller.cum_sat() <= TERMS.most_sat());
            prop_assert!(seller.paid() <= Msat::from_sat(TERMS.capacity_sat).unwrap());
            prop_assert!(seller.paid_final() <= seller.paid());
            prop_assert_eq!(seller.paid(), buyer.paid());
        }
    }
}
