//! Our part in opening a channel and in paying over it: its key, its funding, its vouchers.

use bdk_wallet::KeychainKind;
use bitcoin::consensus::encode::deserialize;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{OutPoint, PublicKey, ScriptBuf, Transaction};

use super::rows::{ChannelRow, Funding as Funds, write_ended};
use super::{AdoptError, ChannelId, EndError, Role, Terms, TermsError, Voucher, VoucherError};
use crate::payments::{self, Fee, PayError, PaymentId};
use crate::state::{State, StoreError};
use crate::status::Closed;

/// The most channels that have not ended, whatever their state: each is one more script that the server is asked about.
pub const MAX_CHANNELS: usize = 1_000;
/// The longest funding that is read, in bytes: what is relayed (Core's `MAX_STANDARD_TX_WEIGHT`), witnesses included.
pub const MAX_FUNDING_BYTES: usize = 400_000;

/// What is ours in a channel before it is agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelKey {
    pub public_key: PublicKey,
    /// Where the buyer's share goes; only for [`Role::Buyer`].
    pub change_spk: Option<ScriptBuf>,
}

/// The transaction that funds a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funding {
    /// As it is sent.
    pub raw: Vec<u8>,
    /// The output that holds the money.
    pub outpoint: OutPoint,
    pub fee_sat: u64,
}

impl State {
    /// Our key in a channel, allotted and stored before it is returned; the same each time.
    ///
    /// # Errors
    ///
    /// When the id is of a channel on whose other side we are, or there are too many.
    pub(crate) fn channel_key(&mut self, id: ChannelId, role: Role) -> Result<ChannelKey, ChannelError> {
        if self.channel_row(id)?.is_none() {
            if self.is_restoring()? {
                return Err(ChannelError::Restoring);
            }
            if self.open_channel_rows()?.len() >= MAX_CHANNELS {
                return Err(ChannelError::TooMany);
            }
            let change = match role {
                Role::Buyer => Some(self.wallet.reveal_next_address(KeychainKind::Internal).index),
                Role::Seller => None,
            };
            if let Some(index) = change {
                self.wallet.mark_used(KeychainKind::Internal, index);
            }
            self.insert_channel(id, role, change)?;
        }
        let row = self.channel(id, role)?;
        self.key_of(&row)
    }

    /// Forgets a channel that nobody funded, or looks no more at one that we sell over and whose funding is in no block.
    /// Any other goes on as it is.
    pub(crate) fn forget_channel(&mut self, id: ChannelId) -> Result<(), StoreError> {
        if self.is_idle(id) {
            self.commit(|tx| write_ended(tx, id))?;
            self.channels.remove(&id);
        }
        self.delete_channel(id)
    }

    /// Pays for a channel, or returns what pays for it already. When it returns, the signed transaction is stored; it is
    /// not sent here.
    ///
    /// # Errors
    ///
    /// Nothing was signed: other terms under this id, not our key, too little money, or too dear.
    pub(crate) fn fund_channel(
        &mut self,
        id: ChannelId,
        terms: &Terms,
        fee: &Fee,
        now_ms: u64,
    ) -> Result<Funding, FundError> {
        let row = self.agreed(id, Role::Buyer, terms)?;
        let key = self.key_of(&row)?;
        if key.public_key != terms.buyer_pk || key.change_spk.as_ref() != Some(&terms.change_spk) {
            return Err(ChannelError::OtherKey.into());
        }
        let address = terms.address(self.network).map_err(ChannelError::Terms)?;
        let payment = PaymentId(blake3::derive_key("pedlar channel funding v1", &id.0));
        self.insert_terms(id, terms, Funds::By(payment))?;
        let terms = payments::Terms { id: payment, address, sat: terms.capacity_sat };
        let paid = self.pay_all(std::slice::from_ref(&terms), fee, now_ms);
        if paid.is_err() && self.payment(payment)?.is_none() {
            self.delete_terms(id)?;
        }
        let paid = paid?.pop().ok_or(PayError::Unsignable)?;
        let row = self.channel(id, Role::Buyer)?;
        self.look_at(row);
        let signed = paid.txid.map(|txid| self.version(txid)).transpose()?.flatten();
        let (Some(tx), Some(outpoint), Some(fee_sat)) = (signed, paid.outpoint(), paid.fee_sat) else {
            return Err(PayError::Unsignable.into());
        };
        Ok(Funding { raw: bitcoin::consensus::serialize(&tx), outpoint, fee_sat })
    }

    /// Begins to look at a channel that the other side funded: `raw` is that transaction, as the buyer shows it.
    ///
    /// # Errors
    ///
    /// When output `vout` of it is not what was agreed on; then nothing is looked at.
    pub(crate) fn watch_channel(
        &mut self,
        id: ChannelId,
        terms: &Terms,
        raw: &[u8],
        vout: u32,
    ) -> Result<OutPoint, WatchError> {
        let row = self.agreed(id, Role::Seller, terms)?;
        if self.key_of(&row)?.public_key != terms.seller_pk {
            return Err(ChannelError::OtherKey.into());
        }
        let outpoint = funding_of(terms, raw, vout)?;
        if row.funded.is_some_and(|funded| funded.outpoint() != outpoint) {
            return Err(ChannelError::OtherTerms.into());
        }
        self.insert_terms(id, terms, Funds::At(outpoint))?;
        let row = self.channel(id, Role::Seller)?;
        self.look_at(row);
        Ok(outpoint)
    }

    /// The buyer's voucher of `cum_sat` in all, which is stored before it is returned.
    ///
    /// # Errors
    ///
    /// For less than was signed before, and for more than the channel gives.
    pub(crate) fn sign_voucher(&mut self, id: ChannelId, cum_sat: u64) -> Result<Voucher, SignError> {
        let row = self.channel(id, Role::Buyer)?;
        let funded = row.funded.as_ref().ok_or(ChannelError::Unfunded)?;
        if cum_sat < row.signed_sat {
            return Err(SignError::Lower { cum_sat, signed_sat: row.signed_sat });
        }
        let mut key = self.secret_of(&row)?;
        let voucher = funded.sign_voucher(cum_sat, &key, self.wallet.secp_ctx());
        key.non_secure_erase();
        let voucher = voucher?;
        self.insert_signed(id, cum_sat)?;
        self.look_at(ChannelRow { signed_sat: cum_sat, ..row });
        Ok(voucher)
    }

    /// A channel on whose `role` side we are.
    pub(crate) fn channel(&self, id: ChannelId, role: Role) -> Result<ChannelRow, ChannelError> {
        let row = self.channel_row(id)?.ok_or(ChannelError::Unknown)?;
        if row.role == role { Ok(row) } else { Err(ChannelError::OtherRole) }
    }

    /// A channel of which nothing else was agreed on before.
    fn agreed(&self, id: ChannelId, role: Role, terms: &Terms) -> Result<ChannelRow, ChannelError> {
        terms.check()?;
        let row = self.channel(id, role)?;
        match &row.terms {
            Some(known) if known != terms => Err(ChannelError::OtherTerms),
            Some(_) | None => Ok(row),
        }
    }

    fn key_of(&self, row: &ChannelRow) -> Result<ChannelKey, ChannelError> {
        let public_key = self.public_key(row.role, row.key_index)?;
        let change = |index| self.wallet.peek_address(KeychainKind::Internal, index).script_pubkey();
        Ok(ChannelKey { public_key, change_spk: row.change_index.map(change) })
    }

    pub(super) fn public_key(&self, role: Role, index: u32) -> Result<PublicKey, ChannelError> {
        let mut secret = self.secret(role, index)?;
        let public_key = PublicKey::new(secret.public_key(self.wallet.secp_ctx()));
        secret.non_secure_erase();
        Ok(public_key)
    }

    /// The secret key of our side; who asks erases it.
    pub(super) fn secret_of(&self, row: &ChannelRow) -> Result<SecretKey, ChannelError> {
        self.secret(row.role, row.key_index)
    }

    fn secret(&self, role: Role, index: u32) -> Result<SecretKey, ChannelError> {
        let key = self.keys.channel_key(self.network.into(), role.number(), index, self.wallet.secp_ctx());
        key.map_err(|_| ChannelError::Unsignable)
    }
}

/// The output that holds a channel's money, in the funding that the other side shows.
pub(super) fn funding_of(terms: &Terms, raw: &[u8], vout: u32) -> Result<OutPoint, WatchError> {
    if raw.len() > MAX_FUNDING_BYTES {
        return Err(WatchError::Unreadable);
    }
    let tx: Transaction = deserialize(raw).map_err(|_| WatchError::Unreadable)?;
    let spk = terms.funding_spk().map_err(ChannelError::Terms)?;
    let output = usize::try_from(vout).ok().and_then(|vout| tx.output.get(vout));
    let output = output.filter(|output| output.script_pubkey == spk).ok_or(WatchError::NotPaid)?;
    let sat = output.value.to_sat();
    if sat != terms.capacity_sat {
        return Err(WatchError::Amount { sat, capacity_sat: terms.capacity_sat });
    }
    Ok(OutPoint::new(tx.compute_txid(), vout))
}

/// What is in the way of anything done with a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("no channel has that id")]
    Unknown,
    #[error("we are on the other side of that channel")]
    OtherRole,
    #[error("the channel is not funded yet")]
    Unfunded,
    #[error("something else was agreed on for this channel before")]
    OtherTerms,
    #[error("the terms name another key or address as ours than we gave")]
    OtherKey,
    #[error(transparent)]
    Terms(#[from] TermsError),
    #[error("there are {MAX_CHANNELS} channels already: wait until one has ended")]
    TooMany,
    #[error("the chain is still being searched for what this wallet did before it was restored")]
    Restoring,
    #[error("the transaction could not be built or signed")]
    Unsignable,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Closed(#[from] crate::status::Closed),
}

/// Why a channel was not funded.
#[derive(Debug, thiserror::Error)]
pub enum FundError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Pay(#[from] PayError),
}

/// Why a channel is not looked at.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("the funding is no transaction")]
    Unreadable,
    #[error("the funding does not pay to the channel there")]
    NotPaid,
    #[error("the funding holds {sat} sat: {capacity_sat} sat were agreed on")]
    Amount { sat: u64, capacity_sat: u64 },
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Why a voucher was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("{signed_sat} sat were given already: a voucher of {cum_sat} sat would take some back")]
    Lower { cum_sat: u64, signed_sat: u64 },
    #[error(transparent)]
    Voucher(#[from] VoucherError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// What happens to the wallet itself is an error of each operation alike.
macro_rules! through_channel {
    ($($error:ty),+) => {$(
        impl From<StoreError> for $error {
            fn from(error: StoreError) -> Self {
                Self::Channel(error.into())
            }
        }
        impl From<Closed> for $error {
            fn from(error: Closed) -> Self {
                Self::Channel(error.into())
            }
        }
    )+};
}
through_channel!(FundError, WatchError, SignError, EndError, AdoptError);
