//! The double-entry view of all accounts, and the comparison of two sides' books (MONEY.md 1.5).
//!
//! **Invariant:** all accounts of a ledger sum to 0.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result as FmtResult};

use libp2p_identity::PeerId;

use crate::account::{Account, Direction, Tab};
use crate::money::Msat;
use crate::offer::Service;

/// An account of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LedgerAccount {
    /// What a buyer owes us.
    Receivable(PeerId),
    /// What we owe a seller.
    Payable(PeerId),
    /// What a buyer has left with us.
    PrepaidIn(PeerId),
    /// What we have left with a seller.
    PrepaidOut(PeerId),
    /// Coins, as far as trade moved them.
    RailChain,
    /// Earned by selling a service.
    Income(Service),
    /// Spent on buying a service.
    Expense(Service),
    /// Owed by buyers in default.
    BadDebt,
    /// Given to strangers, and got as one.
    Promo,
    /// Paid to the network.
    Fees,
    /// Paid for us from other wallets.
    Equity,
}

impl Display for LedgerAccount {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Self::Receivable(peer) => write!(f, "recv:{peer}"),
            Self::Payable(peer) => write!(f, "pay:{peer}"),
            Self::PrepaidIn(peer) => write!(f, "prepaid_in:{peer}"),
            Self::PrepaidOut(peer) => write!(f, "prepaid_out:{peer}"),
            Self::RailChain => f.write_str("rail:chain"),
            Self::Income(service) => write!(f, "income:{service}"),
            Self::Expense(service) => write!(f, "expense:{service}"),
            Self::BadDebt => f.write_str("bad_debt"),
            Self::Promo => f.write_str("promo"),
            Self::Fees => f.write_str("fees"),
            Self::Equity => f.write_str("equity"),
        }
    }
}

/// Balances in msat, debit positive: a view of the accounts, never stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    balances: BTreeMap<LedgerAccount, i128>,
}

impl Ledger {
    /// The ledger of these accounts.
    pub fn of<'a>(accounts: impl IntoIterator<Item = (&'a PeerId, Direction, &'a Account)>) -> Self {
        let mut ledger = Self::default();
        for (peer, direction, account) in accounts {
            match direction {
                Direction::Sold => ledger.post_sold(*peer, account),
                Direction::Bought => ledger.post_bought(*peer, account),
            }
        }
        ledger
    }

    /// The balances that are not 0.
    pub fn balances(&self) -> impl Iterator<Item = (&LedgerAccount, i128)> {
        self.balances.iter().filter(|(_, msat)| **msat != 0).map(|(book, msat)| (book, *msat))
    }

    /// The balance of one account, in msat.
    #[must_use]
    pub fn balance(&self, book: LedgerAccount) -> i128 {
        self.balances.get(&book).copied().unwrap_or(0)
    }

    /// What all accounts sum to: 0, or the code is wrong.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.balances.values().fold(0, |sum, msat| sum.saturating_add(*msat))
    }

    fn post_sold(&mut self, peer: PeerId, account: &Account) {
        let tab = account.tab();
        self.post(LedgerAccount::Receivable(peer), LedgerAccount::Income(Service::Chunks), tab.spent);
        let granted = account.history().granted();
        self.post(LedgerAccount::RailChain, LedgerAccount::Receivable(peer), tab.paid.saturating_sub(granted));
        self.post(LedgerAccount::Promo, LedgerAccount::Receivable(peer), granted);
        self.post(LedgerAccount::Receivable(peer), LedgerAccount::PrepaidIn(peer), tab.prepaid());
        if account.conduct().defaulted.is_some() {
            self.post(LedgerAccount::BadDebt, LedgerAccount::Receivable(peer), tab.debt());
        }
    }

    fn post_bought(&mut self, peer: PeerId, account: &Account) {
        let tab = account.tab();
        self.post(LedgerAccount::Expense(Service::Chunks), LedgerAccount::Payable(peer), tab.spent);
        for payment in account.payments() {
            let purse = if payment.ours { LedgerAccount::RailChain } else { LedgerAccount::Equity };
            if payment.is_credited() {
                self.post(LedgerAccount::Payable(peer), purse, payment.amount());
            }
            if payment.depth > 0 {
                self.post(LedgerAccount::Fees, purse, Msat::from_sat(payment.fee_sat).unwrap_or(Msat::MAX));
            }
        }
        self.post(LedgerAccount::Payable(peer), LedgerAccount::Promo, account.history().granted());
        self.post(LedgerAccount::PrepaidOut(peer), LedgerAccount::Payable(peer), tab.prepaid());
    }

    fn post(&mut self, debit: LedgerAccount, credit: LedgerAccount, amount: Msat) {
        let msat = i128::from(amount.msat());
        let debited = self.balances.entry(debit).or_default();
        *debited = debited.saturating_add(msat);
        let credited = self.balances.entry(credit).or_default();
        *credited = credited.saturating_sub(msat);
    }
}

/// Where two sides' books differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The signed-for totals differ.
    #[error("spent: the seller has {seller}, the buyer {buyer}")]
    Spent {
        /// The seller's figure.
        seller: Msat,
        /// The buyer's figure.
        buyer: Msat,
    },
    /// The paid totals differ, though both sides see the same block.
    #[error("paid: the seller has {seller}, the buyer {buyer}")]
    Paid {
        /// The seller's figure.
        seller: Msat,
        /// The buyer's figure.
        buyer: Msat,
    },
}

/// One side's view of one account, and the block height at which `paid` was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The counters.
    pub tab: Tab,
    /// Height of the newest block that this side has seen.
    pub tip_height: u64,
}

impl View {
    /// Compares the seller's view of an account with the buyer's: `spent` always, `paid` at equal tip height.
    ///
    /// # Errors
    /// The first [`Disagreement`].
    pub fn agrees_with(self, buyer: Self) -> Result<(), Disagreement> {
        if self.tab.spent != buyer.tab.spent {
            return Err(Disagreement::Spent { seller: self.tab.spent, buyer: buyer.tab.spent });
        }
        if self.tip_height == buyer.tip_height && self.tab.paid != buyer.tab.paid {
            return Err(Disagreement::Paid { seller: self.tab.paid, buyer: buyer.tab.paid });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
