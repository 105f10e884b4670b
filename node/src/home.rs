//! Where a node keeps its things: one folder, or the XDG folders of its user.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Folders are for their owner alone: file names tell what is sold and bought.
const FOLDER_MODE: u32 = 0o700;
/// Files likewise.
pub(crate) const FILE_MODE: u32 = 0o600;

/// The folders of one node; nothing is made before [`Home::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    state: PathBuf,
}

impl Home {
    /// Everything in `dir` where it is given, else in the XDG folders (`env` reads the environment).
    ///
    /// Source: XDG Base Directory Specification 0.8, which also says that a relative folder is to be ignored.
    ///
    /// # Errors
    /// [`NoHome`] when neither `dir` nor `HOME` says where.
    pub fn resolve(dir: Option<&Path>, env: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, NoHome> {
        if let Some(dir) = dir {
            let dir = std::path::absolute(dir).map_err(|_| NoHome)?;
            return Ok(Self { config: dir.clone(), data: dir.clone(), state: dir });
        }
        let absolute = |name| env(name).filter(|path| path.is_absolute());
        let folder = |variable, default| {
            let base = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(default)));
            base.map(|base| base.join("pedlar")).ok_or(NoHome)
        };
        Ok(Self {
            config: folder("XDG_CONFIG_HOME", ".config")?,
            data: folder("XDG_DATA_HOME", ".local/share")?,
            state: folder("XDG_STATE_HOME", ".local/state")?,
        })
    }

    /// Makes the folders that are missing and closes all of them to others.
    ///
    /// # Errors
    /// What the system says, with the folder.
    pub fn create(&self) -> io::Result<()> {
        for folder in [&self.config, &self.data, &self.state, &self.outboards(), &self.blobs()] {
            let make = || {
                DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
                fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
            };
            make().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))?;
        }
        Ok(())
    }

    /// The folders, each once.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        let mut folders = vec![self.config.as_path(), &self.data, &self.state];
        folders.dedup();
        folders
    }

    /// Takes the home for this process, until the lock is dropped or the process ends in whatever way.
    ///
    /// # Errors
    /// [`LockError::Taken`] while another process has it.
    pub fn lock(&self) -> Result<HomeLock, LockError> {
        let path = self.state.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(HomeLock { home: self.clone(), _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken),
            Err(TryLockError::Error(e)) => Err(LockError::Io(e)),
        }
    }

    /// The settings, written by people.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The encrypted words.
    #[must_use]
    pub fn seed(&self) -> PathBuf {
        self.data.join("seed")
    }

    /// Present where the words were restored: their coins are then searched for when the wallet's file is made.
    #[must_use]
    pub fn restored_mark(&self) -> PathBuf {
        self.data.join("restored")
    }

    /// The folder of the wallet's own files.
    #[must_use]
    pub fn wallet(&self) -> &Path {
        &self.data
    }

    /// Accounts, payments and what is published.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.data.join("journal.sqlite")
    }

    /// Hash trees of published files.
    #[must_use]
    pub fn outboards(&self) -> PathBuf {
        self.data.join("outboards")
    }

    /// Copies of published files.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.data.join("blobs")
    }

    /// Addresses of peers met before.
    #[must_use]
    pub fn peers(&self) -> PathBuf {
        self.state.join("peers.json")
    }

    /// The socket of the running node.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state.join("api.sock")
    }

    /// Whether words were put here by `init`.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.seed().exists()
    }
}

/// Prints the folder; of the XDG folders the one with the data.
impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data.display().fmt(f)
    }
}

/// The proof that a home is this process's own; the system takes it back when the process dies.
#[derive(Debug)]
pub struct HomeLock {
    home: Home,
    _file: File,
}

impl HomeLock {
    /// The home that is held.
    #[must_use]
    pub const fn home(&self) -> &Home {
        &self.home
    }
}

/// There is no folder to keep things in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no home: neither --home nor PEDLAR_HOME nor HOME names a folder")]
pub struct NoHome;

/// Why a home could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another node runs in this home")]
    Taken,
    /// The system refuses the lock file.
    #[error("the lock file can't be used: {0}")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn one_folder_holds_everything_else_xdg_does() {
        let one = Home::resolve(Some(Path::new("/srv/pedlar")), |_| None).unwrap();
        assert_eq!(one.config_file(), Path::new("/srv/pedlar/config.toml"));
        assert_eq!(one.socket(), Path::new("/srv/pedlar/api.sock"));

        let env = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/home/ann")),
            "XDG_STATE_HOME" => Some(PathBuf::from("/run/ann")),
            "XDG_DATA_HOME" => Some(PathBuf::from("relative")),
            _ => None,
        };
        let xdg = Home::resolve(None, env).unwrap();
        assert_eq!(xdg.config_file(), Path::new("/home/ann/.config/pedlar/config.toml"));
        assert_eq!(xdg.seed(), Path::new("/home/ann/.local/share/pedlar/seed"));
        assert_eq!(xdg.socket(), Path::new("/run/ann/pedlar/api.sock"));
        assert_eq!(Home::resolve(None, |_| None), Err(NoHome));
    }

    #[test]
    fn folders_are_closed_to_others_also_where_they_were_open() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("home");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let home = Home::resolve(Some(&open), |_| None).unwrap();
        home.create().unwrap();
        assert_eq!([mode(&open), mode(&home.blobs())], [0o700, 0o700]);
    }

    #[test]
    fn a_home_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(dir.path()), |_| None).unwrap();
        let lock = home.lock().unwrap();
        assert!(matches!(home.lock(), Err(LockError::Taken)));
        drop(lock);
        assert!(home.lock().is_ok());
        assert_eq!(mode(&dir.path().join("lock")), 0o600);
    }
}
