//! Channels that this wallet had before it was restored, by what the other side tells of them.
//!
//! The words still make our keys: one of ours in the terms proves that the channel was ours.

use bdk_wallet::KeychainKind;
use bitcoin::ScriptBuf;

use super::open::funding_of;
use super::rows::Funding;
use super::{ChannelError, ChannelId, Funded, Role, Terms, Voucher, VoucherError, WatchError};
use crate::state::State;

/// How many keys and addresses are tried beyond those that this wallet knows of: as many as it may have had and lost.
const TRIED: u32 = 1_000;

impl State {
    /// Takes back a channel that was ours; false where its terms have no key or address of ours. The buyer's vouchers go
    /// on from `newest`, which proves itself: we signed it.
    ///
    /// # Errors
    ///
    /// When what is told can't be, or is another channel of that id.
    pub(crate) fn adopt_channel(
        &mut self,
        id: ChannelId,
        role: Role,
        terms: &Terms,
        (raw, vout): (&[u8], u32),
        newest: Option<Voucher>,
    ) -> Result<bool, AdoptError> {
        terms.check().map_err(ChannelError::Terms)?;
        if self.is_restoring()? {
            return Err(ChannelError::Restoring.into());
        }
        let outpoint = funding_of(terms, raw, vout)?;
        let funded = Funded::new(terms.clone(), outpoint).map_err(ChannelError::Terms)?;
        newest.map_or(Ok(()), |newest| funded.verify(&newest))?;
        let known = self.channel_row(id)?;
        if known.as_ref().is_some_and(|row| row.terms.as_ref().is_some_and(|known| known != terms)) {
            return Err(ChannelError::OtherTerms.into());
        }
        if known.as_ref().is_none_or(|row| row.funded.is_none()) {
            let Some(places) = self.places_in(role, terms)? else { return Ok(false) };
            if known.is_none() {
                self.insert_old_channel(id, role, places)?;
            }
            let row = self.channel(id, role)?;
            if (row.key_index, row.change_index) != places {
                return Ok(false);
            }
            self.insert_terms(id, terms, Funding::At(outpoint))?;
        }
        if let (Role::Buyer, Some(newest)) = (role, newest) {
            self.insert_signed(id, newest.cum_sat)?;
        }
        let row = self.channel(id, role)?;
        if row.funded.as_ref().is_none_or(|funded| funded.outpoint() != outpoint) {
            return Err(ChannelError::OtherTerms.into());
        }
        self.look_at(row);
        Ok(true)
    }

    /// Where our key in these terms comes from, and the address of our share.
    fn places_in(&mut self, role: Role, terms: &Terms) -> Result<Option<(u32, Option<u32>)>, ChannelError> {
        let wanted = match role {
            Role::Buyer => terms.buyer_pk,
            Role::Seller => terms.seller_pk,
        };
        let mut key_index = None;
        for index in 0..self.channel_keys()?.saturating_add(TRIED) {
            if self.public_key(role, index)? == wanted {
                key_index = Some(index);
                break;
            }
        }
        let Some(key_index) = key_index else { return Ok(None) };
        match role {
            Role::Seller => Ok(Some((key_index, None))),
            Role::Buyer => Ok(self.change_index(&terms.change_spk).map(|change| (key_index, Some(change)))),
        }
    }

    /// Finds an address of the internal keychain, and has it looked at from now on.
    fn change_index(&mut self, spk: &ScriptBuf) -> Option<u32> {
        let known = self.wallet.derivation_index(KeychainKind::Internal).map_or(0, |last| last.saturating_add(1));
        let pays = |index: &u32| self.wallet.peek_address(KeychainKind::Internal, *index).script_pubkey() == *spk;
        let index = (0..known.saturating_add(TRIED)).find(pays)?;
        drop(self.wallet.reveal_addresses_to(KeychainKind::Internal, index));
        self.wallet.mark_used(KeychainKind::Internal, index);
        Some(index)
    }
}

/// Why a channel was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Voucher(#[from] VoucherError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
}
