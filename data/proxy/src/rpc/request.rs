//! A request's way from its caller to an upstream: route, filter, balance, pool.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};
use weir_codec::rpc::Failure as Told;
use weir_config::RetryOn;

use super::call::{Call, edit, failure_of, refuse};
use super::caller::{Active, Caller};
use super::frame::{Called, Frame, Protocol};
use super::pool::acquire;
use crate::phases::{Decision, Next, decide};
use crate::snapshot::{self, Fields};
use crate::stats::{Link, Refusal};
use crate::trace::TraceContext;
use crate::upstream::{AcquireError, Again, Attempts, EndpointState, Failure, with_endpoint};
use crate::worker::{Details, ListenerView, Ticket, Worker};

/// All requests are of this method where routes look at it, as in gRPC.
const METHOD: &str = "POST";

/// Serves one request; its answer comes when it comes.
pub(super) fn serve(caller: &Rc<Caller>, frame: Frame, one_way: bool) {
    let view = caller.listener.view();
    let active = Active::new(caller);
    let mut ticket = Ticket::new(&caller.worker, &view);
    let (decision, timeout, trace) = look(caller, &view, &mut ticket, &frame);
    let asked = frame.head();
    let to = match decision.next {
        Next::Answer(answer) => return refuse(caller, &ticket, &asked, one_way, &answer, failure_of(&answer)),
        Next::Forward(to) => to,
    };
    let mut call = Call {
        active,
        asked,
        one_way,
        ticket,
        to,
        returned: None,
        deadline: None,
        attempts: Attempts::default(),
        in_flight: None,
        place: None,
        kept: None,
    };
    let frame = prepare(frame, &mut call, timeout, trace);
    call.kept = keep(&call, &frame);
    send(&caller.worker, caller.protocol, frame, call);
}

/// Decides about a request, and notes what is told of it later.
fn look(
    caller: &Caller,
    view: &Rc<ListenerView>,
    ticket: &mut Ticket,
    frame: &Frame,
) -> (Decision, Option<Duration>, Option<TraceContext>) {
    let called = frame.called();
    let path = called.path();
    let request = snapshot::Request {
        family: caller.protocol.family(),
        method: METHOD,
        host: &called.service,
        path: &path,
        fields: &called.labels,
        has_certificate: Link::has_certificate(caller.link.as_ref()),
    };
    let decision = decide(&caller.worker, view, caller.ends(), &request);
    ticket.decided(&decision);
    if decision.route.is_some() {
        let (service, method) = (called.service.as_ref(), called.method.as_ref());
        ticket.set_rpc_series(view.rpc_series(&caller.worker.stats, caller.protocol, &path, service, method));
    }
    let trace = trace(caller, view, &called);
    ticket.keep_details(trace, || Details {
        peer: caller.peer.to_string(),
        identity: caller.link.as_ref().map(|link| link.identity.clone()),
        protocol: Some(caller.protocol.as_str()),
        method: called.method.to_string(),
        host: called.service.to_string(),
        path: path.clone(),
        trace: None,
    });
    (decision, called.timeout, trace)
}

fn trace(caller: &Caller, view: &ListenerView, called: &Called<'_>) -> Option<TraceContext> {
    let received = called.labels.get("traceparent");
    view.compiled.config.trace.then(|| TraceContext::next(received.as_deref(), || caller.worker.samples()))
}

/// Edits the frame, and sets the time by which the answer must be there: what the caller says, at most what the route does.
fn prepare(mut frame: Frame, call: &mut Call, timeout: Option<Duration>, trace: Option<TraceContext>) -> Frame {
    let Some((route, action)) = call.route() else { return frame };
    let timeout = [timeout, action.timeout].into_iter().flatten().min();
    let value = trace.map(|trace| trace.value());
    let value = value.as_ref().and_then(|value| std::str::from_utf8(value).ok());
    if value.is_some() || !route.request_edits.is_empty() {
        edit(&mut frame, &route.request_edits, value);
    }
    call.deadline = timeout.map(|timeout| Instant::now() + timeout);
    frame
}

/// A copy of a request that may have to go another way, unless it is large.
fn keep(call: &Call, frame: &Frame) -> Option<Vec<u8>> {
    let (_, action) = call.route()?;
    let wanted = action.retry.as_ref().is_some_and(|retry| retry.on.contains(&RetryOn::RefusedStream));
    let most = call.ticket.listener.compiled.config.limits.buffer_bytes;
    let bytes = frame.as_bytes();
    (wanted && !call.one_way && bytes.len() <= most).then(|| bytes.to_vec())
}

/// Sends a request over a connection that is there; where none is, a task of its own opens one.
fn send(worker: &Rc<Worker>, protocol: Protocol, frame: Frame, mut call: Call) {
    let cluster = call.cluster();
    if call.returned.is_none() && cluster.is_awaited() {
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            call.returned = Some(with_endpoint(&worker, cluster, call.deadline).await);
            send(&worker, protocol, frame, call);
        });
        return;
    }
    let Some(endpoint) = cluster.choose(call.to.by, &call.attempts.tried) else {
        return call.fail(Refusal::NoEndpoint, Told::Unavailable, "the upstream has no endpoint");
    };
    call.begin(&endpoint);
    match endpoint.rpc.best(&endpoint, protocol) {
        Some(link) => link.submit(worker, frame, call),
        None => {
            let worker = worker.clone();
            tokio::task::spawn_local(async move { connect_and_send(&worker, protocol, frame, call, endpoint).await });
        }
    }
}

/// A request that was surely not sent goes another way, unless it has been tried too often.
pub(super) fn send_again(worker: &Rc<Worker>, protocol: Protocol, bytes: Vec<u8>, mut call: Call) {
    let mut bytes = BytesMut::from(&bytes[..]);
    let again = after(&mut call, Failure::Unsent);
    match protocol.decode(&mut bytes, usize::MAX) {
        Ok(Some(frame)) if again == Again::Yes => {
            call.end_attempt(false);
            send(worker, protocol, frame, call);
        }
        _ => call.fail(Refusal::UpstreamReset, Told::ConnectionLost, "the upstream broke the connection"),
    }
}

/// A server was too busy to look at a request. It goes to another, if there is one that was not asked, or that answer
/// stands.
pub(super) fn after_busy(worker: &Rc<Worker>, protocol: Protocol, answer: Frame, mut call: Call) {
    let kept = call.kept.take().unwrap_or_default();
    let frame = protocol.decode(&mut BytesMut::from(&kept[..]), usize::MAX);
    let (Ok(Some(frame)), true) = (frame, has_another(&call)) else { return call.answer(answer) };
    match after(&mut call, Failure::Refused) {
        Again::Yes => {
            call.end_attempt(true);
            call.kept = Some(kept);
            send(worker, protocol, frame, call);
        }
        Again::No => call.answer(answer),
        Again::OverBudget => {
            worker.stats.refuse(Refusal::RetryBudget);
            call.answer(answer);
        }
    }
}

/// Whether there is an endpoint that was not tried.
fn has_another(call: &Call) -> bool {
    let asked = call.in_flight.as_ref().map(|in_flight| in_flight.address());
    let fresh = |address| asked != Some(address) && !call.attempts.tried.contains(&address);
    call.cluster().endpoints.iter().any(|endpoint| fresh(endpoint.address))
}

async fn connect_and_send(
    worker: &Rc<Worker>,
    protocol: Protocol,
    frame: Frame,
    mut call: Call,
    endpoint: Rc<EndpointState>,
) {
    let cluster = call.cluster();
    let acquired = acquire(worker, &cluster, &endpoint, protocol, call.asked);
    let acquired = match call.deadline {
        Some(deadline) => timeout_at(deadline, acquired).await,
        None => Ok(acquired.await),
    };
    match acquired {
        Ok(Ok(link)) => link.submit(worker, frame, call),
        Ok(Err(AcquireError::Refused(refusal))) => {
            call.fail(refusal, Told::Overloaded, "no connection to the upstream is free");
        }
        Ok(Err(AcquireError::Connect(error))) => {
            tracing::debug!(%error, "cannot connect");
            let again = after(&mut call, Failure::Connect);
            try_elsewhere(worker, protocol, frame, call, again);
        }
        Err(_) => call.fail(Refusal::RouteTimeout, Told::Timeout, "no connection to the upstream in time"),
    }
}

fn try_elsewhere(worker: &Rc<Worker>, protocol: Protocol, frame: Frame, mut call: Call, again: Again) {
    if again == Again::Yes {
        call.end_attempt(true);
        return send(worker, protocol, frame, call);
    }
    if again == Again::OverBudget {
        worker.stats.refuse(Refusal::RetryBudget);
    }
    call.fail(Refusal::Connect, Told::Unavailable, "no connection to the upstream");
}

/// Calls are not known to be idempotent: only what was surely not processed is repeated.
fn after(call: &mut Call, failure: Failure) -> Again {
    let listener = call.ticket.listener.clone();
    let retry = crate::http1::forward_action(&listener, call.to).and_then(|(_, action)| action.retry.as_ref());
    let endpoint = call.in_flight.as_ref().map(|in_flight| in_flight.address());
    let cluster = call.cluster();
    call.attempts.after(failure, false, retry, &cluster, endpoint)
}
