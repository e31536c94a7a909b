//! The controllers of this process, each under its leader lease.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;
use weir_api::MetricsSource;
use weir_change::execute::ChangeController;
use weir_change::slo::SloController;
use weir_change::train::TrainController;
use weir_instance::LocalProvider;
use weir_instance::local::LocalOptions;
use weir_reconcile::{Controller, Options, Runner, Stats};

use crate::access;
use crate::config::{Config, Storage};
use crate::error::StartError;
use crate::{Base, Trust};

/// Controllers by name, with what their loops have done.
pub(crate) type Loops = Vec<(&'static str, Arc<Stats>)>;

/// How long local instances may take to end when they are to end with the control plane.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// The end of the instance controllers: before everything else, since callers of what stops must still be told.
pub(crate) struct Instances {
    stop: watch::Sender<bool>,
    provider: Arc<LocalProvider>,
    too: bool,
}

impl Instances {
    /// Ends the controllers, then the instances where that is wanted.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        if self.too {
            self.stop.closed().await;
            let left = weir_instance::stop_all(&*self.provider, STOP_PATIENCE).await;
            info!(left, "local instances have been stopped");
        }
    }
}

/// How the instances of this machine reach their control plane.
pub(crate) struct ControlPlane {
    url: String,
    /// By whom it is known, if it is TLS.
    ca: Option<String>,
}

impl ControlPlane {
    /// At this address; one that listens everywhere is reached on loopback.
    pub(crate) fn new(xds: SocketAddr, trust: Option<&Trust>) -> ControlPlane {
        let ip = match xds.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let scheme = if trust.is_some() { "https" } else { "http" };
        // The file is read anew for each connection, and so tells of another authority after a restart.
        let file = |trust: &Trust| trust.file.as_ref().map(|file| file.display().to_string());
        let ca = trust.map(|trust| file(trust).unwrap_or_else(|| trust.fingerprint.clone()));
        ControlPlane { url: format!("{scheme}://{}", SocketAddr::new(ip, xds.port())), ca }
    }
}

/// Starts all controllers.
pub(crate) async fn start(
    parts: &mut JoinSet<&'static str>,
    base: &Base,
    config: &Config,
    control: ControlPlane,
) -> Result<(Loops, Option<Instances>), StartError> {
    let options = loop_options(config);
    let changes = Arc::new(ChangeController::new(base.observed.clone()));
    let mut loops = vec![
        start_loop(parts, base, "change", changes, options.clone()),
        start_loop(parts, base, "train", Arc::new(TrainController), options.clone()),
        start_loop(parts, base, "slo", Arc::new(SloController::new(base.observed.clone())), options.clone()),
    ];
    if let Some(weir) = &config.supervisor {
        let token = access::instance_token(&base.store).await?;
        let folder = config.data.join("instances");
        let ControlPlane { url, ca } = control;
        let local = LocalOptions { folder, weir: weir.clone(), control: url, control_ca: ca, token: Some(token) };
        let failed = |source| StartError::Data { what: "the folder of the instances".into(), source };
        let provider = Arc::new(LocalProvider::new(local).map_err(failed)?);
        let (stop, stopped) = watch::channel(false);
        loops.extend(start_instances(parts, base, provider.clone(), stopped, options));
        return Ok((loops, Some(Instances { stop, provider, too: config.stop_instances })));
    }
    Ok((loops, None))
}

/// The data folder's lock lets one process in at a time, so what leads is the folder, not the process: after a kill the
/// successor goes on at once rather than when the lease of the dead one has run out.
fn loop_options(config: &Config) -> Options {
    match config.storage {
        Storage::Memory => Options::default(),
        Storage::Sqlite => Options { holder: "the holder of the data folder".into(), ..Options::default() },
    }
}

fn start_loop(
    parts: &mut JoinSet<&'static str>,
    base: &Base,
    name: &'static str,
    controller: Arc<dyn Controller>,
    options: Options,
) -> (&'static str, Arc<Stats>) {
    let runner = Runner::new(base.store.clone(), controller, options);
    let (stats, mut stopped) = (runner.stats(), base.stopped.clone());
    parts.spawn(async move {
        runner.run(async move { drop(stopped.wait_for(|stop| *stop).await) }).await;
        name
    });
    (name, stats)
}

fn start_instances(
    parts: &mut JoinSet<&'static str>,
    base: &Base,
    provider: Arc<LocalProvider>,
    stopped: watch::Receiver<bool>,
    options: Options,
) -> [(&'static str, Arc<Stats>); 2] {
    let loops = weir_instance::Loops::new(base.store.clone(), provider, options);
    let stats = loops.stats();
    parts.spawn(async move {
        loops.run(stopped).await;
        "the instance controllers"
    });
    stats
}

/// Counters of the loops.
pub(crate) fn metrics(loops: Loops) -> MetricsSource {
    Arc::new(move |out| {
        let mut family = |name: &str, r#type: &str, help: &str, value: &dyn Fn(&Stats) -> u64| {
            let _infallible = write!(out, "# HELP {name} {help}\n# TYPE {name} {type}\n");
            for (controller, stats) in &loops {
                let _infallible = writeln!(out, "{name}{{controller=\"{controller}\"}} {}", value(stats));
            }
        };
        family("weir_controller_leading", "gauge", "This replica leads.", &|s| s.totals().leading.into());
        family("weir_controller_runs_total", "counter", "Reconciles finished.", &|s| s.totals().runs);
        family("weir_controller_failures_total", "counter", "Reconciles failed.", &|s| s.totals().failures);
        family("weir_controller_waiting", "gauge", "Keys that wait for their time.", &|s| s.totals().waiting);
    })
}
