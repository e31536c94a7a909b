//! Splits a change into batches: `plan(input, now)`, pure and deterministic.
//!
//! A batch is what becomes newly exposed together and is judged together; how many of its instances are out at a moment
//! is a matter of [`waves`], within the budgets.
//!
//! The planner keeps no position of its own. Where a change stands follows from the instances that passed batches have
//! changed, so planning again from a half-done state gives the rest of the same plan, whatever crashed in between:
//! - The **ladder** is climbed by traffic weight: the next batch fills the lowest rung that has room for at least one
//!   more instance. It is climbed twice at a time: by the scope as a whole, and by each app on its own, so an app that
//!   was deferred catches up from its own first box and skips no rung.
//! - **Enforced canary**: of a stratum (stack, unit, tier) from which no passed batch has taken an instance, a batch takes
//!   just one. Such strata are served first.
//! - **Order**: those first that can be compared with another instance of their app in their unit; then canary units, the
//!   least important tier, the unit with the least traffic, and the apps in turn.
//! - **Scale**: [`index`] turns names into numbers once; each batch is then one pass over those that are left, so that time
//!   and memory grow with the fleet.
//! - **Windows**: instances of a frozen app are deferred, the others go on; when only frozen ones are left, the forecast
//!   goes on from the moment the first window opens.

mod calendar;
mod climb;
mod course;
mod index;
pub mod waves;
mod why;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use weir_model::FreezeSpec;
use weir_model::change::{Budget, Rung};

use crate::windows::{Shut, Way, Windows};
use crate::world::{Member, Name};
use course::Course;

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The version that instances are to run.
    pub target: &'a str,
    /// How batches grow; not empty, rising to 100 %.
    pub ladder: &'a [Rung],
    /// What may be out at a time.
    pub budget: &'a Budget,
    /// Protection windows.
    pub freezes: &'a [FreezeSpec],
    /// The fleet, by name.
    pub members: &'a [Member],
    /// What has been done.
    pub past: &'a Past,
    /// How long one instance takes to change, measured or assumed (seconds).
    pub pace_seconds: u64,
}

/// What has been done of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Instances changed by batches that passed (or, for a forecast, by the one that runs).
    pub changed: HashSet<Name>,
    /// Instances that the change has let go for good.
    pub left: HashSet<Name>,
}

/// Batches to come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub batches: Vec<Planned>,
    /// Who has to wait, in the order of names; those with a batch above wait for a window that is known to open.
    pub deferred: Vec<Deferred>,
}

/// A batch to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Index of its rung.
    pub rung: usize,
    /// Who is in it, in the order they go.
    pub instances: Vec<Name>,
    /// Why these.
    pub why: String,
    /// When it is expected to begin.
    pub start: Timestamp,
    /// When it is expected to have baked.
    pub end: Timestamp,
}

/// An instance that has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// Who.
    pub instance: Name,
    /// What for.
    pub wait: Wait,
}

/// What an instance waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A protection window.
    Window {
        /// Why there is one.
        reason: Arc<str>,
        /// When it opens, if that is known.
        until: Option<Timestamp>,
    },
    /// Itself: it does not serve.
    Health(String),
}

/// Plans what is left of a change.
pub fn plan(input: &Input, now: Timestamp) -> Plan {
    let mut course = Course::new(input);
    let mut plan = Plan { batches: Vec::new(), deferred: course.deferred(now) };
    let mut at = now;
    loop {
        if let Some(batch) = course.next_batch(at) {
            at = batch.end;
            plan.batches.push(batch);
        } else if let Some(opens) = course.opens_after(at) {
            at = opens;
        } else {
            plan.deferred.extend(course.left_over(at));
            plan.deferred.sort_by(|a, b| a.instance.cmp(&b.instance));
            plan.deferred.dedup_by(|a, b| a.instance == b.instance);
            return plan;
        }
    }
}

/// Seconds after a moment, or the last moment there is.
pub(crate) fn later(at: Timestamp, seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Why `member` may not change now, in its author's words.
pub fn window<'a>(freezes: &'a [FreezeSpec], member: &Member, now: Timestamp) -> Option<Shut<'a>> {
    let windows = Windows::new(freezes);
    windows.shut(&windows.calendar(member.place()), &windows.at(now), Way::Forward)
}

#[cfg(test)]
mod tests;
