use super::*;

fn span(name: &str) -> Span {
    Span {
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_id: None,
        name: name.into(),
        inbound: false,
        cluster: "stock".into(),
        status: 200,
        start_unix_nanos: 5,
        duration_nanos: 7,
    }
}

#[test]
fn a_batch_takes_what_waits_up_to_a_bound() {
    let (sender, queue) = queue();
    assert!(queue.batch().is_none());
    for index in 0..MAX_BATCH + 1 {
        sender.try_send(span(&index.to_string())).unwrap();
    }
    let batch = queue.batch().unwrap();
    assert_eq!((batch.len(), batch[0].name.as_str(), batch[0].end_unix_nanos), (MAX_BATCH, "0", 12));
    assert_eq!(queue.batch().unwrap().len(), 1);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let (sender, _queue) = queue();
    let taken = (0..MAX_WAITING + 10).filter(|_| sender.try_send(span("s")).is_ok()).count();
    assert_eq!(taken, MAX_WAITING);
}

#[tokio::test(start_paused = true)]
async fn losses_are_told_now_and_then() {
    let mut losses = Losses::default();
    losses.add(0, "-", "-");
    assert!(losses.told.is_none());
    losses.add(3, "-", "-");
    losses.add(4, "-", "-");
    assert_eq!(losses.untold, 4);
    tokio::time::advance(TELL_LOSSES).await;
    losses.add(1, "-", "-");
    assert_eq!(losses.untold, 0);
}

#[tokio::test]
async fn what_is_queued_reaches_the_collector() {
    let mut collector = weir_client::fixtures::FakeCollector::start(0).await;
    let (sender, queue) = queue();
    sender.try_send(span("GET stock/0")).unwrap();
    let options = OtlpOptions {
        address: collector.address.clone(),
        token: weir_client::Token::none(),
        service: "order".into(),
        instance: "order-1".into(),
        version: "1".into(),
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let exporting = tokio::spawn(queue.export(options, async move { drop(stopped.await) }));
    let spans = collector.next().await;
    assert_eq!((spans.len(), spans[0].name.as_str(), spans[0].is_server), (1, "GET stock/0", false));
    // The task goes on: what comes later is exported too.
    sender.try_send(span("GET stock/1")).unwrap();
    assert_eq!(collector.next().await[0].name, "GET stock/1");
    // What is queued at the end is exported before it.
    sender.try_send(span("GET stock/2")).unwrap();
    stop.send(()).unwrap();
    assert_eq!(collector.next().await[0].name, "GET stock/2");
    exporting.await.unwrap();
}
