//! Instances: what is desired made real, on whatever a [`Provider`] runs processes.
//!
//! Two controllers meet in the store. [`workload`] turns "so many of this app in that unit" into Instance resources,
//! each with addresses of its own. [`instance`] walks each Instance through its life, one recorded step at a time; the
//! walk itself is the pure function [`decide::decide`]. A warm upgrade replaces an instance's proxy without a failed
//! request and without touching its application:
//!
//! ```text
//! Serving -> Unpublishing   callers are told; each acknowledges endpoints without the instance
//!         -> Draining       the old proxy finishes what it has and ends
//!         -> Swapping       the new one starts on the same listening sockets and checks itself
//!         -> Serving        it has registered; callers are told again
//! ```
//!
//! [`local`] is the provider for processes of this machine. Each of its instances is a supervisor (`weir run`) that owns
//! the listening sockets, the application and the proxy, and takes orders over a unix socket ([`supervisor`]). It lives
//! in a session of its own: a control plane that is killed finds it again and loses nothing.

pub mod decide;
pub mod instance;
pub mod local;
pub mod provider;
pub mod supervisor;
pub mod workload;

use std::sync::Arc;
use std::time::Duration;

use weir_model::{Key, Kind};
use weir_reconcile::{Options, Runner, Stats};
use weir_store::SharedStore;

pub use instance::InstanceController;
pub use local::LocalProvider;
pub use provider::{Artifact, Launch, Placement, Provider, ProviderError};
pub use workload::WorkloadController;

/// Both controllers on a provider, ready to run.
pub struct Loops {
    provider: Arc<dyn Provider>,
    instances: Runner,
    workloads: Runner,
}

impl Loops {
    /// Both controllers over a store.
    pub fn new(store: SharedStore, provider: Arc<dyn Provider>, options: Options) -> Loops {
        let instance = Arc::new(InstanceController::new(provider.clone()));
        let workload = Arc::new(WorkloadController::new(provider.clone()));
        let instances = Runner::new(store.clone(), instance, options.clone());
        Loops { provider, instances, workloads: Runner::new(store, workload, options) }
    }

    /// What the loops have done, by the controllers' names.
    pub fn stats(&self) -> [(&'static str, Arc<Stats>); 2] {
        [("instance", self.instances.stats()), ("workload", self.workloads.stats())]
    }

    /// Runs both until `shutdown` says true.
    ///
    /// Instances that the provider has and the store does not (deleted while nobody looked, half made before a crash)
    /// are found at the start and cleared away.
    pub async fn run(self, mut shutdown: tokio::sync::watch::Receiver<bool>) {
        let wake = self.instances.activator();
        match self.provider.names().await {
            Ok(names) => names.into_iter().for_each(|name| wake.activate(Key::new(Kind::Instance, name))),
            Err(error) => tracing::warn!(%error, "cannot look for instances left from before"),
        }
        let mut also = shutdown.clone();
        let stop = async move { drop(shutdown.wait_for(|stop| *stop).await) };
        let stop_too = async move { drop(also.wait_for(|stop| *stop).await) };
        tokio::join!(self.instances.run(stop), self.workloads.run(stop_too));
    }
}

/// Stops every instance of a provider, in order and side by side, while the registry can still tell callers. The
/// controllers must have ended: they would start them again. Gives how many still ran after `patience`.
pub async fn stop_all(provider: &dyn Provider, patience: Duration) -> usize {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let running = ask_all_to_stop(provider).await;
        if running == 0 || tokio::time::Instant::now() >= deadline {
            return running;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How many still run, or can't tell.
async fn ask_all_to_stop(provider: &dyn Provider) -> usize {
    let mut running = 0;
    for name in provider.names().await.unwrap_or_default() {
        let seen = provider.observe(&name).await;
        running += usize::from(!matches!(seen, Ok(None)));
        let asked = match seen {
            Ok(Some(status)) if !status.stopping => provider.stop(&name).await,
            other => other.map(drop),
        };
        if let Err(error) = asked {
            tracing::warn!(instance = name, %error, "cannot stop an instance yet");
        }
    }
    running
}
