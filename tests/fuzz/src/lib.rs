//! Fuzz targets: one function per decoder that reads what a stranger wrote, and one per state machine that a stranger
//! drives. Each panics when it finds something.
//!
//! Run them with `.ci/fuzz SECONDS [TARGET…]`. A new target is a function here, four lines in `bin/` and an entry in
//! `Cargo.toml`.

mod backup;
mod book;
mod electrum;
mod files;
mod net;
mod paper;
mod rows;
mod seller;
mod signer;
mod sync;
mod typed;

pub use backup::{backup, reminder};
pub use book::book;
pub use electrum::electrum;
pub use files::{config, download, peers, seed};
pub use net::{identity, records};
pub use paper::{entry, evidence, paper};
pub use rows::{journal_rows, wallet_rows};
pub use seller::account;
pub use sync::offers_sync;
pub use typed::{request, typed};

use bytes::Bytes;
use multiaddr::{Multiaddr, Protocol};
use pedlar_protocol::content::{Collection, CollectionEntry, EntryPath, Groups, Kind, Link, Root, Size, Verifier};
use pedlar_protocol::money::{Msat, Price};
use pedlar_protocol::offer::{MAX_OFFER_LEN, MIN_LIFETIME, SignedOffer, UnverifiedOffer};
use pedlar_protocol::session::Frame;
use pedlar_protocol::text::escape;
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{FrameHeader, Network, Signed};
use std::str::FromStr;

/// What a person types: amounts, prices, names; whatever is understood is printed in a form that is understood alike.
pub fn amount(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    reads_what_it_prints::<Msat>(&text);
    reads_what_it_prints::<Price>(&text);
    reads_what_it_prints::<Network>(&text);
    reads_what_it_prints::<Root>(&text);
    assert!(!escape(&text).to_string().chars().any(char::is_control));
}

/// Addresses of strangers, as bytes and as text: of what may be dialled none leads into this machine or this house.
pub fn address(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let addrs = text.split_whitespace().filter_map(|addr| addr.parse().ok());
    let claimed: Vec<Multiaddr> = addrs.chain(Multiaddr::try_from(data.to_vec())).collect();
    let near = pedlar_net::of_stranger(claimed.clone(), true);
    let far = pedlar_net::of_stranger(claimed.clone(), false);
    assert!(near.iter().chain(&far).all(|addr| {
        claimed.iter().any(|claim| {
            addr.to_string().starts_with(&claim.to_string()) || claim.to_string().starts_with(&addr.to_string())
        })
    }));
    for addr in &far {
        let is_private = addr.iter().any(|part| match part {
            Protocol::Ip4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified(),
            Protocol::Ip6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
            _ => false,
        });
        assert!(!is_private, "{addr}");
    }
}

/// Links, as they are found on web pages: the text as it is, and as what follows a good content id.
pub fn link(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    reads_what_it_prints::<Link>(&text);
    reads_what_it_prints::<Link>(&format!("{}?{text}", Link::new(Kind::Collection, Root::of(data))));
}

/// Manifests of folders: the bytes as they are, and as what follows a good file's entry; whatever is understood has one
/// form, and leads nowhere out of its folder.
pub fn collection(data: &[u8]) {
    let path = EntryPath::new("a/file").expect("a good path");
    let size = Size::new(1).expect("a size");
    let good = Collection::new(vec![CollectionEntry { path, size, root: Root::of(b"1") }]).expect("a good folder");
    let good = good.encode();
    let header = good.len() - 42 - "a/file".len();
    let mut grown = [&good, data].concat();
    // So many entries as the first byte says.
    if let (Some(count), Some(first)) = (grown.get_mut(header - 1), data.first()) {
        *count = *first;
    }
    for bytes in [data.to_vec(), grown] {
        let Ok(collection) = Collection::decode(&bytes) else { continue };
        assert_eq!(collection.encode(), bytes);
        for entry in collection.entries() {
            let (folders, name) = entry.path.split();
            let parts = || folders.iter().chain([&name]);
            assert!(parts().all(|part| !["", ".", ".."].contains(part) && !part.contains(['/', '\\', '\0'])));
        }
        assert!(collection.objects().iter().all(|entry| collection.size_of(&entry.root) == Some(entry.size)));
    }
}

/// Frame headers and signed envelopes, as they come from a stream.
pub fn frame(data: &[u8]) {
    if let Some((header, rest)) = data.split_first_chunk::<{ FrameHeader::LEN }>() {
        if let Ok(parsed) = FrameHeader::parse(*header) {
            assert_eq!(parsed.to_bytes(), *header);
            assert!((1..=parsed.kind().max_len()).contains(&parsed.payload_len()));
        }
        let rest = Bytes::copy_from_slice(rest);
        if let Ok(signed) = Signed::decode(&rest, rest.len()) {
            assert_eq!(signed.encode(), rest);
        }
    }
}

/// The control frames of a session.
pub fn session(data: &[u8]) {
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(Frame::decode(frame.encode().into()), Ok(frame));
    }
}

/// Offers: the bytes as they are, and signed well as what follows a good offer.
pub fn offer(data: &[u8]) {
    let network = signer::network();
    let _ = UnverifiedOffer::parse(&network, &Bytes::copy_from_slice(data)).map(UnverifiedOffer::verify);
    let (issued, expires) = (Timestamp::EPOCH, Timestamp::EPOCH.saturating_add(MIN_LIFETIME));
    let good = SignedOffer::sign(signer::key(0), signer::offer(0, 0, issued, expires)).expect("a good offer");
    let good = Signed::decode(good.bytes(), MAX_OFFER_LEN).expect("a good envelope");
    let envelope = signer::grown(&good, "pedlar offer v1", data).encode();
    if let Ok(signed) = UnverifiedOffer::parse(&network, &envelope).and_then(UnverifiedOffer::verify) {
        let again = SignedOffer::sign(signer::key(0), signed.offer().clone()).map(|again| again.offer().clone());
        assert_eq!(again.as_ref(), Ok(signed.offer()));
    }
}

/// Content as a seller sends it: whatever the bytes and however they are cut, only what is under the root comes out.
pub fn verify(data: &[u8]) {
    let Some((&[size_high, size_low, start, count, cut, root], response)) = data.split_first_chunk::<6>() else {
        return;
    };
    let Some(size) = Size::new(u64::from(u16::from_be_bytes([size_high, size_low])) * 64) else { return };
    let groups = Groups::new(start.into(), u64::from(start) + u64::from(count)).unwrap_or(size.groups());
    // Half of the time the honest root of the first bytes, so that a group can verify.
    let prefix = response.get(..usize::try_from(size.bytes()).unwrap_or(usize::MAX));
    let root = prefix.filter(|_| root % 2 == 0).map_or(Root::from([root; 32]), Root::of);
    let Ok(mut verifier) = Verifier::new(root, size, groups) else { return };
    let (mut verified, expected) = (0, size.bytes_in(groups.within(size.bytes())));
    for piece in response.chunks(usize::from(cut) * 97 + 1) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match verifier.next(&mut input) {
                Ok(Some(item)) => verified += item.payload_len(),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(verified <= expected);
    assert!(!verifier.is_complete() || verified == expected);
}

fn reads_what_it_prints<T: FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().ok(), Some(value));
    }
}
