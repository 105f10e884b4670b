use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::content::Size;
use crate::session::MAX_WINDOW;

const MIB: u64 = 1 << 20;

fn groups(start: u64, end: u64) -> Groups {
    Groups::new(start, end).unwrap()
}

#[test]
fn a_seller_that_ends_gives_its_groups_back() {
    let size = Size::new(MIB).unwrap();
    let mut plan = Plan::up_to(None);
    let mut sessions = [0, 1].map(|_| BuyerSession::new(size, Price::FREE, None, MAX_WINDOW));
    let lanes = [plan.join(), plan.join()];
    let all = |from| Groups::new(from, 64);
    let [one, two] = &mut sessions;
    assert_eq!(plan.poll_want(lanes[0], one, all), Next::Want(groups(63, 64)), "the size is proven once");
    assert_eq!(plan.poll_want(lanes[1], two, all), Next::Want(groups(0, 4)));
    assert_eq!(plan.poll_want(lanes[1], two, all), Next::Want(groups(4, 8)));
    plan.leave(lanes[0], Msat::ZERO);
    two.handle_serving(groups(0, 4)).unwrap();
    two.handle_served();
    plan.update(lanes[1], two);
    let third = plan.join();
    let mut three = BuyerSession::new(size, Price::FREE, None, MAX_WINDOW);
    assert_eq!(plan.poll_want(third, &mut three, all), Next::Want(groups(63, 64)), "it was given back");
}

#[test]
fn only_who_asks_little_more_than_the_cheapest_helps() {
    let near = |price, cheapest| is_near(Price::per_gib(price), Price::per_gib(cheapest));
    assert!(near(9_000, 7_000) && near(0, 0) && near(10_500, 7_000));
    assert!(!near(10_501, 7_000) && !near(1, 0));
}

/// One seller's side of a plan under test.
struct Seller {
    lane: Lane,
    session: BuyerSession,
    price: Price,
    asked: VecDeque<Groups>,
}

proptest! {
    /// Whatever sellers serve of what they are asked for, in any order, and whenever they end: each group is bought once,
    /// all of them are if the limit pays for it, and together they cost no more than it.
    #[test]
    fn several_sellers_sell_each_group_once_and_within_the_limit(
        bytes in 1..20 * MIB,
        prices in proptest::collection::vec(0..1_u64 << 40, 2..AT_ONCE),
        limit in proptest::option::of(0..1_u64 << 36),
        steps in proptest::collection::vec((0..AT_ONCE, 1..2_000_u64, 0..40_u8), 1..60),
    ) {
        let (size, limit) = (Size::new(bytes).unwrap(), limit.map(Msat::new));
        let mut plan = Plan::up_to(limit);
        let mut have = vec![false; usize::try_from(size.group_count()).unwrap()];
        let mut cost = Msat::ZERO;
        let mut sellers: Vec<Seller> = Vec::new();
        for price in prices.iter().map(|price| Price::per_gib(*price)) {
            sellers.push(Seller::join(&mut plan, size, price));
        }
        let dearest = prices.iter().copied().max().map(Price::per_gib).unwrap();
        let mut sessions = sellers.len() as u64;
        let mut steps = steps.into_iter().cycle();
        loop {
            for seller in &mut sellers {
                seller.want(&mut plan, &have);
            }
            let claimed: Vec<u64> = sellers.iter().flat_map(|one| &one.asked).flat_map(|range| range.indices()).collect();
            let mut once = claimed.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), claimed.len(), "no group is claimed twice");
            if claimed.is_empty() {
                break;
            }
            let (at, most, ends) = steps.next().unwrap();
            let at = (0..sellers.len()).map(|next| (at + next) % sellers.len()).find(|at| !sellers[*at].asked.is_empty());
            let at = at.unwrap();
            if ends == 0 && sessions < 20 {
                // It breaks off, and is asked again.
                let gone = sellers.swap_remove(at);
                let paid = gone.cost();
                cost = cost.saturating_add(paid);
                plan.leave(gone.lane, paid);
                sellers.push(Seller::join(&mut plan, size, gone.price));
                sessions += 1;
            } else if let Some(twice) = sellers[at].serve(&mut plan, &mut have, size, most) {
                prop_assert!(false, "group {} is bought twice", twice);
            }
        }
        let cost = sellers.iter().fold(cost, |sum, one| sum.saturating_add(one.cost()));
        prop_assert!(limit.is_none_or(|limit| cost <= limit), "{} of {:?}", cost, limit);
        let most = dearest.charge(bytes).unwrap().saturating_add(Msat::new(sessions));
        if limit.is_none_or(|limit| most <= limit) {
            prop_assert!(have.iter().all(|have| *have), "all is there");
        }
    }
}

impl Seller {
    fn join(plan: &mut Plan, size: Size, price: Price) -> Self {
        let session = BuyerSession::new(size, price, None, MAX_WINDOW);
        Self { lane: plan.join(), session, price, asked: VecDeque::new() }
    }

    fn want(&mut self, plan: &mut Plan, have: &[bool]) {
        let missing_from = |from| crate::session::tests::missing(have, from);
        while let Next::Want(groups) = plan.poll_want(self.lane, &mut self.session, missing_from) {
            self.asked.push_back(groups);
        }
    }

    /// Serves at most so many groups of the oldest range; a group that is there already.
    fn serve(&mut self, plan: &mut Plan, have: &mut [bool], size: Size, most: u64) -> Option<u64> {
        let served = self.asked.pop_front()?.within(most * crate::content::GROUP_LEN);
        self.session.handle_serving(served).unwrap();
        for group in served.indices() {
            self.session.handle_verified(size.bytes_in(groups(group, group + 1)));
            if std::mem::replace(&mut have[usize::try_from(group).unwrap()], true) {
                return Some(group);
            }
        }
        self.session.handle_served();
        plan.update(self.lane, &self.session);
        None
    }

    fn cost(&self) -> Msat {
        self.price.charge(self.session.verified()).unwrap()
    }
}
