//! The control stream, server side.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};
use weir_model::instance::{InstancePhase, InstanceStatus, UNPUBLISHED};
use weir_model::meta::holds;
use weir_model::token::Joiner;
use weir_model::{Instance, InstanceSpec, Kind};
use weir_proto::control::command::Command as Kindly;
use weir_proto::control::proxy_control_server::ProxyControl;
use weir_proto::control::report::Report as Said;
use weir_proto::control::{Command, Goodbye, Health, Refused, Report, TlsState, Unpublished, Welcome};
use weir_store::observed::TypeState;
use weir_store::{WatchEvent, WatchQuery, typed};

use crate::Inner;
use crate::health;
use crate::hello::{self, Hello};
use crate::lease::{Renewal, lease_seconds};

/// Commands waiting for the proxy to read them.
const QUEUE: usize = 8;
/// Longest farewell reason kept.
const MAX_REASON: usize = 500;
/// How the table of proxies calls endpoints.
const ENDPOINTS: &str = "EDS";
/// The fault that a proxy counts a request under that it had to cut.
const CUT: &str = "cut";
/// How often the table of proxies is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Commands = mpsc::Sender<Result<Command, Status>>;
type Farewell = Pin<Box<dyn Future<Output = String> + Send>>;

/// Implements `weir.control.v1.ProxyControl`.
pub struct ControlService {
    inner: Arc<Inner>,
}

impl ControlService {
    pub(crate) fn new(inner: Arc<Inner>) -> ControlService {
        ControlService { inner }
    }
}

#[async_trait::async_trait]
impl ProxyControl for ControlService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<Command, Status>> + Send>>;

    async fn open(&self, request: Request<Streaming<Report>>) -> Result<Response<Self::OpenStream>, Status> {
        let token = bearer(request.metadata());
        let joiner = (self.inner.authenticate)(token.clone()).await?;
        let slot = Slot::take(&self.inner)?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let revoked = until_revoked(Arc::clone(&inner), token, joiner.clone());
            let ended = tokio::select! {
                ended = serve(inner, joiner, request.into_inner(), &commands) => ended,
                status = revoked => Err(status),
            };
            if let Err(status) = ended {
                // The proxy may be gone already; then there is nobody to tell.
                let _ = commands.try_send(Err(status));
            }
            drop(slot);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

/// Resolves when the token is refused though it was accepted before, or is for something else. That it can't be told just
/// now ends nothing.
async fn until_revoked(inner: Arc<Inner>, token: Option<String>, joiner: Joiner) -> Status {
    loop {
        sleep(inner.options.authenticate_every).await;
        match (inner.authenticate)(token.clone()).await {
            Err(status) if status.code() == Code::Unauthenticated => return status,
            Ok(now) if now != joiner => return Status::unauthenticated("the token is for other apps than before"),
            _ => {}
        }
    }
}

/// One of the allowed streams.
struct Slot(Arc<Inner>);

impl Slot {
    fn take(inner: &Arc<Inner>) -> Result<Slot, Status> {
        let open = inner.open_streams.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(Arc::clone(inner));
        let limit = inner.options.max_streams;
        let full =
            || Status::resource_exhausted(format!("{open} control streams are open, at most {limit} are allowed"));
        if open >= limit { Err(full()) } else { Ok(slot) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open_streams.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bearer(metadata: &MetadataMap) -> Option<String> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

/// Serves one stream from its Hello to its end.
async fn serve(
    inner: Arc<Inner>,
    joiner: Joiner,
    mut reports: Streaming<Report>,
    commands: &Commands,
) -> Result<(), Status> {
    let Some(hello) = first(&inner, &mut reports).await? else { return Ok(()) };
    let hello = match Hello::read(hello) {
        Ok(hello) => hello,
        Err(wrong) => return refuse(commands, wrong).await,
    };
    if let Err(wrong) = joiner.may_be(&hello.spec.app) {
        return refuse(commands, wrong).await;
    }
    let mut session = match Session::open(inner, hello, &joiner.actor).await {
        Ok(session) => session,
        Err(reason) => return refuse(commands, reason).await,
    };
    let lease_seconds = lease_seconds(session.inner.options.lease);
    let control_plane_version = env!("CARGO_PKG_VERSION").to_owned();
    send(commands, Kindly::Welcome(Welcome { lease_seconds, control_plane_version })).await?;
    let mut down = session.inner.down.subscribe();
    let mut farewell: Option<Farewell> = None;
    loop {
        tokio::select! {
            // A connection that breaks ends the stream as well as a farewell does.
            report = reports.message() => match report.ok().flatten().map(|r| r.report) {
                None => break,
                Some(Some(Said::Health(health))) => session.health(health).await?,
                Some(Some(Said::Goodbye(goodbye))) if farewell.is_none() => {
                    farewell = Some(session.goodbye(goodbye).await?);
                }
                Some(Some(Said::Tls(tls))) => session.tls(tls).await?,
                // A second Hello or Goodbye says nothing new; what is unknown comes from a newer proxy.
                Some(Some(Said::Hello(_) | Said::Goodbye(_)) | None) => {}
            },
            detail = wait(&mut farewell) => {
                farewell = Some(Box::pin(pending()));
                send(commands, Kindly::Unpublished(Unpublished { detail })).await?;
            }
            () = stopped(&mut down) => return Err(Status::unavailable("the control plane is shutting down")),
        }
    }
    session.end().await;
    Ok(())
}

async fn stopped(down: &mut watch::Receiver<bool>) {
    let _ = down.wait_for(|down| *down).await;
}

async fn wait(farewell: &mut Option<Farewell>) -> String {
    match farewell {
        Some(farewell) => farewell.await,
        None => pending().await,
    }
}

async fn first(inner: &Inner, reports: &mut Streaming<Report>) -> Result<Option<weir_proto::control::Hello>, Status> {
    let late = |_| Status::deadline_exceeded("no Hello came");
    let Some(report) = timeout(inner.options.hello_timeout, reports.message()).await.map_err(late)?? else {
        return Ok(None);
    };
    match report.report {
        Some(Said::Hello(hello)) => Ok(Some(hello)),
        _ => Err(Status::invalid_argument("the first message of a control stream must be a Hello")),
    }
}

async fn refuse(commands: &Commands, reason: String) -> Result<(), Status> {
    tracing::warn!(reason, "a proxy was refused");
    send(commands, Kindly::Refused(Refused { reason })).await
}

async fn send(commands: &Commands, command: Kindly) -> Result<(), Status> {
    let gone = |_| Status::cancelled("the proxy is gone");
    commands.send(Ok(Command { command: Some(command) })).await.map_err(gone)
}

/// A registered proxy with its stream.
struct Session {
    inner: Arc<Inner>,
    hello: Hello,
    actor: String,
    id: u64,
    /// It has said goodbye.
    leaving: Option<String>,
    ended: bool,
}

impl Session {
    async fn open(inner: Arc<Inner>, hello: Hello, actor: &str) -> Result<Session, String> {
        // One that contradicts what is declared must not end the lease of the one that it would speak for.
        inner.records.admit(&hello).await.map_err(|e| e.to_string())?;
        // The lease comes before the record: whoever looks at it while the store is written sees that the proxy is back.
        let (app, name, holder) = (&hello.spec.app, &hello.instance, hello.holder(actor));
        let taken = |by| format!("instance {name:?} is taken by another proxy, {by}; give this one another name");
        let id = inner.leases().open(app, name, &holder, Instant::now(), &inner.options).map_err(taken)?;
        let session = Session { inner, hello, actor: actor.to_owned(), id, leaving: None, ended: false };
        match session.register().await {
            Ok(()) => Ok(session),
            Err(reason) => Err(reason),
        }
    }

    async fn register(&self) -> Result<(), String> {
        let now = (self.inner.clock)();
        self.inner.records.register(&self.hello, &self.actor, now).await.map(drop).map_err(|e| e.to_string())
    }

    async fn health(&self, health: Health) -> Result<(), Status> {
        let (name, version) = (&self.hello.instance, &self.hello.spec.proxy_version);
        let renewal = self.inner.leases().renew(name, self.id, Instant::now());
        match renewal {
            Renewal::Renewed => {}
            Renewal::Superseded => return Err(Status::aborted("a newer stream speaks for this instance")),
            Renewal::Revived if self.leaving.is_none() => self.register().await.map_err(Status::unavailable)?,
            Renewal::Revived => {}
        }
        let now = (self.inner.clock)();
        if let Some(cut) = health.faults.get(CUT).copied().filter(|cut| *cut > 0) {
            self.inner.records.note_cut(name, &self.hello.spec.app, cut, now).await;
        }
        health::record(&self.inner.observed.telemetry, &self.inner.addresses, name, version, health, now);
        Ok(())
    }

    /// The proxy has a certificate in use. Kept with the Hello too: one that is declared again later is told with it.
    async fn tls(&mut self, state: TlsState) -> Result<(), Status> {
        let tls = hello::tls(state);
        let noted = self.inner.records.tls(&self.hello.instance, &tls, (self.inner.clock)()).await;
        self.hello.tls = Some(tls);
        noted.map_err(|e| Status::unavailable(e.to_string()))
    }

    /// Takes the instance out of the endpoints; what it returns resolves when callers know.
    async fn goodbye(&mut self, goodbye: Goodbye) -> Result<Farewell, Status> {
        let reason: String = goodbye.reason.chars().take(MAX_REASON).collect();
        let now = (self.inner.clock)();
        let left = self.inner.records.leave(&self.hello.instance, &reason, now).await;
        left.map_err(|e| Status::unavailable(e.to_string()))?;
        self.leaving = Some(reason);
        self.inner.leases().leaves(&self.hello.instance, self.id);
        let (inner, name) = (Arc::clone(&self.inner), self.hello.instance.clone());
        Ok(Box::pin(async move { until_unpublished(&inner, &name).await }))
    }

    /// The stream has ended.
    async fn end(&mut self) {
        self.ended = true;
        let name = &self.hello.instance;
        let Some(reason) = &self.leaving else {
            self.inner.leases().close(name, self.id, Instant::now());
            return;
        };
        if !self.inner.leases().remove(name, Some(self.id)) {
            return; // A newer stream speaks for it.
        }
        let still_gone = || !self.inner.leases().is_known(name);
        match self.inner.records.forget(name, &format!("left: {reason}"), still_gone).await {
            Ok(true) => self.inner.observed.telemetry.forget(name),
            Ok(false) => {}
            Err(error) => tracing::warn!(instance = name, %error, "the record of an instance that left remains"),
        }
    }
}

impl Drop for Session {
    /// Also when the stream broke or the task was aborted.
    fn drop(&mut self) {
        if !self.ended {
            self.inner.leases().close(&self.hello.instance, self.id, Instant::now());
        }
    }
}

/// Waits until no caller will send the instance another request, or patience has run out; says which, in words.
async fn until_unpublished(inner: &Inner, name: &str) -> String {
    let patience = inner.options.goodbye_patience;
    let known = async {
        match watch_until_unpublished(inner, name).await? {
            true => Ok::<_, weir_store::Error>("callers have acknowledged"),
            false => Ok(until_all_are_up_to_date(inner).await),
        }
    };
    match timeout(patience, known).await {
        Ok(Ok(how)) => how.to_owned(),
        Ok(Err(error)) => format!("the store could not say whether callers have acknowledged: {error}"),
        Err(_) => format!("not all callers have acknowledged within {} s", patience.as_secs()),
    }
}

/// Without its record nobody notes who has acknowledged that the instance is gone. But its callers have been sent
/// endpoints without it a moment later, and then each connected proxy tells whether it took all that it was sent.
async fn until_all_are_up_to_date(inner: &Inner) -> &'static str {
    sleep(inner.options.publish_time).await;
    let behind = |s: &TypeState| s.sent != s.acknowledged;
    while inner.observed.proxies.all().iter().any(|proxy| proxy.types.get(ENDPOINTS).is_some_and(behind)) {
        sleep(LOOK_EVERY).await;
    }
    "its record is gone, and connected callers have acknowledged all endpoints that they were sent"
}

/// True once callers have acknowledged; false if the record is gone, or goes, before that.
async fn watch_until_unpublished(inner: &Inner, name: &str) -> Result<bool, weir_store::Error> {
    let Some(instance) = typed::get::<InstanceSpec>(&*inner.store, name).await? else { return Ok(false) };
    if is_out(&instance.status) {
        return Ok(true);
    }
    let query = WatchQuery {
        name_prefix: name.to_owned(),
        ..WatchQuery::kind(Kind::Instance, instance.metadata.resource_version)
    };
    let mut events = inner.store.watch(&query).await?;
    while let Some(event) = events.next().await {
        let object = match event? {
            WatchEvent::Deleted(object) if object.metadata.name == name => return Ok(false),
            WatchEvent::Added(object) | WatchEvent::Modified(object) if object.metadata.name == name => object,
            _ => continue,
        };
        if is_out(&Instance::try_from(object)?.status) {
            return Ok(true);
        }
    }
    pending().await
}

/// No caller has it any more. In the phases after unpublishing that was found before they were entered.
fn is_out(status: &InstanceStatus) -> bool {
    match status.phase {
        InstancePhase::Unpublishing => status.unpublished(),
        InstancePhase::Serving => false,
        InstancePhase::Draining | InstancePhase::Swapping | InstancePhase::Terminating => {
            holds(&status.conditions, UNPUBLISHED)
        }
        InstancePhase::Pending | InstancePhase::Starting | InstancePhase::Failed => true,
    }
}
