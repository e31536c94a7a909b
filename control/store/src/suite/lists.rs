//! Lists: order, selection, pages.

use std::collections::BTreeSet;

use weir_model::{App, AppSpec, Kind};

use super::{Case, author, case, create, key, labelled, put, scale, workload};
use crate::query::{ListQuery, Selector};
use crate::{SharedStore, typed};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("lists are in the order of names, of one kind", order_and_kind),
        case("lists select by labels and by prefix", selection),
        case("pages cover everything once, at any size", pages),
        case("pages are stable while others write", pages_while_writing),
    ]
}

async fn names(store: &SharedStore, query: &ListQuery) -> Vec<String> {
    let page = store.list(query).await.expect("a list");
    page.items.into_iter().map(|object| object.metadata.name).collect()
}

async fn order_and_kind(store: SharedStore) {
    for name in ["b", "a.b", "a", "a0", "ab", "a-b"] {
        create(&store, name).await;
    }
    typed::create(&*store, &App::new("a", AppSpec::default()), &author()).await.expect("another kind");
    let all = ListQuery::all(Kind::Workload);
    assert_eq!(names(&store, &all).await, ["a", "a-b", "a.b", "a0", "ab", "b"]);
    assert_eq!(names(&store, &ListQuery::all(Kind::App)).await, ["a"]);
    let page = store.list(&ListQuery::all(Kind::Route)).await.expect("an empty list");
    assert_eq!((page.items.len(), page.resource_version, page.next), (0, 7, None));
}

async fn selection(store: SharedStore) {
    for (name, value) in [("orders-1", "east"), ("orders-2", "west"), ("stock-1", "east")] {
        put(&store, &labelled(name, "unit", value)).await;
    }
    let mut both = labelled("stock-2", "unit", "east");
    both.metadata.labels.insert("quote\"d".replace('"', "."), "x".to_owned());
    put(&store, &both).await;
    create(&store, "plain").await;
    let select = |labels: &[(&str, &str)], prefix: &str| ListQuery {
        selector: Selector(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
        name_prefix: prefix.to_owned(),
        ..ListQuery::all(Kind::Workload)
    };
    assert_eq!(names(&store, &select(&[("unit", "east")], "")).await, ["orders-1", "stock-1", "stock-2"]);
    assert_eq!(names(&store, &select(&[("unit", "east")], "stock")).await, ["stock-1", "stock-2"]);
    assert_eq!(names(&store, &select(&[("unit", "east"), ("quote.d", "x")], "")).await, ["stock-2"]);
    assert_eq!(names(&store, &select(&[], "orders-")).await, ["orders-1", "orders-2"]);
    let none: [String; 0] = [];
    for nothing in [select(&[("unit", "north")], ""), select(&[("' OR 1=1 --", "x")], ""), select(&[], "%")] {
        assert_eq!(names(&store, &nothing).await, none);
    }
}

async fn pages(store: SharedStore) {
    for n in 0..23 {
        put(&store, &labelled(&format!("w-{n:02}"), "odd", if n % 2 == 0 { "no" } else { "yes" })).await;
    }
    for limit in [1, 2, 5, 11, 23, 24] {
        let mut query = ListQuery { limit, name_prefix: "w-".to_owned(), ..ListQuery::all(Kind::Workload) };
        assert_eq!(paged(&store, &mut query).await.len(), 23);
        query.selector.0.insert("odd".to_owned(), "yes".to_owned());
        query.after = None;
        assert_eq!(paged(&store, &mut query).await.len(), 11);
    }
    let before_prefix =
        ListQuery { after: Some("a".to_owned()), name_prefix: "w-2".to_owned(), ..ListQuery::all(Kind::Workload) };
    assert_eq!(names(&store, &before_prefix).await, ["w-20", "w-21", "w-22"]);
    let zero = ListQuery { limit: 0, ..ListQuery::all(Kind::Workload) };
    assert_eq!(names(&store, &zero).await.len(), 1, "a page has at least one item");
}

/// All names, each checked to come once and in order.
async fn paged(store: &SharedStore, query: &mut ListQuery) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    loop {
        let page = store.list(query).await.expect("a page");
        assert!(page.items.len() <= query.limit);
        for object in page.items {
            assert!(seen.last().is_none_or(|last| *last < object.metadata.name), "in order, once");
            seen.insert(object.metadata.name);
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return seen,
        }
    }
}

async fn pages_while_writing(store: SharedStore) {
    let mut stays = Vec::new();
    for n in 0..40 {
        stays.push(create(&store, &format!("stays-{n:02}")).await);
        create(&store, &format!("goes-{n:02}")).await;
    }
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for (n, stay) in stays.iter().enumerate() {
                scale(&store, stay).await;
                store.delete(&key(&format!("goes-{n:02}")), None, &author()).await.expect("a deletion");
                put(&store, &workload(&format!("comes-{n:02}"))).await;
            }
        }
    });
    let mut query = ListQuery { limit: 3, ..ListQuery::all(Kind::Workload) };
    let seen = paged(&store, &mut query).await;
    writer.await.expect("the writer succeeds");
    assert_eq!(seen.iter().filter(|name| name.starts_with("stays-")).count(), 40);
}
