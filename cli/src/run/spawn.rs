//! Starting children: a proxy that inherits sockets, and anything that must not outlive us.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::sockets::Listening;

/// The first inherited descriptor, `SD_LISTEN_FDS_START` of sd_listen_fds(3).
const FIRST: RawFd = 3;
/// Inherited sockets are kept above this while they are moved to their places.
const ABOVE: RawFd = 256;

/// Prepares a child that leads a process group of its own, and gets SIGTERM when this process dies.
pub fn child(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).process_group(0);
    let parent = std::process::id();
    // SAFETY: prctl and getppid are system calls that touch no memory: async-signal-safe.
    unsafe { command.pre_exec(move || die_with(parent)) };
    command
}

/// Starts a proxy that inherits `sockets` by the socket activation protocol, sd_listen_fds(3).
///
/// `LISTEN_PID` must hold the child's own id, which is known only after the fork, where nothing may allocate. So the
/// argument and environment arrays are built before it, the digits are written into their place after it, and execve is
/// called from there.
pub fn proxy(path: &str, args: &[String], env: &BTreeMap<String, String>, sockets: &[Listening]) -> io::Result<Child> {
    let moved: Vec<OwnedFd> = sockets.iter().map(|s| move_up(&s.socket)).collect::<io::Result<_>>()?;
    let places: Vec<(RawFd, RawFd)> = (FIRST..).zip(&moved).map(|(to, from)| (from.as_raw_fd(), to)).collect();
    let mut image = Image::new(path, args, env, sockets)?;
    let mut command = child(OsStr::new(path));
    let exec = move || {
        for (from, to) in &places {
            // SAFETY: dup2 is a system call on plain numbers. `from` is open (`moved` lives until after the spawn), and
            // `to` belongs to nothing that this child still needs (see `fill_below`).
            if unsafe { libc::dup2(*from, *to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Err(image.exec())
    };
    // SAFETY: the closure makes system calls and writes into memory allocated before the fork: async-signal-safe.
    unsafe { command.pre_exec(exec) };
    let _occupied = fill_below(FIRST + sockets.len() as RawFd)?;
    command.spawn()
}

/// What execve is given.
struct Image {
    path: CString,
    _args: Vec<CString>,
    /// `NAME=value` with a NUL at the end; the first is `LISTEN_PID=` and room for the digits.
    env: Vec<Vec<u8>>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

// SAFETY: the pointers point into heap memory that the same value owns and never moves.
unsafe impl Send for Image {}
// SAFETY: likewise; shared references give no access.
unsafe impl Sync for Image {}

const PID_VARIABLE: &[u8] = b"LISTEN_PID=";
/// Digits of the largest process id, and the NUL.
const PID_ROOM: usize = 11;

impl Image {
    fn new(path: &str, args: &[String], env: &BTreeMap<String, String>, sockets: &[Listening]) -> io::Result<Image> {
        let path = CString::new(path)?;
        let args: Vec<CString> = std::iter::once(Ok(path.clone()))
            .chain(args.iter().map(|a| CString::new(a.as_str())))
            .collect::<Result<_, _>>()?;
        let mut argv: Vec<*const c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
        argv.push(std::ptr::null());
        let env = environment(env, sockets)?;
        let mut envp: Vec<*const c_char> = env.iter().map(|entry| entry.as_ptr().cast()).collect();
        envp.push(std::ptr::null());
        Ok(Image { path, _args: args, env, argv, envp })
    }

    /// Becomes the program, or says why not. Allocates nothing.
    fn exec(&mut self) -> io::Error {
        // SAFETY: getpid touches no memory.
        let pid = unsafe { libc::getpid() } as u32;
        write_digits(&mut self.env[0][PID_VARIABLE.len()..], pid);
        // SAFETY: path, argv and envp are NUL-terminated and owned by `self`; the arrays end with a null pointer.
        unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

fn environment(extra: &BTreeMap<String, String>, sockets: &[Listening]) -> io::Result<Vec<Vec<u8>>> {
    let names: Vec<&str> = sockets.iter().map(|s| s.name.as_str()).collect();
    let mut env: BTreeMap<Vec<u8>, Vec<u8>> = std::env::vars_os()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .chain(extra.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())))
        .collect();
    env.insert(b"LISTEN_FDS".to_vec(), sockets.len().to_string().into_bytes());
    env.insert(b"LISTEN_FDNAMES".to_vec(), names.join(":").into_bytes());
    env.remove(&b"LISTEN_PID"[..]);
    let mut entries = vec![[PID_VARIABLE, &[0; PID_ROOM]].concat()];
    for (name, value) in env {
        entries.push(CString::new([&name[..], b"=", &value[..]].concat())?.into_bytes_with_nul());
    }
    Ok(entries)
}

/// Writes a number in decimal and a NUL.
fn write_digits(place: &mut [u8], number: u32) {
    let mut divisor = 1;
    while number / divisor >= 10 {
        divisor *= 10;
    }
    let mut at = 0;
    while divisor > 0 {
        place[at] = b'0' + (number / divisor % 10) as u8;
        divisor /= 10;
        at += 1;
    }
    place[at] = 0;
}

/// A copy of the descriptor where it is in nobody's way.
fn move_up(socket: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(socket.as_fd(), ABOVE)?)
}

/// Occupies all descriptors below `end`, so that the pipe over which the child would report a failed exec, opened next,
/// is not among those that the child overwrites.
fn fill_below(end: RawFd) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    loop {
        let file = File::open("/dev/null")?;
        if file.as_raw_fd() >= end {
            return Ok(files);
        }
        files.push(file);
    }
}

fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: see `child`.
    let (set, actual) =
        unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong), libc::getppid()) };
    // It may have died before the call: then no signal will come.
    if set < 0 || actual as u32 != parent { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::sockets;

    #[test]
    fn digits_are_written_in_place() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut place = [b'x'; PID_ROOM];
            write_digits(&mut place, number);
            let text = place.split(|byte| *byte == 0).next().unwrap();
            assert_eq!(std::str::from_utf8(text).unwrap(), number.to_string());
        }
    }

    #[tokio::test]
    async fn a_child_gets_its_sockets_by_name_and_its_own_id() {
        let any = "127.0.0.1:0".parse().unwrap();
        let upstreams: Vec<_> = (0..40).map(|n| (format!("app{n}"), any)).collect();
        let sockets = sockets::open(any, &upstreams).unwrap();
        let port = sockets[40].address.port();
        let hex = format!("{port:04X}");
        let script = "test \"$LISTEN_PID\" = $$ || exit 3; test \"$LISTEN_FDS\" = 41 || exit 4; \
             inode=$(readlink /proc/$$/fd/43 | tr -dc 0-9); \
             grep -qi \":$1 .* $inode \" /proc/net/tcp || exit 5; \
             case \"$LISTEN_FDNAMES\" in inbound:outbound\\|app0:*) exit 42;; *) exit 6;; esac";
        let args = ["-c".to_owned(), script.to_owned(), "sh".to_owned(), hex];
        let mut child = proxy("/bin/sh", &args, &BTreeMap::new(), &sockets).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(42));
    }

    #[tokio::test]
    async fn a_missing_program_is_told() {
        let error = proxy("/nowhere/at/all", &[], &BTreeMap::new(), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
