//! The simulated fleet: plays the instance controller (a warm upgrade takes a few seconds), the proxies' reports, and
//! what callers see.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use weir_model::health::{EndpointTraffic, HealthWindow, SelfCheck, Traffic};
use weir_model::instance::{ALIVE, InstanceConfig, InstancePhase, InstanceSpec, ManagedBy};
use weir_model::meta::{Condition, ConditionStatus};
use weir_model::release::{Component, ReleaseSpec};
use weir_model::{App, AppSpec, Instance, Release, Unit, UnitSpec, Workload, WorkloadSpec};
use weir_store::observed::{Observed, TimedWindow};
use weir_store::{MemoryStore, typed};

use super::{author, now};

/// Requests of one instance in a second.
const REQUESTS: u64 = 20;

/// How a version behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nature {
    /// Share of requests that fail.
    pub failing: f64,
    /// It never comes up.
    pub stillborn: bool,
    /// It is dead so many seconds after it came up, and nobody hears of it.
    pub dies_after: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Fleet {
    pub apps: Vec<(String, usize)>,
    pub units: Vec<String>,
    pub natures: BTreeMap<String, Nature>,
    /// Share of requests that fail whatever the version, by app.
    pub background: BTreeMap<String, f64>,
    /// No requests at all.
    pub idle: bool,
    /// Instances that do not come up any more, whatever the version.
    pub broken: BTreeSet<String>,
}

impl Fleet {
    /// `front` and `stock` in two units, three instances each, and an edge of one.
    pub fn demo() -> Fleet {
        let natures = [("a", 0.0), ("b", 0.0), ("c", 0.2)];
        Fleet {
            apps: vec![("edge".into(), 1), ("front".into(), 3), ("stock".into(), 3)],
            units: vec!["east".into(), "west".into()],
            natures: natures.map(|(name, failing)| (name.to_owned(), Nature { failing, ..Nature::default() })).into(),
            background: BTreeMap::new(),
            idle: false,
            broken: BTreeSet::new(),
        }
    }

    pub fn create(&self, store: &MemoryStore) {
        for version in self.natures.keys() {
            release(store, version);
        }
        for (n, unit) in self.units.iter().enumerate() {
            let spec = UnitSpec { canary: n == 0, ..UnitSpec::default() };
            now(typed::create(store, &Unit::new(unit, spec), &author())).unwrap();
        }
        for (app, count) in &self.apps {
            now(typed::create(store, &App::new(app, AppSpec::default()), &author())).unwrap();
            let units = if *count == 1 { &self.units[..1] } else { &self.units[..] };
            units.iter().for_each(|unit| self.create_workload(store, app, unit, *count));
        }
    }

    fn create_workload(&self, store: &MemoryStore, app: &str, unit: &str, count: usize) {
        let workload: WorkloadSpec = serde_json::from_value(serde_json::json!({
            "app": app, "unit": unit, "replicas": count, "proxyVersion": "a",
        }))
        .unwrap();
        now(typed::create(store, &Workload::new(format!("{app}-{unit}"), workload), &author())).unwrap();
        (1..=count).for_each(|n| create_instance(store, &format!("{app}-{unit}-{n}"), app, unit, "a"));
    }

    /// One second: proxies that serve report, upgrades go on.
    pub fn tick(&self, store: &MemoryStore, observed: &Observed, at: Timestamp, random: &mut fastrand::Rng) {
        for instance in now(typed::list::<InstanceSpec>(store)).unwrap().0 {
            let instance = self.live(store, instance, at);
            self.report(&instance, observed, at, random);
            let instance = self.configure(store, instance, random);
            self.advance(store, instance, at, random);
        }
    }

    /// Some versions die after a while; a swap revives the instance.
    fn live(&self, store: &MemoryStore, mut instance: Instance, at: Timestamp) -> Instance {
        let age = instance.status.phase_since.map_or(0, |since| at.duration_since(since).as_secs());
        let lifetime = self.natures.get(&instance.status.proxy_version).and_then(|n| n.dies_after);
        let dead = instance.status.phase == InstancePhase::Serving && lifetime.is_some_and(|seconds| age >= seconds);
        if dead == instance.status.conditions.is_empty() {
            let alive = Condition {
                r#type: ALIVE.to_owned(),
                status: ConditionStatus::False,
                reason: "Lost".into(),
                message: String::new(),
                last_transition_time: at,
            };
            instance.status.conditions = if dead { vec![alive] } else { Vec::new() };
            instance = now(typed::update_status(store, &instance)).unwrap();
        }
        instance
    }

    /// The xDS server's part: the proxy takes the configuration its instance names, or refuses it.
    fn configure(&self, store: &MemoryStore, mut instance: Instance, random: &mut fastrand::Rng) -> Instance {
        let wanted = instance.spec.config_revision.clone();
        let refused = self.natures.get(&wanted).is_some_and(|nature| nature.stillborn);
        let before = instance.status.config.clone().unwrap_or_default();
        let next = match refused {
            true => InstanceConfig { rejected: "RDS: no such thing".into(), ..before.clone() },
            false => InstanceConfig { revision: wanted, rejected: String::new() },
        };
        if next == before || random.u8(..3) == 0 {
            return instance;
        }
        instance.status.config = Some(next);
        now(typed::update_status(store, &instance)).unwrap()
    }

    fn report(&self, instance: &Instance, observed: &Observed, at: Timestamp, random: &mut fastrand::Rng) {
        if !instance.status.published() {
            return;
        }
        let requests = if self.idle { 0 } else { REQUESTS };
        let version = &instance.status.proxy_version;
        let program = format!("{}-{}", instance.spec.app, instance.status.app_version);
        let revision = instance.status.config.as_ref().map_or("", |c| c.revision.as_str());
        let failing = |of: &str| self.natures.get(of).map_or(0.0, |nature| nature.failing);
        let ratio = failing(version)
            + failing(&program)
            + failing(revision)
            + self.background.get(&instance.spec.app).copied().unwrap_or(0.0);
        let errors = (0..requests).filter(|_| random.f64() < ratio).count() as u64;
        let inbound = Traffic { requests, errors, latency: Vec::new() };
        let window = HealthWindow { inbound, ..HealthWindow::default() };
        observed
            .telemetry
            .record(instance.name(), TimedWindow { received: at, proxy_version: version.clone(), window });
        let seen = EndpointTraffic { requests, errors, ..EndpointTraffic::default() };
        observed.telemetry.record_caller(instance.name(), at, &seen);
    }

    /// The instance controller's walk, each phase taking a random time.
    fn advance(&self, store: &MemoryStore, mut instance: Instance, at: Timestamp, random: &mut fastrand::Rng) {
        let wanted = instance.spec.proxy_version.clone();
        let program = instance.spec.app_version.clone();
        let as_wanted = instance.status.proxy_version == wanted && instance.status.app_version == program;
        let settled = as_wanted && instance.status.phase == InstancePhase::Serving;
        let broken = self.broken.contains(instance.name());
        let stillborn = broken || self.natures.get(&wanted).is_some_and(|n| n.stillborn);
        let stuck = instance.status.phase == InstancePhase::Failed && stillborn;
        if settled || stuck || instance.spec.retire || random.u8(..3) == 0 {
            return;
        }
        instance.status.phase = match instance.status.phase {
            InstancePhase::Serving => InstancePhase::Unpublishing,
            InstancePhase::Unpublishing if as_wanted => InstancePhase::Serving,
            InstancePhase::Unpublishing | InstancePhase::Failed => InstancePhase::Draining,
            InstancePhase::Draining => InstancePhase::Swapping,
            _ if stillborn => InstancePhase::Failed,
            _ => {
                (instance.status.proxy_version, instance.status.app_version) = (wanted, program);
                InstancePhase::Serving
            }
        };
        instance.status.phase_since = Some(at);
        now(typed::update_status(store, &instance)).unwrap();
    }
}

pub fn release(store: &MemoryStore, version: &str) {
    release_of(store, Component::Proxy, version);
}

pub fn release_of(store: &MemoryStore, component: Component, version: &str) {
    let spec = ReleaseSpec::new(component, version, "/usr/bin/weir-proxy");
    now(typed::create(store, &Release::new(format!("proxy-{version}"), spec), &author())).unwrap();
}

pub fn create_instance(store: &MemoryStore, name: &str, app: &str, unit: &str, version: &str) {
    let mut spec: InstanceSpec = serde_json::from_value(serde_json::json!({
        "app": app, "unit": unit, "address": "127.0.0.1", "port": 15000, "proxyVersion": version,
    }))
    .unwrap();
    spec.managed_by = ManagedBy::Weir;
    spec.workload = Some(format!("{app}-{unit}"));
    spec.zone = format!("zone-{}", name.len() % 2 + usize::from(name.ends_with('2')));
    let mut instance = now(typed::create(store, &Instance::new(name, spec), &author())).unwrap();
    instance.status.phase = InstancePhase::Serving;
    instance.status.proxy_version = version.to_owned();
    instance.status.self_check = Some(SelfCheck { passed: true, checks: Vec::new() });
    now(typed::update_status(store, &instance)).unwrap();
}
