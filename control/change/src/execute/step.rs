//! The next step of a change: its status after it, and what to say about it. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use weir_model::change::{Batch, BatchPhase, BlockReason, ChangePhase, ChangeStatus, Command, Rollback};
use weir_model::check::Said;
use weir_model::{Change, FreezeSpec};
use weir_store::observed::Telemetry;

use super::forecast::waiting;
use super::{Note, World};
use crate::check::{Finding, check};
use crate::plan::{self, Input, Past, Plan, Planned, Wait};
use crate::preview::ASSUMED_PACE_SECONDS;
use crate::world::{self, Member, Name, many};

/// Between two looks while something moves or is watched.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Between two looks while a person or a window is waited for; changes in the store wake it earlier.
pub(super) const IDLE: Duration = Duration::from_secs(10);

/// What a step leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// To be recorded before anything is done.
    pub status: ChangeStatus,
    /// What happened.
    pub notes: Vec<Note>,
    /// Workloads that are to make new instances with the version wanted.
    pub settle: Vec<String>,
    /// When to look again.
    pub again: Duration,
}

/// Decides the next step.
pub fn step(change: &Change, world: &World, telemetry: &Telemetry, now: Timestamp) -> Step {
    let mut walk = Walk {
        change,
        world,
        telemetry,
        now,
        by_name: world.members.iter().map(|m| (&*m.name, m)).collect(),
        status: change.status.clone(),
        notes: Vec::new(),
        settle: Vec::new(),
        again: LOOK,
        at_a_stand: false,
    };
    walk.status.observed_generation = change.metadata.generation;
    walk.note_level();
    walk.commands();
    // Whoever was taken out of it is written before anything else may end it.
    if walk.status.phase == change.status.phase && Arc::ptr_eq(&walk.status.left, &change.status.left) {
        walk.go_on();
    } else {
        walk.again = Duration::ZERO;
    }
    walk.progress();
    debug_assert!(change.status.phase.may_become(walk.status.phase), "{:?}", (change.status.phase, walk.status.phase));
    Step { status: walk.status, notes: walk.notes, settle: walk.settle, again: walk.again }
}

pub(super) struct Walk<'a> {
    pub change: &'a Change,
    pub world: &'a World,
    pub telemetry: &'a Telemetry,
    pub now: Timestamp,
    pub by_name: BTreeMap<&'a str, &'a Member>,
    pub status: ChangeStatus,
    pub notes: Vec<Note>,
    pub settle: Vec<String>,
    pub again: Duration,
    /// Nobody of the batch may go, and the status says why: nothing said later in the step matters more.
    pub at_a_stand: bool,
}

impl<'a> Walk<'a> {
    pub fn target(&self) -> &'a str {
        self.change.spec.target()
    }

    /// Says what happens, in the status and in an event.
    pub fn note(&mut self, reason: &str, message: String, warning: bool) {
        self.status.message.clone_from(&message);
        self.notes.push(Note { reason: reason.to_owned(), message, warning });
    }

    /// Says why it waits, in the status only.
    pub fn wait(&mut self, message: String, again: Duration) {
        self.status.message = message;
        self.again = again;
    }

    pub fn end(&mut self, phase: ChangePhase, reason: &str, message: String) {
        self.status.phase = phase;
        self.status.finished_at = Some(self.now);
        self.status.batches.retain(|b| b.phase != BatchPhase::Waiting);
        self.note(reason, message, phase == ChangePhase::Aborted);
    }

    pub fn block(&mut self, why: BlockReason, message: String) {
        let (phase, blocked) = (ChangePhase::Blocked, Some(why));
        let news = (self.status.phase, self.status.blocked) != (phase, blocked);
        (self.status.phase, self.status.blocked) = (phase, blocked);
        if news {
            self.note("Blocked", message, true);
        } else {
            self.wait(message, IDLE);
        }
        self.again = IDLE;
    }

    // ## What a person wants

    fn commands(&mut self) {
        match (self.change.spec.command, self.status.phase) {
            (_, phase) if phase.ended() => {}
            (Command::Abort, _) => self.abort(),
            (Command::RollBack, _) if self.is_publishing() => {}
            (Command::RollBack, _) if self.status.rollback.is_none() => self.roll_back("a person asked for it".into()),
            (Command::Pause, ChangePhase::Pending | ChangePhase::Running) => {
                self.status.phase = ChangePhase::Paused;
                self.note("Paused", "paused: what is in flight finishes, nothing begins".into(), false);
            }
            (Command::Run, ChangePhase::Paused) => {
                self.status.phase = ChangePhase::Running;
                self.note("Resumed", "goes on".into(), false);
            }
            _ => {}
        }
        if !self.status.phase.ended() {
            self.take_back();
            self.skip_begun();
            self.retry();
            self.note_skips();
        }
    }

    fn abort(&mut self) {
        let (changed, target) = (self.changed_count(), self.target());
        let message = match self.change.spec.action.is_configuration() {
            true => format!("stopped by a person: {changed} proxies that had {target} go by what is stored, at once"),
            false => format!(
                "stopped by a person: {changed} instances run {target} and stay so; to undo it, make a change to their \
                 previous version"
            ),
        };
        self.end(ChangePhase::Aborted, "Aborted", message);
    }

    pub fn changed_count(&self) -> usize {
        self.status.batches.iter().map(|b| b.done.len()).sum()
    }

    fn retry(&mut self) {
        let asked = self.change.spec.retries > self.status.retries;
        self.status.retries = self.status.retries.max(self.change.spec.retries);
        if asked && self.status.phase == ChangePhase::Blocked {
            if self.status.blocked == Some(BlockReason::ConfigEdited) {
                self.renew_bases();
            }
            self.unblock("Retried", "tried again, as a person asked".into());
        }
    }

    /// What blocked is judged anew.
    fn unblock(&mut self, reason: &str, message: String) {
        self.status.blocked = None;
        self.status.waiting_since = None;
        let back = self.status.rollback.is_some();
        self.status.phase = if back { ChangePhase::RollingBack } else { ChangePhase::Running };
        let now = self.now;
        let stuck = |b: &&mut Batch| matches!(b.phase, BatchPhase::Changing | BatchPhase::Baking | BatchPhase::Failed);
        let batches = self.status.batches.iter_mut().chain(self.status.rollback.as_mut().map(|r| &mut r.batch));
        batches.filter(stuck).for_each(|b| begin_anew(b, now));
        self.note(reason, message, false);
    }

    // ## The walk

    fn go_on(&mut self) {
        match self.status.phase {
            ChangePhase::Pending | ChangePhase::Running | ChangePhase::Paused => self.forward(),
            ChangePhase::RollingBack => self.drive_rollback(),
            ChangePhase::Blocked => self.blocked(),
            ChangePhase::Succeeded | ChangePhase::RolledBack | ChangePhase::Aborted => {}
        }
    }

    fn blocked(&mut self) {
        self.again = IDLE;
        if self.status.blocked == Some(BlockReason::ReleaseMissing) && self.world.released {
            self.unblock("Unblocked", format!("there is a Release of {} now", self.change.spec.action));
            self.again = LOOK;
        }
        if self.status.blocked == Some(BlockReason::NothingInScope) && self.world.in_scope() > 0 {
            let now = many(self.world.in_scope(), "instance is", "instances are");
            self.unblock("Unblocked", format!("{now} in scope now"));
            self.again = LOOK;
        }
        if self.status.blocked == Some(BlockReason::CheckFailed) && self.nothing_stands_in_the_way() {
            self.unblock("Unblocked", "what had failed before the batch is well now, or is skipped".into());
            self.again = LOOK;
        }
        let watched = [BlockReason::NoEvidence, BlockReason::Unreachable, BlockReason::CheckFailed];
        if self.status.blocked.is_some_and(|why| watched.contains(&why)) {
            self.watch_on();
        }
    }

    fn forward(&mut self) {
        if self.blocks_on_edits() {
            return;
        }
        let running = |b: &Batch| matches!(b.phase, BatchPhase::Changing | BatchPhase::Baking);
        match self.status.batches.iter().position(running) {
            Some(index) => self.drive(index),
            None if self.watch_on() => {}
            None if self.status.phase == ChangePhase::Paused => self.wait("paused by a person".into(), IDLE),
            None if self.is_publishing() => self.publish(),
            None => self.next_batch(),
        }
    }

    // ## Between batches

    fn next_batch(&mut self) {
        if let Some(held) = self.held_at_the_door() {
            return self.heed(&held);
        }
        let past = self.past();
        let input = self.input(&past);
        let plan = plan::plan(&input, self.now);
        if plan.batches.is_empty() && plan.deferred.is_empty() {
            let configuration = self.change.spec.action.is_configuration();
            return if configuration { self.publish() } else { self.complete() };
        }
        let findings = check(&input, &plan, self.now);
        if findings.is_empty() && self.world.released {
            self.forecast(&plan);
            if plan.batches.first().is_some_and(|first| self.skips_next(first)) {
                return;
            }
        }
        if let Some(held) = self.held_before(&plan, &findings) {
            return self.heed(&held);
        }
        match plan.batches.first() {
            _ if !self.goes_by_plan(&plan) => {}
            Some(first) if first.start <= self.now => self.begin_next(first),
            _ => self.wait_for_deferred(&plan),
        }
    }

    /// Asks before the batch that would be next; true if it might begin.
    fn nothing_stands_in_the_way(&mut self) -> bool {
        let past = self.past();
        let input = self.input(&past);
        let plan = plan::plan(&input, self.now);
        let findings = check(&input, &plan, self.now);
        self.held_before(&plan, &findings).is_none_or(|held| held.said != Said::Fail)
    }

    pub fn unsafe_plan(&mut self, findings: &[Finding]) {
        let first = findings.first().map(ToString::to_string).unwrap_or_default();
        let message =
            format!("the plan breaks a rule and was not carried out ({first}); please report this as a defect of Weir");
        self.block(BlockReason::PlanUnsafe, message);
    }

    /// What passed batches have changed, and who has left.
    fn past(&self) -> Past {
        let passed = self.status.batches.iter().filter(|b| b.phase == BatchPhase::Passed);
        let left: HashSet<Name> = self.status.left.keys().map(|n| n.as_str().into()).collect();
        let changed = passed
            .flat_map(|b| b.done.keys())
            .filter(|name| !left.contains(name.as_str()))
            .map(|n| n.as_str().into())
            .collect();
        Past { changed, left }
    }

    fn input<'p>(&self, past: &'p Past) -> Input<'p>
    where
        'a: 'p,
    {
        let spec = &self.change.spec;
        Input {
            target: spec.target(),
            ladder: &spec.ladder,
            budget: &spec.budget,
            freezes: &self.world.freezes,
            members: &self.world.members,
            past,
            pace_seconds: self.pace_seconds(),
        }
    }

    /// Mean time of an instance from being let go to being back.
    fn pace_seconds(&self) -> u64 {
        let took =
            |b: &Batch, name: &String, done: Timestamp| Some(done.duration_since(*b.started.get(name)?).as_secs());
        let times: Vec<i64> = self
            .status
            .batches
            .iter()
            .flat_map(|b| b.done.iter().filter_map(|(name, done)| took(b, name, *done)))
            .collect();
        let mean = times.iter().sum::<i64>().checked_div(times.len() as i64);
        mean.map_or(ASSUMED_PACE_SECONDS, |seconds| u64::try_from(seconds).unwrap_or(1).max(1))
    }

    fn begin_next(&mut self, planned: &Planned) {
        if let Some(index) = self.status.batches.iter().position(|b| b.phase == BatchPhase::Waiting) {
            self.begin(index, planned);
        }
    }

    pub fn begin(&mut self, index: usize, planned: &Planned) {
        self.status.phase = ChangePhase::Running;
        self.status.started_at.get_or_insert(self.now);
        self.status.waiting_since = None;
        self.note_bases();
        let previous = Arc::make_mut(&mut self.status.previous);
        for name in &planned.instances {
            let Some(member) = self.by_name.get(&**name) else { continue };
            previous.entry(name.to_string()).or_insert_with(|| member.wanted.to_string());
        }
        let batch = &mut self.status.batches[index];
        *batch = Batch { phase: BatchPhase::Changing, started_at: Some(self.now), ..waiting(batch.number, planned) };
        let message = format!("batch {} begins: {}", batch.number, planned.why);
        self.note("BatchStarted", message, false);
        self.drive(index);
    }

    fn complete(&mut self) {
        let target = &self.change.spec.action;
        let total = self.world.in_scope();
        if !self.world.unsettled.is_empty() {
            self.settle.clone_from(&self.world.unsettled);
            return self.wait(format!("new instances are to come with {target} too"), LOOK);
        }
        let message = match (total, self.changed_count()) {
            // Configuration that concerns nobody yet is stored all the same.
            (0, 0) if target.is_configuration() => format!("no proxy is concerned by {target}"),
            (0, 0) => return self.block(BlockReason::NothingInScope, world::nothing_in_scope(&self.change.spec)),
            (_, 0) => format!("nothing to do: all {total} instances in scope want {target} already"),
            (_, changed) => format!("{changed} instances run {target}{}", self.left_words()),
        };
        self.end(ChangePhase::Succeeded, "Succeeded", message);
    }

    pub fn left_words(&self) -> String {
        match self.status.left.len() {
            0 => String::new(),
            n => format!("; {n} left the change on the way, weir change report tells which"),
        }
    }

    fn wait_for_deferred(&mut self, plan: &Plan) {
        let windows = plan.deferred.iter().filter(|d| matches!(d.wait, Wait::Window { .. })).count();
        if let (0, Some(first)) = (windows, plan.deferred.first()) {
            let Wait::Health(why) = &first.wait else { return };
            let message = format!("{} instances in scope do not serve; {}: {why}", plan.deferred.len(), first.instance);
            return self.wait_for_health(message);
        }
        self.status.waiting_since = None;
        let until = plan.batches.first().map(|b| format!(", until {}", b.start)).unwrap_or_default();
        let reason = plan.deferred.iter().find_map(|d| match &d.wait {
            Wait::Window { reason, .. } => Some(&**reason),
            Wait::Health(_) => None,
        });
        let reason = reason.unwrap_or_default();
        self.wait(format!("{windows} instances wait for a protection window ({reason}){until}"), IDLE);
    }

    pub fn wait_for_health(&mut self, message: String) {
        let since = *self.status.waiting_since.get_or_insert(self.now);
        if self.now >= plan::later(since, self.change.spec.judge.patience_seconds) {
            let hint = "repair or remove them and retry, or abort to leave them as they are";
            return self.block(BlockReason::Unreachable, format!("{message}; {hint}"));
        }
        self.wait(message, LOOK);
    }

    // ## Roll-back

    /// Turns round: everything that was let go returns to its previous version.
    pub fn roll_back(&mut self, reason: String) {
        let started = self.status.batches.iter().flat_map(|b| b.started.keys());
        let mut names: Vec<String> = started.filter(|name| !self.status.left.contains_key(*name)).cloned().collect();
        // Those that are out anyway go first: it costs nothing.
        names.sort_by_key(|name| {
            (self.by_name.get(name.as_str()).is_none_or(|m| m.state == crate::world::State::Serving), name.clone())
        });
        self.status.batches.retain(|b| b.phase != BatchPhase::Waiting);
        self.status.batches.iter_mut().filter(|b| b.finished_at.is_none()).for_each(|b| b.finished_at = Some(self.now));
        self.status.blocked = None;
        let why = format!("all {} instances that were let go, as many at a time as the budgets allow", names.len());
        self.status.phase = ChangePhase::RollingBack;
        self.note("RollingBack", format!("{} instances roll back: {reason}", names.len()), true);
        let batch = Batch {
            number: 1,
            size: names.len() as u32,
            instances: Arc::new(names),
            why,
            phase: BatchPhase::Changing,
            started_at: Some(self.now),
            ..Batch::default()
        };
        self.status.rollback = Some(Rollback { reason, batch });
    }

    /// Windows that hold for what happens now.
    pub fn freezes(&self, back: bool) -> Vec<FreezeSpec> {
        self.world.freezes.iter().filter(|f| !back || f.roll_backs_too).cloned().collect()
    }

    fn progress(&mut self) {
        let (total, done) = match &self.status.rollback {
            Some(rollback) => (rollback.batch.instances.len(), rollback.batch.done.len()),
            None => {
                let scope = || self.world.members.iter().filter(|m| m.in_scope);
                let target = self.target();
                (scope().count(), scope().filter(|m| &*m.wanted == target && &*m.running == target).count())
            }
        };
        // Those that have gone by the store again have not gone back.
        let done = if self.is_publishing() { total } else { done };
        let batches = || self.status.batches.iter();
        let current = batches().rfind(|b| b.phase != BatchPhase::Waiting);
        let moving = self.status.rollback.as_ref().map(|r| &r.batch).or(current);
        let in_flight = moving.map_or(0, |b| b.started.keys().filter(|n| !b.done.contains_key(*n)).count());
        let progress = &mut self.status.progress;
        (progress.total, progress.done, progress.in_flight) = (total as u32, done as u32, in_flight as u32);
        progress.batch = current.map_or(0, |b| b.number);
        progress.batches = self.status.batches.len() as u32;
        self.status.left_count = self.status.left.len() as u32;
    }
}

/// Those that are not back get their time again, and the evidence is gathered anew.
fn begin_anew(batch: &mut Batch, now: Timestamp) {
    batch.phase = BatchPhase::Changing;
    batch.verdict = None;
    batch.finished_at = None;
    batch.baking_since = None;
    batch.lost = Arc::default();
    let times = Arc::make_mut(&mut batch.started).values_mut().chain(Arc::make_mut(&mut batch.done).values_mut());
    times.for_each(|at| *at = now);
}
