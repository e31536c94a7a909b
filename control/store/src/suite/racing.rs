//! Many writers and watchers at once.

use futures::StreamExt;
use tokio::task::JoinSet;
use weir_model::WorkloadSpec;

use super::{Case, author, case, create, head, key, workload};
use crate::query::{WatchEvent, WatchQuery};
use crate::record::AuditQuery;
use crate::{Error, SharedStore, typed};

const WRITERS: usize = 8;
const ROUNDS: usize = 25;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("every watcher sees every write once, in order", watchers_see_all_in_order),
        case("of writes based on the same version one wins", one_wins),
        case("concurrent increments add up", increments_add_up),
        case("of concurrent creations of one name one wins", one_creates),
    ]
}

async fn watchers_see_all_in_order(store: SharedStore) {
    // Each round writes four times: create, spec, status, delete.
    let last = (WRITERS * ROUNDS * 4) as u64;
    let mut writers: JoinSet<()> = (0..WRITERS).map(|writer| live_and_die(store.clone(), writer)).collect();
    let mut watchers = JoinSet::new();
    for _ in 0..4 {
        // They begin at whatever version the writers have reached.
        let from = head(&store).await;
        watchers.spawn(follow(store.clone(), from, last));
        writers.join_next().await.expect("more writers than watchers").expect("the writer succeeds");
    }
    watchers.spawn(follow(store.clone(), 0, last));
    while let Some(writer) = writers.join_next().await {
        writer.expect("the writer succeeds");
    }
    while let Some(watcher) = watchers.join_next().await {
        watcher.expect("the watcher has seen all");
    }
    assert_eq!(head(&store).await, last);
}

async fn live_and_die(store: SharedStore, writer: usize) {
    for round in 0..ROUNDS {
        let name = format!("w-{writer}-{round}");
        let made = create(&store, &name).await;
        let mut scaled = super::scale(&store, &made).await;
        scaled.status.replicas = 1;
        let observed = typed::update_status(&*store, &scaled).await.expect("nobody else writes this one");
        let version = Some(observed.metadata.resource_version);
        store.delete(&key(&name), version, &author()).await.expect("nobody else writes this one");
    }
}

async fn follow(store: SharedStore, from: u64, last: u64) {
    let mut watch = store.watch(&WatchQuery::all(from)).await.expect("a watch");
    let mut expected = from + 1;
    while expected <= last {
        match watch.next().await.expect("the watch goes on").expect("it keeps up") {
            WatchEvent::Bookmark(version) => assert_eq!(version, expected - 1),
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                assert_eq!(object.metadata.resource_version, expected);
                expected += 1;
            }
        }
    }
}

async fn one_wins(store: SharedStore) {
    let base = create(&store, "w").await;
    let mut racers = JoinSet::new();
    for racer in 0..WRITERS {
        let (store, mut wanted) = (store.clone(), base.clone());
        wanted.spec.replicas = 100 + racer as u32;
        racers.spawn(async move { typed::update(&*store, &wanted, &author()).await });
    }
    let results = racers.join_all().await;
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    let conflicts = results.iter().filter(|r| matches!(r, Err(Error::Conflict { stored: 2, given: 1, .. }))).count();
    assert_eq!(conflicts, WRITERS - 1);
    let stored = typed::get::<WorkloadSpec>(&*store, "w").await.expect("a read").expect("it is there");
    assert_eq!(&stored, winners[0]);
    assert_eq!(store.audit(&AuditQuery::default()).await.expect("the audit log").len(), 2);
}

async fn increments_add_up(store: SharedStore) {
    create(&store, "w").await;
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..ROUNDS {
                increment(&store).await;
            }
        });
    }
    writers.join_all().await;
    let stored = typed::get::<WorkloadSpec>(&*store, "w").await.expect("a read").expect("it is there");
    let written = (WRITERS * ROUNDS) as u64;
    assert_eq!(u64::from(stored.spec.replicas), 1 + written);
    assert_eq!((stored.metadata.generation, stored.metadata.resource_version), (1 + written, 1 + written));
}

async fn increment(store: &SharedStore) {
    loop {
        let mut read = typed::get::<WorkloadSpec>(&**store, "w").await.expect("a read").expect("it is there");
        read.spec.replicas += 1;
        match typed::update(&**store, &read, &author()).await {
            Ok(_) => return,
            Err(Error::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

async fn one_creates(store: SharedStore) {
    let mut racers = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        racers.spawn(async move { typed::create(&*store, &workload("w"), &author()).await });
    }
    let results = racers.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(Error::AlreadyExists(_)))));
    assert_eq!(head(&store).await, 1);
}
