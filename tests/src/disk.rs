//! Disks that fill up: small ones, mounted where nobody else sees them.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::{FallocateFlags, fallocate};

/// Set for the process in which a story with disks of its own is told.
const INSIDE: &str = "PEDLAR_OWN_MOUNTS";

/// The ballast is written in pieces of this many bytes, then byte by byte.
const PIECE: usize = 64 << 10;

/// Tells a story that mounts disks: in a process with mounts of its own, which end with it, whatever it ends with.
///
/// `name` is the test's full name. Where the system lets nobody mount anything the story is not told, and that is said.
pub fn tell<F: Future<Output = ()>>(name: &str, story: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Runtime::new().expect("a runtime").block_on(story());
    }
    let probe = apart(Path::new("mount"), &["-t", "tmpfs", "tmpfs", "/tmp"]);
    if !probe.as_ref().is_ok_and(|probe| probe.status.success()) {
        eprintln!("SKIPPED: {name}: nothing can be mounted here, not even apart: {probe:?}");
        return;
    }
    let me = std::env::current_exe().expect("this program");
    let told = apart(&me, &[name, "--exact", "--nocapture"]).expect("this program runs");
    print!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{name} fails: {}", told.status);
    assert!(String::from_utf8_lossy(&told.stdout).contains("1 passed"), "{name} is a test");
}

/// Runs a program with mounts of its own, as root of a user namespace unless it is root already.
fn apart(program: &Path, args: &[&str]) -> std::io::Result<Output> {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount").arg("--kill-child");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--user").arg("--map-root-user");
    }
    unshare.arg("--").arg(program).args(args).env(INSIDE, "1").stdin(Stdio::null()).output()
}

/// A disk of its own for one folder, which a story can fill and free.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of so many bytes over a folder, which is made. Only inside of [`tell`].
    pub fn mount(folder: PathBuf, bytes: u64) -> Self {
        assert!(std::env::var_os(INSIDE).is_some(), "mounts are made in a process of their own");
        fs::create_dir_all(&folder).expect("a folder");
        let size = format!("size={bytes},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).status();
        assert!(mounted.is_ok_and(|status| status.success()), "{} is mounted", folder.display());
        Self { folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Fills it to the last byte; what is tried in vain then fails for no other reason.
    pub fn fill(&self) {
        let mut ballast =
            OpenOptions::new().create(true).append(true).mode(0o600).open(self.ballast()).expect("a file");
        let mut written = 0;
        for piece in [&[7; PIECE][..], &[7]] {
            let refused = loop {
                match ballast.write(piece) {
                    Ok(bytes) => written += bytes,
                    Err(error) => break error,
                }
            };
            assert_eq!(refused.kind(), ErrorKind::StorageFull);
        }
        println!("{} is full, with {written} bytes of ballast", self.folder.display());
    }

    /// Takes the ballast away.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

/// Gives back the room that is reserved for the bytes of a file from `from` to `to`, as if its file system reserved
/// none: what is written there later needs room anew.
pub fn unreserve(file: &Path, from: u64, to: u64) {
    let file = File::options().write(true).open(file).expect("the file");
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, how, from, to - from).expect("a hole");
}
