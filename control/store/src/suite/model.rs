//! A store against a model of a few lines: what any sequence of operations must come to.

use std::collections::BTreeMap;

use futures::FutureExt;
use weir_model::{Object, Workload, WorkloadSpec};

use super::{author, caught_up, key, workload};
use crate::query::{ListQuery, Selector, WatchEvent, WatchQuery};
use crate::record::AuditQuery;
use crate::{Error, SharedStore, Store, typed};

/// One operation, on one of a few names so that operations meet.
#[derive(Debug, Clone, Copy)]
pub struct Op {
    verb: Verb,
    name: u8,
    value: u32,
    /// Based on what was stored before the last write rather than on what is stored.
    stale: bool,
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Create,
    Update,
    Relabel,
    Status,
    Delete,
    DeleteAny,
}

impl Op {
    /// Any bytes are an operation; this is how property tests make them.
    pub fn from_bytes((verb, name, value): (u8, u8, u8)) -> Op {
        let verbs = [Verb::Create, Verb::Update, Verb::Relabel, Verb::Status, Verb::Delete, Verb::DeleteAny];
        let verb = verbs[usize::from(verb) % verbs.len()];
        Op { verb, name: name % 4, value: u32::from(value % 3), stale: value >= 224 }
    }

    fn name(self) -> String {
        format!("w-{}", self.name)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    replicas: u32,
    label: u32,
    serving: u32,
    version: u64,
    generation: u64,
}

#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<String, Row>,
    version: u64,
    audited: usize,
}

/// What an operation came to.
#[derive(Debug, PartialEq)]
enum Answer {
    Written(u64),
    Same(u64),
    NotFound,
    AlreadyExists,
    Conflict,
}

/// Applies `ops` to `store`, which must be new, and to the model; they must agree at every step and at the end, and
/// replaying the watch must come to the same.
///
/// # Panics
/// Where they differ.
pub async fn check(store: SharedStore, ops: &[Op]) {
    let mut model = Model::default();
    for op in ops {
        let before = model.version;
        let expected = model.apply(*op);
        assert_eq!(apply(&*store, *op, before).await, expected, "{op:?} of {ops:?}");
    }
    compare_lists(&store, &model).await;
    compare_replay(&store, &model).await;
    let audit = store.audit(&AuditQuery { key: None, limit: 1_000 }).await.expect("the audit log");
    assert_eq!(audit.len(), model.audited);
}

impl Model {
    fn apply(&mut self, op: Op) -> Answer {
        let next = self.version + 1;
        let Some(row) = self.rows.get_mut(&op.name()) else { return self.apply_to_none(op) };
        if let Verb::Create = op.verb {
            return Answer::AlreadyExists;
        }
        if op.stale && !matches!(op.verb, Verb::DeleteAny) {
            return Answer::Conflict;
        }
        let old = row.clone();
        match op.verb {
            Verb::Update => row.replicas = op.value,
            Verb::Relabel => row.label = op.value,
            Verb::Status => row.serving = op.value,
            Verb::Create | Verb::Delete | Verb::DeleteAny => return self.remove(op),
        }
        if *row == old {
            return Answer::Same(old.version);
        }
        row.version = next;
        row.generation += u64::from(row.replicas != old.replicas);
        self.written(!matches!(op.verb, Verb::Status))
    }

    fn apply_to_none(&mut self, op: Op) -> Answer {
        let Verb::Create = op.verb else { return Answer::NotFound };
        let version = self.version + 1;
        self.rows.insert(op.name(), Row { replicas: op.value, label: 0, serving: 0, version, generation: 1 });
        self.written(true)
    }

    fn remove(&mut self, op: Op) -> Answer {
        self.rows.remove(&op.name());
        self.written(true)
    }

    fn written(&mut self, audited: bool) -> Answer {
        self.version += 1;
        self.audited += usize::from(audited);
        Answer::Written(self.version)
    }
}

async fn apply(store: &dyn Store, op: Op, before: u64) -> Answer {
    let read = typed::get::<WorkloadSpec>(store, &op.name()).await.expect("a read");
    let mut wanted = read.unwrap_or_else(|| workload(&op.name()));
    if op.stale {
        wanted.metadata.resource_version = wanted.metadata.resource_version.wrapping_sub(1);
    }
    let version = wanted.metadata.resource_version;
    let result = match op.verb {
        Verb::Create => {
            wanted.spec.replicas = op.value;
            wanted.metadata.labels.insert("label".to_owned(), "0".to_owned());
            typed::create(store, &wanted, &author()).await.map(|made| made.metadata.resource_version)
        }
        Verb::Update | Verb::Relabel | Verb::Status => edit(store, op, wanted).await,
        Verb::Delete => deleted(store.delete(&key(&op.name()), Some(version), &author()).await),
        Verb::DeleteAny => deleted(store.delete(&key(&op.name()), None, &author()).await),
    };
    match result {
        Ok(version) if version > before => Answer::Written(version),
        Ok(version) => Answer::Same(version),
        Err(Error::NotFound(_)) => Answer::NotFound,
        Err(Error::AlreadyExists(_)) => Answer::AlreadyExists,
        Err(Error::Conflict { .. }) => Answer::Conflict,
        Err(other) => panic!("{op:?}: {other}"),
    }
}

async fn edit(store: &dyn Store, op: Op, mut wanted: Workload) -> Result<u64, Error> {
    let written = match op.verb {
        Verb::Status => {
            wanted.status.serving = op.value;
            typed::update_status(store, &wanted).await?
        }
        Verb::Relabel => {
            wanted.metadata.labels.insert("label".to_owned(), op.value.to_string());
            typed::update(store, &wanted, &author()).await?
        }
        _ => {
            wanted.spec.replicas = op.value;
            typed::update(store, &wanted, &author()).await?
        }
    };
    Ok(written.metadata.resource_version)
}

fn deleted(result: Result<Object, Error>) -> Result<u64, Error> {
    result.map(|last| last.metadata.resource_version)
}

fn row(object: &Object) -> (String, Row) {
    let workload = Workload::try_from(object.clone()).expect("stored objects are valid");
    let row = Row {
        replicas: workload.spec.replicas,
        label: workload.metadata.labels["label"].parse().expect("a number"),
        serving: workload.status.serving,
        version: workload.metadata.resource_version,
        generation: workload.metadata.generation,
    };
    (workload.metadata.name, row)
}

async fn compare_lists(store: &SharedStore, model: &Model) {
    let all = ListQuery::all(weir_model::Kind::Workload);
    let page = store.list(&all).await.expect("a list");
    assert_eq!(page.items.iter().map(row).collect::<BTreeMap<_, _>>(), model.rows);
    assert_eq!(page.resource_version, model.version);
    for label in 0..3 {
        let selector = Selector([("label".to_owned(), label.to_string())].into());
        let page = store.list(&ListQuery { selector, ..all.clone() }).await.expect("a list");
        let expected = model.rows.iter().filter(|(_, row)| row.label == label).map(|(name, _)| name.clone());
        assert!(page.items.into_iter().map(|object| object.metadata.name).eq(expected));
    }
}

/// Folding the changes gives what is listed, for all and for those with a label.
async fn compare_replay(store: &SharedStore, model: &Model) {
    for label in [None, Some(0), Some(1)] {
        let selector = Selector(label.map(|label: u32| ("label".to_owned(), label.to_string())).into_iter().collect());
        let query = WatchQuery { selector, ..WatchQuery::all(0) };
        let mut watch = store.watch(&query).await.expect("a watch");
        let mut rows = BTreeMap::new();
        for event in caught_up(&mut watch).await {
            fold(&mut rows, event);
        }
        assert!(futures::StreamExt::next(&mut watch).now_or_never().is_none(), "nothing more");
        let wanted = |row: &Row| label.is_none_or(|label| row.label == label);
        let expected: BTreeMap<_, _> = model.rows.clone().into_iter().filter(|(_, row)| wanted(row)).collect();
        assert_eq!(rows, expected);
    }
}

fn fold(rows: &mut BTreeMap<String, Row>, event: WatchEvent) {
    match event {
        WatchEvent::Added(object) => {
            let (name, row) = row(&object);
            assert!(rows.insert(name, row).is_none(), "added once");
        }
        WatchEvent::Modified(object) => {
            let (name, row) = row(&object);
            assert!(rows.insert(name, row).is_some(), "modified only if it was there");
        }
        WatchEvent::Deleted(object) => {
            assert!(rows.remove(&object.metadata.name).is_some(), "deleted only if it was there");
        }
        WatchEvent::Bookmark(_) => {}
    }
}
