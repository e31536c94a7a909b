//! A request to an HTTP/1 upstream: attempts until one brings a response.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::prepare::{Facts, Outgoing, forward_action};
use super::respond::{Responded, Responding};
use super::upload::{Upload, UploadError};
use super::{After, answer, caller_gone, caller_stuck, tunnel};
use crate::io::{Buf, NotWritten};
use crate::phases::Answer;
use crate::snapshot::{ForwardAction, RouteEntry};
use crate::stats::{Fault, Refusal};
use crate::upstream::{
    AcquireError, Again, Attempts, ClusterState, Deadlines, EndpointState, Failure, InFlight, Lease, Progress, acquire,
    try_idle, with_endpoint,
};
use crate::worker::{Connection, Leaving, ListenerView, Ticket};

/// When the response came before the request was whole, the rest may still come for this long.
const LATE_UPLOAD: Duration = Duration::from_secs(1);

/// How an attempt ended.
enum Ended {
    /// The caller has its response.
    Responded { persists: bool },
    /// It failed, and nothing has reached the caller.
    Failed(Failure),
    /// A response that is to be retried; the budget has been taken.
    Retry,
    /// Both speak another protocol now.
    Switched(Lease, Buf),
    /// The caller's body is malformed.
    Malformed(u16),
    /// The response broke off.
    Broken,
    /// Neither side says anything any more.
    Stalled,
    /// The caller broke off.
    CallerGone,
    /// The caller does not take the response.
    CallerStuck,
}

/// Forwards a request whose head is written, and whose body begins in `buf`.
pub(super) async fn forward(
    connection: &mut Connection,
    buf: &mut Buf,
    facts: &Facts,
    ticket: &Ticket,
    outgoing: Outgoing,
) -> After {
    let listener = ticket.listener.clone();
    let Some((route, action)) = forward_action(&listener, outgoing.to) else { return After::Close };
    let Ok(upload) = Upload::new(facts.framing, buf) else {
        return malformed(connection, buf, facts, ticket, 400).await;
    };
    let deadlines = Deadlines::new(action);
    let mut cluster = listener.view.clusters[outgoing.to.cluster].clone();
    if cluster.is_awaited() {
        let idle = Duration::from_millis(listener.compiled.config.limits.idle_timeout_ms);
        let until = deadlines.connection(idle);
        cluster = Box::pin(with_endpoint(&connection.worker, cluster, Some(until))).await;
    }
    let mut exchange = Exchange {
        connection,
        buf,
        facts,
        ticket,
        listener: &listener,
        route,
        action,
        cluster: &cluster,
        upload,
        outgoing,
        deadlines,
    };
    let after = exchange.run().await;
    let head = std::mem::take(&mut exchange.outgoing.head);
    connection.worker.buffers.put_vec(head);
    after
}

struct Exchange<'a> {
    connection: &'a mut Connection,
    buf: &'a mut Buf,
    facts: &'a Facts,
    ticket: &'a Ticket,
    listener: &'a ListenerView,
    route: &'a RouteEntry,
    action: &'a ForwardAction,
    cluster: &'a Rc<ClusterState>,
    upload: Upload,
    outgoing: Outgoing,
    deadlines: Deadlines,
}

impl Exchange<'_> {
    async fn run(&mut self) -> After {
        let mut attempts = Attempts::default();
        loop {
            let Some(endpoint) = self.cluster.choose(self.outgoing.to.by, &attempts.tried) else {
                return self.answer(Refusal::NoEndpoint, 503, "the upstream has no endpoint\n").await;
            };
            let failure = match self.acquire(&endpoint).await {
                Err(AcquireError::Refused(refusal)) => {
                    return self.answer(refusal, 503, "no connection to the upstream is free\n").await;
                }
                Err(AcquireError::Connect(_)) => Failure::Connect,
                Ok(lease) => match self.attempt(lease, &endpoint, &mut attempts).await {
                    Ended::Failed(failure) => failure,
                    Ended::Retry => continue,
                    ended => return self.end(ended).await,
                },
            };
            match self.again(&mut attempts, failure, &endpoint) {
                Again::Yes => {}
                Again::No => return self.fail(failure, &endpoint).await,
                Again::OverBudget => {
                    self.connection.worker.stats.refuse(Refusal::RetryBudget);
                    return self.fail(failure, &endpoint).await;
                }
            }
        }
    }

    async fn acquire(&mut self, endpoint: &Rc<EndpointState>) -> Result<Lease, AcquireError> {
        let acquired = match try_idle(self.cluster, endpoint) {
            Some(lease) => Ok(lease),
            None => {
                let until = self.deadlines.connection(self.idle());
                let acquire = Box::pin(acquire(self.cluster, endpoint));
                match self.connection.timer.limit(Some(until), acquire).await {
                    Ok(acquired) => acquired,
                    Err(_) => Err(AcquireError::Refused(Refusal::Pending)),
                }
            }
        };
        if let Err(AcquireError::Connect(error)) = &acquired {
            InFlight::new(endpoint).finish(true);
            tracing::debug!(endpoint = %endpoint.address, %error, "cannot connect");
        }
        acquired
    }

    fn idle(&self) -> Duration {
        Duration::from_millis(self.listener.compiled.config.limits.idle_timeout_ms)
    }

    fn again(&self, attempts: &mut Attempts, failure: Failure, endpoint: &EndpointState) -> Again {
        if !self.upload.replayable || self.deadlines.are_over() {
            return Again::No;
        }
        attempts.after(failure, self.facts.idempotent, self.action.retry.as_ref(), self.cluster, Some(endpoint.address))
    }

    /// One attempt on one connection.
    async fn attempt(&mut self, mut lease: Lease, endpoint: &Rc<EndpointState>, attempts: &mut Attempts) -> Ended {
        let in_flight = InFlight::new(endpoint);
        self.ticket.set_endpoint(endpoint.address);
        let mut received = Buf::default();
        let ended = match self.upload.is_complete() {
            true => self.exchange_whole(&mut lease, &mut received, attempts).await,
            false => self.exchange_streaming(&mut lease, &mut received).await,
        };
        in_flight.finish(self.is_endpoints_error(&ended));
        if matches!(ended, Ok(Responded::Switched)) {
            return Ended::Switched(lease, received);
        }
        self.connection.worker.buffers.discard(&mut received);
        match ended {
            Ok(Responded::Whole { upstream_persists, caller_persists }) => {
                self.upload.settle(self.buf);
                if upstream_persists && self.upload.is_complete() {
                    lease.give_back();
                }
                Ended::Responded { persists: caller_persists }
            }
            Ok(Responded::Failed(failure)) => Ended::Failed(failure),
            Ok(Responded::Retry) => Ended::Retry,
            Ok(Responded::Broken) => Ended::Broken,
            Ok(Responded::Stalled) => Ended::Stalled,
            Ok(Responded::CallerStuck) => Ended::CallerStuck,
            Ok(Responded::CallerGone | Responded::Switched) => Ended::CallerGone,
            Err(status) => Ended::Malformed(status),
        }
    }

    fn is_endpoints_error(&self, ended: &Result<Responded, u16>) -> bool {
        match ended {
            Ok(Responded::Whole { .. }) => self.ticket.status() >= 500,
            Ok(Responded::Failed(failure)) => !matches!(failure, Failure::Stale | Failure::Unsent),
            Ok(Responded::Broken | Responded::Stalled | Responded::Retry) => true,
            _ => false,
        }
    }

    /// The whole request is at hand: it goes out with one call, then there is only the response.
    async fn exchange_whole(
        &mut self,
        lease: &mut Lease,
        received: &mut Buf,
        attempts: &mut Attempts,
    ) -> Result<Responded, u16> {
        let reused = lease.reused;
        let (from, mut to) = lease.stream.split();
        let body = self.upload.claimed(self.buf);
        let idle = self.idle();
        match self.connection.timer.within(idle, to.write_all_or_tell(&self.outgoing.head, body)).await {
            Ok(Ok(())) => {}
            Ok(Err(NotWritten { nothing })) => return Ok(Responded::Failed(write_failure(nothing, reused))),
            Err(_) => return Ok(Responded::Failed(Failure::Timeout)),
        }
        if body.is_empty() {
            self.connection.worker.buffers.release_if_empty(self.buf);
        }
        let now = Instant::now();
        let progress = Progress::sent(now);
        let (idempotent, cluster) = (self.facts.idempotent, self.cluster);
        let retry = self.action.retry.as_ref();
        let endpoint = lease.endpoint.address;
        let retries = |status| {
            let failure = Failure::Status(status);
            retry.is_some() && attempts.after(failure, idempotent, retry, cluster, Some(endpoint)) == Again::Yes
        };
        let Connection { worker, listener, stream, timer, security, .. } = &mut *self.connection;
        let (caller, to) = stream.split();
        let mut responding = Responding {
            worker,
            ticket: self.ticket,
            facts: self.facts,
            edits: &self.route.response_edits,
            timer,
            from,
            to,
            buf: received,
            progress: &progress,
            deadlines: &self.deadlines,
            idle,
            silence: self.listener.compiled.config.limits.silence(false),
            reused,
            upgrade: self.outgoing.upgrade,
            leaving: Leaving { worker, listener, security: *security },
            watched: Some(caller),
        };
        Ok(responding.run(retries).await)
    }

    /// The body is still coming: it is passed on while the response may come already.
    async fn exchange_streaming(&mut self, lease: &mut Lease, received: &mut Buf) -> Result<Responded, u16> {
        let progress = Progress::begun(Instant::now());
        let idle = self.idle();
        let Connection { worker, listener, stream, timer, security, .. } = &mut *self.connection;
        let (mut caller, to) = stream.split();
        let (from, mut upstream) = lease.stream.split();
        let upload = &mut self.upload;
        let mut uploading =
            Box::pin(upload.run(worker, &self.outgoing.head, self.buf, (&mut caller, &mut upstream), &progress));
        let mut responding = Responding {
            worker,
            ticket: self.ticket,
            facts: self.facts,
            edits: &self.route.response_edits,
            timer,
            from,
            to,
            buf: received,
            progress: &progress,
            deadlines: &self.deadlines,
            idle,
            silence: self.listener.compiled.config.limits.silence(false),
            reused: lease.reused,
            upgrade: false,
            leaving: Leaving { worker, listener, security: *security },
            watched: None,
        };
        let mut uploaded = None;
        let ended = {
            let mut response = pin!(responding.run(|_| false));
            poll_fn(|cx| {
                if uploaded.is_none()
                    && let Poll::Ready(result) = uploading.as_mut().poll(cx)
                {
                    progress.sent_at.set(Some(Instant::now()));
                    match result {
                        Err(UploadError::Caller) => return Poll::Ready(Ok(Responded::CallerGone)),
                        Err(UploadError::Malformed(reject)) => return Poll::Ready(Err(reject.status())),
                        // The upstream may have answered before it closed.
                        Err(UploadError::Upstream) => uploaded = Some(false),
                        Ok(()) => uploaded = Some(true),
                    }
                }
                response.as_mut().poll(cx).map(Ok)
            })
            .await?
        };
        if let Responded::Whole { upstream_persists, caller_persists } = ended {
            let late = Instant::now() + LATE_UPLOAD;
            let whole = match uploaded {
                Some(whole) => whole,
                None => matches!(responding.timer.limit(Some(late), uploading).await, Ok(Ok(()))),
            };
            let caller_persists = caller_persists && whole;
            return Ok(Responded::Whole { upstream_persists: upstream_persists && whole, caller_persists });
        }
        Ok(ended)
    }

    async fn end(&mut self, ended: Ended) -> After {
        match ended {
            Ended::Responded { persists: true } => After::KeepAlive,
            Ended::Responded { persists: false } => After::Linger,
            Ended::Switched(lease, received) => tunnel::run(self.connection, self.buf, lease, received).await,
            Ended::Malformed(status) => malformed(self.connection, self.buf, self.facts, self.ticket, status).await,
            Ended::Broken | Ended::Stalled => {
                self.ticket.set_error();
                // That both sides are silent is no fault of the proxy's.
                if matches!(ended, Ended::Broken) {
                    self.connection.worker.stats.fault(Fault::UpstreamReset);
                }
                self.connection.stream.abandon();
                After::Close
            }
            Ended::CallerStuck => caller_stuck(self.connection),
            _ => caller_gone(self.connection),
        }
    }

    /// No attempt is left.
    async fn fail(&mut self, failure: Failure, endpoint: &EndpointState) -> After {
        let (refusal, status, text) = explain(failure);
        tracing::debug!(endpoint = %endpoint.address, ?failure, "upstream failed");
        self.answer(refusal, status, text).await
    }

    async fn answer(&mut self, refusal: Refusal, status: u16, text: &'static str) -> After {
        let answer = Answer::refuse(refusal, status, text);
        // What was claimed of the body is no longer all of it.
        let facts = if self.upload.replayable { *self.facts } else { self.facts.broken() };
        answer::answer(self.connection, self.buf, &facts, self.ticket, &answer).await
    }
}

/// What a failed write means: a peer that took nothing has processed nothing.
pub(crate) fn write_failure(nothing_written: bool, reused: bool) -> Failure {
    match (nothing_written, reused) {
        (true, _) => Failure::Unsent,
        (false, true) => Failure::Stale,
        (false, false) => Failure::Reset,
    }
}

/// How a failure is told to the caller and counted.
pub(crate) fn explain(failure: Failure) -> (Refusal, u16, &'static str) {
    match failure {
        Failure::Connect => (Refusal::Connect, 503, "no connection to the upstream\n"),
        Failure::Timeout => (Refusal::RouteTimeout, 504, "the upstream did not answer in time\n"),
        Failure::Protocol => (Refusal::UpstreamProtocol, 502, "the upstream's response was malformed\n"),
        Failure::Unsent | Failure::Stale | Failure::Refused | Failure::Reset | Failure::Status(_) => {
            (Refusal::UpstreamReset, 502, "the upstream broke the connection before its response\n")
        }
    }
}

async fn malformed(connection: &mut Connection, buf: &mut Buf, facts: &Facts, ticket: &Ticket, status: u16) -> After {
    let answer = Answer::refuse(Refusal::BadRequest, status, "the request's body is malformed\n");
    answer::answer(connection, buf, &facts.broken(), ticket, &answer).await;
    After::Linger
}
