//! The data folder: private to its user, and to one control plane at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::config::{Config, Storage};
use crate::error::StartError;

/// The locked folder; the lock goes with it, or with the process.
pub(crate) struct Folder {
    _lock: File,
}

/// Makes and locks the folder; a control plane that keeps nothing and runs nothing needs none.
pub(crate) fn open(config: &Config) -> Result<Option<Folder>, StartError> {
    if config.storage == Storage::Memory && config.supervisor.is_none() {
        return Ok(None);
    }
    let folder = &config.data;
    let failed = |source| StartError::Data { what: format!("the data folder {}", folder.display()), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let mut lock = lock_file(folder).map_err(failed)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(StartError::InUse { folder: folder.clone(), holder: holder(&mut lock) });
    }
    note_pid(&mut lock).map_err(failed)?;
    Ok(Some(Folder { _lock: lock }))
}

fn lock_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join("control.lock"))
}

fn note_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())
}

fn holder(lock: &mut File) -> String {
    let mut pid = String::new();
    let _best_effort = lock.take(32).read_to_string(&mut pid);
    if pid.trim().is_empty() { "unknown process".to_owned() } else { format!("process {}", pid.trim()) }
}
