//! A buyer that takes what it can and signs for as little as it can.

use bytes::Bytes;
use pedlar_net::{Multiaddr, PeerId, Stream};
use pedlar_proto::v1::{self, account_reply, account_request};
use pedlar_protocol::account::Reminder;
use pedlar_protocol::content::{Groups, Root, Size, Verifier};
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::quote::{SignedQuote, SignedReceipt};
use pedlar_protocol::session::{BuyerSession, CloseCode, Frame, MAX_WINDOW, Request, Want};
use pedlar_protocol::settlement::SignedTopUp;
use pedlar_protocol::wire::{FrameKind, Signed};
use prost::Message;

use super::{ACCOUNT, CHUNKS, Stranger, hear, receive, say, send};
use crate::cluster::{Peer, World, until};

/// A buyer by hand, with its account at one seller.
pub struct Freeloader {
    stranger: Stranger,
    seller: PeerId,
    addrs: Vec<Multiaddr>,
}

/// What one session brought.
#[derive(Debug)]
pub struct Grab {
    /// Bytes that came and verified.
    pub bytes: u64,
    /// Of these, what was signed for.
    pub signed: u64,
    /// Why it brought no more, where the seller said so.
    pub refused: Option<Refusal>,
}

impl Freeloader {
    /// A buyer that the seller has never seen.
    pub async fn new(world: &World, seller: &Peer, addrs: Vec<Multiaddr>) -> Self {
        let stranger = Stranger::lurking(world).await;
        Self { stranger, seller: seller.id.parse().expect("a peer id"), addrs }
    }

    /// The same, and it speaks offers-sync as well.
    pub async fn syncing(world: &World, seller: &Peer, addrs: Vec<Multiaddr>) -> Self {
        let stranger = Stranger::syncing(world).await;
        Self { stranger, seller: seller.id.parse().expect("a peer id"), addrs }
    }

    /// Its id.
    pub fn id(&self) -> PeerId {
        self.stranger.id()
    }

    /// Pays the seller from the chain's own purse, and waits until the seller says that it counts; the seller's word.
    pub async fn top_up(&self, world: &World, sat: u64) -> SignedTopUp {
        let before = self.books().await.paid_msat;
        let mut id = vec![0; 32];
        getrandom::fill(&mut id).expect("randomness");
        let request = v1::TopUpRequest { id: id.into(), amount_sat: sat };
        let reply = self.exchange(account_request::Request::Topup(request)).await;
        let account_reply::Reply::Topup(signed) = reply else { panic!("no word of the seller: {reply:?}") };
        let topup = SignedTopUp::parse(Signed::from_wire(signed).expect("an envelope")).expect("a top-up");
        world.pay(&topup.topup().address, sat);
        let counted = async || (self.books().await.paid_msat == before + sat * 1_000).then_some(());
        until("the seller counts the advance", counted).await;
        topup
    }

    /// Reminds the seller of these papers; how its books stand then, or why it does not take them.
    pub async fn remind(
        &self,
        lines: &[(SignedQuote, SignedReceipt)],
        topups: &[SignedTopUp],
    ) -> Result<v1::SyncReply, Refusal> {
        let page = Reminder { lines: lines.to_vec(), topups: topups.to_vec(), ..Reminder::default() };
        match self.exchange(account_request::Request::Reminder(page.to_wire())).await {
            account_reply::Reply::Sync(reply) => Ok(reply),
            account_reply::Reply::Refused(refused) => Err(Refusal::from_wire(&refused)),
            other => panic!("no books: {other:?}"),
        }
    }

    /// How the seller's books stand.
    pub async fn books(&self) -> v1::SyncReply {
        match self.exchange(account_request::Request::Sync(v1::Sync::default())).await {
            account_reply::Reply::Sync(reply) => reply,
            other => panic!("no books: {other:?}"),
        }
    }

    /// Wants these ranges one after the other, signs for the first `signed_ranges` of them, and goes without a word.
    pub async fn grab(&self, root: Root, ranges: &[Groups], signed_ranges: usize) -> Grab {
        let (mut stream, quote) = self.open(root).await;
        let size = Size::new(quote.quote().size).expect("a size");
        let mut grab = Grab { bytes: 0, signed: 0, refused: None };
        for (place, groups) in ranges.iter().enumerate() {
            let receipt = (place > 0 && place <= signed_ranges).then(|| {
                grab.signed = grab.bytes;
                SignedReceipt::sign(quote.id(), grab.bytes, &self.stranger.key).signed().clone()
            });
            if say(&mut stream, &Frame::Want(Want { groups: *groups, receipt })).await.is_err() {
                break;
            }
            match take(&mut stream, root, size).await {
                Ok(bytes) => grab.bytes += bytes,
                Err(refused) => {
                    grab.refused = refused;
                    break;
                }
            }
        }
        grab
    }

    /// Opens a session, takes one range, and says a proper goodbye with a receipt for all of it.
    pub async fn buy(&self, root: Root, groups: Groups) -> u64 {
        self.buy_for(root, groups).await.1.units()
    }

    /// The same, and keeps the papers.
    pub async fn buy_for(&self, root: Root, groups: Groups) -> (SignedQuote, SignedReceipt) {
        let (mut stream, quote) = self.open(root).await;
        let size = Size::new(quote.quote().size).expect("a size");
        say(&mut stream, &Frame::Want(Want { groups, receipt: None })).await.expect("the seller listens");
        let bytes = take(&mut stream, root, size).await.expect("what was paid for comes");
        let receipt = self.sign(&quote, bytes);
        let close = Frame::Close { code: CloseCode::Done, receipt: Some(receipt.signed().clone()) };
        say(&mut stream, &close).await.expect("the seller listens");
        super::until_closed(&mut stream).await;
        (quote, receipt)
    }

    /// A receipt for so many bytes.
    pub fn sign(&self, quote: &SignedQuote, bytes: u64) -> SignedReceipt {
        SignedReceipt::sign(quote.id(), bytes, &self.stranger.key)
    }

    /// Buys a whole object as an honest buyer does: two Wants on their way, each with a receipt for all before it.
    ///
    /// What comes is verified and forgotten. Its bytes.
    pub async fn fetch(&self, root: Root) -> u64 {
        let (mut stream, quote) = self.open(root).await;
        let size = Size::new(quote.quote().size).expect("a size");
        let mut session = BuyerSession::new(size, quote.quote().price, None, MAX_WINDOW);
        let mut have = vec![false; size.group_count() as usize];
        let mut receipt = None;
        loop {
            while let Some(groups) = session.poll_want(|from| missing(&have, from)) {
                let want = Frame::Want(Want { groups, receipt: receipt.take() });
                say(&mut stream, &want).await.expect("the seller listens");
            }
            if session.is_idle() {
                break;
            }
            let groups = match hear(&mut stream).await {
                Some(Frame::Serving(groups)) => groups,
                other => panic!("not served: {other:?}"),
            };
            session.handle_serving(groups).expect("what was wanted");
            verified(&mut stream, root, size, groups).await.expect("what was paid for comes");
            groups.indices().for_each(|group| have[group as usize] = true);
            session.handle_verified(size.bytes_in(groups));
            session.handle_served();
            receipt = Some(SignedReceipt::sign(quote.id(), session.verified(), &self.stranger.key).signed().clone());
        }
        say(&mut stream, &Frame::Close { code: CloseCode::Done, receipt }).await.expect("the seller listens");
        super::until_closed(&mut stream).await;
        session.verified()
    }

    /// A fresh stream of a protocol to the seller.
    pub async fn stream(&self, protocol: &'static str) -> Stream {
        self.stranger.net.open(self.seller, self.addrs.clone(), protocol).await.expect("a stream")
    }

    async fn open(&self, root: Root) -> (Stream, SignedQuote) {
        let mut stream = self.stream(CHUNKS).await;
        say(&mut stream, &Frame::Open(Request::Chunks(root))).await.expect("the seller listens");
        match hear(&mut stream).await {
            Some(Frame::Quote(signed)) => (stream, SignedQuote::parse(signed).expect("a quote")),
            other => panic!("no quote: {other:?}"),
        }
    }

    async fn exchange(&self, request: account_request::Request) -> account_reply::Reply {
        let mut stream = self.stream(ACCOUNT).await;
        let request = v1::AccountRequest { request: Some(request) };
        send(&mut stream, FrameKind::Control, &request.encode_to_vec()).await.expect("the seller listens");
        let (_, payload) = receive(&mut stream).await.expect("an answer");
        v1::AccountReply::decode(payload).expect("a reply").reply.expect("a known reply")
    }
}

/// The first run of groups at or after `from` that are not there.
fn missing(have: &[bool], from: u64) -> Option<Groups> {
    let mut absent = (from..have.len() as u64).skip_while(|group| have[*group as usize]);
    let start = absent.next()?;
    let end = absent.find(|group| have[*group as usize]).unwrap_or(have.len() as u64);
    Groups::new(start, end)
}

/// Takes what is served of one Want and verifies it; its bytes, or why nothing came.
async fn take(stream: &mut Stream, root: Root, size: Size) -> Result<u64, Option<Refusal>> {
    let groups = match hear(stream).await {
        Some(Frame::Serving(groups)) => groups,
        Some(Frame::Refused(refusal)) => return Err(Some(refusal)),
        Some(other) => panic!("out of order: {other:?}"),
        None => return Err(None),
    };
    verified(stream, root, size, groups).await
}

/// Verifies what comes of a range that is being served; its bytes.
async fn verified(stream: &mut Stream, root: Root, size: Size, groups: Groups) -> Result<u64, Option<Refusal>> {
    let mut verifier = Verifier::new(root, size, groups).expect("groups of the object");
    while !verifier.is_complete() {
        let Some((FrameKind::Data, mut piece)) = receive(stream).await else { return Err(None) };
        while verifier.next(&mut piece).expect("an honest seller").is_some() {}
        assert_eq!(piece, Bytes::new(), "nothing comes beyond the range");
    }
    Ok(size.bytes_in(groups))
}
