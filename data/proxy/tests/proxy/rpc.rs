//! Bolt and Dubbo: shared connections, ids, answers in any order, and an answer to every request.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::peers::{Running, nobody, snapshot};
use crate::rpc_peers::{Ask, BOTH, Frame, RpcPeer, Wire, between, saying, upstream};

#[tokio::test]
async fn a_request_goes_through_and_its_answer_comes_back() {
    for wire in BOTH {
        let upstream = saying(wire, "hello").await;
        let (running, mut caller) = between(wire, &[upstream.address]).await;
        for id in [7, 7, u32::MAX] {
            let got = caller.ask(Ask::new(id, "hi")).await;
            assert!(got.is_ok() && got.says("hello") && got.id() == u64::from(id), "{got:?}");
        }
        let labels = format!("direction=\"inbound\",protocol=\"{}\",service=\"a.Echo\",method=\"say\"", wire.name());
        running.metric(&format!("weir_rpc_requests_total{{listener=\"in\",{labels},code_class=\"2xx\"}} 3")).await;
        running.metric("weir_upstream_connects_total{cluster=\"up\"} 1").await;
    }
}

#[tokio::test]
async fn callers_with_the_same_ids_get_their_own_answers_in_any_order() {
    for wire in BOTH {
        let upstream = upstream(wire, move |mut peer, _| async move {
            let mut waiting = Vec::new();
            while let Some(got) = peer.request().await {
                waiting.push(got);
                if waiting.len() == 4 {
                    while let Some(got) = waiting.pop() {
                        let text = ["one", "two", "three", "four"].into_iter().find(|text| got.says(text)).unwrap();
                        peer.send(wire.answer(&got, &format!("{text}!"))).await;
                    }
                }
            }
        })
        .await;
        let (running, mut first) = between(wire, &[upstream.address]).await;
        let mut second = RpcPeer::connect(wire, running.address).await;
        first.send(wire.request(&Ask::new(1, "one"))).await;
        second.send(wire.request(&Ask::new(1, "two"))).await;
        first.send(wire.request(&Ask::new(2, "three"))).await;
        second.send(wire.request(&Ask::new(2, "four"))).await;
        for (caller, texts) in [(&mut first, ["one!", "three!"]), (&mut second, ["two!", "four!"])] {
            for _ in 0..2 {
                let got = caller.next().await.unwrap();
                assert!(got.says(texts[got.id() as usize - 1]), "{wire:?}: {got:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_unedited_request_goes_on_byte_for_byte_but_for_its_id() {
    for wire in BOTH {
        let (seen, mut is_seen) = tokio::sync::mpsc::channel(1);
        let upstream = upstream(wire, move |mut peer, _| {
            let seen = seen.clone();
            async move {
                let got = peer.request().await.unwrap();
                seen.send(got.bytes().to_vec()).await.unwrap();
            }
        })
        .await;
        let running =
            wire.setup().listener(&format!("{}, trace: false", wire.protocol())).start(&[upstream.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        let sent = wire.request(&Ask::new(1, &"x".repeat(100_000)));
        caller.send(&sent).await;
        let got = is_seen.recv().await.unwrap();
        let (from, len) = if wire == Wire::Bolt { (5, 4) } else { (4, 8) };
        assert_eq!((&got[..from], &got[from + len..]), (&sent[..from], &sent[from + len..]));
    }
}

#[tokio::test]
async fn a_trace_is_begun_and_gone_on_with() {
    for wire in BOTH {
        let upstream = upstream(wire, move |mut peer, _| async move {
            while let Some(got) = peer.request().await {
                let text = got.label("traceparent").unwrap_or_default();
                peer.send(wire.answer(&got, &text)).await;
            }
        })
        .await;
        let (_running, mut caller) = between(wire, &[upstream.address]).await;
        assert!(caller.ask(Ask::new(1, "x")).await.says("00-"));
        let labels = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("baggage", "a=b")];
        let got = caller.ask(Ask { labels: &labels, ..Ask::new(2, "x") }).await;
        assert!(got.says("00-4bf92f3577b34da6a3ce929d0e0e4736-") && !got.says("00f067aa0ba902b7"), "{got:?}");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_told_and_a_late_one_dropped() {
    for wire in BOTH {
        let (late, is_late) = tokio::sync::watch::channel(false);
        let upstream = upstream(wire, move |mut peer, _| {
            let mut is_late = is_late.clone();
            async move {
                let first = peer.request().await.unwrap();
                is_late.wait_for(|late| *late).await.unwrap();
                peer.send(wire.answer(&first, "late")).await;
                let second = peer.request().await.unwrap();
                peer.send(wire.answer(&second, "second")).await;
                peer.next().await;
            }
        })
        .await;
        let (running, mut caller) = between(wire, &[upstream.address]).await;
        let got = caller.ask(Ask { timeout: Some(Duration::from_millis(30)), ..Ask::new(1, "x") }).await;
        assert_eq!((got.id(), got.status()), (1, if wire == Wire::Bolt { 7 } else { 31 }));
        late.send(true).unwrap();
        assert!(caller.ask(Ask::new(2, "x")).await.says("second"));
        running.metric("weir_late_answers_total 1").await;
        running.metric("weir_refused_total{reason=\"route_timeout\"} 1").await;
    }
}

#[tokio::test]
async fn the_routes_timeout_bounds_the_callers() {
    for wire in BOTH {
        let upstream = upstream(wire, |mut peer, _| async move { while peer.request().await.is_some() {} }).await;
        let running = wire.setup().forward("timeoutMs: 30").start(&[upstream.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        let got = caller.ask(Ask { timeout: Some(Duration::from_secs(600)), ..Ask::new(1, "x") }).await;
        assert_eq!(got.status(), if wire == Wire::Bolt { 7 } else { 31 });
    }
}

#[tokio::test]
async fn everybody_who_waits_is_answered_when_an_upstream_is_lost() {
    for wire in BOTH {
        let upstream = upstream(wire, move |mut peer, number| async move {
            for _ in 0..3 {
                peer.request().await;
            }
            if number > 0 {
                peer.next().await;
            }
        })
        .await;
        let (running, mut first) = between(wire, &[upstream.address]).await;
        let mut second = RpcPeer::connect(wire, running.address).await;
        first.send([wire.request(&Ask::new(1, "x")), wire.request(&Ask::new(2, "x"))].concat()).await;
        second.send(wire.request(&Ask::new(1, "x"))).await;
        for caller in [&mut first, &mut second] {
            let got = caller.next().await.unwrap();
            assert_eq!(got.status(), if wire == Wire::Bolt { 0x10 } else { 35 });
        }
        assert!(first.next().await.is_some());
        running.metric("weir_refused_total{reason=\"upstream_reset\"} 3").await;
    }
}

#[tokio::test]
async fn one_way_requests_are_passed_on_and_never_answered() {
    for wire in BOTH {
        let (seen, mut is_seen) = tokio::sync::mpsc::channel(8);
        let upstream = upstream(wire, move |mut peer, _| {
            let seen = seen.clone();
            async move {
                while let Some(got) = peer.request().await {
                    seen.send(got.kind()).await.unwrap();
                    peer.send(wire.answer(&got, "x")).await;
                }
            }
        })
        .await;
        let (running, mut caller) = between(wire, &[upstream.address]).await;
        caller.send(wire.request(&Ask { one_way: true, ..Ask::new(1, "x") })).await;
        assert_eq!(is_seen.recv().await.unwrap(), "OneWay");
        let got = caller.ask(Ask::new(2, "x")).await;
        assert_eq!(got.id(), 2);
        running.metric("weir_active_requests 0").await;
    }
}

#[tokio::test]
async fn the_proxy_answers_heartbeats_itself() {
    for wire in BOTH {
        let (_running, mut caller) = between(wire, &[nobody()]).await;
        caller.send(wire.heartbeat(9)).await;
        let got = caller.next().await.unwrap();
        assert_eq!((got.kind().as_str(), got.id()), ("HeartbeatAck", 9));
    }
}

#[tokio::test]
async fn who_cannot_be_reached_is_told_and_others_are_tried() {
    for wire in BOTH {
        let (running, mut caller) = between(wire, &[nobody()]).await;
        let got = caller.ask(Ask::new(1, "x")).await;
        assert_eq!(got.status(), if wire == Wire::Bolt { 0x10 } else { 35 });
        running.metric("weir_refused_total{reason=\"upstream_connect\"} 1").await;
        let upstream = saying(wire, "yes").await;
        let retrying = wire.setup().forward("retry: {attempts: 3}");
        let running = retrying.start(&[nobody(), upstream.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        for id in 0..4 {
            assert!(caller.ask(Ask::new(id, "x")).await.says("yes"));
        }
    }
}

#[tokio::test]
async fn an_upstream_that_says_goodbye_gets_nothing_new_and_finishes() {
    for wire in BOTH {
        let upstream = upstream(wire, move |mut peer, number| async move {
            let first = peer.request().await.unwrap();
            if number == 0 {
                peer.send(wire.goodbye()).await;
                let second = tokio::time::timeout(Duration::from_millis(100), peer.request()).await;
                assert!(second.is_err(), "a request came after the goodbye");
            }
            peer.send(wire.answer(&first, ["old", "new"][number])).await;
            assert!(peer.next().await.is_none());
        })
        .await;
        let (running, mut caller) = between(wire, &[upstream.address]).await;
        caller.send(wire.request(&Ask::new(1, "x"))).await;
        running.metric("weir_upstream_connections{cluster=\"up\"} 1").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(caller.ask(Ask::new(2, "x")).await.says("new"));
        assert!(caller.next().await.unwrap().says("old"));
    }
}

#[tokio::test]
async fn too_long_a_frame_is_refused_and_the_rest_is_answered() {
    for wire in BOTH {
        let upstream = saying(wire, "yes").await;
        let limits = format!("{}, limits: {{maxFrameBytes: 2000}}", wire.protocol());
        let running = wire.setup().listener(&limits).start(&[upstream.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        let long = wire.request(&Ask::new(2, &"x".repeat(3000)));
        caller.send([wire.request(&Ask::new(1, "x")), long].concat()).await;
        let mut answers = [caller.next().await.unwrap(), caller.next().await.unwrap()];
        answers.sort_by_key(|got| got.id());
        assert!(answers[0].is_ok());
        assert_eq!((answers[1].id(), answers[1].status()), (2, if wire == Wire::Bolt { 9 } else { 40 }));
        assert!(caller.next().await.is_none());
        running.metric("weir_refused_total{reason=\"frame_bytes\"} 1").await;
    }
}

#[tokio::test]
async fn garbage_ends_a_connection() {
    for wire in BOTH {
        let (running, mut caller) = between(wire, &[nobody()]).await;
        caller.send("GET / HTTP/1.1\r\n\r\n").await;
        assert!(caller.next().await.is_none());
        running.metric("weir_refused_total{reason=\"bad_request\"} 1").await;
    }
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    for wire in BOTH {
        let upstream = upstream(wire, |mut peer, _| async move { while peer.request().await.is_some() {} }).await;
        let running = wire.setup().cluster(&format!("{}, limits: {{maxRequests: 1}}", wire.protocol()));
        let running = running.start(&[upstream.address]).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        caller.send([wire.request(&Ask::new(1, "x")), wire.request(&Ask::new(2, "x"))].concat()).await;
        let got = caller.next().await.unwrap();
        assert_eq!((got.id(), got.status()), (2, if wire == Wire::Bolt { 4 } else { 100 }));
        running.metric("weir_refused_total{reason=\"cluster_requests\"} 1").await;
    }
}

fn routed(wire: Wire, ends: &[std::net::SocketAddr; 3]) -> String {
    format!(
        "listeners: [{{name: in, bind: '127.0.0.1:0', routes: main, protocol: Auto}}]
routeTables:
- name: main
  hosts:
  - name: any
    domains: ['*']
    routes:
    - {{matches: {{path: {{exact: /a.Echo/special}}}}, action: {{forward: {{clusters: [{{cluster: c0}}]}}}}}}
    - matches: {{headers: [{{name: color, value: {{exact: gray}}}}]}}
      action: {{forward: {{clusters: [{{cluster: c1}}]}}}}
      requestHeaders: {{set: [[added, 'yes']], remove: [color]}}
    - {{matches: {{path: {{segments: /a.Echo}}}}, action: {{forward: {{clusters: [{{cluster: c2}}]}}}}}}
    - {{matches: {{path: {{prefix: /b.}}}}, action: {{forward: {{clusters: [{{cluster: http}}]}}}}}}
clusters:
- {{name: c0, endpoints: [{{address: '{}'}}], protocol: {wire:?}}}
- {{name: c1, endpoints: [{{address: '{}'}}], protocol: SameAsDownstream}}
- {{name: c2, endpoints: [{{address: '{}'}}], protocol: {wire:?}}}
- {{name: http, endpoints: [{{address: '127.0.0.1:1'}}]}}
",
        ends[0], ends[1], ends[2]
    )
}

#[tokio::test]
async fn routes_match_service_method_and_labels_on_a_listener_that_detects_the_protocol() {
    for wire in BOTH {
        let labels = upstream(wire, move |mut peer, _| async move {
            while let Some(got) = peer.request().await {
                let text = format!("{:?} {:?}", got.label("added"), got.label("color"));
                peer.send(wire.answer(&got, &text)).await;
            }
        })
        .await;
        let ends = [saying(wire, "special").await, labels, saying(wire, "plain").await];
        let addresses = [ends[0].address, ends[1].address, ends[2].address];
        let running = Running::start(Default::default(), snapshot(&routed(wire, &addresses))).await;
        let mut caller = RpcPeer::connect(wire, running.address).await;
        assert!(caller.ask(Ask { method: "special", ..Ask::new(1, "x") }).await.says("special"));
        assert!(caller.ask(Ask { method: "other", ..Ask::new(1, "x") }).await.says("plain"));
        let gray = Ask { labels: &[("color", "gray")], ..Ask::new(1, "x") };
        assert!(caller.ask(gray).await.says("Some(\"yes\") None"));
        let nowhere = caller.ask(Ask { service: "c.Other", ..Ask::new(1, "x") }).await;
        assert_eq!(nowhere.status(), if wire == Wire::Bolt { 6 } else { 60 });
        let http = caller.ask(Ask { service: "b.Other", ..Ask::new(1, "x") }).await;
        assert!(!http.is_ok());
        running.metric("weir_refused_total{reason=\"unsupported\"} 1").await;
    }
}

#[tokio::test]
async fn bolt_frames_of_version_2_keep_their_checksum() {
    use weir_codec::bolt;
    let wire = Wire::Bolt;
    let upstream = saying(wire, "yes").await;
    let (_running, mut caller) = between(wire, &[upstream.address]).await;
    let call = bolt::Call {
        id: 3,
        service: "a.Echo",
        method: "say",
        headers: &[],
        timeout: Duration::from_secs(9),
        one_way: false,
        content: b"x",
    };
    caller.send(bolt::Frame::request(bolt::Version::V2 { minor: 2, switches: 1 }, &call).unwrap().as_bytes()).await;
    let got = caller.next().await.unwrap();
    assert!(got.is_ok() && got.says("yes") && got.id() == 3);
    let Frame::Bolt(frame) = got.frame else { panic!("not bolt") };
    assert!(frame.version().has_checksum());
}

#[tokio::test]
async fn large_frames_pass_both_ways() {
    for wire in BOTH {
        let text: &'static str = "x".repeat(1 << 20).leak();
        let upstream = saying(wire, text).await;
        let (_running, mut caller) = between(wire, &[upstream.address]).await;
        for id in 0..3 {
            let got = caller.ask(Ask::new(id, text)).await;
            assert!(got.is_ok() && got.bytes().len() > text.len());
        }
    }
}

#[tokio::test]
async fn a_caller_that_leaves_its_answers_unread_is_cut_off_and_others_are_served() {
    let wire = Wire::Bolt;
    let text: &'static str = "x".repeat(60_000).leak();
    let upstream = upstream(wire, move |mut peer, _| async move {
        while let Some(got) = peer.request().await {
            let text = if got.says("short") { "short" } else { text };
            if peer.stream.write_all(&wire.answer(&got, text)).await.is_err() {
                return;
            }
        }
    })
    .await;
    let limits = format!("{}, limits: {{maxFrameBytes: 100000}}", wire.protocol());
    let running = wire.setup().listener(&limits).start(&[upstream.address]).await;
    let mut silent = RpcPeer::connect(wire, running.address).await;
    let many: Vec<u8> = (0..500).flat_map(|id| wire.request(&Ask::new(id, "x"))).collect();
    silent.send(many).await;
    running.metric("weir_refused_total{reason=\"unread\"} 1").await;
    let mut other = RpcPeer::connect(wire, running.address).await;
    assert!(other.ask(Ask::new(1, "short")).await.says("short"));
}
