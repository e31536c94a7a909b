//! The SQLite store: the suite, the model, and what only a store on disk can do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;
use weir_model::{App, AppSpec, Author, Key, Kind};
use weir_store::suite::{self, model};
use weir_store::{
    AuditQuery, Error, Event, EventQuery, EventType, Retention, SharedStore, Store, WatchEvent, WatchQuery,
    system_clock, typed,
};
use weir_store_sql::SqliteStore;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder.join("weir.db")).await.expect("the store opens")
}

fn author() -> Author {
    Author::new("user/test", "test")
}

async fn create(store: &dyn Store, name: &str) {
    typed::create(store, &App::new(name, AppSpec::default()), &author()).await.expect("a creation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn does_what_every_store_must() {
    let folders = Mutex::new(Vec::new());
    let make = async |retention| -> SharedStore {
        let folder = folder();
        let path = folder.path().join("weir.db");
        folders.lock().expect("no case panicked").push(folder);
        SqliteStore::open_with(path, retention, system_clock()).await.expect("the store opens").shared()
    };
    suite::run(make).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn agrees_with_the_model(ops in prop::collection::vec(any::<(u8, u8, u8)>(), 0..60)) {
        let ops: Vec<model::Op> = ops.into_iter().map(model::Op::from_bytes).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let folder = folder();
        runtime.block_on(async { model::check(open(folder.path()).await.shared(), &ops).await });
    }
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let folder = folder();
    let store = open(folder.path()).await;
    create(&store, "a").await;
    create(&store, "b").await;
    store.delete(&Key::new(Kind::App, "a"), None, &author()).await.unwrap();
    let event = Event {
        time: Timestamp::UNIX_EPOCH,
        about: Key::new(Kind::App, "b"),
        r#type: EventType::Normal,
        reason: "Kept".into(),
        message: "kept".into(),
        source: "test".into(),
    };
    store.append_event(event.clone()).await.unwrap();
    let before = typed::list::<AppSpec>(&store).await.unwrap();
    store.close().await;
    drop(store);

    let store = open(folder.path()).await;
    assert_eq!(typed::list::<AppSpec>(&store).await.unwrap(), before);
    assert_eq!(store.events(&EventQuery::default()).await.unwrap(), [event]);
    assert_eq!(store.audit(&AuditQuery::default()).await.unwrap().len(), 3);
    // A watch goes on from where it was before the restart.
    create(&store, "c").await;
    let mut watch = store.watch(&WatchQuery::all(1)).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(object) => format!("+{}@{}", object.metadata.name, object.metadata.resource_version),
            WatchEvent::Deleted(object) => format!("-{}@{}", object.metadata.name, object.metadata.resource_version),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, ["+b@2", "-a@3", "+c@4"]);
}

#[tokio::test]
async fn the_version_survives_a_restart_after_which_nothing_of_the_past_is_kept() {
    let folder = folder();
    let path = folder.path().join("weir.db");
    let little = Retention { changes: 1, ..Retention::default() };
    let store = SqliteStore::open_with(&path, little, system_clock()).await.unwrap();
    create(&store, "a").await;
    create(&store, "b").await;
    store.close().await;
    drop(store);
    let store = SqliteStore::open_with(&path, little, system_clock()).await.unwrap();
    let gone = store.watch(&WatchQuery::all(0)).await.err();
    assert!(matches!(gone, Some(Error::Gone { from: 0, oldest: 1 })), "{gone:?}");
    create(&store, "c").await;
    assert_eq!(typed::list::<AppSpec>(&store).await.unwrap().1, 3);
}

#[tokio::test]
async fn leases_of_the_dead_are_free_and_fence_them() {
    let folder = folder();
    let (ttl, now) = (Duration::from_secs(15), Timestamp::UNIX_EPOCH);
    let store = open(folder.path()).await;
    let first = store.acquire_lease("controller/x", "a", ttl, now).await.unwrap().unwrap();
    store.close().await;
    drop(store);
    let store = open(folder.path()).await;
    let second = store.acquire_lease("controller/x", "b", ttl, now).await.unwrap().unwrap();
    assert_eq!((first.fencing, second.fencing), (1, 2));
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let folder = folder();
    let inside = folder.path().join("data");
    let store = open(&inside).await;
    create(&store, "a").await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inside), 0o700);
    let files: Vec<_> = std::fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "the file, its log, the log's index, the lock: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_second_process_is_kept_out_and_told_why() {
    let folder = folder();
    let first = open(folder.path()).await;
    let second = SqliteStore::open(folder.path().join("weir.db")).await.err().expect("it is kept out");
    assert!(second.to_string().contains("weir.db: another process has this store open"), "{second}");
    first.close().await;
    drop(first);
    open(folder.path()).await;
}

#[tokio::test]
async fn a_closed_store_refuses_and_says_so() {
    let folder = folder();
    let store = open(folder.path()).await;
    create(&store, "a").await;
    store.close().await;
    store.close().await;
    let app = App::new("b", AppSpec::default());
    let refused = typed::create(&store, &app, &author()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the store is unavailable: the store is closed");
    assert!(matches!(store.get(&app.key()).await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("weir.db");
    let text = "not a database, but somebody's letter\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let refused = SqliteStore::open(&path).await.err().expect("it is refused");
    assert!(refused.to_string().contains("weir.db"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn tables_of_a_newer_weir_are_refused() {
    let folder = folder();
    open(folder.path()).await.close().await;
    let path = folder.path().join("weir.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (99, 'later', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let refused = SqliteStore::open(&path).await.err().expect("it is refused");
    assert!(refused.to_string().contains("a newer Weir has written it (table version 99)"), "{refused}");
}
