//! A worker's thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use weir_config::Direction;

use super::apply::Update;
use super::view::View;
use super::{Phase, Worker};
use crate::access_log::{Batch, LogBuffer};
use crate::options::{DrainOptions, Drill};
use crate::snapshot::Snapshot;
use crate::stats::{Fault, Span, WorkerStats};

/// How often a worker looks after its pools and its log, and how late it is then.
const TICK: Duration = Duration::from_millis(250);
/// Later than this is a fault.
const LATE: Duration = Duration::from_millis(100);
/// Commands on their way to a worker; each is answered before the next of its kind is sent.
const MAX_COMMANDS: usize = 16;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Switch to a snapshot.
    Apply(Update, oneshot::Sender<()>),
    /// End the traffic of a direction; answered when no connection of it is left. Outbound is drained last, so that its
    /// answer waits for every connection.
    Drain(Direction, DrainOptions, oneshot::Sender<()>),
    /// Hand over the log lines of all requests, once no connection is left.
    Flush(oneshot::Sender<()>),
    /// Cut what is left; answered with the number of requests that this hit, once they have been counted.
    Cut(oneshot::Sender<u64>),
}

/// What a worker needs from the start.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) drill: Option<Drill>,
    pub(crate) log: SyncSender<Batch>,
    pub(crate) spans: Option<SyncSender<Span>>,
    pub(crate) trace_ratio: f64,
}

/// A worker seen from outside. Its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) stats: Arc<WorkerStats>,
    _thread: JoinHandle<()>,
}

/// Starts a worker.
pub(crate) fn spawn(number: usize, setup: Setup) -> io::Result<Handle> {
    let stats = Arc::new(WorkerStats::default());
    let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
    let (started, is_started) = std::sync::mpsc::sync_channel(1);
    let worker_stats = stats.clone();
    let run = move || match runtime() {
        Ok(runtime) => {
            let _ = started.send(Ok(()));
            runtime.block_on(run(Rc::new(Worker::new(setup, worker_stats)), receiver));
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    };
    let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(run)?;
    is_started.recv().map_err(io::Error::other)??;
    Ok(Handle { commands, stats, _thread: thread })
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}

async fn run(worker: Rc<Worker>, mut commands: mpsc::Receiver<Command>) {
    tokio::task::spawn_local(look_after(worker.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Apply(update, done) => {
                worker.apply(update);
                let _ = done.send(());
            }
            Command::Drain(direction, options, done) => {
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    worker.drain(direction, options).await;
                    let _ = done.send(());
                });
            }
            Command::Flush(done) => {
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    worker.connections.none(Direction::Outbound).await;
                    worker.flush_log();
                    let _ = done.send(());
                });
            }
            Command::Cut(done) => {
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    let _ = done.send(worker.cut().await);
                });
            }
        }
    }
    worker.flush_log();
}

/// Ticks: measures how late the loop is, writes out log lines, closes stale connections.
async fn look_after(worker: Rc<Worker>) {
    loop {
        let asked = Instant::now();
        tokio::time::sleep(TICK).await;
        worker.note_delay(asked.elapsed().saturating_sub(TICK));
        worker.flush_log();
        let now = Instant::now();
        let clusters = worker.view.borrow().clusters.clone();
        for cluster in &clusters {
            cluster.sweep(now);
            cluster.check_health(now);
        }
        worker.give_memory_back();
    }
}

impl Worker {
    fn new(setup: Setup, stats: Arc<WorkerStats>) -> Self {
        Worker {
            stats,
            buffers: Default::default(),
            own: Default::default(),
            handshakes: Cell::new(0),
            frames: Default::default(),
            scratch: Default::default(),
            drill: setup.drill,
            log: LogBuffer::new(setup.log),
            spans: setup.spans,
            trace_ratio: setup.trace_ratio,
            connections: Default::default(),
            inbound: Cell::new(Phase::Serving),
            outbound: Cell::new(Phase::Serving),
            cutting: Default::default(),
            view: RefCell::new(Rc::new(View { snapshot: Snapshot::empty(), clusters: Vec::new() })),
            reconfigured: Default::default(),
            listeners: RefCell::default(),
        }
    }

    fn flush_log(&self) {
        if !self.log.flush() {
            self.stats.fault(Fault::TelemetryDropped);
        }
    }

    /// Frees what the pools have too much of. After a wave of connections, also asks the allocator for the pages: glibc
    /// returns on its own only what lies at the very end of its heap, where something always stays.
    fn give_memory_back(&self) {
        self.buffers.trim();
        self.frames.trim();
        if self.connections.have_ebbed() {
            release_free_pages();
        }
    }

    fn note_delay(&self, delay: Duration) {
        self.stats.loop_delay_us.raise_to(delay.as_micros() as u64);
        if delay > LATE {
            self.stats.fault(Fault::LoopDelay);
        }
    }
}

#[cfg(target_env = "gnu")]
fn release_free_pages() {
    // SAFETY: it takes no pointers, and glibc's allocator may be called from any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn release_free_pages() {}
