//! A worker's view of clusters and endpoints, carried over from one snapshot to the next.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use weir_config::{Balance, Endpoint};

use super::h2::H2Pool;
use super::health::Health;
use super::originals::Originals;
use super::own::{Own, OwnConnections};
use crate::io::{BufferPool, Stream};
use crate::rpc::RpcPool;
use crate::snapshot::{CompiledCluster, Group, Snapshot};
use crate::stats::{ClusterStats, EndpointStats, Link, WorkerStats};
use crate::tls::{ClientTls, Security};

/// An endpoint that could not be connected to is passed over for this long, as long as there are others.
const AVOID_AFTER_CONNECT_FAILURE: Duration = Duration::from_secs(1);
/// Choices by the balancer before every endpoint is looked at.
const CHOICES: usize = 3;

/// A cluster as one worker sees it.
#[derive(Debug)]
pub(crate) struct ClusterState {
    pub(crate) compiled: Arc<CompiledCluster>,
    pub(crate) endpoints: Vec<Rc<EndpointState>>,
    pub(crate) stats: Arc<ClusterStats>,
    /// Told when a connection has become free or was closed, if anybody waits.
    pub(crate) freed: Rc<Notify>,
    pub(super) shared: Shared,
    /// Endpoints where callers were going, for a cluster that has none of its own.
    pub(super) originals: Rc<Originals>,
    turn: Cell<usize>,
}

/// What clusters need of their worker.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) buffers: Rc<BufferPool>,
    pub(crate) own: Rc<OwnConnections>,
}

/// What an endpoint is chosen by, besides the cluster's policy.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Choice {
    /// For clusters that hash.
    pub(crate) hash: Option<u64>,
    /// For clusters without endpoints of their own: where the caller was going.
    pub(crate) destination: Option<SocketAddr>,
}

/// An endpoint as one worker sees it.
#[derive(Debug)]
pub(crate) struct EndpointState {
    pub(crate) address: SocketAddr,
    pub(crate) stats: Arc<EndpointStats>,
    pub(crate) idle: RefCell<Vec<Idle>>,
    pub(crate) h2: H2Pool,
    pub(crate) rpc: RpcPool,
    /// No longer in the configuration: what is in flight finishes, and nothing goes back into the pool.
    pub(crate) retired: Cell<bool>,
    /// How connections to it are to be secured now; those secured otherwise get no new request.
    tls: RefCell<Option<Arc<ClientTls>>>,
    security: Cell<Security>,
    avoid_until: Cell<Option<Instant>>,
    pub(super) health: Health,
}

/// An idle HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) stream: Stream,
    pub(crate) open: OpenConnection,
    pub(crate) since: Instant,
}

/// Counts a connection as open for as long as it lives, and tells who waits when it goes.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    stats: Arc<ClusterStats>,
    freed: Rc<Notify>,
    pub(crate) security: Security,
    /// Who is at the other end, where that is asked.
    pub(super) link: Option<Link>,
    pub(super) own: Option<Box<Own>>,
}

impl OpenConnection {
    pub(super) fn new(cluster: &ClusterState, security: Security) -> Self {
        cluster.stats.connections.inc();
        OpenConnection { stats: cluster.stats.clone(), freed: cluster.freed.clone(), security, link: None, own: None }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.stats.connections.dec();
        if self.stats.pending.get() > 0 {
            self.freed.notify_one();
        }
    }
}

/// A request on its way to an endpoint; counts as active until dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    endpoint: Rc<EndpointState>,
}

impl InFlight {
    pub(crate) fn new(endpoint: &Rc<EndpointState>) -> Self {
        endpoint.stats.active.inc();
        InFlight { endpoint: endpoint.clone() }
    }

    /// Where it goes.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Counts how the attempt ended.
    pub(crate) fn finish(&self, error: bool) {
        self.endpoint.stats.requests.inc();
        if error {
            self.endpoint.stats.errors.inc();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.stats.active.dec();
    }
}

impl EndpointState {
    pub(super) fn new(cluster: &Arc<str>, address: SocketAddr) -> Self {
        EndpointState {
            address,
            stats: Arc::new(EndpointStats::new(cluster.clone(), address)),
            idle: RefCell::default(),
            h2: H2Pool::default(),
            rpc: RpcPool::default(),
            retired: Cell::new(false),
            tls: RefCell::default(),
            security: Cell::new(Security::Plain),
            avoid_until: Cell::new(None),
            health: Health::default(),
        }
    }

    /// How a new connection is to be secured; `None`: not at all.
    pub(super) fn tls(&self) -> Option<Arc<ClientTls>> {
        self.tls.borrow().clone()
    }

    fn set_tls(&self, tls: Option<Arc<ClientTls>>) {
        self.security.set(tls.as_ref().map_or(Security::Plain, |tls| Security::Tls(tls.generation)));
        self.tls.replace(tls);
    }

    /// Whether a connection secured so may carry further requests: the endpoint still wants connections, and wants them secured so.
    /// One that may not finishes what it carries and is closed.
    #[inline]
    pub(crate) fn takes(&self, security: Security) -> bool {
        !self.retired.get() && self.security.get() == security
    }

    /// Closes what is idle and keeps nothing from now on.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.idle.take();
        self.h2.retire();
        self.rpc.retire();
    }

    pub(crate) fn note_connected(&self) {
        self.avoid_until.set(None);
    }

    pub(crate) fn note_connect_failure(&self) {
        self.avoid_until.set(Some(Instant::now() + AVOID_AFTER_CONNECT_FAILURE));
    }

    fn is_avoided(&self) -> bool {
        self.health.is_unhealthy() || self.avoid_until.get().is_some_and(|until| Instant::now() < until)
    }
}

impl ClusterState {
    /// An endpoint by the cluster's policy, rather not one that was `tried` or could not be connected to just now.
    pub(crate) fn choose(&self, by: Choice, tried: &[SocketAddr]) -> Option<Rc<EndpointState>> {
        if self.compiled.config.original_destination {
            return Some(self.originals.at(&self.compiled.name, by.destination?));
        }
        let hash = by.hash;
        let groups = &self.compiled.groups;
        let usable = |endpoint: &&Rc<EndpointState>| !endpoint.is_avoided() && !tried.contains(&endpoint.address);
        let found = groups.iter().find_map(|group| {
            let chosen = (0..CHOICES).map(|nth| self.one(group, hash, nth)).find(usable);
            chosen.or_else(|| group.members.iter().map(|&member| &self.endpoints[member as usize]).find(usable))
        });
        found.or_else(|| Some(self.one(groups.first()?, hash, 0))).cloned()
    }

    /// Whether there is any endpoint.
    pub(crate) fn has_endpoint(&self, by: Choice) -> bool {
        !self.endpoints.is_empty() || (self.compiled.config.original_destination && by.destination.is_some())
    }

    /// It has no endpoint, but will have one in a moment.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        self.endpoints.is_empty() && self.compiled.config.returning
    }

    fn one(&self, group: &Group, hash: Option<u64>, nth: usize) -> &Rc<EndpointState> {
        let member = match self.compiled.config.balance {
            Balance::RoundRobin => group.in_turn(self.next_turn()),
            Balance::Random => group.at_random(),
            Balance::LeastRequest => return self.less_loaded(group),
            Balance::RingHash if nth > 0 => group.at_random(),
            Balance::RingHash => group.by_hash(hash.unwrap_or_else(|| fastrand::u64(..))),
        };
        &self.endpoints[member as usize]
    }

    /// The power of two choices (Mitzenmacher, 2001).
    fn less_loaded(&self, group: &Group) -> &Rc<EndpointState> {
        let endpoint = |member: u32| &self.endpoints[member as usize];
        let (first, second) = (endpoint(group.at_random()), endpoint(group.at_random()));
        if second.stats.active.get() < first.stats.active.get() { second } else { first }
    }

    fn next_turn(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }
}

/// The clusters of a snapshot. What a worker had before goes on: pools, counters, turns. Endpoints that are gone retire.
pub(crate) fn build_clusters(
    snapshot: &Snapshot,
    before: &[Rc<ClusterState>],
    shared: &Shared,
) -> Vec<Rc<ClusterState>> {
    let before: HashMap<&str, &Rc<ClusterState>> = before.iter().map(|state| (&*state.compiled.name, state)).collect();
    let build =
        |compiled: &Arc<CompiledCluster>| Rc::new(carry_over(compiled, before.get(&*compiled.name).copied(), shared));
    let clusters: Vec<_> = snapshot.clusters.iter().map(build).collect();
    retire_missing(before.into_values(), &clusters);
    let endpoints = clusters.iter().flat_map(|cluster| &cluster.endpoints).map(|endpoint| endpoint.stats.clone());
    shared.stats.set_upstreams(clusters.iter().map(|cluster| cluster.stats.clone()).collect(), endpoints.collect());
    clusters
}

fn carry_over(compiled: &Arc<CompiledCluster>, before: Option<&Rc<ClusterState>>, shared: &Shared) -> ClusterState {
    // A changed protocol makes pooled connections useless, so nothing but the counters is kept then.
    let same = before.filter(|before| before.compiled.config.protocol == compiled.config.protocol);
    let known: HashMap<SocketAddr, &Rc<EndpointState>> =
        same.iter().flat_map(|before| &before.endpoints).map(|endpoint| (endpoint.address, endpoint)).collect();
    let endpoint = |config: &Endpoint| {
        let endpoint = match known.get(&config.address) {
            Some(endpoint) => (*endpoint).clone(),
            None => Rc::new(EndpointState::new(&compiled.name, config.address)),
        };
        if compiled.config.health_check.is_none() {
            endpoint.health.forget();
        }
        endpoint.set_tls(compiled.tls.clone().filter(|_| config.tls));
        endpoint
    };
    let stats = before.map(|before| before.stats.clone());
    ClusterState {
        endpoints: compiled.config.endpoints.iter().map(endpoint).collect(),
        stats: stats.unwrap_or_else(|| Arc::new(ClusterStats::new(compiled.name.clone()))),
        freed: before.map(|before| before.freed.clone()).unwrap_or_default(),
        shared: shared.clone(),
        originals: same.map(|before| before.originals.clone()).unwrap_or_default(),
        // Workers and proxies start at different places, or all would begin with the same endpoint.
        turn: Cell::new(before.map_or_else(|| fastrand::usize(..1 << 16), |before| before.turn.get())),
        compiled: compiled.clone(),
    }
}

fn retire_missing<'a>(before: impl Iterator<Item = &'a Rc<ClusterState>>, now: &[Rc<ClusterState>]) {
    let before: Vec<_> = before.collect();
    let kept_originals = |cluster: &ClusterState| now.iter().any(|now| Rc::ptr_eq(&now.originals, &cluster.originals));
    let all_originals = before.iter().filter(|cluster| cluster.compiled.config.original_destination);
    all_originals.filter(|cluster| !kept_originals(cluster)).for_each(|cluster| cluster.originals.retire());
    let kept: std::collections::HashSet<*const EndpointState> =
        now.iter().flat_map(|cluster| &cluster.endpoints).map(Rc::as_ptr).collect();
    let gone =
        before.iter().flat_map(|cluster| &cluster.endpoints).filter(|endpoint| !kept.contains(&Rc::as_ptr(endpoint)));
    gone.for_each(|endpoint| endpoint.retire());
}
