//! Single resources: what a write sets, keeps and refuses.

use serde_json::json;
use weir_model::{Object, WorkloadSpec};

use super::{Case, author, case, create, head, key, put, scale, workload};
use crate::record::AuditQuery;
use crate::{Error, SharedStore, rules, typed};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("create sets what the store owns", create_sets_what_the_store_owns),
        case("create refuses what exists or is invalid", create_refuses),
        case("update moves the generation with the spec only", update_moves_the_generation),
        case("update refuses what was changed, is gone or is invalid", update_refuses),
        case("an update that changes nothing writes nothing", no_change_no_write),
        case("the status is written apart from the spec", status_is_apart),
        case("delete removes once", delete_removes_once),
        case("a resource beyond the size limit is refused", size_is_bounded),
    ]
}

async fn create_sets_what_the_store_owns(store: SharedStore) {
    let mut given = workload("w");
    given.metadata.uid = "mine".to_owned();
    given.metadata.resource_version = 77;
    given.metadata.generation = 9;
    given.metadata.annotations.insert("note".to_owned(), "kept".to_owned());
    let made = put(&store, &given).await;
    assert_eq!((made.metadata.resource_version, made.metadata.generation), (1, 1));
    assert_eq!(made.metadata.uid.len(), 36, "{}", made.metadata.uid);
    assert!(made.metadata.created_at.is_some());
    assert_eq!(made.metadata.annotations, given.metadata.annotations);
    assert_eq!(made.spec, given.spec);
    let stored = typed::get::<WorkloadSpec>(&*store, "w").await.expect("a store that reads");
    assert_eq!(stored, Some(made.clone()));
    let second = create(&store, "second").await;
    assert_eq!(second.metadata.resource_version, 2);
    assert_ne!(second.metadata.uid, made.metadata.uid);
    assert_eq!(store.get(&key("missing")).await.expect("a store that reads"), None);
}

async fn create_refuses(store: SharedStore) {
    create(&store, "w").await;
    let again = typed::create(&*store, &workload("w"), &author()).await;
    assert!(matches!(again, Err(Error::AlreadyExists(k)) if k == key("w")));
    let mut bad = workload("bad");
    bad.spec.proxy_version.clear();
    let Err(Error::Invalid(invalid)) = typed::create(&*store, &bad, &author()).await else { panic!("it is invalid") };
    assert_eq!(invalid.0[0].path, "spec.proxyVersion");
    let unknown = Object { spec: json!({"replikas": 3}), ..workload("bad").to_object() };
    assert!(matches!(store.create(unknown, &author()).await, Err(Error::Invalid(_))));
    let foreign = Object { api_version: "weir.dev/v0".to_owned(), ..workload("bad").to_object() };
    assert!(matches!(store.create(foreign, &author()).await, Err(Error::Invalid(_))));
    assert_eq!(head(&store).await, 1, "nothing refused was written");
}

async fn update_moves_the_generation(store: SharedStore) {
    let made = create(&store, "w").await;
    let scaled = scale(&store, &made).await;
    assert_eq!((scaled.metadata.resource_version, scaled.metadata.generation), (2, 2));
    let mut wanted = scaled.clone();
    wanted.metadata.labels.insert("tier".to_owned(), "1".to_owned());
    // What the store owns cannot be changed by writing it.
    wanted.metadata.uid = "mine".to_owned();
    wanted.metadata.generation = 99;
    wanted.metadata.created_at = None;
    let labelled = typed::update(&*store, &wanted, &author()).await.expect("an update");
    assert_eq!((labelled.metadata.resource_version, labelled.metadata.generation), (3, 2));
    assert_eq!(labelled.metadata.uid, made.metadata.uid);
    assert_eq!(labelled.metadata.created_at, made.metadata.created_at);
    assert_eq!(typed::get::<WorkloadSpec>(&*store, "w").await.expect("a read"), Some(labelled));
}

async fn update_refuses(store: SharedStore) {
    let missing = typed::update(&*store, &workload("w"), &author()).await;
    assert!(matches!(missing, Err(Error::NotFound(k)) if k == key("w")));
    let first = create(&store, "w").await;
    let second = scale(&store, &first).await;
    for stale in [first.clone(), workload("w")] {
        let given = stale.metadata.resource_version;
        let refused = typed::update(&*store, &stale, &author()).await;
        assert!(matches!(refused, Err(Error::Conflict { stored: 2, given: g, .. }) if g == given), "{refused:?}");
    }
    let mut bad = second.clone();
    bad.spec.app = "Not A Name".to_owned();
    assert!(matches!(typed::update(&*store, &bad, &author()).await, Err(Error::Invalid(_))));
    assert_eq!(typed::get::<WorkloadSpec>(&*store, "w").await.expect("a read"), Some(second));
    assert_eq!(head(&store).await, 2);
}

async fn no_change_no_write(store: SharedStore) {
    let made = create(&store, "w").await;
    let same = typed::update(&*store, &made, &author()).await.expect("an update");
    assert_eq!(same, made);
    assert_eq!(typed::update_status(&*store, &made).await.expect("an update"), made);
    // The same, said in fewer words: what is left out has its default.
    let short = json!({"app": "orders", "unit": "east", "replicas": 1, "proxyVersion": "1.0.0"});
    let terse = Object { spec: short, ..made.to_object() };
    let same = store.update(terse, &author()).await.expect("an update");
    assert_eq!(same.metadata, made.metadata);
    assert_eq!(head(&store).await, 1);
    assert_eq!(store.audit(&AuditQuery::default()).await.expect("the audit log").len(), 1);
}

async fn status_is_apart(store: SharedStore) {
    let made = create(&store, "w").await;
    let mut wanted = made.clone();
    wanted.status.serving = 3;
    wanted.spec.replicas = 50;
    wanted.metadata.labels.insert("sneaked".to_owned(), "in".to_owned());
    let observed = typed::update_status(&*store, &wanted).await.expect("a status");
    assert_eq!(observed.status.serving, 3);
    assert_eq!((&observed.spec, &observed.metadata.labels), (&made.spec, &made.metadata.labels));
    assert_eq!((observed.metadata.resource_version, observed.metadata.generation), (2, 1));

    let stale = typed::update_status(&*store, &made).await;
    assert!(matches!(stale, Err(Error::Conflict { stored: 2, given: 1, .. })), "{stale:?}");
    let wrong = Object { status: json!({"serving": "many"}), ..observed.to_object() };
    assert!(matches!(store.update_status(wrong).await, Err(Error::Invalid(_))));
    let missing = typed::update_status(&*store, &workload("missing")).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));

    let mut wanted = observed.clone();
    wanted.spec.replicas = 2;
    wanted.status.serving = 77;
    let scaled = typed::update(&*store, &wanted, &author()).await.expect("an update");
    assert_eq!((scaled.spec.replicas, scaled.status.serving), (2, 3), "an update of the spec keeps the status");
}

async fn delete_removes_once(store: SharedStore) {
    let made = create(&store, "w").await;
    scale(&store, &made).await;
    let stale = store.delete(&key("w"), Some(1), &author()).await;
    assert!(matches!(stale, Err(Error::Conflict { stored: 2, given: 1, .. })), "{stale:?}");
    let last = store.delete(&key("w"), Some(2), &author()).await.expect("a deletion");
    assert_eq!(last.metadata.resource_version, 3);
    assert_eq!(last.spec["replicas"], 2);
    assert_eq!(store.get(&key("w")).await.expect("a read"), None);
    let again = store.delete(&key("w"), None, &author()).await;
    assert!(matches!(again, Err(Error::NotFound(k)) if k == key("w")));
    let reborn = create(&store, "w").await;
    assert_eq!((reborn.metadata.resource_version, reborn.metadata.generation), (4, 1));
    assert_ne!(reborn.metadata.uid, made.metadata.uid);
    store.delete(&key("w"), None, &author()).await.expect("a deletion at any version");
    assert_eq!(head(&store).await, 5);
}

async fn size_is_bounded(store: SharedStore) {
    let mut large = workload("large");
    large.metadata.annotations.insert("note".to_owned(), "x".repeat(rules::MAX_OBJECT_BYTES));
    let refused = typed::create(&*store, &large, &author()).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let mut ample = workload("ample");
    ample.metadata.annotations.insert("note".to_owned(), "x".repeat(rules::MAX_OBJECT_BYTES / 2));
    put(&store, &ample).await;
}
