//! Publishing a folder: its regular files where they lie, and the manifest among our own blobs.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, FileType};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use pedlar_protocol::content::{Collection, CollectionEntry, CollectionError, EntryPath, MAX_ENTRIES, Root, Size};
use tempfile::NamedTempFile;

use crate::blobs::name::name_of;
use crate::blobs::publish::{at, keep_copy};
use crate::blobs::{PublishError, PublishedBlob, publish, publish_copy};

/// A folder that is for sale.
#[derive(Debug)]
pub struct PublishedFolder {
    /// Its manifest, one of our own blobs; called as the folder is.
    pub manifest: PublishedBlob,
    /// Where it lies: absolute, without symbolic links.
    pub path: PathBuf,
    /// What it holds.
    pub collection: Collection,
    /// Each different file that has bytes, once.
    pub files: Vec<PublishedBlob>,
    /// What is no part of it.
    pub skipped: Vec<Skipped>,
}

/// Something in a folder that is not published with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is.
    pub what: &'static str,
}

/// Publishes the folder at `path`: its files lie where they are, or are copied to the folder `blobs`, where its manifest
/// is kept, too; their hash trees go to the folder `outboards`.
///
/// `progress` is called with the bytes done so far and those of all files, and may stop the work.
///
/// # Errors
/// See [`PublishError`]; what was hashed by then is only disk space, and is used when the folder is published again.
pub fn publish_folder(
    path: &Path,
    copy: bool,
    blobs: &Path,
    outboards: &Path,
    mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<PublishedFolder, PublishError> {
    let path = path.canonicalize().map_err(at("finding", path))?;
    if outboards.canonicalize().is_ok_and(|ours| ours.starts_with(&path)) {
        return Err(PublishError::OwnHome(path));
    }
    let Found { files, skipped } = find(&path)?;
    check(&files)?;
    let total = files.iter().map(|file| file.len).sum();
    let (mut done, mut entries) = (0, Vec::with_capacity(files.len()));
    let mut published = BTreeMap::new();
    for FoundFile { path, at, len } in files {
        // An empty file is known by its name alone: nothing of it is ever sold.
        if len == 0 {
            let size = Size::new(len).ok_or(PublishError::TooLarge(len))?;
            entries.push(CollectionEntry { path, size, root: Root::of(&[]) });
            continue;
        }
        let so_far = |bytes| progress(done + bytes, total);
        let blob = publish_file(&at, copy, blobs, outboards, so_far)?;
        done += len;
        entries.push(CollectionEntry { path, size: blob.size, root: blob.root });
        published.entry(blob.root).or_insert(blob);
    }
    let collection = Collection::new(entries)?;
    let manifest = publish_manifest(&path, &collection, blobs, outboards)?;
    Ok(PublishedFolder { manifest, path, collection, files: published.into_values().collect(), skipped })
}

struct Found {
    files: Vec<FoundFile>,
    skipped: Vec<Skipped>,
}

struct FoundFile {
    path: EntryPath,
    at: PathBuf,
    len: u64,
}

/// Every regular file under `root`, whose path may stand in a collection; symbolic links are not followed.
fn find(root: &Path) -> Result<Found, PublishError> {
    let mut found = Found { files: Vec::new(), skipped: Vec::new() };
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut children = fs::read_dir(&folder).map_err(at("reading", &folder))?.peekable();
        if children.peek().is_none() {
            found.skipped.push(Skipped { path: folder.clone(), what: "an empty folder" });
        }
        for child in children {
            let child = child.map_err(at("reading", &folder))?;
            let kind = child.file_type().map_err(at("reading", &child.path()))?;
            match kind {
                _ if kind.is_dir() => folders.push(child.path()),
                _ if kind.is_file() => found.files.push(regular(root, &child)?),
                _ => found.skipped.push(Skipped { path: child.path(), what: what(kind) }),
            }
            if found.files.len() > MAX_ENTRIES {
                return Err(CollectionError::TooManyEntries(found.files.len()).into());
            }
        }
    }
    found.skipped.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Refuses files that can't be in one collection, whatever their roots are: not after hours of hashing.
fn check(files: &[FoundFile]) -> Result<(), PublishError> {
    let entry = |FoundFile { path, len, .. }: &FoundFile| {
        let size = Size::new(*len).ok_or(PublishError::TooLarge(*len))?;
        let root = Root::of(if *len == 0 { b"" } else { path.as_str().as_bytes() });
        Ok(CollectionEntry { path: path.clone(), size, root })
    };
    Collection::new(files.iter().map(entry).collect::<Result<_, PublishError>>()?)?;
    Ok(())
}

fn regular(root: &Path, child: &DirEntry) -> Result<FoundFile, PublishError> {
    let place = child.path();
    let relative = place.strip_prefix(root).unwrap_or(&place);
    let path = EntryPath::from_bytes(relative.as_os_str().as_bytes());
    let path = path.map_err(|error| PublishError::Path { path: place.clone(), error })?;
    let len = child.metadata().map_err(at("reading", &place))?.len();
    Ok(FoundFile { path, at: place, len })
}

fn what(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_symlink() => "a symbolic link",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_fifo() => "a pipe",
        _ => "a device",
    }
}

fn publish_file(
    path: &Path,
    copy: bool,
    blobs: &Path,
    outboards: &Path,
    progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<PublishedBlob, PublishError> {
    // A link that was put in its place since may lead anywhere.
    if path.canonicalize().map_err(at("finding", path))? != path {
        return Err(PublishError::Changed(path.to_owned()));
    }
    match copy {
        true => publish_copy(path, blobs, outboards, progress),
        false => publish(path, outboards, progress),
    }
}

fn publish_manifest(
    folder: &Path,
    collection: &Collection,
    blobs: &Path,
    outboards: &Path,
) -> Result<PublishedBlob, PublishError> {
    let mut manifest = NamedTempFile::new_in(blobs).map_err(at("writing", blobs))?;
    manifest.write_all(&collection.encode()).map_err(at("writing", blobs))?;
    let kept = keep_copy(manifest, blobs, outboards, |_| ControlFlow::Continue(()))?;
    Ok(PublishedBlob { name: name_of(folder, kept.root), ..kept })
}
