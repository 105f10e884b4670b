//! Flipped bits: each is found before the group that it belongs to is written, and before it is paid for.

use std::fs;
use std::ops::Range;
use std::thread;

use bytes::Bytes;
use pedlar_protocol::content::{GROUP_LEN, Groups, Item, Kind, Link, Verifier, Walk};
use pedlar_protocol::money::Price;
use pedlar_tests::cluster::path;
use pedlar_tests::dice::{Dice, rounds};
use pedlar_tests::hostile::{HostileSeller, Lie, Object};

use crate::world;

#[test]
fn every_flipped_bit_of_a_small_object_is_found_before_its_group_comes_out() {
    let object = Object::new(Dice::of(3).garbage(2 * GROUP_LEN as usize + 5));
    let response = Response::of(&object, object.size.groups());
    let (bits, threads) = (response.encoded.len() * 8, 2);
    let flip_share = |share: Range<usize>| share.filter(|bit| response.is_found(*bit)).count();
    let found: usize = thread::scope(|scope| {
        let half = |n: usize| n * bits / threads..(n + 1) * bits / threads;
        let halves: Vec<_> = (0..threads).map(|n| scope.spawn(move || flip_share(half(n)))).collect();
        halves.into_iter().map(|half| half.join().expect("each is found in time")).sum()
    });
    println!("faults fired: {bits} bits flipped, {found} found");
    assert_eq!(found, bits);
}

#[test]
fn any_flipped_bit_of_a_larger_object_is_found_before_its_group_comes_out() {
    flip_at_random(1_000);
}

/// The long run: `cargo test -p pedlar-tests -- --ignored a_million_flipped_bits --nocapture`.
#[test]
#[ignore = "takes half an hour"]
fn a_million_flipped_bits() {
    flip_at_random(rounds(1_000_000));
}

fn flip_at_random(flips: u64) {
    let mut dice = Dice::new();
    let object = Object::new(dice.garbage((1 << 20) + 5));
    let count = object.size.group_count();
    let found = (0..flips).filter(|_| {
        let start = dice.below(count);
        let end = start + 1 + dice.below((count - start).min(16));
        let response = Response::of(&object, Groups::new(start, end).expect("a range"));
        response.is_found(dice.below(response.encoded.len() as u64 * 8) as usize)
    });
    let found = found.count() as u64;
    println!("faults fired: {flips} bits flipped, {found} found");
    assert_eq!(found, flips);
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_flipped_on_a_stream_are_neither_written_nor_paid() {
    const FLIPS: u64 = 16;
    const SIZE: u64 = 256 * 1024 + 7;
    let world = world().await;
    let buyer = world.node("buyer").await;
    let mut dice = Dice::new();
    let mut found = 0;
    for flip in 0..FLIPS {
        let film = world.file(&format!("film-{flip}"), SIZE);
        let lie = [Lie::FlippedBit, Lie::FlippedProof][flip as usize % 2];
        let object = Object::new(fs::read(&film).unwrap());
        let link = Link::new(Kind::File, object.root);
        let liar = HostileSeller::open(&world, object, lie, &mut dice).await;
        let link = format!("{link}?addr={}", liar.addr);
        let dest = world.path(&format!("bought-{flip}"));
        let error = buyer.refuses(&["get", &link, "-o", path(&dest)], 15).await;
        assert_eq!(error["code"], "integrity", "{error}");
        assert_eq!(liar.lies(), 1, "it was told once, and then no more was asked for");
        found += 1;

        assert!(liar.signed() <= liar.honest_bytes, "signed for {} of {}", liar.signed(), liar.honest_bytes);
        let spent = buyer.tab(&liar.id.to_string(), "bought").await.spent;
        let most = Price::per_gib(1_000).charge(liar.honest_bytes).unwrap().msat();
        assert!(spent <= most, "{spent} msat are owed for {} bytes", liar.honest_bytes);
        // Each group of the partial file is the film's, or is not there.
        let (part, film) = (fs::read(world.path(&format!("bought-{flip}.pedlar-part"))), fs::read(&film).unwrap());
        for (written, right) in part.unwrap().chunks(GROUP_LEN as usize).zip(film.chunks(GROUP_LEN as usize)) {
            assert!(
                written == right || written.iter().all(|byte| *byte == 0),
                "a group is written that is not the film's"
            );
        }
        assert!(!dest.exists());
    }
    println!("faults fired: {FLIPS} bits flipped, {found} found, none written or paid");
}

/// What a seller sends for a range, and where its groups end in it.
struct Response<'a> {
    object: &'a Object,
    groups: Groups,
    encoded: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a> Response<'a> {
    fn of(object: &'a Object, groups: Groups) -> Self {
        let encoded = object.encode(groups);
        let mut walk = Walk::new(object.root, object.size, groups).expect("groups of the object");
        let (mut at, mut ends) = (0, Vec::new());
        while let Some(item) = walk.peek() {
            walk.accept(&encoded[at..at + item.len()]).expect("its own bytes");
            at += item.len();
            if let Item::Group { .. } = item {
                ends.push(at);
            }
        }
        Self { object, groups, encoded, ends }
    }

    /// Whether the flip is found, with no group coming out but those that ended before it.
    fn is_found(&self, bit: usize) -> bool {
        let mut flipped = self.encoded.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let whole = self.ends.iter().filter(|end| **end <= bit / 8).count();
        let mut verifier =
            Verifier::new(self.object.root, self.object.size, self.groups).expect("groups of the object");
        let (mut input, mut came) = (Bytes::from(flipped), 0);
        loop {
            match verifier.next(&mut input) {
                Ok(Some(verified)) => came += usize::from(matches!(verified.item(), Item::Group { .. })),
                Ok(None) => return false,
                Err(_) => {
                    assert!(came <= whole, "{came} groups came out, the bit is in the {whole}. or before");
                    return true;
                }
            }
        }
    }
}
