//! A configuration, compiled once and shared by all workers; never changed afterwards.

mod balance;
mod hosts;
mod matching;
mod paths;
mod router;

pub(crate) use balance::{Group, hash};
pub(crate) use matching::{Fields, Request};
pub(crate) use router::{Action, ForwardAction, RouteEntry, RouteId, Router, rewritten};

use std::collections::HashMap;
use std::sync::Arc;

use weir_config::{Cluster, ConfigError, Listener, ListenerProtocol, ProxyConfig};

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
}

/// A listener and where its traffic goes.
#[derive(Debug)]
pub(crate) struct CompiledListener {
    pub(crate) name: Arc<str>,
    pub(crate) config: Listener,
    pub(crate) target: Target,
}

/// What a listener's traffic is decided by, as an index into the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A router.
    Router(usize),
    /// One cluster for every connection.
    Cluster(usize),
}

/// A cluster and its choice tables, one group per priority, the most preferred first.
#[derive(Debug)]
pub(crate) struct CompiledCluster {
    pub(crate) name: Arc<str>,
    pub(crate) config: Cluster,
    pub(crate) groups: Vec<Group>,
}

impl Snapshot {
    /// Validates and compiles.
    ///
    /// # Errors
    /// All that is wrong with it; nothing is applied then.
    pub fn compile(config: ProxyConfig) -> Result<Arc<Snapshot>, SnapshotError> {
        weir_config::validate(&config).map_err(|problems| SnapshotError { problems })?;
        let clusters = config.clusters.iter().map(|cluster| Arc::new(CompiledCluster::new(cluster))).collect();
        let cluster_index = index(config.clusters.iter().map(|cluster| cluster.name.as_str()));
        let routers: Result<Vec<_>, _> =
            config.route_tables.iter().map(|table| Router::compile(table, &cluster_index)).collect();
        let routers = routers.map_err(|problem| SnapshotError { problems: vec![problem] })?;
        let router_index = index(config.route_tables.iter().map(|table| table.name.as_str()));
        let listener = |listener: &Listener| Arc::new(CompiledListener::new(listener, &router_index, &cluster_index));
        let listeners = config.listeners.iter().map(listener).collect();
        Ok(Arc::new(Snapshot { config, listeners, routers, clusters }))
    }

    /// A configuration without a listener: what a proxy starts with that gets its own from the control plane.
    pub fn empty() -> Arc<Snapshot> {
        Arc::new(Snapshot {
            config: ProxyConfig::default(),
            listeners: Vec::new(),
            routers: Vec::new(),
            clusters: Vec::new(),
        })
    }

    /// What it was compiled from.
    pub fn config(&self) -> &ProxyConfig {
        &self.config
    }
}

/// Names and their places. Validation has made sure that each name that is looked up exists.
type Index<'a> = HashMap<&'a str, usize>;

fn index<'a>(names: impl Iterator<Item = &'a str>) -> Index<'a> {
    names.enumerate().map(|(index, name)| (name, index)).collect()
}

impl CompiledListener {
    fn new(listener: &Listener, routers: &Index<'_>, clusters: &Index<'_>) -> Self {
        let target = match listener.protocol {
            ListenerProtocol::Tcp => Target::Cluster(clusters[listener.routes.as_str()]),
            _ => Target::Router(routers[listener.routes.as_str()]),
        };
        CompiledListener { name: listener.name.as_str().into(), config: listener.clone(), target }
    }
}

impl CompiledCluster {
    fn new(cluster: &Cluster) -> Self {
        CompiledCluster { name: cluster.name.as_str().into(), config: cluster.clone(), groups: Group::all(cluster) }
    }
}
