//! kill -9 at random moments: what was acknowledged is there, and what was not is there whole or not at all.
//!
//! This program plays both parts. As the writer it opens the store and writes from several tasks at once, each to names
//! of its own, in an order that follows from the seed alone, and prints each acknowledgement. As the test it kills the
//! writer after so many lines, opens the store, and compares: per task the store must be where the acknowledged writes
//! lead, or exactly one write further. Resources, change log and audit log must tell the same story. Then the next
//! writer goes on with the same file.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures::StreamExt;
use weir_model::{Author, Key, Kind, Object, Workload, WorkloadSpec};
use weir_store::{AuditQuery, Retention, Store, WatchEvent, WatchQuery, system_clock, typed};
use weir_store_sql::SqliteStore;

const SEEDS: u64 = 5;
/// Kills per seed.
const ROUNDS: u64 = 12;
const TASKS: u64 = 4;
const NAMES_PER_TASK: u64 = 3;
/// A writer is killed after at most so many acknowledgements.
const MOST_LINES: usize = 60;
/// Everything is kept, so that everything can be compared.
const RETENTION: Retention = Retention { changes: 1_000_000, events: 1, audit: 1_000_000 };

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    match arguments.get(1).map(String::as_str) {
        Some("writer") => runtime.block_on(write_until_killed(&arguments[2], &arguments[3])),
        _ => (0..SEEDS).for_each(|seed| runtime.block_on(kill_and_compare(seed))),
    }
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open_with(path, RETENTION, system_clock()).await.expect("the store opens after whatever happened")
}

/// What a resource is, as far as writers change it.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    spec: String,
    status: String,
}

type Rows = BTreeMap<String, Row>;

/// The writes of one task in one round, in order; the same for the writer and for the test.
struct Script {
    random: fastrand::Rng,
    task: u64,
    mark: String,
    steps: u64,
}

#[derive(Debug, Clone)]
struct Step {
    name: String,
    action: u8,
    value: String,
}

impl Script {
    fn new(mark: &str, task: u64) -> Script {
        let seed = mark.bytes().fold(task, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Script { random: fastrand::Rng::with_seed(seed), task, mark: mark.to_owned(), steps: 0 }
    }
}

impl Iterator for Script {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.steps += 1;
        let name = format!("w-{}-{}", self.task, self.random.u64(..NAMES_PER_TASK));
        Some(Step { name, action: self.random.u8(..5), value: format!("{}-{}", self.mark, self.steps) })
    }
}

impl Step {
    /// What the step makes of the rows.
    fn apply(&self, rows: &mut Rows) {
        match (rows.get_mut(&self.name), self.action) {
            (None, _) => {
                rows.insert(self.name.clone(), Row { spec: self.value.clone(), status: String::new() });
            }
            (Some(_), 0) => drop(rows.remove(&self.name)),
            (Some(row), 1 | 2) => row.status = self.value.clone(),
            (Some(row), _) => row.spec = self.value.clone(),
        }
    }

    /// The same on a store; the version of the write.
    async fn write(&self, store: &dyn Store) -> u64 {
        let read = typed::get::<WorkloadSpec>(store, &self.name).await.expect("a read");
        let written = match (read, self.action) {
            (None, _) => typed::create(store, &self.new_workload(), &author()).await.map(|w| w.metadata),
            (Some(w), 0) => {
                store.delete(&w.key(), Some(w.metadata.resource_version), &author()).await.map(|o| o.metadata)
            }
            (Some(mut w), 1 | 2) => {
                w.status.message = self.value.clone();
                typed::update_status(store, &w).await.map(|w| w.metadata)
            }
            (Some(mut w), _) => {
                w.spec.app_version = self.value.clone();
                typed::update(store, &w, &author()).await.map(|w| w.metadata)
            }
        };
        written.expect("nobody else writes this name").resource_version
    }

    fn new_workload(&self) -> Workload {
        let spec = serde_json::json!({
            "app": "a", "unit": "u", "replicas": 1, "proxyVersion": "1", "appVersion": self.value,
        });
        Workload::new(&self.name, serde_json::from_value(spec).expect("a workload"))
    }
}

fn author() -> Author {
    Author::new("user/writer", "writes until killed")
}

/// The writer: `ack TASK VERSION` for each write that the store acknowledged.
async fn write_until_killed(path: &str, mark: &str) {
    let store = open(Path::new(path)).await.shared();
    let tasks = (0..TASKS).map(|task| {
        let (store, script) = (store.clone(), Script::new(mark, task));
        tokio::spawn(async move {
            for step in script {
                println!("ack {task} {}", step.write(&*store).await);
            }
        })
    });
    futures::future::join_all(tasks).await;
}

async fn kill_and_compare(seed: u64) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("weir.db");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rows = Rows::new();
    let mut one_further = 0;
    for round in 0..ROUNDS {
        let mark = format!("{seed}-{round}");
        let acks = write_and_kill(&path, &mark, random.usize(..MOST_LINES));
        let store = open(&path).await;
        let changes = changes(&store).await;
        one_further += compare_resources(&store, &mark, &acks, &mut rows).await;
        compare_logs(&store, &changes, &acks).await;
        store.close().await;
    }
    println!("seed {seed}: {ROUNDS} kills, {one_further} unacknowledged writes were whole, all others absent");
}

/// Acknowledged versions by task.
type Acks = BTreeMap<u64, Vec<u64>>;

fn write_and_kill(path: &Path, mark: &str, after: usize) -> Acks {
    let mut writer = start_writer(path, mark);
    let mut lines = BufReader::new(writer.stdout.take().expect("its output is piped"));
    let mut acks = Acks::new();
    for _ in 0..after {
        let read = read_ack(&mut lines).expect("the writer writes until it is killed");
        acks.entry(read.0).or_default().push(read.1);
    }
    writer.kill().expect("it can be killed");
    // What it had acknowledged before the signal came.
    while let Some((task, version)) = read_ack(&mut lines) {
        acks.entry(task).or_default().push(version);
    }
    writer.wait().expect("it has ended");
    acks
}

fn start_writer(path: &Path, mark: &str) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program).arg("writer").arg(path).arg(mark).stdout(Stdio::piped()).spawn().expect("the writer starts")
}

fn read_ack(lines: &mut impl BufRead) -> Option<(u64, u64)> {
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    let words = line.strip_prefix("ack ")?.strip_suffix('\n')?;
    let (task, version) = words.split_once(' ')?;
    Some((task.parse().expect("a task"), version.parse().expect("a version")))
}

/// Every task is where its acknowledged writes lead, or one write further; how many are. Goes on from what is there.
async fn compare_resources(store: &SqliteStore, mark: &str, acks: &Acks, rows: &mut Rows) -> usize {
    let (listed, _) = typed::list::<WorkloadSpec>(store).await.expect("a list");
    let row = |w: Workload| (w.metadata.name, Row { spec: w.spec.app_version, status: w.status.message });
    let stored: Rows = listed.into_iter().map(row).collect();
    let mut one_further = 0;
    for task in 0..TASKS {
        let own = |all: &Rows| -> Rows {
            let prefix = format!("w-{task}-");
            all.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let mut script = Script::new(mark, task);
        let mut expected = own(rows);
        let acknowledged = acks.get(&task).map_or(0, Vec::len);
        script.by_ref().take(acknowledged).for_each(|step| step.apply(&mut expected));
        if own(&stored) != expected {
            script.next().expect("scripts do not end").apply(&mut expected);
            one_further += 1;
        }
        assert_eq!(own(&stored), expected, "round {mark}, task {task}, after {acknowledged} acknowledged writes");
    }
    *rows = stored;
    one_further
}

struct Logged {
    object: Object,
    /// It created, deleted or changed a spec, and so must be in the audit log.
    audited: bool,
}

/// The change log by version; replaying it must give what is listed.
async fn changes(store: &SqliteStore) -> BTreeMap<u64, Logged> {
    let mut watch = store.watch(&WatchQuery::all(0)).await.expect("everything is kept");
    let mut objects: BTreeMap<Key, Object> = BTreeMap::new();
    let mut log = BTreeMap::new();
    loop {
        let (object, stays) = match watch.next().await.expect("the watch goes on").expect("it keeps up") {
            WatchEvent::Bookmark(_) => break,
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
            WatchEvent::Deleted(object) => (object, false),
        };
        let before = if stays { objects.insert(object.key(), object.clone()) } else { objects.remove(&object.key()) };
        let same_spec = before.is_some_and(|before| before.metadata.generation == object.metadata.generation);
        let version = object.metadata.resource_version;
        assert_eq!(version, log.len() as u64 + 1, "the change log has no gaps");
        log.insert(version, Logged { object, audited: !(stays && same_spec) });
    }
    let (listed, head) = typed::list::<WorkloadSpec>(store).await.expect("a list");
    assert_eq!(head, log.len() as u64);
    assert!(listed.iter().map(Workload::to_object).eq(objects.into_values()), "resources and change log agree");
    log
}

/// Every acknowledged version is in the log under its task's name, and the audit log has just the audited ones.
async fn compare_logs(store: &SqliteStore, log: &BTreeMap<u64, Logged>, acks: &Acks) {
    for (task, versions) in acks {
        for version in versions {
            let name = &log[version].object.metadata.name;
            assert!(name.starts_with(&format!("w-{task}-")), "version {version} is a write of task {task}, not {name}");
        }
    }
    for name in (0..TASKS).flat_map(|task| (0..NAMES_PER_TASK).map(move |n| format!("w-{task}-{n}"))) {
        let key = Key::new(Kind::Workload, name);
        let entries = store.audit(&AuditQuery { key: Some(key.clone()), limit: 1_000 }).await.expect("the audit log");
        assert!(entries.len() < 1_000, "all of them");
        let audited = log.iter().filter(|(_, logged)| logged.audited && logged.object.key() == key);
        assert!(entries.iter().map(|entry| &entry.resource_version).eq(audited.map(|(version, _)| version)), "{key}");
    }
}
