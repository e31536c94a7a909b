//! How fast a store is on this machine: writes per second by writers at once, and the time from a write's call to its
//! arrival at a watcher. `cargo run --release -p weir-store-sql --example rates [FOLDER]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt;
use weir_model::{App, AppSpec, Author};
use weir_store::{MemoryStore, SharedStore, WatchEvent, WatchQuery, typed};
use weir_store_sql::SqliteStore;

const WRITES: usize = 4_000;
const WATCHED: usize = 500;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("weir-rates-{}.db", std::process::id()));
    let sqlite = SqliteStore::open(&path).await.expect("the store opens");
    for (name, store) in [("memory", MemoryStore::new().shared()), ("sqlite", sqlite.clone().shared())] {
        for writers in [1, 8, 64] {
            println!("{name}, {writers:>2} writers: {:>7.0} writes/s", writes_per_second(&store, writers).await);
        }
        let mut latencies = watch_latencies(&store).await;
        latencies.sort();
        let at = |share: f64| latencies[(share * (latencies.len() - 1) as f64) as usize];
        println!("{name}, write to watcher: p50 {:?}, p99 {:?}", at(0.5), at(0.99));
    }
    sqlite.close().await;
    for suffix in ["", ".lock", "-wal", "-shm"] {
        // Those that closing has removed are not there.
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

async fn create(store: &SharedStore, name: String) {
    let author = Author::new("user/rates", "measures");
    typed::create(&**store, &App::new(name, AppSpec::default()), &author).await.expect("a creation");
}

async fn writes_per_second(store: &SharedStore, writers: usize) -> f64 {
    let start = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..WRITES / writers {
                create(&store, format!("rate-{writers}-{writer}-{n}")).await;
            }
        })
    });
    futures::future::join_all(tasks).await;
    WRITES as f64 / start.elapsed().as_secs_f64()
}

async fn watch_latencies(store: &SharedStore) -> Vec<Duration> {
    let (_, head) = typed::list::<AppSpec>(&**store).await.expect("a list");
    let mut watch = store.watch(&WatchQuery::all(head)).await.expect("a watch");
    let mut latencies = Vec::with_capacity(WATCHED);
    for n in 0..WATCHED {
        let start = Instant::now();
        let (arrived, ()) = tokio::join!(next_change(&mut watch, start), create(store, format!("watched-{n}")));
        latencies.push(arrived);
    }
    latencies
}

async fn next_change(watch: &mut weir_store::WatchStream, start: Instant) -> Duration {
    while let WatchEvent::Bookmark(_) = watch.next().await.expect("the watch goes on").expect("it keeps up") {}
    start.elapsed()
}
