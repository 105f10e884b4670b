//! Why nothing was bought, as its owner is told.

use pedlar_protocol::budget::OverBudget;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::settlement::AdvanceError;

use crate::accounts::ExchangeError;
use crate::blobs::{self, FinishError, WriteError};
use crate::cmd::wallet::not_paid;
use crate::failure::{Exit, Failure};
use crate::purchase::{Lacks, OrderError, PaymentFailure, SellerFailure, Why, asks_for_money};
use crate::session::BuyFailure;

/// What to do about a download that broke off.
const GOES_ON: &str = "what is verified stays: the same command goes on with it";

pub(super) fn failure_of(error: OrderError) -> Failure {
    let text = error.to_string();
    let plain = |exit, code| Failure::new(exit, code, &text);
    match &error {
        OrderError::NotFound(_) => {
            plain(Exit::NotFound, "not_found").hint("is the link right, and does its seller run?")
        }
        OrderError::Unreachable(_) => plain(Exit::Network, "unreachable").hint("try again later"),
        OrderError::NoSeller(failures) if failures.iter().any(is_integrity) => plain(Exit::Integrity, "integrity"),
        OrderError::NoSeller(failures) if failures.iter().any(denies) => denied(&text),
        OrderError::NoSeller(_) => plain(Exit::NoSeller, "no_seller"),
        OrderError::Collection(_) => plain(Exit::Integrity, "integrity"),
        OrderError::TooDear { cheapest, .. } => {
            plain(Exit::NoSeller, "too_dear").hint(format!("raise the limit: --max {}msat", cheapest.msat()))
        }
        OrderError::PrepayOverMax { .. } => plain(Exit::OverLimit, "prepay_over_max"),
        OrderError::Payment(failure) => payment_failure(failure),
        OrderError::Incomplete { failures, lacks, .. } => incomplete(failures, lacks.as_ref(), &text),
        OrderError::Open(blobs::OpenError::Exists(_)) | OrderError::Finish(FinishError::Exists { .. }) => {
            Failure::usage("exists", &text).hint("name another place with -o")
        }
        OrderError::Open(blobs::OpenError::Foreign(_)) => Failure::usage("exists", &text),
        OrderError::Open(blobs::OpenError::NoSpace { .. })
        | OrderError::Write { source: WriteError::NoSpace, .. }
        | OrderError::Finish(FinishError::Write { source: WriteError::NoSpace, .. }) => {
            plain(Exit::Failure, "disk_full").hint(format!("make room there; {GOES_ON}"))
        }
        OrderError::Write { .. } | OrderError::Finish(_) => Failure::system(&text).hint(GOES_ON),
        OrderError::Open(_) => Failure::system(&text),
        OrderError::Store(_) => unwritable(&text),
        OrderError::Interrupted => plain(Exit::Interrupted, "interrupted"),
    }
}

/// What is said of a payment that did not happen, or does not count yet.
pub(in crate::cmd) fn payment_failure(failure: &PaymentFailure) -> Failure {
    let text = failure.to_string();
    match failure {
        PaymentFailure::Advance(AdvanceError::NeedsWord { amount_sat, .. }) => {
            Failure::new(Exit::Funds, "advance_required", &text).hint(format!("allow it: --prepay {amount_sat}sat"))
        }
        PaymentFailure::Advance(AdvanceError::TooSmall { amount_sat, .. }) => {
            Failure::new(Exit::Funds, "advance_too_small", &text).hint(format!("allow more: --prepay {amount_sat}sat"))
        }
        PaymentFailure::Advance(AdvanceError::OverLimit { .. }) => Failure::new(Exit::OverLimit, "over_limit", &text),
        PaymentFailure::Wallet(error) => not_paid(error),
        PaymentFailure::Budget(over) => over_budget(over),
        PaymentFailure::Denied(_) => denied(&text),
        PaymentFailure::Conflicted { .. } => {
            Failure::new(Exit::Failure, "conflicted", &text).hint("the same command pays anew, with other coins")
        }
        PaymentFailure::Interrupted => Failure::new(Exit::Interrupted, "interrupted", &text),
        PaymentFailure::NotConfirmed => Failure::new(Exit::Unconfirmed, "not_confirmed", &text)
            .hint("nothing is lost: the same command waits for the same payment, and goes on with it"),
        PaymentFailure::Seller(ExchangeError::Refused(Refusal::PayFirst { min_topup_sat, .. })) => {
            Failure::new(Exit::Funds, "advance_too_small", &text).hint(format!("pay at least {min_topup_sat} sat"))
        }
        PaymentFailure::Seller(_) | PaymentFailure::Quote(_) => Failure::new(Exit::Network, "seller_failed", &text),
        PaymentFailure::Address(_) => Failure::system(&text),
        PaymentFailure::Store(_) => unwritable(&text),
    }
}

/// What runs by itself has used up what it may.
fn over_budget(over: &OverBudget) -> Failure {
    let frees = over.frees.map(|at| format!("wait until {at}, or ")).unwrap_or_default();
    let hint = format!("{frees}say it yourself with --prepay AMOUNT, or set [budget] {} in config.toml", over.key());
    Failure::new(Exit::OverLimit, "over_budget", over).hint(hint)
}

/// A seller has our money, and says that it has not.
fn denied(text: &str) -> Failure {
    Failure::new(Exit::Unconfirmed, "not_counted", text)
        .hint("its server may be behind: try later, nothing is paid twice; `pedlar account show PEER` has the payments")
}

fn denies(failure: &SellerFailure) -> bool {
    matches!(failure.why, Why::Denies(_))
}

/// Our own journal takes nothing, so nothing may follow.
fn unwritable(text: &str) -> Failure {
    Failure::new(Exit::Failure, "journal", text).hint("is the disk of the home full? Then the same command goes on")
}

fn incomplete(failures: &[SellerFailure], lacks: Option<&Lacks>, text: &str) -> Failure {
    let any = |test: fn(&BuyFailure) -> bool| {
        failures.iter().any(|failure| matches!(&failure.why, Why::Buying(buying) if test(buying)))
    };
    if failures.iter().any(is_integrity) {
        Failure::new(Exit::Integrity, "integrity", text)
    } else if failures.iter().any(denies) {
        denied(text)
    } else if any(|failure| matches!(failure, BuyFailure::Refused(refusal) if asks_for_money(refusal))) {
        Failure::new(Exit::Funds, "advance_required", text).hint("pay more in advance: --prepay AMOUNT")
    } else if any(|failure| matches!(failure, BuyFailure::Limit)) {
        Failure::new(Exit::OverLimit, "over_limit", text).hint("raise --max; what is verified stays")
    } else if lacks.is_some_and(|lacks| lacks.here > 0) {
        Failure::new(Exit::Partial, "partial", text).hint(GOES_ON)
    } else {
        Failure::new(Exit::Network, "sellers_failed", text).hint(GOES_ON)
    }
}

/// Whether a seller had other bytes than those that it was asked for.
fn is_integrity(failure: &SellerFailure) -> bool {
    use BuyFailure::{Collection, Integrity, Whole};
    matches!(&failure.why, Why::Buying(Integrity(_) | Collection(_) | Whole { .. }))
}
