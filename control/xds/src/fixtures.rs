//! Resources for tests, in few words.

use std::collections::BTreeMap;

use jiff::Timestamp;
use weir_model::instance::{ALIVE, InstancePhase, InstanceStatus, ManagedBy};
use weir_model::meta::set_condition;
use weir_model::route::{Backend, Rule};
use weir_model::{App, AppSpec, Condition, ConditionStatus, Instance, InstanceSpec, Object, Route, RouteSpec};
use weir_store::WatchEvent;

use crate::index::Index;
use crate::node::{Node, Sidecar};

/// An index with its own resourceVersions.
#[derive(Default)]
pub struct Store {
    pub index: Index,
    version: u64,
    objects: BTreeMap<String, Object>,
}

impl Store {
    pub fn put(&mut self, object: impl Into<Object>) {
        let mut object = object.into();
        self.version += 1;
        object.metadata.resource_version = self.version;
        self.objects.insert(object.key().to_string(), object.clone());
        self.index.apply(WatchEvent::Modified(object));
    }

    pub fn delete(&mut self, key: &str) {
        if let Some(mut object) = self.objects.remove(key) {
            self.version += 1;
            object.metadata.resource_version = self.version;
            self.index.apply(WatchEvent::Deleted(object));
        }
    }

    /// The same resources in a new index, as after a restart.
    pub fn restarted(&self) -> Store {
        let mut index = Index::default();
        index.replace(self.objects.values().cloned());
        index.publish();
        Store { index, version: self.version, objects: self.objects.clone() }
    }
}

pub fn app(name: &str) -> App {
    App::new(name, AppSpec::default())
}

pub fn instance(app: &str, number: u8, group: &str) -> Instance {
    let spec = InstanceSpec {
        app: app.to_owned(),
        unit: "east".to_owned(),
        zone: format!("z{}", number % 2),
        group: group.to_owned(),
        stack: String::new(),
        managed_by: ManagedBy::Weir,
        workload: None,
        address: [127, 0, 1, number].into(),
        port: 8000,
        app_port: 9000,
        app_address: None,
        protocol: Default::default(),
        upstreams: Vec::new(),
        proxy_version: "a".to_owned(),
        app_version: "1".to_owned(),
        weight: 100,
        config_revision: String::new(),
        retire: false,
    };
    Instance {
        status: InstanceStatus { phase: InstancePhase::Serving, ..Default::default() },
        ..Instance::new(format!("{app}-{number}"), spec)
    }
}

pub fn in_phase(mut instance: Instance, phase: InstancePhase, since_s: i64) -> Instance {
    instance.status.phase = phase;
    instance.status.phase_since = Some(Timestamp::from_second(since_s).expect("a small number"));
    instance
}

pub fn dead(mut instance: Instance) -> Instance {
    let condition = Condition {
        r#type: ALIVE.to_owned(),
        status: ConditionStatus::False,
        reason: weir_model::instance::LEASE_EXPIRED.to_owned(),
        message: String::new(),
        last_transition_time: Timestamp::UNIX_EPOCH,
    };
    set_condition(&mut instance.status.conditions, condition);
    instance
}

/// A Route of `app` with one rule to these `(app, group, weight)`.
pub fn route(name: &str, app: &str, backends: &[(&str, &str, u32)]) -> Route {
    let backend = |(app, group, weight): &(&str, &str, u32)| Backend {
        app: app.to_string(),
        group: group.to_string(),
        weight: *weight,
    };
    let rule = Rule { backends: backends.iter().map(backend).collect(), ..Default::default() };
    Route::new(name, RouteSpec { app: app.to_owned(), hostnames: Vec::new(), rules: vec![rule] })
}

/// A sidecar of `app` that calls these.
pub fn sidecar(id: &str, app: &str, calls: &[&str]) -> Node {
    let listen = |port: usize| format!("127.0.0.1:{}", 15_000 + port).parse().expect("an address");
    Node {
        id: id.to_owned(),
        app: app.to_owned(),
        unit: String::new(),
        agent: "test".to_owned(),
        tls: false,
        sidecar: Some(Sidecar {
            inbound: Some("127.0.0.1:8000".parse().expect("an address")),
            application: "127.0.0.1:9000".parse().expect("an address"),
            upstreams: calls.iter().enumerate().map(|(i, app)| (app.to_string(), listen(i))).collect(),
            intercept_inbound: None,
            intercept_outbound: None,
        }),
    }
}

/// A program with gRPC's own client, or a gateway.
pub fn client(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        app: String::new(),
        unit: String::new(),
        agent: "test".to_owned(),
        tls: false,
        sidecar: None,
    }
}
