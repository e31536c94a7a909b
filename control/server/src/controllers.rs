//! The controllers of this process, each under its leader lease.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use weir_api::MetricsSource;
use weir_change::execute::ChangeController;
use weir_instance::LocalProvider;
use weir_instance::local::LocalOptions;
use weir_reconcile::{Options, Runner, Stats};

use crate::Base;
use crate::access;
use crate::config::Config;
use crate::error::StartError;

/// Controllers by name, with what their loops have done.
pub(crate) type Loops = Vec<(&'static str, Arc<Stats>)>;

/// Starts all controllers.
pub(crate) async fn start(
    parts: &mut JoinSet<&'static str>,
    base: &Base,
    config: &Config,
    xds: SocketAddr,
) -> Result<Loops, StartError> {
    let mut loops = vec![start_changes(parts, base)];
    if let Some(weir) = &config.supervisor {
        let token = access::instance_token(&base.store).await?;
        let folder = config.data.join("instances");
        let options = LocalOptions { folder, weir: weir.clone(), control: format!("http://{xds}"), token: Some(token) };
        let failed = |source| StartError::Data { what: "the folder of the instances".into(), source };
        let provider = Arc::new(LocalProvider::new(options).map_err(failed)?);
        loops.extend(start_instances(parts, base, provider));
    }
    Ok(loops)
}

fn start_changes(parts: &mut JoinSet<&'static str>, base: &Base) -> (&'static str, Arc<Stats>) {
    let controller = Arc::new(ChangeController::new(base.observed.clone()));
    let runner = Runner::new(base.store.clone(), controller, Options::default());
    let (stats, mut stopped) = (runner.stats(), base.stopped.clone());
    parts.spawn(async move {
        runner.run(async move { drop(stopped.wait_for(|stop| *stop).await) }).await;
        "the change controller"
    });
    ("change", stats)
}

fn start_instances(
    parts: &mut JoinSet<&'static str>,
    base: &Base,
    provider: Arc<LocalProvider>,
) -> [(&'static str, Arc<Stats>); 2] {
    let loops = weir_instance::Loops::new(base.store.clone(), provider, Options::default());
    let (stats, stopped) = (loops.stats(), base.stopped.clone());
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
