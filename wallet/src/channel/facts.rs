//! Where each channel stands on the chain: its funding, and what ended it.
//!
//! Computed from what the wallet sees, after each piece of news and at each start, so nothing is lost when a change was
//! missed. A channel is looked at from when its funding is known until its end is as deep as reorganisations are looked
//! for.

use std::collections::BTreeMap;

use bdk_wallet::KeychainKind;
use bdk_wallet::rusqlite;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};

use super::rows::{ChannelRow, EndKind, EndState, write_end_state, write_ended};
use super::{ChannelId, Funded, Role};
use crate::events::EventKey;
use crate::state::{State, StoreError};
use crate::view::{Standing, View};
use crate::watch::{FINAL_DEPTH, WATCH_DEPTH};

/// A channel as it stands on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelFact {
    pub id: ChannelId,
    /// Which side we are on.
    pub role: Role,
    pub capacity_sat: u64,
    /// The output that holds the money.
    pub funding: OutPoint,
    /// Where the transaction with that output stands.
    pub state: TxState,
    /// What spends it, once something does.
    pub end: Option<ChannelEnd>,
    /// The height of the chain's tip for which this holds.
    pub tip_height: u32,
}

/// How far a transaction of a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxState {
    /// No server named it yet, or none does any more: it may still come (back).
    Unseen,
    /// In no block: it may never happen.
    Unconfirmed,
    /// In a block; `depth` is 1 in the tip and stays at [`FINAL_DEPTH`]: beyond, count from `height`.
    Confirmed { height: u32, depth: u32 },
    /// An unconfirmed transaction spends what it spends; either may still confirm. Seen where the coins are ours.
    Replaced { by: Txid },
    /// A confirmed one does: this one can't happen any more. Seen where the coins are ours.
    Conflicted { by: Txid },
}

/// What spends the money of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelEnd {
    pub txid: Txid,
    pub shares: Shares,
    /// This channel's part of its fee, where all that it spends is known.
    pub fee_sat: Option<u64>,
    pub state: TxState,
}

/// Who gets what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// The seller closed with a voucher of so much.
    Closed { cum_sat: u64 },
    /// Both agreed; what is missing went to the miners.
    Settled { buyer_sat: u64, seller_sat: u64 },
    /// The buyer took everything back.
    Refunded,
}

/// The channels that are looked at.
pub(crate) type Watch = BTreeMap<ChannelId, Watched>;

/// A channel that is looked at.
pub(crate) struct Watched {
    role: Role,
    funded: Funded,
    spk: ScriptBuf,
    signed_sat: u64,
    /// What was last told of it.
    told: Option<ChannelFact>,
}

/// What news changed about channels.
#[derive(Default)]
pub(crate) struct Judged {
    facts: Vec<ChannelFact>,
    ends: Vec<(Txid, EndState)>,
    over: Vec<ChannelId>,
}

impl Judged {
    /// Writes what is kept of it.
    pub(crate) fn write(&self, tx: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
        self.ends.iter().try_for_each(|&(txid, state)| write_end_state(tx, txid, state))?;
        self.over.iter().try_for_each(|&id| write_ended(tx, id))
    }
}

impl State {
    /// Begins to look at every channel that is funded and not over, as at a start.
    pub(crate) fn load_channels(&mut self) -> Result<(), StoreError> {
        for row in self.open_channel_rows()? {
            if let Some(index) = row.change_index {
                // It is this channel's: no payment's change goes there. BDK keeps that in memory only.
                self.wallet.mark_used(KeychainKind::Internal, index);
            }
            self.look_at(row);
        }
        self.judge_now()?;
        Ok(())
    }

    /// Looks at a channel as it is stored now, if it is funded.
    pub(crate) fn look_at(&mut self, row: ChannelRow) {
        let ChannelRow { id, role, funded, signed_sat, .. } = row;
        let Some(funded) = funded else { return };
        // It was checked when it was stored.
        let spk = funded.terms().funding_spk().unwrap_or_default();
        let told = self.channels.remove(&id).and_then(|watched| watched.told);
        self.channels.insert(id, Watched { role, funded, spk, signed_sat, told });
    }

    /// A channel's fact as it was last told, under this tip.
    pub(crate) fn channel_fact(&self, id: ChannelId, tip_height: u32) -> Option<ChannelFact> {
        let told = self.channels.get(&id)?.told.clone()?;
        Some(ChannelFact { tip_height, ..told })
    }

    /// Whether the other side may still fund a channel and has not.
    pub(super) fn is_idle(&self, id: ChannelId) -> bool {
        self.channels.get(&id).is_some_and(|watched| {
            let told = watched.told.as_ref();
            let waits = |fact: &ChannelFact| fact.end.is_none() && !matches!(fact.state, TxState::Confirmed { .. });
            watched.role == Role::Seller && told.is_none_or(waits)
        })
    }

    /// What has ended a channel, in a block.
    pub(super) fn ended_by(&self, id: ChannelId) -> Option<Txid> {
        let end = self.channels.get(&id)?.told.as_ref()?.end?;
        matches!(end.state, TxState::Confirmed { .. }).then_some(end.txid)
    }

    /// The scripts of channels, which no keychain has, for a server to be asked about.
    pub(crate) fn channel_scripts(&self) -> Vec<ScriptBuf> {
        self.channels.values().map(|watched| watched.spk.clone()).collect()
    }

    /// The transactions that a server should name when it is asked about those scripts: what it leaves out is gone.
    pub(crate) fn expected_of_channels(&self) -> Vec<(ScriptBuf, Txid)> {
        let is_there = |state: TxState| matches!(state, TxState::Unconfirmed | TxState::Confirmed { .. });
        let expected = self.channels.values().filter_map(|watched| Some((watched, watched.told.as_ref()?)));
        let expected = expected.flat_map(|(watched, told)| {
            let funding = is_there(told.state).then_some(told.funding.txid);
            let end = told.end.filter(|end| is_there(end.state)).map(|end| end.txid);
            funding.into_iter().chain(end).map(|txid| (watched.spk.clone(), txid))
        });
        expected.collect()
    }

    /// What of channels that we opened is ours, in sat: neither signed away nor on its way back.
    pub(crate) fn channels_sat(&self) -> u64 {
        let open = self.channels.values().filter(|watched| {
            let told = watched.told.as_ref();
            let is_open = |fact: &ChannelFact| fact.end.is_none() && matches!(fact.state, TxState::Confirmed { .. });
            watched.role == Role::Buyer && told.is_some_and(is_open)
        });
        open.map(|watched| watched.funded.terms().capacity_sat.saturating_sub(watched.signed_sat)).sum()
    }

    /// Brings all channels up to date with what the wallet sees now; what is to be told.
    pub(crate) fn judge_now(&mut self) -> Result<Vec<EventKey>, StoreError> {
        let judged = self.judge_channels(&View::of(&self.wallet))?;
        self.commit(|tx| judged.write(tx))?;
        Ok(self.tell_channels(judged))
    }

    /// What changed about channels, as `view` shows them.
    pub(crate) fn judge_channels(&self, view: &View<'_>) -> Result<Judged, StoreError> {
        let mut judged = Judged::default();
        for (&id, watched) in &self.channels {
            let fact = self.fact(id, watched, view)?;
            if self.is_over(&fact, view) {
                judged.over.push(id);
            }
            let told = watched.told.as_ref();
            if told.is_none_or(|told| ChannelFact { tip_height: told.tip_height, ..fact.clone() } != *told) {
                judged.facts.push(fact);
            }
        }
        for (tx, state) in self.open_ends()? {
            let now = match view.standing_of(&tx) {
                Standing::Confirmed { .. } => EndState::Mined,
                Standing::Replaced { confirmed: true, .. } => EndState::Beaten,
                Standing::Replaced { .. } | Standing::Unconfirmed | Standing::Gone => EndState::Live,
            };
            if now != state {
                judged.ends.push((tx.compute_txid(), now));
            }
        }
        Ok(judged)
    }

    /// Remembers what is told from now on; what was over before is not looked at any more.
    pub(crate) fn tell_channels(&mut self, judged: Judged) -> Vec<EventKey> {
        let keys = judged.facts.iter().map(|fact| EventKey::Channel(fact.id)).collect();
        for fact in judged.facts {
            if let Some(watched) = self.channels.get_mut(&fact.id) {
                watched.told = Some(fact);
            }
        }
        judged.over.iter().for_each(|id| drop(self.channels.remove(id)));
        keys
    }

    fn fact(&self, id: ChannelId, watched: &Watched, view: &View<'_>) -> Result<ChannelFact, StoreError> {
        let funding = watched.funded.outpoint();
        let graph = self.wallet.tx_graph();
        let spends = |txid: &&Txid| matches!(view.standing(**txid), Standing::Confirmed { .. } | Standing::Unconfirmed);
        let spender = graph.outspends(funding).iter().find(spends).and_then(|&txid| graph.get_tx(txid));
        let end = spender.map(|tx| self.end(&watched.funded, &tx, view)).transpose()?.flatten();
        Ok(ChannelFact {
            id,
            role: watched.role,
            capacity_sat: watched.funded.terms().capacity_sat,
            funding,
            state: tx_state(view.standing(funding.txid)),
            end,
            tip_height: view.tip,
        })
    }

    /// What a transaction that spends a channel gives to whom. Told by what its txid commits to: a server may show any
    /// witness.
    fn end(&self, funded: &Funded, tx: &Transaction, view: &View<'_>) -> Result<Option<ChannelEnd>, StoreError> {
        let (txid, terms) = (tx.compute_txid(), funded.terms());
        let spends = |input: &bitcoin::TxIn| input.previous_output == funded.outpoint();
        let Some(place) = tx.input.iter().position(spends) else { return Ok(None) };
        let ours = self.end_kind(txid)?;
        let to_buyer = |output: &&bitcoin::TxOut| output.script_pubkey == terms.change_spk;
        let sum = |all: &mut dyn Iterator<Item = &bitcoin::TxOut>| {
            all.fold(0_u64, |sum, output| sum.saturating_add(output.value.to_sat()))
        };
        let shares = match ours.map(|(kind, _)| kind) {
            Some(EndKind::Settlement) => Shares::Settled {
                buyer_sat: sum(&mut tx.output.iter().filter(to_buyer)),
                seller_sat: sum(&mut tx.output.iter().filter(|output| !to_buyer(output))),
            },
            Some(EndKind::Refund) => Shares::Refunded,
            // Before its end a channel has only vouchers and settlements, and those have no lock time.
            None if tx.lock_time.to_consensus_u32() >= terms.expiry_height => Shares::Refunded,
            Some(EndKind::Close) | None => {
                let change = tx.output.get(place).filter(to_buyer).map_or(0, |output| output.value.to_sat());
                Shares::Closed { cum_sat: terms.capacity_sat.saturating_sub(change) }
            }
        };
        let channels = ours.map_or(1, |(_, channels)| channels.max(1));
        let fee = self.wallet.calculate_fee(tx).ok();
        let fee_sat = fee.map(|fee| fee.to_sat().div_ceil(channels));
        Ok(Some(ChannelEnd { txid, shares, fee_sat, state: tx_state(view.standing(txid)) }))
    }

    /// Whether nothing about a channel can change any more, as deep as reorganisations are looked for.
    fn is_over(&self, fact: &ChannelFact, view: &View<'_>) -> bool {
        let is_deep = |height: u32| height.saturating_add(WATCH_DEPTH) < view.tip;
        let last = fact.end.map_or(fact.state, |end| end.state);
        match last {
            TxState::Confirmed { height, .. } => fact.end.is_some() && is_deep(height),
            TxState::Conflicted { by } => {
                matches!(view.standing(by), Standing::Confirmed { height, .. } if is_deep(height))
            }
            TxState::Unseen | TxState::Unconfirmed | TxState::Replaced { .. } => false,
        }
    }
}

fn tx_state(standing: Standing) -> TxState {
    match standing {
        Standing::Confirmed { height, depth, .. } => TxState::Confirmed { height, depth: depth.min(FINAL_DEPTH) },
        Standing::Unconfirmed => TxState::Unconfirmed,
        Standing::Replaced { by, confirmed: true } => TxState::Conflicted { by },
        Standing::Replaced { by, confirmed: false } => TxState::Replaced { by },
        Standing::Gone => TxState::Unseen,
    }
}
