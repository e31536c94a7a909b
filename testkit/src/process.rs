//! A child process with captured output that leaves nothing behind.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::http;
use crate::wait::{LONG, eventually};

/// Every process carries this variable with a value of its own, and so do all that it starts, however detached.
const TAG: &str = "WEIR_TESTKIT_TAG";
/// Output beyond this many lines is dropped from the front.
const MAX_LINES: usize = 20_000;
/// Lines shown when a test fails.
const SHOWN_LINES: usize = 60;

/// A running program. Dropping it kills it and every process that descends from it; when the test is panicking,
/// the end of its output is printed.
pub struct Process {
    name: String,
    tag: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts it, called `name` in messages.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Process {
        static SPAWNED: AtomicU32 = AtomicU32::new(0);
        let count = SPAWNED.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}-{count}", std::process::id());
        let lines = Arc::default();
        let child = launch(name, &tag, &lines, command);
        Process { name: name.to_owned(), tag, child, lines }
    }

    /// Starts it again after its end, as the same one: output goes on, and what the earlier one left running still
    /// belongs to it.
    ///
    /// # Panics
    /// If it runs, or the program cannot be started.
    pub fn spawn_again(&mut self, command: &mut Command) {
        assert!(self.exited().is_some(), "{} runs", self.name);
        self.child = launch(&self.name, &self.tag, &self.lines, command);
    }

    /// Shorthand for a program with arguments and nothing else.
    ///
    /// # Panics
    /// As [`Process::spawn`].
    pub fn start<S: AsRef<OsStr>>(name: &str, program: impl AsRef<OsStr>, arguments: &[S]) -> Process {
        Process::spawn(name, Command::new(program).args(arguments))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All output so far, both streams, in order of arrival.
    pub fn output(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// True once nobody can print any more, neither it nor what it started, and all is captured: each reader holds a
    /// share of the lines until its stream ends.
    fn output_closed(&self) -> bool {
        Arc::strong_count(&self.lines) == 1
    }

    /// Waits until a line contains `text` and gives that line.
    ///
    /// # Panics
    /// After [`LONG`], or when its output ends without such a line.
    pub fn wait_line(&mut self, text: &str) -> String {
        let what = format!("{} prints {text:?}", self.name);
        eventually(&what, LONG, || {
            let closed = self.output_closed();
            let line = self.output().into_iter().find(|line| line.contains(text));
            assert!(line.is_some() || !closed, "not so: {what}; its output ended: {:?}", self.exited());
            line.ok_or_else(|| format!("{} lines of other output", self.output().len()))
        })
    }

    /// Waits until `GET path` is answered 200.
    ///
    /// # Panics
    /// After [`LONG`], or when the process ends first.
    pub fn wait_http(&mut self, address: SocketAddr, path: &str) -> http::Response {
        let what = format!("{} answers http://{address}{path} with 200", self.name);
        eventually(&what, LONG, || {
            let ended = self.exited();
            assert!(ended.is_none(), "not so: {what}; it ended: {ended:?}");
            match http::get(address, path) {
                Ok(answer) if answer.status == 200 => Ok(answer),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// After `deadline`.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, deadline, || self.exited().ok_or("it runs".to_owned()))
    }

    /// SIGTERM to it alone.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL to it alone, what it started runs on; waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.wait_exit(LONG);
        assert!(status.signal().is_some() || status.code().is_some());
    }

    /// Any signal to it alone; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // The child is not reaped but through `self`, so the number cannot belong to another; ended is fine.
        let _ended = kill_process(pid, signal);
    }

    /// It and the processes that descend from it, parents first, those that ended left out.
    ///
    /// Who was detached and lost its parent is known by its tag. A program that overwrites its environment (nginx
    /// puts its title there) loses the tag, and is known by its parent.
    pub fn family(&self) -> Vec<u32> {
        let all = processes();
        let tag = format!("{TAG}={}", self.tag);
        let is_child = |one: &Running| one.pid == self.pid() && one.parent == std::process::id();
        let mut family: Vec<u32> =
            all.iter().filter(|one| is_child(one) || carries(one.pid, &tag)).map(|one| one.pid).collect();
        let mut seen = 0;
        while let Some(parent) = family.get(seen).copied() {
            seen += 1;
            let children = all.iter().filter(|one| one.parent == parent);
            let new: Vec<_> = children.map(|one| one.pid).filter(|pid| !family.contains(pid)).collect();
            family.extend(new);
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let family = self.halted_family();
        family.iter().for_each(|pid| signal(*pid, Signal::KILL));
        // Bounded: only a process in an uninterruptible wait outlives SIGKILL, and no test should hang for it.
        for _ in 0..LAST_LOOKS {
            let _reaped = self.child.try_wait();
            if family.iter().all(|pid| running(*pid).is_none()) {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        if thread::panicking() {
            self.show();
        }
    }
}

/// Times to look whether the killed ones are gone, 2 ms apart.
const LAST_LOOKS: usize = 5_000;

impl Process {
    /// The family, stopped: one that runs could start another between being listed and being killed. The list is
    /// whole when a further look finds nobody new.
    fn halted_family(&self) -> Vec<u32> {
        let mut halted = Vec::new();
        for _ in 0..LAST_LOOKS {
            let new: Vec<_> = self.family().into_iter().filter(|pid| !halted.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            new.iter().for_each(|pid| signal(*pid, Signal::STOP));
            halted.extend(new);
        }
        halted
    }

    fn show(&self) {
        let lines = self.output();
        eprintln!("── end of the output of {} ──", self.name);
        for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
            eprintln!("{}: {line}", self.name);
        }
    }
}

fn launch(name: &str, tag: &str, lines: &Arc<Mutex<Vec<String>>>, command: &mut Command) -> Child {
    command.env(TAG, tag).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({:?}): {error}", command.get_program()));
    capture(child.stdout.take(), lines);
    capture(child.stderr.take(), lines);
    child
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ended = kill_process(pid, signal);
    }
}

/// A process that has not ended.
struct Running {
    pid: u32,
    parent: u32,
}

fn processes() -> Vec<Running> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| running(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// `/proc/PID/stat` is `PID (NAME) STATE PARENT ...`, and NAME may contain anything.
fn running(pid: u32) -> Option<Running> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(Running { pid, parent })
}

fn carries(pid: u32, tag: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == tag.as_bytes())
}

/// Reads a stream to its end on a thread of its own: a full pipe would stop the child.
fn capture(stream: Option<impl Read + Send + 'static>, lines: &Arc<Mutex<Vec<String>>>) {
    let (Some(stream), lines) = (stream, Arc::clone(lines)) else {
        return;
    };
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let mut lines = lines.lock().expect("no reader panics");
            lines.push(String::from_utf8_lossy(&line).into_owned());
            if lines.len() > MAX_LINES {
                lines.drain(..MAX_LINES / 2);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_lines_and_exit_code() {
        let mut shell = Process::start("sh", "sh", &["-c", "echo one; echo two >&2; exit 3"]);
        assert_eq!(shell.wait_line("two"), "two");
        assert_eq!(shell.wait_exit(LONG).code(), Some(3));
    }

    #[test]
    fn what_it_started_goes_with_it() {
        let script = "setsid sh -c 'echo detached; sleep 600' & exit 0";
        let mut shell = Process::start("sh", "sh", &["-c", script]);
        shell.wait_line("detached");
        shell.wait_exit(LONG);
        let family = shell.family();
        assert!(!family.is_empty(), "the detached one runs on");
        drop(shell);
        let left = family.iter().filter(|pid| running(**pid).is_some());
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_child_without_the_tag_is_known_by_its_parent() {
        let mut shell = Process::start("sh", "sh", &["-c", "env -i sh -c 'echo on; sleep 600' & wait"]);
        shell.wait_line("on");
        let family = shell.family();
        assert!(family.len() >= 2 && family[0] == shell.pid(), "{family:?}");
        drop(shell);
        assert!(family.into_iter().all(|pid| running(pid).is_none()));
    }

    #[test]
    #[should_panic(expected = "its output ended")]
    fn a_line_that_never_comes_is_told_at_once() {
        Process::start("true", "true", &[] as &[&str]).wait_line("never");
    }
}
