//! What is looked at on this machine: the process, the settings, the files and their disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;
use pedlar_protocol::text::escape;
use pedlar_wallet::{FILE_NAME, OpenSeedError, Sealed};
use rustix::fs::statvfs;
use rustix::process::geteuid;

use super::Health;
use super::patient::Patient;

/// Bits of a mode that let somebody else in.
const OTHERS: u32 = 0o077;

/// Room that a node needs beside what a copy of its files takes: SQLite's logs grow to 4 MiB each before they are
/// written back, and a hash tree of a published GiB has 4 MiB.
const LEAST_ROOM: u64 = 16 << 20;

/// Whether a node runs; both is well.
pub(super) fn node(patient: &Patient) -> Vec<Health> {
    let home = &patient.home;
    vec![Health::well(match &patient.running {
        Some(vitals) => format!("{} runs in {home}", vitals.me),
        None => format!("none runs in {home}: its files are looked at"),
    })]
}

/// Whether the next start understands its settings.
pub(super) fn config(patient: &Patient) -> Vec<Health> {
    let file = patient.home.config_file();
    vec![match &patient.config {
        Ok(_) if file.exists() => Health::well(format!("{} is understood", file.display())),
        Ok(_) => Health::well("all settings have their defaults"),
        Err(failure) => Health::ill(
            escape(&failure.message).to_string(),
            format!("edit {} or the variable that it names; `pedlar config show --origin` shows all", file.display()),
        ),
    }]
}

/// Whether the words are there, and the passphrase opens them where it is known.
pub(super) fn seed(patient: &Patient) -> Vec<Health> {
    let path = patient.home.seed();
    let sealed = fs::read(&path).map_err(OpenSeedError::Io).and_then(|bytes| Sealed::parse(&bytes).map(drop));
    vec![match (sealed, &patient.opened) {
        (Ok(()), Some(Err(error))) => Health::ill(error.to_string(), "give the right one: --passphrase-file FILE"),
        (Ok(()), Some(Ok(()))) => Health::well("the passphrase opens the words"),
        (Ok(()), None) => Health::well("the encrypted words are there"),
        (Err(error), _) => {
            let aside = if path.exists() { format!("mv {0} {0}.damaged && ", quoted(&path)) } else { String::new() };
            let hint = format!("restore the words: {aside}pedlar init --restore --words-file FILE");
            Health::ill(format!("{}: {error}", shown(&path)), hint)
        }
    }]
}

/// Whether all that a home holds is its owner's alone.
pub(super) fn permissions(patient: &Patient) -> Vec<Health> {
    let owner = geteuid().as_raw();
    let (mut open, mut foreign, mut seen) = (Vec::new(), Vec::new(), 0);
    for path in patient.home.folders().into_iter().flat_map(walk) {
        // What went away in the meantime, and what leads elsewhere, is open to nobody.
        let Some(found) = fs::symlink_metadata(&path).ok().filter(|found| !found.is_symlink()) else { continue };
        seen += 1;
        if found.uid() != owner {
            foreign.push(path);
        } else if found.permissions().mode() & OTHERS != 0 {
            open.push((path, found.permissions().mode() & 0o777));
        }
    }
    let folders: Vec<String> = patient.home.folders().iter().map(|folder| quoted(folder)).collect();
    vec![match (open.first(), foreign.first()) {
        (Some((path, mode)), _) => Health::ill(
            format!(
                "{} of {seen} files and folders are open to others, {} (0{mode:o}) for one",
                open.len(),
                shown(path)
            ),
            format!("chmod -R go= {}", folders.join(" ")),
        ),
        (None, Some(path)) => Health::ill(
            format!("{} of {seen} files and folders belong to another user, {} for one", foreign.len(), shown(path)),
            format!("as that user or as root: chown -R {owner} {}", folders.join(" ")),
        ),
        (None, None) => Health::well(format!("{seen} files and folders are their owner's alone")),
    }]
}

/// Whether the disks of the home have room for what a node writes there.
pub(super) fn space(patient: &Patient) -> Vec<Health> {
    let home = &patient.home;
    let len = |path: PathBuf| fs::metadata(path).map_or(0, |file| file.len());
    // A newer version copies both files before it changes them.
    let need = LEAST_ROOM + len(home.journal()) + len(home.wallet().join(FILE_NAME));
    let short = home.folders().into_iter().find_map(|folder| {
        let disk = statvfs(folder).ok()?;
        // Some network file systems do not know their size and say 0.
        let free = (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))?;
        (free < need).then_some((folder, free))
    });
    let trouble = patient.running.as_ref().and_then(|vitals| vitals.trouble.as_ref());
    vec![match (short, trouble) {
        (Some((folder, free)), _) => Health::ill(
            format!("{} has {} left, a node needs {}", folder.display(), BinaryBytes(free), BinaryBytes(need)),
            format!("make room on the disk of {}; a node that runs goes on by itself", folder.display()),
        ),
        (None, Some(trouble)) => Health::ill(
            format!("something can't be written: {trouble}"),
            format!("see whether the disk of {home} is read-only or broken; the node goes on by itself once it can"),
        ),
        (None, None) => Health::well(format!("there is room for {} and more", BinaryBytes(need))),
    }]
}

/// Every file and folder in a folder, itself included; what can't be listed is left out.
fn walk(folder: &Path) -> Vec<PathBuf> {
    // A home may be reached through a link; what leads out of it is not followed.
    let mut found = vec![folder.canonicalize().unwrap_or_else(|_| folder.to_owned())];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            found.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found
}

/// A path as a person is shown it.
pub(super) fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy()).to_string()
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", shown(path).replace('\'', r"'\''"))
}
