//! What every store must do, as one suite run on each: see [`run`]. [`model`] is for property tests: the same store
//! against a model of a few lines.
//!
//! Nothing here sleeps or looks at the machine's clock: tests wait for what they expect, and say how long leases have
//! lasted by the time they pass in.

pub mod model;

mod lists;
mod objects;
mod racing;
mod records;
mod watching;

use futures::StreamExt;
use futures::future::BoxFuture;
use weir_model::{Author, Key, Kind, Workload, WorkloadSpec};

use crate::query::{WatchEvent, WatchStream};
use crate::record::Retention;
use crate::{SharedStore, typed};

/// One thing that a store must do.
struct Case {
    name: &'static str,
    retention: Retention,
    act: Box<dyn Fn(SharedStore) -> BoxFuture<'static, ()>>,
}

fn case<F: Future<Output = ()> + Send + 'static>(name: &'static str, act: fn(SharedStore) -> F) -> Case {
    Case { name, retention: Retention::default(), act: Box::new(move |store| Box::pin(act(store))) }
}

impl Case {
    fn keeping(self, changes: usize, events: usize, audit: usize) -> Case {
        Case { retention: Retention { changes, events, audit }, ..self }
    }
}

/// Runs every case, each on a new store that `make` provides with the given retention.
///
/// # Panics
/// With what is wrong, after the name of the case on standard output.
pub async fn run(make: impl AsyncFn(Retention) -> SharedStore) {
    let all = [objects::cases(), lists::cases(), watching::cases(), racing::cases(), records::cases()];
    for case in all.into_iter().flatten() {
        println!("suite: {}", case.name);
        (case.act)(make(case.retention).await).await;
    }
}

fn author() -> Author {
    Author::new("user/suite", "checks a store")
}

fn key(name: &str) -> Key {
    Key::new(Kind::Workload, name)
}

/// A workload, since it has a spec and a status worth changing.
fn workload(name: &str) -> Workload {
    let spec = WorkloadSpec {
        app: "orders".to_owned(),
        unit: "east".to_owned(),
        zones: Vec::new(),
        group: String::new(),
        stack: String::new(),
        replicas: 1,
        command: Vec::new(),
        env: Default::default(),
        calls: Vec::new(),
        proxy_version: "1.0.0".to_owned(),
        app_version: String::new(),
    };
    Workload::new(name, spec)
}

fn labelled(name: &str, label: &str, value: &str) -> Workload {
    let mut workload = workload(name);
    workload.metadata.labels.insert(label.to_owned(), value.to_owned());
    workload
}

async fn create(store: &SharedStore, name: &str) -> Workload {
    put(store, &workload(name)).await
}

async fn put(store: &SharedStore, workload: &Workload) -> Workload {
    typed::create(&**store, workload, &author()).await.expect("a new workload is accepted")
}

/// Writes one more replica.
async fn scale(store: &SharedStore, workload: &Workload) -> Workload {
    let mut wanted = workload.clone();
    wanted.spec.replicas += 1;
    typed::update(&**store, &wanted, &author()).await.expect("an update of what was read is accepted")
}

/// The store's newest resourceVersion.
async fn head(store: &SharedStore) -> u64 {
    typed::list::<WorkloadSpec>(&**store).await.expect("a list").1
}

/// The next change as `ADDED name@version`, passing over bookmarks.
async fn next(watch: &mut WatchStream) -> String {
    loop {
        let event = watch.next().await.expect("the watch goes on").expect("the watch is not told to list again");
        match event {
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Added(object) => return told("ADDED", &object),
            WatchEvent::Modified(object) => return told("MODIFIED", &object),
            WatchEvent::Deleted(object) => return told("DELETED", &object),
        }
    }
}

fn told(verb: &str, object: &weir_model::Object) -> String {
    format!("{verb} {}@{}", object.metadata.name, object.metadata.resource_version)
}

/// Everything up to the bookmark that says the watch has caught up.
async fn caught_up(watch: &mut WatchStream) -> Vec<WatchEvent> {
    let mut seen = Vec::new();
    loop {
        match watch.next().await.expect("the watch goes on").expect("the watch is not told to list again") {
            WatchEvent::Bookmark(_) => return seen,
            event => seen.push(event),
        }
    }
}
