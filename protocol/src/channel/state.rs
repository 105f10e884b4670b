//! How far a channel is on either side, and what the chain says of it.

use crate::channel::Terms;
use crate::settlement::FINAL_DEPTH;

/// How far the buyer is. The order is the order of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuyerState {
    /// It asked.
    Open,
    /// The seller agreed.
    Accepted,
    /// The funding is made and stored, not sent.
    Funding,
    /// The funding was sent, and is in no block.
    Broadcast,
    /// The funding is in a block, not deep enough.
    Confirming,
    /// Vouchers may be given.
    Active,
    /// It asked for a split, or the money is being spent: no further voucher.
    Settling,
    /// It takes everything back.
    Refunding,
    /// Spent by the seller or by both, six deep.
    Closed,
    /// Taken back, six deep.
    Refunded,
}

/// How far the seller is. The order is the order of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SellerState {
    /// The buyer asked.
    Offered,
    /// It agreed.
    Accepted,
    /// The funding is known, and in no block.
    FundingSeen,
    /// The funding is in a block, not deep enough.
    Confirming,
    /// Vouchers are taken.
    Active,
    /// No voucher is taken any more; what was paid is still served.
    Draining,
    /// It closes: stored before anything is signed, and nothing is served after it.
    Closing,
    /// Closed, six deep.
    Closed,
    /// The buyer took everything back, six deep.
    Lost,
}

/// Which side of a channel we are on, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We pay.
    Buyer(BuyerState),
    /// We are paid.
    Seller(SellerState),
}

/// The output that holds the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Funding {
    /// The block that holds it, 0 while none does, or no more.
    pub height: u64,
    /// Blocks on top, its own counted; 0 also where it was replaced.
    pub depth: u32,
}

/// How the money was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spend {
    /// The seller closed with a voucher.
    Closed {
        /// What that voucher gave, in sat.
        cum_sat: u64,
        /// This channel's part of the fee, in sat, where it is known.
        fee_sat: Option<u64>,
    },
    /// Both agreed.
    Settled {
        /// What the seller got, in sat.
        seller_sat: u64,
    },
    /// The buyer took everything back.
    Refunded,
}

/// A transaction that spends the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// How.
    pub how: Spend,
    /// Blocks on top, its own counted; 0 while it is in none.
    pub depth: u32,
}

/// What the wallet sees of a channel, whole: the newest replaces the older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fact {
    /// Its funding.
    pub funding: Funding,
    /// What spends it, if anything does.
    pub spent: Option<Spent>,
}

impl Side {
    /// Whether vouchers pass.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Buyer(BuyerState::Active) | Self::Seller(SellerState::Active))
    }

    /// Whether our own step may lead there: onwards only, never over to the other side.
    #[must_use]
    pub fn leads_to(self, to: Self) -> bool {
        match (self, to) {
            (Self::Buyer(from), Self::Buyer(to)) => from < to,
            (Self::Seller(from), Self::Seller(to)) => from < to,
            (Self::Buyer(_), Self::Seller(_)) | (Self::Seller(_), Self::Buyer(_)) => false,
        }
    }

    /// The state that follows from the chain: a funding that is gone leads back as long as nothing closes.
    #[must_use]
    pub(super) fn after(self, fact: &Fact, terms: &Terms, tip_height: u64) -> Self {
        match self {
            Self::Buyer(state) => Self::Buyer(buyer_after(state, fact, terms, tip_height)),
            Self::Seller(state) => Self::Seller(seller_after(state, fact, terms, tip_height)),
        }
    }
}

fn buyer_after(state: BuyerState, fact: &Fact, terms: &Terms, tip_height: u64) -> BuyerState {
    if let Some(spent) = fact.spent {
        return match (spent.how, spent.depth >= FINAL_DEPTH) {
            (Spend::Refunded, true) => BuyerState::Refunded,
            (Spend::Refunded, false) => BuyerState::Refunding,
            (Spend::Closed { .. } | Spend::Settled { .. }, true) => BuyerState::Closed,
            (Spend::Closed { .. } | Spend::Settled { .. }, false) => BuyerState::Settling,
        };
    }
    if state < BuyerState::Funding {
        return state;
    }
    if fact.funding.depth > 0 && tip_height >= terms.refund_height {
        return BuyerState::Refunding;
    }
    if state >= BuyerState::Settling {
        return BuyerState::Settling;
    }
    match fact.funding.depth {
        0 => state.min(BuyerState::Broadcast),
        depth if depth < terms.min_conf => BuyerState::Confirming,
        _deep => BuyerState::Active,
    }
}

fn seller_after(state: SellerState, fact: &Fact, terms: &Terms, tip_height: u64) -> SellerState {
    if let Some(spent) = fact.spent {
        return match (spent.how, spent.depth >= FINAL_DEPTH) {
            (Spend::Refunded, true) => SellerState::Lost,
            (Spend::Closed { .. } | Spend::Settled { .. }, true) => SellerState::Closed,
            (Spend::Closed { .. } | Spend::Settled { .. } | Spend::Refunded, false) => SellerState::Closing,
        };
    }
    if state < SellerState::FundingSeen {
        return state;
    }
    if state >= SellerState::Closing || (fact.funding.depth > 0 && tip_height >= terms.closes_by()) {
        return SellerState::Closing;
    }
    if state == SellerState::Draining || (fact.funding.depth > 0 && tip_height >= terms.stops_at()) {
        return SellerState::Draining;
    }
    match fact.funding.depth {
        0 => SellerState::FundingSeen,
        depth if depth < terms.min_conf => SellerState::Confirming,
        _deep => SellerState::Active,
    }
}
