//! The stream: asks, answers, reconnects.

use std::future::Future;
use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node as NodeProto};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use envoy_types::pb::google::rpc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weir_trust::Trust;

use super::delta::Delta;
use super::engine::{ApplyError, Engine, Sink, Update, Verdict};
use super::kind::Kind;
use super::resolver::{Answer, Resolver};
use super::sotw::Sotw;
use super::world::World;
use crate::backoff::Backoff;
use crate::channel::{self, Authorized, Token};

pub(crate) type Client = AggregatedDiscoveryServiceClient<Authorized>;

/// Largest message taken from the control plane (16 MiB).
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Requests not yet written; few, since each answers a response.
const MAX_UNSENT: usize = 16;

/// Secrets which a proxy that can do TLS asks for: its certificate, and whom it trusts.
const SECRETS: [&str; 2] = ["weir:workload", "weir:roots"];

/// How the control plane is reached and as whom.
#[derive(Debug, Clone)]
pub struct XdsOptions {
    /// `http://HOST:PORT`.
    pub address: String,
    /// Sent with every stream.
    pub token: Token,
    /// By whom an address that is `https` is known.
    pub trust: Option<Trust>,
    /// Who asks.
    pub node: Node,
    /// State of the world instead of delta.
    pub is_sotw: bool,
}

/// Identity towards the control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Name of the instance.
    pub instance: String,
    /// The app it belongs to.
    pub app: String,
    /// Deployment unit; the region of xDS.
    pub unit: String,
    /// Zone.
    pub zone: String,
    /// Where callers reach it, if it has an inbound side.
    pub inbound: Option<std::net::SocketAddr>,
    /// Where the application listens, if there is one.
    pub application: Option<std::net::SocketAddr>,
    /// Apps it calls, and the local address at which each is offered.
    pub upstreams: Vec<(String, std::net::SocketAddr)>,
    /// Where connections from other hosts are turned round to, if they are.
    pub intercept_inbound: Option<std::net::SocketAddr>,
    /// Where connections to other hosts are turned round to, if they are.
    pub intercept_outbound: Option<std::net::SocketAddr>,
    /// Version of the proxy.
    pub version: String,
    /// It can be switched to TLS.
    pub tls: bool,
}

impl Node {
    fn to_proto(&self) -> NodeProto {
        let metadata = Struct { fields: [("weir".to_owned(), self.metadata())].into() };
        NodeProto {
            id: self.instance.clone(),
            cluster: self.app.clone(),
            metadata: Some(metadata),
            locality: Some(Locality { region: self.unit.clone(), zone: self.zone.clone(), sub_zone: String::new() }),
            user_agent_name: "weir-proxy".into(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(self.version.clone())),
            ..Default::default()
        }
    }

    fn metadata(&self) -> Value {
        let mut fields = vec![
            ("app", text(&self.app)),
            ("unit", text(&self.unit)),
            (
                "upstreams",
                list(
                    self.upstreams
                        .iter()
                        .map(|(app, listen)| object([("app", text(app)), ("listen", text(&listen.to_string()))])),
                ),
            ),
        ];
        if let Some(inbound) = self.inbound {
            fields.extend([("address", text(&inbound.ip().to_string())), ("port", number(inbound.port()))]);
        }
        if let Some(application) = self.application {
            fields
                .extend([("appAddress", text(&application.ip().to_string())), ("appPort", number(application.port()))]);
        }
        for (name, address) in
            [("interceptInbound", self.intercept_inbound), ("interceptOutbound", self.intercept_outbound)]
        {
            fields.extend(address.map(|address| (name, text(&address.to_string()))));
        }
        if self.tls {
            fields.push(("tls", Value { kind: Some(ValueKind::BoolValue(true)) }));
        }
        object(fields)
    }
}

fn text(text: &str) -> Value {
    Value { kind: Some(ValueKind::StringValue(text.to_owned())) }
}

fn number(number: u16) -> Value {
    Value { kind: Some(ValueKind::NumberValue(number.into())) }
}

fn list(values: impl Iterator<Item = Value>) -> Value {
    Value { kind: Some(ValueKind::ListValue(ListValue { values: values.collect() })) }
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Value { kind: Some(ValueKind::StructValue(Struct { fields })) }
}

/// How it goes, for people and for `/ready`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XdsStatus {
    /// A stream is open and has been answered.
    pub is_connected: bool,
    /// Why the last stream ended or the last attempt failed; empty if none has.
    pub last_error: String,
    /// What was last refused; empty if nothing was.
    pub last_rejection: String,
    /// What waits for something it refers to.
    pub warming: Vec<String>,
    /// Responses taken.
    pub accepted: u64,
    /// Responses refused.
    pub rejected: u64,
}

/// One of the two variants of the protocol: how to ask, read and answer. Knows nothing of what resources mean.
pub(crate) trait Variant: Send {
    type Request: Send + 'static;
    type Response: Send;

    fn new() -> Self;

    /// A new stream begins.
    fn begin(&mut self, node: NodeProto);

    fn open(
        client: &mut Client,
        requests: ReceiverStream<Self::Request>,
    ) -> impl Future<Output = Result<Streaming<Self::Response>, Status>> + Send;

    /// Requests that are due because what is wanted has changed.
    fn subscribe(&mut self, world: &World) -> Vec<Self::Request>;

    /// The update and what to answer it with; `None` for a type that was not asked for.
    fn update(&mut self, response: Self::Response) -> Option<(Update, String)>;

    /// ACK, or NACK with words.
    fn answer(&mut self, kind: Kind, receipt: String, error: Option<String>) -> Self::Request;
}

pub(crate) fn rejection(message: String) -> rpc::Status {
    rpc::Status { code: tonic::Code::InvalidArgument as i32, message, details: Vec::new() }
}

/// Follows the control plane until the sink is [stopping](ApplyError::Stopping); `status` tells how it goes.
pub async fn run<S: Sink>(options: XdsOptions, sink: S, status: watch::Sender<XdsStatus>) {
    match options.is_sotw {
        false => Session::<Delta, S>::new(options, sink, status).run().await,
        true => Session::<Sotw, S>::new(options, sink, status).run().await,
    }
}

/// Why a stream was left.
enum End {
    Lost(String),
    Stopping,
}

impl From<ApplyError> for End {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Stopping => End::Stopping,
            ApplyError::Rejected { message, .. } => End::Lost(message),
        }
    }
}

/// What wakes a session.
enum Event<R> {
    Response(Result<Option<R>, Status>),
    Resolved(Answer),
    Expired,
}

struct Session<V, S> {
    options: XdsOptions,
    variant: V,
    engine: Engine<S>,
    resolver: Resolver,
    backoff: Backoff,
    status: watch::Sender<XdsStatus>,
}

impl<V: Variant, S: Sink> Session<V, S> {
    fn new(options: XdsOptions, sink: S, status: watch::Sender<XdsStatus>) -> Self {
        let mut engine = Engine::new(sink);
        if options.node.tls {
            engine.world.always_want(SECRETS.map(str::to_owned));
        }
        Session { options, variant: V::new(), engine, resolver: Resolver::spawn(), backoff: Backoff::default(), status }
    }

    async fn run(mut self) {
        loop {
            match self.stream().await {
                Ok(never) => match never {},
                Err(End::Stopping) => return,
                Err(End::Lost(reason)) => self.lost(reason),
            }
            let pause = self.backoff.next(fastrand::f64());
            if self.wait(pause).await.is_err() {
                return;
            }
        }
    }

    fn lost(&self, reason: String) {
        tracing::warn!(control_plane = %self.options.address, %reason, "no configuration stream; serving what is there");
        self.status.send_modify(|status| {
            status.is_connected = false;
            status.last_error = reason;
        });
    }

    /// Pauses; names are still resolved meanwhile.
    async fn wait(&mut self, pause: std::time::Duration) -> Result<(), ApplyError> {
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                (name, addresses) = self.resolver.next() => self.engine.resolved(name, addresses).await?,
            }
        }
    }

    /// One stream from its opening to its end. Never returns `Ok`.
    async fn stream(&mut self) -> Result<std::convert::Infallible, End> {
        let XdsOptions { address, token, trust, .. } = &self.options;
        let channel = channel::connect(address, token, trust.as_ref()).await.map_err(End::Lost)?;
        let mut client = Client::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (requests, unsent) = mpsc::channel(MAX_UNSENT);
        self.variant.begin(self.options.node.to_proto());
        self.subscribe(&requests).await?;
        let opened = V::open(&mut client, ReceiverStream::new(unsent)).await;
        let mut responses = opened.map_err(|status| End::Lost(words(&status)))?;
        loop {
            match self.event(&mut responses).await {
                Event::Response(Ok(Some(response))) => self.response(response, &requests).await?,
                Event::Response(Ok(None)) => return Err(End::Lost("the control plane closed the stream".into())),
                Event::Response(Err(status)) => return Err(End::Lost(words(&status))),
                Event::Resolved((name, addresses)) => self.engine.resolved(name, addresses).await?,
                Event::Expired => self.engine.expire(Instant::now()).await?,
            }
            self.subscribe(&requests).await?;
        }
    }

    async fn event(&mut self, responses: &mut Streaming<V::Response>) -> Event<V::Response> {
        let deadline = self.engine.deadline.map(tokio::time::Instant::from_std);
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            response = responses.message() => Event::Response(response),
            answer = self.resolver.next() => Event::Resolved(answer),
            () = expired => Event::Expired,
        }
    }

    async fn response(&mut self, response: V::Response, requests: &mpsc::Sender<V::Request>) -> Result<(), End> {
        self.backoff.reset();
        let Some((update, receipt)) = self.variant.update(response) else {
            tracing::debug!("a response of a type that was not asked for is ignored");
            return Ok(());
        };
        let kind = update.kind;
        let error = match self.engine.take(update, Instant::now()).await {
            Verdict::Accepted => None,
            Verdict::Rejected(message) => Some(message),
            Verdict::Stopping => return Err(End::Stopping),
        };
        self.note(kind, error.as_deref());
        let answer = self.variant.answer(kind, receipt, error);
        send(requests, answer).await
    }

    fn note(&self, kind: Kind, error: Option<&str>) {
        if let Some(message) = error {
            tracing::warn!(kind = kind.noun(), %message, "a configuration is refused; the one before stays");
        }
        self.status.send_modify(|status| {
            status.is_connected = true;
            status.warming = self.engine.world.warming();
            match error {
                None => status.accepted += 1,
                Some(message) => {
                    status.rejected += 1;
                    status.last_rejection = message.to_owned();
                }
            }
        });
    }

    async fn subscribe(&mut self, requests: &mpsc::Sender<V::Request>) -> Result<(), End> {
        self.resolver.watch(self.engine.world.dns_names());
        for request in self.variant.subscribe(&self.engine.world) {
            send(requests, request).await?;
        }
        Ok(())
    }
}

async fn send<R>(requests: &mpsc::Sender<R>, request: R) -> Result<(), End> {
    requests.send(request).await.map_err(|_| End::Lost("the stream takes no more requests".into()))
}

fn words(status: &Status) -> String {
    format!("{}: {}", status.code().description(), status.message())
}
