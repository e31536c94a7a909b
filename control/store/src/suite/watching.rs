//! Watches: what is seen, from where, and when one has to list again.

use futures::StreamExt;
use weir_model::{App, AppSpec, Kind};

use super::{Case, author, case, caught_up, create, key, labelled, next, put, scale};
use crate::query::{Selector, WatchEvent, WatchQuery, WatchStream};
use crate::{Error, SharedStore, typed};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a watch sees what follows its version, in order", sees_what_follows),
        case("a watch says when it has caught up", says_when_caught_up),
        case("a watch of one kind or prefix sees nothing else", kind_and_prefix),
        case("a watch by labels sees resources come and go", labels_come_and_go),
        case("a watch from too long ago is told to list again", gone_at_once).keeping(3, 10, 10),
        case("a watch that falls behind is told to list again", gone_while_asleep).keeping(3, 10, 10),
        case("a watch from another store's version is told to list again", gone_ahead),
        case("a watch ends with its store", ends_with_the_store),
    ]
}

async fn watch(store: &SharedStore, query: WatchQuery) -> WatchStream {
    store.watch(&query).await.expect("a watch")
}

async fn sees_what_follows(store: SharedStore) {
    let a = create(&store, "a").await;
    let mut all = watch(&store, WatchQuery::all(0)).await;
    let mut later = watch(&store, WatchQuery::all(1)).await;
    let mut a = scale(&store, &a).await;
    a.status.serving = 1;
    typed::update_status(&*store, &a).await.expect("a status");
    store.delete(&key("a"), None, &author()).await.expect("a deletion");
    create(&store, "a").await;
    assert_eq!(next(&mut all).await, "ADDED a@1");
    for watch in [&mut all, &mut later] {
        for expected in ["MODIFIED a@2", "MODIFIED a@3", "DELETED a@4", "ADDED a@5"] {
            assert_eq!(next(watch).await, expected);
        }
    }
}

async fn says_when_caught_up(store: SharedStore) {
    let a = create(&store, "a").await;
    let mut changes = watch(&store, WatchQuery::all(0)).await;
    let seen = caught_up(&mut changes).await;
    assert_eq!(seen, [WatchEvent::Added(a.to_object())]);
    typed::create(&*store, &App::new("x", AppSpec::default()), &author()).await.expect("another kind");
    let mut filtered = watch(&store, WatchQuery::kind(Kind::Workload, 1)).await;
    let first = filtered.next().await.expect("a bookmark").expect("no error");
    assert_eq!(first, WatchEvent::Bookmark(2), "also past what it does not show");
}

async fn kind_and_prefix(store: SharedStore) {
    let mut kind = watch(&store, WatchQuery::kind(Kind::App, 0)).await;
    let mut prefix = watch(&store, WatchQuery { name_prefix: "st".to_owned(), ..WatchQuery::all(0) }).await;
    create(&store, "orders").await;
    create(&store, "stock").await;
    typed::create(&*store, &App::new("stock", AppSpec::default()), &author()).await.expect("another kind");
    assert_eq!(next(&mut kind).await, "ADDED stock@3");
    assert_eq!(next(&mut prefix).await, "ADDED stock@2");
    assert_eq!(next(&mut prefix).await, "ADDED stock@3");
}

async fn labels_come_and_go(store: SharedStore) {
    let selector = Selector([("lane".to_owned(), "gray".to_owned())].into());
    let mut gray = watch(&store, WatchQuery { selector, ..WatchQuery::all(0) }).await;
    let mut w = put(&store, &labelled("w", "lane", "base")).await;
    for lane in ["gray", "gray", "base", "base", "gray"] {
        w.metadata.labels.insert("lane".to_owned(), lane.to_owned());
        w.spec.replicas += 1;
        w = typed::update(&*store, &w, &author()).await.expect("an update");
    }
    store.delete(&key("w"), None, &author()).await.expect("a deletion");
    for expected in ["ADDED w@2", "MODIFIED w@3", "DELETED w@4", "ADDED w@6", "DELETED w@7"] {
        assert_eq!(next(&mut gray).await, expected);
    }
}

async fn gone_at_once(store: SharedStore) {
    for n in 0..5 {
        create(&store, &format!("w-{n}")).await;
    }
    for from in [0, 1] {
        let refused = store.watch(&WatchQuery::all(from)).await.err();
        assert!(matches!(refused, Some(Error::Gone { from: f, oldest: 2 }) if f == from), "{refused:?}");
    }
    let mut oldest = watch(&store, WatchQuery::all(2)).await;
    assert_eq!(next(&mut oldest).await, "ADDED w-2@3");
}

async fn gone_while_asleep(store: SharedStore) {
    let mut sleeper = watch(&store, WatchQuery::all(0)).await;
    create(&store, "first").await;
    assert_eq!(next(&mut sleeper).await, "ADDED first@1");
    for n in 0..10 {
        create(&store, &format!("w-{n}")).await;
    }
    let told = loop {
        match sleeper.next().await.expect("it is told") {
            Ok(WatchEvent::Bookmark(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(told, Err(Error::Gone { from: 1, oldest: 8 })), "{told:?}");
    assert!(sleeper.next().await.is_none(), "and ended");
}

async fn gone_ahead(store: SharedStore) {
    create(&store, "w").await;
    let refused = store.watch(&WatchQuery::all(2)).await.err();
    assert!(matches!(refused, Some(Error::Gone { from: 2, .. })), "{refused:?}");
}

async fn ends_with_the_store(store: SharedStore) {
    let mut changes = watch(&store, WatchQuery::all(0)).await;
    caught_up(&mut changes).await;
    drop(store);
    while let Some(event) = changes.next().await {
        assert!(matches!(event, Ok(WatchEvent::Bookmark(_))), "{event:?}");
    }
}
