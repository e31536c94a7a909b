//! The ADS streams, server side: moves requests and responses between the wire and a [`Session`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node as WireNode;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};
use weir_model::InstanceSpec;
use weir_model::token::Joiner;
use weir_store::observed::ProxyView;
use weir_store::typed;

use crate::Inner;
use crate::board::Taken;
use crate::hub::Listening;
use crate::names;
use crate::node::Node;
use crate::peer::Peer;
use crate::resource::Type;
use crate::secrets::Secrets;
use crate::session::{DeltaRequest, Mode, Output, Progress, Refused, Response as Answer, Session, SotwRequest};

/// A returning client has said all it has when it is quiet for so long.
const QUIET: Duration = Duration::from_millis(20);
/// Responses waiting for the client to read them.
const QUEUE: usize = 16;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Implements the aggregated discovery service, state-of-the-world and delta.
pub struct AdsService {
    inner: Arc<Inner>,
}

/// What the two variants of the protocol do differently on the wire.
trait Variant: Send + Sync + Sized + 'static {
    type Response: Send + 'static;
    const MODE: Mode;

    fn node(&self) -> Option<&WireNode>;
    fn type_url(&self) -> &str;
    /// The client was here before, or with an earlier process of this server.
    fn returns(&self) -> bool;
    fn hand_to(self, session: &mut Session, r#type: Type) -> Result<(), Refused>;
    fn response(answer: Answer) -> Self::Response;
}

impl Variant for DiscoveryRequest {
    type Response = DiscoveryResponse;
    const MODE: Mode = Mode::Sotw;

    fn node(&self) -> Option<&WireNode> {
        self.node.as_ref()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn returns(&self) -> bool {
        !self.version_info.is_empty()
    }

    fn hand_to(self, session: &mut Session, r#type: Type) -> Result<(), Refused> {
        let request = SotwRequest {
            names: self.resource_names,
            version: self.version_info,
            nonce: self.response_nonce,
            error: self.error_detail.map(rejection),
        };
        session.sotw(r#type, request)
    }

    fn response(answer: Answer) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: answer.version.to_string(),
            resources: answer.resources.iter().map(|r| r.any(answer.r#type)).collect(),
            type_url: answer.r#type.url().to_owned(),
            nonce: answer.nonce,
            ..Default::default()
        }
    }
}

impl Variant for DeltaDiscoveryRequest {
    type Response = DeltaDiscoveryResponse;
    const MODE: Mode = Mode::Delta;

    fn node(&self) -> Option<&WireNode> {
        self.node.as_ref()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn returns(&self) -> bool {
        !self.initial_resource_versions.is_empty()
    }

    fn hand_to(self, session: &mut Session, r#type: Type) -> Result<(), Refused> {
        let request = DeltaRequest {
            subscribe: self.resource_names_subscribe,
            unsubscribe: self.resource_names_unsubscribe,
            initial: self.initial_resource_versions.into_iter().collect(),
            nonce: self.response_nonce,
            error: self.error_detail.map(rejection),
        };
        session.delta(r#type, request)
    }

    fn response(answer: Answer) -> DeltaDiscoveryResponse {
        let resource = |r: &Arc<crate::resource::Resource>| discovery::Resource {
            name: r.name.to_string(),
            version: r.version.to_string(),
            resource: Some(r.any(answer.r#type)),
            ..Default::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: answer.version.to_string(),
            resources: answer.resources.iter().map(resource).collect(),
            type_url: answer.r#type.url().to_owned(),
            removed_resources: answer.removed.iter().map(|name| name.to_string()).collect(),
            nonce: answer.nonce,
            ..Default::default()
        }
    }
}

fn rejection(status: RpcStatus) -> String {
    if status.message.is_empty() { format!("code {}", status.code) } else { status.message }
}

impl AdsService {
    pub(crate) fn new(inner: Arc<Inner>) -> AdsService {
        AdsService { inner }
    }

    async fn open<V: Variant>(
        &self,
        request: Request<Streaming<V>>,
    ) -> Result<Response<Responses<V::Response>>, Status> {
        let token = bearer(request.metadata());
        // A key is not sent where others may read along.
        let private = Peer::of(&request).is_private();
        let joiner = (self.inner.authenticate)(token.clone()).await?;
        let slot = Slot::take(&self.inner)?;
        let (responses, queue) = mpsc::channel(QUEUE);
        let visitor = Visitor { joiner: joiner.clone(), private };
        let serve = serve(Arc::clone(&self.inner), visitor, request.into_inner(), responses.clone());
        let revoked = until_revoked(Arc::clone(&self.inner), token, joiner);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = serve => ended,
                status = revoked => Err(status),
            };
            if let Err(status) = ended {
                // The client may be gone already; then there is nobody to tell.
                let _ = responses.try_send(Err(status));
            }
            drop(slot);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for AdsService {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open(request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open(request).await
    }
}

/// Who has come, and how.
struct Visitor {
    joiner: Joiner,
    /// Nobody reads along.
    private: bool,
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
        let full = || Status::resource_exhausted(format!("{open} xDS streams are open, at most {limit} are allowed"));
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

/// Serves one stream until the client ends it or the server shuts down.
async fn serve<V: Variant>(
    inner: Arc<Inner>,
    visitor: Visitor,
    mut requests: Streaming<V>,
    responses: mpsc::Sender<Result<V::Response, Status>>,
) -> Result<(), Status> {
    let (mut down, mut ready) = (inner.down.subscribe(), inner.ready.subscribe());
    let Some(first) = requests.message().await? else { return Ok(()) };
    tokio::select! {
        _ = down.wait_for(|down| *down) => return Err(Status::unavailable("the control plane is shutting down")),
        ready = ready.wait_for(|ready| *ready) => drop(ready.map_err(|_| Status::unavailable("shutting down"))?),
    }
    let mut stream = Live::<V>::open(inner, &visitor, &first, responses).await?;
    let returns = first.returns();
    stream.take(first)?;
    // One that comes back says at once all that it has; only the whole tells what to send first.
    while returns && let Ok(request) = timeout(QUIET, requests.message()).await {
        let Some(request) = request? else { return Ok(()) };
        stream.take(request)?;
    }
    loop {
        stream.advance().await?;
        let wake = stream.session.wake_at(Instant::now());
        tokio::select! {
            request = requests.message() => match request? {
                Some(request) => stream.take(request)?,
                None => return Ok(()),
            },
            () = stream.listening.changed() => {}
            () = stream.secrets.changed() => {}
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            _ = down.wait_for(|down| *down) => return Err(Status::unavailable("the control plane is shutting down")),
        }
    }
}

/// A stream with its registrations; they end with it.
struct Live<V: Variant> {
    inner: Arc<Inner>,
    id: u64,
    session: Session,
    listening: Listening,
    /// What the stream is interested in may have changed.
    reconsider: bool,
    secrets: Secrets,
    taken: Taken,
    /// What the client said when it last refused something.
    rejected: Option<Arc<str>>,
    responses: mpsc::Sender<Result<V::Response, Status>>,
}

impl<V: Variant> Live<V> {
    async fn open(
        inner: Arc<Inner>,
        visitor: &Visitor,
        first: &V,
        responses: mpsc::Sender<Result<V::Response, Status>>,
    ) -> Result<Live<V>, Status> {
        let (mut node, allowed) = identify(&inner, first.node()).await?;
        visitor.joiner.may_be(&node.app).map_err(Status::permission_denied)?;
        node.tls &= visitor.private && allowed && inner.options.authority.is_some() && node.has_identity();
        let id = inner.next_stream.fetch_add(1, Ordering::Relaxed);
        inner.board.join(id, &node.id, node.sidecar.is_some(), node.tls, Instant::now());
        inner.observed.proxies.put(id, view(&inner, &node, V::MODE));
        let listening = inner.hub.listen(id, &node.id);
        let options = &inner.options;
        let secrets = Secrets::new(options.authority.clone().filter(|_| node.tls), Arc::clone(&inner.clock));
        let world = inner.hub.world().seen_by(&node.id);
        let session = Session::new(node, V::MODE, world, options.ack_patience, options.max_names);
        Ok(Live {
            inner,
            id,
            session,
            listening,
            reconsider: true,
            secrets,
            taken: Taken::default(),
            rejected: None,
            responses,
        })
    }

    fn take(&mut self, request: V) -> Result<(), Status> {
        // A type this server does not have is left unanswered, as the protocol asks for.
        if let Some(r#type) = Type::from_url(request.type_url()) {
            request.hand_to(&mut self.session, r#type).map_err(|e| Status::resource_exhausted(e.to_string()))?;
            self.reconsider = true;
        }
        Ok(())
    }

    /// Looks at the newest world and sends what is due.
    async fn advance(&mut self) -> Result<(), Status> {
        for secret in self.secrets.due(self.session.node()) {
            self.session.put_secret(secret);
        }
        let (world, changes) = self.listening.look();
        self.reconsider |= changes.values().any(|c| c.config);
        self.session.see(world, &changes);
        if std::mem::take(&mut self.reconsider) {
            self.listening.set_interests(self.session.interests());
            // Whatever changed before the new interests were known is in the world taken after.
            let (world, changes) = self.listening.look();
            self.reconsider = changes.values().any(|c| c.config);
            self.session.see(world, &changes);
            self.inner.board.calls(self.id, self.session.calls());
        }
        let output = self.session.poll(Instant::now());
        self.note_rejection(&output);
        self.note_taken();
        self.publish(output).await
    }

    fn note_rejection(&mut self, output: &Output) {
        for (r#type, progress) in &output.progress {
            if let Progress::Rejected(_, error) = progress {
                self.rejected = Some(format!("{type}: {error}").into());
            }
        }
    }

    fn note_taken(&mut self) {
        let taken = Taken {
            clusters: self.session.taken(Type::Cluster),
            listeners: self.session.taken(Type::Listener),
            routes: self.session.routes_taken(),
            asks_routes: self.session.has_asked(Type::Route),
            rejected: self.rejected.clone().filter(|_| self.session.is_rejecting()),
            roots: self.session.accepted_secret(names::ROOTS),
        };
        if taken != self.taken {
            self.taken = taken.clone();
            self.inner.board.take(self.id, taken);
        }
    }

    async fn publish(&self, output: Output) -> Result<(), Status> {
        self.inner.board.acknowledge(self.id, output.acknowledged);
        for (r#type, progress) in output.progress {
            self.note(r#type, progress);
        }
        for answer in output.responses {
            let gone = |_| Status::cancelled("the client is gone");
            self.responses.send(Ok(V::response(answer))).await.map_err(gone)?;
        }
        Ok(())
    }

    fn note(&self, r#type: Type, progress: Progress) {
        if let Progress::Rejected(version, error) = &progress {
            tracing::warn!(node = self.session.node().id, %r#type, %version, %error, "a proxy rejected its configuration");
        }
        self.inner.observed.proxies.update(self.id, r#type.short(), |state| match progress {
            Progress::Sent(version, resources) => {
                state.sent = version.to_string();
                state.resources = resources;
            }
            Progress::Acknowledged(version) => state.acknowledged = version.to_string(),
            Progress::Rejected(version, error) => {
                state.rejected = version.to_string();
                state.error = error;
            }
        });
    }
}

impl<V: Variant> Drop for Live<V> {
    fn drop(&mut self) {
        self.inner.observed.proxies.remove(self.id);
        self.inner.board.leave(self.id, Instant::now());
    }
}

/// Who it is; and whether it may be given that identity: not if an Instance of its name is one of another app.
async fn identify(inner: &Inner, node: Option<&WireNode>) -> Result<(Node, bool), Status> {
    let wire =
        node.ok_or_else(|| Status::invalid_argument("the first request of a stream must say which node it is"))?;
    let mut node = Node::read(wire).map_err(Status::invalid_argument)?;
    if node.id.is_empty() || (node.sidecar.is_some() && !node.tls) {
        return Ok((node, false));
    }
    let instance = typed::get::<InstanceSpec>(&*inner.store, &node.id).await;
    // A store that fails just now leaves the node what it would be without an Instance.
    let Some(instance) = instance.ok().flatten() else { return Ok((node, true)) };
    let allowed = node.sidecar.is_none() || instance.spec.app == node.app;
    if node.sidecar.is_none() {
        node.app.clone_from(&instance.spec.app);
        node.sidecar = Some(Node::sidecar_of(&instance.spec));
    }
    if !allowed {
        tracing::warn!(
            node = node.id,
            says = node.app,
            is = instance.spec.app,
            "a proxy names another app than its own"
        );
    }
    Ok((node, allowed))
}

fn view(inner: &Inner, node: &Node, mode: Mode) -> ProxyView {
    ProxyView {
        node: node.id.clone(),
        app: node.app.clone(),
        agent: node.agent.clone(),
        protocol: if mode == Mode::Sotw { "sotw" } else { "delta" }.to_owned(),
        connected_at: (inner.clock)(),
        types: Default::default(),
    }
}
