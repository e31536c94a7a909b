//! Whole lives of instances in a small simulated world, with the controller killed at random.
//!
//! The world stands for everything outside of the controller: supervisors whose proxies take a while to start and to
//! end, the registry that hears of them, the xDS side that learns when callers have let go. It also watches for what
//! must never happen: a proxy that is drained while callers are still given its instance, an application that restarts
//! because of an upgrade, an illegal transition.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_instance::supervisor::{AppStatus, ProxyState, ProxyStatus, Status};
use weir_instance::{Artifact, InstanceController, Launch, Placement, Provider, ProviderError, WorkloadController};
use weir_model::health::SelfCheck;
use weir_model::instance::{ALIVE, Instance, InstancePhase, InstanceSpec, UNPUBLISHED};
use weir_model::meta::{Condition, ConditionStatus, holds, set_condition};
use weir_model::release::Component;
use weir_model::{Author, Key, Kind, Release, ReleaseSpec, Workload, WorkloadSpec};
use weir_reconcile::{Context, Controller, Next};
use weir_store::memory::MemoryStore;
use weir_store::{SharedStore, tokio_clock, typed};

/// Steps after which a simulation that has not come to its end never will.
const MANY: usize = 5_000;

/// What a provider has running, in steps instead of seconds.
#[derive(Default)]
struct World {
    running: BTreeMap<String, Status>,
    /// Steps until a proxy that starts is ready, or one that drains has ended.
    waits: BTreeMap<String, u32>,
    next_pid: u32,
    /// Versions whose self-check fails.
    broken: Vec<String>,
    /// Names whose drain or stop was ordered since they last became ready.
    drained: Vec<String>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>);

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Two places at which a kill can strike: before the effect and after it.
    async fn effect(&self, change: impl FnOnce(&mut World)) {
        tokio::task::yield_now().await;
        change(&mut self.world());
        tokio::task::yield_now().await;
    }
}

impl World {
    fn pid(&mut self) -> u32 {
        self.next_pid += 1;
        self.next_pid
    }

    fn start_proxy(&mut self, name: &str, version: &str) {
        let pid = self.pid();
        let Some(status) = self.running.get_mut(name) else { return };
        if status.proxy.wanted == version {
            return;
        }
        let wanted = version.to_owned();
        status.proxy = ProxyStatus {
            state: ProxyState::Starting,
            version: wanted.clone(),
            wanted,
            pid: Some(pid),
            ..ProxyStatus::default()
        };
        self.waits.insert(name.to_owned(), 2);
    }

    fn drain(&mut self, name: &str) {
        let Some(status) = self.running.get_mut(name) else { return };
        status.proxy.wanted.clear();
        if !matches!(status.proxy.state, ProxyState::Stopped | ProxyState::Draining) {
            status.proxy.state = ProxyState::Draining;
            self.waits.insert(name.to_owned(), 2);
        }
        self.drained.push(name.to_owned());
    }

    /// One step of every process.
    fn step(&mut self) {
        for (name, status) in &mut self.running {
            let wait = self.waits.entry(name.clone()).or_default();
            *wait = wait.saturating_sub(1);
            let broken = self.broken.contains(&status.proxy.version);
            status.proxy.state = match status.proxy.state {
                ProxyState::Starting if *wait == 0 && broken => ProxyState::Failed,
                ProxyState::Starting if *wait == 0 => ProxyState::Ready,
                ProxyState::Draining if *wait == 0 => ProxyState::Stopped,
                state => state,
            };
        }
        let ended = |status: &Status| status.stopping && status.proxy.state == ProxyState::Stopped;
        self.running.retain(|_, status| !ended(status));
    }
}

#[async_trait]
impl Provider for Fake {
    async fn place(&self, _: &str, _: &[String], taken: &[InstanceSpec]) -> Result<Placement, ProviderError> {
        let address = IpAddr::from([127, 16, 0, taken.len() as u8 + 1]);
        let application = SocketAddr::new(address, 9000);
        Ok(Placement { address, port: 8080, application, upstreams: Vec::new() })
    }

    async fn names(&self) -> Result<Vec<String>, ProviderError> {
        Ok(self.world().running.keys().cloned().collect())
    }

    async fn observe(&self, name: &str) -> Result<Option<Status>, ProviderError> {
        tokio::task::yield_now().await;
        Ok(self.world().running.get(name).cloned())
    }

    async fn verify(&self, _: &Artifact) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn start(&self, launch: &Launch) -> Result<(), ProviderError> {
        self.effect(|world| {
            if !world.running.contains_key(&launch.name) {
                let version = Some(launch.spec.app_version.clone());
                let app = Some(AppStatus { pid: world.pid(), started_at: Timestamp::UNIX_EPOCH, version });
                let pid = world.pid();
                let status =
                    Status { instance: launch.name.clone(), pid, app, proxy: ProxyStatus::default(), stopping: false };
                world.running.insert(launch.name.clone(), status);
                world.start_proxy(&launch.name, &launch.proxy.version);
            }
        })
        .await;
        Ok(())
    }

    async fn drain(&self, name: &str) -> Result<(), ProviderError> {
        self.effect(|world| world.drain(name)).await;
        Ok(())
    }

    async fn swap(&self, name: &str, proxy: &Artifact) -> Result<(), ProviderError> {
        self.effect(|world| world.start_proxy(name, &proxy.version)).await;
        Ok(())
    }

    async fn stop(&self, name: &str) -> Result<(), ProviderError> {
        self.effect(|world| {
            world.drain(name);
            if let Some(status) = world.running.get_mut(name) {
                status.stopping = true;
            }
        })
        .await;
        Ok(())
    }

    async fn remove(&self, _: &str) -> Result<(), ProviderError> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// A mesh of one workload and its outside.
struct Simulation {
    fake: Fake,
    context: Context,
    random: fastrand::Rng,
    /// Kills the controller in the middle of a reconcile now and then.
    kills: bool,
    phases: BTreeMap<String, InstancePhase>,
}

fn author() -> Author {
    Author::new("test", "simulation")
}

impl Simulation {
    async fn new(seed: u64, kills: bool, replicas: u32) -> Simulation {
        let clock = tokio_clock(Timestamp::UNIX_EPOCH);
        let store: SharedStore = Arc::new(MemoryStore::new());
        for version in ["A", "B", "C"] {
            let spec = ReleaseSpec::new(Component::Proxy, version, "/bin/true");
            let name = format!("proxy-{}", version.to_lowercase());
            typed::create(store.as_ref(), &Release::new(name, spec), &author()).await.unwrap();
        }
        typed::create(store.as_ref(), &workload(replicas), &author()).await.unwrap();
        let context = Context { store, clock };
        let random = fastrand::Rng::with_seed(seed);
        Simulation { fake: Fake::default(), context, random, kills, phases: BTreeMap::new() }
    }

    async fn instances(&self) -> Vec<Instance> {
        typed::list(self.context.store.as_ref()).await.unwrap().0
    }

    async fn want(&self, version: &str) {
        for mut instance in self.instances().await {
            instance.spec.proxy_version = version.into();
            typed::update(self.context.store.as_ref(), &instance, &author()).await.unwrap();
        }
    }

    async fn want_program(&self, version: &str) {
        for mut instance in self.instances().await {
            instance.spec.app_version = version.into();
            typed::update(self.context.store.as_ref(), &instance, &author()).await.unwrap();
        }
    }

    /// Runs until all `count` instances are as they should be.
    async fn until(&mut self, count: usize, settled: impl Fn(&Instance) -> bool) {
        for _ in 0..MANY {
            self.step().await;
            let instances = self.instances().await;
            if instances.len() == count && instances.iter().all(&settled) {
                return;
            }
        }
        panic!("never settled: {:#?}", self.instances().await.iter().map(|i| &i.status).collect::<Vec<_>>());
    }

    /// Something happens somewhere.
    async fn step(&mut self) {
        match self.random.u8(0..4) {
            0 => self.fake.world().step(),
            1 => self.outside().await,
            2 => self.run(&WorkloadController::new(self.provider()), Key::new(Kind::Workload, "stock")).await,
            _ => {
                for instance in self.instances().await {
                    self.run(&InstanceController::new(self.provider()), instance.key()).await;
                }
            }
        }
        tokio::time::advance(Duration::from_millis(100)).await;
        self.judge().await;
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.fake.clone())
    }

    /// One reconcile, or a part of it: killed after a few of its waits.
    async fn run(&mut self, controller: &dyn Controller, key: Key) {
        let waits = if self.kills { self.random.usize(0..12) } else { usize::MAX };
        let mut reconcile = std::pin::pin!(controller.reconcile(&key, &self.context));
        let mut polls = 0;
        let ended = std::future::poll_fn(|context| {
            polls += 1;
            match reconcile.as_mut().poll(context) {
                std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
                std::task::Poll::Pending if polls > waits => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        })
        .await;
        if let Some(result) = ended {
            let _: Next = result.unwrap();
        }
    }

    /// The registry hears of ready proxies; callers acknowledge.
    async fn outside(&mut self) {
        let store = self.context.store.clone();
        let now = self.context.now();
        for instance in self.instances().await {
            let proxy = self.fake.world().running.get(instance.name()).map(|status| status.proxy.clone());
            let ready = proxy.filter(|proxy| proxy.state == ProxyState::Ready);
            let changed = |instance: &mut Instance| {
                let before = instance.status.clone();
                if let Some(ready) = &ready {
                    instance.status.proxy_version.clone_from(&ready.version);
                    instance.status.self_check = Some(SelfCheck { passed: true, checks: Vec::new() });
                    set_condition(&mut instance.status.conditions, condition(ALIVE, now));
                }
                if instance.status.phase == InstancePhase::Unpublishing {
                    set_condition(&mut instance.status.conditions, condition(UNPUBLISHED, now));
                }
                instance.status != before
            };
            typed::modify_status::<InstanceSpec>(store.as_ref(), instance.name(), changed).await.unwrap();
        }
    }

    /// What must never happen.
    async fn judge(&mut self) {
        let drained = std::mem::take(&mut self.fake.world().drained);
        for instance in self.instances().await {
            let (name, phase) = (instance.name().to_owned(), instance.status.phase);
            let walked = matches!(phase, InstancePhase::Draining | InstancePhase::Swapping | InstancePhase::Serving);
            let known = holds(&instance.status.conditions, UNPUBLISHED);
            assert!(!drained.contains(&name) || !walked || known, "{name} is drained before callers know: {phase:?}");
            let before = self.phases.insert(name.clone(), phase).unwrap_or_default();
            assert!(reachable(before, phase), "{name}: {before:?} -> {phase:?}");
        }
    }

    fn app_pids(&self) -> Vec<u32> {
        self.fake.world().running.values().filter_map(|status| status.app.as_ref()).map(|app| app.pid).collect()
    }
}

/// Several transitions may lie between two looks.
fn reachable(from: InstancePhase, to: InstancePhase) -> bool {
    use InstancePhase::*;
    let all = [Pending, Starting, Serving, Unpublishing, Draining, Swapping, Failed, Terminating];
    from.may_become(to) || all.iter().any(|via| from.may_become(*via) && via.may_become(to))
}

fn condition(r#type: &str, now: Timestamp) -> Condition {
    Condition {
        r#type: r#type.into(),
        status: ConditionStatus::True,
        reason: "Simulated".into(),
        message: String::new(),
        last_transition_time: now,
    }
}

fn workload(replicas: u32) -> Workload {
    let spec = WorkloadSpec {
        app: "stock".into(),
        unit: "east".into(),
        zones: vec!["a".into(), "b".into()],
        group: String::new(),
        stack: String::new(),
        replicas,
        command: vec!["demo".into()],
        env: BTreeMap::new(),
        calls: Vec::new(),
        proxy_version: "A".into(),
        app_version: String::new(),
    };
    Workload::new("stock", spec)
}

fn serving(version: &'static str) -> impl Fn(&Instance) -> bool {
    move |i| {
        i.status.phase == InstancePhase::Serving && i.spec.proxy_version == version && i.status.proxy_version == version
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_and_its_roll_back_never_touch_the_application() {
    for seed in 0..25 {
        let mut simulation = Simulation::new(seed, seed > 0, 3).await;
        simulation.until(3, serving("A")).await;
        let pids = simulation.app_pids();
        simulation.want("B").await;
        simulation.until(3, serving("B")).await;
        simulation.want("A").await;
        simulation.until(3, serving("A")).await;
        assert_eq!(simulation.app_pids(), pids, "seed {seed}: the applications are the same processes");
    }
}

/// [`Simulation::judge`] sees that callers know before anything is drained, then too.
#[tokio::test(start_paused = true)]
async fn another_release_of_the_application_starts_behind_drained_traffic() {
    for seed in 0..25 {
        let mut simulation = Simulation::new(seed, seed > 0, 3).await;
        simulation.until(3, serving("A")).await;
        let before = simulation.app_pids();
        let runs = |version: &'static str| move |i: &Instance| serving("A")(i) && i.status.app_version == version;
        simulation.want_program("2").await;
        simulation.until(3, runs("2")).await;
        let after = simulation.app_pids();
        assert!(after.iter().all(|pid| !before.contains(pid)), "seed {seed}: every program is another process");
        simulation.want_program("").await;
        simulation.until(3, runs("")).await;
        let now = simulation.app_pids();
        (0..40).for_each(|_| simulation.fake.world().step());
        assert_eq!(simulation.app_pids(), now, "seed {seed}: it is left alone afterwards");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_fails_its_self_check_is_told_and_can_be_left() {
    for seed in 0..12 {
        let mut simulation = Simulation::new(seed, seed > 0, 2).await;
        simulation.fake.world().broken.push("C".into());
        simulation.until(2, serving("A")).await;
        simulation.want("C").await;
        simulation.until(2, |i| i.status.phase == InstancePhase::Failed).await;
        simulation.want("A").await;
        simulation.until(2, serving("A")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_dies_comes_back_and_what_is_too_much_goes() {
    for seed in 0..12 {
        let mut simulation = Simulation::new(seed, seed > 0, 3).await;
        simulation.until(3, serving("A")).await;
        simulation.fake.world().running.remove("stock-2");
        simulation.until(3, |i| i.name() != "stock-2" || i.status.phase != InstancePhase::Serving).await;
        simulation.until(3, serving("A")).await;

        let store = simulation.context.store.clone();
        let mut workload: Workload = typed::get(store.as_ref(), "stock").await.unwrap().unwrap();
        workload.spec.replicas = 1;
        typed::update(store.as_ref(), &workload, &author()).await.unwrap();
        simulation.until(1, serving("A")).await;
        assert_eq!(simulation.fake.names().await.unwrap(), ["stock-1"], "seed {seed}: nothing is left running");
    }
}
