//! The memory store, by the suite and by the model.

use std::time::Duration;

use futures::StreamExt;
use proptest::prelude::*;
use weir_store::history::BOOKMARK_INTERVAL;
use weir_store::suite::{self, model};
use weir_store::{MemoryStore, Store, WatchEvent, WatchQuery, system_clock};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn does_what_every_store_must() {
    suite::run(async |retention| MemoryStore::with(retention, system_clock()).shared()).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_watch_is_told_so_from_time_to_time() {
    let store = MemoryStore::new();
    let mut watch = store.watch(&WatchQuery::all(0)).await.unwrap();
    let start = tokio::time::Instant::now();
    for bookmarks in 0..5 {
        assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::Bookmark(0));
        let due = BOOKMARK_INTERVAL * bookmarks;
        assert!(start.elapsed() >= due && start.elapsed() < due + Duration::from_secs(1));
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(ops in prop::collection::vec(any::<(u8, u8, u8)>(), 0..60)) {
        let ops: Vec<model::Op> = ops.into_iter().map(model::Op::from_bytes).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(model::check(MemoryStore::new().shared(), &ops));
    }
}
