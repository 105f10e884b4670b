//! Ending channels: what is signed, stored, and sent until it is in a block.

use std::collections::HashSet;

use bitcoin::consensus::encode::serialize;
use bitcoin::{FeeRate, ScriptBuf, Transaction, Txid, Weight};

use super::rows::{ChannelRow, EndKind, EndRow};
use super::{ChannelError, ChannelId, Funded, Role, Split, SplitError, Voucher, VoucherError};
use crate::payments::Fee;
use crate::state::State;

/// The most channels that one transaction closes: half of what is relayed, so that there is room for coins.
pub const MAX_CLOSES: usize = 300;
/// What a replacement pays on top for its own relay (BIP125 rule 4).
const INCREMENT: FeeRate = FeeRate::from_sat_per_vb_u32(1);

/// A transaction that ends channels, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub txid: Txid,
    pub raw: Vec<u8>,
    pub fee_sat: u64,
    pub vbytes: u64,
}

/// A split that one side signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub split: Split,
    /// ECDSA, compact, low s; `SIGHASH_ALL` over [`Funded::settlement`].
    pub sig: [u8; 64],
}

/// A split that both sides signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Our signature, for the other side to send the same transaction.
    pub sig: [u8; 64],
    pub ending: Ending,
}

impl EndRow {
    pub(super) fn ending(&self) -> Ending {
        let vbytes = self.tx.weight().to_vbytes_ceil();
        Ending { txid: self.tx.compute_txid(), raw: serialize(&self.tx), fee_sat: self.fee_sat, vbytes }
    }
}

impl State {
    /// Our word for a split, at what is asked for now: the other side's makes a transaction of it. Nothing is sent.
    ///
    /// # Errors
    ///
    /// When the split can't be, or leaves nothing for the fee.
    pub(crate) fn settle_offer(
        &mut self,
        id: ChannelId,
        role: Role,
        paid_sat: u64,
        terms: OfferTerms,
        fee: &Fee,
    ) -> Result<Offer, EndError> {
        let (row, funded) = self.unended(id, role)?;
        let seller_spk = match role {
            Role::Seller if paid_sat > 0 => Some(self.own_spk()?),
            Role::Seller | Role::Buyer => terms.seller_spk,
        };
        let mut split = Split { paid_sat, fee_sat: 0, fee_from: terms.fee_from, seller_spk };
        let weight = settlement_weight(&funded, &funded.settlement(&split)?)?;
        split.fee_sat = fee_at(fee.rate.min(fee.ceiling), weight)?;
        let tx = funded.settlement(&split)?;
        let sig = self.sign_settlement(&row, &funded, &tx)?;
        // From its txid it is known for what it is, whoever sends it.
        let end = EndRow { kind: EndKind::Settlement, fee_sat: split.fee_sat, parts: vec![(id, None)], tx };
        self.insert_end(&end, false)?;
        Ok(Offer { split, sig })
    }

    /// Signs a split that the other side signed, or completes our own; when it returns, the transaction is stored, and
    /// takes the place of whatever was to be sent. It is not sent here.
    ///
    /// # Errors
    ///
    /// When the other side's signature is not under this split, or the fee is not one that we would pay.
    pub(crate) fn sign_settle(
        &mut self,
        id: ChannelId,
        role: Role,
        offer: &Offer,
        fee: &Fee,
        now_ms: u64,
    ) -> Result<Settled, EndError> {
        let (row, funded) = self.unended(id, role)?;
        let Offer { split, sig: theirs } = offer;
        let tx = funded.settlement(split)?;
        let weight = settlement_weight(&funded, &tx)?;
        let fee_sat = funded.terms().capacity_sat.saturating_sub(total(&tx));
        // What waits already must not be left for something that can't take its place.
        let waiting = self.live_end(id)?.filter(|old| old.tx.compute_txid() != tx.compute_txid());
        let least_sat = least_fee(waiting.as_slice(), weight)?.max(fee_at(FeeRate::BROADCAST_MIN, weight)?);
        if fee_sat < least_sat {
            return Err(EndError::RateTooLow { least_sat });
        }
        if split.fee_from == role && fee_at(fee.ceiling, weight)? < split.fee_sat {
            return Err(EndError::AboveCeiling { fee_sat: split.fee_sat });
        }
        let other = if role == Role::Buyer { Role::Seller } else { Role::Buyer };
        if !funded.agrees(&tx, other, theirs) {
            return Err(EndError::NotAgreed);
        }
        let sig = self.sign_settlement(&row, &funded, &tx)?;
        let (buyer, seller) = if role == Role::Buyer { (&sig, theirs) } else { (theirs, &sig) };
        let tx = funded.settled(tx, buyer, seller).ok_or(ChannelError::Unsignable)?;
        let end = EndRow { kind: EndKind::Settlement, fee_sat, parts: vec![(id, None)], tx };
        let ending = self.store_end(&end, now_ms)?;
        Ok(Settled { sig, ending })
    }

    /// Takes everything back after the channel's end; again at a higher rate, it is replaced. When it returns, the
    /// transaction is stored; it is not sent here.
    ///
    /// # Errors
    ///
    /// Before the channel's end, and when the fee doesn't fit.
    pub(crate) fn refund_channel(&mut self, id: ChannelId, fee: &Fee, now_ms: u64) -> Result<Ending, EndError> {
        let (row, funded) = self.unended(id, Role::Buyer)?;
        let (height, expiry_height) = (self.wallet.latest_checkpoint().height(), funded.terms().expiry_height);
        if height < expiry_height {
            return Err(EndError::TooEarly { height, expiry_height });
        }
        let build = |fee_sat| -> Result<Transaction, EndError> {
            let tx = funded.refund(fee_sat)?;
            let mut key = self.secret_of(&row)?;
            let signed = funded.sign_all(&tx, &key, self.wallet.secp_ctx());
            key.non_secure_erase();
            Ok(signed.and_then(|sig| funded.refunded(tx, &sig)).ok_or(ChannelError::Unsignable)?)
        };
        let weight = build(0)?.weight();
        let mut fee_sat = fee_at(fee.rate.min(fee.ceiling), weight)?;
        if let Some(old) = self.live_end(id)? {
            let least = least_fee(std::slice::from_ref(&old), weight)?;
            if old.kind == EndKind::Refund && fee_sat < least {
                return Ok(old.ending());
            }
            fee_sat = fee_sat.max(least);
        }
        if fee_sat > fee_at(fee.ceiling, weight)? {
            return Err(EndError::AboveCeiling { fee_sat });
        }
        let end = EndRow { tx: build(fee_sat)?, kind: EndKind::Refund, fee_sat, parts: vec![(id, None)] };
        self.store_end(&end, now_ms)
    }

    /// Stores a transaction that everybody signed, and believes in it from now on.
    pub(super) fn store_end(&mut self, end: &EndRow, now_ms: u64) -> Result<Ending, EndError> {
        let mut seen = now_ms / 1000;
        for (id, _) in &end.parts {
            let old = self.live_end(*id)?.and_then(|old| self.wallet.tx_graph().get_tx_node(old.tx.compute_txid()));
            // Later than what it replaces was ever seen, so that it is the one that counts.
            seen = seen.max(old.and_then(|node| node.last_seen).unwrap_or_default().saturating_add(1));
        }
        self.insert_end(end, true)?;
        self.wallet.apply_unconfirmed_txs([(end.tx.clone(), seen)]);
        // The deed is done: where this is not written now it is with the next change, and the status says so.
        let _ = self.commit(|_| Ok(()));
        Ok(end.ending())
    }

    /// A channel on whose `role` side we are, and its funding; not one that ended in a block.
    pub(super) fn unended(&self, id: ChannelId, role: Role) -> Result<(ChannelRow, Funded), EndError> {
        let row = self.channel(id, role)?;
        let funded = row.funded.clone().ok_or(ChannelError::Unfunded)?;
        self.ended_by(id).map_or(Ok((row, funded)), |by| Err(EndError::Ended { by }))
    }

    fn sign_settlement(&self, row: &ChannelRow, funded: &Funded, tx: &Transaction) -> Result<[u8; 64], EndError> {
        let mut key = self.secret_of(row)?;
        let sig = funded.sign_all(tx, &key, self.wallet.secp_ctx());
        key.non_secure_erase();
        Ok(sig.ok_or(ChannelError::Unsignable)?)
    }

    /// Where our share of an end goes, stored before it is used.
    pub(super) fn own_spk(&mut self) -> Result<ScriptBuf, EndError> {
        let spk = self.wallet.next_unused_address(bdk_wallet::KeychainKind::Internal).script_pubkey();
        self.commit(|_| Ok(()))?;
        Ok(spk)
    }
}

/// What an offer says beside the seller's share.
#[derive(Debug, Clone)]
pub(crate) struct OfferTerms {
    /// Who pays the fee.
    pub(crate) fee_from: Role,
    /// Where the seller's share goes, as it said; the seller itself takes an address of its own.
    pub(crate) seller_spk: Option<ScriptBuf>,
}

/// What a transaction of this weight must pay at least to replace these: more in all, and more for each byte.
pub(super) fn least_fee(replaced: &[EndRow], weight: Weight) -> Result<u64, EndError> {
    if replaced.is_empty() {
        return Ok(0);
    }
    let all = replaced.iter().fold(0, |sum: u64, old| sum.saturating_add(old.fee_sat));
    let alike = |old: &EndRow| {
        let wu = old.tx.weight().to_wu().max(1);
        old.fee_sat.saturating_mul(weight.to_wu()).div_ceil(wu)
    };
    let dearest = replaced.iter().map(alike).max().unwrap_or(0);
    Ok(all.max(dearest).saturating_add(fee_at(INCREMENT, weight)?))
}

pub(super) fn fee_at(rate: FeeRate, weight: Weight) -> Result<u64, EndError> {
    Ok(rate.fee_wu(weight).ok_or(ChannelError::Unsignable)?.to_sat())
}

fn settlement_weight(funded: &Funded, tx: &Transaction) -> Result<Weight, EndError> {
    // The longest that signatures can be.
    let settled = funded.settled(tx.clone(), &LONG_SIGNATURE, &LONG_SIGNATURE).ok_or(ChannelError::Unsignable)?;
    Ok(settled.weight())
}

/// Both numbers with their highest bit set, which DER pads by a byte; low enough to be read, and nobody's.
const LONG_SIGNATURE: [u8; 64] = {
    let mut sig = [0x80; 64];
    // A low s: nothing else is relayed.
    sig[32] = 0x7f;
    sig
};

pub(super) fn total(tx: &Transaction) -> u64 {
    tx.output.iter().fold(0, |sum, output| sum.saturating_add(output.value.to_sat()))
}

/// Checks that a batch names each channel once, and not too many.
pub(super) fn check_count(closes: &[(ChannelId, Voucher)]) -> Result<(), EndError> {
    let mut ids = HashSet::new();
    let distinct = closes.iter().all(|(id, _)| ids.insert(*id));
    if closes.is_empty() || closes.len() > MAX_CLOSES || !distinct {
        return Err(EndError::Count { found: closes.len() });
    }
    Ok(())
}

/// Why a channel was not ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    #[error("{found} channels with ids of their own: one transaction closes 1 to {MAX_CLOSES}")]
    Count { found: usize },
    #[error("one of the vouchers: {0}")]
    Voucher(#[from] VoucherError),
    #[error(transparent)]
    Split(#[from] SplitError),
    #[error("the other side did not sign this split")]
    NotAgreed,
    #[error("one of the channels is being closed by another transaction: raise that one's fee instead")]
    Ending,
    #[error("the channel has ended already, by {by}")]
    Ended { by: Txid },
    #[error("nothing of ours that closes this channel waits for a block")]
    NothingToRaise,
    #[error("the channel can't be taken back before height {expiry_height}; it is {height} now")]
    TooEarly { height: u32, expiry_height: u32 },
    #[error("the fee is too low: it must be {least_sat} sat at least")]
    RateTooLow { least_sat: u64 },
    #[error("the fee would be {fee_sat} sat, above the ceiling")]
    AboveCeiling { fee_sat: u64 },
    #[error("the vouchers and coins are worth {have_sat} sat: the fee alone would be {need_sat} sat")]
    Short { have_sat: u64, need_sat: u64 },
    #[error(transparent)]
    Channel(#[from] ChannelError),
}
