//! Carries a change out: observe, decide, record, act, and again.
//!
//! Each reconcile reads the world ([`load`]), decides with a pure function what the Change's status is to be ([`step`]),
//! writes that status, and only then writes instances ([`act`]). What is written to instances follows from the
//! *recorded* status alone: those let go (`started`) whose spec does not say so yet. So whichever instruction the process
//! dies at, the next reconcile finds either an intention that was recorded and not carried out, which it carries out, or
//! one that was never recorded, which it decides anew. Nothing is remembered in between.
//!
//! The change engine writes desired versions, the instance controller realises them, the proxies report: the three meet
//! in the store only.

mod act;
mod batch;
mod load;
mod rollback;
#[cfg(test)]
mod sim;
mod step;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use weir_model::{Change, Key, Kind, Object};
use weir_reconcile::{Context, Controller, Failure, Next};
use weir_store::observed::Observed;
use weir_store::{Event, EventType, Store, typed};

pub use load::{World, load};
pub use step::{Note, Step, step};

/// Source of events and author of writes.
pub const SOURCE: &str = "controller/change";

/// Carries changes out.
pub struct ChangeController {
    observed: Arc<Observed>,
    /// Changes that have not ended, to be woken when the fleet moves. A cache: losing it costs a second.
    active: Mutex<BTreeSet<Key>>,
}

impl ChangeController {
    /// A controller that judges by what is `observed`.
    pub fn new(observed: Arc<Observed>) -> ChangeController {
        ChangeController { observed, active: Mutex::default() }
    }

    fn active(&self) -> std::sync::MutexGuard<'_, BTreeSet<Key>> {
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
        vec![Kind::Change, Kind::Instance, Kind::Freeze, Kind::Release]
    }

    fn concerns(&self, object: &Object) -> Vec<Key> {
        if object.kind == Kind::Change {
            return vec![object.key()];
        }
        self.active().iter().cloned().collect()
    }

    async fn reconcile(&self, key: &Key, context: &Context) -> Result<Next, Failure> {
        let next = reconcile(context.store.as_ref(), &self.observed, &key.name, context.now()).await?;
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
    observed: &Observed,
    name: &str,
    now: Timestamp,
) -> weir_store::Result<Option<Duration>> {
    let Some(change) = typed::get::<weir_model::ChangeSpec>(store, name).await? else { return Ok(None) };
    if change.status.phase.ended() {
        return Ok(None);
    }
    let world = load(store, &change).await?;
    let decided = step(&change, &world, &observed.telemetry, now);
    let recorded = record(store, &change, &decided, now).await?;
    act::carry_out(store, &recorded, &world, &decided.settle).await?;
    Ok((!recorded.status.phase.ended()).then_some(decided.again))
}

/// Writes the status, then says what happened.
async fn record(store: &dyn Store, change: &Change, decided: &Step, now: Timestamp) -> weir_store::Result<Change> {
    let mut next = change.clone();
    next.status = decided.status.clone();
    let recorded = if next.status == change.status { next } else { typed::update_status(store, &next).await? };
    for note in &decided.notes {
        store.append_event(event(change, note, now)).await?;
    }
    Ok(recorded)
}

fn event(change: &Change, note: &Note, now: Timestamp) -> Event {
    Event {
        time: now,
        about: change.key(),
        r#type: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.to_owned(),
        message: note.message.clone(),
        source: SOURCE.to_owned(),
    }
}
