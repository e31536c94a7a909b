//! What the proxy tells of itself.

use std::time::Duration;

use weir_proxy::{AccessLog, Drill, Options};

use crate::peers::{GET, Running, Setup, Upstream, nobody};

#[tokio::test]
async fn requests_are_counted_by_route_and_class() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.ask(GET).await;
    caller.ask(GET).await;
    let labels = "listener=\"in\",direction=\"inbound\",route=\"all\",cluster=\"up\"";
    running.metric(&format!("weir_requests_total{{{labels},code_class=\"2xx\"}} 2")).await;
    running.metric(&format!("weir_request_duration_seconds_count{{{labels}}} 2")).await;
    running.metric("weir_active_connections 1").await;
    running.metric("weir_active_requests 0").await;
}

#[tokio::test]
async fn a_health_window_tells_requests_errors_and_endpoints() {
    let upstream = Upstream::answering(|_| b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.ask(GET).await;
    running.metric("weir_active_requests 0").await;
    let window = running.proxy.take_health_window();
    assert_eq!((window.inbound.requests, window.inbound.errors, window.outbound.requests), (1, 1, 0));
    assert_eq!(window.inbound.latency.iter().sum::<u64>(), 1);
    assert!(window.faults.is_empty(), "an application's error is not the proxy's: {:?}", window.faults);
    assert_eq!((window.endpoints[0].address, window.endpoints[0].errors), (upstream.address, 1));
    assert_eq!(running.proxy.take_health_window().inbound.requests, 0);
}

#[tokio::test]
async fn the_proxys_own_faults_are_told_apart() {
    let running = Setup::new().start(&[nobody()]).await;
    running.connect().await.ask(GET).await;
    running.metric("weir_active_requests 0").await;
    let window = running.proxy.take_health_window();
    assert_eq!((window.inbound.errors, window.faults.get("connect")), (1, Some(&1)));
}

#[tokio::test]
async fn a_drill_fails_its_share_and_says_so() {
    let upstream = Upstream::saying("x").await;
    let options = Options { drill: Some(Drill { fail_ratio: 0.5 }), ..Default::default() };
    let running = Running::start(options, Setup::new().snapshot(&[upstream.address])).await;
    let mut caller = running.connect().await;
    let mut failed = 0;
    for _ in 0..200 {
        failed += usize::from(caller.ask(GET).await.status() == 500);
    }
    assert!((30..170).contains(&failed), "{failed}");
    assert_eq!(upstream.count(), 200 - failed);
    running.metric("weir_drill_active 1").await;
    running.metric(&format!("weir_refused_total{{reason=\"drill\"}} {failed}")).await;
}

#[tokio::test]
async fn the_access_log_has_a_line_per_request() {
    let folder = std::env::temp_dir().join(format!("weir-access-log-{}", std::process::id()));
    let upstream = Upstream::saying("x").await;
    let options = Options { access_log: AccessLog::File(folder.clone()), ..Default::default() };
    let setup = Setup::new().listener("accessLog: true");
    let running = Running::start(options, setup.snapshot(&[upstream.address])).await;
    let request = "GET /p?q HTTP/1.1\r\nHost: a\r\n\
                   Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";
    running.connect().await.ask(request).await;
    let line = crate::peers::soon(async {
        loop {
            let text = std::fs::read_to_string(&folder).unwrap_or_default();
            if text.ends_with('\n') {
                break text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    std::fs::remove_file(&folder).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((line["path"].as_str(), line["status"].as_u64()), (Some("/p?q"), Some(200)));
    assert_eq!(line["endpoint"].as_str(), Some(upstream.address.to_string().as_str()));
    assert_eq!(line["trace_id"].as_str(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    let sent_on = upstream.last();
    assert!(sent_on.field("traceparent").unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
}

#[tokio::test]
async fn lines_that_are_queued_at_the_end_are_written() {
    let file = std::env::temp_dir().join(format!("weir-access-log-end-{}", std::process::id()));
    let upstream = Upstream::saying("x").await;
    let options = Options { access_log: AccessLog::File(file.clone()), ..Default::default() };
    let running = Running::start(options, Setup::new().listener("accessLog: true").snapshot(&[upstream.address])).await;
    running.connect().await.ask(GET).await;
    let drain = weir_proxy::DrainOptions { quiet: Duration::ZERO, ..Default::default() };
    running.proxy.drain(drain).await;
    assert!(running.proxy.flush(Duration::from_secs(10)).await);
    let written = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(written.lines().count(), 1, "{written}");
}

#[tokio::test]
async fn sampled_requests_become_spans() {
    let (sender, spans) = std::sync::mpsc::sync_channel(10);
    let upstream = Upstream::saying("x").await;
    let options = Options { spans: Some(sender), trace_ratio: 1.0, ..Default::default() };
    let running = Running::start(options, Setup::new().snapshot(&[upstream.address])).await;
    running.connect().await.ask(GET).await;
    running.metric("weir_active_requests 0").await;
    let span = spans.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((span.name.as_str(), span.status, span.inbound), ("GET all", 200, true));
    let sent = upstream.last();
    let parent = sent.field("traceparent").unwrap();
    let id: String = span.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(parent.contains(&id) && parent.ends_with("-01"), "{parent}");
}

#[tokio::test]
async fn the_admin_endpoint_shows_all_of_it() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let admin = weir_proxy::admin::serve(running.proxy.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let get = async |line: &str| {
        crate::peers::Peer::connect(admin).await.ask(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")).await
    };
    assert_eq!(get("GET /ready").await.status(), 503);
    running.proxy.set_readiness(weir_proxy::Readiness::Ready);
    assert_eq!(get("GET /ready").await.status(), 200);
    assert!(get("GET /stats/prometheus").await.text().contains("weir_workers 1"));
    assert!(get("GET /config_dump").await.text().contains("routeTables"));
    assert!(get("GET /clusters").await.text().contains(&upstream.address.to_string()));
    assert!(get("GET /health").await.text().contains("loopDelayUs"));
    assert_eq!(get("GET /nothing").await.status(), 404);
    assert_eq!(get("GET /drain").await.status(), 405);
    assert_eq!(get("POST /drain").await.status(), 202);
    crate::peers::soon(running.proxy.asked_to_leave()).await;
}
