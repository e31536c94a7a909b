//! A batch on its way: let go in waves, watched, judged.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use weir_model::change::{Action, Batch, BatchPhase, BlockReason, Budget, ChangePhase, Outcome, Verdict};
use weir_model::check::{CheckAnswer, Said};

use super::defend::told;
use super::step::Walk;
use crate::check::{Wave, check_wave};
use crate::defence::Answer;
use crate::judge::{self, Group, Question};
use crate::plan::{self, waves};
use crate::world::{Member, Name, State};

/// Over how long newly exposed traffic weight is counted.
const EXPOSURE: SignedDuration = SignedDuration::from_secs(waves::EXPOSURE_SECONDS as i64);
/// An instance that was back and does not serve for so long (seconds), or its own timeout if that is shorter, is dead.
const LOST_SECONDS: u64 = 60;
/// One death among at least so many changed instances is its host's: it holds the batch until the instance is back, and
/// fails nothing.
const LONE_DEATH_OF: usize = 4;
/// Without a look for longer than this (seconds), nobody was there to see whether an instance serves.
const AWAY_SECONDS: u64 = 15;

impl<'a> Walk<'a> {
    /// Takes batch `index` one step on.
    pub(super) fn drive(&mut self, index: usize) {
        self.part_with_strangers(index);
        self.welcome_back(index);
        self.note_lost(index);
        if let Some(failure) = self.failure(index) {
            return self.fail_batch(index, failure);
        }
        self.let_go(index);
        if self.status.phase == ChangePhase::Blocked {
            return;
        }
        self.bake_when_complete(index);
        self.judge(index);
    }

    pub(super) fn batch(&self, index: usize) -> &Batch {
        &self.status.batches[index]
    }

    fn batch_mut(&mut self, index: usize) -> &mut Batch {
        &mut self.status.batches[index]
    }

    // ## Who still belongs to it

    /// Lets go of instances that vanished or that somebody else has changed; puts back those that fell ill before
    /// their turn.
    fn part_with_strangers(&mut self, index: usize) {
        for name in self.batch(index).instances.iter().cloned().collect::<Vec<String>>() {
            if self.status.left.contains_key(&name) {
                continue;
            }
            match self.parting(index, &name) {
                Some(Parting::Left(why)) => {
                    self.note("InstanceLeft", format!("{name} left the change: {why}"), true);
                    Arc::make_mut(&mut self.status.left).insert(name, why);
                }
                Some(Parting::Later(why)) => {
                    Arc::make_mut(&mut self.batch_mut(index).instances).retain(|n| *n != name);
                    self.note("InstanceDeferred", format!("{name} is deferred: {why}"), true);
                }
                None => {}
            }
        }
    }

    fn parting(&self, index: usize, name: &str) -> Option<Parting> {
        let gone = || Some(Parting::Left("it is gone or being stopped".to_owned()));
        let Some(member) = self.by_name.get(name).filter(|m| m.state != State::Leaving) else { return gone() };
        let started = self.batch(index).started.contains_key(name);
        let previous = self.status.previous.get(name).is_some_and(|p| **p == *member.wanted);
        let expected = match (started, self.batch(index).done.contains_key(name)) {
            (true, true) => &*member.wanted == self.target(),
            (true, false) => previous || &*member.wanted == self.target(),
            (false, _) => previous,
        };
        if !expected {
            return Some(Parting::Left(format!(
                "somebody else wants {} {} there",
                self.change.spec.noun(),
                member.wanted
            )));
        }
        let ill = !started && member.state != State::Serving;
        ill.then(|| Parting::Later(format!("it {} before its turn", member.state.words())))
    }

    /// Notes those that serve with the version wanted.
    fn welcome_back(&mut self, index: usize) {
        let (target, now) = (self.target(), self.now);
        let back = |name: &&String| self.by_name.get(name.as_str()).is_some_and(|m| m.serves(target));
        let batch = self.batch(index);
        let names: Vec<String> =
            batch.started.keys().filter(|n| !batch.done.contains_key(*n)).filter(back).cloned().collect();
        if !names.is_empty() {
            Arc::make_mut(&mut self.batch_mut(index).done).extend(names.into_iter().map(|name| (name, now)));
        }
    }

    /// Notes those that were back and do not serve any more. Time in which nobody looked does not count against them:
    /// their proxies may have had nobody to report to.
    fn note_lost(&mut self, index: usize) {
        let (now, target) = (self.now, self.target());
        let batch = self.batch(index);
        let judged = batch.verdict.as_ref().and_then(|v| v.judged_until);
        let away = judged.is_some_and(|until| now > plan::later(until, AWAY_SECONDS));
        let serves = |name: &str| self.by_name.get(name).is_none_or(|m| m.serves(target));
        let lost = batch.done.keys().filter(|name| !serves(name));
        let since = |name: &String| batch.lost.get(name).copied().filter(|_| !away).unwrap_or(now);
        let lost: BTreeMap<String, Timestamp> = lost.map(|name| (name.clone(), since(name))).collect();
        if lost != *batch.lost {
            self.batch_mut(index).lost = Arc::new(lost);
        }
    }

    /// Static health that is lost for good: one that failed, did not come back in its time, or came back and died.
    fn failure(&self, index: usize) -> Option<String> {
        let batch = self.batch(index);
        let ours = batch.started.iter().filter(|(name, _)| !self.status.left.contains_key(*name));
        let lone_death = batch.lost.len() == 1 && batch.done.len() >= LONE_DEATH_OF;
        ours.filter_map(|(name, started)| Some((*self.by_name.get(name.as_str())?, *started))).find_map(
            |(member, started)| {
                let back = batch.done.contains_key(&*member.name);
                let died = || self.died(member, *batch.lost.get(&*member.name)?).filter(|_| !lone_death);
                self.failed(member, started, back).or_else(died)
            },
        )
    }

    fn failed(&self, member: &Member, started: Timestamp, back: bool) -> Option<String> {
        let (name, target) = (&member.name, &self.change.spec.action);
        let failed = member.state == State::Failed && member.since.is_none_or(|since| since > started);
        if failed {
            return Some(format!("{name} failed with {target}: {}", member.message));
        }
        let limit = self.change.spec.instance_timeout_seconds;
        let late = !back && self.now >= plan::later(started, limit);
        late.then(|| format!("{name} has not come back with {target} in {limit} s: {}", member.message))
    }

    fn died(&self, member: &Member, since: Timestamp) -> Option<String> {
        let limit = self.change.spec.instance_timeout_seconds.min(LOST_SECONDS);
        (self.now >= plan::later(since, limit)).then(|| {
            let (name, state, target) = (&member.name, member.state.words(), &self.change.spec.action);
            let text = format!("{name} was back with {target} and {state} for {limit} s: {}", member.message);
            text.trim_end_matches([':', ' ']).to_owned()
        })
    }

    // ## Waves

    /// Lets go as many as the budgets allow. Recorded first, written afterwards.
    fn let_go(&mut self, index: usize) {
        if self.status.phase == ChangePhase::Paused {
            return self.wait("paused by a person; what is in flight finishes".into(), super::step::LOOK);
        }
        match self.admitted(self.batch(index), None).map(|names| self.those_that_pass(names)) {
            Ok((names, Some(why))) if names.is_empty() => {
                self.status.waiting_since = None;
                self.stand(format!("batch {}: {why}", self.batch(index).number));
            }
            Ok((names, _)) if names.is_empty() => self.explain_standstill(index),
            Ok((names, _)) => {
                self.answer("C-CAPACITY", Answer::pass("enough instances of each app, zone and unit are left"));
                let now = self.now;
                self.status.waiting_since = None;
                let started = Arc::make_mut(&mut self.batch_mut(index).started);
                started.extend(names.into_iter().map(|name| (name.to_string(), now)));
            }
            Err(findings) => self.unsafe_plan(&findings),
        }
    }

    /// Nobody may go and nobody is on the way: a window is shut, or a budget is used up by instances that are out by
    /// themselves.
    fn explain_standstill(&mut self, index: usize) {
        let batch = self.batch(index);
        let waiting = |n: &&String| !batch.started.contains_key(*n) && !self.status.left.contains_key(*n);
        let waiting: Vec<&Member> =
            batch.instances.iter().filter(waiting).filter_map(|n| self.by_name.get(n.as_str()).copied()).collect();
        let (Some(first), true) = (waiting.first(), self.in_flight().is_empty()) else {
            self.status.waiting_since = None;
            return;
        };
        let (number, count) = (batch.number, waiting.len());
        if let Some(freeze) = waiting.iter().find_map(|m| plan::window(&self.world.freezes, m, self.now)) {
            let message = format!("batch {number}: {count} instances wait for a protection window ({})", freeze.reason);
            self.status.waiting_since = None;
            self.answer("W-WINDOW", Answer::wait(message.clone()));
            return self.stand(message);
        }
        let out = |m: &&Member| m.state != State::Serving && m.app == first.app;
        let out: Vec<&str> = self.world.members.iter().filter(out).map(|m| &*m.name).take(3).collect();
        let message =
            format!("batch {number}: {count} instances wait for others of their app to serve: {}", out.join(", "));
        self.answer("C-CAPACITY", Answer::wait(message.clone()));
        self.wait_for_health(message);
        self.at_a_stand = true;
    }

    /// Says why nobody may go; what has changed already is watched on.
    fn stand(&mut self, message: String) {
        self.wait(message, super::step::LOOK);
        self.at_a_stand = true;
    }

    /// Who of `batch` may be let go now, checked independently. On the way back: `passed_over` and instances that are out
    /// by themselves do not count.
    pub(super) fn admitted(
        &self,
        batch: &Batch,
        passed_over: Option<&BTreeSet<&str>>,
    ) -> Result<Vec<Name>, Vec<crate::check::Finding>> {
        let ours = |name: &&String| !self.status.left.contains_key(*name);
        let waiting: Vec<&str> = batch
            .instances
            .iter()
            .filter(ours)
            .filter(|name| !batch.started.contains_key(*name))
            .map(String::as_str)
            .collect();
        let mut in_flight = self.in_flight();
        let freezes = self.freezes(passed_over.is_some());
        let mut members = Cow::Borrowed(&self.world.members);
        if let Some(passed_over) = passed_over {
            in_flight.retain(|name| !passed_over.contains(name));
            let counts = |m: &Member| {
                let name = &*m.name;
                m.state == State::Serving && !passed_over.contains(name)
                    || in_flight.contains(name)
                    || waiting.contains(&name)
            };
            members.to_mut().retain(counts);
        }
        let (budget, exposed) = self.exposure(passed_over.is_some());
        let request = waves::Request {
            members: &members,
            waiting: &waiting,
            in_flight: &in_flight,
            exposed,
            budget: &budget,
            freezes: &freezes,
        };
        let names = waves::admit(&request, self.now);
        let newly: BTreeSet<&str> = names.iter().map(|n| &**n).collect();
        let wave = Wave { members: &members, in_flight: &in_flight, admitted: &newly, exposed };
        let findings = check_wave(&wave, &budget);
        if findings.is_empty() { Ok(names) } else { Err(findings) }
    }

    /// The budget that holds now, and the traffic weight let go within the last minute. A roll-back exposes nobody to
    /// anything new.
    fn exposure(&self, back: bool) -> (Budget, u64) {
        let budget = self.change.spec.budget.clone();
        if back {
            return (Budget { max_exposed_percent_per_minute: 100.0, ..budget }, 0);
        }
        let since = self.now.checked_sub(EXPOSURE).unwrap_or(Timestamp::MIN);
        let recent = self.status.batches.iter().rev().flat_map(|b| b.started.iter()).filter(|(_, at)| **at > since);
        let members = recent.filter_map(|(name, _)| self.by_name.get(name.as_str()));
        (budget, members.map(|m| m.weight).sum())
    }

    /// Everyone that this change has let go, either way, and that is not back.
    fn in_flight(&self) -> BTreeSet<&str> {
        let rollback = self.status.rollback.as_ref().map(|r| &r.batch);
        let out = self
            .status
            .batches
            .iter()
            .chain(rollback)
            .flat_map(|batch| batch.started.keys().filter(|name| !batch.done.contains_key(*name)));
        let returned = |name: &String| rollback.is_some_and(|r| r.done.contains_key(name));
        let ours = out.filter(|name| !returned(name) && !self.status.left.contains_key(*name));
        ours.filter_map(|name| self.by_name.get(name.as_str()).map(|m| &*m.name)).collect()
    }

    fn bake_when_complete(&mut self, index: usize) {
        let left = &self.status.left;
        let batch = self.batch(index);
        let complete = batch.instances.iter().all(|n| batch.done.contains_key(n) || left.contains_key(n));
        if batch.phase != BatchPhase::Changing || !complete {
            return;
        }
        let (number, count) = (batch.number, batch.done.len());
        let now = self.now;
        let batch = self.batch_mut(index);
        batch.phase = BatchPhase::Baking;
        batch.baking_since = Some(now);
        self.note("BatchChanged", format!("batch {number}: {count} instances have changed and are watched"), false);
    }

    // ## Verdict

    fn judge(&mut self, index: usize) {
        if self.batch(index).done.keys().all(|name| self.status.left.contains_key(name)) {
            return self.judge_empty(index);
        }
        let mut verdict = self.batch(index).verdict.clone().unwrap_or_else(|| self.verdict_before(index));
        let groups = self.groups(index);
        self.observe(&mut verdict, index, &groups);
        judge::decide(&mut verdict, &self.question(index, groups.len()));
        self.blame(&mut verdict, index, &groups);
        let (outcome, reason) = (verdict.outcome, verdict.reason.clone());
        self.batch_mut(index).verdict = Some(verdict);
        let held = self.held_after(index);
        match (outcome, held) {
            (Outcome::Fail, _) => self.fail_batch(index, reason),
            (_, Some(held)) if held.said == Said::Fail => self.fail_batch(index, told(&held)),
            (Outcome::Pass, Some(held)) => self.hold_batch(index, &held),
            (Outcome::Pass, None) => self.pass_batch(index, reason),
            (Outcome::Inconclusive, _) => self.keep_watching(index, reason),
        }
    }

    /// What earlier batches have found is not forgotten.
    fn verdict_before(&self, index: usize) -> Verdict {
        let passed = self.status.batches[..index].iter().rfind(|b| b.phase == BatchPhase::Passed);
        judge::carried(passed.and_then(|b| b.verdict.as_ref()))
    }

    /// While nothing moves, the newest batch is still watched: harm that shows late is harm. True if it has failed; its
    /// verdict is otherwise what it was, with more evidence.
    pub(super) fn watch_on(&mut self) -> bool {
        let newest = |b: &Batch| b.phase != BatchPhase::Waiting;
        let Some(index) = self.status.batches.iter().rposition(newest) else { return false };
        let watched = self.status.rollback.is_none()
            && !matches!(self.batch(index).phase, BatchPhase::Failed | BatchPhase::Skipped);
        let Some(before) = self.batch(index).verdict.clone().filter(|_| watched) else { return false };
        let mut verdict = before.clone();
        let groups = self.groups(index);
        self.observe(&mut verdict, index, &groups);
        judge::decide(&mut verdict, &self.question(index, groups.len()));
        if verdict.outcome == Outcome::Fail {
            self.blame(&mut verdict, index, &groups);
            let reason = verdict.reason.clone();
            self.batch_mut(index).verdict = Some(verdict);
            self.fail_batch(index, reason);
            return true;
        }
        (verdict.outcome, verdict.reason) = (before.outcome, before.reason);
        self.batch_mut(index).verdict = Some(verdict);
        false
    }

    /// All left, or nobody is back yet.
    fn judge_empty(&mut self, index: usize) {
        if self.batch(index).phase == BatchPhase::Baking {
            self.pass_batch(index, "nobody was left in it".into());
        } else {
            let flying = self.batch(index).started.len();
            self.wait(
                format!("batch {}: {flying} instances are changing", self.batch(index).number),
                super::step::LOOK,
            );
        }
    }

    /// Reads whole seconds only: reports of the current one still come in.
    fn observe(&self, verdict: &mut Verdict, index: usize, groups: &[Group]) {
        let whole = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap_or(time);
        let first = self.batch(index).done.values().min().copied().unwrap_or(self.now);
        let from = verdict.judged_until.unwrap_or_else(|| whole(first));
        let to = whole(self.now);
        if to <= from {
            return;
        }
        let spec = &self.change.spec;
        let reading = judge::Reading {
            telemetry: self.telemetry,
            target: if matches!(spec.action, Action::ProxyUpgrade { .. }) { self.target() } else { "" },
            tolerance: spec.judge.tolerance,
            verdict,
        };
        let samples = judge::gather(reading, groups, (from, to));
        judge::observe(verdict, &samples);
        if self.batch(index).baking_since.is_some_and(|since| whole(since) <= from) {
            let seconds = u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0);
            verdict.watched_seconds += judge::watched_seconds(&samples).min(seconds);
        }
        verdict.judged_until = Some(to);
    }

    /// Bake time and requests wanted.
    fn rung(&self, index: usize) -> (u64, u64) {
        let rung = self.change.spec.ladder.get(self.batch(index).rung as usize);
        rung.map_or((0, 0), |r| (r.bake_seconds, r.min_requests))
    }

    pub(super) fn question(&self, index: usize, strata: usize) -> Question {
        let batch = self.batch(index);
        let (bake_seconds, min_requests) = self.rung(index);
        Question {
            alpha: self.change.spec.judge.alpha,
            batch: batch.number,
            strata,
            baking: batch.phase == BatchPhase::Baking,
            bake_seconds,
            min_requests,
            unhealthy: self.unhealthy(index),
        }
    }

    /// Post-check on every instance of the batch: version converged, serving, self-check passed.
    pub(super) fn unhealthy(&self, index: usize) -> Vec<String> {
        let ours = self.batch(index).done.keys().filter(|n| !self.status.left.contains_key(*n));
        let members = ours.filter_map(|n| self.by_name.get(n.as_str()));
        let noun = self.change.spec.noun();
        let words = |m: &&&Member| format!("{} {} with {noun} {} {}", m.name, m.state.words(), m.running, m.message);
        members.filter(|m| !m.serves(self.target())).map(|m| words(&m).trim_end().to_owned()).collect()
    }

    /// Who is compared with whom.
    fn groups(&self, index: usize) -> Vec<Group> {
        let roster = judge::Roster {
            members: &self.world.members,
            by_name: &self.by_name,
            batch: self.batch(index),
            batches: &self.status.batches,
            left: &self.status.left,
            in_flight: &self.in_flight(),
            target: self.target(),
        };
        roster.groups()
    }

    fn pass_batch(&mut self, index: usize, reason: String) {
        let now = self.now;
        let batch = self.batch_mut(index);
        batch.phase = BatchPhase::Passed;
        batch.finished_at = Some(now);
        let number = batch.number;
        self.note("BatchPassed", format!("batch {number} passed: {reason}"), false);
        self.again = std::time::Duration::ZERO;
    }

    fn fail_batch(&mut self, index: usize, reason: String) {
        let now = self.now;
        let batch = self.batch_mut(index);
        batch.phase = BatchPhase::Failed;
        batch.finished_at = Some(now);
        let verdict = batch.verdict.get_or_insert_with(judge::open_verdict);
        (verdict.outcome, verdict.reason) = (Outcome::Fail, reason.clone());
        let number = batch.number;
        self.note("BatchFailed", format!("batch {number} failed: {reason}"), true);
        if self.is_publishing() {
            let hint = "it is being stored for everybody: apply what was before, then abort";
            return self.block(BlockReason::BatchFailed, format!("batch {number} failed: {reason}; {hint}"));
        }
        let verdict = self.batch(index).verdict.as_ref();
        let others =
            verdict.and_then(|v| judge::blame::another(&v.blame, self.change.name())).map(|b| b.change.clone());
        if let Some(other) = others {
            let hint = "roll that one back and retry, or roll this one back";
            let message = format!("batch {number} failed: {reason}; change/{other} is the likelier cause: {hint}");
            self.block(BlockReason::BatchFailed, message);
        } else if self.level().rolls_back() {
            self.roll_back(format!("batch {number} failed: {reason}"));
        } else {
            let hint = "roll back, retry, skip or abort";
            self.block(BlockReason::BatchFailed, format!("batch {number} failed: {reason}; {hint}"));
        }
    }

    fn keep_watching(&mut self, index: usize, reason: String) {
        let message = format!("batch {}: {reason}", self.batch(index).number);
        self.watch_with_patience(index, message, "send it traffic and retry, or roll back");
    }

    /// The judge has found no harm, but a check does not say yes yet.
    fn hold_batch(&mut self, index: usize, held: &CheckAnswer) {
        let message = format!("batch {}: {}", self.batch(index).number, told(held));
        let hint = format!("retry, roll back, or `weir change skip-check {} {}`", self.change.name(), held.code);
        self.watch_with_patience(index, message, &hint);
    }

    fn watch_with_patience(&mut self, index: usize, message: String, hint: &str) {
        let (bake, _) = self.rung(index);
        let limit = bake.saturating_add(self.change.spec.judge.patience_seconds);
        let late = |since: Timestamp| self.now >= plan::later(since, limit);
        if self.batch(index).baking_since.is_some_and(late) {
            return self.block(BlockReason::NoEvidence, format!("{message}; no verdict in {limit} s: {hint}"));
        }
        if !self.at_a_stand {
            self.wait(message, super::step::LOOK);
        }
    }
}

/// Why an instance is not the batch's any more.
enum Parting {
    /// For good.
    Left(String),
    /// It is planned again when it serves.
    Later(String),
}
