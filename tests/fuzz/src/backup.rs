//! What brings a lost node back: its backup, once that is decrypted, and what others remind it of.

use std::fs;

use pedlar_node::backup::unpack;
use pedlar_proto::v1;
use pedlar_protocol::account::Reminder;
use pedlar_protocol::budget::Budget;
use pedlar_protocol::credit::Rules;
use pedlar_protocol::market::{Books, Market, Terms, audit_ledgers};
use pedlar_protocol::session::quote::SignedReceipt;
use pedlar_protocol::settlement::SignedTopUp;
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::{Signed, peer_id};
use prost::Message;

use crate::paper::{good_quote, good_topup};
use crate::signer::{grown, key, network};

/// The names of a backup's parts.
const PARTS: [&str; 3] = ["config.toml", "journal.sqlite", "wallet.sqlite"];

/// Backups: the bytes as they are, behind a good magic and version, and with a manifest that is signed well. Nothing but
/// the parts is ever written.
pub fn backup(data: &[u8]) {
    let Some((&split, data)) = data.split_first() else { return };
    let (manifest, rest) = data.split_at(usize::from(split) * data.len() / 256);
    let head = b"PDLRBKUP\x01".as_slice();
    let signed = grown(&Signed::sign(key(0), "pedlar backup v1", good_manifest().into()), "pedlar backup v1", manifest);
    let signed = signed.encode();
    let length = u32::try_from(signed.len()).expect("a short manifest").to_le_bytes();
    let grown = [head, &length, &signed, b"abc", rest].concat();
    for bytes in [data, &[head, data].concat(), &grown] {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let unpacked = unpack(&mut &*bytes, &peer_id(key(0)), folder.path());
        let names = fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("an entry").file_name());
        let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        assert!(names.iter().all(|name| PARTS.contains(&name.as_str())), "{names:?}");
        assert!(unpacked.is_err() || names.len() == PARTS.len());
        // To which nothing was added, that is good: else nothing behind it would be looked at.
        assert!(unpacked.is_ok() || bytes != grown || !data.is_empty(), "{unpacked:?}");
    }
}

/// Reminders of a buyer to a seller that was restored: what is understood has one form, is taken once, and leaves the books
/// in order.
pub fn reminder(data: &[u8]) {
    let (seller, buyer) = (peer_id(key(0)), peer_id(key(1)));
    let receipt = SignedReceipt::sign(good_quote().id(), 1_000, key(1));
    let line =
        v1::SignedLine { quote: Some(good_quote().signed().to_wire()), receipt: Some(receipt.signed().to_wire()) };
    let word = SignedTopUp::sign(good_topup(), key(0)).signed().to_wire();
    let good = v1::Reminder { lines: vec![line], topups: vec![word], ..v1::Reminder::default() };
    for bytes in [data.to_vec(), [&good.encode_to_vec(), data].concat()] {
        let Ok(wire) = v1::Reminder::decode(bytes.as_slice()) else { continue };
        let read = Reminder::from_wire(wire, &buyer, &seller);
        assert!(read.is_ok() || !data.is_empty(), "the good one is good");
        let Ok(reminder) = read else { continue };
        assert_eq!(Reminder::from_wire(reminder.to_wire(), &buyer, &seller).as_ref(), Ok(&reminder));
        let terms =
            Terms { credit: Rules::default(), min_topup_sat: 1, max_window: 1 << 20, budget: Budget::default() };
        let mut market = Market::new(key(0).clone(), network(), terms, Timestamp::EPOCH);
        market.handle_backup(Timestamp::EPOCH);
        drop(market.handle_buyers_reminder(Timestamp::EPOCH, buyer, &reminder));
        market.handle_stored(market.staged_in_all());
        drop(market.handle_buyers_reminder(Timestamp::EPOCH, buyer, &reminder));
        assert_eq!(market.poll_entries().1, [], "it is taken once");
        assert_eq!(audit_ledgers(&[Books { market: &market, wallet: None }]), []);
    }
}

/// A manifest of empty parts but for the last, which holds `abc`.
fn good_manifest() -> Vec<u8> {
    let [nothing, abc] = [b"".as_slice(), b"abc"].map(|bytes| {
        // The root of an object that fits one group is its BLAKE3.
        let root = pedlar_protocol::content::Root::of(bytes);
        (bytes.len() as u64, root.as_bytes().to_vec())
    });
    let part =
        |(name, (bytes, hash)): (&str, (u64, Vec<u8>))| v1::Part { name: name.to_owned(), bytes, hash: hash.into() };
    let parts = PARTS.into_iter().zip([nothing.clone(), nothing, abc]).map(part).collect();
    let peer = peer_id(key(0)).to_bytes().into();
    v1::Manifest { peer, network: "regtest".to_owned(), created_ms: 1, parts }.encode_to_vec()
}
