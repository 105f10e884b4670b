//! How others talk to the wallet about channels.

use bitcoin::{OutPoint, ScriptBuf};

use super::{ReadError, WalletHandle, rate};
use crate::channel::{
    AdoptError, ChannelError, ChannelId, ChannelKey, EndError, Ending, FundError, Funding, Offer, Role, Settled,
    SignError, Terms, Voucher, WatchError,
};

impl WalletHandle {
    /// Our key in a channel, and for its buyer the address of its share: allotted and stored before they are returned,
    /// the same each time.
    ///
    /// # Errors
    ///
    /// On the other side of a known channel, for more than [`crate::channel::MAX_CHANNELS`], or when the wallet's file
    /// can't be used.
    pub async fn channel_key(&self, id: ChannelId, role: Role) -> Result<ChannelKey, ChannelError> {
        self.ask(move |core| core.channel_key(id, role)).await?
    }

    /// Forgets a channel that was never funded, or as the seller, looks no more at one whose funding is in no block, so
    /// that it counts no more; its key is never allotted again. Any other goes on as it is.
    ///
    /// # Errors
    ///
    /// When the wallet's file can't be written.
    pub async fn forget_channel(&self, id: ChannelId) -> Result<(), ReadError> {
        Ok(self.ask(move |core| core.forget_channel(id)).await??)
    }

    /// As the buyer, pays for a channel; the same call again returns the same funding.
    ///
    /// When it returns, the signed transaction is stored, and is sent at once or when a server can be reached, until it
    /// is in a block; [`crate::WalletEvent::Channel`] tells how far it is, also if it is replaced or taken back.
    ///
    /// # Errors
    ///
    /// Nothing was signed: other terms under this id, not our key, too little money, or too dear.
    pub async fn fund_channel(&self, id: ChannelId, terms: Terms, max_fee_sat: u64) -> Result<Funding, FundError> {
        self.ask(move |core| core.fund_channel(id, &terms, max_fee_sat)).await?
    }

    /// As the seller, begins to look at a channel that the buyer funded by output `vout` of `raw`; the same call again
    /// does nothing. [`crate::WalletEvent::Channel`] tells from now on where it stands.
    ///
    /// # Errors
    ///
    /// When that output is not what was agreed on.
    pub async fn watch_channel(
        &self,
        id: ChannelId,
        terms: Terms,
        raw: Vec<u8>,
        vout: u32,
    ) -> Result<OutPoint, WatchError> {
        self.ask(move |core| core.watch_channel(id, &terms, &raw, vout)).await?
    }

    /// Takes a channel back that this wallet had before it was restored, as the other side tells of it: `newest` is the
    /// voucher that it holds, or holds for us. Whether our key and address are in it; then it is looked at again. All
    /// keys that may be ours are tried, which takes a tenth of a second: not for whoever asks.
    ///
    /// # Errors
    ///
    /// When what is told can't be, or is another channel of that id.
    pub async fn adopt_channel(
        &self,
        id: ChannelId,
        role: Role,
        terms: Terms,
        raw: Vec<u8>,
        vout: u32,
        newest: Option<Voucher>,
    ) -> Result<bool, AdoptError> {
        self.ask(move |core| core.adopt_channel(id, role, &terms, (&raw, vout), newest)).await?
    }

    /// As the buyer, signs for `cum_sat` in all, which is stored before it is returned.
    ///
    /// # Errors
    ///
    /// For less than was signed before, and for more than [`Terms::most_sat`].
    pub async fn sign_voucher(&self, id: ChannelId, cum_sat: u64) -> Result<Voucher, SignError> {
        self.ask(move |core| core.sign_voucher(id, cum_sat)).await?
    }

    /// As the seller, closes channels with one transaction by these vouchers, at `rate` in sat/vB or what is asked for
    /// two blocks, whichever is more; the same call again returns the same transaction.
    ///
    /// When it returns, the transaction is stored, and is sent until it is in a block. What is ours comes in as a coin.
    ///
    /// # Errors
    ///
    /// Nothing was signed: a voucher is worth nothing, one of them has ended or is closed by another transaction, or the fee
    /// can't be paid.
    pub async fn close_channels(
        &self,
        closes: Vec<(ChannelId, Voucher)>,
        rate_sat_vb: Option<u64>,
    ) -> Result<Ending, EndError> {
        let rate = rate_sat_vb.map(rate);
        self.ask(move |core| core.close_channels(&closes, rate)).await?
    }

    /// Replaces the transaction that closes this channel, and those closed with it, by a dearer one: at `rate` in sat/vB,
    /// or what is asked for two blocks, or the least that takes its place. Stored and sent as in
    /// [`WalletHandle::close_channels`].
    ///
    /// # Errors
    ///
    /// Nothing was signed: nothing of ours waits, or the rate is too low or above the ceiling.
    pub async fn raise_close(&self, id: ChannelId, rate_sat_vb: Option<u64>) -> Result<Ending, EndError> {
        let rate = rate_sat_vb.map(rate);
        self.ask(move |core| core.raise_close(id, rate)).await?
    }

    /// Our word, as `role`, for ending a channel with `paid_sat` for the seller, less the fee where `fee_from` is the
    /// seller. `seller_spk` is what the seller named, if the buyer offers; the seller takes an address of its own.
    /// Nothing is sent: the other side's [`WalletHandle::sign_settle`] does that.
    ///
    /// # Errors
    ///
    /// When the channel can't be shared out that way.
    pub async fn settle_offer(
        &self,
        id: ChannelId,
        role: Role,
        paid_sat: u64,
        fee_from: Role,
        seller_spk: Option<ScriptBuf>,
    ) -> Result<Offer, EndError> {
        self.ask(move |core| core.settle_offer(id, role, paid_sat, fee_from, seller_spk)).await?
    }

    /// Signs, as `role`, a split that the other side signed, or completes our own with the other side's signature; stored
    /// and sent as in [`WalletHandle::close_channels`]. Who calls has agreed to the split and stored that it ends there.
    ///
    /// # Errors
    ///
    /// Nothing was signed: the other side's signature is not under this split, or the fee is none that we would pay.
    pub async fn sign_settle(&self, id: ChannelId, role: Role, offer: Offer) -> Result<Settled, EndError> {
        self.ask(move |core| core.sign_settle(id, role, &offer)).await?
    }

    /// As the buyer, takes everything back once the tip is at the channel's end, at `rate` in sat/vB or what is asked
    /// for; again at a higher rate, it is replaced. Stored and sent as in [`WalletHandle::close_channels`].
    ///
    /// # Errors
    ///
    /// Nothing was signed: it is too early, or the fee doesn't fit.
    pub async fn refund_channel(&self, id: ChannelId, rate_sat_vb: Option<u64>) -> Result<Ending, EndError> {
        let rate = rate_sat_vb.map(rate);
        self.ask(move |core| core.refund_channel(id, rate)).await?
    }
}
