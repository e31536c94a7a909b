//! Which route a request takes.

use std::sync::Arc;
use std::time::Duration;

use weir_config::{
    ConfigError, Forward, HashKey, HeaderEdits, PathMatch, Redirect, Respond, Retry, Route, RouteAction, RouteTable,
    VirtualHost,
};

use super::Index;
use super::hosts::Hosts;
use super::matching::{Conditions, Fields, Request};
use super::paths::Paths;

/// Timeout of a route that names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// One route table, compiled.
#[derive(Debug)]
pub(crate) struct Router {
    hosts: Hosts,
    virtual_hosts: Vec<CompiledHost>,
    /// Request series that listeners with this table may have: one for each route and cluster, and one for no route.
    pub(crate) series: usize,
}

#[derive(Debug)]
struct CompiledHost {
    routes: Vec<RouteEntry>,
    paths: Paths,
}

/// Place of a route in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteId {
    host: u32,
    route: u32,
}

/// A route, compiled.
#[derive(Debug)]
pub(crate) struct RouteEntry {
    pub(crate) name: Arc<str>,
    conditions: Conditions,
    pub(crate) action: Action,
    pub(crate) request_edits: HeaderEdits,
    pub(crate) response_edits: HeaderEdits,
    /// Its first series in the listener's table; one more for each further cluster.
    pub(crate) series: usize,
}

/// What is done with a request.
#[derive(Debug)]
pub(crate) enum Action {
    Forward(ForwardAction),
    Redirect(Redirect),
    Respond(Respond),
}

/// Where a request goes, and how.
#[derive(Debug)]
pub(crate) struct ForwardAction {
    /// Place of the cluster in the snapshot, and the weights up to and including it.
    clusters: Vec<(usize, u32)>,
    /// `None`: unbounded.
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Retry>,
    /// Length of the matched prefix, and what replaces it.
    pub(crate) prefix_rewrite: Option<(usize, String)>,
    pub(crate) host_rewrite: Option<String>,
    pub(crate) hash_on: Vec<HashKey>,
    pub(crate) upgrades: bool,
}

impl Router {
    pub(super) fn compile(table: &RouteTable, clusters: &Index<'_>) -> Result<Self, ConfigError> {
        let mut router = Router { hosts: Hosts::default(), virtual_hosts: Vec::new(), series: 1 };
        for (index, host) in table.hosts.iter().enumerate() {
            host.domains.iter().for_each(|domain| router.hosts.insert(domain, index));
            router.add_host(host, clusters)?;
        }
        Ok(router)
    }

    fn add_host(&mut self, host: &VirtualHost, clusters: &Index<'_>) -> Result<(), ConfigError> {
        let mut routes = Vec::with_capacity(host.routes.len());
        for (index, route) in host.routes.iter().enumerate() {
            let name = if route.name.is_empty() { format!("{}/{index}", host.name) } else { route.name.clone() };
            let entry = RouteEntry::compile(name, route, clusters, self.series)?;
            self.series += entry.action.cluster_count();
            routes.push(entry);
        }
        let paths = Paths::new(host.routes.iter().map(|route| &route.matches.path));
        self.virtual_hosts.push(CompiledHost { routes, paths });
        Ok(())
    }

    /// The first route that matches, in the virtual host that matches best.
    pub(crate) fn find<F: Fields>(&self, request: &Request<'_, F>) -> Option<RouteId> {
        let host_index = self.hosts.find(request.host)?;
        let host = &self.virtual_hosts[host_index];
        let holds = |route: u32| host.routes[route as usize].conditions.hold(request);
        let route = host.paths.first(request.path_only().as_bytes(), holds)?;
        Some(RouteId { host: host_index as u32, route })
    }

    /// A route of this table.
    pub(crate) fn route(&self, id: RouteId) -> &RouteEntry {
        &self.virtual_hosts[id.host as usize].routes[id.route as usize]
    }
}

impl RouteEntry {
    fn compile(name: String, route: &Route, clusters: &Index<'_>, series: usize) -> Result<Self, ConfigError> {
        let action = match &route.action {
            RouteAction::Forward(forward) => {
                Action::Forward(ForwardAction::compile(forward, &route.matches.path, clusters))
            }
            RouteAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
            RouteAction::Respond(respond) => Action::Respond(respond.clone()),
        };
        Ok(RouteEntry {
            name: name.into(),
            conditions: Conditions::compile(&route.matches)?,
            action,
            request_edits: route.request_headers.clone(),
            response_edits: route.response_headers.clone(),
            series,
        })
    }
}

impl Action {
    fn cluster_count(&self) -> usize {
        match self {
            Action::Forward(forward) => forward.clusters.len(),
            Action::Redirect(_) | Action::Respond(_) => 1,
        }
    }
}

impl ForwardAction {
    fn compile(forward: &Forward, path: &PathMatch, clusters: &Index<'_>) -> Self {
        let mut total = 0;
        let cumulated = forward.clusters.iter().map(|target| {
            total += target.weight;
            (clusters[target.cluster.as_str()], total)
        });
        ForwardAction {
            clusters: cumulated.collect(),
            timeout: match forward.timeout_ms {
                None => Some(DEFAULT_TIMEOUT),
                Some(0) => None,
                Some(millis) => Some(Duration::from_millis(millis)),
            },
            retry: forward.retry.clone(),
            prefix_rewrite: forward.prefix_rewrite.clone().map(|rewrite| (matched_len(path), rewrite)),
            host_rewrite: forward.host_rewrite.clone(),
            hash_on: forward.hash_on.clone(),
            upgrades: forward.upgrades,
        }
    }

    /// A cluster by weight: its place among the route's clusters and in the snapshot.
    pub(crate) fn choose(&self) -> (usize, usize) {
        match self.clusters.as_slice() {
            [(cluster, _)] => (0, *cluster),
            clusters => {
                let point = fastrand::u32(..clusters.last().map_or(1, |(_, total)| *total));
                let place = clusters.partition_point(|(_, upto)| *upto <= point);
                (place, clusters[place].0)
            }
        }
    }

    /// Time for one attempt, apart from that for all of them.
    pub(crate) fn per_try_timeout(&self) -> Option<Duration> {
        self.retry.as_ref().and_then(|retry| retry.per_try_timeout_ms).map(Duration::from_millis)
    }
}

/// How much of a path the rewrite replaces; nothing is left of one that a regular expression matched.
fn matched_len(path: &PathMatch) -> usize {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.len(),
        PathMatch::Segments(path) => path.trim_end_matches('/').len(),
        PathMatch::Regex(_) => usize::MAX,
    }
}

/// The path to send on: the matched prefix replaced, the query kept.
pub(crate) fn rewritten<'a>(path: &'a str, rewrite: &'a Option<(usize, String)>) -> std::borrow::Cow<'a, str> {
    let Some((matched, replacement)) = rewrite else {
        return path.into();
    };
    let end = path.find('?').unwrap_or(path.len());
    let rest = path.get((*matched).min(end)..).unwrap_or_default();
    let joined = match (replacement.ends_with('/'), rest.starts_with('/')) {
        (true, true) => format!("{replacement}{}", &rest[1..]),
        _ => format!("{replacement}{rest}"),
    };
    joined.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewrite_replaces_the_prefix_and_keeps_the_query() {
        let to = |matched, replacement: &str| Some((matched, replacement.to_owned()));
        assert_eq!(rewritten("/a/b?c", &to(2, "/x")), "/x/b?c");
        assert_eq!(rewritten("/a/b?c", &to(2, "/")), "/b?c");
        assert_eq!(rewritten("/a?c", &to(2, "/x/")), "/x/?c");
        assert_eq!(rewritten("/abc?d", &to(usize::MAX, "/x")), "/x?d");
        assert_eq!(rewritten("/abc?d", &None), "/abc?d");
    }
}
