//! What is read back from the log is what was written, whatever a crash cut off.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use weir_model::change::Rollback;
use weir_store::MemoryStore;

use super::*;

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the in-memory store never waits")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn change(store: &MemoryStore) -> Change {
    let change = Change::new("up", ChangeSpec::proxy_upgrade("b"));
    now(typed::create(store, &change, &Author::new("test", "test"))).unwrap()
}

fn stored(store: &MemoryStore) -> Change {
    now(typed::get(store, "up")).unwrap().unwrap()
}

fn step(status: ChangeStatus, notes: &[&str]) -> Step {
    let note = |text: &&str| Note { reason: "Noted".into(), message: (*text).to_owned(), warning: false };
    Step { status, notes: notes.iter().map(note).collect(), settle: Vec::new(), again: Duration::ZERO }
}

/// Writes `statuses` one after the other.
fn written(store: &MemoryStore, statuses: &[ChangeStatus]) -> ChangeStatus {
    let mut ledger = None;
    for (second, status) in statuses.iter().enumerate() {
        let opened = now(open(store, &stored(store), ledger.take())).unwrap();
        assert!(opened.behind.is_none(), "nobody died");
        let status = ChangeStatus { records: opened.change.status.records, ..status.clone() };
        let wrote = now(write(store, &stored(store), opened, &step(status, &["x"]), at(second as i64))).unwrap();
        ledger = Some(wrote.1);
    }
    ledger.map(|l| l.status).unwrap_or_default()
}

fn batch(number: u32, names: &[&str], let_go: usize, back: usize) -> Batch {
    let times = |n: usize| Arc::new(names[..n].iter().map(|n| ((*n).to_owned(), at(1))).collect());
    Batch {
        number,
        size: names.len() as u32,
        phase: if back < names.len() { BatchPhase::Changing } else { BatchPhase::Passed },
        instances: Arc::new(names.iter().map(|n| (*n).to_owned()).collect()),
        started: times(let_go),
        done: times(back),
        let_go: let_go as u32,
        back: back as u32,
        ..Batch::default()
    }
}

fn status(batches: Vec<Batch>) -> ChangeStatus {
    let names = batches.iter().flat_map(|b| b.instances.iter());
    let previous = Arc::new(names.map(|n| (n.clone(), format!("a{}", n.len() % 2))).collect());
    ChangeStatus { batches, previous, ..ChangeStatus::default() }
}

fn read_back(store: &MemoryStore) -> ChangeStatus {
    now(with_names(store, &stored(store))).unwrap().status
}

#[test]
fn a_process_that_starts_anew_reads_what_the_last_one_knew() {
    let store = MemoryStore::default();
    change(&store);
    let mut last = status(vec![batch(1, &["x"], 1, 1), batch(2, &["y", "zz", "w"], 2, 1)]);
    last.left = Arc::new([("w".to_owned(), "it is gone".to_owned())].into());
    last.left_count = 1;
    let kept = written(&store, &[status(vec![batch(1, &["x"], 1, 0)]), last]);
    assert_eq!(read_back(&store), kept);
    assert_eq!(kept.batches[1].instances.len(), 3);
    assert_eq!(stored(&store).status.batches[1].let_go, 2);
}

#[test]
fn a_step_that_was_cut_off_never_happened() {
    let store = MemoryStore::default();
    let change = change(&store);
    let kept = written(&store, &[status(vec![batch(1, &["x"], 1, 0)])]);
    // Its first record is there, its last is not.
    let fact = Fact::Planned { batch: 2, fresh: true, previous: "a".into(), instances: vec!["y".into()] };
    let number = kept.records + 1;
    let spec =
        ChangeRecordSpec { change: "up".into(), number, first: number, at: at(5), facts: vec![fact], step: None };
    let record = ChangeRecord::new(ChangeRecordSpec::name(&change.metadata.uid, number), spec);
    now(typed::create(&store, &record, &Author::new("test", "test"))).unwrap();
    assert_eq!(read_back(&store), kept);
    let opened = now(open(&store, &stored(&store), None)).unwrap();
    assert!(opened.behind.is_none() && opened.ledger.last == number, "its number is used up");
}

#[test]
fn a_step_whose_status_was_not_stored_is_made_up_for_once() {
    let store = MemoryStore::default();
    let change = change(&store);
    let opened = now(open(&store, &stored(&store), None)).unwrap();
    let next = step(status(vec![batch(1, &["x"], 1, 0)]), &["batch 1 begins"]);
    // The log is written, and then the process dies.
    let told = StepRecord { notes: next.notes.clone(), status: touched(&opened.change.status, &next.status) };
    let facts = facts(&opened.change.status, &next.status);
    now(append(&store, &change, 0, facts, told, at(3))).unwrap();
    for _ in 0..2 {
        let opened = now(open(&store, &stored(&store), None)).unwrap();
        if opened.behind.is_some() {
            now(make_up(&store, &stored(&store), opened)).unwrap();
        }
    }
    assert_eq!(read_back(&store).batches[0].started.len(), 1);
    let events = now(store.events(&EventQuery::default())).unwrap();
    assert_eq!(events.iter().map(|e| e.message.as_str()).collect::<Vec<_>>(), ["batch 1 begins"]);
}

#[test]
fn a_batch_planned_anew_keeps_nothing_of_one_that_never_began() {
    let store = MemoryStore::default();
    change(&store);
    let first = status(vec![batch(1, &["x", "y"], 1, 0)]);
    let again = status(vec![batch(1, &["z"], 0, 0)]);
    let waiting = ChangeStatus::default();
    written(&store, &[first, waiting, again]);
    let back = read_back(&store);
    assert_eq!((back.batches[0].instances.len(), back.batches[0].started.len(), back.previous.len()), (1, 0, 1));
}

#[test]
fn a_forgotten_change_leaves_no_records() {
    let store = MemoryStore::default();
    change(&store);
    written(&store, &[status(vec![batch(1, &["x"], 1, 0)])]);
    now(forget(&store, "up")).unwrap();
    assert_eq!(now(store.list(&ListQuery::all(Kind::ChangeRecord))).unwrap().items.len(), 0);
}

/// Far more names than one resource could hold, with the longest names there can be.
#[test]
fn a_change_over_a_large_fleet_fits() {
    let store = MemoryStore::default();
    change(&store);
    let names: Vec<String> = (0..20_000).map(|n| format!("{n:0>253}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = names.len();
    let mut rolled_back = status(vec![batch(1, &names[..1], 1, 1), batch(2, &names[1..], all - 1, all - 1)]);
    rolled_back.rollback = Some(Rollback { reason: "r".into(), batch: batch(1, &names, all, 0) });
    let kept = written(&store, &[status(vec![batch(1, &names[..1], 1, 1), batch(2, &names[1..], 0, 0)]), rolled_back]);
    assert_eq!(read_back(&store), kept);
    let bytes = serde_json::to_vec(&stored(&store).to_object()).unwrap().len();
    assert!(bytes < 10_000, "{bytes} bytes for {all} instances");
}

prop_compose! {
    fn some_status()(
        let_go in prop::collection::vec((0..6_usize, 0..6_usize), 1..4),
        waiting in any::<bool>(), left in prop::collection::btree_set(0..6_u32, 0..3),
        rollback in prop::option::of((0..6_usize, 0..6_usize)), lost in 0..3_usize,
    ) -> ChangeStatus {
        let names = |b: usize| (0..5).map(|n| format!("i-{b}-{n}")).collect::<Vec<_>>();
        let of = |number: usize, (a, b): (usize, usize)| {
            let names = names(number);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            batch(number as u32 + 1, &names, a.max(b).min(5), b.min(5))
        };
        let mut batches: Vec<Batch> = let_go.iter().enumerate().map(|(n, b)| of(n, *b)).collect();
        batches[0].lost = Arc::new(batches[0].done.iter().take(lost).map(|(n, at)| (n.clone(), *at)).collect());
        let mut status = status(batches);
        if waiting {
            status.batches.push(Batch { number: 9, size: 3, ..Batch::default() });
        }
        status.left = Arc::new(left.into_iter().map(|n| (format!("i-0-{n}"), "gone".to_owned())).collect());
        status.left_count = status.left.len() as u32;
        status.rollback = rollback.map(|r| Rollback { reason: "r".into(), batch: of(0, r) });
        status
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Between states in which what was let go stays let go, the log alone tells the names.
    #[test]
    fn the_log_tells_what_the_status_leaves_out(steps in prop::collection::vec(some_status(), 1..5)) {
        let mut grown: Vec<ChangeStatus> = Vec::new();
        for mut next in steps {
            if let Some(before) = grown.last() {
                next.left = Arc::new(before.left.iter().chain(next.left.iter()).map(|(n, w)| (n.clone(), w.clone())).collect());
                next.left_count = next.left.len() as u32;
                next.rollback = before.rollback.clone().or(next.rollback);
                keep_let_go(before, &mut next);
            }
            grown.push(next);
        }
        let store = MemoryStore::default();
        change(&store);
        let kept = written(&store, &grown);
        prop_assert_eq!(read_back(&store), kept);
    }
}

fn keep_let_go(before: &ChangeStatus, next: &mut ChangeStatus) {
    let union = |a: &BTreeMap<String, Timestamp>, b: &BTreeMap<String, Timestamp>| {
        Arc::new(a.iter().chain(b).map(|(n, at)| (n.clone(), *at)).collect::<BTreeMap<String, Timestamp>>())
    };
    for batch in &before.batches {
        match next.batches.iter_mut().find(|b| b.number == batch.number) {
            Some(same) => {
                (same.started, same.done) = (union(&batch.started, &same.started), union(&batch.done, &same.done));
                (same.let_go, same.back) = (same.started.len() as u32, same.done.len() as u32);
            }
            None => next.batches.push(batch.clone()),
        }
    }
    next.batches.sort_by_key(|b| b.number);
    let names = next.batches.iter().flat_map(|b| b.instances.iter());
    next.previous = Arc::new(names.map(|n| (n.clone(), format!("a{}", n.len() % 2))).collect());
}
