//! The loop: one event, then the steps that follow from it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_instance::Artifact;
use weir_instance::supervisor::{Reply, Request, Status};

use super::args::Args;
use super::folder::Folder;
use super::log::Log;
use super::orders::{self, Order};
use super::program::{self, Program};
use super::proxy::{self, Proxy, Running, Step};
use super::sockets::{self, Listening};
use super::{admin, spawn};

/// Most upstreams of one program: each is a descriptor in the proxy.
const MAX_UPSTREAMS: usize = 200;
/// Orders and reports that wait.
const QUEUE: usize = 16;

struct Supervisor {
    args: Args,
    folder: Folder,
    sockets: Vec<Listening>,
    program: Program,
    proxy: Proxy,
    stopping: bool,
    terminated: Signal,
    interrupted: Signal,
    hung_up: Option<Signal>,
    log: Log,
}

/// All that wakes the supervisor.
enum Event {
    Order(Order),
    Proxy(proxy::Event),
    Program(program::Event),
    Signal,
    Time,
    Log,
}

/// Runs until the program ends, or a signal or an order says to stop.
pub async fn run(args: Args) -> Result<ExitCode, String> {
    let args = args.complete()?;
    if args.upstreams.len() > MAX_UPSTREAMS {
        return Err(format!("{} upstreams are too many: {MAX_UPSTREAMS} are allowed", args.upstreams.len()));
    }
    let first = args.first_proxy()?;
    let folder = Folder::take(args.folder.as_deref(), args.name())?;
    let sockets = sockets::open(args.inbound, &args.upstreams)?;
    program::refuse_taken(&args, program::LET_GO_PATIENCE).await?;
    let text = |error: io::Error| error.to_string();
    let terminated = signal(SignalKind::terminate()).map_err(text)?;
    let interrupted = signal(SignalKind::interrupt()).map_err(text)?;
    // A terminal that is closed ends what runs in it, unless that was started with nohup(1).
    let hung_up = (!is_ignored(libc::SIGHUP as u32)).then(|| signal(SignalKind::hangup())).transpose().map_err(text)?;
    let listener = folder.listen().map_err(|error| format!("{}: {error}", folder.path().display()))?;
    let (sender, orders) = mpsc::channel(QUEUE);
    tokio::spawn(orders::serve(listener, sender));
    let program = Program::start(&args)?;
    announce(&args, &sockets, &folder);
    let proxy = Proxy::new(first, args.drain_seconds.map(Duration::from_secs));
    let log = Log::of(&folder);
    let supervisor =
        Supervisor { args, folder, sockets, program, proxy, stopping: false, terminated, interrupted, hung_up, log };
    supervisor.supervise(orders).await
}

fn announce(args: &Args, sockets: &[Listening], folder: &Folder) {
    tracing::info!(folder = %folder.path().display(), control = args.control, "instance {}", args.name());
    for socket in sockets {
        tracing::info!("{} on {}", socket.name, socket.address);
    }
}

impl Supervisor {
    async fn supervise(mut self, mut orders: mpsc::Receiver<Order>) -> Result<ExitCode, String> {
        self.note_children();
        loop {
            let now = Instant::now();
            self.advance(now);
            if self.stopping && self.proxy.gone() && self.program.status().is_none() {
                return Ok(ExitCode::from(self.program.code()));
            }
            let event = self.event(&mut orders).await;
            self.take(event)?;
        }
    }

    async fn event(&mut self, orders: &mut mpsc::Receiver<Order>) -> Event {
        let deadline = [self.proxy.deadline(), self.program.deadline()].into_iter().flatten().min();
        let time = async move {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(order) = orders.recv() => Event::Order(order),
            event = self.proxy.event() => Event::Proxy(event),
            event = self.program.event() => Event::Program(event),
            _ = self.terminated.recv() => Event::Signal,
            _ = self.interrupted.recv() => Event::Signal,
            Some(()) = hang_up(&mut self.hung_up) => Event::Signal,
            () = self.log.grown() => Event::Log,
            () = time => Event::Time,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), String> {
        let now = Instant::now();
        let text = |error: io::Error| error.to_string();
        match event {
            Event::Order(order) => self.order(order),
            Event::Proxy(proxy::Event::Says(report)) => self.proxy.reported(now, report),
            Event::Proxy(proxy::Event::Ended(status)) => self.proxy.ended(now, status.map_err(text)?),
            Event::Program(program::Event::Listens) => {
                tracing::info!("the program listens on {}:{}", self.args.app_address, self.args.port);
            }
            Event::Program(program::Event::Silent) => tracing::warn!(
                "nothing listens on {}:{} yet: the program gets no requests before it does; is --port right?",
                self.args.app_address,
                self.args.port
            ),
            Event::Program(program::Event::Ended(status)) => self.program_ended(status.map_err(text)?),
            Event::Signal if self.stopping => self.kill(now),
            Event::Signal => self.stop(),
            Event::Time => self.proxy.tick(now),
            Event::Log => self.log.turn_over(),
        }
        Ok(())
    }

    fn program_ended(&mut self, status: std::process::ExitStatus) {
        tracing::info!("the program has ended: {status}");
        self.stop();
    }

    /// The proxy leaves first, then the program: [`Supervisor::advance`] does it.
    fn stop(&mut self) {
        self.stopping = true;
        self.proxy.want(None);
    }

    /// Asked to stop a second time: at once.
    fn kill(&mut self, now: Instant) {
        tracing::warn!("told to stop again: everything is killed");
        self.proxy.kill(now);
        self.program.stop(now);
        self.program.kill();
    }

    fn order(&mut self, order: Order) {
        match order.request {
            Request::Status => {}
            Request::Stop => self.stop(),
            Request::Drain => self.proxy.want(None),
            Request::Swap(_) if self.stopping => {
                let _ = order.reply.send(Reply::Error("it is ending".into()));
                return;
            }
            Request::Swap(artifact) => self.proxy.want(Some(artifact)),
        }
        // Acting before answering makes the answer show what the order has begun.
        self.advance(Instant::now());
        let _ = order.reply.send(Reply::Status(Box::new(self.status())));
    }

    fn status(&self) -> Status {
        Status {
            instance: self.args.name().to_owned(),
            pid: std::process::id(),
            app: self.program.status(),
            proxy: self.proxy.status(),
            stopping: self.stopping,
        }
    }

    /// The next steps of proxy and program.
    fn advance(&mut self, now: Instant) {
        match self.proxy.step(now, self.program.listens() && !self.stopping) {
            Step::Rest => {}
            Step::Terminate => self.proxy.terminate(now),
            Step::Kill => self.proxy.kill(now),
            Step::Start(artifact) => self.start_proxy(artifact, now),
        }
        if self.stopping && self.proxy.gone() {
            self.program.stop(now);
        }
    }

    fn start_proxy(&mut self, artifact: Artifact, now: Instant) {
        match self.spawn_proxy(artifact, now) {
            Ok(running) => {
                self.proxy.started(running);
                self.note_children();
            }
            Err(error) => {
                tracing::error!(%error, "the proxy was not started");
                self.proxy.not_started(now, &error);
            }
        }
    }

    fn spawn_proxy(&self, artifact: Artifact, now: Instant) -> io::Result<Running> {
        let inbound = self.sockets[0].address;
        let admin = free_admin(inbound)?;
        let args = self.args.proxy_args(&artifact, inbound, admin, self.folder.path());
        let mut env = artifact.env.clone();
        env.insert("WEIR_PROXY_RESTARTS".to_owned(), self.proxy.restarts().to_string());
        env.extend(self.args.token.clone().map(|token| ("WEIR_TOKEN".to_owned(), token)));
        let child = spawn::proxy(&artifact.path, &args, &env, &self.sockets)?;
        tracing::info!(version = artifact.version, pid = child.id(), %admin, "started a proxy");
        let (sender, reports) = mpsc::channel(QUEUE);
        let watcher = tokio::spawn(admin::watch(admin, sender)).abort_handle();
        Ok(Running {
            artifact,
            child,
            admin,
            started: now,
            reports,
            watcher,
            ending: None,
            killed: false,
            ready: None,
            leaves_within: None,
        })
    }

    fn note_children(&self) {
        let pids = self.program.pid().into_iter().chain(self.proxy.pid());
        if let Err(error) = self.folder.note_children(pids) {
            tracing::warn!(%error, "cannot note the children's ids");
        }
    }
}

async fn hang_up(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether whoever started this process wants it to ignore the signal (`SigIgn` in proc_pid_status(5)).
fn is_ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (number - 1)) != 0)
}

/// A free port for the admin interface, on the instance's own address if that is a loopback one. Somebody may take it
/// before the proxy does: then the proxy ends, and is started again with another.
fn free_admin(inbound: SocketAddr) -> io::Result<SocketAddr> {
    let host = if inbound.ip().is_loopback() { inbound.ip() } else { Ipv4Addr::LOCALHOST.into() };
    std::net::TcpListener::bind((host, 0))?.local_addr()
}
