//! Choice of endpoints, and further attempts.

use crate::peers::{GET, Running, Setup, Upstream, nobody, snapshot};

#[tokio::test]
async fn requests_take_turns() {
    let upstreams = [Upstream::saying("a").await, Upstream::saying("b").await, Upstream::saying("c").await];
    let running = Setup::new().start(&upstreams.each_ref().map(|upstream| upstream.address)).await;
    let mut caller = running.connect().await;
    for _ in 0..30 {
        caller.ask(GET).await;
    }
    assert_eq!(upstreams.each_ref().map(Upstream::count), [10, 10, 10]);
}

#[tokio::test]
async fn a_key_stays_with_its_endpoint() {
    let upstreams = [Upstream::saying("a").await, Upstream::saying("b").await, Upstream::saying("c").await];
    let setup = Setup::new().cluster("balance: RingHash").forward("hashOn: [{header: x-user}]");
    let running = setup.start(&upstreams.each_ref().map(|upstream| upstream.address)).await;
    let mut caller = running.connect().await;
    let mut owners = std::collections::HashSet::new();
    for user in 0..20 {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n");
        let owner = caller.ask(&request).await.text();
        for _ in 0..3 {
            assert_eq!(caller.ask(&request).await.text(), owner);
        }
        owners.insert(owner);
    }
    assert_eq!(owners.len(), 3);
}

#[tokio::test]
async fn least_request_avoids_the_busy() {
    let busy = Upstream::scripted(|mut peer, _| async move {
        peer.rest().await;
    })
    .await;
    let free = Upstream::saying("free").await;
    let running = Setup::new().cluster("balance: LeastRequest").start(&[busy.address, free.address]).await;
    // Requests that the busy one swallows stay with it; from then on it loses every comparison.
    let mut swallowed = Vec::new();
    let mut caller = running.connect().await;
    let mut answered = 0;
    for _ in 0..60 {
        caller.send(GET).await;
        match tokio::time::timeout(std::time::Duration::from_millis(200), caller.message()).await {
            Ok(Some(_)) => answered += 1,
            _ => swallowed.push(std::mem::replace(&mut caller, running.connect().await)),
        }
    }
    // It is chosen only when both of the two choices fall on it: one in four.
    assert!(answered >= 30, "{answered} of 60 were answered");
}

#[tokio::test]
async fn clusters_share_by_weight() {
    let (many, few) = (Upstream::saying("many").await, Upstream::saying("few").await);
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', routes: main}}]
routeTables:
- name: main
  hosts:
  - name: any
    domains: ['*']
    routes: [{{action: {{forward: {{clusters: [{{cluster: many, weight: 90}}, {{cluster: few, weight: 10}}]}}}}}}]
clusters:
- {{name: many, endpoints: [{{address: '{}'}}]}}
- {{name: few, endpoints: [{{address: '{}'}}]}}",
        many.address, few.address
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    let mut caller = running.connect().await;
    for _ in 0..500 {
        caller.ask(GET).await;
    }
    assert_eq!(many.count() + few.count(), 500);
    // Ten standard deviations.
    assert!((10..120).contains(&few.count()), "{}", few.count());
}

#[tokio::test]
async fn a_lower_priority_serves_when_the_higher_cannot() {
    let backup = Upstream::saying("backup").await;
    let text = format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', routes: main}}]
routeTables:
- name: main
  hosts:
  - name: any
    domains: ['*']
    routes: [{{action: {{forward: {{clusters: [{{cluster: up}}], retry: {{attempts: 1, on: [ConnectFailure]}}}}}}}}]
clusters:
- {{name: up, endpoints: [{{address: '{}'}}, {{address: '{}', priority: 1}}]}}",
        nobody(),
        backup.address
    );
    let running = Running::start(Default::default(), snapshot(&text)).await;
    assert_eq!(running.connect().await.ask(GET).await.text(), "backup");
}

#[tokio::test]
async fn a_failed_connection_is_tried_elsewhere_even_for_a_post() {
    let alive = Upstream::saying("alive").await;
    let setup = Setup::new().forward("retry: {attempts: 2, on: [ConnectFailure]}");
    let running = setup.start(&[nobody(), alive.address]).await;
    let mut caller = running.connect().await;
    for _ in 0..4 {
        let answer = caller.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(answer.text(), "alive");
    }
    assert_eq!(alive.last().text(), "hi");
}

#[tokio::test]
async fn a_bad_answer_is_tried_again_only_if_the_method_allows() {
    let failing = Upstream::answering(|_| b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let good = Upstream::saying("good").await;
    let setup = Setup::new().forward("retry: {attempts: 1, on: [GatewayError]}");
    let running = setup.start(&[failing.address, good.address]).await;
    let mut caller = running.connect().await;
    for _ in 0..4 {
        assert_eq!(caller.ask(GET).await.text(), "good");
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(caller.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.status());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_the_callers_concern() {
    // Every connection serves one request and is closed without a word.
    let upstream = Upstream::scripted(|mut peer, _| async move {
        peer.head().await;
        peer.send(crate::peers::ok("once")).await;
    })
    .await;
    let running = Setup::new().start(&[upstream.address]).await;
    let mut caller = running.connect().await;
    for _ in 0..50 {
        assert_eq!(caller.ask(GET).await.text(), "once");
    }
}
