//! Sockets in the file system: closed to others, and at paths longer than a socket address.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::home::FILE_MODE;

/// The longest path that fits a socket address, which has 108 bytes and ends in NUL (unix(7)).
const MAX_PATH: usize = 107;

/// The listening end of a socket, for its owner alone; its file goes with it.
pub struct Listener {
    inner: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds a socket at `path`, however long that is; one that is there must be known to be left by a dead process.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let near = Near::to(path)?;
        let inner = UnixListener::bind(&near.path)?;
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE))?;
        Ok(Self { inner, path: path.to_owned() })
    }

    /// The next client.
    ///
    /// # Errors
    /// What the system says; the next call may succeed.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.inner.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The next one would replace it anyway.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to the socket at `path`, however long that is.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` where nobody listens.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let near = Near::to(path)?;
    UnixStream::connect(&near.path).await
}

/// A path short enough for a socket address, valid while this value lives.
struct Near {
    path: PathBuf,
    _folder: Option<File>,
}

impl Near {
    /// A long path is taken through its open folder: `/proc/self/fd/<folder>/<name>`.
    fn to(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() <= MAX_PATH {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}
