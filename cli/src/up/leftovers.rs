//! Instances in the data folder, told from their supervisors' locks: those of this run, and those of one that was
//! killed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use weir_instance::supervisor::{self, Request};

/// How long all of them together may take to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks: another process's end gives no event to wait on.
const LOOK: Duration = Duration::from_millis(50);

/// The folder of instances.
pub struct Instances {
    folder: PathBuf,
}

impl Instances {
    /// Those of a data folder.
    pub fn of(data: &Path) -> Instances {
        Instances { folder: data.join("instances") }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folders of instances whose supervisors live.
    pub fn running(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut running = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if supervisor::alive(&path)? {
                running.push(path);
            }
        }
        Ok(running)
    }

    /// Stops all that run, in order and side by side; gives how many there were.
    pub async fn stop_all(&self) -> usize {
        let running = self.running().unwrap_or_default();
        let all = join_all(running.iter().map(|folder| stop(folder)));
        let _ = tokio::time::timeout(PATIENCE, all).await;
        running.len()
    }
}

/// Asks until it is gone: it may be just starting, and not listen yet.
async fn stop(folder: &Path) {
    while supervisor::alive(folder).unwrap_or(false) {
        let _ = supervisor::call(folder, &Request::Stop).await;
        tokio::time::sleep(LOOK).await;
    }
}
