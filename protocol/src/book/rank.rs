//! Who is cheapest for this buyer.

use std::cmp::Reverse;

use libp2p_identity::PeerId;

use crate::money::{Msat, Price};

/// A seller that could deliver, and what this buyer knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The seller.
    pub seller: PeerId,
    /// Its price for this object: the quote's, else that of its listing.
    pub price: Price,
    /// What it would deliver, by its own claim of the size.
    pub bytes: u64,
    /// In how many objects: each has a quote of its own, whose charge is rounded up to a msat.
    pub objects: u64,
    /// What can be bought there without paying first: what is prepaid, and the allowance.
    pub available: Msat,
    /// What paying in advance would cost beside the amount: the fee of the cheapest rail open to both.
    pub setup_fee: Msat,
    /// The smallest advance that it takes.
    pub min_topup: Msat,
    /// Deliveries that verified, in thousandths of those asked for; 500 for a stranger.
    pub reliability: u16,
}

/// A candidate and what the whole delivery would cost there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// The candidate.
    pub candidate: Candidate,
    /// The charge of the seller: exact for one object, for several at most a msat too much for each.
    pub charge: Msat,
    /// What must be paid before the last byte comes; zero when what is available suffices.
    pub advance: Msat,
    /// The charge, and the fee of an advance where one is needed.
    pub total: Msat,
    /// What would be left there, where the smallest advance is more than what is missing: it buys later, and only there.
    pub surplus: Msat,
}

/// Orders candidates by what their delivery would cost and leave there in all, the least first.
///
/// Equals go to the more reliable seller, then to the one that asks for the smaller advance, then by peer id, so
/// that the order is the same on every run. A price whose total does not fit into an amount is left out: nobody can pay
/// it.
#[must_use]
pub fn rank(candidates: impl IntoIterator<Item = Candidate>) -> Vec<Ranked> {
    let mut ranked: Vec<_> = candidates.into_iter().filter_map(cost).collect();
    ranked.sort_by_key(|ranked| {
        let Candidate { reliability, seller, .. } = ranked.candidate;
        (ranked.total.saturating_add(ranked.surplus), Reverse(reliability), ranked.advance, seller)
    });
    ranked
}

fn cost(candidate: Candidate) -> Option<Ranked> {
    let roundings = if candidate.price > Price::FREE { candidate.objects.saturating_sub(1) } else { 0 };
    let charge = candidate.price.charge(candidate.bytes)?.checked_add(Msat::new(roundings))?;
    let advance = charge.saturating_sub(candidate.available);
    let (fee, surplus) = match advance {
        Msat::ZERO => (Msat::ZERO, Msat::ZERO),
        advance => (candidate.setup_fee, candidate.min_topup.saturating_sub(advance)),
    };
    Some(Ranked { candidate, charge, advance, total: charge.checked_add(fee)?, surplus })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offer::tests::{key, seller};

    const GIB: u64 = 1 << 30;

    fn candidate(n: u8, msat_per_gib: u64) -> Candidate {
        Candidate {
            seller: seller(&key(n)),
            price: Price::per_gib(msat_per_gib),
            bytes: GIB,
            objects: 1,
            available: Msat::ZERO,
            setup_fee: Msat::new(5_000),
            min_topup: Msat::ZERO,
            reliability: 500,
        }
    }

    fn order(candidates: impl IntoIterator<Item = Candidate>) -> Vec<PeerId> {
        rank(candidates).into_iter().map(|ranked| ranked.candidate.seller).collect()
    }

    #[test]
    fn a_balance_saves_the_fee_of_an_advance() {
        let cheap = candidate(1, 10_000);
        let known = Candidate { available: Msat::new(12_000), ..candidate(2, 12_000) };
        assert_eq!(order([cheap, known]), [known.seller, cheap.seller]);
        let almost = Candidate { available: Msat::new(11_999), ..known };
        assert_eq!(order([cheap, almost]), [cheap.seller, almost.seller]);
        let ranked = rank([almost]);
        assert_eq!((ranked[0].advance, ranked[0].total), (Msat::new(1), Msat::new(17_000)));
    }

    #[test]
    fn whoever_wants_more_left_than_the_goods_cost_comes_later() {
        let greedy = Candidate { min_topup: Msat::new(1_000_000), ..candidate(1, 10_000) };
        let modest = Candidate { min_topup: Msat::new(20_000), ..candidate(2, 12_000) };
        let dear = Candidate { min_topup: Msat::new(20_000), ..candidate(3, 13_000) };
        assert_eq!(order([greedy, dear, modest]), [modest.seller, dear.seller, greedy.seller]);
        // Where it has enough from us, nothing more is to be left.
        let known = Candidate { available: Msat::new(10_000), ..greedy };
        assert_eq!(order([modest, known]), [known.seller, modest.seller]);
        assert_eq!(rank([modest])[0].surplus, Msat::new(8_000));
    }

    #[test]
    fn ties_go_to_the_reliable_then_to_the_smaller_advance_then_by_id() {
        let plain = candidate(1, 10_000);
        let trusted = Candidate { reliability: 900, ..candidate(2, 10_000) };
        let prepaid = Candidate { available: Msat::new(1), ..candidate(3, 10_000) };
        let twin = candidate(4, 10_000);
        let (first, last) = (plain.seller.min(twin.seller), plain.seller.max(twin.seller));
        for candidates in [[plain, trusted, prepaid, twin], [twin, prepaid, trusted, plain]] {
            assert_eq!(order(candidates), [trusted.seller, prepaid.seller, first, last]);
        }
    }

    #[test]
    fn many_objects_cost_at_most_a_rounding_each() {
        let folder = Candidate { bytes: 3 * 1024, objects: 4, ..candidate(1, 10_000) };
        // Three files of 1 KiB and a manifest: each alone is a part of a msat.
        assert_eq!(rank([folder])[0].charge, Msat::new(4));
        assert_eq!(rank([Candidate { price: Price::FREE, ..folder }])[0].charge, Msat::ZERO);
    }

    #[test]
    fn what_nobody_can_pay_is_left_out() {
        let absurd = Candidate { price: Price::per_gib(u64::MAX), ..candidate(1, 0) };
        assert_eq!(rank([absurd]), []);
        assert_eq!(rank([Candidate { bytes: u64::MAX, ..candidate(1, 0) }])[0].total, Msat::ZERO);
    }
}
