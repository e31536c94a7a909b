//! What the control plane has sent, and what of it is in use.
//!
//! A resource that arrives is first only *sent*. It becomes *active* once all that it refers to is active:
//! a cluster needs its endpoints and secrets, routes need their clusters, a listener needs its routes (and its secrets, if it
//! takes nothing but TLS). Until then the version that
//! was active before serves on ("warming"). A resource that is removed stays active as long as something active refers
//! to it, so that in no order of arrival a request meets a gap ("make before break").
//!
//! What is referred to and never comes must not hold up the rest for ever: after [`PATIENCE`] it is taken for empty
//! (Envoy's initial fetch timeout is the same).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_config::{Cluster, ClusterTls, Endpoint, ListenerTls, ProxyConfig, RouteTable, Secret, TlsMode};

use super::kind::Kind;
use crate::convert::route::{clusters_of, empty_cluster};
use crate::convert::{
    Assignment, ClusterResource, EndpointSource, ListenerResource, Resource, RouteSource, TlsEndpoints,
};

/// How long a reference may wait for what it refers to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
struct Held<T> {
    /// As last sent; `None`: removed by the control plane, or never there.
    sent: Option<Arc<T>>,
    version: String,
    /// In use.
    active: Option<Arc<T>>,
    /// The proxy could not put `sent` into force: it is not tried again until another comes.
    is_refused: bool,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Held { sent: None, version: String::new(), active: None, is_refused: false }
    }
}

impl<T> Held<T> {
    fn placeholder(value: T) -> Self {
        Held { active: Some(Arc::new(value)), ..Default::default() }
    }

    fn send(&mut self, value: Arc<T>, version: String) {
        self.sent = Some(value);
        self.version = version;
        self.is_refused = false;
    }

    fn remove(&mut self) {
        self.sent = None;
        self.version.clear();
    }

    fn is_warming(&self) -> bool {
        match (&self.sent, &self.active) {
            _ if self.is_refused => false,
            (Some(sent), Some(active)) => !Arc::ptr_eq(sent, active),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn each(&self) -> impl Iterator<Item = &Arc<T>> {
        self.sent.iter().chain(&self.active)
    }
}

type Table<T> = BTreeMap<String, Held<T>>;

/// Something referred to that is not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Missing {
    Cluster(String),
    Endpoints(String),
    Routes(String),
    /// A host name of which nothing is known yet, not even that it does not resolve.
    Address(String),
    Secret(String),
}

/// All resources of one proxy. Cheap to clone: the resources themselves are shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    clusters: Table<ClusterResource>,
    endpoints: Table<Assignment>,
    listeners: Table<ListenerResource>,
    routes: Table<RouteTable>,
    secrets: Table<Secret>,
    /// Secrets that are asked for whether anything refers to them or not.
    always: BTreeSet<String>,
    dns: BTreeMap<String, Vec<IpAddr>>,
    received: BTreeSet<Kind>,
    missing: BTreeMap<Missing, Instant>,
}

impl World {
    /// Notes that the control plane has answered for this type, if only to say that there is nothing.
    pub(crate) fn note_received(&mut self, kind: Kind) {
        self.received.insert(kind);
    }

    /// Asks for these secrets from the beginning: what will refer to them need not wait for them then.
    pub(crate) fn always_want(&mut self, secrets: impl IntoIterator<Item = String>) {
        self.always.extend(secrets);
    }

    pub(crate) fn put(&mut self, name: String, version: String, resource: Resource) {
        match resource {
            Resource::Cluster(cluster) => self.clusters.entry(name).or_default().send(cluster, version),
            Resource::Routes(table) => self.routes.entry(name).or_default().send(table, version),
            Resource::Listener(listener) => self.listeners.entry(name).or_default().send(listener, version),
            Resource::Endpoints(endpoints) => {
                let held = self.endpoints.entry(name).or_default();
                held.send(endpoints.clone(), version);
                held.active = Some(endpoints);
            }
            Resource::Secret(secret) => {
                let held = self.secrets.entry(name).or_default();
                held.send(secret.clone(), version);
                held.active = Some(secret);
            }
        }
    }

    pub(crate) fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Secret => remove(&mut self.secrets, name),
            Kind::Cluster => remove(&mut self.clusters, name),
            Kind::Endpoints => remove(&mut self.endpoints, name),
            Kind::Listener => remove(&mut self.listeners, name),
            Kind::Routes => remove(&mut self.routes, name),
        }
    }

    /// Removes what is not among the names.
    pub(crate) fn keep_only(&mut self, kind: Kind, names: &BTreeSet<String>) {
        let gone: Vec<_> = self.versions(kind).into_keys().filter(|name| !names.contains(name)).collect();
        gone.iter().for_each(|name| self.remove(kind, name));
    }

    /// Names and versions of what is held as sent.
    pub(crate) fn versions(&self, kind: Kind) -> HashMap<String, String> {
        match kind {
            Kind::Secret => versions(&self.secrets),
            Kind::Cluster => versions(&self.clusters),
            Kind::Endpoints => versions(&self.endpoints),
            Kind::Listener => versions(&self.listeners),
            Kind::Routes => versions(&self.routes),
        }
    }

    /// Names to ask for; empty for the types of which everything is wanted.
    pub(crate) fn wanted(&self, kind: Kind) -> BTreeSet<String> {
        match kind {
            Kind::Cluster | Kind::Listener => BTreeSet::new(),
            Kind::Secret => self.always.iter().cloned().chain(self.secret_names()).collect(),
            Kind::Endpoints => self.clusters.values().flat_map(Held::each).filter_map(eds_name).collect(),
            Kind::Routes => self.listeners.values().flat_map(Held::each).filter_map(rds_name).collect(),
        }
    }

    /// Host names to resolve.
    pub(crate) fn dns_names(&self) -> BTreeSet<String> {
        let targets = self.clusters.values().flat_map(Held::each).filter_map(|cluster| match &cluster.endpoints {
            EndpointSource::Dns(targets) => Some(targets),
            _ => None,
        });
        targets.flatten().map(|target| target.host.clone()).collect()
    }

    /// Takes what a name resolved to; a failure (`None`) keeps the last known addresses.
    pub(crate) fn resolved(&mut self, name: String, addresses: Option<Vec<IpAddr>>) {
        match addresses {
            Some(addresses) => drop(self.dns.insert(name, addresses)),
            None => drop(self.dns.entry(name).or_default()),
        }
    }

    /// Activates what is ready, forgets what nothing needs, and tells when to look again because of what is missing.
    pub(crate) fn settle(&mut self, now: Instant) -> Option<Instant> {
        let missing = self.promote();
        if self.give_up(missing, now) {
            self.promote();
        }
        self.forget();
        self.missing.values().min().map(|since| *since + PATIENCE)
    }

    /// Puts a listener back to what was active `before`, as what was sent cannot be put into force.
    pub(crate) fn refuse_listener(&mut self, name: &str, before: &World) {
        if let Some(held) = self.listeners.get_mut(name) {
            held.active = before.listeners.get(name).and_then(|held| held.active.clone());
            held.is_refused = true;
        }
    }

    /// True once the control plane has told of clusters and listeners, and all that it told is active.
    pub(crate) fn is_complete(&self) -> bool {
        Kind::ALL.iter().filter(|kind| kind.is_wildcard()).all(|kind| self.received.contains(kind))
            && self.warming().is_empty()
    }

    /// What waits for something, in words.
    pub(crate) fn warming(&self) -> Vec<String> {
        let clusters = warming(Kind::Cluster, &self.clusters);
        let routes = warming(Kind::Routes, &self.routes);
        let listeners = warming(Kind::Listener, &self.listeners);
        clusters.chain(routes).chain(listeners).collect()
    }

    /// Activates what is ready; returns what the rest lacks.
    fn promote(&mut self) -> BTreeSet<Missing> {
        let mut missing = BTreeSet::new();
        let World { clusters, endpoints, listeners, routes, secrets, dns, .. } = self;
        let of_cluster = |cluster: &ClusterResource| {
            let named = cluster.cluster.tls.iter().flat_map(ClusterTls::secrets);
            [lacks_endpoints(cluster, endpoints, dns), lacks_secrets(named, secrets)].concat()
        };
        promote(clusters, of_cluster, &mut missing);
        promote(routes, |table| lacks_clusters(clusters_of(table), clusters), &mut missing);
        let of_listener = |listener: &ListenerResource| {
            // One that takes plaintext too serves that meanwhile.
            let strict = listener.listener.tls.iter().filter(|tls| tls.mode == TlsMode::Strict);
            let named = strict.flat_map(ListenerTls::secrets);
            [lacks_routes(listener, routes, clusters), lacks_secrets(named, secrets)].concat()
        };
        promote(listeners, of_listener, &mut missing);
        missing
    }

    /// Puts something empty where a reference has waited for too long. True if it did.
    fn give_up(&mut self, missing: BTreeSet<Missing>, now: Instant) -> bool {
        self.missing.retain(|name, _| missing.contains(name));
        for name in missing {
            self.missing.entry(name).or_insert(now);
        }
        let is_late = |since: &Instant| now.saturating_duration_since(*since) >= PATIENCE;
        let (late, waiting) = std::mem::take(&mut self.missing).into_iter().partition(|(_, since)| is_late(since));
        let late: BTreeMap<Missing, Instant> = late;
        self.missing = waiting;
        late.keys().for_each(|missing| self.put_placeholder(missing));
        !late.is_empty()
    }

    fn put_placeholder(&mut self, missing: &Missing) {
        match missing {
            Missing::Address(name) => self.resolved(name.clone(), None),
            Missing::Secret(name) => {
                let awaited = Secret { name: name.clone(), ..Default::default() };
                drop(self.secrets.insert(name.clone(), Held::placeholder(awaited)));
            }
            Missing::Endpoints(name) => {
                drop(self.endpoints.insert(name.clone(), Held::placeholder(Assignment::default())))
            }
            Missing::Routes(name) => {
                let held = self.routes.entry(name.clone()).or_default();
                held.active = Some(Arc::new(RouteTable { name: name.clone(), hosts: Vec::new() }));
            }
            Missing::Cluster(name) => {
                let empty = ClusterResource {
                    cluster: empty_cluster(name),
                    endpoints: EndpointSource::Static,
                    tls_endpoints: TlsEndpoints::None,
                };
                self.clusters.entry(name.clone()).or_default().active = Some(Arc::new(empty));
            }
        }
    }

    /// Drops what was removed (or never came) and is not referred to, from the referring end on.
    fn forget(&mut self) {
        self.listeners.retain(|_, held| held.sent.is_some());
        let wanted = self.wanted(Kind::Routes);
        self.routes.retain(|name, _| wanted.contains(name));
        let used = self.used_clusters();
        self.clusters.retain(|name, held| held.sent.is_some() || used.contains(name));
        let wanted = self.wanted(Kind::Endpoints);
        self.endpoints.retain(|name, _| wanted.contains(name));
        let wanted = self.wanted(Kind::Secret);
        self.secrets.retain(|name, _| wanted.contains(name));
        let names = self.dns_names();
        self.dns.retain(|name, _| names.contains(name));
    }

    fn used_clusters(&self) -> BTreeSet<String> {
        let tables = self.routes.values().flat_map(Held::each).flat_map(|table| clusters_of(table));
        let listeners =
            self.listeners.values().flat_map(Held::each).flat_map(|listener| clusters_of_listener(listener));
        tables.chain(listeners).map(str::to_owned).collect()
    }

    /// All that is active, as one configuration.
    pub(crate) fn config(&self) -> ProxyConfig {
        let active: Vec<_> = self.listeners.values().filter_map(|held| held.active.as_ref()).collect();
        let mut tables = BTreeMap::new();
        for listener in &active {
            if let Some(table) = self.active_table(&listener.routes) {
                tables.entry(table.name.clone()).or_insert_with(|| RouteTable::clone(table));
            }
        }
        ProxyConfig {
            listeners: active.iter().map(|resource| resource.listener.clone()).collect(),
            route_tables: tables.into_values().collect(),
            clusters: self.clusters.values().filter_map(|held| Some(self.cluster(held.active.as_ref()?))).collect(),
            secrets: self.active_secrets(),
        }
    }

    /// Names of the secrets that anything refers to.
    fn secret_names(&self) -> BTreeSet<String> {
        let clusters = self.clusters.values().flat_map(Held::each).filter_map(|cluster| cluster.cluster.tls.as_ref());
        let listeners = self.listeners.values().flat_map(Held::each).filter_map(|held| held.listener.tls.as_ref());
        let names = clusters.flat_map(ClusterTls::secrets).chain(listeners.flat_map(ListenerTls::secrets));
        names.map(str::to_owned).collect()
    }

    /// Each secret that is referred to; without content where it is still awaited.
    fn active_secrets(&self) -> Vec<Secret> {
        let active = |name: &String| self.secrets.get(name)?.active.as_deref().cloned();
        let names = self.secret_names().into_iter();
        names.map(|name| active(&name).unwrap_or_else(|| Secret { name, ..Default::default() })).collect()
    }

    fn active_table<'a>(&'a self, source: &'a RouteSource) -> Option<&'a Arc<RouteTable>> {
        match source {
            RouteSource::Rds(name) => self.routes.get(name)?.active.as_ref(),
            RouteSource::Inline(table) => Some(table),
            RouteSource::None => None,
        }
    }

    fn cluster(&self, resource: &ClusterResource) -> Cluster {
        let mut cluster = resource.cluster.clone();
        match &resource.endpoints {
            EndpointSource::Static => {}
            EndpointSource::Eds(name) => {
                let active = self.endpoints.get(name).and_then(|held| held.active.as_deref());
                let Assignment { endpoints, returning } = active.cloned().unwrap_or_default();
                (cluster.endpoints, cluster.returning) = (endpoints, returning);
            }
            EndpointSource::Dns(targets) => {
                let mut seen: BTreeSet<_> = cluster.endpoints.iter().map(|endpoint| endpoint.address).collect();
                for target in targets {
                    let addresses = self.dns.get(&target.host).into_iter().flatten();
                    let sockets = addresses.map(|ip| SocketAddr::new(*ip, target.port));
                    let fresh: Vec<_> = sockets.filter(|address| seen.insert(*address)).collect();
                    cluster
                        .endpoints
                        .extend(fresh.into_iter().map(|address| Endpoint { address, ..target.like.clone() }));
                }
            }
        }
        resource.tls_endpoints.apply(&mut cluster.endpoints);
        cluster
    }

    /// Number of resources of a type, for the bound on it.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Secret => self.secrets.len(),
            Kind::Cluster => self.clusters.len(),
            Kind::Endpoints => self.endpoints.len(),
            Kind::Listener => self.listeners.len(),
            Kind::Routes => self.routes.len(),
        }
    }
}

fn eds_name(cluster: &Arc<ClusterResource>) -> Option<String> {
    match &cluster.endpoints {
        EndpointSource::Eds(name) => Some(name.clone()),
        _ => None,
    }
}

fn rds_name(listener: &Arc<ListenerResource>) -> Option<String> {
    match &listener.routes {
        RouteSource::Rds(name) => Some(name.clone()),
        _ => None,
    }
}

fn remove<T>(table: &mut Table<T>, name: &str) {
    if let Some(held) = table.get_mut(name) {
        held.remove();
    }
}

fn versions<T>(table: &Table<T>) -> HashMap<String, String> {
    let sent = table.iter().filter(|(_, held)| held.sent.is_some());
    sent.map(|(name, held)| (name.clone(), held.version.clone())).collect()
}

fn warming<T>(kind: Kind, table: &Table<T>) -> impl Iterator<Item = String> {
    let warming = table.iter().filter(|(_, held)| held.is_warming());
    warming.map(move |(name, _)| format!("{} `{name}`", kind.noun()))
}

fn promote<T>(table: &mut Table<T>, lacks: impl Fn(&T) -> Vec<Missing>, missing: &mut BTreeSet<Missing>) {
    for held in table.values_mut().filter(|held| held.is_warming()) {
        let Some(sent) = &held.sent else { continue };
        let lacking = lacks(sent);
        if lacking.is_empty() {
            held.active = Some(sent.clone());
        }
        missing.extend(lacking);
    }
}

fn lacks_endpoints(
    cluster: &ClusterResource,
    endpoints: &Table<Assignment>,
    dns: &BTreeMap<String, Vec<IpAddr>>,
) -> Vec<Missing> {
    match &cluster.endpoints {
        EndpointSource::Eds(name) if !endpoints.contains_key(name) => vec![Missing::Endpoints(name.clone())],
        EndpointSource::Dns(targets) => {
            let unresolved = targets.iter().filter(|target| !dns.contains_key(&target.host));
            unresolved.map(|target| Missing::Address(target.host.clone())).collect()
        }
        _ => Vec::new(),
    }
}

fn lacks_secrets<'a>(names: impl Iterator<Item = &'a str>, secrets: &Table<Secret>) -> Vec<Missing> {
    names.filter(|name| !secrets.contains_key(*name)).map(|name| Missing::Secret(name.to_owned())).collect()
}

fn lacks_clusters(names: BTreeSet<&str>, clusters: &Table<ClusterResource>) -> Vec<Missing> {
    let is_active = |name: &str| clusters.get(name).is_some_and(|held| held.active.is_some());
    names.into_iter().filter(|name| !is_active(name)).map(|name| Missing::Cluster(name.to_owned())).collect()
}

fn lacks_routes(
    listener: &ListenerResource,
    routes: &Table<RouteTable>,
    clusters: &Table<ClusterResource>,
) -> Vec<Missing> {
    let lacks_table = match &listener.routes {
        RouteSource::Rds(name) if routes.get(name).is_none_or(|held| held.active.is_none()) => {
            Some(Missing::Routes(name.clone()))
        }
        _ => None,
    };
    let mut lacking = lacks_clusters(clusters_of_listener(listener), clusters);
    lacking.extend(lacks_table);
    lacking
}

/// The clusters that a listener names itself.
fn clusters_of_listener(listener: &ListenerResource) -> BTreeSet<&str> {
    let of_table = match &listener.routes {
        RouteSource::Inline(table) => clusters_of(table),
        RouteSource::Rds(_) | RouteSource::None => BTreeSet::new(),
    };
    of_table.into_iter().chain(listener.listener.passes_to()).collect()
}

#[cfg(test)]
mod tests;
