//! Why a seller will not work: a code and numbers on the wire, a sentence made here.
//!
//! **Invariant:** no text of a peer is ever part of a refusal.

use std::fmt::{Display, Formatter, Result as FmtResult};
use std::time::Duration;

use pedlar_proto::v1::{self, RefusalCode};

use crate::money::Msat;

/// A coded refusal with the numbers that a person needs to act on it (codes: DECISIONS, `sessions.proto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The account does not cover the next unit: at least `missing` must be paid, `min_topup_sat` at once on chain.
    PayFirst {
        /// What is missing before the first unit of the work that was asked for.
        missing: Msat,
        /// The smallest on-chain advance that this seller takes, in sat.
        min_topup_sat: u64,
    },
    /// The credit line is used up: `missing` must be paid.
    OverLimit {
        /// What is missing before work goes on.
        missing: Msat,
    },
    /// A bill is past its due time.
    PastDue,
    /// The seller's owner, or a default, has blocked this buyer.
    Blocked,
    /// The seller does not have it.
    NotFound,
    /// The published file is no longer what was published.
    Changed,
    /// No free place: ask again after the given time.
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The quote has expired or its price no longer stands: open again.
    PriceMoved,
    /// The request is of a kind that this seller does not know.
    Unsupported,
    /// The request breaks the protocol.
    Malformed,
    /// The seller is going down.
    ShuttingDown,
    /// Not possible at this moment: ask again after the given time.
    NotYet {
        /// When to ask again.
        retry_after: Duration,
    },
}

impl Refusal {
    /// The code's word, as it stands in JSON output and logs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::PayFirst { .. } => "pay_first",
            Self::OverLimit { .. } => "over_limit",
            Self::PastDue => "past_due",
            Self::Blocked => "blocked",
            Self::NotFound => "not_found",
            Self::Changed => "changed",
            Self::Busy { .. } => "busy",
            Self::PriceMoved => "price_moved",
            Self::Unsupported => "unsupported",
            Self::Malformed => "malformed",
            Self::ShuttingDown => "shutting_down",
            Self::NotYet { .. } => "not_yet",
        }
    }

    /// The refusal as it travels.
    #[must_use]
    pub fn to_wire(self) -> v1::Refused {
        let mut wire = v1::Refused::default();
        let code = match self {
            Self::PayFirst { missing, min_topup_sat } => {
                wire.missing_msat = missing.msat();
                wire.min_topup_sat = min_topup_sat;
                RefusalCode::PayFirst
            }
            Self::OverLimit { missing } => {
                wire.missing_msat = missing.msat();
                RefusalCode::OverLimit
            }
            Self::PastDue => RefusalCode::PastDue,
            Self::Blocked => RefusalCode::Blocked,
            Self::NotFound => RefusalCode::NotFound,
            Self::Changed => RefusalCode::Changed,
            Self::Busy { retry_after } => {
                wire.retry_after_ms = to_ms(retry_after);
                RefusalCode::Busy
            }
            Self::PriceMoved => RefusalCode::PriceMoved,
            Self::Unsupported => RefusalCode::Unsupported,
            Self::Malformed => RefusalCode::Malformed,
            Self::ShuttingDown => RefusalCode::ShuttingDown,
            Self::NotYet { retry_after } => {
                wire.retry_after_ms = to_ms(retry_after);
                RefusalCode::NotYet
            }
        };
        wire.code = code.into();
        wire
    }

    /// Reads a refusal from the wire; a code from the future reads as [`Refusal::Unsupported`].
    #[must_use]
    pub fn from_wire(wire: &v1::Refused) -> Self {
        let retry_after = Duration::from_millis(wire.retry_after_ms);
        let missing = Msat::new(wire.missing_msat);
        match wire.code() {
            RefusalCode::PayFirst => Self::PayFirst { missing, min_topup_sat: wire.min_topup_sat },
            RefusalCode::OverLimit => Self::OverLimit { missing },
            RefusalCode::PastDue => Self::PastDue,
            RefusalCode::Blocked => Self::Blocked,
            RefusalCode::NotFound => Self::NotFound,
            RefusalCode::Changed => Self::Changed,
            RefusalCode::Busy => Self::Busy { retry_after },
            RefusalCode::PriceMoved => Self::PriceMoved,
            RefusalCode::Malformed => Self::Malformed,
            RefusalCode::ShuttingDown => Self::ShuttingDown,
            RefusalCode::NotYet => Self::NotYet { retry_after },
            RefusalCode::Unsupported | RefusalCode::Unspecified => Self::Unsupported,
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Self::PayFirst { missing, min_topup_sat } => {
                write!(
                    f,
                    "the seller asks for payment first: {missing} is missing (an advance is at least {min_topup_sat} sat)"
                )
            }
            Self::OverLimit { missing } => write!(f, "the credit line is used up: {missing} is missing"),
            Self::PastDue => f.write_str("a bill is past due"),
            Self::Blocked => f.write_str("the seller has blocked this node"),
            Self::NotFound => f.write_str("the seller does not have it"),
            Self::Changed => f.write_str("the seller's file has changed since it was published"),
            Self::Busy { retry_after } => write!(f, "the seller is busy: ask again in {} s", retry_after.as_secs()),
            Self::PriceMoved => f.write_str("the price has moved: ask for a new quote"),
            Self::Unsupported => f.write_str("the seller does not know this kind of request"),
            Self::Malformed => f.write_str("the seller could not read the request"),
            Self::ShuttingDown => f.write_str("the seller is shutting down"),
            Self::NotYet { retry_after } => {
                write!(f, "not possible at this moment: ask again in {} s", retry_after.as_secs())
            }
        }
    }
}

fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_the_wire() {
        let retry_after = Duration::from_millis(1500);
        let missing = Msat::new(12_345);
        for refusal in [
            Refusal::PayFirst { missing, min_topup_sat: 1000 },
            Refusal::OverLimit { missing },
            Refusal::PastDue,
            Refusal::Blocked,
            Refusal::NotFound,
            Refusal::Changed,
            Refusal::Busy { retry_after },
            Refusal::PriceMoved,
            Refusal::Unsupported,
            Refusal::Malformed,
            Refusal::ShuttingDown,
            Refusal::NotYet { retry_after },
        ] {
            assert_eq!(Refusal::from_wire(&refusal.to_wire()), refusal);
        }
    }

    #[test]
    fn a_code_from_the_future_is_unsupported() {
        let wire = v1::Refused { code: 999, ..Default::default() };
        assert_eq!(Refusal::from_wire(&wire), Refusal::Unsupported);
    }
}
