use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_ms(1_800_000_000_000);
const LIMITS: Budget = Budget { day_sat: 1_000, month_sat: 3_000 };
const HOUR: Duration = Duration::from_secs(3_600);

fn id(n: u8) -> TopUpId {
    TopUpId([n; 32])
}

fn spend(rows: &mut Spendings, now: Timestamp, n: u8, sat: u64) -> Result<(), OverBudget> {
    let planned = rows.plan(now, id(n), sat, &LIMITS)?;
    let expired: Vec<TopUpId> = rows.expired(now).collect();
    rows.apply(planned, &expired);
    Ok(())
}

#[test]
fn a_day_s_limit_frees_after_a_day_and_a_month_s_after_a_month() {
    let mut rows = Spendings::default();
    spend(&mut rows, START, 1, 600).unwrap();
    let later = START.saturating_add(HOUR);
    spend(&mut rows, later, 2, 400).unwrap();
    let refused = rows.plan(later, id(3), 500, &LIMITS).unwrap_err();
    let (spent_sat, frees) = (refused.spent_sat, refused.frees);
    assert_eq!((spent_sat, frees, refused.key()), (1_000, Some(START.saturating_add(DAY)), "day_sat"));
    let both = rows.plan(later, id(3), 700, &LIMITS).unwrap_err();
    assert_eq!(both.frees, Some(later.saturating_add(DAY)), "when the second is gone, too");
    assert_eq!(rows.plan(later, id(3), 1_001, &LIMITS).unwrap_err().frees, None, "it never fits");
    let next = START.saturating_add(DAY);
    spend(&mut rows, next, 3, 600).unwrap();
    spend(&mut rows, next.saturating_add(DAY), 4, 1_000).unwrap();
    let month = rows.plan(next.saturating_add(DAY * 3), id(5), 401, &LIMITS).unwrap_err();
    assert_eq!((month.key(), month.spent_sat, month.frees), ("month_sat", 2_600, Some(START.saturating_add(MONTH))));
    assert_eq!(rows.expired(START.saturating_add(MONTH)).collect::<Vec<_>>(), [id(1)]);
}

#[test]
fn a_clock_that_is_set_back_frees_nothing() {
    let mut rows = Spendings::default();
    spend(&mut rows, START, 1, 1_000).unwrap();
    for now in [Timestamp::EPOCH, START.saturating_sub(DAY * 2), START.saturating_sub(MONTH)] {
        assert!(rows.plan(now, id(2), 1, &LIMITS).is_err(), "{now}");
        assert_eq!(rows.spent(now, DAY), 1_000);
    }
}

#[test]
fn where_the_limit_is_0_nothing_is_spent() {
    for budget in [Budget { day_sat: 0, ..LIMITS }, Budget { month_sat: 0, ..LIMITS }] {
        assert_eq!(Spendings::default().plan(START, id(1), 1, &budget).unwrap_err().frees, None);
    }
}

proptest! {
    /// Whatever is tried at whatever time, and however the clock jumps: no window holds more than its limit.
    #[test]
    fn no_window_holds_more_than_its_limit(
        tries in proptest::collection::vec((1..900_u64, -40..40_i64, any::<bool>()), 1..200),
    ) {
        let (mut rows, mut now, mut all) = (Spendings::default(), START, Vec::new());
        for (n, (sat, hours, is_jump)) in tries.iter().enumerate() {
            let span = HOUR * u32::try_from(hours.unsigned_abs()).unwrap();
            now = match (*hours < 0, is_jump) {
                (true, true) => now.saturating_sub(span),
                _ => now.saturating_add(span),
            };
            if let Ok(spending) = rows.plan(now, TopUpId([u8::try_from(n).unwrap(); 32]), *sat, &LIMITS) {
                let expired: Vec<TopUpId> = rows.expired(now).collect();
                rows.apply(spending, &expired);
                all.push(spending);
            }
        }
        for from in &all {
            for (window, limit) in [(DAY, LIMITS.day_sat), (MONTH, LIMITS.month_sat)] {
                let within = all.iter().filter(|row| row.at >= from.at && row.at.since(from.at) < window);
                let sum: u64 = within.map(|row| row.sat).sum();
                prop_assert!(sum <= limit, "{} sat of {} within {:?}", sum, limit, window);
            }
        }
        prop_assert!(all.windows(2).all(|two| two[0].at <= two[1].at));
    }
}
