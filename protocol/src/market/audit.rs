//! The invariants of money as one function, for every test, for the nodes of a story, and for a user's real data.
//!
//! What it looks at is MONEY.md 9: the books sum to 0 (I1), all counters fit each other (I2), two sides agree (I5), work
//! began within paid and allowance (I6), an overpayment is balance (I7), an output is credited once (I8), the bounds (A)
//! and (B) (I10), and the wallet's word on each payment. Signatures are checked when a row is read.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use crate::account::{Account, Direction, Line, OutPoint, Payment, TAIL_FLOOR_BYTES, TAIL_SHARE};
use crate::id::{QuoteId, TopUpId};
use crate::ledger::{Disagreement, LedgerAccount, View};
use crate::market::{Incoming, Market, Outgoing};
use crate::money::{Msat, Price};

/// One node's books.
#[derive(Debug, Clone, Copy)]
pub struct Books<'a> {
    /// Its accounts, at the height of the newest block that it has seen.
    pub market: &'a Market,
    /// What its wallet says, where it was asked.
    pub wallet: Option<&'a WalletBooks>,
}

/// All that a wallet knows of payments; its state of a payment wins over the journal's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalletBooks {
    /// Payments to us.
    pub incoming: Vec<Incoming>,
    /// Payments of ours.
    pub outgoing: Vec<Outgoing>,
}

/// Something in the books that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// I1.
    #[error("the accounts of the ledger sum to {msat} msat, not 0")]
    Unbalanced {
        /// The sum.
        msat: i128,
    },
    /// I7, and its like on the other side.
    #[error("{book} stands at {msat} msat, which is the wrong side")]
    WrongSide {
        /// The account of the ledger.
        book: LedgerAccount,
        /// Its balance.
        msat: i128,
    },
    /// I2: more is signed for than was sent, or acknowledged than was signed.
    #[error("quote {quote} with {peer}: {more} bytes are confirmed of {less}")]
    Counter {
        /// The other side.
        peer: PeerId,
        /// The quote.
        quote: QuoteId,
        /// The counter that is too high.
        more: u64,
        /// What it can't exceed.
        less: u64,
    },
    /// A quote or a top-up that was signed for others.
    #[error("{name} under the account with {peer} is between others")]
    Parties {
        /// Whose account it stands under.
        peer: PeerId,
        /// The name of the quote or top-up.
        name: String,
    },
    /// I6 and (A).
    #[error("{peer} was served for {owed}, and only {covered} were paid or could be lent")]
    Overdrawn {
        /// The buyer.
        peer: PeerId,
        /// Signed for, or under way.
        owed: Msat,
        /// Paid, lent, or excused: by a reorg, a crash of ours, a tail that was signed for later.
        covered: Msat,
    },
    /// (B).
    #[error("strangers have {outstanding} unsecured and given, of {size} that they may have together")]
    Pool {
        /// Given and outstanding.
        outstanding: Msat,
        /// B0 + φ·μ·R.
        size: Msat,
    },
    /// I8.
    #[error("payment {outpoint} is credited to {first} and to {second}")]
    CreditedTwice {
        /// The output.
        outpoint: OutPoint,
        /// One account.
        first: PeerId,
        /// Another one.
        second: PeerId,
    },
    /// The journal counts what the wallet does not see in the chain.
    #[error("payment {outpoint} with {peer} counts in the journal, and the wallet {says}")]
    Wallet {
        /// The other side.
        peer: PeerId,
        /// The output.
        outpoint: OutPoint,
        /// What the wallet has.
        says: WalletSays,
    },
    /// I5: the books of two nodes differ.
    #[error("the books of {seller} and its buyer {buyer} differ: {what}")]
    Disagree {
        /// Who sold.
        seller: PeerId,
        /// Who bought.
        buyer: PeerId,
        /// In what.
        what: Disagreement,
    },
}

/// What a wallet says of a payment that counts in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WalletSays {
    /// It never saw it.
    #[error("does not know it")]
    Unknown,
    /// It is in no block.
    #[error("sees it in no block")]
    Unconfirmed,
    /// It pays another amount.
    #[error("has {sat} sat for it")]
    Amount {
        /// That amount.
        sat: u64,
    },
}

/// Audits the books of one node; or of several of one chain, after they have exchanged their counters: then also whether
/// they agree, `spent` always and `paid` at equal tip height.
#[must_use]
pub fn audit_ledgers(books: &[Books<'_>]) -> Vec<Finding> {
    let own = books.iter().flat_map(|books| {
        let mut findings = audit_balances(books.market);
        findings.extend(books.market.accounts().flat_map(|(peer, direction, account)| {
            let lines = account.lines().flat_map(|line| audit_line(books.market.me(), *peer, direction, line));
            lines.chain(audit_topups(books.market.me(), *peer, direction, account)).collect::<Vec<_>>()
        }));
        findings.extend(audit_credits(books.market));
        findings.extend(audit_exposure(books.market));
        findings.extend(books.wallet.into_iter().flat_map(|wallet| audit_wallet(books.market, wallet)));
        findings
    });
    own.chain(audit_agreement(books)).collect()
}

fn audit_balances(market: &Market) -> Vec<Finding> {
    let ledger = market.ledger();
    let sum = Some(ledger.sum()).filter(|sum| *sum != 0).map(|msat| Finding::Unbalanced { msat });
    let wrong_side = |(book, msat): (&LedgerAccount, i128)| {
        let wrong = match book {
            LedgerAccount::Receivable(_)
            | LedgerAccount::PrepaidOut(_)
            | LedgerAccount::Expense(_)
            | LedgerAccount::BadDebt => msat < 0,
            LedgerAccount::Payable(_) | LedgerAccount::PrepaidIn(_) | LedgerAccount::Income(_) => msat > 0,
            LedgerAccount::RailChain | LedgerAccount::Promo | LedgerAccount::Fees | LedgerAccount::Equity => false,
        };
        wrong.then_some(Finding::WrongSide { book: *book, msat })
    };
    sum.into_iter().chain(ledger.balances().filter_map(wrong_side)).collect()
}

fn audit_line(me: PeerId, peer: PeerId, direction: Direction, line: &Line) -> Vec<Finding> {
    let (quote, signed, admitted) = (line.quote().quote(), line.signed_units(), line.admitted_units());
    let (parties, more, less) = match direction {
        Direction::Sold => ((me, peer), signed, admitted),
        Direction::Bought => ((peer, me), admitted, signed),
    };
    let others = (parties != (quote.seller, quote.buyer))
        .then(|| Finding::Parties { peer, name: format!("quote {}", line.id()) });
    let counter = (more > less).then(|| Finding::Counter { peer, quote: line.id(), more, less });
    others.into_iter().chain(counter).collect()
}

fn audit_topups(me: PeerId, peer: PeerId, direction: Direction, account: &Account) -> Vec<Finding> {
    let (seller, buyer) = match direction {
        Direction::Sold => (me, peer),
        Direction::Bought => (peer, me),
    };
    let words = account.topups().filter_map(|line| line.topup.as_ref().map(|word| (line.id, word.topup())));
    let others = words.filter(|(id, word)| (word.id, word.seller, word.buyer) != (*id, seller, buyer));
    others.map(|(id, _)| Finding::Parties { peer, name: format!("top-up {id}") }).collect()
}

fn audit_credits(market: &Market) -> Vec<Finding> {
    let mut credited: BTreeMap<(Direction, OutPoint), PeerId> = BTreeMap::new();
    let payments = market.accounts().flat_map(|(peer, direction, account)| {
        account.payments().filter(|payment| payment.is_credited()).map(move |payment| (*peer, direction, payment))
    });
    let twice = payments.filter_map(|(second, direction, Payment { outpoint, .. })| {
        let first = credited.insert((direction, *outpoint), second)?;
        Some(Finding::CreditedTwice { outpoint: *outpoint, first, second })
    });
    twice.collect()
}

/// What one buyer has, and what makes it right.
struct Exposure {
    /// Signed for, or admitted in a stream that is open.
    owed: Msat,
    /// Sent in streams that ended, and not signed for.
    tail: Msat,
    paid: Msat,
    /// ξ·μ·R since the last default, or what it carried of the debt in default; with the most that R ever was: a deep reorg takes trade back, not what was lent on it.
    line: Msat,
    /// Paid once, or under way: a reorg takes back what paid for work that was done.
    withdrawn: Msat,
    /// What a buyer may sign for after a crash of ours let go of its hold.
    interrupted: Msat,
    /// What a buyer may sign for after its tail was let go.
    late: Msat,
    realised: Msat,
}

impl Exposure {
    fn of(market: &Market, account: &Account) -> Self {
        let sum = |amounts: &mut dyn Iterator<Item = Msat>| amounts.fold(Msat::ZERO, Msat::saturating_add);
        let (open, ended): (Vec<&Line>, Vec<&Line>) = account.lines().partition(|line| !line.has_ended());
        let interrupted = ended.iter().filter(|line| line.was_interrupted());
        let signed = sum_units(account.lines().map(Line::signed_units)).saturating_add(account.folded().units);
        let dearest = account.lines().map(|line| line.quote().quote().price).max().unwrap_or(Price::FREE);
        let let_go = TAIL_FLOOR_BYTES.max(signed / TAIL_SHARE);
        let realised = account.realised().max(account.history().counted);
        let rules = &market.terms().credit;
        Self {
            owed: account.spent().saturating_add(sum(&mut open.iter().map(|line| line.held()))),
            tail: sum(&mut ended.iter().map(|line| line.held())).saturating_add(account.folded().tail),
            paid: account.paid(),
            line: rules.line(realised.saturating_sub(account.conduct().voided)).max(account.conduct().lost_line),
            withdrawn: sum(&mut account.payments().filter(|payment| !payment.is_credited()).map(Payment::amount)),
            interrupted: sum(&mut interrupted.map(|line| line.quote().charge(line.admitted_units()))),
            late: dearest.charge(let_go).unwrap_or(Msat::MAX),
            realised,
        }
    }

    /// Paid or lent, or excused by what nobody could help.
    fn covered(&self) -> Msat {
        [self.line, self.withdrawn, self.interrupted].into_iter().fold(self.paid, Msat::saturating_add)
    }

    /// What only the pool of strangers can carry.
    fn unsecured(&self) -> Msat {
        self.owed.saturating_add(self.tail).saturating_sub(self.covered())
    }
}

/// I6 with (A) for each buyer, (B) for all.
fn audit_exposure(market: &Market) -> Vec<Finding> {
    let sold = market.accounts().filter(|(_, direction, _)| *direction == Direction::Sold);
    let exposures: Vec<(PeerId, Msat, Exposure)> =
        sold.map(|(peer, _, account)| (*peer, account.history().granted(), Exposure::of(market, account))).collect();
    let overdrawn = exposures.iter().filter_map(|(peer, _, exposure)| {
        let covered = exposure.covered().saturating_add(exposure.late);
        (exposure.owed > covered).then_some(Finding::Overdrawn { peer: *peer, owed: exposure.owed, covered })
    });
    let rules = &market.terms().credit;
    let realised = exposures.iter().fold(Msat::ZERO, |sum, (_, _, exposure)| sum.saturating_add(exposure.realised));
    let size = rules.stake.saturating_add(rules.mu.of(rules.phi.of(realised)));
    let outstanding = exposures
        .iter()
        .fold(Msat::ZERO, |sum, (_, given, exposure)| sum.saturating_add(*given).saturating_add(exposure.unsecured()));
    let pool = (outstanding > size).then_some(Finding::Pool { outstanding, size });
    overdrawn.chain(pool).collect()
}

fn audit_wallet(market: &Market, wallet: &WalletBooks) -> Vec<Finding> {
    let incoming: &BTreeMap<OutPoint, (u64, u32)> =
        &wallet.incoming.iter().map(|fact| (fact.outpoint, (fact.amount_sat, fact.depth))).collect();
    let outgoing: &BTreeMap<(TopUpId, OutPoint), (u64, u32)> =
        &wallet.outgoing.iter().map(|fact| ((fact.id, fact.outpoint), (fact.amount_sat, fact.depth))).collect();
    let findings = market.accounts().flat_map(|(peer, direction, account)| {
        let judged = account.payments().filter(|payment| payment.is_credited());
        let judged = judged.filter(move |payment| direction == Direction::Sold || payment.ours);
        judged.filter_map(move |payment| {
            let known = match direction {
                Direction::Sold => incoming.get(&payment.outpoint),
                Direction::Bought => outgoing.get(&(payment.topup, payment.outpoint)),
            };
            let says = wallet_says(payment, known.copied())?;
            Some(Finding::Wallet { peer: *peer, outpoint: payment.outpoint, says })
        })
    });
    findings.collect()
}

/// What is wrong with a payment that counts. One that is final may be older than a wallet that was restored from words.
fn wallet_says(payment: &Payment, known: Option<(u64, u32)>) -> Option<WalletSays> {
    match known {
        None if payment.is_final() => None,
        None => Some(WalletSays::Unknown),
        Some((sat, _)) if sat != payment.amount_sat => Some(WalletSays::Amount { sat }),
        Some((_, 0)) => Some(WalletSays::Unconfirmed),
        Some(_) => None,
    }
}

fn audit_agreement(books: &[Books<'_>]) -> Vec<Finding> {
    let view = |market: &Market, peer: PeerId, direction| {
        let tab = market.account(&peer, direction).map(Account::tab).unwrap_or_default();
        View { tab, tip_height: market.tip_height() }
    };
    let pairs = books.iter().flat_map(|seller| books.iter().map(move |buyer| (seller.market, buyer.market)));
    let differ = pairs.filter_map(|(sells, buys)| {
        let (seller, buyer) = (sells.me(), buys.me());
        let compared = view(sells, buyer, Direction::Sold).agrees_with(view(buys, seller, Direction::Bought));
        compared.err().map(|what| Finding::Disagree { seller, buyer, what })
    });
    differ.collect()
}

fn sum_units(units: impl Iterator<Item = u64>) -> u64 {
    units.fold(0, u64::saturating_add)
}
