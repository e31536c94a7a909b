//! A request while it is served: what is counted, logged and traced when it ends.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Worker;
use super::view::{Labels, ListenerView};
use crate::access_log::Line;
use crate::phases::{Answer, Decision, Next};
use crate::snapshot::{Passage, RouteId};
use crate::stats::{Fault, Refusal, RpcKey, Series, Span};
use crate::trace::TraceContext;

/// Counts a request as active until it is dropped. One that is dropped because it is cut, or its task panics, has failed
/// whatever its caller has been told.
#[derive(Debug)]
pub(crate) struct Ticket {
    worker: Rc<Worker>,
    pub(crate) listener: Rc<ListenerView>,
    started: Instant,
    series: usize,
    route: Option<RouteId>,
    cluster: Option<usize>,
    status: Cell<u16>,
    error: Cell<bool>,
    refusal: Cell<Option<Refusal>>,
    endpoint: Cell<Option<SocketAddr>>,
    /// Status in the RPC protocol's own terms.
    rpc_status: Cell<Option<u16>>,
    rpc_series: Option<Arc<Series<RpcKey>>>,
    /// Bytes passed on as they are, from the caller and to it.
    pub(crate) bytes_up: Cell<u64>,
    pub(crate) bytes_down: Cell<u64>,
    details: Option<Box<Details>>,
}

/// Kept only for requests that are logged or traced.
#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) peer: String,
    /// Of RPC protocols and TCP only.
    pub(crate) protocol: Option<&'static str>,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) trace: Option<TraceContext>,
    /// Who the caller is, if it has shown a certificate.
    pub(crate) identity: Option<Arc<str>>,
}

impl Ticket {
    pub(crate) fn new(worker: &Rc<Worker>, listener: &Rc<ListenerView>) -> Self {
        worker.stats.active_requests.inc();
        Ticket {
            worker: worker.clone(),
            listener: listener.clone(),
            started: Instant::now(),
            series: 0,
            route: None,
            cluster: None,
            status: Cell::new(0),
            error: Cell::new(false),
            refusal: Cell::new(None),
            endpoint: Cell::new(None),
            rpc_status: Cell::new(None),
            rpc_series: None,
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            details: None,
        }
    }

    /// A ticket for a connection that is passed on as it is.
    pub(crate) fn for_bytes(worker: &Rc<Worker>, listener: &Rc<ListenerView>, passage: Option<Passage>) -> Self {
        let mut ticket = Ticket::new(worker, listener);
        if let Some(passage) = passage {
            listener.view.clusters[passage.cluster].stats.requests.inc();
            ticket.cluster = Some(passage.cluster);
            ticket.series = listener.series_of(passage);
        }
        ticket
    }

    /// Notes which way the request takes.
    pub(crate) fn decided(&mut self, decision: &Decision) {
        self.series = decision.series;
        self.route = decision.route;
        if let Next::Forward(destination) = &decision.next {
            self.cluster = Some(destination.cluster);
            self.listener.view.clusters[destination.cluster].stats.requests.inc();
        }
    }

    /// Keeps what the log and the trace tell, if either wants this request.
    pub(crate) fn keep_details(&mut self, trace: Option<TraceContext>, details: impl FnOnce() -> Details) {
        let traced = self.worker.spans.is_some() && trace.is_some_and(|trace| trace.is_sampled());
        if traced || self.listener.compiled.config.access_log {
            self.details = Some(Box::new(Details { trace, ..details() }));
        }
    }

    /// The status that went to the caller; 0: none yet.
    pub(crate) fn status(&self) -> u16 {
        self.status.get()
    }

    /// The status that goes to the caller.
    pub(crate) fn set_status(&self, status: u16) {
        self.status.set(status);
    }

    /// The status of an RPC: the HTTP status nearest to it, and its own.
    pub(crate) fn set_rpc_status(&self, status: u16, own: u16) {
        self.status.set(status);
        self.rpc_status.set(Some(own));
    }

    /// Where it is counted by service and method.
    pub(crate) fn set_rpc_series(&mut self, series: Arc<Series<RpcKey>>) {
        self.rpc_series = Some(series);
    }

    /// It failed, whatever its status says: broken off, or a gRPC status of the server's making.
    pub(crate) fn set_error(&self) {
        self.error.set(true);
    }

    pub(crate) fn is_error(&self) -> bool {
        self.error.get()
    }

    pub(crate) fn set_endpoint(&self, endpoint: SocketAddr) {
        self.endpoint.set(Some(endpoint));
    }

    /// The proxy answers by itself.
    pub(crate) fn answered(&self, answer: &Answer) {
        self.set_status(answer.status);
        if let Some(refusal) = answer.refusal {
            self.refused(refusal);
        }
    }

    /// It is not served.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refusal.set(Some(refusal));
        count_refusal(&self.worker, refusal);
    }

    fn finish(&self) {
        let elapsed = self.started.elapsed();
        let micros = elapsed.as_micros() as u64;
        let status = self.status.get();
        let traffic = self.worker.stats.traffic(self.listener.compiled.config.direction);
        traffic.requests.inc();
        traffic.latency.record(micros);
        if status >= 500 || self.error.get() {
            traffic.errors.inc();
        }
        self.listener.record(&self.worker.stats, self.series, self.labels(), status, micros);
        if let Some(series) = &self.rpc_series {
            series.record(status, micros);
        }
        if let Some(details) = &self.details {
            self.tell(details, elapsed);
        }
    }

    fn note_cut(&self) {
        if self.worker.is_cutting() {
            self.set_error();
            self.worker.stats.fault(Fault::Cut);
            if self.worker.stats.active_requests.get() == 0 {
                self.worker.note_none_active();
            }
        } else if std::thread::panicking() {
            self.set_error();
        }
    }

    fn labels(&self) -> Labels<'_> {
        let route = self.route.and_then(|route| self.listener.route(route));
        let cluster = self.cluster.map(|cluster| &self.listener.view.clusters[cluster].compiled.name);
        Labels { route: route.map(|route| &route.name), cluster }
    }

    fn tell(&self, details: &Details, elapsed: Duration) {
        let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.listener.compiled.config.access_log {
            self.log(details, ended, elapsed);
        }
        if let (Some(spans), Some(trace)) = (&self.worker.spans, details.trace.filter(TraceContext::is_sampled)) {
            let lost = spans.try_send(self.span(details, trace, ended, elapsed)).is_err();
            self.count_lost(lost);
        }
    }

    fn log(&self, details: &Details, ended: Duration, elapsed: Duration) {
        let labels = self.labels();
        let kept = self.worker.log.push(&Line {
            time_ms: ended.as_millis() as u64,
            listener: &self.listener.compiled.name,
            peer: &details.peer,
            identity: details.identity.as_deref().filter(|identity| !identity.is_empty()),
            protocol: details.protocol,
            method: &details.method,
            host: &details.host,
            path: &details.path,
            status: self.status.get(),
            rpc_status: self.rpc_status.get(),
            duration_us: elapsed.as_micros() as u64,
            route: labels.route.map_or("", |route| route),
            cluster: labels.cluster.map_or("", |cluster| cluster),
            endpoint: self.endpoint.get(),
            bytes_received: (details.protocol == Some(crate::tcp::PROTOCOL)).then(|| self.bytes_up.get()),
            bytes_sent: (details.protocol == Some(crate::tcp::PROTOCOL)).then(|| self.bytes_down.get()),
            refused: self.refusal.get().map(Refusal::as_str),
            trace_id: details.trace.map(|trace| trace.trace_id_text()),
        });
        self.count_lost(!kept);
    }

    fn count_lost(&self, lost: bool) {
        if lost {
            self.worker.stats.fault(Fault::TelemetryDropped);
        }
    }

    fn span(&self, details: &Details, trace: TraceContext, ended: Duration, elapsed: Duration) -> Span {
        let labels = self.labels();
        let empty: Arc<str> = Arc::default();
        Span {
            trace_id: trace.trace_id,
            span_id: trace.span_id,
            parent_id: trace.parent_id,
            name: format!("{} {}", details.method, labels.route.unwrap_or(&empty)),
            inbound: self.listener.compiled.config.direction == weir_config::Direction::Inbound,
            cluster: labels.cluster.cloned().unwrap_or_default(),
            status: self.status.get(),
            start_unix_nanos: ended.saturating_sub(elapsed).as_nanos() as u64,
            duration_nanos: elapsed.as_nanos() as u64,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.worker.stats.active_requests.dec();
        self.note_cut();
        self.finish();
        if let Some(cluster) = self.cluster {
            self.listener.view.clusters[cluster].stats.requests.dec();
        }
    }
}

/// Counts a refusal, and the fault of the proxy's own that it is, if it is one.
pub(crate) fn count_refusal(worker: &Worker, refusal: Refusal) {
    worker.stats.refuse(refusal);
    let fault = match refusal {
        Refusal::Connections
        | Refusal::Requests
        | Refusal::ClusterRequests
        | Refusal::Pending
        | Refusal::RetryBudget => Fault::Limit,
        Refusal::RouteTimeout => Fault::Timeout,
        Refusal::Connect => Fault::Connect,
        Refusal::UpstreamReset => Fault::UpstreamReset,
        Refusal::BadRequest | Refusal::UpstreamProtocol => Fault::Protocol,
        Refusal::HeadBytes
        | Refusal::HeaderCount
        | Refusal::FrameBytes
        | Refusal::Unread
        | Refusal::HeadTimeout
        | Refusal::NoRoute
        | Refusal::NoEndpoint
        | Refusal::Unsupported
        | Refusal::Drill
        | Refusal::PlaintextRefused
        | Refusal::Loop => return,
    };
    worker.stats.fault(fault);
}
