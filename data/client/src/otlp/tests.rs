use std::convert::Infallible;
use std::task::{Context, Poll};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Response as Answer, Status};

use super::wire::PartialSuccess;
use super::*;

/// A collector that hands what it gets to the test, and says to have rejected one span of each batch.
#[derive(Clone)]
struct Collector(mpsc::Sender<ExportRequest>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<ExportRequest> for Collector {
    type Response = ExportResponse;
    type Future = BoxFuture<Answer<ExportResponse>, Status>;

    fn call(&mut self, request: tonic::Request<ExportRequest>) -> Self::Future {
        let sender = self.0.clone();
        Box::pin(async move {
            sender.send(request.into_inner()).await.map_err(|_| Status::unavailable("the test is over"))?;
            let partial_success = PartialSuccess { rejected_spans: 1, error_message: "one".into() };
            Ok(Answer::new(ExportResponse { partial_success: Some(partial_success) }))
        })
    }
}

impl Service<Request<Body>> for Collector {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let collector = self.clone();
        assert_eq!(request.uri().path(), EXPORT);
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<ExportResponse, ExportRequest>::default());
            Ok(grpc.unary(collector, request).await)
        })
    }
}

fn record(status: u16) -> SpanRecord {
    SpanRecord {
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_id: Some([3; 8]),
        name: "GET stock/0".into(),
        is_server: true,
        cluster: "stock".into(),
        status,
        start_unix_nanos: 10,
        end_unix_nanos: 30,
    }
}

fn exporter(address: String) -> Exporter {
    Exporter::new(OtlpOptions {
        address,
        token: Token::none(),
        service: "order".into(),
        instance: "order-1".into(),
        version: "1".into(),
    })
}

#[tokio::test]
async fn a_collector_gets_what_was_recorded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut exporter = exporter(format!("http://{}", listener.local_addr().unwrap()));
    let (sender, mut received) = mpsc::channel(1);
    let router = tonic::transport::Server::builder().add_service(Collector(sender));
    let server = tokio::spawn(async move { router.serve_with_incoming(TcpListenerStream::new(listener)).await });
    assert_eq!(exporter.export(vec![record(200), record(503)]).await, Ok(1));
    let resource_spans = received.recv().await.unwrap().resource_spans.remove(0);
    let attributes = resource_spans.resource.unwrap().attributes;
    assert_eq!(attributes[0], text("service.name", "order"));
    let spans = &resource_spans.scope_spans[0].spans;
    assert_eq!(
        (spans[0].trace_id.as_slice(), spans[0].parent_span_id.as_slice()),
        ([1; 16].as_slice(), [3; 8].as_slice())
    );
    assert_eq!((spans[0].kind, spans[0].end_time_unix_nano - spans[0].start_time_unix_nano), (KIND_SERVER, 20));
    assert_eq!((spans[0].status, spans[1].status), (None, Some(wire::Status { code: STATUS_ERROR })));
    server.abort();
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_told_of() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = exporter(address.clone()).export(vec![record(200)]).await.unwrap_err();
    assert!(error.contains(&address), "{error}");
}
