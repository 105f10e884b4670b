//! Who sells on which terms: our own rule, which is the real market's word, and three that others have, to hold beside it.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use libp2p_identity::ed25519::Keypair;
use pedlar_protocol::account::Tab;
use pedlar_protocol::content::Groups;
use pedlar_protocol::id::{PayeeId, QuoteId, TopUpId};
use pedlar_protocol::market::{Incoming, Market, Synced};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::{Brake, MAX_WINDOW};
use pedlar_protocol::settlement::SignedTopUp;
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::Signed;

use super::size;

/// A stream that was opened.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) id: QuoteId,
    pub(super) price: Price,
    /// The seller's paper, where it signs any.
    pub(super) signed: Option<Signed>,
}

/// A receipt that is signed where the seller looks at it.
#[derive(Clone, Copy)]
pub(super) struct Receipt<'a> {
    pub(super) units: u64,
    pub(super) signer: &'a Keypair,
}

/// A seller, as its buyers deal with it.
pub(super) trait Stall {
    /// A buyer asks for the goods.
    fn open(&mut self, now: Timestamp, buyer: PeerId) -> Result<Opened, Refusal>;

    /// It wants a range and signs for what it has: what is admitted.
    fn want(
        &mut self,
        now: Timestamp,
        quote: &QuoteId,
        groups: Groups,
        receipt: Option<Receipt<'_>>,
    ) -> Result<Groups, Refusal>;

    /// The stream is gone, and so many bytes had left.
    fn end(&mut self, now: Timestamp, quote: &QuoteId, sent: u64, receipt: Option<Receipt<'_>>);

    /// A receipt outside its session.
    fn tell(&mut self, now: Timestamp, buyer: PeerId, quote: &QuoteId, receipt: Receipt<'_>);

    /// A buyer asks where to pay.
    fn topup(&mut self, now: Timestamp, buyer: PeerId, id: TopUpId, sat: u64)
    -> Option<(PayeeId, Option<SignedTopUp>)>;

    /// A payment of this buyer, as the seller's wallet sees it: final.
    fn incoming(&mut self, now: Timestamp, buyer: PeerId, fact: Incoming);

    /// The chain's height.
    fn tip(&mut self, height: u64);

    /// What this buyer may owe.
    fn line(&self, now: Timestamp, buyer: &PeerId) -> Msat;

    /// What this buyer owes.
    fn debt(&self, buyer: &PeerId) -> Msat;

    /// What a seller that has a market tells this buyer of its books.
    fn books(&mut self, now: Timestamp, buyer: PeerId) -> Option<Synced>;

    /// The market that decides, where one does.
    fn market(&self) -> Option<&Market>;
}

/// Whose rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// MONEY.md 2: the real market.
    Ours,
    /// Nobody owes anything.
    Prepay,
    /// Everybody may owe the same, as with Rita (0.30 USD).
    FixedLine,
    /// A hundredth of what was ever paid, and a start for everybody, as with bee.
    RepaidShare,
}

impl Policy {
    /// Ours first, then the others.
    pub const ALL: [Self; 4] = [Self::Ours, Self::Prepay, Self::FixedLine, Self::RepaidShare];

    /// As it stands in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Prepay => "prepay only",
            Self::FixedLine => "one line for all",
            Self::RepaidShare => "1 % of repaid",
        }
    }

    /// What a buyer may owe that has paid so much.
    fn line(self, paid: Msat) -> Msat {
        match self {
            Self::Ours | Self::Prepay => Msat::ZERO,
            Self::FixedLine => Msat::new(300_000),
            Self::RepaidShare => Msat::new(100_000 + paid.msat() / 100),
        }
    }
}

/// A seller with another rule: it has the same brake and the same holds, and never lets go of one.
pub(super) struct Till {
    policy: Policy,
    price: Price,
    tabs: BTreeMap<PeerId, Tab>,
    streams: BTreeMap<QuoteId, Stream>,
    opened: u64,
}

struct Stream {
    buyer: PeerId,
    brake: Brake,
    admitted: u64,
    signed: u64,
}

impl Till {
    pub(super) const fn new(policy: Policy, price: Price) -> Self {
        Self { policy, price, tabs: BTreeMap::new(), streams: BTreeMap::new(), opened: 0 }
    }

    fn charge(&self, bytes: u64) -> Msat {
        self.price.charge(bytes).unwrap_or(Msat::MAX)
    }

    fn sign(&mut self, quote: &QuoteId, receipt: Option<Receipt<'_>>) {
        let price = self.price;
        let Some(stream) = self.streams.get_mut(quote) else { return };
        let units = receipt.map_or(0, |receipt| receipt.units).min(stream.admitted);
        if units > stream.signed {
            let charge = |bytes| price.charge(bytes).unwrap_or(Msat::MAX);
            let cost = charge(units).saturating_sub(charge(stream.signed));
            let tab = self.tabs.entry(stream.buyer).or_default();
            tab.spent = tab.spent.saturating_add(cost);
            tab.held = tab.held.saturating_sub(cost);
            stream.signed = units;
            stream.brake.handle_signed(units);
        }
    }
}

impl Stall for Till {
    fn open(&mut self, _: Timestamp, buyer: PeerId) -> Result<Opened, Refusal> {
        self.opened += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.opened.to_le_bytes());
        let stream = Stream { buyer, brake: Brake::up_to(MAX_WINDOW), admitted: 0, signed: 0 };
        self.streams.insert(QuoteId(id), stream);
        Ok(Opened { id: QuoteId(id), price: self.price, signed: None })
    }

    fn want(
        &mut self,
        now: Timestamp,
        quote: &QuoteId,
        groups: Groups,
        receipt: Option<Receipt<'_>>,
    ) -> Result<Groups, Refusal> {
        self.sign(quote, receipt);
        let stream = self.streams.get(quote).ok_or(Refusal::PriceMoved)?;
        let buyer = stream.buyer;
        let unbraked = stream.brake.admit(size(), groups).ok_or(Refusal::Malformed)?;
        let line = self.line(now, &buyer);
        let before = self.charge(stream.admitted);
        let tab = self.tabs.get(&buyer).copied().unwrap_or_default();
        let units = self.price.affordable(before.saturating_add(tab.room(line))).saturating_sub(stream.admitted);
        let admitted = if size().bytes_in(unbraked) <= units { unbraked } else { unbraked.within(units) };
        let bytes = size().bytes_in(admitted);
        let cost = self.charge(stream.admitted + bytes).saturating_sub(before);
        let missing = tab.missing(cost, line);
        if missing > Msat::ZERO {
            return Err(Refusal::PayFirst { missing, min_topup_sat: 1 });
        }
        let tab = self.tabs.entry(buyer).or_default();
        tab.held = tab.held.saturating_add(cost);
        if let Some(stream) = self.streams.get_mut(quote) {
            stream.admitted += bytes;
            stream.brake.handle_admitted(bytes);
        }
        Ok(admitted)
    }

    fn end(&mut self, _: Timestamp, quote: &QuoteId, sent: u64, receipt: Option<Receipt<'_>>) {
        self.sign(quote, receipt);
        if let Some(stream) = self.streams.remove(quote) {
            let left = sent.min(stream.admitted).max(stream.signed);
            let unsent = self.charge(stream.admitted).saturating_sub(self.charge(left));
            let tab = self.tabs.entry(stream.buyer).or_default();
            tab.held = tab.held.saturating_sub(unsent);
        }
    }

    fn tell(&mut self, _: Timestamp, _: PeerId, quote: &QuoteId, receipt: Receipt<'_>) {
        self.sign(quote, Some(receipt));
    }

    fn topup(&mut self, _: Timestamp, _: PeerId, id: TopUpId, _: u64) -> Option<(PayeeId, Option<SignedTopUp>)> {
        Some((PayeeId(id.0), None))
    }

    fn incoming(&mut self, _: Timestamp, buyer: PeerId, fact: Incoming) {
        let tab = self.tabs.entry(buyer).or_default();
        tab.paid = tab.paid.saturating_add(Msat::from_sat(fact.amount_sat).unwrap_or(Msat::MAX));
    }

    fn tip(&mut self, _: u64) {}

    fn line(&self, _: Timestamp, buyer: &PeerId) -> Msat {
        self.policy.line(self.tabs.get(buyer).map_or(Msat::ZERO, |tab| tab.paid))
    }

    fn debt(&self, buyer: &PeerId) -> Msat {
        self.tabs.get(buyer).map_or(Msat::ZERO, Tab::debt)
    }

    fn books(&mut self, _: Timestamp, _: PeerId) -> Option<Synced> {
        None
    }

    fn market(&self) -> Option<&Market> {
        None
    }
}
