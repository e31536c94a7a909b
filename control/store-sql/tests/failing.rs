//! A database that fails in the middle: of a write, of a commit. The faults are triggers put into the file beforehand.

use std::path::Path;

use futures::StreamExt;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::task::JoinSet;
use weir_model::{App, AppSpec, Author};
use weir_store::{AuditQuery, Error, SharedStore, WatchEvent, WatchQuery, typed};
use weir_store_sql::SqliteStore;

/// Fails the statement that would write a resource of this name.
const FAILS_A_STATEMENT: &str = "CREATE TRIGGER poison BEFORE INSERT ON resources WHEN NEW.name = 'poison' \
                                 BEGIN SELECT RAISE(ABORT, 'poisoned'); END";
/// Rolls the whole transaction back under the store's feet.
const ROLLS_BACK: &str = "CREATE TRIGGER poison BEFORE INSERT ON resources WHEN NEW.name = 'poison' \
                          BEGIN SELECT RAISE(ROLLBACK, 'poisoned'); END";
/// Leaves a reference dangling, which is noticed by the commit only.
const FAILS_THE_COMMIT: &str = "CREATE TABLE nobody (id INTEGER PRIMARY KEY);
    CREATE TABLE dangling (id INTEGER REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER poison BEFORE INSERT ON resources WHEN NEW.name = 'poison'
    BEGIN INSERT INTO dangling VALUES (1); END";

async fn store_with(fault: &'static str) -> (TempDir, SharedStore) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("weir.db");
    SqliteStore::open(&path).await.expect("the store opens").close().await;
    plant(&path, fault).await;
    let store = SqliteStore::open(&path).await.expect("the store opens").shared();
    (folder, store)
}

async fn plant(path: &Path, fault: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.expect("a connection");
    sqlx::raw_sql(fault).execute(&mut connection).await.expect("the fault is planted");
    connection.close().await.expect("it closes");
}

async fn create(store: &SharedStore, name: &str) -> Result<(), Error> {
    let author = Author::new("user/test", "test");
    typed::create(&**store, &App::new(name, AppSpec::default()), &author).await.map(drop)
}

/// Many creations at once, the poisoned one among them; how many succeeded.
async fn create_together(store: &SharedStore) -> usize {
    let mut writers = JoinSet::new();
    for n in 0..20 {
        let store = store.clone();
        let name = if n == 10 { "poison".to_owned() } else { format!("fine-{n}") };
        writers.spawn(async move { (name == "poison", create(&store, &name).await) });
    }
    let results = writers.join_all().await;
    for (poisoned, result) in &results {
        assert!(!poisoned || matches!(result, Err(Error::Unavailable(_))), "{result:?}");
    }
    results.iter().filter(|(_, result)| result.is_ok()).count()
}

/// Resources, versions, watch and audit agree on `count` writes.
async fn is_whole(store: &SharedStore, count: usize) {
    let (listed, head) = typed::list::<AppSpec>(&**store).await.expect("a list");
    assert_eq!((listed.len(), head), (count, count as u64));
    let mut watch = store.watch(&WatchQuery::all(0)).await.expect("a watch");
    for version in 1..=head {
        match watch.next().await.expect("the watch goes on").expect("it keeps up") {
            WatchEvent::Added(object) => assert_eq!(object.metadata.resource_version, version),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.audit(&AuditQuery::default()).await.expect("the audit log").len(), count);
}

#[tokio::test]
async fn a_write_that_the_database_refuses_does_not_fail_its_neighbours() {
    for fault in [FAILS_A_STATEMENT, ROLLS_BACK] {
        let (_folder, store) = store_with(fault).await;
        assert_eq!(create_together(&store).await, 19);
        is_whole(&store, 19).await;
        let refused = create(&store, "poison").await.expect_err("it is refused again");
        assert!(refused.to_string().contains("poisoned"), "{refused}");
        create(&store, "after").await.expect("the store goes on");
        is_whole(&store, 20).await;
    }
}

#[tokio::test]
async fn after_a_commit_that_failed_the_store_goes_on_from_what_is_on_disk() {
    let (_folder, store) = store_with(FAILS_THE_COMMIT).await;
    let succeeded = create_together(&store).await;
    is_whole(&store, succeeded).await;
    let refused = create(&store, "poison").await.expect_err("it is refused again");
    assert!(refused.to_string().contains("FOREIGN KEY"), "{refused}");
    create(&store, "after").await.expect("the store goes on");
    is_whole(&store, succeeded + 1).await;
}
