//! Leases and their fencing, events, the audit log.

use std::time::Duration;

use jiff::Timestamp;
use weir_model::{Author, Key};

use super::{Case, author, case, create, head, key, scale, workload};
use crate::record::{AuditQuery, Event, EventQuery, EventType, Lease};
use crate::{Error, SharedStore, typed};

const TTL: Duration = Duration::from_secs(10);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a lease has one holder until it ends", one_holder),
        case("a released lease is free, and fences anew", release),
        case("a lost lease fences its holder's writes", fencing),
        case("events are kept in order up to the bound", events).keeping(100, 5, 5),
        case("every write of an author is audited, and only those", audit),
        case("the audit log is kept up to the bound", audit_is_bounded).keeping(100, 5, 5),
    ]
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).expect("a time within range")
}

async fn acquire(store: &SharedStore, holder: &str, seconds: i64) -> Option<Lease> {
    store.acquire_lease("controller/x", holder, TTL, at(seconds)).await.expect("a store that answers")
}

async fn one_holder(store: SharedStore) {
    let first = acquire(&store, "a", 0).await.expect("it is free");
    let expected = Lease { name: "controller/x".to_owned(), holder: "a".to_owned(), fencing: 1, expires_at: at(10) };
    assert_eq!(first, expected);
    assert_eq!(acquire(&store, "b", 9).await, None);
    let renewed = acquire(&store, "a", 9).await.expect("its own");
    assert_eq!((renewed.fencing, renewed.expires_at), (1, at(19)));
    assert_eq!(acquire(&store, "b", 18).await, None);
    let taken = acquire(&store, "b", 19).await.expect("it has ended");
    assert_eq!((taken.fencing, taken.expires_at), (2, at(29)));
    assert_eq!(acquire(&store, "a", 20).await, None);
    let other = store.acquire_lease("controller/y", "a", TTL, at(20)).await.expect("a store that answers");
    assert_eq!(other.map(|lease| lease.fencing), Some(1), "leases are apart");
}

async fn release(store: SharedStore) {
    acquire(&store, "a", 0).await.expect("it is free");
    store.release_lease("controller/x", "b").await.expect("nothing to do");
    assert_eq!(acquire(&store, "b", 1).await, None, "only the holder can release it");
    store.release_lease("controller/x", "a").await.expect("released");
    store.release_lease("controller/x", "a").await.expect("nothing to do");
    store.release_lease("controller/none", "a").await.expect("nothing to do");
    assert_eq!(acquire(&store, "b", 1).await.map(|lease| lease.fencing), Some(2));
    store.release_lease("controller/x", "b").await.expect("released");
    assert_eq!(acquire(&store, "b", 2).await.map(|lease| lease.fencing), Some(3), "though it be the same holder");
}

async fn fencing(store: SharedStore) {
    let lease = acquire(&store, "a", 0).await.expect("it is free");
    let leader = store.fenced(&lease);
    let w = create(&leader, "w").await;
    acquire(&store, "a", 5).await.expect("renewed");
    let w = scale(&leader, &w).await;
    // At second 16 the lease has ended, but nobody else has it.
    let mut w = scale(&leader, &w).await;
    acquire(&store, "b", 16).await.expect("it has ended");
    w.spec.replicas = 99;
    w.status.replicas = 99;
    let refusals = [
        typed::create(&*leader, &workload("other"), &author()).await.err(),
        typed::update(&*leader, &w, &author()).await.err(),
        typed::update_status(&*leader, &w).await.err(),
        leader.delete(&key("w"), None, &author()).await.err(),
    ];
    for refusal in refusals {
        assert!(matches!(&refusal, Some(Error::Fenced { lease }) if lease == "controller/x"), "{refusal:?}");
    }
    assert_eq!(head(&store).await, 3, "nothing was written");
    assert!(leader.get(&key("w")).await.expect("a read").is_some(), "reading is not fenced");
    let lease = acquire(&store, "b", 17).await.expect("its own");
    let leader = store.fenced(&lease);
    let w = scale(&leader, &w).await;
    store.release_lease("controller/x", "b").await.expect("released");
    assert!(matches!(typed::update(&*leader, &w, &author()).await, Err(Error::Fenced { .. })));
    typed::update(&*store, &w, &author()).await.expect("an unfenced handle writes on");
}

fn event(about: Key, message: &str) -> Event {
    Event {
        time: at(0),
        about,
        r#type: EventType::Normal,
        reason: "Tested".to_owned(),
        message: message.to_owned(),
        source: "suite".to_owned(),
    }
}

async fn messages(store: &SharedStore, about: Option<Key>, limit: usize) -> Vec<String> {
    let events = store.events(&EventQuery { about, limit }).await.expect("events");
    events.into_iter().map(|event| event.message).collect()
}

async fn events(store: SharedStore) {
    for n in 0..8 {
        let about = if n % 2 == 0 { key("even") } else { key("odd") };
        store.append_event(event(about, &n.to_string())).await.expect("an event");
    }
    assert_eq!(messages(&store, None, 0).await, ["3", "4", "5", "6", "7"]);
    assert_eq!(messages(&store, None, 2).await, ["6", "7"]);
    assert_eq!(messages(&store, Some(key("even")), 0).await, ["4", "6"]);
    assert_eq!(messages(&store, Some(key("odd")), 1).await, ["7"]);
    let warning = Event { r#type: EventType::Warning, ..event(key("new"), "as it was given") };
    store.append_event(warning.clone()).await.expect("an event about what does not exist");
    let found = store.events(&EventQuery { about: Some(key("new")), limit: 0 }).await.expect("events");
    assert_eq!(found, [warning]);
    assert_eq!(head(&store).await, 0, "events are no writes of resources");
}

async fn audit(store: SharedStore) {
    let alice = Author::new("user/alice", "first try");
    let made = typed::create(&*store, &workload("w"), &alice).await.expect("a creation");
    let mut w = scale(&store, &made).await;
    w.status.serving = 1;
    typed::update_status(&*store, &w).await.expect("a status");
    typed::update(&*store, &w, &author()).await.expect_err("the status came in between");
    store.delete(&key("w"), None, &author()).await.expect("a deletion");
    create(&store, "x").await;
    let entries = store.audit(&AuditQuery { key: Some(key("w")), limit: 0 }).await.expect("the audit log");
    let told: Vec<_> = entries.iter().map(|e| (e.verb.as_str(), e.resource_version)).collect();
    assert_eq!(told, [("create", 1), ("update", 2), ("delete", 4)]);
    assert_eq!((&entries[0].author, &entries[1].author), (&alice, &author()));
    assert!(entries.is_sorted_by_key(|entry| entry.time));
    let newest = store.audit(&AuditQuery { key: None, limit: 1 }).await.expect("the audit log");
    assert_eq!((newest.len(), &newest[0].key), (1, &key("x")));
}

async fn audit_is_bounded(store: SharedStore) {
    for n in 0..12 {
        create(&store, &format!("w-{n}")).await;
    }
    let entries = store.audit(&AuditQuery { key: None, limit: 1_000 }).await.expect("the audit log");
    let versions: Vec<u64> = entries.iter().map(|entry| entry.resource_version).collect();
    assert_eq!(versions, [8, 9, 10, 11, 12]);
}
