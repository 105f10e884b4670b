//! What others ask of the wallet about channels.

use bitcoin::{FeeRate, OutPoint, ScriptBuf};

use super::core::MIN_RATE;
use super::{Core, now_ms};
use crate::channel::{
    AdoptError, ChannelError, ChannelId, ChannelKey, EndError, Ending, FundError, Funding, Offer, OfferTerms, Role,
    Settled, SignError, Terms, Voucher, WatchError,
};
use crate::payments::Fee;
use crate::state::StoreError;

impl Core {
    pub(crate) fn channel_key(&mut self, id: ChannelId, role: Role) -> Result<ChannelKey, ChannelError> {
        self.state.channel_key(id, role)
    }

    pub(crate) fn forget_channel(&mut self, id: ChannelId) -> Result<(), StoreError> {
        self.state.forget_channel(id)
    }

    pub(crate) fn fund_channel(
        &mut self,
        id: ChannelId,
        terms: &Terms,
        max_fee_sat: u64,
    ) -> Result<Funding, FundError> {
        let funding = self.state.fund_channel(id, terms, &self.fee(max_fee_sat), now_ms())?;
        self.schedule.send_now(funding.outpoint.txid);
        self.tell_channels()?;
        Ok(funding)
    }

    pub(crate) fn watch_channel(
        &mut self,
        id: ChannelId,
        terms: &Terms,
        raw: &[u8],
        vout: u32,
    ) -> Result<OutPoint, WatchError> {
        let outpoint = self.state.watch_channel(id, terms, raw, vout)?;
        self.tell_channels()?;
        self.schedule.look_now();
        Ok(outpoint)
    }

    pub(crate) fn adopt_channel(
        &mut self,
        id: ChannelId,
        role: Role,
        terms: &Terms,
        funding: (&[u8], u32),
        newest: Option<Voucher>,
    ) -> Result<bool, AdoptError> {
        let ours = self.state.adopt_channel(id, role, terms, funding, newest)?;
        self.tell_channels()?;
        self.schedule.look_now();
        Ok(ours)
    }

    pub(crate) fn sign_voucher(&mut self, id: ChannelId, cum_sat: u64) -> Result<Voucher, SignError> {
        let voucher = self.state.sign_voucher(id, cum_sat)?;
        self.stale = true;
        Ok(voucher)
    }

    pub(crate) fn close_channels(
        &mut self,
        closes: &[(ChannelId, Voucher)],
        rate: Option<FeeRate>,
    ) -> Result<Ending, EndError> {
        // A close that waits may be made dear to raise by the buyer, so that it is not to wait.
        let fee = self.fee_of(Some(rate.unwrap_or(self.rate).max(self.urgent)));
        let ending = self.state.close_channels(closes, &fee, now_ms())?;
        self.send_end(ending)
    }

    pub(crate) fn raise_close(&mut self, id: ChannelId, rate: Option<FeeRate>) -> Result<Ending, EndError> {
        let fee = self.fee_of(Some(self.urgent));
        let ending = self.state.raise_close(id, rate, &fee, now_ms())?;
        self.send_end(ending)
    }

    pub(crate) fn settle_offer(
        &mut self,
        id: ChannelId,
        role: Role,
        paid_sat: u64,
        fee_from: Role,
        seller_spk: Option<ScriptBuf>,
    ) -> Result<Offer, EndError> {
        let fee = self.fee_of(None);
        self.state.settle_offer(id, role, paid_sat, OfferTerms { fee_from, seller_spk }, &fee)
    }

    pub(crate) fn sign_settle(&mut self, id: ChannelId, role: Role, offer: &Offer) -> Result<Settled, EndError> {
        let fee = self.fee_of(None);
        let settled = self.state.sign_settle(id, role, offer, &fee, now_ms())?;
        let ending = self.send_end(settled.ending)?;
        Ok(Settled { ending, ..settled })
    }

    pub(crate) fn refund_channel(&mut self, id: ChannelId, rate: Option<FeeRate>) -> Result<Ending, EndError> {
        let fee = self.fee_of(rate);
        let ending = self.state.refund_channel(id, &fee, now_ms())?;
        self.send_end(ending)
    }

    fn send_end(&mut self, ending: Ending) -> Result<Ending, EndError> {
        self.schedule.send_now(ending.txid);
        self.tell_channels()?;
        Ok(ending)
    }

    fn tell_channels(&mut self) -> Result<(), StoreError> {
        let keys = self.state.judge_now()?;
        self.events.mark(keys);
        self.stale = true;
        Ok(())
    }

    /// The fee at this rate, or at what is asked for: never above the owner's ceiling, at which a channel is ended, too,
    /// however much is asked for.
    fn fee_of(&self, rate: Option<FeeRate>) -> Fee {
        let fee = self.fee(u64::MAX);
        Fee { rate: rate.unwrap_or(fee.rate).clamp(MIN_RATE, fee.ceiling), ..fee }
    }
}
