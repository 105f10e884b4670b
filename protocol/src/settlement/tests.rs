use super::*;
use crate::id::TopUpId;
use crate::money::{Msat, Price};
use crate::wire::{OpenError, peer_id};
use libp2p_identity::ed25519::{Keypair, SecretKey};

const NONE: Onchain = Onchain { fee_sat: 150, min_sat: 1_000 };

fn sat(sat: u64) -> Msat {
    Msat::from_sat(sat).unwrap()
}

/// The table of MONEY.md 4, at its edges.
#[test]
fn money_waits_as_deep_as_a_cheat_would_have_to_dig() {
    let table = [
        (0, 1),
        (3_125_000, 1),
        (3_125_001, 2),
        (31_250_000, 2),
        (31_250_001, 3),
        (312_500_000, 3),
        (312_500_001, 8),
        (625_000_000, 8),
        (625_000_001, 9),
    ];
    for (value_sat, depth) in table {
        assert_eq!(depth_needed(value_sat), depth, "{value_sat} sat");
    }
    assert!(depth_needed(u64::MAX) > depth_needed(2_100_000_000_000_000));
}

#[test]
fn a_first_step_is_small_and_grows_with_what_was_served() {
    let (cheap, usual) = (Price::FREE, Price::per_gib(10_000));
    assert_eq!((first_step(cheap, Msat::ZERO), first_step(usual, Msat::ZERO)), (sat(1), sat(1)));
    assert_eq!(first_step(Price::per_gib(1_000_000_000), Msat::ZERO), Msat::new(61_036));
    assert_eq!(first_step(Price::per_gib(u64::MAX), Msat::ZERO), sat(100), "no more unasked");
    assert_eq!(first_step(usual, sat(9)), sat(1));
    assert_eq!(first_step(usual, sat(50_000)), sat(5_000));
}

#[test]
fn an_advance_is_paid_unasked_only_while_it_is_small() {
    let cheap = Onchain { fee_sat: 10, min_sat: 1_000 };
    let plan = |missing, unasked, limit| plan_advance(missing, cheap, None, unasked, limit);
    assert_eq!(plan(sat(5), sat(1_000), None), Ok(Advance { amount_sat: 1_000, fee_sat: 10 }));
    assert_eq!(plan(Msat::new(1_000_001), sat(1_001), None), Ok(Advance { amount_sat: 1_001, fee_sat: 10 }));
    let asks = |amount_sat| Err(AdvanceError::NeedsWord { amount_sat, fee_sat: 10 });
    assert_eq!(plan(sat(5), Msat::new(999_999), None), asks(1_000));
    assert_eq!(plan(Msat::MAX, sat(1_000_000), None), asks(u64::MAX.div_ceil(1_000)));
    let over = AdvanceError::OverLimit { amount_sat: 1_000, fee_sat: 10, limit_sat: 1_009 };
    assert_eq!(plan(sat(5), sat(1_000), Some(Msat::new(1_009_999))), Err(over), "the fee is lost, too");
    assert!(plan(sat(5), sat(1_000), Some(sat(1_010))).is_ok());
}

#[test]
fn an_advance_is_paid_unasked_only_while_its_fee_is_a_small_share() {
    let plan = |fee_sat, word_sat| {
        plan_advance(sat(1_500), Onchain { fee_sat, min_sat: 1_000 }, word_sat, sat(1_000_000), None)
    };
    assert_eq!(plan(15, None), Ok(Advance { amount_sat: 1_500, fee_sat: 15 }));
    assert_eq!(plan(16, None), Err(AdvanceError::NeedsWord { amount_sat: 1_500, fee_sat: 16 }));
    assert_eq!(plan(16, Some(1_500)), Ok(Advance { amount_sat: 1_500, fee_sat: 16 }), "a person may pay more");
}

#[test]
fn a_person_s_word_wins_unless_it_buys_nothing() {
    let plan = |missing, word_sat, limit| plan_advance(missing, NONE, Some(word_sat), Msat::ZERO, limit);
    assert_eq!(plan(sat(5), 50_000, None), Ok(Advance { amount_sat: 50_000, fee_sat: 150 }));
    let small = |word_sat, amount_sat| Err(AdvanceError::TooSmall { word_sat, amount_sat });
    assert_eq!(plan(sat(5), 999, None), small(999, 1_000));
    assert_eq!(plan(sat(3_000), 2_999, None), small(2_999, 3_000), "the first unit would not come");
    assert_eq!(plan(sat(3_000), 3_000, Some(sat(3_150))), Ok(Advance { amount_sat: 3_000, fee_sat: 150 }));
    let over = AdvanceError::OverLimit { amount_sat: 3_000, fee_sat: 150, limit_sat: 3_149 };
    assert_eq!(plan(sat(3_000), 3_000, Some(sat(3_149))), Err(over));
}

#[test]
fn the_cheapest_rail_is_that_which_leaves_most_in_the_purse() {
    let (dear, floored) = (Onchain { fee_sat: 300, min_sat: 1 }, Onchain { fee_sat: 10, min_sat: 1_000 });
    assert_eq!(cheapest(&[&dear, &floored], 500).unwrap().fee_sat, 300);
    assert_eq!(cheapest(&[&dear, &floored], 900).unwrap().fee_sat, 10);
    assert_eq!(cheapest(&[], 1), None);
    let share = |fee_sat, amount_sat| RailCost { kind: RailKind::Onchain, amount_sat, fee_sat }.within_share();
    assert!(share(150, 15_000) && !share(150, 14_999) && !share(u64::MAX, u64::MAX - 1));
}

/// Else anybody on the way could have an advance paid to an address of its own.
#[test]
fn a_top_up_counts_only_from_the_seller_that_it_names() {
    let key = |n| Keypair::from(SecretKey::try_from_bytes([n; 32]).unwrap());
    let (seller, other) = (key(1), key(2));
    let topup = TopUp {
        id: TopUpId([7; 32]),
        network: "regtest-0a1b2c3d".parse().unwrap(),
        buyer: peer_id(&other),
        seller: peer_id(&seller),
        address: "bcrt1qexample".to_owned(),
        min_sat: 1_000,
        ceilings: [].into(),
        until_height: 1,
    };
    let good = SignedTopUp::sign(topup.clone(), &seller);
    assert_eq!(SignedTopUp::parse(good.signed().clone()), Ok(good));
    let forged = SignedTopUp::sign(topup, &other).signed().clone();
    assert_eq!(SignedTopUp::parse(forged), Err(TopUpError::Signature(OpenError::BadSignature)));
}
