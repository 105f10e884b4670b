//! The seller's word for an advance: an address, and prices that it won't exceed.

use std::collections::BTreeMap;

use libp2p_identity::{PeerId, ed25519::Keypair};
use pedlar_proto::v1;
use prost::Message;

use crate::id::TopUpId;
use crate::money::Price;
use crate::offer::Service;
use crate::wire::{Network, OpenError, Signed};

const DOMAIN: &str = "pedlar topup v1";

/// The longest bitcoin address that is in use, 90 characters (BIP173).
const MAX_ADDRESS_LEN: usize = 90;

/// What the seller promises whoever pays to the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUp {
    /// Chosen by the buyer.
    pub id: TopUpId,
    /// The network both sides must be on.
    pub network: Network,
    /// Whose balance rises.
    pub buyer: PeerId,
    /// Who signed it.
    pub seller: PeerId,
    /// Where to pay: a bitcoin address as text, for the wallet to read.
    pub address: String,
    /// Less than this is not watched for, in sat.
    pub min_sat: u64,
    /// Until the money is used up, no price is above these.
    pub ceilings: BTreeMap<Service, Price>,
    /// A payment in a later block is not promised to be seen.
    pub until_height: u64,
}

/// A top-up with its signature checked, or just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTopUp {
    topup: TopUp,
    signed: Signed,
}

/// Bytes that are no top-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopUpError {
    /// Not a message of the schema.
    #[error("the top-up can't be decoded")]
    Encoding,
    /// A field that is out of its domain.
    #[error("the top-up's {0} is not valid")]
    Field(&'static str),
    /// Not signed by the seller that it names.
    #[error("the top-up: {0}")]
    Signature(#[from] OpenError),
}

impl SignedTopUp {
    /// Signs `topup` as its seller.
    #[must_use]
    pub fn sign(topup: TopUp, key: &Keypair) -> Self {
        let ceiling = |(service, price): (&Service, &Price)| v1::Ceiling {
            service: service.code(),
            price_msat_per_gib: price.msat_per_gib(),
        };
        let body = v1::TopUp {
            id: topup.id.0.to_vec().into(),
            network: topup.network.to_string(),
            buyer: topup.buyer.to_bytes().into(),
            seller: topup.seller.to_bytes().into(),
            address: topup.address.clone(),
            min_sat: topup.min_sat,
            ceilings: topup.ceilings.iter().map(ceiling).collect(),
            until_height: topup.until_height,
        };
        Self { topup, signed: Signed::sign(key, DOMAIN, body.encode_to_vec().into()) }
    }

    /// Reads a top-up and checks its signature against the seller that it names.
    ///
    /// # Errors
    /// [`TopUpError`] says what is wrong with the bytes.
    pub fn parse(signed: Signed) -> Result<Self, TopUpError> {
        let wire = v1::TopUp::decode(signed.body().clone()).map_err(|_| TopUpError::Encoding)?;
        let seller = PeerId::from_bytes(&wire.seller).map_err(|_| TopUpError::Field("seller"))?;
        signed.verify(DOMAIN, &seller)?;
        let printable = wire.address.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !printable || wire.address.is_empty() || wire.address.len() > MAX_ADDRESS_LEN {
            return Err(TopUpError::Field("address"));
        }
        let mut ceilings = BTreeMap::new();
        for ceiling in &wire.ceilings {
            // A service of a later version is none that this node buys.
            if let Some(service) = Service::from_code(ceiling.service) {
                ceilings.insert(service, Price::per_gib(ceiling.price_msat_per_gib));
            }
        }
        let topup = TopUp {
            id: TopUpId::try_from(wire.id.as_ref()).map_err(|_| TopUpError::Field("id"))?,
            network: wire.network.parse().map_err(|_| TopUpError::Field("network"))?,
            buyer: PeerId::from_bytes(&wire.buyer).map_err(|_| TopUpError::Field("buyer"))?,
            seller,
            address: wire.address,
            min_sat: wire.min_sat,
            ceilings,
            until_height: wire.until_height,
        };
        Ok(Self { topup, signed })
    }

    /// What it says.
    #[must_use]
    pub const fn topup(&self) -> &TopUp {
        &self.topup
    }

    /// The bytes that carry it.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }
}
