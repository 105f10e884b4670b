//! Downloads to the end, through crashes, damage, full disks, and onto what is not theirs.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::tests::Shop;
use super::super::{BlobReader, OpenError as Refused};
use super::*;

/// 62 groups, the last of 576 bytes.
const LEN: usize = 1_000_000;

impl Shop {
    fn dest(&self) -> PathBuf {
        self.dir.path().join("bought.bin")
    }

    fn open(&self) -> Result<Download, OpenError> {
        Download::open(self.blob.root, self.blob.size, &self.dest())
    }

    /// Downloads `groups` without a checkpoint.
    fn fetch(&self, download: &mut Download, groups: Groups) {
        self.verified(groups).chunks(1).for_each(|item| download.write(item).unwrap());
    }

    fn finish(&self) {
        let mut download = self.open().unwrap();
        while let Some(groups) = download.missing(0, 7) {
            self.fetch(&mut download, groups);
        }
        let outboards = self.dir.path().join("outboards");
        fs::create_dir_all(&outboards).unwrap();
        let bought = download.finish(&outboards).unwrap();
        assert_eq!(fs::read(self.dest()).unwrap(), self.data);
        assert_eq!(fs::read(&bought.outboard).unwrap(), fs::read(&self.blob.outboard).unwrap());
        let resold = Arc::new(BlobReader::open(&bought).unwrap());
        assert!(resold.pieces(bought.size.groups()).unwrap().all(|piece| piece.is_ok()));
        let paths = Paths::new(&self.dest());
        assert!(!paths.part.exists() && !paths.state.exists());
    }

    /// The partial download of these groups, left as a crash after a checkpoint leaves it.
    fn crashed_with(&self, groups: Groups) -> Paths {
        let mut download = self.open().unwrap();
        self.fetch(&mut download, groups);
        download.checkpoint().unwrap();
        download.paths
    }
}

impl Download {
    /// From now on its bytes go to this device.
    fn replace_data(&mut self, device: &str) {
        let Files { data, .. } = Arc::get_mut(&mut self.files).unwrap();
        *data = File::options().write(true).open(device).unwrap();
    }
}

fn groups(start: u64, end: u64) -> Groups {
    Groups::new(start, end).unwrap()
}

fn missing(download: &Download) -> Vec<(u64, u64)> {
    let next = |from: u64| download.missing(from, u64::MAX);
    std::iter::successors(next(0), |run| next(run.end())).map(|run| (run.start(), run.end())).collect()
}

#[test]
fn objects_of_every_length_arrive_and_can_be_sold_on() {
    for len in [0, 1, 16_384, 16_385, LEN] {
        Shop::new(len).finish();
    }
}

#[test]
fn after_a_crash_what_was_checkpointed_is_there_and_nothing_else() {
    let shop = Shop::new(LEN);
    let mut download = shop.open().unwrap();
    shop.fetch(&mut download, groups(5, 20));
    shop.fetch(&mut download, groups(61, 62));
    download.checkpoint().unwrap();
    shop.fetch(&mut download, groups(30, 40));
    assert_eq!(missing(&download), [(0, 5), (20, 30), (40, 61)]);
    drop(download);
    let download = shop.open().unwrap();
    assert_eq!(missing(&download), [(0, 5), (20, 61)]);
    assert_eq!(download.present_bytes(), 15 * GROUP_LEN + 576);
    assert!(matches!(download.finish(shop.dir.path()), Err(FinishError::Incomplete { missing: 46 })));
    shop.finish();
}

#[test]
fn a_torn_write_of_the_bits_loses_groups_and_invents_none() {
    let shop = Shop::new(LEN);
    let paths = shop.crashed_with(groups(0, 40));
    // Of the five bytes of bits only the second reached the disk.
    let state = File::options().write(true).open(&paths.state).unwrap();
    state.write_all_at(&[0, 0xff, 0, 0, 0], HAVE_AT).unwrap();
    assert_eq!(missing(&shop.open().unwrap()), [(0, 8), (16, 62)]);
    shop.finish();
}

#[test]
fn a_cut_partial_file_is_checked_again() {
    let shop = Shop::new(LEN);
    let paths = shop.crashed_with(groups(0, 40));
    File::options().write(true).open(&paths.part).unwrap().set_len(10 * GROUP_LEN + 5).unwrap();
    assert_eq!(missing(&shop.open().unwrap()), [(10, 62)]);
    assert_eq!(missing(&shop.open().unwrap()), [(10, 62)], "and stays so");
    shop.finish();
}

#[test]
fn a_recheck_finds_damage_in_bytes_and_tree() {
    let shop = Shop::new(LEN);
    shop.crashed_with(groups(0, 40));
    let mut download = shop.open().unwrap();
    download.files.data.write_all_at(b"!", 7 * GROUP_LEN).unwrap();
    // In post-order the first pair is that over groups 0 and 1.
    download.files.outboard.write_all_at(&[0; 64], download.files.outboard_at).unwrap();
    download.recheck().unwrap();
    assert_eq!(missing(&download), [(0, 2), (7, 8), (40, 62)]);
    drop(download);
    shop.finish();
}

#[test]
fn it_never_takes_what_is_not_its_own() {
    let (shop, other) = (Shop::new(LEN), Shop::new(LEN - 1));
    let paths = shop.crashed_with(groups(0, 10));
    let foreign = Download::open(other.blob.root, other.blob.size, &shop.dest());
    assert!(matches!(foreign, Err(Refused::Foreign(_))));
    let other_size = Download::open(shop.blob.root, other.blob.size, &shop.dest());
    assert!(matches!(other_size, Err(Refused::OtherSize { .. })));
    let open = shop.open().unwrap();
    assert!(matches!(shop.open(), Err(Refused::Busy(_))));
    drop(open);
    assert_eq!(missing(&shop.open().unwrap()), [(10, 62)], "the refusals changed nothing");
    File::options().write(true).open(&paths.state).unwrap().set_len(HAVE_AT).unwrap();
    assert!(matches!(shop.open(), Err(Refused::Foreign(_))));
    fs::remove_file(&paths.state).unwrap();
    assert!(matches!(shop.open(), Err(Refused::Foreign(_))));
    fs::remove_file(&paths.part).unwrap();
    fs::write(shop.dest(), b"precious").unwrap();
    assert!(matches!(shop.open(), Err(Refused::Exists(_))));
    assert_eq!(fs::read(shop.dest()).unwrap(), b"precious");
}

#[test]
fn a_symbolic_link_in_place_of_its_files_is_not_followed() {
    let shop = Shop::new(LEN);
    let paths = Paths::new(&shop.dest());
    std::os::unix::fs::symlink(&shop.blob.path, &paths.state).unwrap();
    assert!(matches!(shop.open(), Err(Refused::Io { .. })));
    fs::rename(&paths.state, &paths.part).unwrap();
    assert!(shop.open().is_err());
    assert_eq!(fs::read(&shop.blob.path).unwrap(), shop.data);
}

#[test]
fn a_destination_that_appears_meanwhile_is_not_replaced() {
    let shop = Shop::new(LEN);
    let mut download = shop.open().unwrap();
    shop.fetch(&mut download, shop.blob.size.groups());
    fs::write(shop.dest(), b"precious").unwrap();
    assert!(matches!(download.finish(shop.dir.path()), Err(FinishError::Exists { .. })));
    assert_eq!(fs::read(shop.dest()).unwrap(), b"precious");
    fs::remove_file(shop.dest()).unwrap();
    assert!(shop.open().unwrap().is_complete(), "nothing has to be bought again");
    shop.finish();
}

#[test]
fn a_state_without_its_partial_file_is_begun_anew() {
    let shop = Shop::new(LEN);
    let paths = shop.crashed_with(groups(0, 40));
    fs::remove_file(&paths.part).unwrap();
    assert_eq!(missing(&shop.open().unwrap()), [(0, 62)]);
}

#[test]
fn a_full_disk_is_said_and_costs_nothing_that_was_kept() {
    let shop = Shop::new(LEN);
    let mut download = shop.open().unwrap();
    shop.fetch(&mut download, groups(0, 10));
    download.checkpoint().unwrap();
    download.replace_data("/dev/full");
    let group = shop.verified(groups(20, 21)).pop().unwrap();
    assert!(matches!(download.write(&[group]), Err(WriteError::NoSpace)));
    assert_eq!(missing(&download), [(10, 62)]);
    drop(download);
    shop.finish();
}

#[test]
fn what_a_failed_sync_may_have_lost_counts_as_missing() {
    let shop = Shop::new(LEN);
    let mut download = shop.open().unwrap();
    shop.fetch(&mut download, groups(0, 10));
    download.checkpoint().unwrap();
    shop.fetch(&mut download, groups(10, 20));
    // A device that takes writes and cannot be synced.
    download.replace_data("/dev/null");
    assert!(matches!(download.checkpoint(), Err(WriteError::Io(_))));
    assert_eq!(missing(&download), [(10, 62)]);
    drop(download);
    assert_eq!(missing(&shop.open().unwrap()), [(10, 62)]);
}

#[test]
fn what_is_written_while_a_checkpoint_is_synced_is_not_claimed_by_it() {
    let shop = Shop::new(LEN);
    let mut download = shop.open().unwrap();
    shop.fetch(&mut download, groups(0, 10));
    let checkpoint = download.begin_checkpoint();
    shop.fetch(&mut download, groups(10, 20));
    let synced = checkpoint.sync();
    download.end_checkpoint(synced).unwrap();
    assert_eq!((missing(&download), download.fresh_groups()), (vec![(20, 62)], 10));
    let claimed = Have::load(shop.blob.size, &download.files.outboard, HAVE_AT).unwrap();
    assert_eq!(claimed.run(0, u64::MAX, true), Some(groups(0, 10)), "though groups 8 to 15 share a byte");
    assert_eq!(claimed.missing_count(), 52);
    download.checkpoint().unwrap();
    drop(download);
    assert_eq!(missing(&shop.open().unwrap()), [(20, 62)]);
}

#[test]
fn a_sync_that_fails_costs_what_was_written_meanwhile_too() {
    let shop = Shop::new(LEN);
    let mut download = shop.open().unwrap();
    shop.fetch(&mut download, groups(0, 10));
    download.checkpoint().unwrap();
    shop.fetch(&mut download, groups(10, 20));
    download.replace_data("/dev/null");
    let checkpoint = download.begin_checkpoint();
    shop.fetch(&mut download, groups(30, 31));
    let synced = checkpoint.sync();
    assert!(matches!(download.end_checkpoint(synced), Err(WriteError::Io(_))));
    assert_eq!(missing(&download), [(10, 62)]);
    assert_eq!(download.fresh_groups(), 0);
}

#[test]
fn an_object_larger_than_the_disk_is_refused_and_leaves_nothing() {
    let shop = Shop::new(1);
    let huge = Size::new(1 << 43).unwrap();
    let refused = Download::open(shop.blob.root, huge, &shop.dest());
    assert!(matches!(refused, Err(Refused::NoSpace { .. })), "{refused:?}");
    let paths = Paths::new(&shop.dest());
    assert!(!paths.part.exists() && !paths.state.exists());
}

#[test]
fn a_size_that_brought_nothing_gives_way_to_another() {
    let shop = Shop::new(LEN);
    let lie = Size::new(LEN as u64 + 3 * GROUP_LEN).unwrap();
    drop(Download::open(shop.blob.root, lie, &shop.dest()).unwrap());
    assert_eq!(Download::begun(shop.blob.root, &shop.dest()), Some(lie));
    shop.crashed_with(groups(61, 62));
    let refused = Download::open(shop.blob.root, lie, &shop.dest());
    assert!(matches!(refused, Err(Refused::OtherSize { found: 1_000_000, .. })), "{refused:?}");
    assert_eq!(Download::begun(shop.blob.root, &shop.dest()), Some(shop.blob.size));
    shop.finish();
    assert_eq!(Download::begun(shop.blob.root, &shop.dest()), None);
}

#[test]
fn room_is_reserved_when_the_size_is_proven() {
    use std::os::unix::fs::MetadataExt;
    let shop = Shop::new(LEN);
    let mut download = shop.open().unwrap();
    let blocks = |download: &Download| download.files.data.metadata().unwrap().blocks() * 512;
    assert_eq!(blocks(&download), 0);
    shop.fetch(&mut download, groups(61, 62));
    assert!(blocks(&download) >= LEN as u64);
}
