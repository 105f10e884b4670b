//! Round trips and refusals of every shape of tree, beside `bao-tree`'s own encoder as the reference.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Lengths round the edges of chunks, groups and powers of two of groups, in bytes.
const EDGES: [usize; 22] = [
    0, 1, 1023, 1024, 1025, 2048, 16_383, 16_384, 16_385, 17_408, 32_767, 32_768, 32_769, 49_152, 65_535, 65_536,
    65_537, 81_920, 131_073, 1_048_575, 1_048_576, 1_048_577,
];

struct Object {
    data: Vec<u8>,
    size: Size,
    root: Root,
    outboard: Vec<u8>,
}

impl Object {
    fn new(len: usize) -> Self {
        let data = noise(len);
        let size = Size::new(len as u64).unwrap();
        let mut builder = OutboardBuilder::new(size);
        builder.push(&data).unwrap();
        let (root, outboard) = builder.finish().unwrap();
        Self { data, size, root, outboard }
    }

    fn bytes_of(&self, item: Item) -> &[u8] {
        match item {
            Item::Parent { offset } => &self.outboard[offset as usize..][..PAIR_LEN],
            Item::Group { index, len } => &self.data[(index * GROUP_LEN) as usize..][..len],
        }
    }

    fn encode(&self, groups: Groups) -> Vec<u8> {
        let mut walk = Walk::new(self.root, self.size, groups).unwrap();
        let mut encoded = Vec::new();
        while let Some(item) = walk.peek() {
            walk.accept(self.bytes_of(item)).unwrap();
            encoded.extend_from_slice(self.bytes_of(item));
        }
        encoded
    }

    fn check(&self, groups: Groups, verified: &[Verified]) {
        for item in verified {
            assert_eq!(&item.bytes()[..], self.bytes_of(item.item()));
        }
        let indices = verified.iter().filter_map(|verified| match verified.item() {
            Item::Group { index, .. } => Some(index),
            Item::Parent { .. } => None,
        });
        assert!(indices.eq(groups.indices()), "each group once, in order");
    }
}

/// Bytes that no two groups share.
fn noise(len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    data
}

/// Feeds `encoded` in pieces whose lengths repeat `cuts`; what was verified before an error is kept.
fn decode(verifier: &mut Verifier, encoded: &[u8], cuts: &[usize]) -> (Vec<Verified>, Result<(), VerifyError>) {
    let mut verified = Vec::new();
    let mut rest = Bytes::copy_from_slice(encoded);
    for cut in cuts.iter().cycle() {
        let mut piece = rest.split_to((*cut).min(rest.len()));
        loop {
            match verifier.next(&mut piece) {
                Ok(Some(item)) => verified.push(item),
                Ok(None) => break,
                Err(error) => return (verified, Err(error)),
            }
        }
        assert!(piece.is_empty());
        if rest.is_empty() {
            break;
        }
    }
    let end = if verifier.is_complete() { Ok(()) } else { Err(VerifyError::Truncated) };
    (verified, end)
}

fn verify(object: &Object, groups: Groups, encoded: &[u8]) -> (Vec<Verified>, Result<(), VerifyError>) {
    let mut verifier = Verifier::new(object.root, object.size, groups).unwrap();
    decode(&mut verifier, encoded, &[usize::MAX])
}

fn any_len() -> impl Strategy<Value = usize> {
    prop_oneof![proptest::sample::select(EDGES.to_vec()), 0..3_000_000_usize]
}

/// A length and a range of groups within it.
fn any_range() -> impl Strategy<Value = (usize, Groups)> {
    (any_len(), any::<(u64, u64)>()).prop_map(|(len, (start, count))| {
        let total = Size::new(len as u64).unwrap().group_count();
        let start = start % total;
        (len, Groups::new(start, start + 1 + count % (total - start)).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_verified_however_it_is_cut(
        (len, groups) in any_range(),
        cuts in proptest::collection::vec(1..70_000_usize, 1..8),
    ) {
        let object = Object::new(len);
        let encoded = object.encode(groups);
        prop_assert_eq!(encoded.len() as u64, object.size.encoded_len(groups));
        let mut verifier = Verifier::new(object.root, object.size, groups).unwrap();
        let (verified, end) = decode(&mut verifier, &encoded, &cuts);
        prop_assert_eq!(end, Ok(()));
        object.check(groups, &verified);
        let payload: u64 = verified.iter().map(Verified::payload_len).sum();
        prop_assert_eq!(payload, object.size.bytes_in(groups));
    }

    #[test]
    fn a_flipped_bit_is_refused_before_its_bytes_are_passed_on(
        (len, groups) in any_range(), place in any::<usize>(), bit in 0..8_u8,
    ) {
        let object = Object::new(len);
        let mut encoded = object.encode(groups);
        prop_assume!(!encoded.is_empty());
        let place = place % encoded.len();
        encoded[place] ^= 1 << bit;
        let (verified, end) = verify(&object, groups, &encoded);
        prop_assert!(matches!(end, Err(VerifyError::Mismatch(_))));
        let passed: usize = verified.iter().map(|item| item.bytes().len()).sum();
        prop_assert!(passed <= place, "{} bytes passed, a bit flipped in byte {}", passed, place);
    }

    #[test]
    fn truncated_and_surplus_bytes_are_refused((len, groups) in any_range(), cut in any::<usize>()) {
        let object = Object::new(len);
        let mut encoded = object.encode(groups);
        if !encoded.is_empty() {
            let (_, end) = verify(&object, groups, &encoded[..cut % encoded.len()]);
            prop_assert_eq!(end, Err(VerifyError::Truncated));
        }
        encoded.push(0);
        let (verified, end) = verify(&object, groups, &encoded);
        prop_assert_eq!(end, Err(VerifyError::Surplus { bytes: 1 }));
        object.check(groups, &verified);
    }

    #[test]
    fn a_wrong_size_is_refused_by_the_last_group(len in any_len(), claimed in any_len()) {
        prop_assume!(len != claimed);
        let object = Object::new(len);
        let claimed = Size::new(claimed as u64).unwrap();
        let last = |size: Size| Groups::new(size.group_count() - 1, size.group_count()).unwrap();
        let all = |size: Size| size.groups();
        for range in [last, all] {
            let mut verifier = Verifier::new(object.root, claimed, range(claimed)).unwrap();
            let (_, end) = decode(&mut verifier, &object.encode(range(object.size)), &[usize::MAX]);
            prop_assert!(end.is_err());
        }
    }

    #[test]
    fn parts_built_apart_make_the_same_outboard(len in any_len(), log in 0..6_u32) {
        let object = Object::new(len);
        let part_len = (GROUP_LEN << log) as usize;
        let mut whole = OutboardBuilder::new(object.size);
        let mut outboard = Vec::new();
        for (nth, part) in object.data.chunks(part_len).enumerate() {
            let mut builder = OutboardBuilder::part(object.size, (nth as u64) << log);
            builder.push(part).unwrap();
            whole.append(builder).unwrap();
            outboard.extend(whole.take_pairs());
        }
        if len == 0 {
            whole.push(&[]).unwrap();
        }
        let (root, last) = whole.finish().unwrap();
        outboard.extend(last);
        prop_assert_eq!(root, object.root);
        prop_assert_eq!(outboard, object.outboard);
    }

    #[test]
    fn links_survive_being_written(
        root in any::<[u8; 32]>(), name in proptest::option::of("\\PC{1,30}"), size in proptest::option::of(0..MAX_SIZE),
        is_folder: bool, ports in proptest::collection::vec(1..u16::MAX, 0..MAX_ADDRS),
    ) {
        let addr = |port| format!("/ip4/192.0.2.1/tcp/{port}/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA");
        let link = Link {
            root: Root::from(root),
            kind: if is_folder { Kind::Collection } else { Kind::File },
            name: name.filter(|name| name.len() <= MAX_NAME_LEN),
            size: size.and_then(Size::new),
            addrs: ports.into_iter().map(|port| addr(port).parse().unwrap()).collect(),
        };
        prop_assert_eq!(link.to_string().parse(), Ok(link));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "(pedlar:)?\\PC*") {
        let _ = text.parse::<Link>();
    }
}

#[test]
fn roots_and_outboards_are_those_of_blake3_and_bao_tree() {
    for len in EDGES {
        let object = Object::new(len);
        assert_eq!(object.root, Root::of(&object.data), "{len}");
        assert_eq!(object.outboard.len() as u64, object.size.outboard_len(), "{len}");
        let mut reference = Vec::new();
        let mut data = object.data.as_slice();
        let root = bao_tree::io::sync::outboard_post_order(&mut data, tree::of(object.size), &mut reference).unwrap();
        assert_eq!(Root::from(*root.as_bytes()), object.root, "{len}");
        assert_eq!(reference, object.outboard, "{len}");
    }
}

#[test]
fn a_walk_refuses_what_lies_outside_and_stays_where_it_was() {
    let object = Object::new(40_000);
    let outside = Groups::new(2, 4).unwrap();
    assert_eq!(Walk::new(object.root, object.size, outside).unwrap_err(), OutOfRange { end: 4, count: 3 });
    let mut walk = Walk::new(object.root, object.size, Groups::new(1, 2).unwrap()).unwrap();
    let item = walk.peek().unwrap();
    assert_eq!(walk.accept(&[0; PAIR_LEN]), Err(Mismatch { group: 1 }));
    assert_eq!(walk.accept(&[]), Err(Mismatch { group: 1 }));
    assert_eq!(walk.peek(), Some(item));
    walk.accept(object.bytes_of(item)).unwrap();
}

#[test]
fn the_largest_object_has_room_in_every_number() {
    let size = Size::new(MAX_SIZE).unwrap();
    assert_eq!(Size::new(MAX_SIZE + 1), None);
    assert_eq!(size.encoded_len(size.groups()), MAX_SIZE + size.outboard_len());
    let last = Groups::new(size.group_count() - 1, size.group_count()).unwrap();
    assert_eq!(size.encoded_len(last), GROUP_LEN + 34 * PAIR_LEN as u64);
    let mut walk = Walk::new(Root::of(b""), size, last).unwrap();
    assert_eq!(walk.peek(), Some(Item::Parent { offset: size.outboard_len() - PAIR_LEN as u64 }));
    assert_eq!(walk.accept(&[0; PAIR_LEN]), Err(Mismatch { group: last.start() }));
}

#[test]
fn a_builder_refuses_groups_out_of_place() {
    let size = Size::new(3 * GROUP_LEN + 5).unwrap();
    let group = noise(GROUP_LEN as usize);
    let mut builder = OutboardBuilder::new(size);
    builder.push(&group).unwrap();
    assert_eq!(builder.push(&group[1..]), Err(BuildError::Length { group: 1, len: GROUP_LEN as usize - 1 }));
    let part = OutboardBuilder::part(size, 2);
    assert_eq!(builder.append(part), Err(BuildError::Order { start: 2, next: 1 }));
    let mut unaligned = OutboardBuilder::part(size, 1);
    unaligned.push(&[group.as_slice(), &group].concat()).unwrap();
    assert_eq!(builder.append(unaligned), Err(BuildError::Order { start: 1, next: 1 }));
    assert_eq!(builder.finish().unwrap_err(), BuildError::Incomplete { next: 1, count: 4 });
}

#[test]
fn links_say_what_is_wrong() {
    let root = Root::of(b"x");
    let plain = Link::new(Kind::File, root).to_string();
    let cid = |codec, code| {
        format!("pedlar:{}", cid::Cid::new_v1(codec, multihash::Multihash::wrap(code, root.as_bytes()).unwrap()))
    };
    let parse = |text: &str| text.parse::<Link>();
    assert!(plain.starts_with("pedlar:bafk"));
    assert_eq!(parse(&format!("{plain}?later=1&&name=a%20b%2F%C3%A9+")).unwrap().name.unwrap(), "a b/é+");
    assert_eq!(parse("http://x"), Err(LinkError::Scheme));
    assert_eq!(parse("pedlar:"), Err(LinkError::Cid(String::new())));
    assert!(matches!(parse(&plain.to_uppercase().replace("PEDLAR", "pedlar")), Err(LinkError::Cid(_))));
    assert!(matches!(parse("pedlar:QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"), Err(LinkError::Cid(_))));
    assert_eq!(parse(&cid(0x55, 0x12)), Err(LinkError::Hash(0x12)));
    assert_eq!(parse(&cid(0x70, 0x1e)), Err(LinkError::Codec(0x70)));
    assert_eq!(parse(&cid(0x30_7064, 0x1e)), Ok(Link::new(Kind::Collection, root)));
    let query = |query: &str| parse(&format!("{plain}?{query}")).unwrap_err();
    assert_eq!(query("name"), LinkError::Field("name".into()));
    assert_eq!(query("name=%ff"), LinkError::Field("name=%ff".into()));
    assert_eq!(query("name=a&name=b"), LinkError::Twice("name"));
    assert_eq!(query("name="), LinkError::Name(0));
    assert_eq!(query(&format!("name={}", "x".repeat(129))), LinkError::Name(129));
    assert_eq!(query("size=-1"), LinkError::Size("-1".into()));
    assert_eq!(query("size=281474976710657"), LinkError::Size("281474976710657".into()));
    assert_eq!(query("size=1&size=1"), LinkError::Twice("size"));
    assert_eq!(query("addr=/ip4/192.0.2.1/tcp/1"), LinkError::Addr("/ip4/192.0.2.1/tcp/1".into()));
    let addr = "addr=/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA&";
    assert_eq!(query(&addr.repeat(9)), LinkError::TooManyAddrs);
    assert_eq!(parse(&"x".repeat(MAX_LINK_LEN + 1)), Err(LinkError::TooLong(MAX_LINK_LEN + 1)));
}

#[test]
fn roots_are_read_as_they_are_written() {
    let root = Root::of(b"pedlar");
    assert_eq!(root.to_string().parse(), Ok(root));
    assert_eq!(root.to_string().len(), 64);
    assert_eq!("00".parse::<Root>(), Err(RootError));
}
