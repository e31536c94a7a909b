//! The proxy: what is wanted, what runs, and the step from the one to the other.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use weir_instance::Artifact;
use weir_instance::supervisor::{ProxyState, ProxyStatus};

use super::admin::Ready;
use super::args::LAST_STEPS;

/// A proxy that is not ready after this long has failed; it may still become ready.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A proxy that was told to end is killed after this long at the earliest: as long as those take that do not say.
const LEAST_PATIENCE: Duration = Duration::from_secs(45);
/// And after this long at the latest.
const MOST_PATIENCE: Duration = Duration::from_secs(25 * 3600);
/// Wait before a proxy that ended unasked is started again; doubles each time.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Longest such wait.
const LAST_RETRY: Duration = Duration::from_secs(10);
/// Ended unasked so often without having been ready for long: failed.
const MANY_CRASHES: u32 = 3;
/// Ready for so long: earlier crashes are forgotten.
const LONG_READY: Duration = Duration::from_secs(10);

/// The proxy's side of the supervisor.
#[derive(Debug, Default)]
pub struct Proxy {
    wanted: Option<Artifact>,
    running: Option<Running>,
    /// Of what ran last.
    version: String,
    crashes: u32,
    /// Times it ended unasked, ever.
    restarts: u32,
    retry_at: Option<Instant>,
    failed: bool,
    message: String,
    /// How long one may take to end, where that was said.
    drain: Option<Duration>,
}

/// What happens to the proxy.
#[derive(Debug)]
pub enum Event {
    /// It has ended.
    Ended(std::io::Result<ExitStatus>),
    /// It says something new of itself.
    Says(Ready),
}

/// A process.
#[derive(Debug)]
pub struct Running {
    /// What it is.
    pub artifact: Artifact,
    /// The process.
    pub child: Child,
    /// Its admin interface.
    pub admin: std::net::SocketAddr,
    /// Since when.
    pub started: Instant,
    /// What it says of itself.
    pub reports: mpsc::Receiver<Ready>,
    /// Who asks it.
    pub watcher: AbortHandle,
    /// SIGTERM was sent then.
    pub ending: Option<Instant>,
    /// SIGKILL was sent.
    pub killed: bool,
    /// Ready since then.
    pub ready: Option<Instant>,
    /// How long it takes at most to leave, as it says itself.
    pub leaves_within: Option<Duration>,
}

impl Running {
    /// When it is killed if it has not ended, having been told to at `since`.
    fn patience(&self, said: Option<Duration>) -> Duration {
        let own =
            self.leaves_within.map_or(LEAST_PATIENCE, |time| (time + LAST_STEPS).clamp(LEAST_PATIENCE, MOST_PATIENCE));
        said.unwrap_or(own)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Start this.
    Start(Artifact),
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

impl Proxy {
    /// Wants `first`; gives a proxy `drain` to end, or as long as it says that it takes.
    pub fn new(first: Artifact, drain: Option<Duration>) -> Proxy {
        Proxy { wanted: Some(first), drain, ..Proxy::default() }
    }

    /// From now on this one is to run, or none.
    pub fn want(&mut self, artifact: Option<Artifact>) {
        if self.wanted == artifact {
            return;
        }
        self.wanted = artifact;
        self.forget_failures();
    }

    fn forget_failures(&mut self) {
        (self.crashes, self.retry_at, self.failed) = (0, None, false);
        self.message.clear();
    }

    /// What is to be done.
    pub fn step(&self, now: Instant, may_start: bool) -> Step {
        match (&self.running, &self.wanted) {
            (Some(running), wanted) => match running.ending {
                None if Some(&running.artifact) != wanted.as_ref() => Step::Terminate,
                Some(since) if !running.killed && now >= since + running.patience(self.drain) => Step::Kill,
                _ => Step::Rest,
            },
            (None, Some(wanted)) if may_start && self.retry_at.is_none_or(|at| now >= at) => {
                Step::Start(wanted.clone())
            }
            _ => Step::Rest,
        }
    }

    /// When [`Proxy::step`] may have something new to say by itself.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.running {
            Some(running) if running.ending.is_some() => {
                running.ending.filter(|_| !running.killed).map(|since| since + running.patience(self.drain))
            }
            Some(running) if running.ready.is_none() && !self.failed => Some(running.started + START_PATIENCE),
            Some(_) => None,
            None => self.retry_at.filter(|_| self.wanted.is_some()),
        }
    }

    /// It was started.
    pub fn started(&mut self, running: Running) {
        self.version.clone_from(&running.artifact.version);
        self.retry_at = None;
        self.running = Some(running);
    }

    /// It could not be started.
    pub fn not_started(&mut self, now: Instant, error: &std::io::Error) {
        let path = self.wanted.as_ref().map_or("", |wanted| wanted.path.as_str());
        self.message = format!("cannot start {path}: {error}");
        self.failed = true;
        self.retry(now);
    }

    /// SIGTERM: it finishes what it has.
    pub fn terminate(&mut self, now: Instant) {
        self.signal(Signal::TERM);
        if let Some(running) = &mut self.running {
            running.ending = Some(now);
        }
    }

    /// SIGKILL: its time is over.
    pub fn kill(&mut self, now: Instant) {
        self.signal(Signal::KILL);
        if let Some(running) = &mut self.running {
            running.ending.get_or_insert(now);
            running.killed = true;
            self.message = "it did not end in time and was killed".into();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.running.as_ref().and_then(|running| running.child.id());
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// What happens to it next; never anything if none runs. Loses nothing when dropped.
    pub async fn event(&mut self) -> Event {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        tokio::select! {
            biased;
            status = running.child.wait() => Event::Ended(status),
            Some(report) = running.reports.recv() => Event::Says(report),
        }
    }

    /// It has ended.
    pub fn ended(&mut self, now: Instant, status: ExitStatus) {
        let Some(running) = self.running.take() else { return };
        if running.ending.is_some() {
            tracing::info!(version = running.artifact.version, "the proxy has ended: {status}");
            return;
        }
        tracing::warn!(version = running.artifact.version, "the proxy ended unasked: {status}");
        if running.ready.is_some_and(|since| now >= since + LONG_READY) {
            self.forget_failures();
        }
        self.restarts = self.restarts.saturating_add(1);
        self.message = format!("it ended unasked ({status}); {}", self.message);
        self.retry(now);
    }

    fn retry(&mut self, now: Instant) {
        let delay = FIRST_RETRY.saturating_mul(1 << self.crashes.min(16)).min(LAST_RETRY);
        self.crashes = self.crashes.saturating_add(1);
        self.retry_at = Some(now + delay);
    }

    /// It has said something of itself.
    pub fn reported(&mut self, now: Instant, report: Ready) {
        let Some(running) = &mut self.running else { return };
        if report.ready && running.ready.is_none() {
            tracing::info!(version = running.artifact.version, took = ?(now - running.started), "the proxy is ready");
        }
        // Once it is leaving, it keeps to what it said when it began.
        running.leaves_within = running.leaves_within.filter(|_| running.ending.is_some()).max(report.leaves_within);
        running.ready = report.ready.then(|| running.ready.unwrap_or(now));
        self.failed = report.failed;
        self.message = if report.ready { String::new() } else { report.message };
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let Some(running) = &self.running else { return };
        let late = running.ready.is_none() && running.ending.is_none() && now >= running.started + START_PATIENCE;
        self.failed |= late;
    }

    /// Times it ended unasked since the supervisor was started.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// True if no process runs.
    pub fn gone(&self) -> bool {
        self.running.is_none()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// What to tell others.
    pub fn status(&self) -> ProxyStatus {
        ProxyStatus {
            state: self.state(),
            version: self.version.clone(),
            wanted: self.wanted.as_ref().map(|wanted| wanted.version.clone()).unwrap_or_default(),
            pid: self.pid(),
            admin: self.running.as_ref().map(|running| running.admin),
            message: self.message.clone(),
            crashes: self.crashes,
        }
    }

    fn state(&self) -> ProxyState {
        match (&self.running, &self.wanted) {
            (Some(running), _) if running.ending.is_some() => ProxyState::Draining,
            (Some(running), _) if running.ready.is_some() => ProxyState::Ready,
            (None, None) => ProxyState::Stopped,
            _ if self.failed || self.crashes >= MANY_CRASHES => ProxyState::Failed,
            _ => ProxyState::Starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(version: &str) -> Artifact {
        Artifact { version: version.into(), path: "/bin/sleep".into(), ..Artifact::default() }
    }

    fn sleeper(version: &str, started: Instant) -> Running {
        Running {
            artifact: artifact(version),
            child: crate::run::spawn::child("sleep".as_ref()).arg("600").kill_on_drop(true).spawn().unwrap(),
            admin: "127.0.0.1:1".parse().unwrap(),
            started,
            reports: mpsc::channel(1).1,
            watcher: tokio::spawn(async {}).abort_handle(),
            ending: None,
            killed: false,
            ready: None,
            leaves_within: None,
        }
    }

    async fn end(proxy: &mut Proxy) -> ExitStatus {
        match proxy.event().await {
            Event::Ended(status) => status.unwrap(),
            Event::Says(report) => panic!("{report:?}"),
        }
    }

    fn ready() -> Ready {
        Ready { ready: true, ..Ready::default() }
    }

    #[tokio::test]
    async fn a_swap_ends_the_old_one_before_it_starts_the_new_one() {
        let now = Instant::now();
        let mut proxy = Proxy::new(artifact("A"), None);
        assert_eq!(proxy.step(now, false), Step::Rest, "not before the program listens");
        assert_eq!(proxy.step(now, true), Step::Start(artifact("A")));
        proxy.started(sleeper("A", now));
        proxy.reported(now, ready());
        assert_eq!((proxy.state(), proxy.step(now, true)), (ProxyState::Ready, Step::Rest));

        proxy.want(Some(artifact("B")));
        assert_eq!(proxy.step(now, true), Step::Terminate);
        proxy.terminate(now);
        assert_eq!((proxy.state(), proxy.step(now, true)), (ProxyState::Draining, Step::Rest));
        let status = end(&mut proxy).await;
        proxy.ended(now, status);
        assert_eq!(proxy.step(now, true), Step::Start(artifact("B")));
        proxy.started(sleeper("B", now));
        proxy.want(Some(artifact("B")));
        assert_eq!(proxy.step(now, true), Step::Rest, "the same order again changes nothing");
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed() {
        let now = Instant::now();
        let mut proxy = Proxy::new(artifact("A"), Some(Duration::from_secs(45)));
        proxy.started(sleeper("A", now));
        proxy.want(None);
        proxy.terminate(now);
        assert_eq!(proxy.deadline(), Some(now + Duration::from_secs(45)));
        assert_eq!(proxy.step(now + Duration::from_secs(45), true), Step::Kill);
        proxy.kill(now);
        assert_eq!(proxy.deadline(), None);
        let status = end(&mut proxy).await;
        proxy.ended(now, status);
        assert_eq!(proxy.state(), ProxyState::Stopped);
        assert!(proxy.status().message.contains("killed"));
    }

    #[tokio::test]
    async fn one_that_says_how_long_it_takes_is_given_that_long() {
        let now = Instant::now();
        let mut proxy = Proxy::new(artifact("A"), None);
        proxy.started(sleeper("A", now));
        let says = |seconds| Ready { leaves_within: Some(Duration::from_secs(seconds)), ..ready() };
        proxy.reported(now, says(300));
        proxy.reported(now, says(112));
        proxy.want(None);
        proxy.terminate(now);
        assert_eq!(proxy.deadline(), Some(now + Duration::from_secs(115)), "the latest word, and some time to end");
        proxy.reported(now, says(42));
        assert_eq!(proxy.deadline(), Some(now + Duration::from_secs(115)), "it has begun to leave with that");
        let mut strict = Proxy::new(artifact("A"), Some(Duration::from_secs(10)));
        strict.started(sleeper("A", now));
        strict.reported(now, says(112));
        strict.terminate(now);
        assert_eq!(strict.deadline(), Some(now + Duration::from_secs(10)), "who runs it has said how long");
    }

    #[tokio::test]
    async fn crashes_back_off_and_then_count_as_failed() {
        let now = Instant::now();
        let mut proxy = Proxy::new(artifact("A"), Some(Duration::from_secs(45)));
        for crash in 1..=3 {
            proxy.started(sleeper("A", now));
            proxy.signal(Signal::KILL);
            let status = end(&mut proxy).await;
            proxy.ended(now, status);
            assert_eq!(proxy.step(now, true), Step::Rest, "waits");
            let wait = FIRST_RETRY * (1 << (crash - 1));
            assert_eq!(proxy.step(now + wait, true), Step::Start(artifact("A")));
        }
        assert_eq!(proxy.state(), ProxyState::Failed);
        proxy.want(Some(artifact("B")));
        assert_eq!(proxy.state(), ProxyState::Starting, "another one has a new chance");
    }

    #[tokio::test]
    async fn a_failed_self_check_is_told_and_a_late_start_too() {
        let now = Instant::now();
        let mut proxy = Proxy::new(artifact("A"), Some(Duration::from_secs(45)));
        proxy.started(sleeper("A", now));
        proxy.reported(now, Ready { failed: true, message: "no descriptors".into(), ..Ready::default() });
        assert_eq!((proxy.state(), proxy.status().message.as_str()), (ProxyState::Failed, "no descriptors"));
        proxy.reported(now, Ready::default());
        assert_eq!(proxy.state(), ProxyState::Starting);
        proxy.tick(now + START_PATIENCE);
        assert_eq!(proxy.state(), ProxyState::Failed);
    }
}
