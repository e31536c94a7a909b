//! Bolt and Dubbo connections over time: heartbeats, goodbyes, drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use weir_proxy::DrainOptions;

use crate::peers::{Upstream, soon};
use crate::rpc_peers::{Ask, BOTH, RpcPeer, Wire, between, saying, upstream};

/// The id of the heartbeat with which Weir begins a Bolt connection.
const HELLO: u32 = 0x7765_6972;

/// An upstream that holds its answers back until the gate opens.
async fn gated(wire: Wire, gate: watch::Receiver<bool>) -> Upstream {
    upstream(wire, move |mut peer, _| {
        let mut gate = gate.clone();
        async move {
            while let Some(got) = peer.request().await {
                gate.wait_for(|open| *open).await.unwrap();
                peer.send(wire.answer(&got, "held")).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_idle_upstream_is_asked_whether_it_lives() {
    for wire in BOTH {
        let (asked, mut is_asked) = watch::channel(0);
        let upstream = upstream(wire, move |mut peer, _| {
            let asked = asked.clone();
            async move {
                while let Some(got) = peer.next().await {
                    peer.acknowledge(&got).await;
                    match got.is_request() {
                        true => peer.send(wire.answer(&got, "alive")).await,
                        false => asked.send_modify(|asked| *asked += 1),
                    }
                }
            }
        })
        .await;
        let limits = format!("{}, limits: {{heartbeatIntervalMs: 50}}", wire.protocol());
        let running = wire.setup().cluster(&limits).start(&[upstream.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        assert!(caller.ask(Ask::new(1, "x")).await.is_ok());
        // More than three: each was answered.
        soon(is_asked.wait_for(|asked| *asked > 5)).await.unwrap();
        assert!(caller.ask(Ask::new(2, "x")).await.says("alive"));
        running.metric("weir_upstream_connects_total{cluster=\"up\"} 1").await;
    }
}

#[tokio::test]
async fn an_upstream_that_answers_no_heartbeat_is_given_up() {
    for wire in BOTH {
        let upstream = upstream(wire, move |mut peer, number| async move {
            if number == 0 {
                let mut heartbeats = 0;
                while let Some(got) = peer.next().await {
                    heartbeats += usize::from(got.kind() == "Heartbeat" && got.id() != u64::from(HELLO));
                }
                assert_eq!(heartbeats, 3);
                return;
            }
            while let Some(got) = peer.request().await {
                peer.send(wire.answer(&got, "alive")).await;
            }
        })
        .await;
        let limits = format!("{}, limits: {{heartbeatIntervalMs: 20}}", wire.protocol());
        let running = wire.setup().cluster(&limits).start(&[upstream.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        assert_eq!(caller.ask(Ask::new(1, "x")).await.status(), if wire == Wire::Bolt { 0x10 } else { 35 });
        assert!(caller.ask(Ask::new(2, "x")).await.says("alive"));
    }
}

#[tokio::test]
async fn a_drain_says_goodbye_and_answers_what_is_in_flight() {
    for wire in BOTH {
        let (open, gate) = watch::channel(false);
        let upstream = gated(wire, gate).await;
        let (running, mut caller) = between(wire, &[upstream.address]).await;
        if wire == Wire::Bolt {
            caller.send(wire.heartbeat(HELLO)).await;
            assert_eq!(caller.next().await.unwrap().kind(), "HeartbeatAck");
        }
        caller.send(wire.request(&Ask::new(1, "x"))).await;
        running.metric("weir_active_requests 1").await;
        let proxy = running.proxy.clone();
        let drain = tokio::spawn(async move { proxy.drain(DrainOptions::default()).await });
        assert!(caller.next().await.unwrap().is_goodbye());
        // One that had not heard the goodbye yet is served as well.
        caller.send(wire.request(&Ask::new(2, "x"))).await;
        running.metric("weir_active_requests 2").await;
        open.send(true).unwrap();
        for _ in 0..2 {
            assert!(caller.next().await.unwrap().says("held"));
        }
        drop(caller);
        let report = soon(drain).await.unwrap();
        assert_eq!((report.cut, report.finished), (0, 2));
    }
}

#[tokio::test]
async fn a_bolt_caller_that_may_not_understand_goodbye_is_not_told() {
    let upstream = saying(Wire::Bolt, "x").await;
    let (running, mut caller) = between(Wire::Bolt, &[upstream.address]).await;
    assert!(caller.ask(Ask::new(1, "x")).await.is_ok());
    let proxy = running.proxy.clone();
    let drain = tokio::spawn(async move { proxy.drain(DrainOptions::default()).await });
    assert!(caller.next().await.is_none());
    assert_eq!(soon(drain).await.unwrap().cut, 0);
}

#[tokio::test]
async fn endpoints_change_under_load_without_a_failure() {
    for wire in BOTH {
        let upstreams = [saying(wire, "a").await, saying(wire, "b").await, saying(wire, "c").await];
        let [a, b, c] = upstreams.each_ref().map(|upstream| upstream.address);
        let setup = wire.setup();
        let running = setup.start(&[a, b]).await;
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (stop, answered, address) = (stop.clone(), answered.clone(), running.address);
                tokio::spawn(async move {
                    let mut caller = RpcPeer::connect(wire, address).await;
                    for id in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        assert!(caller.ask(Ask::new(id, "x")).await.is_ok());
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for endpoints in [vec![b, c], vec![c], vec![a, c], vec![a, b, c], vec![b]] {
            let target = answered.load(Ordering::SeqCst) + 100;
            let enough = async {
                while answered.load(Ordering::SeqCst) < target {
                    tokio::task::yield_now().await;
                }
            };
            soon(enough).await;
            running.proxy.apply(setup.snapshot(&endpoints)).await.unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        for caller in callers {
            soon(caller).await.unwrap();
        }
    }
}

/// Two proxies in a row: the first one's upstream is the second, which drains.
#[tokio::test]
async fn a_proxy_that_drains_loses_no_request_of_the_proxy_before_it() {
    for wire in BOTH {
        let upstream = saying(wire, "x").await;
        let setup = wire.setup();
        let (leaving, staying) = (setup.start(&[upstream.address]).await, setup.start(&[upstream.address]).await);
        let running = setup.start(&[leaving.address, staying.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        for id in 0..10 {
            assert!(caller.ask(Ask::new(id, "x")).await.is_ok());
        }
        let proxy = leaving.proxy.clone();
        let grace = DrainOptions { grace: Duration::from_millis(200), ..Default::default() };
        let drain = tokio::spawn(async move { proxy.drain(grace).await });
        // Told to go, the first proxy opens new connections as long as the endpoint is there, and uses the other one after.
        running.proxy.apply(setup.snapshot(&[staying.address])).await.unwrap();
        for id in 10..200 {
            assert!(caller.ask(Ask::new(id, "x")).await.is_ok(), "{wire:?} {id}");
        }
        assert_eq!(soon(drain).await.unwrap().cut, 0);
    }
}

/// An upstream that has nobody free for any request.
async fn busy(wire: Wire) -> Upstream {
    upstream(wire, move |mut peer, _| async move {
        while let Some(got) = peer.request().await {
            peer.send(wire.busy(&got)).await;
        }
    })
    .await
}

#[tokio::test]
async fn what_a_server_is_too_busy_for_is_asked_of_another() {
    for wire in BOTH {
        let (busy, free) = (busy(wire).await, saying(wire, "free").await);
        let setup = wire.setup().forward("retry: {attempts: 1}");
        let running = setup.start(&[busy.address, free.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        for id in 1..=4 {
            assert!(caller.ask(Ask::new(id, "x")).await.says("free"), "{wire:?} {id}");
        }
        // In turn, one of two must have met the busy one first.
        let metrics = running.proxy.metrics();
        assert!(!metrics.contains("weir_upstream_retries_total{cluster=\"up\"} 0\n"), "{metrics}");
    }
}

#[tokio::test]
async fn without_another_server_or_leave_the_busy_one_has_the_last_word() {
    for wire in BOTH {
        let (one, two, free) = (busy(wire).await, busy(wire).await, saying(wire, "free").await);
        let told = if wire == Wire::Bolt { 4 } else { 100 };
        for (forward, endpoints) in [
            ("timeoutMs: 15000", vec![one.address, free.address]),
            ("retry: {attempts: 3}", vec![one.address]),
            ("retry: {attempts: 3}", vec![one.address, two.address]),
            ("retry: {attempts: 3, on: [ConnectFailure]}", vec![one.address, free.address]),
        ] {
            let running = wire.setup().forward(forward).start(&endpoints).await;
            let mut caller = RpcPeer::connect(wire, running.address).await;
            let mut statuses = Vec::new();
            for id in 1..=2 {
                statuses.push(caller.ask(Ask::new(id, "x")).await.status());
            }
            assert!(statuses.contains(&told), "{wire:?} {forward}: {statuses:?}");
        }
    }
}
