use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn sat(sat: u64) -> Msat {
    Msat::from_sat(sat).unwrap()
}

fn earned(realised: Msat) -> History {
    let mut history = History::default();
    assert!(history.count(NOW, realised));
    history
}

/// MONEY.md 2.1: 10,000 sat earned and never late is a first line of 150 sat, and up to 1,500 sat as T grows.
#[test]
fn a_line_begins_at_a_tenth_and_grows_with_what_was_repaid() {
    let (rules, history) = (Rules::default(), earned(sat(10_000)));
    let line = |on| rules.allowance(&history, Trust { on, ..Trust::default() }, NOW);
    assert_eq!(line(Msat::ZERO), sat(150));
    assert_eq!(line(sat(100)), sat(150), "a tenth is the least");
    assert_eq!(line(sat(1_000)), sat(750), "K repaid is half of it");
    assert_eq!(line(sat(9_000)), sat(1_350));
    assert!(line(Msat::MAX) <= sat(1_500));
    let sure = Trust { on: Msat::MAX, ..Trust::default() };
    assert_eq!(rules.allowance(&History::default(), sure, NOW), Msat::ZERO);
    assert_eq!(rules.allowance(&earned(Msat::MAX), sure, NOW), rules.cap);
}

#[test]
fn what_was_late_weighs_four_times_and_takes_the_first_line_away() {
    let (rules, history) = (Rules::default(), earned(sat(10_000)));
    let line = |on, late, strikes| rules.allowance(&history, Trust { on: sat(on), late: sat(late), strikes }, NOW);
    assert_eq!(line(1_000, 500, 0), sat(375), "1 of 1 + 2 + 1");
    assert_eq!(line(0, 1, 0), Msat::ZERO, "nothing proven, and late");
    assert_eq!(line(1_000, 0, 1), sat(500), "K doubles with each default");
    assert_eq!((line(0, 0, 70), line(1_000, 0, 70)), (sat(150), sat(150)));
}

#[test]
fn old_trade_counts_half_as_much_each_half_life() {
    let (rules, history) = (Rules::default(), earned(sat(10_000)));
    let after =
        |days: u64| rules.allowance(&history, Trust::default(), NOW.saturating_add(DAY * u32::try_from(days).unwrap()));
    assert_eq!(after(180), Msat::new(75_000));
    assert_eq!(after(90), Msat::new(112_500));
    assert_eq!(after(360), Msat::new(37_500));
    assert_eq!(after(180 * 80), Msat::ZERO);
    let mut later = history.clone();
    let then = NOW.saturating_add(HALF_LIFE);
    assert!(later.count(then, sat(20_000)));
    assert_eq!((later.decayed, later.counted), (sat(15_000), sat(20_000)));
    assert!(!later.count(then, sat(20_000)) && !later.count(then, sat(19_000)), "nothing is counted twice");
    assert_eq!(
        rules.allowance(&history, Trust::default(), Timestamp::EPOCH),
        sat(150),
        "a clock set back changes nothing"
    );
}

#[test]
fn the_pool_is_what_is_staked_and_earned_less_what_is_out() {
    let rules = Rules { grant: MAX_GRANT, ..Rules::default() };
    let mut pool = Pool::default();
    assert_eq!(pool.left(&rules), sat(1_000));
    pool.realised = sat(100_000);
    assert_eq!(pool.left(&rules), sat(1_600));
    (pool.lost, pool.outstanding) = (sat(400), sat(1_100));
    assert_eq!(pool.left(&rules), sat(100));
    assert!(pool.covers(sat(100), &rules) && !pool.covers(Msat::new(100_001), &rules));
    pool.outstanding = sat(9_999);
    assert_eq!(pool.left(&rules), Msat::ZERO);
}

#[test]
fn gifts_are_small_and_use_a_thirtieth_of_the_pool_a_day() {
    let rules = Rules { grant: sat(50), ..Rules::default() };
    let mut pool = Pool::default();
    let mut given = 0;
    while let Some(gift) = pool.grant(&rules) {
        assert_eq!(gift, MAX_GRANT, "whatever is configured");
        pool.lost = pool.lost.saturating_add(gift);
        pool.given_today = pool.given_today.saturating_add(gift);
        given += 1;
    }
    assert_eq!(given, 33);
    pool.given_today = Msat::ZERO;
    assert!(pool.grant(&rules).is_some(), "a new day");
    assert_eq!(pool.grant(&Rules::default()), None, "off by default");
    assert_eq!(Pool { lost: sat(1_000), ..Pool::default() }.grant(&rules), None);
}

#[test]
fn a_gift_is_read_only_as_it_was_meant() {
    let key = |n: u8| libp2p_identity::ed25519::SecretKey::try_from_bytes([n; 32]).unwrap().into();
    let (seller, buyer, other) = (key(1), crate::wire::peer_id(&key(2)), crate::wire::peer_id(&key(3)));
    let us = crate::wire::peer_id(&seller);
    let grant = SignedGrant::sign(&buyer, MAX_GRANT, &seller);
    assert_eq!(SignedGrant::parse(grant.signed().clone(), &buyer, &us), Ok(grant.clone()));
    assert_eq!(SignedGrant::parse(grant.signed().clone(), &other, &us), Err(GrantError::Parties));
    assert!(matches!(SignedGrant::parse(grant.signed().clone(), &buyer, &other), Err(GrantError::Signature(_))));
    for more in [MAX_GRANT.saturating_add(Msat::new(1)), Msat::MAX] {
        let huge = SignedGrant::sign(&buyer, more, &seller);
        let parsed = SignedGrant::parse(huge.signed().clone(), &buyer, &us);
        assert_eq!(parsed, Err(GrantError::TooMuch { msat: more.msat() }));
    }
    let history = History { grant: Some((grant, NOW)), ..History::default() };
    assert_eq!(history.granted_today(NOW.saturating_add(DAY / 2)), MAX_GRANT);
    assert_eq!((history.granted_today(NOW.saturating_add(DAY)), history.granted()), (Msat::ZERO, MAX_GRANT));
}

proptest! {
    /// (A): whatever the history, a line stays within ξ·μ of what was realised; more trade never makes it shorter.
    #[test]
    fn no_line_is_longer_than_what_its_trade_carries(
        trades in proptest::collection::vec((0..u64::MAX / 64, 0..400_u32), 1..20), repaid: u64,
    ) {
        let (rules, mut history) = (Rules { cap: Msat::MAX, ..Rules::default() }, History::default());
        let (mut now, mut realised) = (NOW, Msat::ZERO);
        for (msat, days) in trades {
            realised = realised.saturating_add(Msat::new(msat));
            now = now.saturating_add(DAY * days);
            let trust = Trust { on: Msat::new(repaid), ..Trust::default() };
            let before = rules.allowance(&history, trust, now);
            history.count(now, realised);
            let line = rules.allowance(&history, trust, now);
            prop_assert!(line >= before && u128::from(line.msat()) <= u128::from(realised.msat()) * 15 / 100);
            prop_assert!(rules.within_line(line, realised));
        }
        prop_assert!(!rules.within_line(Msat::new((u128::from(realised.msat()) * 15 / 100 + 1) as u64), realised));
    }

    #[test]
    fn a_part_is_rounded_down(num in 0..1_000_u64, den in 1..1_000_u64, msat: u64) {
        let exact = u128::from(msat) * u128::from(num) / u128::from(den);
        let part = Ratio { num, den }.of(Msat::new(msat));
        prop_assert_eq!(u128::from(part.msat()), u64::try_from(exact).map_or(0, u128::from));
    }
}
