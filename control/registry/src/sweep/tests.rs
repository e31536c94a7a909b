//! What the leases decide reaches the store in spite of its failures.

use std::sync::Mutex;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::advance;
use weir_model::meta::holds;
use weir_model::{Author, Key, Object};
use weir_store::memory::MemoryStore;
use weir_store::observed::Observed;
use weir_store::{AuditEntry, AuditQuery, Event, EventQuery, Lease, ListPage, ListQuery, Result, SharedStore, Store};

use super::*;
use crate::{Options, Registry, anyone};

/// A store that can't write the status of one resource.
#[derive(Clone)]
struct Flaky {
    inner: MemoryStore,
    fails_for: Arc<Mutex<Option<&'static str>>>,
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &Key) -> Result<Option<Object>> {
        self.inner.get(key).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage> {
        self.inner.list(query).await
    }

    async fn create(&self, object: Object, author: &Author) -> Result<Object> {
        self.inner.create(object, author).await
    }

    async fn update(&self, object: Object, author: &Author) -> Result<Object> {
        self.inner.update(object, author).await
    }

    async fn update_status(&self, object: Object) -> Result<Object> {
        if *self.fails_for.lock().unwrap() == Some(object.metadata.name.as_str()) {
            return Err(Error::Unavailable("the disk is full".to_owned()));
        }
        self.inner.update_status(object).await
    }

    async fn delete(&self, key: &Key, version: Option<u64>, author: &Author) -> Result<Object> {
        self.inner.delete(key, version, author).await
    }

    async fn watch(&self, query: &WatchQuery) -> Result<WatchStream> {
        self.inner.watch(query).await
    }

    async fn acquire_lease(&self, name: &str, holder: &str, ttl: Duration, now: Timestamp) -> Result<Option<Lease>> {
        self.inner.acquire_lease(name, holder, ttl, now).await
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<()> {
        self.inner.release_lease(name, holder).await
    }

    fn fenced(&self, _: &Lease) -> SharedStore {
        Arc::new(self.clone())
    }

    async fn append_event(&self, event: Event) -> Result<()> {
        self.inner.append_event(event).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<Event>> {
        self.inner.events(query).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
        self.inner.audit(query).await
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

struct Scene {
    store: Flaky,
    sweeper: Sweeper,
}

impl Scene {
    /// Five instances, of which the first two have lost their streams so long ago that they are overdue.
    async fn new() -> Scene {
        let store = Flaky { inner: MemoryStore::new(), fails_for: Arc::default() };
        let registry =
            Registry::new(Arc::new(store.clone()), Arc::new(Observed::default()), anyone(), Options::default());
        let scene = Scene { store, sweeper: Sweeper::new(registry.inner) };
        for name in NAMES {
            scene.join(name).await;
        }
        for name in &NAMES[..2] {
            let session = scene.open(name);
            scene.sweeper.inner.leases().close(name, session, Instant::now());
        }
        advance(scene.sweeper.inner.options.stream_grace).await;
        scene
    }

    async fn join(&self, name: &str) {
        let spec = serde_json::from_value(serde_json::json!({"app": "stock", "address": "127.0.0.1", "port": 8080}));
        let instance = Instance::new(name, spec.expect("a spec"));
        typed::create(&self.store, &instance, &Author::new("test", "a test")).await.expect("new");
        let noted = |instance: &mut Instance| {
            instance.status.conditions.push(weir_model::Condition {
                r#type: ALIVE.to_owned(),
                status: ConditionStatus::True,
                reason: "Registered".to_owned(),
                message: String::new(),
                last_transition_time: Timestamp::UNIX_EPOCH,
            });
            true
        };
        typed::modify_status::<InstanceSpec>(&self.store, name, noted).await.expect("stored");
        self.open(name);
    }

    fn open(&self, name: &str) -> u64 {
        let inner = &self.sweeper.inner;
        inner.leases().open("stock", name, "proxy", Instant::now(), &inner.options).expect("nobody else has it")
    }

    fn fail_for(&self, name: Option<&'static str>) {
        *self.store.fails_for.lock().unwrap() = name;
    }

    async fn alive(&self) -> Vec<&'static str> {
        let mut alive = Vec::new();
        for name in NAMES {
            let instance = typed::get::<InstanceSpec>(&self.store, name).await.expect("readable").expect("there");
            alive.extend(holds(&instance.status.conditions, ALIVE).then_some(name));
        }
        alive
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_could_not_be_written_is_tried_again_and_holds_up_no_other() {
    let mut scene = Scene::new().await;
    scene.fail_for(Some("a"));
    scene.sweeper.sweep().await;
    assert_eq!(scene.alive().await, ["a", "c", "d", "e"], "the second is written though the first failed");
    scene.fail_for(None);
    scene.sweeper.sweep().await;
    assert_eq!(scene.alive().await, ["c", "d", "e"]);
    assert!(scene.sweeper.undone.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_decision_about_one_that_is_back_is_dropped() {
    let mut scene = Scene::new().await;
    scene.fail_for(Some("a"));
    scene.sweeper.sweep().await;
    scene.open("a");
    scene.fail_for(None);
    scene.sweeper.sweep().await;
    assert_eq!(scene.alive().await, ["a", "c", "d", "e"]);
    assert!(scene.sweeper.undone.is_empty());
}
