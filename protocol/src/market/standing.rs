//! How a buyer stands with us, for admission and for people.

use libp2p_identity::PeerId;

use crate::account::{Account, Conduct, Direction, Tab};
use crate::credit::{History, Pool};
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
    /// A bill is past due.
    Overdue {
        /// Since when.
        since: Timestamp,
    },
    /// A bill was not paid, and was given up.
    Defaulted {
        /// Since when.
        since: Timestamp,
    },
    /// The owner sells it nothing.
    Blocked {
        /// Since when.
        since: Timestamp,
    },
}

impl Standing {
    /// The word as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Prepaid => "prepaid",
            Self::Credit => "credit",
            Self::Overdue { .. } => "overdue",
            Self::Defaulted { .. } => "defaulted",
            Self::Blocked { .. } => "blocked",
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
            Self::Overdue { .. } => "a bill is past due, so nothing is sold on credit until it is paid",
            Self::Defaulted { .. } => "a bill was not paid long after it was due, so nothing is sold until all is paid",
            Self::Blocked { .. } => "you have blocked it, so it is sold nothing; it can still pay what it owes",
        }
    }

    /// Since when, where a date is kept of it.
    #[must_use]
    pub const fn since(self) -> Option<Timestamp> {
        match self {
            Self::Stranger | Self::Prepaid | Self::Credit => None,
            Self::Overdue { since } | Self::Defaulted { since } | Self::Blocked { since } => Some(since),
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
    /// Realised trade since the last default, undecayed.
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
        let account = self.account(buyer, Direction::Sold);
        if let Some(standing) = account.and_then(against) {
            return standing;
        }
        match account {
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
            let outstanding = if stranger { self.unlined(account) } else { Msat::ZERO };
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
        Footing { tab, allowance: line.saturating_sub(tails), tails, realised: account.earned() }
    }

    /// Tails of strangers count as outstanding already: the pool carries them while it is not overdrawn.
    fn pool_carries(&self, now: Timestamp) -> bool {
        let pool = self.pool(now);
        let others = Pool { outstanding: Msat::ZERO, ..pool };
        others.covers(pool.outstanding, &self.terms.credit)
    }

    fn line_of(&self, account: &Account, now: Timestamp) -> Msat {
        self.line_with(account, account.history(), now)
    }

    /// The credit line of an account, had it this history.
    pub(super) fn line_with(&self, account: &Account, history: &History, now: Timestamp) -> Msat {
        let conduct = account.conduct();
        if conduct.defaulted.is_some() || conduct.bill.is_some_and(|bill| bill.overdue.is_some()) {
            return Msat::ZERO;
        }
        self.terms.credit.allowance(history, account.trust(), now)
    }

    /// What an account without a line has outstanding beyond what its line carried while it had one.
    fn unlined(&self, account: &Account) -> Msat {
        let conduct = account.conduct();
        let carried = match *conduct == Conduct::default() {
            true => Msat::ZERO,
            false => self.terms.credit.line(account.earned()).max(conduct.lost_line),
        };
        outstanding(account).saturating_sub(carried)
    }
}

/// What is held against a buyer, the gravest first.
fn against(account: &Account) -> Option<Standing> {
    let conduct = account.conduct();
    let blocked = account.block().map(|block| Standing::Blocked { since: block.since });
    let defaulted = || conduct.defaulted.map(|since| Standing::Defaulted { since });
    let overdue = || conduct.bill.and_then(|bill| bill.overdue).map(|since| Standing::Overdue { since });
    blocked.or_else(defaulted).or_else(overdue)
}

/// What a peer without a credit line has, or may have, without having paid for it.
///
/// Signing for a tail later turns it into a debt, which is no less outstanding. Nor is what was sent while a tail was let
/// go, once there are too many tails for that: its money holds less than it got.
pub(super) fn outstanding(account: &Account) -> Msat {
    let (tab, tails) = (account.tab(), account.tails());
    let unpaid = tab.spent.saturating_add(tab.held).saturating_sub(tab.paid);
    tails.saturating_add(tab.debt()).max(unpaid)
}
