//! How a buyer stands with us, for admission and for people.

use libp2p_identity::PeerId;

use crate::account::{Account, Direction, Tab};
use crate::credit::Pool;
use crate::market::Market;
use crate::money::Msat;
use crate::time::Timestamp;

/// The word for how a buyer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Never paid: pays first.
    Stranger,
    /// Pays first, and has.
    Prepaid,
    /// Has a credit line.
    Credit,
    /// Is sold nothing, by the owner's word.
    Blocked,
}

impl Standing {
    /// The word as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Prepaid => "prepaid",
            Self::Credit => "credit",
            Self::Blocked => "blocked",
        }
    }

    /// Why it is so, in a sentence for people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Stranger => "nothing was paid yet, so everything is paid in advance",
            Self::Prepaid => {
                "too little is finally paid and earned for a credit line, so everything is paid in advance"
            }
            Self::Credit => "what was finally paid and earned carries a credit line",
            Self::Blocked => "you have blocked it, so it is sold nothing; it can still pay what it owes",
        }
    }
}

/// What admission of one buyer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footing {
    /// The account, with tails that the pool does not carry counted as held.
    pub(super) tab: Tab,
    /// The credit line, less the tails it carries.
    pub(super) allowance: Msat,
    /// Sent, not signed for, and carried by the line (A) or the pool (B).
    pub(super) tails: Msat,
    /// Realised trade, undecayed.
    pub(super) realised: Msat,
}

/// How useful a peer is with whom there was trade, of 100.
const TRADED: u8 = 50;

impl Market {
    /// How useful it is to stay connected with a peer, from 0 to 100: whoever has bought or sold comes before who hasn't.
    #[must_use]
    pub fn usefulness(&self, peer: &PeerId) -> u8 {
        let bought = self.account(peer, Direction::Bought).is_some_and(|account| account.spent() > Msat::ZERO);
        let sold = self.account(peer, Direction::Sold).is_some_and(|account| account.realised() > Msat::ZERO);
        if bought || sold { TRADED } else { 0 }
    }

    /// The credit line of a buyer at this moment.
    #[must_use]
    pub fn allowance(&self, buyer: &PeerId, now: Timestamp) -> Msat {
        let served = self.account(buyer, Direction::Sold).filter(|account| account.block().is_none());
        served.map_or(Msat::ZERO, |account| self.line_of(account, now))
    }

    /// The word for how a buyer stands.
    #[must_use]
    pub fn standing(&self, buyer: &PeerId, now: Timestamp) -> Standing {
        match self.account(buyer, Direction::Sold) {
            Some(account) if account.block().is_some() => Standing::Blocked,
            Some(account) if self.line_of(account, now) > Msat::ZERO => Standing::Credit,
            Some(account) if account.paid() > Msat::ZERO => Standing::Prepaid,
            Some(_) | None => Standing::Stranger,
        }
    }

    /// What strangers may draw on together.
    #[must_use]
    pub fn pool(&self, now: Timestamp) -> Pool {
        let sold = self.accounts().filter(|(_, direction, _)| *direction == Direction::Sold);
        sold.fold(Pool::default(), |pool, (_, _, account)| {
            let stranger = self.line_of(account, now) == Msat::ZERO;
            let outstanding = if stranger { outstanding(account) } else { Msat::ZERO };
            Pool {
                realised: pool.realised.saturating_add(account.realised()),
                lost: pool.lost.saturating_add(account.history().granted()),
                outstanding: pool.outstanding.saturating_add(outstanding),
                given_today: pool.given_today.saturating_add(account.history().granted_today(now)),
            }
        })
    }

    pub(super) fn footing(&self, buyer: &PeerId, now: Timestamp) -> Footing {
        let Some(account) = self.account(buyer, Direction::Sold) else {
            let nothing = Msat::ZERO;
            return Footing { tab: Tab::default(), allowance: nothing, tails: nothing, realised: nothing };
        };
        let (mut tab, tails, line) = (account.tab(), account.tails(), self.line_of(account, now));
        let carried = if line > Msat::ZERO { tails <= line } else { tails == Msat::ZERO || self.pool_carries(now) };
        if !carried {
            tab.held = tab.held.saturating_add(tails);
        }
        let tails = if carried { tails } else { Msat::ZERO };
        Footing { tab, allowance: line.saturating_sub(tails), tails, realised: account.realised() }
    }

    /// Tails of strangers count as outstanding already: the pool carries them while it is not overdrawn.
    fn pool_carries(&self, now: Timestamp) -> bool {
        let pool = self.pool(now);
        let others = Pool { outstanding: Msat::ZERO, ..pool };
        others.covers(pool.outstanding, &self.terms.credit)
    }

    fn line_of(&self, account: &Account, now: Timestamp) -> Msat {
        self.terms.credit.allowance(account.history(), account.repaid(), now)
    }
}

/// What a peer without a credit line has, or may have, without having paid for it.
///
/// Signing for a tail later turns it into a debt, which is no less outstanding. Nor is what was sent while a tail was let
/// go, once there are too many tails for that: its money holds less than it got.
fn outstanding(account: &Account) -> Msat {
    let (tab, tails) = (account.tab(), account.tails());
    let unpaid = tab.spent.saturating_add(tab.held).saturating_sub(tab.paid);
    tails.saturating_add(tab.debt()).max(unpaid)
}
