//! From the store's resources to the [`World`]: applies events, rebuilds only the apps they touch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use weir_model::instance::{ALIVE, InstancePhase, LEASE_EXPIRED, UNPUBLISHED};
use weir_model::meta::{ConditionStatus, holds};
use weir_model::{App, AppSpec, Instance, Key, Kind, Object, Route};
use weir_store::WatchEvent;

use crate::build::endpoints::Endpoint;
use crate::node;
use crate::world::{AppView, Change, Inputs, World};

/// What the world is made of; owned by one task.
#[derive(Debug, Default)]
pub struct Index {
    versions: HashMap<Key, u64>,
    apps: HashMap<String, AppSpec>,
    routes: BTreeMap<String, Route>,
    instances: HashMap<String, Member>,
    by_app: HashMap<String, Names>,
    dirty: BTreeSet<String>,
    leaving: BTreeMap<String, Leaving>,
    world: Arc<World>,
}

#[derive(Debug, Default)]
struct Names {
    instances: BTreeSet<String>,
    routes: BTreeSet<String>,
}

/// What is remembered of an instance.
#[derive(Debug)]
struct Member {
    app: String,
    group: String,
    protocol: weir_model::app::Protocol,
    endpoint: Option<Endpoint>,
    calls: Vec<String>,
    alive: bool,
    /// Dead, and not only for want of news.
    left: bool,
    /// Published, and still carries the condition of its last unpublishing.
    stale_condition: bool,
}

/// An instance that waits for its callers to know that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Its app.
    pub app: String,
    /// When it began; tells this leaving from the next.
    pub since: Option<Timestamp>,
    /// For each cluster it could be in: callers must have acknowledged the world of this sequence or a later one.
    /// Absent until a world without it has been published.
    pub need: Option<BTreeMap<String, u64>>,
    /// Decided already: acknowledged or timed out.
    pub settled: bool,
}

impl Index {
    /// The world as last published.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// True if the last world is no longer what the resources say.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Instances that wait to be unpublished.
    pub fn leaving(&self) -> impl Iterator<Item = (&String, &Leaving)> {
        self.leaving.iter().filter(|(_, leaving)| !leaving.settled)
    }

    /// Remembers that this leaving is decided, until the store says so too.
    pub fn settle(&mut self, instance: &str, since: Option<Timestamp>) {
        if let Some(leaving) = self.leaving.get_mut(instance).filter(|l| l.since == since) {
            leaving.settled = true;
        }
    }

    /// Published instances whose condition still says Unpublished.
    pub fn stale(&self) -> Vec<String> {
        self.instances.iter().filter(|(_, m)| m.stale_condition).map(|(name, _)| name.clone()).collect()
    }

    /// Whether an instance in the store has left for certain: one that is merely not heard of may call on with what it
    /// has. `None`: there is none of this name.
    pub fn has_left(&self, instance: &str) -> Option<bool> {
        self.instances.get(instance).map(|m| m.left)
    }

    /// Instances that are not known to be dead, with the apps their calls may end at.
    pub fn callers(&self) -> Vec<(String, BTreeSet<String>)> {
        let calls = |m: &Member| node::calls(&self.world, m.calls.iter().map(String::as_str));
        self.instances.iter().filter(|(_, m)| m.alive).map(|(name, m)| (name.clone(), calls(m))).collect()
    }

    /// Takes everything in the store, as after a start or a gap in the watch.
    pub fn replace(&mut self, objects: impl IntoIterator<Item = Object>) {
        let mut gone: BTreeSet<Key> = self.versions.keys().cloned().collect();
        for object in objects {
            gone.remove(&object.key());
            self.put(object);
        }
        for key in gone {
            self.remove(&key);
        }
    }

    /// Takes one change. Events that are older than what is known (a list overtook them) are skipped.
    pub fn apply(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => self.put(object),
            WatchEvent::Deleted(object) => {
                let key = object.key();
                if self.versions.get(&key).is_some_and(|known| *known <= object.metadata.resource_version) {
                    self.remove(&key);
                }
            }
            WatchEvent::Bookmark(_) => {}
        }
    }

    fn put(&mut self, object: Object) {
        let (key, version) = (object.key(), object.metadata.resource_version);
        if self.versions.get(&key).is_some_and(|known| *known >= version) {
            return;
        }
        let taken = match key.kind {
            Kind::App => App::try_from(object).map(|app| self.put_app(app)),
            Kind::Route => Route::try_from(object).map(|route| self.put_route(route)),
            Kind::Instance => Instance::try_from(object).map(|instance| self.put_instance(&instance)),
            _ => return,
        };
        match taken {
            Ok(()) => drop(self.versions.insert(key, version)),
            Err(invalid) => tracing::warn!(%key, %invalid, "a stored resource can't be read and is left out"),
        }
    }

    fn put_app(&mut self, app: App) {
        self.dirty.insert(app.metadata.name.clone());
        self.apps.insert(app.metadata.name, app.spec);
    }

    fn put_route(&mut self, route: Route) {
        let name = route.metadata.name.clone();
        self.remove_route(&name);
        self.dirty.insert(route.spec.app.clone());
        self.names(&route.spec.app).routes.insert(name.clone());
        self.routes.insert(name, route);
    }

    fn put_instance(&mut self, instance: &Instance) {
        let name = instance.name().to_owned();
        let member = Member::new(instance);
        self.note_leaving(instance);
        match self.instances.get(&name) {
            Some(known) if known.looks_like(&member) => {}
            known => {
                self.dirty.extend(known.map(|k| k.app.clone()));
                self.dirty.insert(member.app.clone());
            }
        }
        if self.instances.get(&name).is_some_and(|known| known.app != member.app) {
            self.remove_instance(&name);
        }
        self.names(&member.app).instances.insert(name.clone());
        self.instances.insert(name, member);
    }

    fn note_leaving(&mut self, instance: &Instance) {
        let name = instance.name();
        let status = &instance.status;
        if status.phase != InstancePhase::Unpublishing {
            self.leaving.remove(name);
            return;
        }
        let known = self.leaving.get(name).is_some_and(|l| l.since == status.phase_since);
        let settled = status.unpublished();
        if known {
            self.leaving.entry(name.to_owned()).and_modify(|l| l.settled = settled);
        } else {
            let app = instance.spec.app.clone();
            // Built anew even if it was never published, so that what callers must have seen is known.
            self.dirty.insert(app.clone());
            let leaving = Leaving { app, since: status.phase_since, need: None, settled };
            self.leaving.insert(name.to_owned(), leaving);
        }
    }

    fn remove(&mut self, key: &Key) {
        self.versions.remove(key);
        match key.kind {
            Kind::App => {
                self.apps.remove(&key.name);
                self.dirty.insert(key.name.clone());
            }
            Kind::Route => self.remove_route(&key.name),
            Kind::Instance => {
                self.leaving.remove(&key.name);
                self.remove_instance(&key.name);
            }
            _ => {}
        }
    }

    fn remove_route(&mut self, name: &str) {
        if let Some(route) = self.routes.remove(name) {
            self.names(&route.spec.app).routes.remove(name);
            self.dirty.insert(route.spec.app);
        }
    }

    fn remove_instance(&mut self, name: &str) {
        if let Some(member) = self.instances.remove(name) {
            self.names(&member.app).instances.remove(name);
            self.dirty.insert(member.app);
        }
    }

    fn names(&mut self, app: &str) -> &mut Names {
        self.by_app.entry(app.to_owned()).or_default()
    }

    /// Makes a new world from what has changed since the last one. Returns the apps that look different.
    pub fn publish(&mut self) -> Vec<(Arc<str>, Change)> {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() {
            return Vec::new();
        }
        let mut world = World { seq: self.world.seq + 1, apps: self.world.apps.clone() };
        let changed = dirty.iter().filter_map(|app| self.rebuild(app, &mut world)).collect();
        self.world = Arc::new(world);
        self.note_needs(&dirty);
        changed
    }

    fn rebuild(&self, app: &str, world: &mut World) -> Option<(Arc<str>, Change)> {
        let before = world.app(app);
        let view = AppView::build(app, &self.inputs(app), Some(&before), world.seq);
        let change = view.change_from(&before);
        let name: Arc<str> = app.into();
        if view.exists {
            world.apps.insert(Arc::clone(&name), Arc::new(view));
        } else {
            world.apps.remove(app);
        }
        change.any().then_some((name, change))
    }

    fn inputs(&self, app: &str) -> Inputs<'_> {
        let none = Names::default();
        let names = self.by_app.get(app).unwrap_or(&none);
        let members: Vec<&Member> = names.instances.iter().filter_map(|name| self.instances.get(name)).collect();
        let protocol = members.first().map(|m| m.protocol).unwrap_or_default();
        let guessed = || AppSpec { protocol, ..AppSpec::default() };
        Inputs {
            exists: self.apps.contains_key(app) || !members.is_empty() || !names.routes.is_empty(),
            spec: self.apps.get(app).cloned().unwrap_or_else(guessed),
            routes: names.routes.iter().filter_map(|name| self.routes.get(name)).map(|r| &r.spec).collect(),
            endpoints: members.iter().filter_map(|m| Some((m.group.as_str(), m.endpoint.as_ref()?))).collect(),
            groups: members.iter().map(|m| m.group.as_str()).collect(),
        }
    }

    fn note_needs(&mut self, dirty: &BTreeSet<String>) {
        for leaving in self.leaving.values_mut().filter(|l| l.need.is_none() && dirty.contains(&l.app)) {
            let view = self.world.app(&leaving.app);
            let need = view.endpoints.values().map(|a| (a.resource.name.to_string(), a.seq)).collect();
            leaving.need = Some(need);
        }
    }
}

impl Member {
    fn new(instance: &Instance) -> Member {
        let (spec, status) = (&instance.spec, &instance.status);
        let dead = status.conditions.iter().find(|c| c.r#type == ALIVE && c.status == ConditionStatus::False);
        Member {
            app: spec.app.clone(),
            group: spec.group.clone(),
            protocol: spec.protocol,
            endpoint: (status.published() && spec.port != 0).then(|| Endpoint::new(instance)),
            calls: spec.upstreams.iter().map(|u| u.app.clone()).collect(),
            alive: dead.is_none(),
            left: dead.is_some_and(|c| c.reason != LEASE_EXPIRED),
            stale_condition: status.published() && holds(&status.conditions, UNPUBLISHED),
        }
    }

    /// Nothing that callers see differs.
    fn looks_like(&self, other: &Member) -> bool {
        self.app == other.app
            && self.group == other.group
            && self.endpoint == other.endpoint
            && self.protocol == other.protocol
    }
}
