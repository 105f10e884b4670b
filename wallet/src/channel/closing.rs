//! The seller's closes: by the vouchers that it holds, one channel or many at once, dearer when they are stuck.

use bdk_wallet::{KeychainKind, LocalOutput};
use bitcoin::{FeeRate, OutPoint};

use super::close::{Close, Coin};
use super::ends::{EndError, Ending, check_count, fee_at, least_fee, total};
use super::rows::{ChannelRow, EndKind, EndRow};
use super::{ChannelError, ChannelId, Role, Voucher};
use crate::payments::Fee;
use crate::state::State;
use crate::watch::COINBASE_MATURITY;

/// A close with what it takes to sign it.
struct Draft {
    close: Close,
    rows: Vec<ChannelRow>,
    coins: Vec<LocalOutput>,
}

impl State {
    /// Closes these channels with one transaction, by these vouchers, or returns the one that does already. When it
    /// returns, the transaction is stored; it is not sent here.
    ///
    /// # Errors
    ///
    /// Nothing was signed: a voucher is worth nothing, or the fee can't be paid.
    pub(crate) fn close_channels(
        &mut self,
        closes: &[(ChannelId, Voucher)],
        fee: &Fee,
        now_ms: u64,
    ) -> Result<Ending, EndError> {
        check_count(closes)?;
        for (id, _) in closes {
            if let Some(old) = self.live_end(*id)?.filter(|old| old.kind == EndKind::Close) {
                let parts = closes.iter().map(|&(id, voucher)| (id, Some(voucher)));
                return if parts.eq(old.parts.iter().copied()) { Ok(old.ending()) } else { Err(EndError::Ending) };
            }
        }
        self.close_again(closes, None, fee, now_ms)
    }

    /// Replaces the transaction that closes a channel, and those that are closed with it, by a dearer one, by the same
    /// vouchers; without a rate, by what is asked for now or the least that is relayed.
    ///
    /// # Errors
    ///
    /// Nothing was signed: nothing of ours waits, or the rate is too low or too high.
    pub(crate) fn raise_close(
        &mut self,
        id: ChannelId,
        rate: Option<FeeRate>,
        fee: &Fee,
        now_ms: u64,
    ) -> Result<Ending, EndError> {
        let old = self.live_end(id)?.filter(|old| old.kind == EndKind::Close).ok_or(EndError::NothingToRaise)?;
        let closes: Option<Vec<_>> = old.parts.iter().map(|&(id, voucher)| Some((id, voucher?))).collect();
        let closes = closes.ok_or(EndError::NothingToRaise)?;
        let wanted = Fee { rate: rate.unwrap_or(fee.rate), ..*fee };
        self.close_again(&closes, Some((&old, rate.is_some())), &wanted, now_ms)
    }

    /// Closes by these vouchers; in place of `old`, where that is given, and then at the wanted rate or not at all.
    fn close_again(
        &mut self,
        closes: &[(ChannelId, Voucher)],
        old: Option<(&EndRow, bool)>,
        fee: &Fee,
        now_ms: u64,
    ) -> Result<Ending, EndError> {
        let mut draft = self.draft(closes, old.map(|(old, _)| old))?;
        let replaced = self.live_ends_of(closes)?;
        loop {
            let weight = draft.close.most_weight();
            let (asked, least_sat) = (fee_at(fee.rate, weight)?, least_fee(&replaced, weight)?);
            if asked < least_sat && old.is_some_and(|(_, exactly)| exactly) {
                return Err(EndError::RateTooLow { least_sat });
            }
            let fee_sat = asked.max(least_sat);
            if fee_sat > fee_at(fee.ceiling, weight)? {
                return Err(EndError::AboveCeiling { fee_sat });
            }
            if draft.close.own_sat() >= fee_sat {
                return self.sign_close(&draft, fee_sat, now_ms);
            }
            let short = EndError::Short { have_sat: draft.close.own_sat(), need_sat: fee_sat };
            let coin = self.next_coin(&draft)?.ok_or(short)?;
            draft.add(coin);
        }
    }

    fn draft(&mut self, closes: &[(ChannelId, Voucher)], old: Option<&EndRow>) -> Result<Draft, EndError> {
        let (mut parts, mut rows) = (Vec::new(), Vec::new());
        for (id, voucher) in closes {
            let (row, funded) = self.unended(*id, Role::Seller)?;
            funded.verify(voucher)?;
            parts.push((funded, *voucher));
            rows.push(row);
        }
        let spk = self.own_spk()?;
        let mut draft = Draft { close: Close { parts, coins: Vec::new(), spk }, rows, coins: Vec::new() };
        // The coins that it had before: they are spent already, as the wallet sees it.
        let had: Vec<OutPoint> = old.iter().flat_map(|old| &old.tx.input).map(|input| input.previous_output).collect();
        let coins: Vec<_> = self.wallet.list_output().filter(|coin| had.contains(&coin.outpoint)).collect();
        coins.into_iter().for_each(|coin| draft.add(coin));
        Ok(draft)
    }

    /// The largest confirmed coin that is free and not in the draft.
    fn next_coin(&self, draft: &Draft) -> Result<Option<LocalOutput>, EndError> {
        let unspendable = self.unspendable()?;
        let is_free = |coin: &LocalOutput| {
            let taken = unspendable.contains(&coin.outpoint) || draft.coins.contains(coin);
            !taken && self.is_mature(coin)
        };
        let coins = self.wallet.list_unspent().filter(is_free);
        Ok(coins.max_by_key(|coin| (coin.txout.value, coin.outpoint)))
    }

    /// Whether a coin is in a block, and deep enough where it was mined.
    fn is_mature(&self, coin: &LocalOutput) -> bool {
        let coinbase = self.wallet.tx_graph().get_tx(coin.outpoint.txid).is_some_and(|tx| tx.is_coinbase());
        let needed = if coinbase { COINBASE_MATURITY } else { 1 };
        let tip = self.wallet.latest_checkpoint().height();
        let height = coin.chain_position.confirmation_height_upper_bound();
        height.is_some_and(|height| (tip + 1).saturating_sub(height) >= needed)
    }

    /// Each transaction that is to end one of these channels, once.
    fn live_ends_of(&self, closes: &[(ChannelId, Voucher)]) -> Result<Vec<EndRow>, EndError> {
        let mut ends: Vec<EndRow> = Vec::new();
        for (id, _) in closes {
            let end = self.live_end(*id)?;
            ends.extend(end.filter(|end| ends.iter().all(|known| known.tx != end.tx)));
        }
        Ok(ends)
    }

    fn sign_close(&mut self, draft: &Draft, fee_sat: u64, now_ms: u64) -> Result<Ending, EndError> {
        let Draft { close, rows, coins } = draft;
        let network = self.network.into();
        let secp = self.wallet.secp_ctx();
        let coin_key = |coin: &LocalOutput| {
            let keychain = match coin.keychain {
                KeychainKind::External => 0,
                KeychainKind::Internal => 1,
            };
            self.keys.coin_key(network, keychain, coin.derivation_index, secp).map_err(|_| ChannelError::Unsignable)
        };
        let mut keys = rows.iter().map(|row| self.secret_of(row)).collect::<Result<Vec<_>, _>>()?;
        let mut coin_keys = coins.iter().map(coin_key).collect::<Result<Vec<_>, _>>()?;
        let tx = close.sign(close.unsigned(close.own_sat() - fee_sat), &keys, &coin_keys, secp);
        keys.iter_mut().chain(&mut coin_keys).for_each(|key| key.non_secure_erase());
        let tx = tx.ok_or(ChannelError::Unsignable)?;
        let spent = close.parts.iter().map(|(funded, _)| funded.terms().capacity_sat);
        let spent = spent.chain(close.coins.iter().map(|coin| coin.txout.value.to_sat()));
        let fee_sat = spent.fold(0, u64::saturating_add).saturating_sub(total(&tx));
        let parts = rows.iter().zip(&close.parts).map(|(row, (_, voucher))| (row.id, Some(*voucher))).collect();
        self.store_end(&EndRow { tx, kind: EndKind::Close, fee_sat, parts }, now_ms)
    }
}

impl Draft {
    fn add(&mut self, coin: LocalOutput) {
        self.close.coins.push(Coin { outpoint: coin.outpoint, txout: coin.txout.clone() });
        self.coins.push(coin);
    }
}
