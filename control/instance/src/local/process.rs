//! Processes that a killed supervisor has left, told from later ones of the same id by their start times.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::supervisor::CHILDREN;

/// A process: ids come again, an id with its start time doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks after boot: field 22 of `/proc/PID/stat`, proc_pid_stat(5).
    pub start: u64,
}

/// A supervisor's children, as its [`CHILDREN`] file holds them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Children {
    /// The processes.
    pub processes: Vec<ProcessId>,
}

impl ProcessId {
    /// The living process of this id, if there is one.
    pub fn of(pid: u32) -> Option<ProcessId> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses and may contain anything; what follows the last one does not.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(ProcessId { pid, start })
    }

    /// True if it still runs.
    pub fn alive(self) -> bool {
        ProcessId::of(self.pid) == Some(self)
    }
}

impl Children {
    /// Notes the children in a supervisor's folder, whole or not at all.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let new = folder.join("children.json.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, folder.join(CHILDREN))
    }

    /// Those noted in a folder; none if nothing readable is there.
    pub fn read(folder: &Path) -> Children {
        let text = fs::read(folder.join(CHILDREN)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Kills what a dead supervisor has left running: its successor needs the ports.
///
/// # Errors
/// If a process can't be killed.
pub fn end_leftovers(folder: &Path) -> io::Result<()> {
    for process in Children::read(folder).processes {
        let Some(pid) = Pid::from_raw(process.pid as i32).filter(|_| process.alive()) else { continue };
        tracing::warn!(pid = process.pid, folder = %folder.display(), "killing a process left by a dead supervisor");
        // Children lead process groups of their own, so that what they have started goes with them.
        match kill_process_group(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_leftover_is_killed_and_a_stranger_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut leftover = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let known = ProcessId::of(leftover.id()).unwrap();
        let reused = ProcessId { start: 1, ..ProcessId::of(stranger.id()).unwrap() };
        Children { processes: vec![known, reused] }.write(folder.path()).unwrap();

        end_leftovers(folder.path()).unwrap();

        assert!(!leftover.wait().unwrap().success());
        assert!(!known.alive());
        assert!(stranger.try_wait().unwrap().is_none(), "another process that got an old id lives on");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn no_or_broken_notes_are_no_children() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Children::read(folder.path()), Children::default());
        fs::write(folder.path().join(CHILDREN), "{").unwrap();
        assert_eq!(Children::read(folder.path()), Children::default());
    }
}
