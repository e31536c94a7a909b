//! A request between its caller and its answer.

use std::rc::Rc;

use tokio::time::Instant;
use weir_codec::rpc::{Edit, Failure};
use weir_config::HeaderEdits;

use super::caller::{Active, Caller};
use super::frame::{Frame, Head};
use super::outbox::Place;
use crate::phases::{Answer, Destination};
use crate::snapshot::{Fields, ForwardAction, RouteEntry};
use crate::stats::Refusal;
use crate::upstream::{Attempts, ClusterState, EndpointState, InFlight};
use crate::worker::Ticket;

/// A request that was sent on, or is about to be. Whoever holds it answers it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) active: Active,
    /// The head that the caller sent: how to answer.
    pub(super) asked: Head,
    pub(super) one_way: bool,
    pub(super) ticket: Ticket,
    pub(super) to: Destination,
    /// The destination's cluster as it was when an endpoint came back to it, if that was waited for.
    pub(super) returned: Option<Rc<ClusterState>>,
    /// The answer must have come by then.
    pub(super) deadline: Option<Instant>,
    pub(super) attempts: Attempts,
    /// The attempt that is under way.
    pub(super) in_flight: Option<InFlight>,
    /// Where it stands in the stream to the upstream.
    pub(super) place: Option<Place>,
    /// The request itself, should the server be too busy for it, and its route let it go another way.
    pub(super) kept: Option<Vec<u8>>,
}

impl Call {
    pub(super) fn caller(&self) -> &Rc<Caller> {
        &self.active.caller
    }

    pub(super) fn cluster(&self) -> Rc<ClusterState> {
        let of_view = || self.ticket.listener.view.clusters[self.to.cluster].clone();
        self.returned.clone().unwrap_or_else(of_view)
    }

    pub(super) fn route(&self) -> Option<(&RouteEntry, &ForwardAction)> {
        crate::http1::forward_action(&self.ticket.listener, self.to)
    }

    /// An attempt at this endpoint begins.
    pub(super) fn begin(&mut self, endpoint: &Rc<EndpointState>) {
        self.ticket.set_endpoint(endpoint.address);
        self.in_flight = Some(InFlight::new(endpoint));
    }

    /// The attempt that is under way has ended.
    pub(super) fn end_attempt(&mut self, error: bool) {
        self.place = None;
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.finish(error);
        }
    }

    /// Passes the upstream's answer to the caller.
    pub(super) fn answer(mut self, mut frame: Frame) {
        let status = frame.http_status();
        self.ticket.set_rpc_status(status, frame.status());
        self.end_attempt(status >= 500);
        frame.set_id_of(&self.asked);
        let edits = self.route().map(|(route, _)| &route.response_edits).filter(|edits| !edits.is_empty());
        if let Some(edits) = edits.cloned() {
            edit(&mut frame, &edits, None);
        }
        self.caller().send(frame);
    }

    /// A one-way request has been sent.
    pub(super) fn sent(mut self) {
        self.ticket.set_status(200);
        self.end_attempt(false);
    }

    /// No upstream has answered: the proxy does.
    pub(super) fn fail(mut self, refusal: Refusal, failure: Failure, message: &'static str) {
        // A limit of the proxy's own is no error of the endpoint.
        self.end_attempt(matches!(refusal, Refusal::RouteTimeout | Refusal::UpstreamReset | Refusal::Connect));
        let answer = Answer::refuse(refusal, http_status(failure), message);
        refuse(self.caller(), &self.ticket, &self.asked, self.one_way, &answer, failure);
    }
}

/// Answers a request that is not sent on, unless it is one-way.
pub(super) fn refuse(caller: &Caller, ticket: &Ticket, asked: &Head, one_way: bool, answer: &Answer, failure: Failure) {
    ticket.answered(answer);
    ticket.set_rpc_status(answer.status, asked.status_of(failure));
    if !one_way {
        caller.send(asked.failure(failure, answer.body.trim_end()));
    }
}

/// How an answer that the phases gave is told in these protocols.
pub(super) fn failure_of(answer: &Answer) -> Failure {
    match (answer.refusal, answer.status) {
        (Some(Refusal::Requests | Refusal::ClusterRequests | Refusal::Pending), _) | (None, 429 | 503) => {
            Failure::Overloaded
        }
        (Some(Refusal::NoRoute), _) | (None, 404) => Failure::NoService,
        (Some(Refusal::NoEndpoint | Refusal::Connect), _) | (None, 502) => Failure::Unavailable,
        (_, 504) => Failure::Timeout,
        (_, 401 | 403) => Failure::Denied,
        (_, 400) => Failure::BadRequest,
        _ => Failure::Internal,
    }
}

fn http_status(failure: Failure) -> u16 {
    match failure {
        Failure::Overloaded | Failure::Unavailable => 503,
        Failure::Timeout => 504,
        Failure::ConnectionLost => 502,
        Failure::NoService => 404,
        Failure::BadRequest => 400,
        Failure::Denied => 403,
        Failure::Internal => 500,
    }
}

/// Edits a frame as a route says. A further value of a key is joined to the one that is there, since a map has no two.
pub(super) fn edit(frame: &mut Frame, edits: &HeaderEdits, trace: Option<&str>) {
    let joined = joined(frame, edits);
    let removed = edits.remove.iter().map(|key| Edit::Remove(key));
    let set = edits.set.iter().map(|(key, value)| Edit::Set(key, value));
    let added = edits.add.iter().zip(&joined).map(|((key, _), value)| Edit::Set(key, value));
    let traced = trace.map(|trace| Edit::Set("traceparent", trace));
    let all: Vec<Edit<'_>> = removed.chain(set).chain(added).chain(traced).collect();
    frame.edit(&all);
}

/// The values to be there for what is added. The frame is only read again where there is something to add.
fn joined(frame: &Frame, edits: &HeaderEdits) -> Vec<String> {
    if edits.add.is_empty() {
        return Vec::new();
    }
    let labels = frame.called().labels;
    edits.add.iter().map(|(key, value)| join(&labels, key, value)).collect()
}

fn join(labels: &impl Fields, key: &str, value: &str) -> String {
    match labels.get(key) {
        Some(before) => format!("{},{value}", String::from_utf8_lossy(&before)),
        None => value.to_owned(),
    }
}
