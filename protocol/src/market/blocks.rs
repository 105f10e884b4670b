//! Buyers whom the owner sells nothing.

use libp2p_identity::PeerId;

use crate::account::{Account, Block, Change, Direction};
use crate::market::Market;
use crate::money::Msat;
use crate::refusal::Refusal;
use crate::text::Name;
use crate::time::Timestamp;

impl Market {
    /// The owner sells a peer nothing from now on, and notes why; whether that is news.
    ///
    /// What it owes it can still pay, and what it has paid stays its own.
    pub fn handle_block(&mut self, now: Timestamp, peer: PeerId, note: Option<Name>) -> bool {
        let known = self.block_of(&peer).cloned();
        let block = Block { since: known.as_ref().map_or(now, |known| known.since), note };
        let news = known.as_ref() != Some(&block);
        if news {
            self.stage(peer, Direction::Sold, Change::Block(Some(block)));
        }
        news
    }

    /// The owner takes that back; whether there was anything to take back.
    pub fn handle_unblock(&mut self, peer: PeerId) -> bool {
        let blocked = self.block_of(&peer).is_some();
        if blocked {
            self.stage(peer, Direction::Sold, Change::Block(None));
        }
        blocked
    }

    /// The owner's word against a peer, if there is one.
    #[must_use]
    pub fn block_of(&self, peer: &PeerId) -> Option<&Block> {
        self.account(peer, Direction::Sold).and_then(Account::block)
    }

    /// Refuses to begin work for a peer that is blocked, by the owner or by a default.
    pub(super) fn check_block(&self, peer: &PeerId) -> Result<(), Refusal> {
        let blocked = self.block_of(peer).is_some() || self.is_in_default(peer);
        if blocked { Err(Refusal::Blocked) } else { Ok(()) }
    }

    /// Refuses an address to a peer that is blocked, unless it owes: whoever can buy nothing would pay for nothing.
    pub(super) fn check_payable(&self, peer: &PeerId) -> Result<(), Refusal> {
        let debt = self.account(peer, Direction::Sold).map_or(Msat::ZERO, |account| account.tab().debt());
        if debt > Msat::ZERO { Ok(()) } else { self.check_block(peer) }
    }
}
