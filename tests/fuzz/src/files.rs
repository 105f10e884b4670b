//! What a node finds on its own disk, after whatever happened to it.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use pedlar_node::blobs::Download;
use pedlar_node::config::{Config, Flags};
use pedlar_node::node::peers as remembered;
use pedlar_protocol::content::{Root, Size};
use pedlar_wallet::Sealed;
use tempfile::TempDir;

/// Settings: the text as a file, and each of its lines as what the environment says.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let file = file("config.toml");
    fs::write(&file, text.as_bytes()).expect("a file");
    let _ = Config::load(&file, Flags::new(), |_| None);
    let lines: Vec<&str> = text.lines().collect();
    let said = |name: &str| lines.get(name.len() % lines.len().max(1)).map(|line| (*line).to_owned());
    let _ = Config::load(&folder().path().join("none"), Flags::new(), said);
}

/// A download that was begun: its state and its partial file as they are, and the state behind a good header.
///
/// After a recheck nothing counts as there that is not the object's.
pub fn download(data: &[u8]) {
    let Some((&[split, size, fill], data)) = data.split_first_chunk::<3>() else { return };
    let object = vec![fill; usize::from(size) * 257];
    let (root, size) = (Root::of(&object), Size::new(object.len() as u64).expect("a size"));
    let (state, part) = data.split_at(usize::from(split) * data.len() / 256);
    let dest = file("film");
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", dest.display()));
    for good_header in [false, true] {
        let _ = (fs::remove_file(beside(".pedlar-state")), fs::remove_file(beside(".pedlar-part")));
        if good_header {
            drop(Download::open(root, size, &dest).expect("a new download"));
            let mut begun = fs::read(beside(".pedlar-state")).expect("its state");
            begun.iter_mut().skip(4096).zip(state).for_each(|(byte, fuzzed)| *byte = *fuzzed);
            fs::write(beside(".pedlar-state"), begun).expect("a state");
        } else {
            fs::write(beside(".pedlar-state"), state).expect("a state");
        }
        // Half of the time the true bytes, so that something can be there.
        fs::write(beside(".pedlar-part"), if split % 2 == 0 { part } else { &object }).expect("a part");
        let _ = Download::begun(root, &dest);
        let Ok(mut found) = Download::open(root, size, &dest) else { continue };
        found.recheck().expect("files that can be read");
        assert!(found.present_bytes() <= size.bytes());
        if found.is_complete() {
            assert_eq!(Root::of(&fs::read(beside(".pedlar-part")).expect("the part")), root);
        }
    }
}

/// The peers met before.
pub fn peers(data: &[u8]) {
    let file = file("peers.json");
    fs::write(&file, data).expect("a file");
    for addr in remembered::load(&file) {
        assert_eq!(addr.to_string().parse().ok(), Some(addr));
    }
}

/// Seed files, before the passphrase is tried: the bytes as they are, and as what follows a good magic and version.
pub fn seed(data: &[u8]) {
    for bytes in [data.to_vec(), [b"PDLRSEED\x01".as_slice(), data].concat()] {
        if let Ok(sealed) = Sealed::parse(&bytes) {
            assert!(sealed.memory_kib() <= 1 << 20, "{} KiB", sealed.memory_kib());
        }
    }
}

/// A file in the folder of this process, in memory where the system has such a place.
fn file(name: &str) -> PathBuf {
    folder().path().join(name)
}

/// The folder of this process.
pub(crate) fn folder() -> &'static TempDir {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder"))
}
