//! Publishing, reading, and every way in which a published file can be found changed.

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pedlar_protocol::content::{GROUP_LEN, Groups, Item, Verified, Verifier};
use pedlar_protocol::wire::MAX_DATA_LEN;
use tempfile::TempDir;

use super::*;

/// Lengths round the edges of chunks, groups, frames and the parts that threads hash.
const LENGTHS: [usize; 10] = [0, 1, 1024, 16_384, 16_385, 262_145, 1 << 20, (1 << 20) + 1, 3 << 20, 5_000_001];

pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    data
}

pub(crate) struct Shop {
    pub(crate) dir: TempDir,
    pub(crate) blob: PublishedBlob,
    pub(super) data: Vec<u8>,
}

impl Shop {
    pub(crate) fn new(len: usize) -> Self {
        let (dir, data) = (tempfile::tempdir().unwrap(), noise(len));
        fs::write(dir.path().join("goods.bin"), &data).unwrap();
        let blob = publish(&dir.path().join("goods.bin"), dir.path(), go_on).unwrap();
        Self { dir, blob, data }
    }

    fn file(&self) -> File {
        File::options().write(true).open(&self.blob.path).unwrap()
    }

    /// Puts the time of the last write back, as a careful intruder would.
    fn hide(&self, file: &File) {
        let Fingerprint { modified_s, modified_ns, .. } = self.blob.fingerprint;
        let time = SystemTime::UNIX_EPOCH + Duration::new(modified_s as u64, modified_ns as u32);
        file.set_modified(time).unwrap();
    }

    pub(super) fn verified(&self, groups: Groups) -> Vec<Verified> {
        let mut frames = Vec::new();
        assert!(read(&Arc::new(BlobReader::open(&self.blob).unwrap()), groups, &mut frames).is_ok());
        verify(&self.blob, groups, frames)
    }
}

pub(super) fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn read(reader: &Arc<BlobReader>, groups: Groups, frames: &mut Vec<Bytes>) -> Result<(), ReadError> {
    for frame in reader.pieces(groups)? {
        let frame = frame?;
        assert!(!frame.is_empty() && frame.len() <= MAX_DATA_LEN);
        frames.push(frame);
    }
    Ok(())
}

/// What `frames` prove; panics on anything wrong in them.
fn verify(blob: &PublishedBlob, groups: Groups, frames: Vec<Bytes>) -> Vec<Verified> {
    let mut verifier = Verifier::new(blob.root, blob.size, groups).unwrap();
    let mut verified = Vec::new();
    for mut frame in frames.into_iter().chain([Bytes::new()]) {
        while let Some(item) = verifier.next(&mut frame).unwrap() {
            verified.push(item);
        }
    }
    verified
}

fn payload(verified: &[Verified]) -> Vec<u8> {
    let groups = verified.iter().filter(|item| matches!(item.item(), Item::Group { .. }));
    groups.flat_map(|item| item.bytes().iter().copied()).collect()
}

fn change(result: Result<impl std::fmt::Debug, ReadError>) -> Change {
    match result {
        Err(ReadError::Changed { reason }) => reason,
        other => panic!("not refused as changed: {other:?}"),
    }
}

#[test]
fn what_is_published_is_what_a_buyer_gets() {
    for len in LENGTHS {
        let shop = Shop::new(len);
        let PublishedBlob { root, size, name, outboard, .. } = &shop.blob;
        assert_eq!(*root, Root::of(&shop.data), "{len}");
        assert_eq!((size.bytes(), name.as_str()), (len as u64, "goods.bin"));
        let kept = fs::metadata(outboard).unwrap();
        assert_eq!((kept.len(), kept.permissions().mode() & 0o777), (size.outboard_len(), 0o600));
        assert_eq!(payload(&shop.verified(size.groups())), shop.data, "{len}");
        let last = Groups::new(size.group_count() - 1, size.group_count()).unwrap();
        assert_eq!(payload(&shop.verified(last)), &shop.data[last.offset() as usize..], "{len}");
    }
}

#[test]
fn a_copy_outlives_the_original() {
    let (dir, data) = (tempfile::tempdir().unwrap(), noise(70_000));
    let original = dir.path().join("draft.txt");
    fs::write(&original, &data).unwrap();
    let blob = publish_copy(&original, dir.path(), dir.path(), go_on).unwrap();
    fs::remove_file(original).unwrap();
    assert_eq!((blob.name.as_str(), blob.root), ("draft.txt", Root::of(&data)));
    let shop = Shop { dir, blob, data };
    assert_eq!(payload(&shop.verified(shop.blob.size.groups())), shop.data);
    let left = fs::read_dir(shop.dir.path()).unwrap().count();
    assert_eq!(left, 2, "the copy and its hash tree, no temporary file");
}

#[test]
fn what_is_no_regular_file_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let publish = |path: &Path| publish(path, dir.path(), go_on);
    assert!(matches!(publish(&dir.path().join("none")), Err(PublishError::NotFound(_))));
    assert!(matches!(publish(dir.path()), Err(PublishError::NotAFile(_))));
    assert!(matches!(publish(Path::new("/dev/null")), Err(PublishError::NotAFile(_))));
}

#[test]
fn publishing_can_be_stopped_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    fs::write(&path, noise(8 << 20)).unwrap();
    let mut seen = Vec::new();
    let stopped = publish(&path, dir.path(), |bytes| {
        seen.push(bytes);
        if bytes >= 3 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(PublishError::Cancelled)));
    assert_eq!(seen, [1 << 20, 2 << 20, 3 << 20]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_changes_while_it_is_published_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for shrinks in [false, true] {
        fs::write(&path, noise(64 << 20)).unwrap();
        let result = publish(&path, dir.path(), |bytes| {
            if bytes == 1 << 20 {
                let mut file = File::options().append(true).open(&path).unwrap();
                if shrinks { file.set_len(40 << 20).unwrap() } else { file.write_all(b"more").unwrap() }
            }
            ControlFlow::Continue(())
        });
        assert!(matches!(result, Err(PublishError::Changed(_))), "{result:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_visible_change_is_refused_before_anything_is_read() {
    let open = |shop: &Shop| BlobReader::open(&shop.blob);
    let shop = Shop::new(100_000);
    fs::write(&shop.blob.path, noise(100_001)).unwrap();
    assert_eq!(change(open(&shop)), Change::Length { now: 100_001, published: 100_000 });
    let shop = Shop::new(100_000);
    fs::remove_file(&shop.blob.path).unwrap();
    assert_eq!(change(open(&shop)), Change::Missing);
    fs::create_dir(&shop.blob.path).unwrap();
    assert_eq!(change(open(&shop)), Change::Missing);
    let shop = Shop::new(100_000);
    shop.file().set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
    assert_eq!(change(open(&shop)), Change::Modified);
    let shop = Shop::new(100_000);
    let other = shop.dir.path().join("other");
    fs::write(&other, &shop.data).unwrap();
    shop.hide(&File::options().write(true).open(&other).unwrap());
    fs::rename(other, &shop.blob.path).unwrap();
    assert_ne!(fs::metadata(&shop.blob.path).unwrap().ino(), shop.blob.fingerprint.inode);
    assert_eq!(change(open(&shop)), Change::Modified);
    let shop = Shop::new(100_000);
    fs::remove_file(&shop.blob.outboard).unwrap();
    assert_eq!(change(open(&shop)), Change::Outboard);
}

#[test]
fn a_hidden_change_never_leaves_as_wrong_bytes() {
    let shop = Shop::new(1_000_000);
    let bad = 33;
    shop.file().write_all_at(&[shop.data[(bad * GROUP_LEN) as usize + 7] ^ 4], bad * GROUP_LEN + 7).unwrap();
    shop.hide(&shop.file());
    let reader = Arc::new(BlobReader::open(&shop.blob).unwrap());
    let all = shop.blob.size.groups();
    let mut frames = Vec::new();
    assert_eq!(change(read(&reader, all, &mut frames)), Change::Content { group: bad });
    let sent = payload(&verify(&shop.blob, all, frames));
    assert_eq!(sent, shop.data[..(bad * GROUP_LEN) as usize], "all before it is sold");
    let rest = Groups::new(bad + 1, all.end()).unwrap();
    assert_eq!(payload(&shop.verified(rest)), shop.data[rest.offset() as usize..], "and all after it");
}

#[test]
fn changes_under_an_open_reader_are_found() {
    let shop = Shop::new(1_000_000);
    let reader = Arc::new(BlobReader::open(&shop.blob).unwrap());
    let all = shop.blob.size.groups();
    File::options().append(true).open(&shop.blob.path).unwrap().write_all(b"more").unwrap();
    assert!(read(&reader, all, &mut Vec::new()).is_ok(), "what was published is still there");
    fs::rename(&shop.blob.path, shop.dir.path().join("moved")).unwrap();
    fs::write(&shop.blob.path, b"replaced").unwrap();
    assert!(read(&reader, all, &mut Vec::new()).is_ok(), "the open file is the old one");
    File::options().write(true).open(shop.dir.path().join("moved")).unwrap().set_len(500_000).unwrap();
    let shrunk = Change::Length { now: 500_000, published: 1_000_000 };
    assert_eq!(change(read(&reader, all, &mut Vec::new())), shrunk);
    let outboard = File::options().write(true).open(&shop.blob.outboard).unwrap();
    outboard.write_all_at(&[0; 64], shop.blob.size.outboard_len() - 64).unwrap();
    assert_eq!(change(read(&reader, all, &mut Vec::new())), Change::Outboard);
    outboard.set_len(0).unwrap();
    assert_eq!(change(read(&reader, all, &mut Vec::new())), Change::Outboard);
}

#[test]
fn a_buyer_may_not_ask_for_more_than_there_is() {
    let shop = Shop::new(1_000_000);
    let reader = Arc::new(BlobReader::open(&shop.blob).unwrap());
    let outside = Groups::new(61, 63).unwrap();
    assert!(matches!(read(&reader, outside, &mut Vec::new()), Err(ReadError::OutOfRange(_))));
}

#[test]
fn names_from_strangers_stay_in_their_folder_and_look_like_what_they_are() {
    let safe = |hint: &str| safe_name(hint).unwrap_or_default();
    assert_eq!(safe("holiday photo.jpg"), "holiday photo.jpg");
    assert_eq!(safe("../../etc/passwd"), "passwd");
    assert_eq!(safe("C:\\boot.ini"), "boot.ini");
    assert_eq!(safe("..\0\u{1b}[2Jx\n"), "[2Jx");
    assert_eq!(safe("invoice\u{202e}fdp.exe"), "invoicefdp.exe");
    assert_eq!(safe(" .ssh. "), "ssh");
    for nothing in ["", ".", "..", "a/", "/", "\0", "\u{200b}"] {
        assert_eq!(safe_name(nothing), None, "{nothing:?}");
    }
    assert_eq!(safe(&"é".repeat(100)), "é".repeat(64));
}
