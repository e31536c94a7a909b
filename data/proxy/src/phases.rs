//! The phases between a request's head and its upstream, the same for every protocol: route, filter, balance.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use weir_config::{Direction, Redirect, Respond};

use crate::snapshot::{self, Action, Family, Fields, ForwardAction, Request, RouteEntry, RouteId};
use crate::stats::Refusal;
use crate::upstream::Choice;
use crate::worker::{ListenerView, Worker};

/// What becomes of a request.
#[derive(Debug)]
pub(crate) struct Decision {
    /// Place of its series among the listener's.
    pub(crate) series: usize,
    /// The route, if one matched.
    pub(crate) route: Option<RouteId>,
    pub(crate) next: Next,
}

/// Answered here, or sent on.
#[derive(Debug)]
pub(crate) enum Next {
    Answer(Answer),
    Forward(Destination),
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) route: RouteId,
    /// Place of the cluster in the snapshot.
    pub(crate) cluster: usize,
    /// What the endpoint is chosen by.
    pub(crate) by: Choice,
}

/// Where a request's connection comes from, and where it was going if it was turned round to the proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) peer: IpAddr,
    pub(crate) destination: Option<SocketAddr>,
}

/// An answer of the proxy's own.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Cow<'static, str>,
    /// Target of a redirect.
    pub(crate) location: Option<String>,
    /// Why the request was not served; absent for answers the configuration asks for.
    pub(crate) refusal: Option<Refusal>,
}

impl Answer {
    /// The request is not served, for this reason.
    pub(crate) fn refuse(refusal: Refusal, status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        Answer { status, body: body.into(), location: None, refusal: Some(refusal) }
    }

    fn respond(respond: &Respond) -> Self {
        Answer { status: respond.status, body: respond.body.clone().into(), location: None, refusal: None }
    }

    fn redirect<F>(redirect: &Redirect, request: &Request<'_, F>) -> Self {
        let scheme = redirect.scheme.as_deref().unwrap_or("http");
        let host = redirect.host.as_deref().unwrap_or(request.host);
        let path = redirect.path.as_deref().unwrap_or(request.path);
        let location = Some(format!("{scheme}://{host}{path}"));
        Answer { status: redirect.status, body: Cow::Borrowed(""), location, refusal: None }
    }
}

/// Route, filter, balance: everything that is decided from the head alone.
pub(crate) fn decide<F: Fields>(
    worker: &Worker,
    listener: &ListenerView,
    ends: Ends,
    request: &Request<'_, F>,
) -> Decision {
    if let Some(answer) = over_limit(worker, listener) {
        return Decision { series: 0, route: None, next: Next::Answer(answer) };
    }
    let Some((id, route)) = find_route(listener, request) else {
        let answer = Answer::refuse(Refusal::NoRoute, 404, "no route matches\n");
        return Decision { series: 0, route: None, next: Next::Answer(answer) };
    };
    let (place, next) = act(worker, listener, ends, request, id, route);
    Decision { series: route.series + place, route: Some(id), next }
}

fn over_limit(worker: &Worker, listener: &ListenerView) -> Option<Answer> {
    let limit = listener.compiled.config.limits.max_requests as u64;
    let over = worker.stats.active_requests.get() > limit;
    over.then(|| Answer::refuse(Refusal::Requests, 503, "too many requests in flight\n"))
}

fn find_route<'a, F: Fields>(
    listener: &'a ListenerView,
    request: &Request<'_, F>,
) -> Option<(RouteId, &'a RouteEntry)> {
    let router = &listener.view.snapshot.routers[listener.compiled.router?];
    let id = router.find(request)?;
    Some((id, router.route(id)))
}

fn act<F: Fields>(
    worker: &Worker,
    listener: &ListenerView,
    ends: Ends,
    request: &Request<'_, F>,
    id: RouteId,
    route: &RouteEntry,
) -> (usize, Next) {
    match &route.action {
        Action::Respond(respond) => (0, Next::Answer(Answer::respond(respond))),
        Action::Redirect(redirect) => (0, Next::Answer(Answer::redirect(redirect, request))),
        Action::Forward(forward) => {
            let (place, cluster) = forward.choose();
            let by = Choice { hash: hash(forward, ends.peer, request), destination: ends.destination };
            let refused = filter(worker, listener)
                .or_else(|| other_protocol(listener, cluster, request.family))
                .or_else(|| cluster_over_limit(listener, cluster, by));
            let destination = || Destination { route: id, cluster, by };
            (place, refused.map_or_else(|| Next::Forward(destination()), Next::Answer))
        }
    }
}

/// Filters that may answer in place of the upstream. So far there is one: the drill.
fn filter(worker: &Worker, listener: &ListenerView) -> Option<Answer> {
    let drill = worker.drill.filter(|_| listener.compiled.config.direction == Direction::Inbound)?;
    let fails = fastrand::f64() < drill.fail_ratio;
    fails.then(|| Answer::refuse(Refusal::Drill, 500, "failed on purpose: this proxy runs with --drill\n"))
}

fn other_protocol(listener: &ListenerView, cluster: usize, family: Family) -> Option<Answer> {
    let reached = family.reaches(listener.view.clusters[cluster].compiled.config.protocol);
    (!reached).then(|| Answer::refuse(Refusal::Unsupported, 502, "the upstream speaks another protocol\n"))
}

/// Why nothing more may go to a cluster, if so.
pub(crate) fn cluster_over_limit(listener: &ListenerView, cluster: usize, by: Choice) -> Option<Answer> {
    let cluster = &listener.view.clusters[cluster];
    if cluster.stats.requests.get() >= cluster.compiled.config.limits.max_requests as u64 {
        return Some(Answer::refuse(Refusal::ClusterRequests, 503, "too many requests in flight to the upstream\n"));
    }
    let empty = !cluster.has_endpoint(by) && !cluster.is_awaited();
    empty.then(|| Answer::refuse(Refusal::NoEndpoint, 503, "the upstream has no endpoint\n"))
}

fn hash<F: Fields>(forward: &ForwardAction, peer: IpAddr, request: &Request<'_, F>) -> Option<u64> {
    forward.hash_on.iter().find_map(|key| match key {
        weir_config::HashKey::SourceIp => Some(snapshot::hash(peer.to_string().as_bytes())),
        key => request.hash_value(key).map(|value| snapshot::hash(&value)),
    })
}
