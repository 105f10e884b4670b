//! Sellers that ask for money in advance, and cheat about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pedlar_net::{InboundStream, PeerId, Stream};
use pedlar_proto::v1::{self, account_reply, account_request};
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::money::Price;
use pedlar_protocol::offer::Service;
use pedlar_protocol::session::quote::{Quote, SignedQuote};
use pedlar_protocol::session::{Frame, Request};
use pedlar_protocol::settlement::{SignedTopUp, TopUp};
use pedlar_protocol::wire::FrameKind;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{ACCOUNT, CHUNKS, Object, Stranger, hear, now, receive, send, until_closed};
use crate::cluster::World;

/// What it asks: less than any honest seller of a story.
const PRICE: Price = Price::per_gib(1_000_000);

/// Where it is paid: nobody's address.
const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// How long it keeps a buyer waiting for an address, less than a buyer waits.
const SLOW: Duration = Duration::from_secs(8);

/// What it does with who would pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Says where to pay, and then that nothing came.
    Denies,
    /// The same, but says where to pay only when the buyer has gone, or has waited for long.
    DeniesSlowly,
    /// Never says where to pay.
    Refuses,
    /// Takes no less than a fortune.
    WantsAFortune,
}

impl Manner {
    const fn min_topup_sat(self) -> u64 {
        match self {
            Self::Denies | Self::DeniesSlowly | Self::Refuses => 1_000,
            Self::WantsAFortune => 50_000_000,
        }
    }
}

/// What it was asked.
#[derive(Debug, Default)]
struct Deeds {
    denied: AtomicU64,
    asked: AtomicU64,
    left: AtomicU64,
    given: AtomicU64,
}

/// Such a seller, until it is dropped.
pub struct Cashier {
    /// Its id.
    pub id: PeerId,
    /// Where it listens, its id included.
    pub addr: String,
    deeds: Arc<Deeds>,
    task: JoinHandle<()>,
}

impl Cashier {
    /// A seller of this object.
    pub async fn open(world: &World, object: &Object, manner: Manner) -> Self {
        let stranger = Stranger::listening(world).await;
        stranger.net.provide(*object.root.as_bytes()).await.expect("a provider");
        let (id, deeds) = (stranger.id(), Arc::new(Deeds::default()));
        let addr = format!("{}/p2p/{id}", stranger.net.listen_addrs().first().expect("it listens"));
        let till = Till { root: *object.root.as_bytes(), size: object.size.bytes(), manner, deeds: Arc::clone(&deeds) };
        let task = tokio::spawn(serve(stranger, Arc::new(till)));
        Self { id, addr, deeds, task }
    }

    /// How often it said that it has nothing.
    pub fn denied(&self) -> u64 {
        self.deeds.denied.load(Ordering::SeqCst)
    }

    /// How often it was asked where to pay.
    pub fn asked(&self) -> u64 {
        self.deeds.asked.load(Ordering::SeqCst)
    }

    /// How many did not wait for the answer.
    pub fn left(&self) -> u64 {
        self.deeds.left.load(Ordering::SeqCst)
    }

    /// How often it said where to pay.
    pub fn given(&self) -> u64 {
        self.deeds.given.load(Ordering::SeqCst)
    }
}

impl Drop for Cashier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Till {
    root: [u8; 32],
    size: u64,
    manner: Manner,
    deeds: Arc<Deeds>,
}

async fn serve(mut stranger: Stranger, till: Arc<Till>) {
    let mut number = now().ms();
    while let Some(InboundStream { peer, protocol, mut stream }) = stranger.events.streams.recv().await {
        number += 1;
        let quote = Quote {
            network: stranger.network.clone(),
            buyer: peer,
            seller: stranger.id(),
            number,
            offer_seq: 0,
            service: Service::Chunks,
            object: till.root,
            collection: None,
            whole: None,
            size: till.size,
            price: PRICE,
            expires: now().saturating_add(Duration::from_secs(3600)),
        };
        let topup = TopUp {
            id: TopUpId([0; 32]),
            network: stranger.network.clone(),
            buyer: peer,
            seller: stranger.id(),
            address: ADDRESS.into(),
            min_sat: till.manner.min_topup_sat(),
            ceilings: [(Service::Chunks, PRICE)].into(),
            until_height: u64::MAX >> 1,
        };
        let (till, key) = (Arc::clone(&till), stranger.key.clone());
        tokio::spawn(async move {
            // Buyers leave when they like.
            let _ = match protocol {
                CHUNKS => quote_only(&SignedQuote::sign(quote, &key), &mut stream).await,
                ACCOUNT => till.account(topup, &key, &mut stream).await,
                other => panic!("a stream of {other}"),
            };
        });
    }
}

async fn quote_only(quote: &SignedQuote, stream: &mut Stream) -> std::io::Result<()> {
    let Some(Frame::Open(Request::Chunks(_))) = hear(stream).await else { return Ok(()) };
    super::say(stream, &Frame::Quote(quote.signed().clone())).await?;
    until_closed(stream).await;
    Ok(())
}

impl Till {
    async fn account(
        &self,
        topup: TopUp,
        key: &libp2p_identity::ed25519::Keypair,
        stream: &mut Stream,
    ) -> std::io::Result<()> {
        let Some((_, payload)) = receive(stream).await else { return Ok(()) };
        let request = v1::AccountRequest::decode(payload).expect("a request").request.expect("one that we know");
        let reply = match request {
            account_request::Request::Topup(request) => {
                self.deeds.asked.fetch_add(1, Ordering::SeqCst);
                if self.manner == Manner::Refuses {
                    return stream.shutdown().await;
                }
                if self.manner == Manner::DeniesSlowly && timeout(SLOW, until_closed(stream)).await.is_ok() {
                    self.deeds.left.fetch_add(1, Ordering::SeqCst);
                }
                let id = TopUpId::try_from(request.id.as_ref()).expect("an id");
                let signed = SignedTopUp::sign(TopUp { id, ..topup }, key);
                self.deeds.given.fetch_add(1, Ordering::SeqCst);
                account_reply::Reply::Topup(signed.signed().to_wire())
            }
            account_request::Request::Recall(_) | account_request::Request::Reminder(_) => {
                return stream.shutdown().await;
            }
            account_request::Request::Sync(_) => {
                self.deeds.denied.fetch_add(1, Ordering::SeqCst);
                account_reply::Reply::Sync(v1::SyncReply {
                    min_topup_sat: self.manner.min_topup_sat(),
                    ..v1::SyncReply::default()
                })
            }
        };
        let reply = v1::AccountReply { reply: Some(reply) };
        send(stream, FrameKind::Control, &reply.encode_to_vec()).await?;
        stream.shutdown().await
    }
}
