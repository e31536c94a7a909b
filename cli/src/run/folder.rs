//! The supervisor's folder: the socket, the locked pid file, the children's ids.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;
use weir_instance::local::{Children, ProcessId};
use weir_instance::supervisor::{PID_FILE, SOCKET, ShortPath};

/// The folder, held by this process alone as long as the value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Made by us under a name of our own: removed at the end.
    own: bool,
    _lock: File,
}

impl Folder {
    /// Takes the given folder, or makes one for the instance.
    pub fn take(given: Option<&Path>, instance: &str) -> Result<Folder, String> {
        let path = given.map(Path::to_owned).unwrap_or_else(|| default_folder(instance));
        let told = |error: io::Error| format!("folder {}: {error}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(told)?;
        let path = path.canonicalize().map_err(told)?;
        let told = |error: io::Error| format!("folder {}: {error}", path.display());
        private(&path)?;
        if let (None, Some(parent)) = (given, path.parent()) {
            // In the temporary folder anybody may have made it before us, to exchange what lies in it.
            private(parent)?;
        }
        let lock = lock(&path).map_err(told)?;
        let Some(lock) = lock else {
            return Err(format!("another supervisor runs in {}: stop it, or use another --folder", path.display()));
        };
        Ok(Folder { path, own: given.is_none(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the socket for orders, for the owner only.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let socket = ShortPath::new(&self.path, SOCKET)?;
        match fs::remove_file(socket.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket.path())?;
        fs::set_permissions(socket.path(), fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Notes who must not outlive this process.
    pub fn note_children(&self, pids: impl IntoIterator<Item = u32>) -> io::Result<()> {
        Children { processes: pids.into_iter().filter_map(ProcessId::of).collect() }.write(&self.path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path.join(SOCKET));
        if self.own {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn default_folder(instance: &str) -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("weir-{user}")).join(instance)
}

/// Whoever can reach the socket gives the orders: the folder must be ours alone.
fn private(path: &Path) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(|error| format!("folder {}: {error}", path.display()))?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw();
    if ours && meta.permissions().mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(format!("folder {} belongs to, or is open to, others: chmod 700 it, or use another --folder", path.display()))
}

/// The locked pid file; `None` if somebody else has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(PID_FILE));
    let mut file = open?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::take(Some(dir.path()), "a").unwrap();
        assert!(Folder::take(Some(dir.path()), "a").unwrap_err().contains("another supervisor"));
        assert!(weir_instance::supervisor::alive(dir.path()).unwrap());
        drop(first);
        assert!(!weir_instance::supervisor::alive(dir.path()).unwrap());
    }

    #[test]
    fn a_folder_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Folder::take(Some(dir.path()), "a").unwrap_err().contains("open to"));
    }
}
