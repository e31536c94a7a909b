//! Bounds and timeouts: each refusal is answered and counted under its reason.

use std::time::Duration;

use crate::peers::{GET, Setup, Upstream, ok};

/// An upstream that never answers.
async fn silent() -> Upstream {
    Upstream::scripted(|mut peer, _| async move {
        peer.rest().await;
    })
    .await
}

#[tokio::test]
async fn heads_have_a_largest_size_and_count() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().listener("limits: {maxHeadBytes: 1000, maxHeaders: 5}").start(&[upstream.address]).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1000));
    assert_eq!(running.connect().await.ask(long).await.status(), 431);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(5));
    assert_eq!(running.connect().await.ask(many).await.status(), 431);
    running.metric("weir_refused_total{reason=\"head_bytes\"} 1").await;
    running.metric("weir_refused_total{reason=\"header_count\"} 1").await;
}

#[tokio::test]
async fn an_endless_head_is_refused_too() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(70_000))).await;
    assert_eq!(caller.message().await.unwrap().status(), 431);
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let upstream = silent().await;
    let running = Setup::new().listener("limits: {maxRequests: 1}").start(&[upstream.address]).await;
    let mut first = running.connect().await;
    first.send(GET).await;
    running.metric("weir_active_requests 1").await;
    assert_eq!(running.connect().await.ask(GET).await.status(), 503);
    running.metric("weir_refused_total{reason=\"requests\"} 1").await;
}

#[tokio::test]
async fn requests_to_a_cluster_are_bounded() {
    let upstream = silent().await;
    let running = Setup::new().cluster("limits: {maxRequests: 1}").start(&[upstream.address]).await;
    let mut first = running.connect().await;
    first.send(GET).await;
    running.metric("weir_upstream_requests_active{cluster=\"up\"} 1").await;
    assert_eq!(running.connect().await.ask(GET).await.status(), 503);
    running.metric("weir_refused_total{reason=\"cluster_requests\"} 1").await;
}

#[tokio::test]
async fn a_request_waits_for_a_connection_at_the_limit_and_others_are_refused() {
    let (let_go, gate) = tokio::sync::watch::channel(false);
    let upstream = Upstream::scripted(move |mut peer, _| {
        let mut gate = gate.clone();
        async move {
            while peer.head().await.is_some() {
                gate.wait_for(|open| *open).await.unwrap();
                peer.send(ok("x")).await;
            }
        }
    })
    .await;
    let running = Setup::new().cluster("limits: {maxConnections: 1, maxPending: 1}").start(&[upstream.address]).await;
    let (mut first, mut second) = (running.connect().await, running.connect().await);
    first.send(GET).await;
    running.metric("weir_upstream_connections{cluster=\"up\"} 1").await;
    second.send(GET).await;
    running.metric("weir_upstream_requests_pending{cluster=\"up\"} 1").await;
    assert_eq!(running.connect().await.ask(GET).await.status(), 503);
    let_go.send(true).unwrap();
    assert_eq!(first.message().await.unwrap().status(), 200);
    assert_eq!(second.message().await.unwrap().status(), 200);
    running.metric("weir_upstream_connects_total{cluster=\"up\"} 1").await;
    running.metric("weir_refused_total{reason=\"pending\"} 1").await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().listener("limits: {maxConnections: 1}").start(&[upstream.address]).await;
    let mut first = running.connect().await;
    assert_eq!(first.ask(GET).await.status(), 200);
    assert!(running.connect().await.rest().await.is_empty());
    assert_eq!(first.ask(GET).await.status(), 200);
    running.metric("weir_refused_total{reason=\"connections\"} 1").await;
}

#[tokio::test]
async fn an_upstream_must_answer_in_time() {
    let upstream = silent().await;
    let running = Setup::new().forward("timeoutMs: 50").start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    assert_eq!(caller.ask(GET).await.status(), 504);
    assert_eq!(caller.ask(GET).await.status(), 504);
    running.metric("weir_proxy_faults_total{reason=\"timeout\"} 2").await;
}

#[tokio::test]
async fn the_timeout_holds_over_all_attempts() {
    let upstream = silent().await;
    let retry = "timeoutMs: 1000, retry: {attempts: 10, on: [Reset], perTryTimeoutMs: 300, budgetPercent: 100}";
    let running = Setup::new().forward(retry).start(&[upstream.address]).await;
    assert_eq!(running.connect().await.ask(GET).await.status(), 504);
    let connects = (1..=4).map(|count| format!("weir_upstream_connects_total{{cluster=\"up\"}} {count}"));
    let metrics = running.proxy.metrics();
    assert!(connects.into_iter().any(|line| metrics.lines().any(|found| found == line)), "{metrics}");
}

#[tokio::test]
async fn a_head_must_come_in_time() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().listener("limits: {headTimeoutMs: 50}").start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send("GET / HTT").await;
    assert_eq!(caller.message().await.unwrap().status(), 408);
    running.metric("weir_refused_total{reason=\"head_timeout\"} 1").await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let upstream = Upstream::saying("x").await;
    let running = Setup::new().listener("limits: {idleTimeoutMs: 50}").start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    assert_eq!(caller.ask(GET).await.status(), 200);
    assert!(caller.rest().await.is_empty());
}

#[tokio::test]
async fn a_caller_that_resets_ends_the_upstream_request() {
    let upstream = silent().await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    caller.send(GET).await;
    running.metric("weir_upstream_requests_active{cluster=\"up\"} 1").await;
    caller.stream.set_zero_linger().unwrap();
    drop(caller);
    running.metric("weir_upstream_requests_active{cluster=\"up\"} 0").await;
    running.metric("weir_proxy_faults_total{reason=\"downstream_reset\"} 1").await;
}

#[tokio::test]
async fn timeouts_do_not_wait_for_the_idle_time() {
    // One timer serves the idle time first and the shorter route timeout afterwards.
    let upstream = silent().await;
    let running = Setup::new().forward("timeoutMs: 20").start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(caller.ask(GET).await.status(), 504);
}
