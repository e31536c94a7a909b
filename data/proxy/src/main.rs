//! The sidecar proxy: `weir-proxy`.

use std::collections::HashSet;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;
use weir_client::Token;
use weir_client::otlp::OtlpOptions;
use weir_proxy::control::ControlFlags;
use weir_proxy::intercept::{self, InterceptFlags};
use weir_proxy::{
    AccessLog, DrainOptions, DrainReport, Drill, InheritedSockets, Options, Proxy, Readiness, Snapshot, Span, admin,
    control, otlp,
};

const NOTHING_TO_RUN_FROM: &str = "there is nothing to run from; give it a file, or a control plane:
  weir-proxy --config proxy.yaml
  weir-proxy --control http://127.0.0.1:15010 --instance stock-1 --app stock --inbound 127.0.0.1:8080 --app-port 9000
beside a program, `weir run` does the latter by itself; all flags: weir-proxy --help";
/// At the end, log lines and spans that are still queued get this long each.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A proxy that stands beside an application and carries its traffic.
///
/// It runs from a file (--config) or from a control plane (--control). SIGTERM makes it finish what it carries and exit.
#[derive(Debug, Parser)]
#[command(name = "weir-proxy", version, args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    task: Option<Task>,
    /// Run from this YAML file instead of a control plane
    #[arg(long, value_name = "FILE", conflicts_with = "control")]
    config: Option<PathBuf>,
    /// Only say whether the file given by --config is valid
    #[arg(long, requires = "config")]
    validate: bool,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// Address of the admin endpoint; port 0 takes any, which is printed
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// Write the admin endpoint's address into this file once the proxy runs
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Version this proxy reports as
    #[arg(long, value_name = "NAME", default_value = env!("CARGO_PKG_VERSION"))]
    release: String,
    /// Fail on purpose, e.g. fail-ratio=0.2: that share of inbound requests is answered 500. For drills only
    #[arg(long, value_name = "FAULT")]
    drill: Option<Drill>,
    /// Append access log lines to this file instead of writing them to standard output; with --control, log the
    /// requests of every listener
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Level of the log on standard error, e.g. info or weir_proxy=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "WEIR_LOG")]
    log: String,
    #[command(flatten)]
    control: ControlFlags,
}

/// What else this program does than to serve.
#[derive(Debug, Subcommand)]
enum Task {
    /// Redirect connections of this host (or network namespace) through the proxy, or stop doing so
    Intercept(InterceptFlags),
}

fn main() -> ExitCode {
    // Before anything else opens a descriptor or starts a thread.
    let inherited = InheritedSockets::from_env();
    let flags = Flags::parse().with_environment();
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(EnvFilter::new(&flags.log));
    log.with_ansi(false).init();
    match inherited.map_err(Into::into).and_then(|inherited| start(flags, inherited)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Flags {
    /// A file given by hand wins over a control plane in the environment.
    fn with_environment(mut self) -> Self {
        if self.config.is_none() {
            self.control = self.control.or(std::env::var("WEIR_CONTROL").ok());
        }
        self
    }
}

fn start(flags: Flags, inherited: InheritedSockets) -> Result<(), Box<dyn Error>> {
    if let Some(Task::Intercept(flags)) = &flags.task {
        return Ok(intercept::run(flags)?);
    }
    if let (true, Some(path)) = (flags.validate, &flags.config) {
        load(path)?;
        println!("{} is valid", path.display());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(flags, inherited))
}

/// A process that holds private keys leaves no core dump, and only root may look into its memory (`PR_SET_DUMPABLE` in
/// `prctl(2)`, `/proc/PID` in `proc(5)`).
fn keep_keys_in_memory() {
    let hidden = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let limited = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    if let Err(error) = hidden.and(limited) {
        tracing::warn!(%error, "core dumps cannot be switched off: one would hold private keys");
    }
}

async fn run(flags: Flags, inherited: InheritedSockets) -> Result<(), Box<dyn Error>> {
    // Asked for first, so that no signal is lost while starting.
    let stop = Stop::new()?;
    let names: HashSet<String> = inherited.names().map(str::to_owned).collect();
    let snapshot = match &flags.config {
        Some(path) => load(path)?,
        None => Snapshot::empty(),
    };
    if flags.config.is_none() && flags.control.control.is_none() {
        return Err(NOTHING_TO_RUN_FROM.into());
    }
    if flags.config.is_none() || !snapshot.config().secrets.is_empty() {
        keep_keys_in_memory();
    }
    let exporting = flags.control.otlp.as_ref().map(|collector| Exporting::begin(&flags, collector));
    let spans = exporting.as_ref().map(|exporting| exporting.spans.clone());
    let proxy = Proxy::start(options(&flags, inherited, spans), snapshot).await?;
    let admin = admin::serve(proxy.clone(), flags.admin).await?;
    announce(&flags, &proxy, admin)?;
    tokio::spawn(hang_ups(proxy.clone(), flags.config.clone(), signal(SignalKind::hangup())?));
    let report = match flags.config {
        Some(_) => serve_file(&proxy, stop.wait()).await,
        None => {
            let log_requests = flags.access_log.is_some();
            control::run(
                proxy.clone(),
                ControlFlags { log_requests, admin: Some(admin), ..flags.control },
                names,
                stop.wait(),
            )
            .await?
        }
    };
    tracing::info!(?report, "stopped");
    if !proxy.flush(LAST_WORDS).await {
        tracing::warn!("access log lines are lost: their writer is behind");
    }
    if let Some(exporting) = exporting {
        exporting.end().await;
    }
    Ok(())
}

fn load(path: &Path) -> Result<Arc<Snapshot>, Box<dyn Error>> {
    let config = weir_config::load(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Snapshot::compile(config)?)
}

fn options(flags: &Flags, inherited: InheritedSockets, spans: Option<SyncSender<Span>>) -> Options {
    Options {
        workers: flags.workers,
        release: flags.release.clone(),
        drill: flags.drill,
        inherited,
        access_log: flags.access_log.clone().map_or(AccessLog::Stdout, AccessLog::File),
        spans,
        drain_time: flags.control.drain_timeout_ms.map(Duration::from_millis),
        goodbye_time: goodbye_time(flags),
        trace_ratio: flags.control.otlp_ratio,
    }
}

/// Callers are told only where there is a control plane to tell them.
fn goodbye_time(flags: &Flags) -> Duration {
    let told = flags.config.is_none();
    if told { Duration::from_millis(flags.control.goodbye_timeout_ms) } else { Duration::ZERO }
}

/// The export of spans.
struct Exporting {
    spans: SyncSender<Span>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporting {
    fn begin(flags: &Flags, collector: &str) -> Self {
        let (spans, queue) = otlp::queue();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = OtlpOptions {
            address: collector.to_owned(),
            token: Token::none(),
            service: flags.control.app.clone().unwrap_or_else(|| "weir-proxy".to_owned()),
            instance: flags.control.instance.clone().unwrap_or_default(),
            version: flags.release.clone(),
        };
        let task = tokio::spawn(queue.export(options, async move { drop(stopped.await) }));
        Exporting { spans, stop, task }
    }

    /// Exports what is queued, within bounds.
    async fn end(self) {
        let _ = self.stop.send(());
        if tokio::time::timeout(LAST_WORDS, self.task).await.is_err() {
            tracing::warn!("spans are lost: their collector is behind");
        }
    }
}

/// Tells where the admin endpoint is, and of a drill as loudly as can be.
fn announce(flags: &Flags, proxy: &Proxy, admin: SocketAddr) -> io::Result<()> {
    println!("admin http://{admin}");
    tracing::info!(release = proxy.release(), workers = flags.workers, %admin, "weir-proxy runs");
    if let Some(path) = &flags.ready_file {
        std::fs::write(path, format!("{admin}\n"))?;
    }
    if let Some(drill) = proxy.drill() {
        tokio::spawn(warn_of_drill(drill));
    }
    Ok(())
}

async fn warn_of_drill(drill: Drill) {
    loop {
        tracing::warn!(%drill, "DRILL: THIS PROXY FAILS REQUESTS ON PURPOSE; restart it without --drill to end this");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

/// Serves what the file said until told to stop, then drains.
async fn serve_file(proxy: &Proxy, stop: impl Future<Output = ()>) -> DrainReport {
    proxy.set_readiness(Readiness::Ready);
    let windows = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            proxy.take_health_window();
        }
    };
    let mut stop = pin!(stop);
    let asked = tokio::select! {
        () = &mut stop => false,
        () = proxy.asked_to_leave() => true,
        () = windows => false,
    };
    let report = proxy.drain(DrainOptions { deadline: proxy.drain_time(), ..Default::default() }).await;
    if asked {
        stop.await;
    }
    report
}

/// Follows SIGHUP: opens the access log anew, and reads the file anew that the proxy runs from, if it does.
async fn hang_ups(proxy: Proxy, config: Option<PathBuf>, mut signals: Signal) {
    while signals.recv().await.is_some() {
        match proxy.reopen_access_log().await {
            Ok(()) => tracing::info!("SIGHUP: the access log is opened anew"),
            Err(error) => tracing::error!(%error, "SIGHUP: the access log can't be opened anew; it goes on as before"),
        }
        if let Some(path) = &config {
            match reload(&proxy, path).await {
                Ok(()) => tracing::info!(file = %path.display(), "SIGHUP: the file is in force as it is now"),
                Err(error) => tracing::error!(%error, "SIGHUP: the configuration stays as it was"),
            }
        }
    }
}

async fn reload(proxy: &Proxy, path: &Path) -> Result<(), Box<dyn Error>> {
    let snapshot = load(path)?;
    if !snapshot.config().secrets.is_empty() {
        keep_keys_in_memory();
    }
    proxy.apply(snapshot).await?;
    Ok(())
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: draining"),
        }
    }
}
