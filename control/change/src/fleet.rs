//! What the engine knows of everything outside a change, kept in memory and brought up to date by the store's watch.
//!
//! Reading hundreds of thousands of instances from the store at every look would cost more than all the rest. The fleet
//! is listed once; each look then reads what has changed since. It is a cache: a new process begins with an empty one, and
//! a watch that can't go on begins it anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use weir_model::change::{Action, ChangeSpec};
use weir_model::instance::ManagedBy;
use weir_model::release::Component;
use weir_model::{
    AppSpec, Change, ChangePolicySpec, CheckSpec, FreezeSpec, Instance, Key, Kind, Object, ReleaseSpec, Resource, Slo,
    UnitSpec, WorkloadSpec,
};
use weir_store::{Error, ListQuery, Result, Store, WatchEvent, WatchQuery};

use crate::defence::own::Hearsay;
use crate::defence::windows;
use crate::judge::blame::{self, Suspect};
use crate::world::{Bound, Member, Name, Names, SloFact, State, World, state};
use config::{Concern, Configuration};

mod config;

/// Kinds that a change depends on.
const KINDS: [Kind; 12] = [
    Kind::Instance,
    Kind::App,
    Kind::Unit,
    Kind::Freeze,
    Kind::Release,
    Kind::Workload,
    Kind::Change,
    Kind::Check,
    Kind::Slo,
    Kind::ChangePolicy,
    Kind::Route,
    Kind::Encryption,
];

/// Other changes that are weighed when there is harm.
const MAX_SUSPECTS: usize = 10;

/// The fleet and what bears on it.
#[derive(Debug, Default)]
pub struct Fleet {
    /// Everything up to this resourceVersion is known; `None`: nothing was read yet.
    version: Option<u64>,
    names: Names,
    instances: BTreeMap<Name, Facts>,
    apps: HashMap<String, Described>,
    canaries: HashMap<String, bool>,
    freezes: BTreeMap<String, FreezeSpec>,
    releases: BTreeMap<String, Released>,
    workloads: BTreeMap<String, WorkloadSpec>,
    changes: BTreeMap<String, Other>,
    checks: BTreeMap<String, CheckSpec>,
    slos: BTreeMap<String, SloFact>,
    policies: BTreeMap<String, ChangePolicySpec>,
    configuration: Configuration,
    /// Releases that were withdrawn: of what, and why.
    withdrawn: BTreeMap<String, ((Component, String), String)>,
}

/// An instance, whichever change looks at it.
#[derive(Debug)]
struct Facts {
    /// With the proxy's versions, out of scope.
    member: Member,
    /// Versions of the application: wanted, running.
    program: (Name, Name),
    /// Revisions of configuration likewise, and why the wanted one was refused.
    config: (Name, Name, Name),
    /// Apps it calls.
    calls: Vec<Name>,
    labels: Arc<BTreeMap<String, String>>,
    ours: bool,
}

/// What is known of an app.
#[derive(Debug)]
struct Described {
    tier: u8,
    line: Name,
    owned: bool,
}

/// A version that may be brought somewhere.
#[derive(Debug)]
struct Released {
    of: Component,
    version: String,
    tests_failed: u32,
}

/// A change, as far as others care.
#[derive(Debug)]
struct Other {
    spec: ChangeSpec,
    created: Timestamp,
    begun: bool,
    ended: bool,
    /// When its last batch began.
    touched_at: Option<Timestamp>,
}

impl Fleet {
    /// Reads what has happened since the last time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn refresh(&mut self, store: &dyn Store) -> Result<()> {
        match self.follow(store).await {
            Err(Error::Gone { .. }) => {
                *self = Fleet::default();
                self.follow(store).await
            }
            result => result,
        }
    }

    async fn follow(&mut self, store: &dyn Store) -> Result<()> {
        let mut version = match self.version {
            Some(version) => version,
            None => self.list(store).await?,
        };
        let mut events = store.watch(&WatchQuery::all(version)).await?;
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = object.metadata.resource_version;
                    self.note(object)?;
                }
                WatchEvent::Deleted(object) => {
                    version = object.metadata.resource_version;
                    self.forget(&object);
                }
                WatchEvent::Bookmark(at) => {
                    self.version = Some(at);
                    return Ok(());
                }
            }
            self.version = Some(version);
        }
        Ok(())
    }

    /// Everything there is; where to watch on from.
    async fn list(&mut self, store: &dyn Store) -> Result<u64> {
        *self = Fleet::default();
        let mut version = u64::MAX;
        for kind in KINDS {
            let mut query = ListQuery::all(kind);
            loop {
                let page = store.list(&query).await?;
                version = version.min(page.resource_version);
                page.items.into_iter().try_for_each(|object| self.note(object))?;
                match page.next {
                    Some(next) => query.after = Some(next),
                    None => break,
                }
            }
        }
        Ok(version)
    }

    fn note(&mut self, object: Object) -> Result<()> {
        let name = object.metadata.name.clone();
        match object.kind {
            Kind::Instance => self.note_instance(&Resource::try_from(object)?),
            Kind::App => {
                self.configuration.note(&object);
                let app = Resource::<AppSpec>::try_from(object)?.spec;
                let line = self.names.shared(&app.line);
                self.apps.insert(name, Described { tier: app.tier, line, owned: !app.owner.is_empty() });
            }
            Kind::Unit => drop(self.canaries.insert(name, Resource::<UnitSpec>::try_from(object)?.spec.canary)),
            Kind::Freeze => drop(self.freezes.insert(name, Resource::<FreezeSpec>::try_from(object)?.spec)),
            Kind::Release => {
                let spec = Resource::<ReleaseSpec>::try_from(object)?.spec;
                self.note_withdrawal(&name, &spec);
                // One that was withdrawn is as good as none.
                match spec.withdrawn {
                    None => drop(self.releases.insert(name, released(spec))),
                    Some(_) => drop(self.releases.remove(&name)),
                }
            }
            Kind::Workload => drop(self.workloads.insert(name, Resource::<WorkloadSpec>::try_from(object)?.spec)),
            Kind::Change => drop(self.changes.insert(name, other(Resource::try_from(object)?))),
            Kind::Check => drop(self.checks.insert(name, Resource::try_from(object)?.spec)),
            Kind::Slo => drop(self.slos.insert(name, slo(&Resource::try_from(object)?))),
            Kind::Route | Kind::Encryption => self.configuration.note(&object),
            Kind::ChangePolicy => {
                drop(self.policies.insert(name, Resource::<ChangePolicySpec>::try_from(object)?.spec));
            }
            _ => {}
        }
        Ok(())
    }

    fn forget(&mut self, object: &Object) {
        self.configuration.forget(&object.key());
        let name = object.metadata.name.as_str();
        match object.kind {
            Kind::Instance => drop(self.instances.remove(name)),
            Kind::App => drop(self.apps.remove(name)),
            Kind::Unit => drop(self.canaries.remove(name)),
            Kind::Freeze => drop(self.freezes.remove(name)),
            Kind::Release => drop((self.releases.remove(name), self.withdrawn.remove(name))),
            Kind::Workload => drop(self.workloads.remove(name)),
            Kind::Change => drop(self.changes.remove(name)),
            Kind::Check => drop(self.checks.remove(name)),
            Kind::Slo => drop(self.slos.remove(name)),
            Kind::ChangePolicy => drop(self.policies.remove(name)),
            _ => {}
        }
    }

    fn note_withdrawal(&mut self, name: &str, spec: &ReleaseSpec) {
        match &spec.withdrawn {
            None => drop(self.withdrawn.remove(name)),
            Some(why) => {
                let version = (spec.component.clone(), spec.version.clone());
                self.withdrawn.insert(name.to_owned(), (version, why.clone()));
            }
        }
    }

    /// Why the version that `change` brings was withdrawn, if it was.
    fn withdrawal(&self, change: &Change) -> Option<String> {
        let component = match &change.spec.action {
            Action::ProxyUpgrade { .. } => Component::Proxy,
            Action::AppRelease { app, .. } => Component::App(app.clone()),
            Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => return None,
        };
        let wanted = (component, change.spec.target().to_owned());
        self.withdrawn.values().find(|(version, _)| *version == wanted).map(|(_, why)| why.clone())
    }

    fn note_instance(&mut self, instance: &Instance) {
        let member = member(instance, &mut self.names);
        let (spec, status) = (&instance.spec, &instance.status);
        let wanted = if spec.app_version.is_empty() { &status.app_version } else { &spec.app_version };
        let program = (self.names.shared(wanted), self.names.shared(&status.app_version));
        let ours = instance.spec.managed_by == ManagedBy::Weir && member.state != State::Leaving;
        let labels = Arc::new(instance.metadata.labels.clone());
        let taken = status.config.clone().unwrap_or_default();
        let config =
            [&spec.config_revision, &taken.revision, &taken.rejected].map(|text| self.names.shared(text)).into();
        let calls = spec.upstreams.iter().map(|u| self.names.shared(&u.app)).collect();
        self.instances.insert(member.name.clone(), Facts { member, program, config, calls, labels, ours });
    }

    /// Changes that have not ended. Whether one has begun its records know, which may be a step ahead of its status.
    pub fn under_way(&self) -> Vec<String> {
        let under_way = self.changes.iter().filter(|(_, change)| !change.ended);
        under_way.map(|(name, _)| name.clone()).collect()
    }

    /// The world as `change` sees it.
    pub fn world(&self, change: &Change) -> World {
        let concern = self.configuration.concern(&change.spec.action);
        let seen = |facts| self.seen(facts, change, concern.as_ref());
        let members: Vec<Member> = self.instances.values().map(seen).collect();
        let release = self.release(&change.spec);
        let apps = apps_in_scope(&members);
        let slos: Vec<SloFact> = self.slos.values().filter(|slo| apps.contains(&slo.app)).cloned().collect();
        World {
            unsettled: self.unsettled(&members, change),
            bound: self.bound(&members),
            withdrawn: self.withdrawal(change),
            freezes: windows(&change.spec, self.freezes.values(), &slos),
            resources: self.configuration.stored(&change.spec.action),
            released: release.is_some() || change.spec.action.is_configuration(),
            others: self.suspects(change),
            rival: if change.status.started_at.is_none() { self.rival(change) } else { None },
            tests_failed: release.map_or(0, |r| r.tests_failed),
            ownerless: apps.iter().filter(|app| !self.owned(app)).map(|app| (*app).clone()).collect(),
            checks: self.checks_of(&apps),
            slos,
            heard: Hearsay::default(),
            members,
        }
    }

    /// The Release of what is wanted, where that is of one.
    fn release(&self, spec: &ChangeSpec) -> Option<&Released> {
        let component = match &spec.action {
            Action::ProxyUpgrade { .. } => Component::Proxy,
            Action::AppRelease { app, .. } => Component::App(app.clone()),
            Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => return None,
        };
        self.releases.values().find(|r| r.of == component && r.version == spec.target())
    }

    fn owned(&self, app: &str) -> bool {
        self.apps.get(app).is_some_and(|described| described.owned)
    }

    fn checks_of(&self, apps: &BTreeSet<&Name>) -> Vec<(String, CheckSpec)> {
        let concerns = |spec: &CheckSpec| {
            spec.apps.is_empty() || spec.apps.iter().any(|app| apps.iter().any(|scope| ***scope == **app))
        };
        let ours = self.checks.iter().filter(|(_, spec)| concerns(spec));
        ours.map(|(name, spec)| (name.clone(), spec.clone())).collect()
    }

    /// The policy that holds a change of these lowest; of several the first by name.
    fn bound(&self, members: &[Member]) -> Option<Bound> {
        let concerns = |policy: &ChangePolicySpec| {
            let concerned = |m: &Member| m.in_scope && policy.concerns(&m.app, &m.line, &m.unit, m.tier);
            members.iter().any(concerned)
        };
        let (name, policy) = self.policies.iter().filter(|(_, p)| concerns(p)).min_by_key(|(_, p)| p.max_level)?;
        Some(Bound { max_level: policy.max_level, policy: name.clone(), reason: policy.reason.clone() })
    }

    /// Instances whose configuration no change under way answers for, with the revision each has.
    pub(crate) fn strays(&self) -> Vec<(Name, Name)> {
        let open = |pin: &str| {
            self.changes
                .values()
                .any(|c| c.begun && !c.ended && c.spec.action.is_configuration() && c.spec.target() == pin)
        };
        let pinned = self.instances.values().map(|facts| (&facts.member.name, &facts.config.0));
        let strays = pinned.filter(|(_, pin)| !pin.is_empty() && !open(pin));
        strays.map(|(name, pin)| (name.clone(), pin.clone())).collect()
    }

    fn seen(&self, facts: &Facts, change: &Change, concern: Option<&Concern>) -> Member {
        let mut member = facts.member.clone();
        if let Some(app) = self.apps.get(&*member.app) {
            (member.tier, member.line) = (app.tier, app.line.clone());
        }
        match &change.spec.action {
            Action::ProxyUpgrade { .. } => {}
            Action::AppRelease { .. } => (member.wanted, member.running) = facts.program.clone(),
            Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => {
                facts.show_config(&mut member, change.spec.target())
            }
        }
        // Configuration is for whoever runs the proxy; only what Weir runs can it restart.
        let ours = if concern.is_some() { member.state != State::Leaving } else { facts.ours };
        Member {
            canary: self.canaries.get(&*member.unit).copied().unwrap_or(false),
            in_scope: ours && facts.within(&change.spec, concern),
            ..member
        }
    }

    /// Changes that have begun and have touched instances in scope of `change`, the latest first.
    fn suspects(&self, change: &Change) -> Vec<Suspect> {
        let since = change.status.started_at.and_then(|at| at.checked_sub(blame::OLDEST).ok());
        let Some(since) = since else { return Vec::new() };
        let recent = |(name, other): &(&String, &Other)| {
            *name != change.name() && other.begun && other.touched_at.is_some_and(|at| at >= since)
        };
        let mut suspects: Vec<Suspect> =
            self.changes.iter().filter(recent).map(|(name, other)| self.suspect(name, other, change)).collect();
        suspects.retain(|s| !s.touched.is_empty());
        suspects.sort_by_key(|s| std::cmp::Reverse(s.at));
        suspects.truncate(MAX_SUSPECTS);
        suspects
    }

    fn suspect(&self, name: &str, other: &Other, change: &Change) -> Suspect {
        let target = other.spec.target();
        let runs = |facts: &Facts| match &other.spec.action {
            Action::ProxyUpgrade { .. } => *facts.member.running == *target,
            Action::AppRelease { .. } => *facts.program.1 == *target,
            Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => *facts.config.0 == *target,
        };
        let concerns = [&other.spec, &change.spec].map(|spec| (spec, self.configuration.concern(&spec.action)));
        let both = |facts: &&Facts| concerns.iter().all(|(spec, c)| facts.within(spec, c.as_ref())) && runs(facts);
        let touched = self.instances.values().filter(both).map(|facts| facts.member.name.clone()).collect();
        Suspect { name: name.to_owned(), at: other.touched_at.unwrap_or(Timestamp::MIN), touched }
    }

    /// The change that goes first, of those that share instances or resources with `change`, which has not begun: one
    /// that has begun, or else the older one.
    fn rival(&self, change: &Change) -> Option<String> {
        let own = (change.metadata.created_at.unwrap_or(Timestamp::MAX), change.name());
        let goes_first = |(name, other): &(&String, &Other)| {
            *name != change.name() && !other.ended && (other.begun || (other.created, name.as_str()) < own)
        };
        let (action, concern) = (&change.spec.action, self.configuration.concern(&change.spec.action));
        let resources = action.resources();
        let shares = |(_, other): &(&String, &Other)| {
            let other = &other.spec;
            let same = action.is_configuration() && other.action.is_configuration();
            let named = same && (other.target() == change.spec.target() || meet(&other.action.resources(), &resources));
            let theirs = self.configuration.concern(&other.action);
            let both = |i: &Facts| i.within(other, theirs.as_ref()) && i.within(&change.spec, concern.as_ref());
            named || self.instances.values().any(both)
        };
        let rivals = self.changes.iter().filter(goes_first).filter(shares);
        rivals.min_by_key(|(name, other)| (other.created, *name)).map(|(name, _)| name.clone())
    }

    /// Workloads whose instances are all in scope and that make new instances with another version.
    fn unsettled(&self, members: &[Member], change: &Change) -> Vec<String> {
        let target = change.spec.target();
        let mut settled: HashMap<&str, bool> = HashMap::new();
        for member in members.iter().filter(|m| m.state != State::Leaving) {
            if let Some(workload) = &member.workload {
                *settled.entry(workload).or_insert(true) &= member.in_scope && &*member.wanted == target;
            }
        }
        let stale = |(name, spec): &(&String, &WorkloadSpec)| {
            let made_with = match &change.spec.action {
                Action::ProxyUpgrade { .. } => &spec.proxy_version,
                Action::AppRelease { .. } => &spec.app_version,
                Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => return false,
            };
            made_with != target && settled.get(name.as_str()).copied().unwrap_or(false)
        };
        self.workloads.iter().filter(stale).map(|(name, _)| name.clone()).collect()
    }
}

impl Facts {
    /// `concern`: of the spec, if it is configuration.
    fn within(&self, spec: &ChangeSpec, concern: Option<&Concern>) -> bool {
        let m = &self.member;
        let named = match &spec.action {
            Action::ProxyUpgrade { .. } => true,
            Action::AppRelease { app, .. } => *app == *m.app,
            Action::ConfigPublish { .. } | Action::EncryptionSwitch { .. } => {
                concern.is_some_and(|c| c.reaches(&m.app, self.calls.iter().map(|app| &**app)))
            }
        };
        named && spec.scope.selects(&m.app, &m.unit, &m.stack, &m.group, &self.labels)
    }

    /// A proxy that has refused what is wanted of it has failed at once, however well it serves with what it had.
    fn show_config(&self, member: &mut Member, target: &str) {
        let (wanted, running, rejected) = self.config.clone();
        if *wanted == *target && !rejected.is_empty() {
            (member.state, member.since) = (State::Failed, None);
            member.message = rejected;
        }
        (member.wanted, member.running) = (wanted, running);
    }
}

fn meet(some: &[Key], others: &[Key]) -> bool {
    some.iter().any(|key| others.contains(key))
}

/// Instances of an app mostly follow each other and share its name, so that few names are compared.
fn apps_in_scope(members: &[Member]) -> BTreeSet<&Name> {
    let names = members.iter().filter(|m| m.in_scope).map(|m| &m.app);
    let mut apps = BTreeSet::new();
    let mut last: Option<&Name> = None;
    for name in names {
        if last.is_none_or(|last| !Arc::ptr_eq(last, name)) {
            apps.insert(name);
            last = Some(name);
        }
    }
    apps
}

fn released(spec: ReleaseSpec) -> Released {
    let tests_failed = spec.tests.map_or(0, |tests| tests.failed);
    Released { of: spec.component, version: spec.version, tests_failed }
}

fn slo(slo: &Slo) -> SloFact {
    SloFact {
        name: slo.name().into(),
        app: slo.spec.app.as_str().into(),
        budget_left: slo.status.budget_left,
        alert: slo.status.alert,
        alert_since: slo.status.alert_since,
    }
}

fn other(change: Resource<ChangeSpec>) -> Other {
    Other {
        created: change.metadata.created_at.unwrap_or(Timestamp::MAX),
        begun: change.status.started_at.is_some(),
        ended: change.status.phase.ended(),
        touched_at: change.status.batches.iter().filter_map(|b| b.started_at).max(),
        spec: change.spec,
    }
}

pub(crate) fn member(instance: &Instance, names: &mut Names) -> Member {
    let (spec, status) = (&instance.spec, &instance.status);
    let wanted = if spec.proxy_version.is_empty() { &status.proxy_version } else { &spec.proxy_version };
    Member {
        name: instance.name().into(),
        app: names.shared(&spec.app),
        unit: names.shared(&spec.unit),
        zone: names.shared(&spec.zone),
        stack: names.shared(&spec.stack),
        group: names.shared(&spec.group),
        // Those of an app that nobody has described, until `seen` knows better.
        tier: AppSpec::default().tier,
        line: names.shared(""),
        canary: false,
        weight: u64::from(spec.weight),
        in_scope: false,
        wanted: names.shared(wanted),
        running: names.shared(&status.proxy_version),
        state: state(instance),
        checked: status.self_check.as_ref().is_some_and(|check| check.passed),
        message: names.shared(&status.message),
        since: status.phase_since,
        workload: spec.workload.as_deref().map(|workload| names.shared(workload)),
    }
}
