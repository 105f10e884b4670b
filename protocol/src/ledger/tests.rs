use super::*;

fn tab(paid: u64, spent: u64) -> Tab {
    Tab { paid: Msat::new(paid), spent: Msat::new(spent), held: Msat::new(9) }
}

#[test]
fn spent_is_compared_always_and_paid_at_the_same_height() {
    let view = |paid, spent, tip_height| View { tab: tab(paid, spent), tip_height };
    assert_eq!(view(5, 3, 7).agrees_with(view(5, 3, 7)), Ok(()));
    assert_eq!(view(5, 3, 7).agrees_with(view(6, 3, 8)), Ok(()), "one side has not seen the block");
    let paid = Disagreement::Paid { seller: Msat::new(5), buyer: Msat::new(6) };
    assert_eq!(view(5, 3, 7).agrees_with(view(6, 3, 7)), Err(paid));
    let spent = Disagreement::Spent { seller: Msat::new(3), buyer: Msat::new(4) };
    assert_eq!(view(5, 3, 7).agrees_with(view(5, 4, 8)), Err(spent));
}
