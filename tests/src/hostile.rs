//! Peers that speak our protocols by hand, and not always as agreed.
//!
//! They are built on the swarm and the pure core alone: what they send is what any other program could send. They are
//! clients of the DHT, and none listens unless it sells, so that the only way to them is the one that a story made.

mod buyer;
mod cashier;
mod seller;

pub use buyer::{Freeloader, Grab};
pub use cashier::{Cashier, Manner};
pub use seller::{HostileSeller, Lie};

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use libp2p_identity::PeerId;
use libp2p_identity::ed25519::{Keypair, SecretKey};
use pedlar_net::{Limits, Multiaddr, NetConfig, NetEvents, NetHandle, Stream};
use pedlar_protocol::content::{GROUP_LEN, Groups, Item, OutboardBuilder, PAIR_LEN, Root, Size, Walk};
use pedlar_protocol::money::Price;
use pedlar_protocol::offer::{Listing, Offer, RailKind, Service, SignedOffer, Terms};
use pedlar_protocol::session::Frame;
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{FrameHeader, FrameKind, Network, peer_id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{PATIENCE, Peer, World, until};

/// The stream protocol of the first good.
pub const CHUNKS: &str = "chunks";

/// The stream protocol of money.
pub const ACCOUNT: &str = "account";

/// The stream protocol of offers.
pub const OFFERS: &str = "offers-sync";

/// A peer of the network that no node of ours runs.
pub struct Stranger {
    /// Its identity.
    pub key: Keypair,
    /// Its swarm.
    pub net: NetHandle,
    /// What comes to it.
    pub events: NetEvents,
    /// Where it is.
    pub network: Network,
}

impl Stranger {
    /// A peer that nobody can dial, in the network of this world.
    pub async fn lurking(world: &World) -> Self {
        Self::enter(world, Vec::new(), false, &[CHUNKS, ACCOUNT]).await
    }

    /// The same, and it calls its software whatever this says.
    pub async fn called(world: &World, agent: &str) -> Self {
        Self::enter_as(world, Vec::new(), false, &[CHUNKS, ACCOUNT], agent).await
    }

    /// The same, and it speaks all protocols: nodes that are new ask it for offers.
    pub async fn syncing(world: &World) -> Self {
        Self::enter(world, Vec::new(), false, &[CHUNKS, ACCOUNT, OFFERS]).await
    }

    /// A peer that listens and answers lookups, as a seller does.
    pub async fn listening(world: &World) -> Self {
        Self::enter(world, vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")], true, &[CHUNKS, ACCOUNT]).await
    }

    /// Its id.
    pub fn id(&self) -> PeerId {
        self.net.peer_id()
    }

    /// Connects to a node and waits until gossip can pass between the two.
    pub async fn meet(&self, peer: &Peer, addrs: &[Multiaddr]) {
        let id: PeerId = peer.id.parse().expect("a peer id");
        self.net.dial(id, addrs.to_vec()).await.expect("the node can be dialled");
        let met = async || self.net.peers().await.iter().any(|info| info.peer == id).then_some(());
        until("the two have met", met).await;
    }

    /// Publishes bytes on the topic of offers, once somebody listens.
    pub async fn gossip(&self, bytes: &[u8]) {
        let published = async || match self.net.publish(bytes.to_vec()).await {
            Ok(()) => Some(()),
            Err(pedlar_net::PublishError::NoPeers | pedlar_net::PublishError::Busy) => None,
            Err(error) => panic!("{} bytes are not published: {error}", bytes.len()),
        };
        until("somebody listens to gossip", published).await;
    }

    async fn enter(world: &World, listen: Vec<Multiaddr>, kad_server: bool, protocols: &[&'static str]) -> Self {
        Self::enter_as(world, listen, kad_server, protocols, "stranger").await
    }

    async fn enter_as(
        world: &World,
        listen: Vec<Multiaddr>,
        kad_server: bool,
        protocols: &[&'static str],
        agent: &str,
    ) -> Self {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).expect("randomness");
        let key = SecretKey::try_from_bytes(&mut secret.clone()).expect("32 bytes are a key");
        let config = NetConfig {
            secret: secret.into(),
            network: world.network(),
            protocols: protocols.to_vec(),
            topic: "offers",
            listen,
            bootstrap: world.entrance().iter().map(|addr| addr.parse().expect("an address")).collect(),
            remembered: Vec::new(),
            external: Vec::new(),
            kad_server,
            tls: true,
            agent: agent.to_owned(),
            limits: Limits::default(),
        };
        let (net, events) = pedlar_net::spawn(config).await.expect("a swarm");
        Self { key: key.into(), net, events, network: world.network().parse().expect("a network") }
    }
}

/// The time, as our nodes count it.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    Timestamp::from_ms(since.as_millis() as u64)
}

/// A valid offer, but for its time.
pub fn offer(key: &Keypair, network: &Network, sequence: u64, issued: Timestamp, expires: Timestamp) -> SignedOffer {
    let price = Price::per_gib(10_000);
    let listing = Listing { service: Service::Chunks, price, ceiling: price, capacity_bytes_per_s: 0, titles: vec![] };
    let offer = Offer {
        network: network.clone(),
        seller: peer_id(key),
        sequence,
        issued,
        expires,
        addresses: vec!["/ip4/127.0.0.1/tcp/9".parse().expect("an address")],
        rails: [RailKind::Onchain].into(),
        terms: Terms::default(),
        listings: vec![listing],
    };
    SignedOffer::sign(key, offer).expect("a good offer")
}

/// An offer of a seller that nobody knows, for the next hour.
pub fn fresh_offer(network: &Network) -> SignedOffer {
    offer(&Keypair::generate(), network, 1, now(), now().saturating_add(std::time::Duration::from_secs(3_600)))
}

/// Writes one frame.
///
/// # Errors
/// When the other side has gone.
pub async fn send(stream: &mut Stream, kind: FrameKind, payload: &[u8]) -> std::io::Result<()> {
    let header = FrameHeader::new(kind, payload.len()).expect("a frame within bounds");
    stream.write_all(&[&header.to_bytes(), payload].concat()).await?;
    stream.flush().await
}

/// Writes one control frame of a session.
///
/// # Errors
/// When the other side has gone.
pub async fn say(stream: &mut Stream, frame: &Frame) -> std::io::Result<()> {
    send(stream, FrameKind::Control, &frame.encode()).await
}

/// Reads one frame; nothing when the other side has ended the stream.
pub async fn receive(stream: &mut Stream) -> Option<(FrameKind, Bytes)> {
    let frame = async {
        let mut header = [0; FrameHeader::LEN];
        stream.read_exact(&mut header).await.ok()?;
        let header = FrameHeader::parse(header).expect("our nodes send frames");
        let mut payload = vec![0; header.payload_len()];
        stream.read_exact(&mut payload).await.ok()?;
        Some((header.kind(), payload.into()))
    };
    tokio::time::timeout(PATIENCE, frame).await.expect("a frame or the end of the stream comes")
}

/// Reads one control frame of a session; nothing when the stream has ended.
pub async fn hear(stream: &mut Stream) -> Option<Frame> {
    let (kind, payload) = receive(stream).await?;
    assert_eq!(kind, FrameKind::Control, "a control frame is due");
    Some(Frame::decode(payload).expect("our nodes send valid frames"))
}

/// Waits until the other side has ended the stream, whatever it sends before.
pub async fn until_closed(stream: &mut Stream) {
    let closed = async {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the stream ends");
}

/// An object with its hash tree, in memory.
pub struct Object {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its length.
    pub size: Size,
    /// Its name.
    pub root: Root,
    outboard: Vec<u8>,
}

impl Object {
    /// The object of these bytes.
    pub fn new(data: Vec<u8>) -> Self {
        let size = Size::new(data.len() as u64).expect("a size");
        let mut builder = OutboardBuilder::new(size);
        builder.push(&data).expect("whole groups");
        let (root, outboard) = builder.finish().expect("all groups");
        Self { data, size, root, outboard }
    }

    /// What an honest seller sends for these groups.
    pub fn encode(&self, groups: Groups) -> Vec<u8> {
        let mut walk = Walk::new(self.root, self.size, groups).expect("groups of the object");
        let mut encoded = Vec::new();
        while let Some(item) = walk.peek() {
            let bytes = match item {
                Item::Parent { offset } => &self.outboard[offset as usize..][..PAIR_LEN],
                Item::Group { index, len } => &self.data[(index * GROUP_LEN) as usize..][..len],
            };
            walk.accept(bytes).expect("its own bytes");
            encoded.extend_from_slice(bytes);
        }
        encoded
    }
}
