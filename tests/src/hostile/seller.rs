//! A seller that is cheap, gives credit to everybody, and lies at one place of its object.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pedlar_net::{InboundStream, NetHandle, PeerId, Stream};
use pedlar_proto::v1::{self, account_reply, account_request};
use pedlar_protocol::content::{GROUP_LEN, Groups, PAIR_LEN, Size, Whole};
use pedlar_protocol::money::Price;
use pedlar_protocol::offer::Service;
use pedlar_protocol::session::quote::{Quote, SignedQuote, SignedReceipt};
use pedlar_protocol::session::{CloseCode, Frame, Request};
use pedlar_protocol::wire::{FrameKind, Signed};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use super::{ACCOUNT, CHUNKS, Object, Stranger, hear, now, receive, say, send};
use crate::cluster::World;
use crate::dice::Dice;

/// Below any honest seller of a story, and not free: what is not owed can then be told from what costs nothing.
const PRICE: Price = Price::per_gib(1_000);

/// Bytes of a frame: a quarter of the most, so that a lie is often not in the first.
const PIECE: usize = 64 << 10;

/// What a hostile seller does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// One bit of the range is another one.
    FlippedBit,
    /// One bit of the range's proof is another one.
    FlippedProof,
    /// The stream ends in the middle of the range.
    Truncated,
    /// The range is noise.
    Garbage,
    /// More comes than the range has.
    Surplus,
    /// Another range is served than the one that was wanted.
    OtherRange,
    /// The object is said to be longer, from the quote on.
    Larger,
    /// The object is said to be shorter, from the quote on.
    Smaller,
    /// The object is said to have no end that a disk could hold.
    Endless,
    /// Nothing: the object itself is the lie.
    Nothing,
}

impl Lie {
    /// Every lie about an honest object.
    pub const ALL: [Self; 9] = [
        Self::FlippedBit,
        Self::FlippedProof,
        Self::Truncated,
        Self::Garbage,
        Self::Surplus,
        Self::OtherRange,
        Self::Larger,
        Self::Smaller,
        Self::Endless,
    ];

    /// Whether the lie is in the quote, and so in each range.
    const fn is_about_size(self) -> bool {
        matches!(self, Self::Larger | Self::Smaller | Self::Endless)
    }

    /// What the seller says of the object's length.
    const fn claim(self, bytes: u64) -> u64 {
        match self {
            Self::Larger => bytes + (1 << 20) + 1,
            Self::Smaller => bytes / 2 + 1,
            Self::Endless => pedlar_protocol::content::MAX_SIZE,
            _ => bytes,
        }
    }
}

/// What the seller has seen of its own lies.
#[derive(Debug, Default)]
struct Deeds {
    lies: AtomicU64,
    signed: AtomicU64,
    left_with: Mutex<Option<CloseCode>>,
}

/// A lying seller, until it is dropped.
pub struct HostileSeller {
    /// Its id.
    pub id: PeerId,
    /// Where it listens, its id included.
    pub addr: String,
    /// Bytes that it delivers as it should at most: nobody may sign for more.
    pub honest_bytes: u64,
    deeds: Arc<Deeds>,
    task: JoinHandle<()>,
    _net: NetHandle,
}

impl HostileSeller {
    /// A seller of this object that tells `lie` at a place that the dice choose; it is a provider when this returns.
    pub async fn open(world: &World, object: Object, lie: Lie, dice: &mut Dice) -> Self {
        Self::open_with(world, object, lie, None, dice).await
    }

    /// A seller of a folder with this manifest, whatever it says; the files themselves it does not have.
    pub async fn of_folder(world: &World, manifest: Vec<u8>, dice: &mut Dice) -> Self {
        let whole = Some(Whole { bytes: manifest.len() as u64, objects: 1 });
        Self::open_with(world, Object::new(manifest), Lie::Nothing, whole, dice).await
    }

    async fn open_with(world: &World, object: Object, lie: Lie, whole: Option<Whole>, dice: &mut Dice) -> Self {
        let stranger = Stranger::listening(world).await;
        stranger.net.provide(*object.root.as_bytes()).await.expect("a provider");
        let lies_at = match lie {
            Lie::Nothing => object.size.bytes(),
            _ => dice.below(object.size.bytes()),
        };
        let honest_bytes = match lie {
            Lie::Surplus | Lie::Nothing => object.size.bytes(),
            _ if lie.is_about_size() => 0,
            _ => before(object.size, lies_at),
        };
        let (id, net, deeds) = (stranger.id(), stranger.net.clone(), Arc::new(Deeds::default()));
        let addr = format!("{}/p2p/{id}", net.listen_addrs().first().expect("it listens"));
        let shop =
            Arc::new(Shop { object, lie, lies_at, whole, deeds: Arc::clone(&deeds), dice: Mutex::new(dice.split()) });
        let task = tokio::spawn(serve(stranger, shop));
        Self { id, addr, honest_bytes, deeds, task, _net: net }
    }

    /// How often the lie was told.
    pub fn lies(&self) -> u64 {
        self.deeds.lies.load(Ordering::SeqCst)
    }

    /// The most bytes that a buyer signed for in one session.
    pub fn signed(&self) -> u64 {
        self.deeds.signed.load(Ordering::SeqCst)
    }

    /// What a buyer gave last as its reason for going, where it gave one.
    pub fn left_with(&self) -> Option<CloseCode> {
        *self.deeds.left_with.lock().expect("no panic")
    }
}

impl Drop for HostileSeller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bytes that come before the group of byte `at`: whole groups, and the last one, which is wanted first.
const fn before(size: Size, at: u64) -> u64 {
    let last = size.bytes() - (size.bytes() - 1) % GROUP_LEN - 1;
    if at >= last { 0 } else { at - at % GROUP_LEN + size.bytes() - last }
}

struct Shop {
    object: Object,
    lie: Lie,
    lies_at: u64,
    whole: Option<Whole>,
    deeds: Arc<Deeds>,
    dice: Mutex<Dice>,
}

async fn serve(mut stranger: Stranger, shop: Arc<Shop>) {
    let (key, network) = (stranger.key.clone(), stranger.network.clone());
    while let Some(InboundStream { peer, protocol, mut stream }) = stranger.events.streams.recv().await {
        let (shop, key, network) = (Arc::clone(&shop), key.clone(), network.clone());
        tokio::spawn(async move {
            let quote = |number| Quote {
                network,
                buyer: peer,
                seller: pedlar_protocol::wire::peer_id(&key),
                number,
                offer_seq: 0,
                service: Service::Chunks,
                object: *shop.object.root.as_bytes(),
                collection: None,
                whole: shop.whole,
                size: shop.lie.claim(shop.object.size.bytes()),
                price: PRICE,
                expires: now().saturating_add(Duration::from_secs(3600)),
            };
            // The buyer leaves in the middle of most of these; what it signed for was noted before.
            let _ = match protocol {
                CHUNKS => shop.deal(peer, SignedQuote::sign(quote(now().ms()), &key), &mut stream).await,
                ACCOUNT => shop.account(peer, &mut stream).await,
                other => panic!("a stream of {other}"),
            };
        });
    }
}

impl Shop {
    async fn deal(&self, buyer: PeerId, quote: SignedQuote, stream: &mut Stream) -> std::io::Result<()> {
        let Some(Frame::Open(Request::Chunks(_))) = hear(stream).await else { return Ok(()) };
        say(stream, &Frame::Quote(quote.signed().clone())).await?;
        loop {
            match hear(stream).await {
                Some(Frame::Want(want)) => {
                    self.note(buyer, want.receipt);
                    self.deliver(want.groups, stream).await?;
                }
                Some(Frame::Close { receipt, code }) => {
                    *self.deeds.left_with.lock().expect("no panic") = Some(code);
                    self.note(buyer, receipt);
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    async fn deliver(&self, wanted: Groups, stream: &mut Stream) -> std::io::Result<()> {
        let count = self.object.size.group_count();
        let served = Groups::new(wanted.start(), wanted.end().min(count)).unwrap_or(self.object.size.groups());
        let mut bytes = self.object.encode(served);
        let offset = self.lies_at.wrapping_sub(served.offset()) as usize;
        let lies = self.lie.is_about_size() || offset < self.object.size.bytes_in(served) as usize;
        let mut said = wanted;
        if lies {
            self.deeds.lies.fetch_add(1, Ordering::SeqCst);
            match self.lie {
                Lie::FlippedBit => bytes[offset] ^= 1 << (self.lies_at % 8),
                Lie::FlippedProof => bytes[self.lies_at as usize % PAIR_LEN] ^= 1 << (self.lies_at % 8),
                Lie::Truncated => bytes.truncate(offset),
                Lie::Garbage => bytes = self.dice.lock().expect("no panic").garbage(bytes.len()),
                Lie::Surplus => bytes.extend_from_slice(b"surplus"),
                Lie::OtherRange => said = Groups::new(wanted.start() + 1, wanted.end() + 1).expect("a range"),
                Lie::Larger | Lie::Smaller | Lie::Endless | Lie::Nothing => {}
            }
        }
        say(stream, &Frame::Serving(said)).await?;
        for piece in bytes.chunks(PIECE) {
            send(stream, FrameKind::Data, piece).await?;
        }
        if lies && self.lie == Lie::Truncated {
            stream.shutdown().await?;
        }
        Ok(())
    }

    fn note(&self, buyer: PeerId, receipt: Option<Signed>) {
        if let Some(receipt) = receipt {
            let receipt = SignedReceipt::parse(receipt, &buyer).expect("a receipt of the buyer");
            self.deeds.signed.fetch_max(receipt.units(), Ordering::SeqCst);
        }
    }

    /// Whatever is asked: the buyer has all the credit in the world, and what it signed for is acknowledged.
    async fn account(&self, buyer: PeerId, stream: &mut Stream) -> std::io::Result<()> {
        let Some((_, payload)) = receive(stream).await else { return Ok(()) };
        let request = v1::AccountRequest::decode(payload).expect("a request").request;
        let Some(account_request::Request::Sync(sync)) = request else { return Ok(()) };
        let receipts = sync.receipts.into_iter().map(|receipt| Signed::from_wire(receipt).expect("an envelope"));
        let receipts = receipts.map(|receipt| SignedReceipt::parse(receipt, &buyer).expect("a receipt"));
        let lines = receipts
            .map(|receipt| v1::Acknowledged { quote_id: receipt.quote_id().0.to_vec().into(), units: receipt.units() });
        let reply = v1::SyncReply {
            lines: lines.collect(),
            allowance_msat: 1 << 50,
            min_topup_sat: 1_000,
            ..v1::SyncReply::default()
        };
        let reply = v1::AccountReply { reply: Some(account_reply::Reply::Sync(reply)) };
        send(stream, FrameKind::Control, &reply.encode_to_vec()).await?;
        stream.shutdown().await
    }
}
