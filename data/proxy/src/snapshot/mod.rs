//! A configuration, compiled once and shared by all workers; never changed afterwards.

mod balance;
mod destinations;
mod hosts;
mod matching;
mod passing;
mod paths;
mod router;

pub(crate) use balance::{Group, hash};
pub(crate) use destinations::Destinations;
pub(crate) use matching::{Family, Fields, Request};
pub(crate) use passing::{Passage, Passing};
pub(crate) use router::{Action, ForwardAction, RouteEntry, RouteId, Router, rewritten};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_config::{Cluster, ConfigError, Direction, Listener, ListenerProtocol, ProxyConfig};

use crate::tls::{CertificateInfo, ClientTls, Secrets, ServerTls};

/// Why a configuration was not accepted: every problem that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} problem(s): {}", .problems.len(), join(.problems))]
pub struct SnapshotError {
    /// What is wrong and where.
    pub problems: Vec<ConfigError>,
}

fn join(problems: &[ConfigError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A valid configuration in the shape that serving needs.
#[derive(Debug)]
pub struct Snapshot {
    config: ProxyConfig,
    pub(crate) listeners: Vec<Arc<CompiledListener>>,
    pub(crate) routers: Vec<Router>,
    pub(crate) clusters: Vec<Arc<CompiledCluster>>,
    pub(crate) destinations: Destinations,
    certificates: BTreeMap<String, CertificateInfo>,
}

/// A listener and where its traffic goes.
#[derive(Debug)]
pub(crate) struct CompiledListener {
    pub(crate) name: Arc<str>,
    pub(crate) config: Listener,
    /// Place of the router in the snapshot; a listener for TCP has none.
    pub(crate) router: Option<usize>,
    pub(crate) passing: Passing,
    pub(crate) tls: Option<ServerTls>,
}

/// A cluster and its choice tables, one group per priority, the most preferred first.
#[derive(Debug)]
pub(crate) struct CompiledCluster {
    pub(crate) name: Arc<str>,
    pub(crate) config: Cluster,
    pub(crate) groups: Vec<Group>,
    pub(crate) tls: Option<Arc<ClientTls>>,
}

impl Snapshot {
    /// Validates and compiles.
    ///
    /// # Errors
    /// All that is wrong with it; nothing is applied then.
    pub fn compile(config: ProxyConfig) -> Result<Arc<Snapshot>, SnapshotError> {
        weir_config::validate(&config).map_err(|problems| SnapshotError { problems })?;
        let secrets = Secrets::compile(&config.secrets).map_err(|problems| SnapshotError { problems })?;
        let clusters = compile_each("clusters", &config.clusters, |cluster| CompiledCluster::new(cluster, &secrets))?;
        let cluster_index = index(config.clusters.iter().map(|cluster| cluster.name.as_str()));
        let routers: Result<Vec<_>, _> =
            config.route_tables.iter().map(|table| Router::compile(table, &cluster_index)).collect();
        let routers = routers.map_err(|problem| SnapshotError { problems: vec![problem] })?;
        let router_index = index(config.route_tables.iter().map(|table| table.name.as_str()));
        let listeners = compile_each("listeners", &config.listeners, |listener| {
            CompiledListener::new(listener, &router_index, &cluster_index, &secrets)
        })?;
        let certificates = secrets.certificates().map(|(name, info)| (name.to_owned(), info)).collect();
        let destinations = Destinations::compile(&config);
        Ok(Arc::new(Snapshot { config, listeners, routers, clusters, destinations, certificates }))
    }

    /// A configuration without a listener: what a proxy starts with that gets its own from the control plane.
    pub fn empty() -> Arc<Snapshot> {
        Arc::new(Snapshot {
            config: ProxyConfig::default(),
            listeners: Vec::new(),
            routers: Vec::new(),
            clusters: Vec::new(),
            destinations: Destinations::default(),
            certificates: BTreeMap::new(),
        })
    }

    /// What it was compiled from.
    pub fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// What may be shown of its certificates, by the name of their secret.
    pub fn certificates(&self) -> &BTreeMap<String, CertificateInfo> {
        &self.certificates
    }
}

impl Snapshot {
    /// The certificate that the inbound side answers TLS with; `None` while there is no such listener or certificate.
    pub fn inbound_certificate(&self) -> Option<&CertificateInfo> {
        let inbound = |listener: &&Arc<CompiledListener>| listener.config.direction == Direction::Inbound;
        let ready =
            |listener: &&Arc<CompiledListener>| listener.tls.as_ref().is_some_and(|tls| tls.generation().is_some());
        let listener = self.listeners.iter().filter(inbound).find(ready)?;
        self.certificates.get(&listener.config.tls.as_ref()?.certificate)
    }
}

/// Compiles each, or tells which was the first that could not be.
fn compile_each<T, C>(
    field: &str,
    items: &[T],
    compile: impl Fn(&T) -> Result<C, String>,
) -> Result<Vec<Arc<C>>, SnapshotError> {
    let compile = |(index, item)| {
        let wrong = |message| ConfigError { field: format!("{field}[{index}].tls"), message };
        compile(item).map(Arc::new).map_err(|message| SnapshotError { problems: vec![wrong(message)] })
    };
    items.iter().enumerate().map(compile).collect()
}

/// Names and their places. Validation has made sure that each name that is looked up exists.
type Index<'a> = HashMap<&'a str, usize>;

fn index<'a>(names: impl Iterator<Item = &'a str>) -> Index<'a> {
    names.enumerate().map(|(index, name)| (name, index)).collect()
}

impl CompiledListener {
    fn new(listener: &Listener, routers: &Index<'_>, clusters: &Index<'_>, secrets: &Secrets) -> Result<Self, String> {
        let is_tcp = listener.protocol == ListenerProtocol::Tcp;
        let router = (!is_tcp).then(|| routers[listener.routes.as_str()]);
        let passing = Passing::compile(listener, clusters);
        let tls = listener.tls.as_ref().map(|tls| ServerTls::compile(tls, listener.protocol, secrets)).transpose()?;
        Ok(CompiledListener { name: listener.name.as_str().into(), config: listener.clone(), router, passing, tls })
    }
}

impl CompiledCluster {
    fn new(cluster: &Cluster, secrets: &Secrets) -> Result<Self, String> {
        let tls = cluster.tls.as_ref().map(|tls| ClientTls::compile(tls, secrets)).transpose()?.map(Arc::new);
        let (name, groups) = (cluster.name.as_str().into(), Group::all(cluster));
        Ok(CompiledCluster { name, config: cluster.clone(), groups, tls })
    }
}
