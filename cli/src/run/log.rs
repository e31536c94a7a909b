//! The log of an instance that Weir runs: what the supervisor, the proxy and the program write into one file.
//!
//! Each has the file open for appending, so it is not exchanged but copied and cut: the next line of any of them begins
//! the file anew. Lines written in the moment between are lost.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use weir_instance::local::{LOG, MAX_LOG};

use super::folder::Folder;

/// How often its length is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The log, if the instance's folder has one.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    look: Instant,
}

impl Log {
    /// The one in this folder.
    pub fn of(folder: &Folder) -> Log {
        Log { path: folder.path().join(LOG), look: Instant::now() + LOOK }
    }

    /// Resolves when the log is too long. Loses nothing when dropped.
    pub async fn grown(&mut self) {
        loop {
            sleep_until(self.look).await;
            self.look = Instant::now() + LOOK;
            if self.is_too_long() {
                return;
            }
        }
    }

    fn is_too_long(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| meta.len() > MAX_LOG)
    }

    /// Keeps what it holds under `.1`, and begins it anew.
    pub fn turn_over(&self) {
        if let Err(error) = self.copy_and_cut() {
            tracing::warn!(path = %self.path.display(), %error, "the log cannot be begun anew");
        }
    }

    fn copy_and_cut(&self) -> io::Result<()> {
        fs::copy(&self.path, self.path.with_added_extension("1"))?;
        OpenOptions::new().write(true).open(&self.path)?.set_len(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_that_grows_while_it_is_written_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log { path: dir.path().join(LOG), look: Instant::now() + LOOK };
        let mut writer = OpenOptions::new().create(true).append(true).open(&log.path).unwrap();
        writer.set_len(MAX_LOG).unwrap();
        assert!(!log.is_too_long());
        writer.write_all(b"!").unwrap();
        assert!(log.is_too_long());
        log.turn_over();
        writer.write_all(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "next\n");
        assert_eq!(fs::metadata(log.path.with_added_extension("1")).unwrap().len(), MAX_LOG + 1);
    }
}
