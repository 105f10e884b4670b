//! One object from several sellers at once: who brings which groups, and what all may cost together.
//!
//! Each session claims the ranges that it wants until they are complete or it ends; what a seller leaves undone is free
//! again for the others. No rate is measured: whoever is done first takes the next range.

use std::collections::BTreeMap;

use crate::content::{GROUP_LEN, Groups};
use crate::money::{Msat, Price};
use crate::session::{BuyerSession, FIRST_WINDOW, PIPELINED_WANTS};

/// Sessions for one object at once: more divide the buyer's line, and each has its own start.
pub const AT_ONCE: usize = 4;

/// How many thousandths of the cheapest price a seller that helps may ask: beyond that, time is dearer than the goods.
const DEAREST: u64 = 1_500;

/// What is free is divided in so many shares for each session: one for each Want that may be on its way.
const SHARES_EACH: u64 = PIPELINED_WANTS as u64;

/// A session's place in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(u64);

/// What the sessions of one order for one object bring and cost.
///
/// **Invariant:** no group is claimed by two sessions, and what has ended and what is claimed costs no more than the limit.
#[derive(Debug)]
pub struct Plan {
    limit: Option<Msat>,
    /// What the sessions cost that have ended.
    spent: Msat,
    lanes: BTreeMap<Lane, Share>,
    joined: u64,
}

/// What one session has claimed.
#[derive(Debug, Default)]
struct Share {
    claimed: Vec<Groups>,
    committed: Msat,
}

/// What a session is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Want this range.
    Want(Groups),
    /// Nothing now: enough is on its way, or the limit leaves no room for what is missing.
    Wait,
    /// Nothing more: all is there, or on its way from others.
    Done,
}

impl Plan {
    /// A plan in which all sessions together may cost at most `limit`.
    #[must_use]
    pub const fn up_to(limit: Option<Msat>) -> Self {
        Self { limit, spent: Msat::ZERO, lanes: BTreeMap::new(), joined: 0 }
    }

    /// A place for one more session.
    #[must_use]
    pub fn join(&mut self) -> Lane {
        let lane = Lane(self.joined);
        self.joined = self.joined.saturating_add(1);
        self.lanes.insert(lane, Share::default());
        lane
    }

    /// What a session is to do next; `missing_from` answers the first run of groups that are not here at or after an index.
    ///
    /// What is wanted counts as claimed, and its cost as committed.
    pub fn poll_want(
        &mut self,
        lane: Lane,
        session: &mut BuyerSession,
        missing_from: impl Fn(u64) -> Option<Groups>,
    ) -> Next {
        session.set_limit(self.left_for(lane));
        let free_from = |from| self.free_from(lane, from, &missing_from);
        let next = match session.poll_want(free_from) {
            Some(groups) => Next::Want(groups),
            // Asked with each frame that comes: what is free is only looked for when that decides.
            None if !session.is_idle() || free_from(0).is_some() => Next::Wait,
            None => Next::Done,
        };
        self.update(lane, session);
        next
    }

    /// Takes down what a session has on its way after it heard from its seller: what is complete or left out is no longer
    /// claimed.
    pub fn update(&mut self, lane: Lane, session: &BuyerSession) {
        let share = Share { claimed: session.on_its_way().collect(), committed: session.committed() };
        self.lanes.insert(lane, share);
    }

    /// Ends a session that cost so much; what it did not bring is free for the others.
    pub fn leave(&mut self, lane: Lane, cost: Msat) {
        self.lanes.remove(&lane);
        self.spent = self.spent.saturating_add(cost);
    }

    /// What a session may cost: the limit, less what all others cost.
    fn left_for(&self, lane: Lane) -> Option<Msat> {
        let others = self.lanes.iter().filter(|(other, _)| **other != lane);
        let taken = others.fold(self.spent, |sum, (_, share)| sum.saturating_add(share.committed));
        self.limit.map(|limit| limit.saturating_sub(taken))
    }

    /// Bytes of a free run that one session may claim: near the end less than a window, so that all end together.
    fn share_of(&self, free: Groups) -> u64 {
        let lanes = u64::try_from(self.lanes.len()).unwrap_or(u64::MAX);
        if lanes < 2 {
            return u64::MAX;
        }
        let each = free.count().saturating_mul(GROUP_LEN).checked_div(lanes.saturating_mul(SHARES_EACH)).unwrap_or(0);
        each.max(FIRST_WINDOW)
    }

    /// The first run of missing groups at or after an index that no other session has claimed.
    fn free_from(&self, lane: Lane, mut from: u64, missing_from: impl Fn(u64) -> Option<Groups>) -> Option<Groups> {
        let others = || {
            let others = self.lanes.iter().filter(|(other, _)| **other != lane);
            others.flat_map(|(_, share)| share.claimed.iter().copied())
        };
        // Each turn steps over one claim at least.
        loop {
            let run = missing_from(from)?;
            match others().find(|claim| claim.contains(run.start())) {
                Some(claim) => from = claim.end(),
                None => {
                    let claims = others().map(Groups::start).filter(|start| *start > run.start());
                    let end = claims.min().map_or(run.end(), |start| start.min(run.end()));
                    let free = Groups::new(run.start(), end)?;
                    return Some(free.within(self.share_of(free)));
                }
            }
        }
    }
}

/// Whether a seller that asks `price` helps where the cheapest asks `cheapest`.
#[must_use]
pub const fn is_near(price: Price, cheapest: Price) -> bool {
    price.msat_per_gib().saturating_mul(1_000) <= cheapest.msat_per_gib().saturating_mul(DEAREST)
}

#[cfg(test)]
mod tests;
