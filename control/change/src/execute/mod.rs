//! Carries a change out: observe, decide, record, act, and again.
//!
//! Each reconcile reads the world ([`crate::fleet`]), decides with a pure function what the Change's status is to be
//! ([`step`]), writes that down ([`record`]), and only then writes instances ([`act`]). What is written to instances follows from the
//! *recorded* status alone: those let go (`started`) whose spec does not say so yet. So whichever instruction the process
//! dies at, the next reconcile finds either an intention that was recorded and not carried out, which it carries out, or
//! one that was never recorded, which it decides anew. What is remembered in between ([`Memory`]) is a cache.
//!
//! The change engine writes desired versions, the instance controller realises them, the proxies report: the three meet
//! in the store only.

mod act;
mod batch;
mod blame;
mod by_hand;
mod defend;
mod forecast;
mod publish;
mod record;
mod rollback;
#[cfg(test)]
pub(crate) mod sim;
mod step;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_model::{Change, ChangeSpec, Key, Kind, Object};
use weir_reconcile::{Context, Controller, Failure, Next};
use weir_store::observed::Observed;
use weir_store::{Error, Store, typed};

use crate::defence::probe::Probes;
use crate::fleet::Fleet;
pub use crate::world::World;
pub use act::{Write, writes};
pub use record::{records, with_names};
pub use step::{Step, step};
pub use weir_model::change_record::Note;

use record::Ledger;

/// Source of events and author of writes.
pub const SOURCE: &str = "controller/change";

/// What the engine remembers between reconciles. All of it is a cache: an empty one costs reading the store.
#[derive(Debug, Default)]
pub struct Memory {
    turn: tokio::sync::Mutex<Turn>,
    ledgers: Mutex<HashMap<String, Ledger>>,
    probes: Probes,
    /// Uids of changes that have ended and whose events are all told.
    told: Mutex<HashSet<String>>,
}

/// Whose turn it is: held from looking at the fleet until what was decided is written to instances. Two changes that looked
/// at the same time would each find nobody out, and each let an instance of the same app go.
#[derive(Debug, Default)]
struct Turn {
    fleet: Fleet,
    /// Every change has written to instances what it had recorded. Until then others can't see what it is about to do.
    carried_out: bool,
}

impl Turn {
    /// What a process that died, or a write that failed, has left undone is done before anybody decides anew.
    async fn begin(&mut self, store: &dyn Store) -> weir_store::Result<()> {
        self.fleet.refresh(store).await?;
        if self.carried_out {
            return Ok(());
        }
        for name in self.fleet.under_way() {
            match self.make_good(store, &name).await {
                // Its own fault, and the same at every try: it holds nobody else up.
                Err(error @ (Error::Invalid(_) | Error::NotFound(_) | Error::AlreadyExists(_))) => {
                    tracing::error!(change = name, %error, "what was recorded can not be carried out");
                }
                result => result?,
            }
        }
        self.carried_out = true;
        self.fleet.refresh(store).await
    }

    async fn make_good(&self, store: &dyn Store, name: &str) -> weir_store::Result<()> {
        let Some(change) = recorded(store, name).await? else { return Ok(()) };
        act::carry_out(store, &change, &self.fleet.world(&change), &[]).await
    }
}

/// A change with everything that was recorded of it, unless it has ended or is gone.
async fn recorded(store: &dyn Store, name: &str) -> weir_store::Result<Option<Change>> {
    let Some(stored) = typed::get::<ChangeSpec>(store, name).await?.filter(|c| !c.status.phase.ended()) else {
        return Ok(None);
    };
    let opened = record::open(store, &stored, None).await?;
    let change = opened.change.clone();
    if opened.behind.is_some() {
        // Other changes go by the stored status.
        record::make_up(store, &stored, opened).await?;
    }
    Ok(Some(change))
}

impl Memory {
    fn ledgers(&self) -> MutexGuard<'_, HashMap<String, Ledger>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries changes out.
pub struct ChangeController {
    observed: Arc<Observed>,
    memory: Memory,
    /// Changes that have not ended, to be woken when the fleet moves. A cache: losing it costs a second.
    active: Mutex<BTreeSet<Key>>,
}

impl ChangeController {
    /// A controller that judges by what is `observed`.
    pub fn new(observed: Arc<Observed>) -> ChangeController {
        ChangeController { observed, memory: Memory::default(), active: Mutex::default() }
    }

    fn active(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_active(&self, key: &Key, active: bool) {
        if active {
            self.active().insert(key.clone());
        } else {
            self.active().remove(key);
        }
    }
}

#[async_trait]
impl Controller for ChangeController {
    fn name(&self) -> &'static str {
        "change"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::Change, Kind::Instance, Kind::Freeze, Kind::Release, Kind::Route, Kind::App, Kind::Check, Kind::Slo]
    }

    fn concerns(&self, object: &Object) -> Vec<Key> {
        if object.kind == Kind::Change {
            return vec![object.key()];
        }
        self.active().iter().cloned().collect()
    }

    async fn reconcile(&self, key: &Key, context: &Context) -> Result<Next, Failure> {
        let next = reconcile(context.store.as_ref(), &self.memory, &self.observed, &key.name, context.now()).await?;
        self.note_active(key, next.is_some());
        Ok(next.map_or(Next::OnChange, Next::After))
    }
}

/// One reconcile of the change `name`. When to look again; `None`: it has ended or is gone.
///
/// # Errors
/// Those of the store.
pub async fn reconcile(
    store: &dyn Store,
    memory: &Memory,
    observed: &Observed,
    name: &str,
    now: Timestamp,
) -> weir_store::Result<Option<Duration>> {
    let known = memory.ledgers().remove(name);
    let Some(stored) = typed::get::<ChangeSpec>(store, name).await? else {
        record::forget(store, name).await?;
        release_strays(store, memory).await?;
        return Ok(None);
    };
    if stored.status.phase.ended() {
        return end(store, memory, &stored).await.map(|()| None);
    }
    let opened = record::open(store, &stored, known).await?;
    if opened.behind.is_some() {
        let ledger = record::make_up(store, &stored, opened).await?;
        memory.ledgers().insert(name.to_owned(), ledger);
        return Ok(Some(Duration::ZERO));
    }
    let mut turn = memory.turn.lock().await;
    turn.begin(store).await?;
    let mut world = turn.fleet.world(&opened.change);
    defend::ask_others(&memory.probes, &opened.change, &world, &observed.telemetry, now);
    world.heard = memory.probes.heard(&opened.change.metadata.uid);
    let decided = step(&opened.change, &world, &observed.telemetry, now);
    turn.carried_out = false;
    let (recorded, ledger) = record::write(store, &stored, opened, &decided, now).await?;
    act::carry_out(store, &recorded, &world, &decided.settle).await?;
    turn.carried_out = true;
    let goes_on = !recorded.status.phase.ended();
    if goes_on {
        memory.ledgers().insert(name.to_owned(), ledger);
    }
    Ok(goes_on.then_some(decided.again))
}

/// Once per process and change: what its last step has to say is said.
async fn end(store: &dyn Store, memory: &Memory, change: &Change) -> weir_store::Result<()> {
    let lock = || memory.told.lock().unwrap_or_else(PoisonError::into_inner);
    if lock().contains(&change.metadata.uid) {
        return Ok(());
    }
    record::tell_the_end(store, change).await?;
    memory.probes.forget(&change.metadata.uid);
    release_strays(store, memory).await?;
    lock().insert(change.metadata.uid.clone());
    Ok(())
}

/// Proxies that have configuration for which no change answers any more go by what is stored.
async fn release_strays(store: &dyn Store, memory: &Memory) -> weir_store::Result<()> {
    let mut turn = memory.turn.lock().await;
    turn.fleet.refresh(store).await?;
    for (instance, revision) in turn.fleet.strays() {
        publish::release(store, &instance, &revision, "no change answers for it any more").await?;
    }
    Ok(())
}
