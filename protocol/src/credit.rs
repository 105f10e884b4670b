//! Who must pay in advance, and how much anyone can take (MONEY.md 2).
//!
//! **Invariant:** for every set of buyers, any number of identities, colluding and adaptive:
//! `loss + outstanding <= B0 + (φ+ξ)·μ·R_total`. It stands on two parts that are checked apart: [`Rules::within_line`]
//! for each identity (A), [`Pool::covers`] for all strangers together (B).

use std::time::Duration;

use libp2p_identity::{PeerId, ed25519::Keypair};
use pedlar_proto::v1;
use prost::Message;

use crate::money::Msat;
use crate::time::Timestamp;
use crate::wire::{OpenError, Signed};

const GRANT_DOMAIN: &str = "pedlar grant v1";

/// Trade counts half as much towards the limit after this time.
pub const HALF_LIFE: Duration = Duration::from_secs(180 * 86_400);

/// The most that a grant may come to, whatever is configured: 1 sat.
pub const MAX_GRANT: Msat = Msat::new(1_000);

/// The most bytes that a grant may buy: 1 MiB, sixteen first windows.
pub const MAX_GRANT_BYTES: u64 = 1 << 20;

/// Grants use at most one part in this many of the pool in a day.
const GRANT_POOL_SHARE: u64 = 30;

/// λ: an amount that was paid late weighs so many times what one in time does.
const LATE_WEIGHT: u64 = 4;

const DAY: Duration = Duration::from_secs(86_400);

/// A ratio of integers: limits are never computed in floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Above the line.
    pub num: u64,
    /// Below the line, never 0.
    pub den: u64,
}

impl Ratio {
    /// This part of an amount, rounded down.
    #[must_use]
    pub fn of(self, amount: Msat) -> Msat {
        let product = u128::from(amount.msat()).saturating_mul(u128::from(self.num));
        Msat::new(product.checked_div(u128::from(self.den)).and_then(|part| u64::try_from(part).ok()).unwrap_or(0))
    }
}

/// The seller's constants of credit, with the defaults of MONEY.md 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// ξ: the part of its margin that a seller puts at stake with one buyer.
    pub xi: Ratio,
    /// μ: the margin, the part of a price that is not cost.
    pub mu: Ratio,
    /// φ: the part of its margin that a seller puts at stake with strangers.
    pub phi: Ratio,
    /// B0: what a seller puts at stake with strangers before it has earned anything.
    pub stake: Msat,
    /// K: how much trade on credit it takes until a buyer has half of its line.
    pub proof: Msat,
    /// No line is longer.
    pub cap: Msat,
    /// Given to a stranger once, 0 to give nothing; at most [`MAX_GRANT`].
    pub grant: Msat,
    /// Seconds of a bill's clock until it is due: in the offer, so that a buyer knows.
    pub due_s: u32,
    /// Seconds after that until it is in default.
    pub default_s: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            xi: Ratio { num: 1, den: 2 },
            mu: Ratio { num: 3, den: 10 },
            phi: Ratio { num: 2, den: 100 },
            stake: Msat::new(1_000_000),
            proof: Msat::new(1_000_000),
            cap: Msat::new(100_000_000),
            grant: Msat::ZERO,
            due_s: 72 * 3600,
            default_s: 7 * 86_400,
        }
    }
}

impl Rules {
    /// The credit line of a buyer with this history: `min(ξ·μ·R·T', cap)`, rounded down.
    ///
    /// `T = on / (on + λ·late + K)`, K doubled for each default; `T' = max(T, 1/10)` for a buyer that was never late since.
    #[must_use]
    pub fn allowance(&self, history: &History, trust: Trust, now: Timestamp) -> Msat {
        let line = self.line(history.decayed_to(now));
        let proof = self.proof.msat().saturating_mul(1_u64.checked_shl(trust.strikes).unwrap_or(u64::MAX));
        let against = trust.late.msat().saturating_mul(LATE_WEIGHT).saturating_add(proof);
        let earned = Ratio { num: trust.on.msat(), den: trust.on.msat().saturating_add(against).max(1) };
        let floor = Ratio { num: u64::from(trust.late == Msat::ZERO), den: 10 };
        earned.of(line).max(floor.of(line)).min(self.cap)
    }

    /// (A): whether an identity that realised `realised` may have this much unsecured value in all.
    #[must_use]
    pub fn within_line(&self, unsecured: Msat, realised: Msat) -> bool {
        unsecured <= self.line(realised)
    }

    /// ξ·μ·R: the most that may be at stake with an identity that realised so much.
    #[must_use]
    pub fn line(&self, realised: Msat) -> Msat {
        self.mu.of(self.xi.of(realised))
    }
}

/// How a buyer has paid what it owed since its last default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trust {
    /// Debt that finally paid money settled in time.
    pub on: Msat,
    /// Debt that was settled late, each as often as its days of delay weigh.
    pub late: Msat,
    /// Defaults so far.
    pub strikes: u32,
}

/// What all peers without credit draw on together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pool {
    /// Realised with all buyers.
    pub realised: Msat,
    /// Given away for good.
    pub lost: Msat,
    /// Sent and not signed for, let go because it is little; and what was signed for since and not paid.
    pub outstanding: Msat,
    /// Given away in the last 24 h.
    pub given_today: Msat,
}

impl Pool {
    /// What is left: `B0 + φ·μ·R_total − lost − outstanding`.
    #[must_use]
    pub fn left(&self, rules: &Rules) -> Msat {
        let size = rules.stake.saturating_add(rules.mu.of(rules.phi.of(self.realised)));
        size.saturating_sub(self.lost).saturating_sub(self.outstanding)
    }

    /// (B): whether the pool carries `value` more.
    #[must_use]
    pub fn covers(&self, value: Msat, rules: &Rules) -> bool {
        value <= self.left(rules)
    }

    /// What may be given to one more stranger now: the configured gift, or nothing.
    #[must_use]
    pub fn grant(&self, rules: &Rules) -> Option<Msat> {
        let gift = rules.grant.min(MAX_GRANT);
        let daily = Ratio { num: 1, den: GRANT_POOL_SHARE }.of(self.left(rules).saturating_add(self.given_today));
        let given = self.given_today.saturating_add(gift);
        (gift > Msat::ZERO && given <= daily && self.covers(gift, rules)).then_some(gift)
    }
}

/// What is remembered of a peer for credit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Realised so far, undecayed.
    pub counted: Msat,
    /// Realised, halved every [`HALF_LIFE`], as of `decayed_at`.
    pub decayed: Msat,
    /// When `decayed` was computed.
    pub decayed_at: Timestamp,
    /// What was given, and when.
    pub grant: Option<(SignedGrant, Timestamp)>,
    /// Bought: what was signed for when the seller last failed; what came before is no reason to trust it.
    pub failed: Msat,
}

impl History {
    /// Takes up trade that has become real; whether there was any.
    pub fn count(&mut self, now: Timestamp, realised: Msat) -> bool {
        let Some(grown) = realised.checked_sub(self.counted).filter(|grown| *grown > Msat::ZERO) else {
            return false;
        };
        self.decayed = self.decayed_to(now).saturating_add(grown);
        self.decayed_at = now;
        self.counted = realised;
        true
    }

    /// What was given.
    #[must_use]
    pub fn granted(&self) -> Msat {
        self.grant.as_ref().map_or(Msat::ZERO, |(grant, _)| grant.amount)
    }

    /// What was given in the 24 h before `now`.
    #[must_use]
    pub fn granted_today(&self, now: Timestamp) -> Msat {
        let fresh = self.grant.as_ref().filter(|(_, at)| now.since(*at) < DAY);
        fresh.map_or(Msat::ZERO, |(grant, _)| grant.amount)
    }

    /// Realised trade as it counts towards the limit: halved every [`HALF_LIFE`], linear in between.
    fn decayed_to(&self, now: Timestamp) -> Msat {
        let half_ms = u64::try_from(HALF_LIFE.as_millis()).unwrap_or(u64::MAX);
        let age_ms = u64::try_from(now.since(self.decayed_at).as_millis()).unwrap_or(u64::MAX);
        let halvings = u32::try_from(age_ms.checked_div(half_ms).unwrap_or(0)).unwrap_or(u32::MAX);
        let whole = Msat::new(self.decayed.msat().checked_shr(halvings).unwrap_or(0));
        let rest_ms = age_ms.checked_rem(half_ms).unwrap_or(0);
        let lost = Ratio { num: rest_ms, den: half_ms.saturating_mul(2) }.of(whole);
        whole.saturating_sub(lost)
    }
}

/// A gift that the seller signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedGrant {
    amount: Msat,
    signed: Signed,
}

/// Bytes that are no gift of this seller to this buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not a message of the schema.
    #[error("the grant can't be decoded")]
    Encoding,
    /// It names others.
    #[error("the grant is between others")]
    Parties,
    /// More than [`MAX_GRANT`]: no gift, but a lie in our books.
    #[error("the grant is of {msat} msat, more than any")]
    TooMuch {
        /// What it says, in msat.
        msat: u64,
    },
    /// Not signed by the seller.
    #[error("the grant: {0}")]
    Signature(#[from] OpenError),
}

impl SignedGrant {
    /// Gives `buyer` this much, in all.
    #[must_use]
    pub fn sign(buyer: &PeerId, amount: Msat, key: &Keypair) -> Self {
        let seller = crate::wire::peer_id(key);
        let body = v1::Grant { buyer: buyer.to_bytes().into(), seller: seller.to_bytes().into(), msat: amount.msat() };
        Self { amount, signed: Signed::sign(key, GRANT_DOMAIN, body.encode_to_vec().into()) }
    }

    /// Reads a gift of `seller` to `buyer`.
    ///
    /// # Errors
    /// [`GrantError`] says what is wrong with the bytes.
    pub fn parse(signed: Signed, buyer: &PeerId, seller: &PeerId) -> Result<Self, GrantError> {
        signed.verify(GRANT_DOMAIN, seller)?;
        let wire = v1::Grant::decode(signed.body().clone()).map_err(|_| GrantError::Encoding)?;
        if wire.buyer != buyer.to_bytes() || wire.seller != seller.to_bytes() {
            return Err(GrantError::Parties);
        }
        if wire.msat > MAX_GRANT.msat() {
            return Err(GrantError::TooMuch { msat: wire.msat });
        }
        Ok(Self { amount: Msat::new(wire.msat), signed })
    }

    /// How much.
    #[must_use]
    pub const fn amount(&self) -> Msat {
        self.amount
    }

    /// The bytes that carry it.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }
}

#[cfg(test)]
mod tests;
