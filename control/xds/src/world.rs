//! The world as proxies are told of it: immutable, shared by all streams, replaced as a whole.
//!
//! Each app's resources that are the same for every caller are encoded here once. A stream looks up what it needs and
//! adds the few resources that are its own ([`crate::node`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weir_model::encryption::{EncryptionMode, EncryptionStatus};
use weir_model::{AppSpec, RouteSpec};

use crate::build;
use crate::build::endpoints::Endpoint;
use crate::names;
use crate::resource::Resource;

/// All apps at one moment.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Grows with every new world; acknowledgements are remembered by it.
    pub seq: u64,
    pub(crate) apps: HashMap<Arc<str>, Arc<AppView>>,
    /// The world as proxies see it that have been told of other configuration, by its revision.
    pub(crate) revisions: BTreeMap<String, Arc<World>>,
    /// Which revision a proxy has been told of, by the name of its Instance.
    pub(crate) pins: Arc<BTreeMap<String, String>>,
}

impl World {
    /// As the proxy of this name is to see it.
    pub fn seen_by(self: &Arc<World>, node: &str) -> Arc<World> {
        let revision = self.pins.get(node).and_then(|revision| self.revisions.get(revision));
        Arc::clone(revision.unwrap_or(self))
    }

    /// What is known of an app; of one that nobody has heard of yet: defaults and no endpoints.
    pub fn app(&self, name: &str) -> Arc<AppView> {
        let unknown = || Arc::new(AppView::build(name, &Inputs::default(), None, 0));
        self.apps.get(name).cloned().unwrap_or_else(unknown)
    }
}

/// What an app's resources are made of.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    /// Declared, or somebody serves, routes or encrypts it.
    pub exists: bool,
    /// Its settings.
    pub spec: AppSpec,
    /// Its Routes, in the order of their names.
    pub routes: Vec<&'a RouteSpec>,
    /// Published instances with their groups, in the order of their names.
    pub endpoints: Vec<(&'a str, &'a Endpoint)>,
    /// Instances with their groups that are being upgraded: told of where nobody else serves.
    pub returning: Vec<(&'a str, &'a Endpoint)>,
    /// Groups that any of its instances has, published or not.
    pub groups: BTreeSet<&'a str>,
    /// The effective mode, if it has an Encryption.
    pub encryption: Option<EncryptionMode>,
    /// What its servers refuse.
    pub refusal: Refusal,
    /// What identities of its instances begin with.
    pub identities: String,
}

/// What of an app is refused in plaintext.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// What is not named.
    pub others: bool,
    /// By path, the longest first.
    pub interfaces: Vec<(String, bool)>,
}

impl Refusal {
    /// As servers do now.
    pub fn of(status: &EncryptionStatus) -> Refusal {
        let is_strict = |mode| mode == EncryptionMode::Strict;
        let named = status.effective_interfaces.iter().map(|i| (i.path.clone(), is_strict(i.mode)));
        let mut interfaces: Vec<_> = named.collect();
        interfaces.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Refusal { others: is_strict(status.effective_mode), interfaces }
    }

    /// Nothing is taken in plaintext.
    pub fn is_whole(&self) -> bool {
        self.others && self.interfaces.iter().all(|(_, refused)| *refused)
    }

    /// Some is taken in plaintext, and some is not.
    pub fn is_partial(&self) -> bool {
        !self.is_whole() && (self.others || self.interfaces.iter().any(|(_, refused)| *refused))
    }
}

/// One app's resources.
#[derive(Debug)]
pub struct AppView {
    /// Declared, or somebody serves, routes or encrypts it.
    pub exists: bool,
    /// Its settings.
    pub spec: AppSpec,
    /// Clusters that calls of it may be sent to.
    pub used: BTreeSet<String>,
    /// `outbound|APP`.
    pub route: Arc<Resource>,
    /// gRPC's API listener.
    pub api: Arc<Resource>,
    /// The effective mode, if it has an Encryption.
    pub encryption: Option<EncryptionMode>,
    /// How long its requests get to finish when a proxy that carries them goes, milliseconds.
    pub drain_ms: u64,
    /// What its servers refuse.
    pub refusal: Refusal,
    /// World sequence at which its clusters, listeners or routes became what they are.
    pub config_seq: u64,
    name: String,
    identities: String,
    clusters: BTreeMap<String, Clusters>,
    pub(crate) endpoints: BTreeMap<String, Assignment>,
}

/// A cluster as different proxies are given it.
#[derive(Debug, Clone)]
struct Clusters {
    plain: Arc<Resource>,
    /// For those that can do TLS.
    tls: Arc<Resource>,
}

/// Endpoints of one cluster.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The encoded assignment.
    pub resource: Arc<Resource>,
    /// World sequence at which it became what it is.
    pub seq: u64,
}

/// What of an app is different.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Clusters, listeners or routes.
    pub config: bool,
    /// Endpoints.
    pub endpoints: bool,
}

impl Change {
    /// Both together.
    pub fn and(self, other: Change) -> Change {
        Change { config: self.config || other.config, endpoints: self.endpoints || other.endpoints }
    }

    /// True if something is.
    pub fn any(self) -> bool {
        self.config || self.endpoints
    }
}

impl AppView {
    /// Encodes an app's resources; assignments that stay as they were keep their sequence.
    pub fn build(name: &str, inputs: &Inputs<'_>, before: Option<&AppView>, seq: u64) -> AppView {
        let groups: BTreeSet<&str> = [""].into_iter().chain(inputs.groups.iter().copied()).collect();
        let endpoints = groups.iter().map(|group| {
            let resource = assignment(name, group, inputs);
            let same = before.and_then(|b| b.endpoints.get(*group)).filter(|a| a.resource.version == resource.version);
            (group.to_string(), same.cloned().unwrap_or(Assignment { resource, seq }))
        });
        let mut view = AppView {
            exists: inputs.exists,
            spec: inputs.spec.clone(),
            used: build::route::clusters_used(name, &inputs.routes),
            route: build::route::outbound(name, &inputs.spec, &inputs.routes),
            api: build::listener::api(name),
            encryption: inputs.encryption,
            drain_ms: inputs.spec.drain_ms(build::route::longest_timeout(&inputs.routes)),
            refusal: inputs.refusal.clone(),
            config_seq: seq,
            name: name.to_owned(),
            identities: inputs.identities.clone(),
            clusters: BTreeMap::new(),
            endpoints: endpoints.collect(),
        };
        view.clusters = groups.iter().map(|group| (group.to_string(), view.make(group))).collect();
        if let Some(before) = before.filter(|before| !view.change_from(before).config) {
            view.config_seq = before.config_seq;
        }
        view
    }

    fn make(&self, group: &str) -> Clusters {
        let plain = build::cluster::of_app(&self.name, group, &self.spec, None);
        let tls = match self.encryption {
            Some(_) => build::cluster::of_app(&self.name, group, &self.spec, Some(&self.identities)),
            None => Arc::clone(&plain),
        };
        Clusters { plain, tls }
    }

    /// The cluster of a group (empty: of all), for a node that can do TLS or not.
    pub fn cluster(&self, group: &str, tls: bool) -> Arc<Resource> {
        let clusters = self.clusters.get(group).cloned().unwrap_or_else(|| self.make(group));
        if tls { clusters.tls } else { clusters.plain }
    }

    /// The endpoints of a group; empty: of all. A group that nobody is in has none.
    pub fn assignment(&self, group: &str) -> Arc<Resource> {
        let none = || build::endpoints::assignment(&names::cluster(&self.name, group), []);
        self.endpoints.get(group).map_or_else(none, |a| Arc::clone(&a.resource))
    }

    /// All its clusters, for a node that can do TLS or not.
    pub fn clusters(&self, tls: bool) -> impl Iterator<Item = Arc<Resource>> {
        self.clusters.values().map(move |both| Arc::clone(if tls { &both.tls } else { &both.plain }))
    }

    /// What is different from `before`.
    pub fn change_from(&self, before: &AppView) -> Change {
        let groups =
            |view: &AppView| view.endpoints.values().map(|a| Arc::clone(&a.resource.version)).collect::<Vec<_>>();
        Change {
            config: self.exists != before.exists
                || self.spec != before.spec
                || self.drain_ms != before.drain_ms
                || self.refusal != before.refusal
                || self.encryption.is_some() != before.encryption.is_some()
                || self.route.version != before.route.version
                || self.clusters.keys().ne(before.clusters.keys()),
            endpoints: groups(self) != groups(before) || self.endpoints.keys().ne(before.endpoints.keys()),
        }
    }
}

/// Where nobody serves, those that will again in a moment are told as such: callers wait for them.
fn assignment<'a>(app: &str, group: &str, inputs: &Inputs<'a>) -> Arc<Resource> {
    let of_group = |all: &[(&str, &'a Endpoint)]| -> Vec<&'a Endpoint> {
        all.iter().filter(|(g, _)| group.is_empty() || *g == group).map(|(_, e)| *e).collect()
    };
    let serving = of_group(&inputs.endpoints);
    let told = if serving.is_empty() { of_group(&inputs.returning) } else { serving };
    build::endpoints::assignment(&names::cluster(app, group), told)
}
