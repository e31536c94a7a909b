//! Endpoints that say that they are not well get no requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::peers::*;

const CHECK: &str =
    "healthCheck: {probe: {http: {path: /healthz}}, intervalMs: 250, unhealthyThreshold: 2, healthyThreshold: 1}";

/// Answers its name, and to `/healthz` whether it is well.
async fn named(name: &'static str, well: &Arc<AtomicBool>) -> Upstream {
    let well = well.clone();
    Upstream::answering(move |message| match message.head.starts_with("GET /healthz ") {
        true if !well.load(Ordering::SeqCst) => b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok(name),
    })
    .await
}

async fn answers(running: &Running) -> Vec<String> {
    let mut caller = running.connect().await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(caller.ask(GET).await.text());
    }
    answers
}

#[tokio::test]
async fn an_endpoint_that_is_not_well_is_passed_over_until_it_is() {
    let (well, sick) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (one, two) = (named("well", &well).await, named("sick", &sick).await);
    let running = Setup::new().cluster(CHECK).start(&[one.address, two.address]).await;
    running.metric("weir_upstream_endpoints_unhealthy{cluster=\"up\"} 1").await;
    assert_eq!(answers(&running).await, ["well"; 8]);
    // With nobody well, any answer is better than none.
    well.store(false, Ordering::SeqCst);
    running.metric("weir_upstream_endpoints_unhealthy{cluster=\"up\"} 2").await;
    assert_eq!(answers(&running).await.len(), 8);
    sick.store(true, Ordering::SeqCst);
    running.metric("weir_upstream_endpoints_unhealthy{cluster=\"up\"} 1").await;
    assert_eq!(answers(&running).await, ["sick"; 8]);
}

#[tokio::test]
async fn what_was_found_is_forgotten_with_the_check() {
    let sick = Arc::new(AtomicBool::new(false));
    let one = named("sick", &sick).await;
    let running = Setup::new().cluster(CHECK).start(&[one.address, nobody()]).await;
    running.metric("weir_upstream_endpoints_unhealthy{cluster=\"up\"} 2").await;
    running.proxy.apply(Setup::new().snapshot(&[one.address])).await.unwrap();
    running.metric("weir_upstream_endpoints_unhealthy{cluster=\"up\"} 0").await;
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_not_well() {
    let one = Upstream::saying("one").await;
    let check = "healthCheck: {probe: tcp, intervalMs: 250, unhealthyThreshold: 1}";
    let running = Setup::new().cluster(check).start(&[one.address, nobody()]).await;
    running.metric("weir_upstream_endpoints_unhealthy{cluster=\"up\"} 1").await;
    assert_eq!(answers(&running).await, ["one"; 8]);
}
