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

/// Who serves from this data folder now, in words; `None`: nobody.
///
/// # Errors
/// If the folder cannot be looked at.
pub fn served_by(folder: &Path) -> io::Result<Option<String>> {
    let mut lock = match OpenOptions::new().read(true).open(folder.join("control.lock")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock?,
    };
    let free = flock(&lock, FlockOperation::NonBlockingLockShared).is_ok();
    Ok((!free).then(|| holder(&mut lock)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_says_who_serves_from_it() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        assert_eq!(served_by(folder.path()).expect("readable"), None, "nobody ever has");
        let lock = lock_file(folder.path()).expect("writable");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("it is free");
        let mut held = lock;
        note_pid(&mut held).expect("writable");
        let own = format!("process {}", std::process::id());
        assert_eq!(served_by(folder.path()).expect("readable"), Some(own));
        drop(held);
        assert_eq!(served_by(folder.path()).expect("readable"), None);
    }
}
