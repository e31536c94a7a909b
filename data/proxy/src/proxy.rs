//! The handle of a running proxy: starts workers, hands them snapshots, drains them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::{timeout, timeout_at};
use weir_config::Direction;

use crate::access_log::{self, Batch};
use crate::io::bind;
use crate::options::{DrainOptions, Drill, Options};
use crate::readiness::{Readiness, ReadinessCell};
use crate::snapshot::{CompiledListener, Snapshot};
use crate::stats::{Fault, HealthReader, HealthWindow, LinkKey, LinkTotal, WorkerStats, link_totals};
use crate::worker::{Command, Handle, NewSocket, Setup, Update, spawn};

/// Of a drain's time, this part is left to outbound even if inbound is not idle by then.
const OUTBOUND_SHARE: u32 = 4;
/// And no more than this: a request may take long to answer, and then call others.
const OUTBOUND_MOST: Duration = Duration::from_millis(7_500);
/// Time to drain where the configuration says nothing.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// A running proxy. Cheap to clone; all clones are the same proxy. Its workers end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    started: Instant,
    workers: Vec<Handle>,
    readiness: ReadinessCell,
    /// Held while a snapshot is applied, so that they are applied one after the other.
    applying: tokio::sync::Mutex<()>,
    current: Mutex<Current>,
    health: Mutex<(HealthReader, HealthWindow)>,
    config_rejected: AtomicU64,
    /// Where access log lines go; told to write out what it has.
    log: SyncSender<Batch>,
    leave: watch::Sender<bool>,
}

/// What the workers were last switched to.
#[derive(Debug)]
struct Current {
    snapshot: Arc<Snapshot>,
    /// Configured and actual address of each open listener.
    listening: HashMap<Arc<str>, (SocketAddr, SocketAddr)>,
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A worker's thread or runtime could not be made.
    #[error("worker {worker} did not start: {source}")]
    Worker {
        /// Its number.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
    /// The first snapshot was not applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Why a snapshot was not applied; the one before stays in force as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Some listeners' addresses could not be bound.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Bind(Vec<BindFailure>),
}

/// A listener whose address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot listen on {address}: {source}")]
pub struct BindFailure {
    /// Its name.
    pub listener: String,
    /// The address wanted.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// What [`Proxy::apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Listeners that are accepting now.
    pub listeners: usize,
    /// Of these, opened by this call.
    pub opened: usize,
    /// Listeners closed by this call; their connections finish what they carry.
    pub closed: usize,
}

/// What [`Proxy::drain`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were open when the drain began.
    pub connections: u64,
    /// Requests finished during it.
    pub finished: u64,
    /// Requests cut at the deadline; a plain TCP connection counts as one.
    pub cut: u64,
    /// How long it took.
    pub took: Duration,
}

/// A listener to open, with one socket for each worker.
struct Opened {
    listener: Arc<CompiledListener>,
    actual: SocketAddr,
    inherited: bool,
    sockets: Vec<TcpListener>,
}

impl Proxy {
    /// Starts the workers and applies the first snapshot.
    ///
    /// # Errors
    /// If a thread cannot be started, the access log cannot be opened or a listener cannot be bound; nothing is left
    /// running then.
    pub async fn start(options: Options, snapshot: Arc<Snapshot>) -> Result<Proxy, StartError> {
        let log = access_log::start(&options.access_log).map_err(StartError::AccessLog)?;
        let setup = Setup { drill: options.drill, log, spans: options.spans.clone(), trace_ratio: options.trace_ratio };
        let start = |worker| spawn(worker, setup.clone()).map_err(|source| StartError::Worker { worker, source });
        let workers = (0..options.workers.max(1)).map(start).collect::<Result<Vec<_>, _>>()?;
        let inner = Inner {
            options,
            started: Instant::now(),
            workers,
            readiness: ReadinessCell::starting(),
            applying: tokio::sync::Mutex::default(),
            current: Mutex::new(Current { snapshot: Snapshot::empty(), listening: HashMap::new() }),
            health: Mutex::default(),
            config_rejected: AtomicU64::new(0),
            log: setup.log,
            leave: watch::Sender::new(false),
        };
        let proxy = Proxy { inner: Arc::new(inner) };
        proxy.apply(snapshot).await?;
        Ok(proxy)
    }

    /// Switches every worker to the snapshot; resolves when all have. Calls are applied one after the other. While the
    /// proxy drains, what it still carries follows the snapshot, but no listener is opened.
    ///
    /// # Errors
    /// If a new listener cannot be bound; then nothing has changed.
    pub async fn apply(&self, snapshot: Arc<Snapshot>) -> Result<Applied, ApplyError> {
        let _applying = self.inner.applying.lock().await;
        let opened = match self.inner.readiness.get() {
            Readiness::Draining => Vec::new(),
            _ => self.open(&snapshot)?,
        };
        let applied = self.note_applied(&snapshot, &opened);
        self.switch(&snapshot, opened).await;
        Ok(applied)
    }

    /// Binds what the snapshot has and the workers don't; all of it or nothing.
    fn open(&self, snapshot: &Snapshot) -> Result<Vec<Opened>, ApplyError> {
        let is_open = |listener: &CompiledListener| {
            let current = lock(&self.inner.current);
            current.listening.get(&listener.name).is_some_and(|(configured, _)| *configured == listener.config.bind)
        };
        let (mut opened, mut failures) = (Vec::new(), Vec::new());
        let bound = snapshot.listeners.iter().filter(|listener| listener.config.bind_to_port);
        for listener in bound.filter(|listener| !is_open(listener)) {
            match self.open_one(listener) {
                Ok(one) => opened.push(one),
                Err(source) => failures.push(BindFailure {
                    listener: listener.name.to_string(),
                    address: listener.config.bind,
                    source,
                }),
            }
        }
        if failures.is_empty() { Ok(opened) } else { Err(ApplyError::Bind(failures)) }
    }

    fn open_one(&self, listener: &Arc<CompiledListener>) -> io::Result<Opened> {
        let inherited = self.inner.options.inherited.get(&listener.name);
        let sockets = bind(listener.config.bind, self.inner.workers.len(), inherited)?;
        let actual = sockets[0].local_addr()?;
        Ok(Opened { listener: listener.clone(), actual, inherited: inherited.is_some(), sockets })
    }

    fn note_applied(&self, snapshot: &Arc<Snapshot>, opened: &[Opened]) -> Applied {
        let mut current = lock(&self.inner.current);
        let before = current.listening.len();
        let bound =
            |listener: &CompiledListener, name: &Arc<str>| listener.config.bind_to_port && listener.name == *name;
        current.listening.retain(|name, _| snapshot.listeners.iter().any(|listener| bound(listener, name)));
        let closed = before - current.listening.len();
        for one in opened {
            current.listening.insert(one.listener.name.clone(), (one.listener.config.bind, one.actual));
        }
        current.snapshot = snapshot.clone();
        Applied { listeners: current.listening.len(), opened: opened.len(), closed }
    }

    async fn switch(&self, snapshot: &Arc<Snapshot>, mut opened: Vec<Opened>) {
        let mut switched = Vec::new();
        for worker in &self.inner.workers {
            let sockets = opened.iter_mut().filter_map(Opened::for_one_worker).collect();
            let (done, is_done) = oneshot::channel();
            let update = Update { snapshot: snapshot.clone(), sockets };
            if worker.commands.send(Command::Apply(update, done)).await.is_ok() {
                switched.push(is_done);
            }
        }
        all(switched).await;
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        lock(&self.inner.current).snapshot.clone()
    }

    /// Where a listener accepts; useful where port 0 was configured.
    pub fn local_addr(&self, listener: &str) -> Option<SocketAddr> {
        lock(&self.inner.current).listening.get(listener).map(|(_, actual)| *actual)
    }

    /// How long requests get to finish when the proxy drains: as it was told at start, or else the longest time that one of
    /// its listeners asks for.
    pub fn drain_time(&self) -> Duration {
        let configured = || {
            let snapshot = self.snapshot();
            let times = snapshot.config().listeners.iter().map(|listener| listener.drain_ms);
            times.map(|time| time.map_or(DRAIN_TIME, Duration::from_millis)).max().unwrap_or(DRAIN_TIME)
        };
        self.inner.options.drain_time.unwrap_or_else(configured)
    }

    /// Within this time it has left when it is told to: callers have learned it, and requests have finished or been cut.
    pub fn leaves_within(&self) -> Duration {
        self.inner.options.goodbye_time + self.drain_time()
    }

    /// Ends the traffic without failing a request: answers ask callers to go elsewhere, connections are closed when
    /// quiet, requests finish. Inbound goes first; outbound serves the application as before until nothing inbound is
    /// left, or only a quarter of the time is. Resolves when all is idle, or the deadline has passed.
    pub async fn drain(&self, options: DrainOptions) -> DrainReport {
        let started = tokio::time::Instant::now();
        let (finished, connections) = (self.finished(), self.connections());
        let deadline = started + options.deadline;
        let inbound = self.begin_drain(Direction::Inbound, options).await;
        // What does not end in time goes on while outbound is drained.
        let _ = timeout_at(deadline - (options.deadline / OUTBOUND_SHARE).min(OUTBOUND_MOST), inbound).await;
        let all = self.begin_drain(Direction::Outbound, DrainOptions { grace: Duration::ZERO, ..options }).await;
        let cut = match timeout_at(deadline, all).await {
            Ok(()) => 0,
            Err(_) => self.cut().await,
        };
        DrainReport { connections, finished: self.finished() - finished, cut, took: started.elapsed() }
    }

    /// The returned future resolves when no connection of that direction is left.
    async fn begin_drain(&self, direction: Direction, options: DrainOptions) -> impl Future<Output = ()> + use<> {
        // A snapshot that is being applied may open listeners: they are to be drained too.
        let _applying = self.inner.applying.lock().await;
        self.inner.readiness.set(Readiness::Draining);
        all(self.command(|done| Command::Drain(direction, options, done)).await)
    }

    async fn cut(&self) -> u64 {
        let mut cut = 0;
        for one in self.command(Command::Cut).await {
            cut += one.await.unwrap_or_default();
        }
        cut
    }

    /// Tells every worker something; where their answers come.
    async fn command<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<oneshot::Receiver<T>> {
        let mut answers = Vec::new();
        for worker in &self.inner.workers {
            let (done, is_done) = oneshot::channel();
            if worker.commands.send(command(done)).await.is_ok() {
                answers.push(is_done);
            }
        }
        answers
    }

    /// Asks whoever runs the proxy to end its traffic, as SIGTERM does, but to keep the process.
    pub fn ask_to_leave(&self) {
        self.inner.leave.send_replace(true);
    }

    /// Resolves once [`Proxy::ask_to_leave`] was called.
    pub async fn asked_to_leave(&self) {
        // The sender lives as long as the proxy.
        let _ = self.inner.leave.subscribe().wait_for(|asked| *asked).await;
    }

    /// Writes out the access log lines that are still queued; for the end, after a drain. False if `limit` was over
    /// first, and some may be lost.
    pub async fn flush(&self, limit: Duration) -> bool {
        timeout(limit, async {
            all(self.command(Command::Flush).await).await;
            access_log::flush(&self.inner.log).await;
        })
        .await
        .is_ok()
    }

    /// Opens the file of the access log anew: the one there was has been moved away. Lines of requests that are finished by
    /// now go to the one before.
    ///
    /// # Errors
    /// If it can't be opened; lines go on to the one before.
    pub async fn reopen_access_log(&self) -> io::Result<()> {
        all(self.command(Command::Flush).await).await;
        access_log::reopen(&self.inner.log).await
    }

    fn connections(&self) -> u64 {
        self.inner.workers.iter().map(|worker| worker.stats.active_connections.get()).sum()
    }

    fn finished(&self) -> u64 {
        self.inner
            .workers
            .iter()
            .map(|worker| worker.stats.inbound.requests.get() + worker.stats.outbound.requests.get())
            .sum()
    }

    /// The health window since the previous call; for one consumer, about once a second.
    pub fn take_health_window(&self) -> HealthWindow {
        let mut health = lock(&self.inner.health);
        let window = health.0.next(&self.stats(), |fault| self.own_faults(fault));
        health.1 = window.clone();
        window
    }

    /// The window that [`Proxy::take_health_window`] gave last.
    pub fn last_health_window(&self) -> HealthWindow {
        lock(&self.inner.health).1.clone()
    }

    /// Counts a configuration that was received and not accepted.
    pub fn note_config_rejected(&self) {
        self.inner.config_rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Faults that no worker counts.
    fn own_faults(&self, fault: Fault) -> u64 {
        match fault {
            Fault::ConfigRejected => self.inner.config_rejected.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    fn stats(&self) -> Vec<Arc<WorkerStats>> {
        self.inner.workers.iter().map(|worker| worker.stats.clone()).collect()
    }

    /// Whether it should get traffic.
    pub fn readiness(&self) -> Readiness {
        self.inner.readiness.get()
    }

    /// Sets what `/ready` answers; without effect once it drains.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.inner.readiness.set(readiness);
    }

    /// The version it reports.
    pub fn release(&self) -> &str {
        &self.inner.options.release
    }

    /// The deliberate fault that is switched on, if any.
    pub fn drill(&self) -> Option<Drill> {
        self.inner.options.drill
    }

    /// Time since it was started.
    pub fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// All metrics as Prometheus text.
    pub fn metrics(&self) -> String {
        let (stats, snapshot) = (self.stats(), self.snapshot());
        let drills = self.inner.options.drill.is_some();
        crate::stats::render(&stats, |fault| self.own_faults(fault), drills, snapshot.certificates())
    }

    /// Connections by peer, where TLS is configured.
    pub(crate) fn links(&self) -> BTreeMap<LinkKey, LinkTotal> {
        link_totals(&self.stats())
    }

    /// Endpoints of all clusters with what was seen of them since the start: address, requests, errors, in flight.
    pub(crate) fn endpoint_totals(&self) -> HashMap<(Arc<str>, SocketAddr), [u64; 3]> {
        let mut totals: HashMap<_, [u64; 3]> = HashMap::new();
        for endpoint in self.stats().iter().flat_map(|worker| worker.endpoints()) {
            let total = totals.entry((endpoint.cluster.clone(), endpoint.address)).or_default();
            total[0] += endpoint.requests.get();
            total[1] += endpoint.errors.get();
            total[2] += endpoint.active.get();
        }
        totals
    }
}

impl Opened {
    fn for_one_worker(&mut self) -> Option<NewSocket> {
        let socket = self.sockets.pop()?;
        Some(NewSocket { listener: self.listener.name.clone(), socket, inherited: self.inherited })
    }
}

async fn all(answers: Vec<oneshot::Receiver<()>>) {
    for answer in answers {
        // A worker that has gone has nothing left to do.
        let _ = answer.await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
