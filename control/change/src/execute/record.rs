//! The log of a change: every step is written down whole before it is carried out.
//!
//! A step that lets instances go, hears of them, or says something, is first appended to the change's
//! [`ChangeRecord`]s: the names in chunks, and last, in one write that makes it count, the rest. Only then follow the
//! status (a summary without names), the events, and the instances. Whichever of these a crash cuts off, the next
//! process finds the last record and makes up for it: the status is brought up to the log, and events that are missing
//! are appended. A step whose last record is missing never happened; nothing had been done for it yet.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use weir_model::change::{Batch, BatchPhase, Change, ChangeStatus, Evidence, Outcome, Verdict};
use weir_model::change_record::{CHANGE_LABEL, ChangeRecord, ChangeRecordSpec, Fact, Note, StepRecord, WAY_BACK};
use weir_model::{Author, ChangeSpec, Kind};
use weir_store::{Error, Event, EventQuery, EventType, ListQuery, Result, Store, typed};

use super::{SOURCE, Step};

/// Names in one record; names have at most 253 bytes, so a record stays well below what the store keeps.
const MAX_NAMES: usize = 2_000;
/// Comparisons of a verdict that a status keeps, those with the most to say first. The judge in memory knows all.
const KEPT_EVIDENCE: usize = 300;
/// Likewise of batches before the newest; their records keep more.
const KEPT_OF_OTHERS: usize = 20;
/// Notes of a step that are told one by one.
const MAX_NOTES: usize = 50;
/// Tries against people who edit the spec meanwhile.
const TRIES: u32 = 8;

/// What the engine remembers of a change between two steps; the log gives it back after a restart.
#[derive(Debug, Clone)]
pub struct Ledger {
    uid: String,
    /// The last record there is.
    last: u64,
    /// As it was left, names included.
    status: ChangeStatus,
}

/// A change with the names behind its status.
#[derive(Debug)]
pub(super) struct Opened {
    pub change: Change,
    pub ledger: Ledger,
    /// A process died between writing a step down and saying so: events that are missing. The status may lag too.
    pub behind: Option<Vec<(Timestamp, Note)>>,
}

/// Puts the names to the stored `change`: from memory if that fits what is stored, or else from the log.
pub(super) async fn open(store: &dyn Store, stored: &Change, known: Option<Ledger>) -> Result<Opened> {
    let fits = |l: &Ledger| l.uid == stored.metadata.uid && summary(&l.status) == stored.status;
    if let Some(ledger) = known.filter(fits) {
        let change = Change { status: ledger.status.clone(), ..stored.clone() };
        return Ok(Opened { change, ledger, behind: None });
    }
    let mut log = Log::of(stored);
    log.read_on(store, |_| {}).await?;
    let missing = missing_events(store, stored, log.told()).await?;
    let status = log.status(&stored.status);
    let lags = status.records != stored.status.records;
    let ledger = Ledger { uid: log.uid, last: log.last, status: status.clone() };
    let change = Change { status, ..stored.clone() };
    Ok(Opened { change, ledger, behind: (lags || !missing.is_empty()).then_some(missing) })
}

/// Those of the last step's notes that are not among the events of the change.
async fn missing_events(
    store: &dyn Store,
    change: &Change,
    told: Vec<(Timestamp, Note)>,
) -> Result<Vec<(Timestamp, Note)>> {
    if told.is_empty() {
        return Ok(told);
    }
    let query = EventQuery { about: Some(change.key()), limit: weir_store::record::MAX_RECORDS };
    let events = store.events(&query).await?;
    let is =
        |e: &Event, at: Timestamp, note: &Note| (e.time, &e.reason, &e.message) == (at, &note.reason, &note.message);
    Ok(told.into_iter().filter(|(at, note)| !events.iter().any(|e| is(e, *at, note))).collect())
}

/// The change `stored` with the names behind its status, for those who only read.
///
/// # Errors
/// Those of the store.
pub async fn with_names(store: &dyn Store, stored: &Change) -> Result<Change> {
    let mut log = Log::of(stored);
    log.read_on(store, |_| {}).await?;
    Ok(Change { status: log.status(&stored.status), ..stored.clone() })
}

/// Every record of a change, in order.
///
/// # Errors
/// Those of the store.
pub async fn records(store: &dyn Store, change: &Change) -> Result<Vec<ChangeRecordSpec>> {
    let mut all = Vec::new();
    Log::of(change).read_on(store, |record| all.push(record.clone())).await?;
    Ok(all)
}

/// Deletes what was recorded of a change that is gone.
pub(super) async fn forget(store: &dyn Store, name: &str) -> Result<()> {
    let selector = weir_store::Selector([(CHANGE_LABEL.to_owned(), name.to_owned())].into());
    let query = ListQuery { selector, ..ListQuery::all(Kind::ChangeRecord) };
    let author = Author::new(SOURCE, format!("change/{name} was deleted"));
    loop {
        let page = store.list(&query).await?;
        for object in &page.items {
            match store.delete(&object.key(), None, &author).await {
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if page.next.is_none() {
            return Ok(());
        }
    }
}

/// Steps of which the whole record is kept while a log is read: no more than the last can be unfinished.
const RECENT: usize = 2;

/// What the log says, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Log {
    uid: String,
    last: u64,
    names: Names,
    /// Facts of a step whose last record was not read yet.
    step: Vec<Fact>,
    recent: VecDeque<ChangeRecordSpec>,
}

impl Log {
    pub fn of(change: &Change) -> Log {
        Log { uid: change.metadata.uid.clone(), ..Log::default() }
    }

    /// Reads what was appended since the last time.
    pub async fn read_on(&mut self, store: &dyn Store, mut seen: impl FnMut(&ChangeRecordSpec)) -> Result<()> {
        if self.uid.is_empty() {
            return Ok(());
        }
        let name_prefix = ChangeRecordSpec::prefix(&self.uid);
        let after = Some(ChangeRecordSpec::name(&self.uid, self.last));
        let mut query = ListQuery { name_prefix, after, ..ListQuery::all(Kind::ChangeRecord) };
        loop {
            let page = store.list(&query).await?;
            for object in page.items {
                let record = ChangeRecord::try_from(object)?.spec;
                seen(&record);
                self.note(record);
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn note(&mut self, mut record: ChangeRecordSpec) {
        self.last = record.number;
        if record.first == record.number {
            self.step.clear();
        }
        self.step.append(&mut record.facts);
        if record.step.is_some() {
            self.step.drain(..).for_each(|fact| self.names.note(fact));
            self.recent.push_back(record);
            self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        }
    }

    /// The stored status brought up to the log, with names.
    pub fn status(&self, stored: &ChangeStatus) -> ChangeStatus {
        let mut status = stored.clone();
        for record in &self.recent {
            if let Some(step) = record.step.as_ref().filter(|_| record.number > status.records) {
                follow(&mut status, step.status.clone());
            }
        }
        self.names.join(&mut status);
        status
    }

    /// Notes of the last step.
    fn told(&self) -> Vec<(Timestamp, Note)> {
        let of = |r: &ChangeRecordSpec| r.step.as_ref().map(|s| s.notes.iter().map(|n| (r.at, n.clone())).collect());
        self.recent.back().and_then(of).unwrap_or_default()
    }
}

/// Brings a stored status up to a step's.
fn follow(status: &mut ChangeStatus, step: ChangeStatus) {
    let mut batches = std::mem::take(&mut status.batches);
    batches.retain(|b| b.phase != BatchPhase::Waiting);
    for mut batch in step.batches.iter().cloned() {
        let known = batches.iter_mut().find(|b| b.number == batch.number);
        keep_evidence(&mut batch, known.as_deref());
        match known {
            Some(known) => *known = batch,
            None => batches.push(batch),
        }
    }
    *status = ChangeStatus { batches, ..step };
}

/// A step tells the whole evidence only of what is decided; of the rest the status knows more.
fn keep_evidence(batch: &mut Batch, known: Option<&Batch>) {
    let open = |v: &Verdict| v.outcome == Outcome::Inconclusive;
    if let (Some(told), Some(known)) = (&mut batch.verdict, known.and_then(|b| b.verdict.as_ref()))
        && open(told)
    {
        *told = known.clone();
    }
}

/// Names of the fold, by batch.
#[derive(Debug, Default)]
struct Names {
    batches: BTreeMap<u32, Batch>,
    previous: BTreeMap<u32, BTreeMap<String, String>>,
    left: BTreeMap<String, String>,
}

impl Names {
    fn note(&mut self, fact: Fact) {
        match fact {
            Fact::Planned { batch, fresh, previous, instances } => self.plan(batch, fresh, &previous, instances),
            Fact::Deferred { batch, instances } => {
                let gone: BTreeSet<String> = instances.into_iter().collect();
                Arc::make_mut(&mut self.batch(batch).instances).retain(|name| !gone.contains(name));
            }
            Fact::LetGo { batch, at, instances } => extend(&mut self.batch(batch).started, instances, at),
            Fact::Back { batch, at, instances } => extend(&mut self.batch(batch).done, instances, at),
            Fact::Lost { batch, at, instances } => extend(&mut self.batch(batch).lost, instances, at),
            Fact::Found { batch, instances } => {
                let lost = Arc::make_mut(&mut self.batch(batch).lost);
                lost.retain(|name, _| !instances.contains(name));
            }
            Fact::Left { reasons } => self.left.extend(reasons),
        }
    }

    fn batch(&mut self, number: u32) -> &mut Batch {
        self.batches.entry(number).or_default()
    }

    fn plan(&mut self, batch: u32, fresh: bool, previous: &str, instances: Vec<String>) {
        if fresh {
            self.batches.remove(&batch);
            self.previous.remove(&batch);
        }
        let known = self.previous.entry(batch).or_default();
        known.extend(instances.iter().map(|name| (name.clone(), previous.to_owned())));
        Arc::make_mut(&mut self.batch(batch).instances).extend(instances);
    }

    /// Puts the names to a status, for the batches that have begun.
    fn join(&self, status: &mut ChangeStatus) {
        let (mut previous, nobody) = (BTreeMap::new(), Batch::default());
        let back = status.rollback.as_mut().map(|r| (WAY_BACK, &mut r.batch));
        let begun = status.batches.iter_mut().filter(|b| b.phase != BatchPhase::Waiting);
        for (number, batch) in begun.map(|b| (b.number, b)).chain(back) {
            previous.extend(self.previous.get(&number).into_iter().flatten().map(|(n, v)| (n.clone(), v.clone())));
            let names = self.batches.get(&number).unwrap_or(&nobody);
            (batch.instances, batch.started) = (names.instances.clone(), names.started.clone());
            (batch.done, batch.lost) = (names.done.clone(), names.lost.clone());
        }
        status.previous = Arc::new(previous);
        status.left = Arc::new(self.left.clone());
    }
}

fn extend(times: &mut Arc<BTreeMap<String, Timestamp>>, names: Vec<String>, at: Timestamp) {
    Arc::make_mut(times).extend(names.into_iter().map(|name| (name, at)));
}

/// The status as it is stored: counts instead of names, and of the evidence what says most.
pub(super) fn summary(status: &ChangeStatus) -> ChangeStatus {
    let mut summary = status.clone();
    (summary.previous, summary.left) = (Arc::default(), Arc::default());
    summary.left_count = status.left.len() as u32;
    let newest = summary.batches.iter().rposition(|b| b.phase != BatchPhase::Waiting);
    for (index, batch) in summary.batches.iter_mut().enumerate() {
        summarise(batch, if Some(index) == newest { KEPT_EVIDENCE } else { KEPT_OF_OTHERS });
    }
    summary.rollback.iter_mut().for_each(|r| summarise(&mut r.batch, 0));
    summary
}

fn summarise(batch: &mut Batch, evidence: usize) {
    // A forecast that was read back has no names, but still its size.
    if batch.phase != BatchPhase::Waiting || !batch.instances.is_empty() {
        batch.size = batch.instances.len() as u32;
    }
    (batch.let_go, batch.back) = (batch.started.len() as u32, batch.done.len() as u32);
    (batch.instances, batch.started) = (Arc::default(), Arc::default());
    (batch.done, batch.lost) = (Arc::default(), Arc::default());
    if let Some(verdict) = &mut batch.verdict {
        trim(verdict, evidence);
    }
}

fn trim(verdict: &mut Verdict, kept: usize) {
    if verdict.evidence.len() > kept {
        let telling = |e: &Evidence| (e.log_e.max(e.uncompared_log_e), e.treated_requests as f64);
        verdict.evidence.sort_by(|a, b| telling(b).partial_cmp(&telling(a)).unwrap_or(Ordering::Equal));
        verdict.evidence.truncate(kept);
    }
}

/// Writes a step down: its records, the status, the events. What is then to be carried out is in the change returned.
pub(super) async fn write(
    store: &dyn Store,
    stored: &Change,
    opened: Opened,
    step: &Step,
    now: Timestamp,
) -> Result<(Change, Ledger)> {
    let Opened { change, mut ledger, .. } = opened;
    let notes = bounded(&step.notes);
    let facts = facts(&change.status, &step.status);
    let mut status = step.status.clone();
    if !facts.is_empty() || !notes.is_empty() || status.plan != change.status.plan {
        let told = StepRecord { notes: notes.clone(), status: touched(&change.status, &status) };
        ledger.last = append(store, &change, ledger.last, facts, told, now).await?;
        status.records = ledger.last;
    }
    let next = Change { status, ..change };
    store_status(store, stored, &next).await?;
    for note in notes {
        store.append_event(event(&next, note, now)).await?;
    }
    ledger.status = next.status.clone();
    Ok((next, ledger))
}

/// Tells the events of an ended change that a process died over.
pub(super) async fn tell_the_end(store: &dyn Store, stored: &Change) -> Result<()> {
    let mut log = Log { last: stored.status.records.saturating_sub(1), ..Log::of(stored) };
    log.read_on(store, |_| {}).await?;
    for (at, note) in missing_events(store, stored, log.told()).await? {
        store.append_event(event(stored, note, at)).await?;
    }
    Ok(())
}

/// Finishes what another process has written down and not said: the status, the events.
pub(super) async fn make_up(store: &dyn Store, stored: &Change, opened: Opened) -> Result<Ledger> {
    store_status(store, stored, &opened.change).await?;
    for (at, note) in opened.behind.unwrap_or_default() {
        store.append_event(event(&opened.change, note, at)).await?;
    }
    Ok(opened.ledger)
}

/// Stores the status of `next`, also over an edit of the spec that came in between: the step was decided before it.
async fn store_status(store: &dyn Store, stored: &Change, next: &Change) -> Result<()> {
    let status = summary(&next.status);
    let mut base = stored.clone();
    for _ in 0..TRIES {
        if base.status == status {
            return Ok(());
        }
        match typed::update_status(store, &Change { status: status.clone(), ..base.clone() }).await {
            Err(Error::Conflict { .. }) => {}
            result => return result.map(drop),
        }
        let again = typed::get::<ChangeSpec>(store, stored.name()).await?;
        let same = |c: &Change| c.metadata.uid == stored.metadata.uid && c.status == stored.status;
        base = again.filter(same).ok_or_else(|| Error::NotFound(stored.key()))?;
    }
    Ok(())
}

fn event(change: &Change, note: Note, time: Timestamp) -> Event {
    Event {
        time,
        about: change.key(),
        r#type: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason,
        message: note.message,
        source: SOURCE.to_owned(),
    }
}

fn bounded(notes: &[Note]) -> Vec<Note> {
    let mut told: Vec<Note> = notes.iter().take(MAX_NOTES).cloned().collect();
    if let (Some(last), more @ 1..) = (notes.last(), notes.len().saturating_sub(MAX_NOTES)) {
        let message = format!("and {more} more at once; weir change report tells each");
        told.push(Note { reason: last.reason.clone(), message, warning: last.warning });
    }
    told
}

/// The status after a step, with the batches that have begun and that the step has touched.
fn touched(before: &ChangeStatus, after: &ChangeStatus) -> ChangeStatus {
    let (before, mut after) = (summary(before), summary(after));
    after.batches.retain(|b| b.phase != BatchPhase::Waiting && !before.batches.contains(b));
    let open = after.batches.iter_mut().filter_map(|b| b.verdict.as_mut());
    open.filter(|v| v.outcome == Outcome::Inconclusive).for_each(|v| trim(v, 0));
    after
}

/// Appends a step to the log; the number of its last record.
async fn append(
    store: &dyn Store,
    change: &Change,
    last: u64,
    facts: Vec<Fact>,
    mut told: StepRecord,
    at: Timestamp,
) -> Result<u64> {
    let chunks = packed(facts);
    let (first, end) = (last + 1, last + chunks.len() as u64);
    told.status.records = end;
    let mut told = Some(Box::new(told));
    for (number, facts) in (first..).zip(chunks) {
        let step = if number == end { told.take() } else { None };
        let spec = ChangeRecordSpec { change: change.name().to_owned(), number, first, at, facts, step };
        let mut record = ChangeRecord::new(ChangeRecordSpec::name(&change.metadata.uid, number), spec);
        record.metadata.labels.insert(CHANGE_LABEL.to_owned(), change.name().to_owned());
        typed::create(store, &record, &Author::new(SOURCE, format!("a step of {}", change.key()))).await?;
    }
    Ok(end)
}

/// Facts in as many parts as there are to be records; one at least.
fn packed(facts: Vec<Fact>) -> Vec<Vec<Fact>> {
    let (mut parts, mut room) = (vec![Vec::new()], MAX_NAMES);
    for fact in facts {
        let names = size(&fact);
        if names > room {
            parts.push(Vec::new());
            room = MAX_NAMES;
        }
        room = room.saturating_sub(names);
        parts.last_mut().expect("there is one from the beginning").push(fact);
    }
    parts
}

fn size(fact: &Fact) -> usize {
    match fact {
        Fact::Planned { instances, .. }
        | Fact::Deferred { instances, .. }
        | Fact::LetGo { instances, .. }
        | Fact::Back { instances, .. }
        | Fact::Lost { instances, .. }
        | Fact::Found { instances, .. } => instances.len(),
        Fact::Left { reasons } => reasons.len(),
    }
}

/// What became of instances between two states of a change.
fn facts(before: &ChangeStatus, after: &ChangeStatus) -> Vec<Fact> {
    let mut facts = Vec::new();
    let begun = |status: &'_ ChangeStatus, number: u32| -> Option<Batch> {
        status.batches.iter().find(|b| b.number == number && b.phase != BatchPhase::Waiting).cloned()
    };
    for batch in after.batches.iter().filter(|b| b.phase != BatchPhase::Waiting) {
        let known = begun(before, batch.number);
        facts_of(batch.number, known.as_ref(), batch, &after.previous, &mut facts);
    }
    if let Some(rollback) = &after.rollback {
        let known = before.rollback.as_ref().map(|r| &r.batch);
        facts_of(WAY_BACK, known, &rollback.batch, &after.previous, &mut facts);
    }
    let newly: Vec<(&String, &String)> =
        after.left.iter().filter(|(name, _)| !before.left.contains_key(*name)).collect();
    let part = |part: &[(&String, &String)]| part.iter().map(|(n, why)| ((*n).clone(), (*why).clone())).collect();
    facts.extend(newly.chunks(MAX_NAMES / 4).map(|names| Fact::Left { reasons: part(names) }));
    facts
}

fn facts_of(
    batch: u32,
    before: Option<&Batch>,
    after: &Batch,
    previous: &BTreeMap<String, String>,
    facts: &mut Vec<Fact>,
) {
    let nobody = Batch::default();
    match before {
        None => facts.extend(planned(batch, &after.instances, previous)),
        Some(before) if Arc::ptr_eq(&before.instances, &after.instances) => {}
        Some(before) => {
            let kept: BTreeSet<&String> = after.instances.iter().collect();
            let gone = before.instances.iter().filter(|n| !kept.contains(n)).cloned().collect();
            facts.extend(parts(gone).map(|instances| Fact::Deferred { batch, instances }));
        }
    }
    let before = before.unwrap_or(&nobody);
    for (at, names) in newly(&before.started, &after.started) {
        facts.extend(parts(names).map(|instances| Fact::LetGo { batch, at, instances }));
    }
    for (at, names) in newly(&before.done, &after.done) {
        facts.extend(parts(names).map(|instances| Fact::Back { batch, at, instances }));
    }
    for (at, names) in newly(&before.lost, &after.lost) {
        facts.extend(parts(names).map(|instances| Fact::Lost { batch, at, instances }));
    }
    let found = before.lost.keys().filter(|n| !after.lost.contains_key(*n)).cloned().collect();
    facts.extend(parts(found).map(|instances| Fact::Found { batch, instances }));
}

/// Who is in a batch that begins, in runs of those that want the same version before it.
fn planned(batch: u32, instances: &[String], previous: &BTreeMap<String, String>) -> Vec<Fact> {
    let version = |name: &String| previous.get(name).map_or("", String::as_str);
    let runs = instances.chunk_by(|a, b| version(a) == version(b)).flat_map(|run| run.chunks(MAX_NAMES));
    let mut facts: Vec<Fact> = runs
        .map(|run| Fact::Planned {
            batch,
            fresh: false,
            previous: version(&run[0]).to_owned(),
            instances: run.to_vec(),
        })
        .collect();
    if facts.is_empty() {
        facts.push(Fact::Planned { batch, fresh: false, previous: String::new(), instances: Vec::new() });
    }
    if let Some(Fact::Planned { fresh, .. }) = facts.first_mut() {
        *fresh = true;
    }
    facts
}

fn parts(names: Vec<String>) -> impl Iterator<Item = Vec<String>> {
    let mut rest = names.into_iter().peekable();
    std::iter::from_fn(move || rest.peek().is_some().then(|| rest.by_ref().take(MAX_NAMES).collect()))
}

/// Entries that are new or have another time, by that time.
fn newly(
    before: &Arc<BTreeMap<String, Timestamp>>,
    after: &Arc<BTreeMap<String, Timestamp>>,
) -> BTreeMap<Timestamp, Vec<String>> {
    let mut by_time: BTreeMap<Timestamp, Vec<String>> = BTreeMap::new();
    if !Arc::ptr_eq(before, after) {
        for (name, at) in after.iter().filter(|(name, at)| before.get(*name) != Some(*at)) {
            by_time.entry(*at).or_default().push(name.clone());
        }
    }
    by_time
}

#[cfg(test)]
mod tests;
