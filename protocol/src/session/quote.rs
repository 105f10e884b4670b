//! What a unit costs, and how many were received: the two signed papers of a session (MONEY.md 1.2).

use libp2p_identity::{PeerId, ed25519::Keypair};
use pedlar_proto::v1;
use prost::Message;

use crate::content::{Root, Whole};
use crate::id::{IdError, QuoteId};
use crate::money::{Msat, Price};
use crate::offer::Service;
use crate::time::Timestamp;
use crate::wire::{Network, OpenError, Signed};

const QUOTE_DOMAIN: &str = "pedlar quote v1";
const RECEIPT_DOMAIN: &str = "pedlar receipt v1";

/// The seller's price for one object to one buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The network both sides must be on.
    pub network: Network,
    /// Who may buy under it.
    pub buyer: PeerId,
    /// Who signed it.
    pub seller: PeerId,
    /// Rises with each quote of this seller to this buyer.
    pub number: u64,
    /// Sequence of the seller's live offer, 0 where none was published.
    pub offer_seq: u64,
    /// What kind of good.
    pub service: Service,
    /// What is sold: for chunks the content's root.
    pub object: [u8; 32],
    /// The root under which a collection's file is sold; nothing for what is sold under its own.
    pub collection: Option<Root>,
    /// Of a collection's manifest: what all that is sold under its root comes to.
    pub whole: Option<Whole>,
    /// Bytes of the object: a claim until its last group verifies.
    pub size: u64,
    /// What a unit costs.
    pub price: Price,
    /// After this nothing more is admitted under it.
    pub expires: Timestamp,
}

/// A quote with its signature checked, or just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedQuote {
    id: QuoteId,
    quote: Quote,
    signed: Signed,
}

/// Bytes that are no quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Not a message of the schema.
    #[error("the quote can't be decoded")]
    Encoding,
    /// A field that is out of its domain.
    #[error("the quote's {0} is not valid")]
    Field(&'static str),
    /// Not signed by the seller that it names.
    #[error("the quote: {0}")]
    Signature(#[from] OpenError),
}

impl SignedQuote {
    /// Signs `quote` as its seller.
    #[must_use]
    pub fn sign(quote: Quote, key: &Keypair) -> Self {
        let body = v1::Quote {
            network: quote.network.to_string(),
            buyer: quote.buyer.to_bytes().into(),
            seller: quote.seller.to_bytes().into(),
            number: quote.number,
            offer_seq: quote.offer_seq,
            service: quote.service.code(),
            object: quote.object.to_vec().into(),
            size_bytes: quote.size,
            price_msat_per_gib: quote.price.msat_per_gib(),
            expires_ms: quote.expires.ms(),
            collection: quote.collection.map(|root| root.as_bytes().to_vec().into()).unwrap_or_default(),
            whole: quote.whole.map(|Whole { bytes, objects }| v1::Whole { bytes, objects }),
        };
        let signed = Signed::sign(key, QUOTE_DOMAIN, body.encode_to_vec().into());
        Self { id: id_of(&signed), quote, signed }
    }

    /// Reads a quote and checks its signature against the seller that it names.
    ///
    /// # Errors
    /// [`QuoteError`] says what is wrong with the bytes.
    pub fn parse(signed: Signed) -> Result<Self, QuoteError> {
        let wire = v1::Quote::decode(signed.body().clone()).map_err(|_| QuoteError::Encoding)?;
        let seller = PeerId::from_bytes(&wire.seller).map_err(|_| QuoteError::Field("seller"))?;
        signed.verify(QUOTE_DOMAIN, &seller)?;
        let quote = Quote {
            buyer: PeerId::from_bytes(&wire.buyer).map_err(|_| QuoteError::Field("buyer"))?,
            seller,
            network: wire.network.parse().map_err(|_| QuoteError::Field("network"))?,
            number: wire.number,
            offer_seq: wire.offer_seq,
            service: Service::from_code(wire.service).ok_or(QuoteError::Field("service"))?,
            object: wire.object.as_ref().try_into().map_err(|_| QuoteError::Field("object"))?,
            collection: collection(&wire.collection)?,
            whole: wire.whole.map(|wire| Whole { bytes: wire.bytes, objects: wire.objects }),
            size: wire.size_bytes,
            price: Price::per_gib(wire.price_msat_per_gib),
            expires: Timestamp::from_ms(wire.expires_ms),
        };
        if quote.price.charge(quote.size).is_none() {
            return Err(QuoteError::Field("price"));
        }
        // The manifest is a part of the whole.
        if quote.whole.is_some_and(|whole| whole.bytes < quote.size || whole.objects == 0) {
            return Err(QuoteError::Field("whole"));
        }
        Ok(Self { id: id_of(&signed), quote, signed })
    }

    /// The quote's name: the BLAKE3 of its signed bytes.
    #[must_use]
    pub const fn id(&self) -> QuoteId {
        self.id
    }

    /// What it says.
    #[must_use]
    pub const fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The bytes that carry it.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// What `units` bytes cost under it, rounded up once.
    ///
    /// Saturates: a charge beyond `u64` msat is more than all bitcoin, so nothing admits it.
    #[must_use]
    pub fn charge(&self, units: u64) -> Msat {
        self.quote.price.charge(units).unwrap_or(Msat::MAX)
    }
}

/// The buyer's signed meter under one quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    quote_id: QuoteId,
    units: u64,
    signed: Signed,
}

/// Bytes that are no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not a message of the schema.
    #[error("the receipt can't be decoded")]
    Encoding,
    /// Its quote has no valid name.
    #[error("the receipt's quote: {0}")]
    Quote(#[from] IdError),
    /// Not signed by the buyer.
    #[error("the receipt: {0}")]
    Signature(#[from] OpenError),
}

impl SignedReceipt {
    /// Signs, as the buyer, for `units` bytes received and verified under the quote, in all.
    #[must_use]
    pub fn sign(quote_id: QuoteId, units: u64, key: &Keypair) -> Self {
        let body = v1::Receipt { quote_id: quote_id.0.to_vec().into(), units };
        Self { quote_id, units, signed: Signed::sign(key, RECEIPT_DOMAIN, body.encode_to_vec().into()) }
    }

    /// Reads a receipt and checks that `buyer` signed it.
    ///
    /// # Errors
    /// [`ReceiptError`] says what is wrong with the bytes.
    pub fn parse(signed: Signed, buyer: &PeerId) -> Result<Self, ReceiptError> {
        signed.verify(RECEIPT_DOMAIN, buyer)?;
        let wire = v1::Receipt::decode(signed.body().clone()).map_err(|_| ReceiptError::Encoding)?;
        Ok(Self { quote_id: QuoteId::try_from(wire.quote_id.as_ref())?, units: wire.units, signed })
    }

    /// The quote under which the units were received.
    #[must_use]
    pub const fn quote_id(&self) -> QuoteId {
        self.quote_id
    }

    /// Bytes received and verified, cumulative.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.units
    }

    /// The bytes that carry it.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }
}

fn collection(root: &[u8]) -> Result<Option<Root>, QuoteError> {
    if root.is_empty() {
        return Ok(None);
    }
    let root: [u8; 32] = root.try_into().map_err(|_| QuoteError::Field("collection"))?;
    Ok(Some(root.into()))
}

fn id_of(signed: &Signed) -> QuoteId {
    QuoteId(*blake3::hash(signed.body()).as_bytes())
}
