//! Power cuts at a chosen call of the system: `strace` looks at what a node does with some files, and ends it there.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

/// What is looked at: all that changes what a file is after a power cut.
const CALLS: &str = "openat,pwrite64,fsync,fdatasync,ftruncate,rename,unlink";

/// A call of the system, the so-manyeth of its name and its thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Counted from 1.
    pub number: u64,
}

/// `strace` with what it writes down and, where one is named, the call at which it kills; what it is to run, or to attach
/// to, is yet to be said. Nothing where there is no such program, and that is said.
pub async fn strace(files: impl IntoIterator<Item: AsRef<Path>>, trace: &Path, end: Option<&Call>) -> Option<Command> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().await.is_err() {
        eprintln!("SKIPPED: power cuts at chosen calls: there is no strace");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(trace).arg("-e").arg(format!("trace={CALLS}"));
    for file in files {
        strace.arg("-P").arg(file.as_ref());
    }
    if let Some(Call { name, number }) = end {
        strace.arg("-e").arg(format!("inject={name}:signal=SIGKILL:when={number}"));
    }
    strace.stdin(Stdio::null()).kill_on_drop(true);
    Some(strace)
}
