//! Snapshots on their way out.
//!
//! What changed is remembered by key; the snapshot is read when there is room for it in the consumer's queue. A slow
//! consumer therefore misses steps in between, never the last one.

use std::collections::BTreeSet;

use bitcoin::OutPoint;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::channel::{ChannelFact, ChannelId};
use crate::payments::{Payment, PaymentId};
use crate::state::{State, StoreError};
use crate::watch::Incoming;

/// Events that wait for the consumer; more stay here as keys, so this only saves wake-ups.
const QUEUE: usize = 256;

/// News from the wallet: the state of something as it is now, also repeated at each start for all that may still
/// change. A `Tip` comes after every snapshot that its block changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalletEvent {
    Incoming(Incoming),
    Outgoing(Payment),
    Channel(ChannelFact),
    Tip { height: u32 },
}

/// What changed; ordered as it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EventKey {
    Incoming(OutPoint),
    Outgoing(PaymentId),
    Channel(ChannelId),
    Tip,
}

/// Changes not yet reported; at most one entry for each output, payment and channel.
pub(crate) struct Events {
    sender: mpsc::Sender<WalletEvent>,
    changed: BTreeSet<EventKey>,
}

impl Events {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<WalletEvent>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender, changed: BTreeSet::new() }, receiver)
    }

    pub(crate) fn mark(&mut self, keys: impl IntoIterator<Item = EventKey>) {
        self.changed.extend(keys);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// Reports as much as the consumer takes now.
    ///
    /// # Errors
    ///
    /// When a snapshot can't be read; it stays marked.
    pub(crate) fn send(&mut self, state: &State) -> Result<(), StoreError> {
        while let Some(&key) = self.changed.first() {
            let permit = match self.sender.try_reserve() {
                Ok(permit) => permit,
                Err(TrySendError::Full(())) => return Ok(()),
                Err(TrySendError::Closed(())) => {
                    self.changed.clear();
                    return Ok(());
                }
            };
            let height = state.wallet.latest_checkpoint().height();
            let event = match key {
                EventKey::Incoming(outpoint) => state.incoming(outpoint, height)?.map(WalletEvent::Incoming),
                EventKey::Outgoing(id) if state.funds_channel(id)? => None,
                EventKey::Outgoing(id) => state.payment(id)?.map(WalletEvent::Outgoing),
                EventKey::Channel(id) => state.channel_fact(id, height).map(WalletEvent::Channel),
                EventKey::Tip => Some(WalletEvent::Tip { height }),
            };
            if let Some(event) = event {
                permit.send(event);
            }
            self.changed.remove(&key);
        }
        Ok(())
    }
}
