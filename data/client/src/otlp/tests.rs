use tokio::net::TcpListener;

use super::*;
use crate::fixtures::FakeCollector;

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
    let mut collector = FakeCollector::start(1).await;
    assert_eq!(exporter(collector.address.clone()).export(vec![record(200), record(503)]).await, Ok(1));
    let spans = collector.next().await;
    assert_eq!((spans[0].service.as_str(), spans[0].name.as_str()), ("order", "GET stock/0"));
    assert_eq!((spans[0].trace_id.as_slice(), spans[0].parent_id.as_slice()), ([1; 16].as_slice(), [3; 8].as_slice()));
    assert_eq!((spans[0].is_server, spans[0].duration_nanos), (true, 20));
    assert_eq!((spans[0].is_error, spans[1].is_error), (false, true));
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_told_of() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = exporter(address.clone()).export(vec![record(200)]).await.unwrap_err();
    assert!(error.contains(&address), "{error}");
}
