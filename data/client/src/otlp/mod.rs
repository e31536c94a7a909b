//! Spans to an OpenTelemetry collector by OTLP over gRPC.

pub(crate) mod wire;

use std::time::Duration;

use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::channel::{self, Authorized, Token};
use wire::{ExportRequest, ExportResponse, Resource, ResourceSpans, ScopeSpans, Status};

/// `TraceService.Export` of `opentelemetry/proto/collector/trace/v1/trace_service.proto`.
pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const TIMEOUT: Duration = Duration::from_secs(10);
/// `SPAN_KIND_SERVER`, `SPAN_KIND_CLIENT`, `STATUS_CODE_ERROR` of `opentelemetry/proto/trace/v1/trace.proto`.
pub(crate) const KIND_SERVER: i32 = 2;
const KIND_CLIENT: i32 = 3;
pub(crate) const STATUS_ERROR: i32 = 2;

/// One finished request of a sampled trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanRecord {
    /// W3C trace id.
    pub trace_id: [u8; 16],
    /// This span's id.
    pub span_id: [u8; 8],
    /// The caller's span, if it sent one.
    pub parent_id: Option<[u8; 8]>,
    /// What was done, in few distinct words.
    pub name: String,
    /// Kind SERVER rather than CLIENT.
    pub is_server: bool,
    /// The cluster it was sent to; empty: none.
    pub cluster: String,
    /// HTTP status.
    pub status: u16,
    /// Nanoseconds since 1970.
    pub start_unix_nanos: u64,
    /// Nanoseconds since 1970.
    pub end_unix_nanos: u64,
}

/// Whose spans they are and where they go.
#[derive(Debug, Clone)]
pub struct OtlpOptions {
    /// `http://HOST:PORT` of the collector's gRPC port.
    pub address: String,
    /// Sent with every call.
    pub token: Token,
    /// Resource attribute `service.name`.
    pub service: String,
    /// Resource attribute `service.instance.id`.
    pub instance: String,
    /// Version of the proxy, as instrumentation scope.
    pub version: String,
}

/// A client of one collector. Connects when first used, and again after a failure.
#[derive(Debug)]
pub struct Exporter {
    options: OtlpOptions,
    channel: Option<Authorized>,
}

impl Exporter {
    /// Does not connect yet.
    pub fn new(options: OtlpOptions) -> Self {
        Exporter { options, channel: None }
    }

    /// Sends one batch; gives the number of spans which the collector took.
    ///
    /// # Errors
    /// If the collector cannot be reached or refuses the batch; the words say which.
    pub async fn export(&mut self, spans: Vec<SpanRecord>) -> Result<u64, String> {
        let sent = spans.len() as u64;
        let request = self.request(spans);
        let result = tokio::time::timeout(TIMEOUT, self.call(request)).await;
        match result.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs()))) {
            Ok(response) => Ok(sent.saturating_sub(rejected(&response))),
            Err(error) => {
                self.channel = None;
                Err(error)
            }
        }
    }

    async fn call(&mut self, request: ExportRequest) -> Result<ExportResponse, String> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => channel::connect(&self.options.address, &self.options.token, None).await?,
        };
        self.channel = Some(channel.clone());
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|error| format!("{}: {}", self.options.address, channel::causes(&error)))?;
        let codec = ProstCodec::<ExportRequest, ExportResponse>::default();
        let response = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(EXPORT), codec).await;
        response.map(tonic::Response::into_inner).map_err(|status| format!("{}: {}", status.code(), status.message()))
    }

    fn request(&self, spans: Vec<SpanRecord>) -> ExportRequest {
        let scope = InstrumentationScope {
            name: "weir-proxy".into(),
            version: self.options.version.clone(),
            ..Default::default()
        };
        let attributes =
            vec![text("service.name", &self.options.service), text("service.instance.id", &self.options.instance)];
        let scope_spans = ScopeSpans { scope: Some(scope), spans: spans.into_iter().map(span).collect() };
        let resource_spans = ResourceSpans { resource: Some(Resource { attributes }), scope_spans: vec![scope_spans] };
        ExportRequest { resource_spans: vec![resource_spans] }
    }
}

fn rejected(response: &ExportResponse) -> u64 {
    let partial = response.partial_success.as_ref();
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

/// Attributes are those of OpenTelemetry's HTTP conventions, as far as the proxy knows them.
fn span(record: SpanRecord) -> wire::Span {
    let mut attributes = vec![number("http.response.status_code", record.status)];
    if !record.cluster.is_empty() {
        attributes.push(text("weir.cluster", &record.cluster));
    }
    // The conventions call 4xx an error of the caller only.
    let is_error = if record.is_server { record.status >= 500 } else { record.status >= 400 };
    wire::Span {
        trace_id: record.trace_id.to_vec(),
        span_id: record.span_id.to_vec(),
        parent_span_id: record.parent_id.map(|id| id.to_vec()).unwrap_or_default(),
        name: record.name,
        kind: if record.is_server { KIND_SERVER } else { KIND_CLIENT },
        start_time_unix_nano: record.start_unix_nanos,
        end_time_unix_nano: record.end_unix_nanos,
        attributes,
        status: is_error.then_some(Status { code: STATUS_ERROR }),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u16) -> KeyValue {
    attribute(key, Value::IntValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

#[cfg(test)]
mod tests;
