//! The program beside the proxy: started once, never restarted, waited for.

use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::Instant;
use weir_instance::supervisor::AppStatus;

use super::args::Args;
use super::spawn;

/// How long it may take to end after SIGTERM.
pub const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long another process may hold the program's port before it is called taken.
pub const LET_GO_PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to listen before a person is told.
const LISTEN_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to connect to its port: another process's socket gives no event to wait on.
const LOOK: Duration = Duration::from_millis(20);

/// What happens to the program.
#[derive(Debug)]
pub enum Event {
    /// Its port accepts.
    Listens,
    /// Its port does not accept yet, after [`LISTEN_PATIENCE`].
    Silent,
    /// It has ended.
    Ended(io::Result<ExitStatus>),
}

/// The program, if there is one.
#[derive(Debug, Default)]
pub struct Program {
    child: Option<Child>,
    status: Option<AppStatus>,
    address: Option<SocketAddr>,
    listens: bool,
    /// When it is said that it does not listen, unless that has been said.
    complain_at: Option<Instant>,
    /// When SIGTERM was sent, and whether SIGKILL was.
    ending: Option<(Instant, bool)>,
    code: u8,
}

impl Program {
    /// Starts it, if there is one.
    pub fn start(args: &Args) -> Result<Program, String> {
        let Some((name, arguments)) = args.program.split_first() else {
            return Ok(Program { listens: true, ..Program::default() });
        };
        let mut command = spawn::child(name.as_ref());
        command.args(arguments).envs(args.program_env()).env_remove("WEIR_TOKEN");
        let child = command.spawn().map_err(|error| format!("cannot start {name:?}: {error}"))?;
        let pid = child.id().unwrap_or_default();
        tracing::info!(pid, "started {name}");
        let status = Some(AppStatus { pid, started_at: Timestamp::now(), version: Some(args.app_version.clone()) });
        Ok(Program {
            child: Some(child),
            status,
            address: Some(SocketAddr::new(args.app_address, args.port)),
            complain_at: Some(Instant::now() + LISTEN_PATIENCE),
            ..Program::default()
        })
    }

    /// What runs.
    pub fn status(&self) -> Option<AppStatus> {
        self.status.clone().filter(|_| self.child.is_some())
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.status().map(|status| status.pid)
    }

    /// Its port accepts, or it needs none: the proxy may take requests.
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// What happens to it next; never anything if none runs. Loses nothing when dropped.
    pub async fn event(&mut self) -> Event {
        let Some(child) = &mut self.child else { return std::future::pending().await };
        let status = tokio::select! {
            biased;
            status = child.wait() => status,
            () = accepts(self.address), if !self.listens => {
                self.listens = true;
                return Event::Listens;
            }
            () = until(self.complain_at), if !self.listens => {
                self.complain_at = None;
                return Event::Silent;
            }
        };
        // What it has started itself goes with it.
        self.signal(Signal::KILL);
        self.child = None;
        self.code = status.as_ref().map_or(1, |status| exit_code(*status));
        Event::Ended(status)
    }

    /// Asks it to end; after [`STOP_PATIENCE`] it is made to.
    pub fn stop(&mut self, now: Instant) {
        match self.ending {
            None => {
                self.signal(Signal::TERM);
                self.ending = Some((now, false));
            }
            Some((since, false)) if now >= since + STOP_PATIENCE => {
                tracing::warn!("the program ignores SIGTERM and is killed");
                self.kill();
            }
            Some(_) => {}
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ending = self.ending.map(|(since, _)| (since, true));
    }

    /// When [`Program::stop`] wants to be called again.
    pub fn deadline(&self) -> Option<Instant> {
        let (since, killed) = self.ending?;
        (!killed && self.child.is_some()).then_some(since + STOP_PATIENCE)
    }

    /// The exit code to pass on: its own, or 128 and the signal that ended it, as shells have it.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// To its whole process group.
    fn signal(&self, signal: Signal) {
        let leader = self.status.as_ref().and_then(|status| Pid::from_raw(status.pid as i32));
        if let (Some(leader), true) = (leader, self.child.is_some()) {
            let _ = kill_process_group(leader, signal);
        }
    }
}

/// Refuses to go on when something else has the program's port already: the proxy would send it what is meant for the
/// program. What a dead supervisor left has just been killed and gets `patience` to let go.
///
/// # Errors
/// Names the address and what to do.
pub async fn refuse_taken(args: &Args, patience: Duration) -> Result<(), String> {
    if args.program.is_empty() {
        return Ok(());
    }
    let address = SocketAddr::new(args.app_address, args.port);
    let until = Instant::now() + patience;
    while TcpStream::connect(address).await.is_ok() {
        if Instant::now() >= until {
            return Err(format!(
                "{address} is taken: something listens there already; stop it, or choose another --port"
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Resolves when something accepts at the address.
async fn accepts(address: Option<SocketAddr>) {
    let Some(address) = address else { return };
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use futures::FutureExt;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[tokio::test]
    async fn that_a_program_does_not_listen_is_said_once() {
        let mut sleep = spawn::child("sleep".as_ref());
        let child = sleep.arg("600").kill_on_drop(true).spawn().unwrap();
        let mut program = Program {
            child: Some(child),
            address: Some("127.0.0.1:1".parse().unwrap()),
            complain_at: Some(Instant::now()),
            ..Program::default()
        };
        assert!(matches!(program.event().await, Event::Silent));
        assert!(program.complain_at.is_none() && program.event().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_port_that_somebody_has_is_refused_by_name() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port().to_string();
        let args = Line::try_parse_from(["run", "--app", "a", "--port", &port, "--", "x"]).unwrap().args;
        let error = refuse_taken(&args, Duration::ZERO).await.unwrap_err();
        assert!(error.contains(&format!("127.0.0.1:{port} is taken")) && error.contains("--port"), "{error}");
        drop(other);
        // A child that another test forks holds the socket too, until it has become its program.
        assert_eq!(refuse_taken(&args, Duration::from_secs(30)).await, Ok(()));
    }
}
