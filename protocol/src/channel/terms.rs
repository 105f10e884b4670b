//! What both sides of a channel agree to, and the heights and amounts that follow.

use crate::channel::Spend;
use crate::settlement::DUST_SAT;

/// Virtual bytes of a close by the seller alone (measured, MONEY.md 5).
pub const CLOSE_VBYTES: u64 = 170;

/// The life of a channel in blocks unless its buyer says otherwise: four weeks.
pub const LIFE_BLOCKS: u64 = 4032;

/// The shortest life in blocks that a seller takes: a week.
pub const MIN_LIFE_BLOCKS: u64 = 1008;

/// Blocks before the refund from which on no voucher is taken.
pub const STOP_BLOCKS: u64 = 432;

/// Blocks before the refund by which the close is sent.
pub const CLOSE_BY_BLOCKS: u64 = 288;

/// Blocks after which the fee of a close that is in none is raised.
pub const BUMP_BLOCKS: u64 = 6;

/// Blocks before the refund at which a close that is in none is an alarm.
pub const ALARM_BLOCKS: u64 = 144;

/// What a close is given, in sat, at the feerate of a bad day in sat per virtual byte.
#[must_use]
pub const fn close_fee_sat(stress_sat_per_vb: u64) -> u64 {
    CLOSE_VBYTES.saturating_mul(stress_sat_per_vb)
}

/// Terms of a channel, fixed when the seller accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What the funding holds, in sat.
    pub capacity_sat: u64,
    /// What the close is given of what a voucher gives, in sat: [`close_fee_sat`] of the day of acceptance.
    pub close_fee_sat: u64,
    /// The height from which on the buyer may take everything back.
    pub refund_height: u64,
    /// Depth from which on the funding counts (`settlement::depth_needed` of the capacity); never under 1.
    pub min_conf: u32,
}

/// Terms that nobody should agree to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// It ends too soon.
    #[error("the channel would live {blocks} blocks, at least {MIN_LIFE_BLOCKS} are needed")]
    TooShort {
        /// Its life from now, in blocks.
        blocks: u64,
    },
    /// No voucher in it could secure anything.
    #[error("the channel holds {capacity_sat} sat, at least {least_sat} sat are needed")]
    TooSmall {
        /// What it would hold, in sat.
        capacity_sat: u64,
        /// What it must hold, in sat.
        least_sat: u64,
    },
}

impl Terms {
    /// Whether a channel may be opened on these terms at this height.
    ///
    /// # Errors
    /// [`TermsError`] says what is too small.
    pub const fn check(&self, tip_height: u64) -> Result<(), TermsError> {
        let blocks = self.refund_height.saturating_sub(tip_height);
        if blocks < MIN_LIFE_BLOCKS {
            return Err(TermsError::TooShort { blocks });
        }
        // The buyer's change, the close, and the smallest amount that is left of it.
        let least_sat = self.close_fee_sat.saturating_add(DUST_SAT).saturating_add(DUST_SAT);
        if self.capacity_sat < least_sat {
            return Err(TermsError::TooSmall { capacity_sat: self.capacity_sat, least_sat });
        }
        Ok(())
    }

    /// The most that a voucher may give, in sat: the buyer's change stays above dust.
    #[must_use]
    pub const fn most_sat(&self) -> u64 {
        self.capacity_sat.saturating_sub(DUST_SAT)
    }

    /// What a voucher is worth to the seller, in sat: what the close may cost is not counted, nor what would be dust.
    #[must_use]
    pub const fn secured_sat(&self, cum_sat: u64) -> u64 {
        let left = cum_sat.saturating_sub(self.close_fee_sat);
        if left < DUST_SAT { 0 } else { left }
    }

    /// What the buyer has paid by this end, in sat: a close that cost more than was set aside is the seller's choice, and
    /// one that cost less gives the rest back.
    #[must_use]
    pub fn got_sat(&self, how: Spend) -> u64 {
        match how {
            Spend::Closed { cum_sat, fee_sat } => {
                let used = fee_sat.unwrap_or(self.close_fee_sat).min(self.close_fee_sat);
                cum_sat.min(self.most_sat()).saturating_sub(used)
            }
            Spend::Settled { seller_sat } => seller_sat.min(self.capacity_sat),
            Spend::Refunded => 0,
        }
    }

    /// The height from which on no voucher is taken.
    #[must_use]
    pub const fn stops_at(&self) -> u64 {
        self.refund_height.saturating_sub(STOP_BLOCKS)
    }

    /// The height at which the seller closes at the latest.
    #[must_use]
    pub const fn closes_by(&self) -> u64 {
        self.refund_height.saturating_sub(CLOSE_BY_BLOCKS)
    }

    /// The height at which a close that is in no block is an alarm.
    #[must_use]
    pub const fn alarms_at(&self) -> u64 {
        self.refund_height.saturating_sub(ALARM_BLOCKS)
    }
}
