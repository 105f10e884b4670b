//! Folders on disk: what is published of them, and how they come back.

use std::ffi::OsStr;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use pedlar_protocol::content::{Collection, CollectionEntry, CollectionError, EntryPath, PathError, Root, Size};

use super::download::{FolderDownload, part_of};
use super::*;
use crate::blobs::{BlobReader, FinishError, OpenError, PublishError};

/// What the folder of most tests holds: nested, empty, and twice the same.
const FILES: [(&str, &[u8]); 5] =
    [("a.txt", b"one"), ("b/c/d.txt", b"two"), ("b/empty", b""), ("b/same", b"one"), ("ü ~", b"three")];

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["blobs", "outboards"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn folder(&self, files: &[(&str, &[u8])]) -> PathBuf {
        for (path, bytes) in files {
            let path = self.path("folder").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        self.path("folder")
    }

    fn publish(&self, folder: &Path, copy: bool) -> Result<PublishedFolder, PublishError> {
        let mut last = (0, 0);
        let published = publish_folder(folder, copy, &self.path("blobs"), &self.path("outboards"), |done, total| {
            assert!(done >= last.0 && done <= total);
            last = (done, total);
            ControlFlow::Continue(())
        });
        if let Ok(published) = &published {
            assert_eq!(last, (published.collection.size().bytes(), published.collection.size().bytes()));
        }
        published
    }

    fn open(&self) -> Result<FolderDownload, OpenError> {
        FolderDownload::open(root(), &self.path("bought"))
    }

    /// All objects of the folder, as if they had been bought.
    fn bought(&self) -> FolderDownload {
        let download = self.open().unwrap();
        for (_, bytes) in FILES.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            fs::write(download.object(&Root::of(bytes)), bytes).unwrap();
        }
        download
    }

    fn assert_bought(&self) {
        for (path, bytes) in FILES {
            assert_eq!(fs::read(self.path("bought").join(path)).unwrap(), bytes, "{path}");
        }
        assert!(!part_of(&self.path("bought")).exists());
    }
}

fn collection() -> Collection {
    let entry = |(path, bytes): &(&str, &[u8])| CollectionEntry {
        path: EntryPath::new(*path).unwrap(),
        size: Size::new(bytes.len() as u64).unwrap(),
        root: Root::of(bytes),
    };
    Collection::new(FILES.iter().map(entry).collect()).unwrap()
}

fn root() -> Root {
    Root::of(&collection().encode())
}

#[test]
fn the_regular_files_of_a_folder_are_published_and_all_else_is_named() {
    let desk = Desk::new();
    let folder = desk.folder(&FILES);
    fs::create_dir(folder.join("nothing")).unwrap();
    symlink("/etc/passwd", folder.join("b/link")).unwrap();
    let _socket = UnixListener::bind(folder.join("b/socket")).unwrap();
    let published = desk.publish(&folder, false).unwrap();
    assert_eq!(published.collection, collection());
    assert_eq!((published.manifest.root, published.manifest.name.as_str()), (root(), "folder"));
    assert_eq!(fs::read(&published.manifest.path).unwrap(), collection().encode());
    let skipped = |path: &str, what| Skipped { path: folder.join(path), what };
    let expected =
        [skipped("b/link", "a symbolic link"), skipped("b/socket", "a socket"), skipped("nothing", "an empty folder")];
    assert_eq!(published.skipped, expected);
    assert_eq!(published.files.len(), 3, "each different file that has bytes");
    for blob in &published.files {
        assert!(blob.path.starts_with(&folder), "it is sold from where it lies");
        BlobReader::open(blob).unwrap();
    }
}

#[test]
fn copies_stay_when_the_folder_goes() {
    let desk = Desk::new();
    let folder = desk.folder(&FILES);
    let published = desk.publish(&folder, true).unwrap();
    assert_eq!(desk.publish(&folder, true).unwrap().files, published.files, "one copy does for all who sell it");
    fs::remove_dir_all(folder).unwrap();
    for blob in &published.files {
        BlobReader::open(blob).unwrap();
    }
}

#[test]
fn folders_that_cannot_be_sold_say_why() {
    let desk = Desk::new();
    let folder = desk.folder(&[]);
    fs::create_dir(&folder).unwrap();
    let refused = || desk.publish(&folder, false).unwrap_err();
    assert!(matches!(refused(), PublishError::Folder(CollectionError::Empty)));
    for (name, why) in [(b"a\\b".as_slice(), PathError::Backslash), (b"a\xff", PathError::Encoding)] {
        let path = folder.join(OsStr::from_bytes(name));
        fs::write(&path, b"x").unwrap();
        assert!(matches!(refused(), PublishError::Path { path: at, error } if at == path && error == why));
        fs::remove_file(path).unwrap();
    }
    let all = desk.publish(&desk.path("."), false).unwrap_err();
    assert!(matches!(all, PublishError::OwnHome(_)), "{all}");
    desk.folder(&[("Read.me", b"x"), ("READ.me", b"y")]);
    let text = refused().to_string();
    assert!(text.contains("Read.me") && text.contains("READ.me"), "{text}");
}

#[test]
fn a_folder_is_laid_out_when_all_is_there_and_only_then() {
    let desk = Desk::new();
    let download = desk.bought();
    assert!(collection().objects().into_iter().all(|entry| download.has(entry)));
    fs::write(download.object(&root()), collection().encode()).unwrap();
    assert_eq!(download.manifest(&root()).unwrap().unwrap(), collection().encode());
    let missing = download.object(&Root::of(b"two"));
    fs::rename(&missing, desk.path("aside")).unwrap();
    assert!(matches!(download.finish(&collection()), Err(FinishError::Write { .. })));
    assert!(!desk.path("bought").exists());

    // As after a crash in the middle of it: what has its place counts as there.
    let download = desk.open().unwrap();
    let has =
        |text: &str| collection().objects().into_iter().any(|entry| entry.path.as_str() == text && download.has(entry));
    assert_eq!([has("a.txt"), has("b/c/d.txt")], [true, false]);
    fs::rename(desk.path("aside"), missing).unwrap();
    assert_eq!(download.finish(&collection()).unwrap(), desk.path("bought"));
    desk.assert_bought();
}

#[test]
fn a_damaged_manifest_is_bought_again() {
    let desk = Desk::new();
    let download = desk.open().unwrap();
    assert_eq!(download.manifest(&root()).unwrap(), None);
    fs::write(download.object(&root()), b"other").unwrap();
    assert_eq!(download.manifest(&root()).unwrap(), None);
    assert!(!download.object(&root()).exists());
}

#[test]
fn what_is_not_ours_stays_as_it_is() {
    let desk = Desk::new();
    let (dest, part) = (desk.path("bought"), part_of(&desk.path("bought")));
    let busy = desk.open().unwrap();
    assert!(matches!(desk.open(), Err(OpenError::Busy(_))));
    drop(busy);
    desk.open().unwrap();
    let other = FolderDownload::open(Root::of(b"other"), &dest);
    assert!(matches!(other, Err(OpenError::Foreign(_))), "another folder's");
    fs::remove_dir_all(&part).unwrap();

    fs::create_dir(&part).unwrap();
    fs::write(part.join("precious"), b"x").unwrap();
    assert!(matches!(desk.open(), Err(OpenError::Foreign(_))), "somebody's folder");
    assert_eq!(fs::read_dir(&part).unwrap().count(), 1);
    fs::remove_dir_all(&part).unwrap();

    fs::write(&part, b"x").unwrap();
    assert!(matches!(desk.open(), Err(OpenError::Foreign(_))), "somebody's file");
    fs::remove_file(&part).unwrap();

    fs::create_dir(desk.path("elsewhere")).unwrap();
    symlink(desk.path("elsewhere"), &part).unwrap();
    assert!(matches!(desk.open(), Err(OpenError::Foreign(_))), "a way out");
    assert_eq!(fs::read_dir(desk.path("elsewhere")).unwrap().count(), 0);
    fs::remove_file(&part).unwrap();

    let download = desk.bought();
    fs::write(&dest, b"precious").unwrap();
    assert!(matches!(desk.open(), Err(OpenError::Exists(_))));
    assert!(matches!(download.finish(&collection()), Err(FinishError::Exists { .. })));
    assert_eq!(fs::read(&dest).unwrap(), b"precious");
    fs::remove_file(&dest).unwrap();
    desk.open().unwrap().finish(&collection()).unwrap();
    desk.assert_bought();
}

#[test]
fn no_symbolic_link_leads_a_file_out_of_its_folder() {
    let desk = Desk::new();
    let download = desk.bought();
    let files = part_of(&desk.path("bought")).join("files");
    fs::create_dir(desk.path("outside")).unwrap();
    fs::create_dir(&files).unwrap();
    symlink(desk.path("outside"), files.join("b")).unwrap();
    assert!(matches!(download.finish(&collection()), Err(FinishError::Write { .. })));
    assert_eq!(fs::read_dir(desk.path("outside")).unwrap().count(), 0);
    fs::remove_file(files.join("b")).unwrap();

    // Nor is one written through where a file should be.
    fs::write(desk.path("outside/target"), b"precious").unwrap();
    symlink(desk.path("outside/target"), files.join("ü ~")).unwrap();
    assert!(matches!(desk.open().unwrap().finish(&collection()), Err(FinishError::Write { .. })));
    assert_eq!(fs::read(desk.path("outside/target")).unwrap(), b"precious");
    assert!(!desk.path("bought").exists());
}
