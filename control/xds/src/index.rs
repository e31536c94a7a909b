//! From the store's resources to the [`World`]: applies events, rebuilds only the apps they touch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use weir_model::encryption::{EncryptionMode, EncryptionStatus};
use weir_model::instance::{ALIVE, InstancePhase, LEASE_EXPIRED, ManagedBy, UNPUBLISHED};
use weir_model::meta::{ConditionStatus, holds};
use weir_model::{App, AppSpec, Encryption, Instance, Key, Kind, Object, Route, RouteSpec};
use weir_store::WatchEvent;

use crate::build::endpoints::Endpoint;
use crate::node;
use crate::overlay::{Overlay, Overlays};
use crate::world::{AppView, Change, Inputs, Refusal, World};

/// What the world is made of; owned by one task.
#[derive(Debug, Default)]
pub struct Index {
    versions: HashMap<Key, u64>,
    apps: HashMap<String, AppSpec>,
    routes: BTreeMap<String, Route>,
    encryptions: BTreeMap<String, Encryption>,
    identities: weir_identity::Options,
    instances: HashMap<String, Member>,
    by_app: HashMap<String, Names>,
    dirty: BTreeSet<String>,
    leaving: BTreeMap<String, Leaving>,
    overlays: Overlays,
    world: Arc<World>,
}

/// What a new world makes different.
#[derive(Debug, Default)]
pub struct Published {
    /// For everybody who is interested in these apps.
    pub apps: Vec<(Arc<str>, Change)>,
    /// For the proxies of these Instances, which have been told of other configuration than before: apps that may look
    /// different to them.
    pub moved: BTreeMap<String, Vec<(Arc<str>, Change)>>,
}

#[derive(Debug, Default)]
struct Names {
    instances: BTreeSet<String>,
    routes: BTreeSet<String>,
    encryptions: BTreeSet<String>,
}

/// What is remembered of an instance.
#[derive(Debug)]
struct Member {
    app: String,
    group: String,
    protocol: weir_model::app::Protocol,
    endpoint: Option<Endpoint>,
    /// The same, to be spoken TLS to; there if it can be.
    tls_endpoint: Option<Endpoint>,
    /// It serves again when its upgrade is over.
    returning: Option<Endpoint>,
    /// Its proxy can do TLS; true: now.
    tls: Option<bool>,
    calls: Vec<String>,
    alive: bool,
    /// Its proxy has been heard of.
    joined: bool,
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
    /// Of nothing yet; `identities` says what identities look like.
    pub fn new(identities: weir_identity::Options) -> Index {
        Index { identities, ..Index::default() }
    }

    /// The world as last published.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// True if the last world is no longer what the resources say.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.overlays.is_dirty()
    }

    /// Configuration that is on its way to single proxies.
    pub fn overlays(&self) -> &Overlays {
        &self.overlays
    }

    /// The store says of this instance which configuration its proxy has taken.
    pub fn settle_configuration(&mut self, instance: &str) {
        self.overlays.settle(instance);
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

    /// Every Encryption with its app; the first of an app is the one that holds.
    pub fn encryptions(&self) -> impl Iterator<Item = (&Encryption, bool)> {
        let first = |e: &Encryption| self.by_app.get(&e.spec.app).and_then(|names| names.encryptions.first());
        self.encryptions.values().map(move |e| (e, first(e).is_some_and(|name| *name == e.metadata.name)))
    }

    /// Published instances of an app, and whether each can do TLS; true: now.
    pub fn servers(&self, app: &str) -> impl Iterator<Item = (&String, Option<bool>)> {
        let names = self.by_app.get(app).into_iter().flat_map(|names| &names.instances);
        let members = names.filter_map(|name| Some((name, self.instances.get(name)?)));
        members.filter(|(_, m)| m.endpoint.is_some()).map(|(name, m)| (name, m.tls))
    }

    /// Instances that were heard of and have not left for certain, with the apps their calls may end at.
    pub fn standing_callers(&self) -> impl Iterator<Item = (&String, BTreeSet<String>)> {
        let calls = |m: &Member| node::calls(&self.world, m.calls.iter().map(String::as_str));
        let here = |m: &Member| m.joined && !m.left && !m.calls.is_empty();
        self.instances.iter().filter(move |(_, m)| here(m)).map(move |(name, m)| (name, calls(m)))
    }

    /// Instances whose proxies verify certificates, and that have not left for certain.
    pub fn verifiers(&self) -> impl Iterator<Item = &String> {
        self.instances.iter().filter(|(_, m)| m.tls.is_some() && m.joined && !m.left).map(|(name, _)| name)
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
            Kind::Encryption => Encryption::try_from(object).map(|encryption| self.put_encryption(encryption)),
            Kind::Route => Route::try_from(object).map(|route| self.put_route(route)),
            Kind::Instance => Instance::try_from(object).map(|instance| self.put_instance(&instance)),
            Kind::Change if Overlay::is_likely(&object) => {
                weir_model::Change::try_from(object).map(|change| self.overlays.put_change(&key, Overlay::of(&change)))
            }
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

    fn put_encryption(&mut self, encryption: Encryption) {
        let name = encryption.metadata.name.clone();
        self.remove_encryption(&name);
        self.dirty.insert(encryption.spec.app.clone());
        self.names(&encryption.spec.app).encryptions.insert(name.clone());
        self.encryptions.insert(name, encryption);
    }

    fn remove_encryption(&mut self, name: &str) {
        if let Some(encryption) = self.encryptions.remove(name) {
            self.names(&encryption.spec.app).encryptions.remove(name);
            self.dirty.insert(encryption.spec.app);
        }
    }

    fn put_instance(&mut self, instance: &Instance) {
        let name = instance.name().to_owned();
        let member = Member::new(instance);
        let taken = instance.status.config.as_ref().map_or("", |c| c.revision.as_str());
        self.overlays.pin(&name, &instance.spec.config_revision, taken);
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
            Kind::Encryption => self.remove_encryption(&key.name),
            Kind::Route => self.remove_route(&key.name),
            Kind::Instance => {
                self.leaving.remove(&key.name);
                self.overlays.forget(&key.name);
                self.remove_instance(&key.name);
            }
            Kind::Change => self.overlays.put_change(key, None),
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

    /// Makes a new world from what has changed since the last one.
    pub fn publish(&mut self) -> Published {
        if !self.is_dirty() {
            return Published::default();
        }
        let dirty = std::mem::take(&mut self.dirty);
        let mut world = World { seq: self.world.seq + 1, apps: self.world.apps.clone(), ..World::default() };
        let mut apps: Vec<_> = dirty.iter().filter_map(|app| self.rebuild(app, &mut world)).collect();
        apps.extend(self.lay_over(&mut world));
        let before = std::mem::replace(&mut self.world, Arc::new(world));
        self.note_needs(&dirty);
        Published { moved: self.moved(before), apps }
    }

    fn rebuild(&self, app: &str, world: &mut World) -> Option<(Arc<str>, Change)> {
        let before = world.app(app);
        let view = AppView::build(app, &self.inputs(app), Some(&before), world.seq);
        place(world, app, view, &before)
    }

    /// Makes the worlds of those who have been told of other configuration.
    fn lay_over(&self, world: &mut World) -> Vec<(Arc<str>, Change)> {
        let mut changes = Vec::new();
        let mut revisions = BTreeMap::new();
        for overlay in self.overlays.iter() {
            let before = self.world.revisions.get(&overlay.revision).unwrap_or(&self.world);
            let mut own = World { seq: world.seq, apps: world.apps.clone(), ..World::default() };
            for app in self.touched(overlay) {
                let before = before.app(&app);
                let view = AppView::build(&app, &self.inputs_over(&app, overlay), Some(&before), world.seq);
                changes.extend(place(&mut own, &app, view, &before));
            }
            revisions.insert(overlay.revision.clone(), Arc::new(own));
        }
        world.revisions = revisions;
        world.pins = Arc::new(self.overlays.pins().clone());
        changes
    }

    fn touched(&self, overlay: &Overlay) -> BTreeSet<String> {
        overlay.touches(|route| self.routes.get(route).map(|route| route.spec.app.as_str()))
    }

    /// Whoever was moved from one configuration to another may see every app differently that either touches.
    fn moved(&mut self, before: Arc<World>) -> BTreeMap<String, Vec<(Arc<str>, Change)>> {
        let everything = Change { config: true, endpoints: true };
        let differing = |old: &Arc<World>, new: &Arc<World>| -> Vec<(Arc<str>, Change)> {
            let names: BTreeSet<&Arc<str>> = old.apps.keys().chain(new.apps.keys()).collect();
            let same = |name: &str| match (old.apps.get(name), new.apps.get(name)) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                _ => false,
            };
            names.into_iter().filter(|name| !same(name)).map(|name| (Arc::clone(name), everything)).collect()
        };
        let after = Arc::clone(&self.world);
        let moved = self.overlays.tell(after.seq).into_iter();
        moved.map(|node| (node.clone(), differing(&before.seen_by(&node), &after.seen_by(&node)))).collect()
    }

    /// What an app's resources are made of for those who have been told of `overlay`.
    fn inputs_over<'a>(&'a self, app: &str, overlay: &'a Overlay) -> Inputs<'a> {
        let encryption = overlay.encryption(app, self.encryption(app));
        let stored = self.inputs_with(app, encryption);
        let none = Names::default();
        let names = self.by_app.get(app).unwrap_or(&none);
        let mut routes: BTreeMap<&str, &RouteSpec> = BTreeMap::new();
        for name in names.routes.iter().filter(|name| !overlay.routes.contains_key(*name)) {
            routes.extend(self.routes.get(name).map(|route| (route.metadata.name.as_str(), &route.spec)));
        }
        let laid = overlay.routes.values().flatten().filter(|route| route.spec.app == app);
        routes.extend(laid.map(|route| (route.metadata.name.as_str(), &route.spec)));
        let spec = match overlay.apps.get(app) {
            Some(Some(spec)) => spec.clone(),
            Some(None) => AppSpec { protocol: stored.spec.protocol, ..AppSpec::default() },
            None => stored.spec.clone(),
        };
        let exists = stored.exists || !routes.is_empty() || matches!(overlay.apps.get(app), Some(Some(_)));
        Inputs { exists, spec, routes: routes.into_values().collect(), ..stored }
    }

    fn inputs(&self, app: &str) -> Inputs<'_> {
        self.inputs_with(app, self.encryption(app))
    }

    fn encryption_status(&self, app: &str) -> Option<&EncryptionStatus> {
        let name = self.by_app.get(app)?.encryptions.first()?;
        self.encryptions.get(name).map(|e| &e.status)
    }

    /// How far an app's callers go, if it has an Encryption.
    fn encryption(&self, app: &str) -> Option<EncryptionMode> {
        self.encryption_status(app).map(EncryptionStatus::farthest)
    }

    fn inputs_with(&self, app: &str, encryption: Option<EncryptionMode>) -> Inputs<'_> {
        let none = Names::default();
        let names = self.by_app.get(app).unwrap_or(&none);
        let members: Vec<&Member> = names.instances.iter().filter_map(|name| self.instances.get(name)).collect();
        let protocol = members.first().map(|m| m.protocol).unwrap_or_default();
        let status = self.encryption_status(app);
        let guessed = || AppSpec { protocol, ..AppSpec::default() };
        Inputs {
            exists: self.apps.contains_key(app)
                || !members.is_empty()
                || !names.routes.is_empty()
                || encryption.is_some(),
            spec: self.apps.get(app).cloned().unwrap_or_else(guessed),
            routes: names.routes.iter().filter_map(|name| self.routes.get(name)).map(|r| &r.spec).collect(),
            endpoints: members.iter().filter_map(|m| Some((m.group.as_str(), m.endpoint(encryption)?))).collect(),
            returning: members.iter().filter_map(|m| Some((m.group.as_str(), m.returning.as_ref()?))).collect(),
            groups: members.iter().map(|m| m.group.as_str()).collect(),
            encryption,
            refusal: status.map(Refusal::of).unwrap_or_default(),
            identities: self.identities.app_prefix(app),
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

/// Puts an app's view into a world; what is different from `before`, if something is.
fn place(world: &mut World, app: &str, view: AppView, before: &AppView) -> Option<(Arc<str>, Change)> {
    let change = view.change_from(before);
    let name: Arc<str> = app.into();
    if view.exists {
        world.apps.insert(Arc::clone(&name), Arc::new(view));
    } else {
        world.apps.remove(app);
    }
    change.any().then_some((name, change))
}

/// Its supervisor holds its socket, and a proxy will serve it again.
fn is_upgraded(instance: &Instance) -> bool {
    use InstancePhase::{Draining, Swapping, Unpublishing};
    let spec = &instance.spec;
    let between = matches!(instance.status.phase, Unpublishing | Draining | Swapping);
    between && spec.managed_by == ManagedBy::Weir && !spec.retire && spec.port != 0
}

impl Member {
    fn new(instance: &Instance) -> Member {
        let (spec, status) = (&instance.spec, &instance.status);
        let dead = status.conditions.iter().find(|c| c.r#type == ALIVE && c.status == ConditionStatus::False);
        let published = status.published() && spec.port != 0;
        let tls = status.tls.as_ref().map(|tls| tls.ready);
        Member {
            app: spec.app.clone(),
            group: spec.group.clone(),
            protocol: spec.protocol,
            endpoint: published.then(|| Endpoint::new(instance, false)),
            tls_endpoint: (published && tls == Some(true)).then(|| Endpoint::new(instance, true)),
            returning: is_upgraded(instance).then(|| Endpoint::returning(instance)),
            tls,
            calls: spec.upstreams.iter().map(|u| u.app.clone()).collect(),
            alive: dead.is_none(),
            joined: status.conditions.iter().any(|c| c.r#type == ALIVE),
            left: dead.is_some_and(|c| c.reason != LEASE_EXPIRED),
            stale_condition: status.published() && holds(&status.conditions, UNPUBLISHED),
        }
    }

    /// As callers are given it now; `None`: not at all. Where plaintext is refused, one that will take TLS, but does not
    /// yet, is kept back until it does.
    fn endpoint(&self, encryption: Option<EncryptionMode>) -> Option<&Endpoint> {
        use EncryptionMode::{Permissive, Strict};
        match (encryption, self.tls) {
            (Some(Permissive | Strict), Some(true)) => self.tls_endpoint.as_ref(),
            (Some(Strict), Some(false)) => None,
            _ => self.endpoint.as_ref(),
        }
    }

    /// Nothing that callers see differs.
    fn looks_like(&self, other: &Member) -> bool {
        self.app == other.app
            && self.group == other.group
            && self.endpoint == other.endpoint
            && self.returning == other.returning
            && self.tls == other.tls
            && self.protocol == other.protocol
    }
}
