//! Frames that are none: their stream ends, and nobody else notices.

use std::fs;
use std::time::{Duration, Instant};

use pedlar_protocol::content::{Groups, Root};
use pedlar_protocol::id::QuoteId;
use pedlar_protocol::refusal::Refusal;
use pedlar_protocol::session::quote::SignedReceipt;
use pedlar_protocol::session::{CloseCode, Frame, Request, Want};
use pedlar_protocol::wire::{FrameHeader, FrameKind};
use pedlar_tests::cluster::path;
use pedlar_tests::dice::Dice;
use pedlar_tests::hostile::{ACCOUNT, CHUNKS, Freeloader, Object, say, until_closed};
use tokio::io::AsyncWriteExt;

use crate::{MIB, SMALL_WINDOWS, world};

/// Attacks while one purchase goes on.
const ATTACKS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_stream_and_an_honest_purchase_goes_on() {
    let world = world().await;
    let seller = world.node_with("seller", SMALL_WINDOWS).await;
    let buyer = world.node_with("buyer", SMALL_WINDOWS).await;
    let film = world.file("film", 16 * MIB);
    let link = seller.publish(&film, "0sat/GiB").await;
    let dest = world.path("bought.bin");
    let mut dice = Dice::new();
    let attacker = Freeloader::new(&world, &seller, seller.addrs()).await;
    let attack = async |protocol, bytes: Vec<u8>| {
        let mut stream = attacker.stream(protocol).await;
        // The node may end the stream before it has read all of it.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let sent = Instant::now();
        until_closed(&mut stream).await;
        sent.elapsed()
    };

    let mut get = buyer.begin(&["get", &link, "-o", path(&dest)]);
    get.reaches("progress").await;
    let mut slowest = Duration::ZERO;
    for number in 0..ATTACKS {
        let protocol = if number % 2 == 0 { CHUNKS } else { ACCOUNT };
        slowest = slowest.max(attack(protocol, bad_bytes(number, &mut dice)).await);
    }
    get.succeeds().await;
    assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
    println!("faults fired: {ATTACKS}; the last bad stream of a peer was cut after {slowest:.2?}");
    assert!(slowest < Duration::from_secs(10), "a bad stream was kept for {slowest:?}");
    seller.ask(&["status"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_frames_in_a_bad_order_are_refused_as_malformed() {
    let world = world().await;
    let seller = world.node("seller").await;
    let film = world.file("film", MIB);
    seller.publish(&film, "0sat/GiB").await;
    let root = Object::new(fs::read(&film).unwrap()).root;
    let stranger = Freeloader::new(&world, &seller, seller.addrs()).await;
    let key = libp2p_identity::ed25519::Keypair::generate();

    let open = || Frame::Open(Request::Chunks(root));
    let want = |start, end| Frame::Want(Want { groups: Groups::new(start, end).unwrap(), receipt: None });
    let forged = SignedReceipt::sign(QuoteId([3; 32]), 1, &key).signed().clone();
    let signed = Want { groups: Groups::new(0, 4).unwrap(), receipt: Some(forged) };
    let cases: [(&str, Vec<Frame>); 6] = [
        ("a want before the quote", vec![want(0, 4)]),
        ("a goodbye before the quote", vec![Frame::Close { code: CloseCode::Done, receipt: None }]),
        ("a second opening", vec![open(), open()]),
        ("a range beyond the object", vec![open(), want(0, 65)]),
        ("more than may be unsigned", vec![open(), want(0, 4), want(4, 8), want(8, 12)]),
        ("a receipt of somebody else", vec![open(), Frame::Want(signed)]),
    ];
    for (what, frames) in cases {
        let mut stream = stranger.stream(CHUNKS).await;
        for frame in &frames {
            let _ = say(&mut stream, frame).await;
        }
        assert_eq!(refusal(&mut stream).await, Refusal::Malformed, "{what}");
        until_closed(&mut stream).await;
    }
    let mut stream = stranger.stream(CHUNKS).await;
    say(&mut stream, &Frame::Open(Request::Chunks(Root::of(b"not here")))).await.unwrap();
    assert_eq!(refusal(&mut stream).await, Refusal::NotFound);
}

/// The refusal that ends the session, after whatever was served.
async fn refusal(stream: &mut pedlar_net::Stream) -> Refusal {
    loop {
        match pedlar_tests::hostile::receive(stream).await.expect("a refusal before the end") {
            (FrameKind::Data, _) => {}
            (FrameKind::Control, payload) => {
                if let Frame::Refused(refusal) = Frame::decode(payload).unwrap() {
                    return refusal;
                }
            }
        }
    }
}

/// Bytes that are no message, each in another way.
fn bad_bytes(number: usize, dice: &mut Dice) -> Vec<u8> {
    let len = 1 + dice.below(2_000) as usize;
    let framed =
        |kind, payload: &[u8]| [FrameHeader::new(kind, payload.len()).unwrap().to_bytes().as_slice(), payload].concat();
    let garbage = dice.garbage(len);
    match number / 2 % 6 {
        0 => garbage,
        1 => framed(FrameKind::Control, &garbage),
        2 => framed(FrameKind::Data, &garbage),
        // A frame that breaks off, and a header that does.
        3 => framed(FrameKind::Control, &garbage)[..3 + len / 2].to_vec(),
        4 => vec![0, 0],
        // As long as the header can say, and far above what a control frame may have.
        _ => vec![0, 0xff, 0xff, 0xff],
    }
}
