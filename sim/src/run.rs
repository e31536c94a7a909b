//! One simulated change, from intent to its end, by the real executor.
//!
//! The executor's pure step decides; what it decided is recorded; only then are instances written. It may die between any
//! two of these: what it measured is lost then, and it goes on from its record, read back from JSON, some seconds later.

use weir_change::execute::{step, writes};
use weir_model::Change;
use weir_model::change::{BatchPhase, BlockReason, Budget, ChangePhase, ChangeSpec, ChangeStatus, JudgeSpec, Rung};
use weir_model::{FreezeSpec, change::Command};
use weir_store::observed::Telemetry;

use crate::background::Background;
use crate::dice::Dice;
use crate::flaw::{Flaw, Version};
use crate::law::Law;
use crate::mesh::{Mesh, NEW, TICK, moment};
use crate::peers::{Judge, Peer};
use crate::shape::Shape;

/// Between two looks of the executor while nothing moves, in seconds. It reads every second's reports whenever it looks.
const LOOK_SECONDS: i64 = 15;
/// A change that takes longer than so many simulated seconds hangs.
const LONGEST_SECONDS: i64 = 12 * 3_600;
/// Decisions at one moment: more than a few are a loop.
const MOST_DECISIONS: usize = 50;
/// The default ladder's bakes are this many times as long as those of the simulation, so that thousands can be run.
pub const BAKES_SHORTENED: u64 = 4;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Of all chance.
    pub seed: u64,
    /// The fleet.
    pub shape: Shape,
    /// What the version does wrong.
    pub version: Version,
    /// What fails by itself.
    pub background: Background,
    /// Protection windows.
    pub freezes: Vec<FreezeSpec>,
    /// The executor dies about once in so many decisions.
    pub dies_once_in: Option<u32>,
    /// Who judges.
    pub judge: Judge,
    /// Steps, and how long each is watched.
    pub ladder: Vec<Rung>,
    /// Second of the week at which it begins.
    pub begins: i64,
}

/// How a simulated change ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was wrong with the version.
    pub flaw: Flaw,
    /// How it ended.
    pub phase: ChangePhase,
    /// Why it is blocked, if it is.
    pub blocked: Option<BlockReason>,
    /// In the executor's words.
    pub message: String,
    /// From its beginning to its end.
    pub seconds: i64,
    /// Instances in scope.
    pub instances: usize,
    /// Largest share of traffic weight on the new version.
    pub exposed: f64,
    /// Requests that failed because of the version.
    pub harmed: u64,
    /// Times the executor died.
    pub deaths: u32,
    /// Invariants that were broken.
    pub violations: Vec<String>,
}

impl Report {
    /// The change was stopped.
    pub fn stopped(&self) -> bool {
        self.phase != ChangePhase::Succeeded
    }
}

/// The default ladder, with bakes shortened.
pub fn short_ladder() -> Vec<Rung> {
    let mut ladder = ChangeSpec::proxy_upgrade(NEW).ladder;
    ladder.iter_mut().for_each(|rung| rung.bake_seconds /= BAKES_SHORTENED);
    ladder
}

/// Runs a change to its end, or to where a person would have to help.
pub fn run(scenario: &Scenario) -> Report {
    let mut run = Run::new(scenario);
    while !run.over() {
        run.tick();
    }
    run.report()
}

struct Run<'s> {
    scenario: &'s Scenario,
    mesh: Mesh,
    change: Change,
    telemetry: Telemetry,
    law: Law,
    dice: Dice,
    peer: Option<Peer>,
    now: i64,
    look_at: i64,
    deaths: u32,
}

impl<'s> Run<'s> {
    fn new(scenario: &'s Scenario) -> Run<'s> {
        let mut dice = Dice::new(scenario.seed);
        let mesh =
            Mesh::new(&scenario.shape, scenario.version, scenario.background, scenario.freezes.clone(), dice.fork());
        let mut change = Change::new("simulated", spec(scenario));
        change.metadata.generation = 1;
        Run {
            scenario,
            mesh,
            change,
            telemetry: Telemetry::default(),
            law: Law::default(),
            dice,
            peer: Peer::new(scenario.judge),
            now: scenario.begins,
            look_at: scenario.begins,
            deaths: 0,
        }
    }

    fn over(&self) -> bool {
        let status = &self.change.status;
        let stuck = status.phase == ChangePhase::Blocked && status.blocked != Some(BlockReason::ReleaseMissing);
        status.phase.ended() || stuck || self.now - self.scenario.begins > LONGEST_SECONDS
    }

    fn tick(&mut self) {
        self.now += TICK;
        let moved = self.mesh.tick(self.now, &self.telemetry);
        if self.now < self.look_at && !(moved && self.look_at - self.now <= LOOK_SECONDS) {
            return;
        }
        self.look_at = self.now + LOOK_SECONDS;
        for _ in 0..MOST_DECISIONS {
            if !self.decide() {
                return;
            }
        }
        self.law.violations.push("loop: the executor decides for ever at one moment".into());
        self.look_at = self.now + 60;
    }

    /// One decision, recorded and carried out; true if the next one follows at once.
    fn decide(&mut self) -> bool {
        let decided = step(&self.change, &self.mesh.world, &self.telemetry, moment(self.now));
        let death = self.dies();
        if death == Some(Death::BeforeRecording) {
            return self.die();
        }
        let before = std::mem::replace(&mut self.change.status, decided.status);
        self.law.watch(&self.change, &self.mesh, self.now);
        self.ask_peer(&before);
        let writes = writes(&self.change, &self.mesh.world);
        let reached = if death.is_some() { self.dice.whole(0, writes.len() as i64) as usize } else { writes.len() };
        writes.iter().take(reached).for_each(|write| self.mesh.want(&write.instance, &write.to));
        if death.is_some() {
            return self.die();
        }
        decided.again.is_zero() && !self.over()
    }

    fn dies(&mut self) -> Option<Death> {
        let dies = self.scenario.dies_once_in.is_some_and(|once_in| self.dice.chance(1.0 / f64::from(once_in)));
        dies.then(|| if self.dice.chance(0.3) { Death::BeforeRecording } else { Death::WhileWriting })
    }

    /// The process is gone, and with it what was only measured. Its successor reads the record.
    fn die(&mut self) -> bool {
        self.deaths += 1;
        self.telemetry = Telemetry::default();
        self.look_at = self.now + self.dice.whole(1, 30);
        let record = serde_json::to_string(&self.change.status).and_then(|text| serde_json::from_str(&text));
        match record {
            Ok(status) => self.change.status = with_names(status, &self.change.status),
            Err(error) => self.law.violations.push(format!("record: it can't be read back: {error}")),
        }
        false
    }

    /// A peer judges batches when they have baked.
    fn ask_peer(&mut self, before: &ChangeStatus) {
        let Some(peer) = &mut self.peer else { return };
        let passed = |b: &&weir_model::change::Batch| {
            b.phase == BatchPhase::Passed
                && before.batches.iter().any(|o| o.number == b.number && o.phase != BatchPhase::Passed)
        };
        let Some(batch) = self.change.status.batches.iter().find(passed) else { return };
        if peer.fails(batch, &self.mesh, &self.telemetry, self.now) {
            self.change.spec.command = Command::RollBack;
        }
    }

    fn report(mut self) -> Report {
        if !self.change.status.phase.ended() && self.now - self.scenario.begins > LONGEST_SECONDS {
            self.law.violations.push("hang: it does not end".into());
        }
        self.law.close(&self.change, &self.mesh);
        let status = &self.change.status;
        if status.blocked == Some(BlockReason::PlanUnsafe) {
            self.law.violations.push(format!("checker: {}", status.message));
        }
        Report {
            flaw: self.scenario.version.flaw,
            phase: status.phase,
            blocked: status.blocked,
            message: status.message.clone(),
            seconds: self.now - self.scenario.begins,
            instances: self.mesh.world.members.len(),
            exposed: self.law.exposed,
            harmed: self.mesh.harmed,
            deaths: self.deaths,
            violations: self.law.violations,
        }
    }
}

/// Names are not in the status but in records beside it; reading those back is tested with the executor.
fn with_names(mut read: ChangeStatus, known: &ChangeStatus) -> ChangeStatus {
    (read.previous, read.left) = (known.previous.clone(), known.left.clone());
    let batches = read.batches.iter_mut().zip(&known.batches);
    let back = read.rollback.as_mut().zip(known.rollback.as_ref()).map(|(r, k)| (&mut r.batch, &k.batch));
    for (batch, known) in batches.chain(back) {
        (batch.instances, batch.started) = (known.instances.clone(), known.started.clone());
        (batch.done, batch.lost) = (known.done.clone(), known.lost.clone());
    }
    read
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    BeforeRecording,
    WhileWriting,
}

fn spec(scenario: &Scenario) -> ChangeSpec {
    let judge = match scenario.judge {
        Judge::Weir => JudgeSpec { patience_seconds: 3_600 / BAKES_SHORTENED, ..JudgeSpec::default() },
        // A peer decides instead: Weir's own comparison is made as good as blind.
        _ => JudgeSpec { alpha: 1e-9, tolerance: 10.0, patience_seconds: 3_600 / BAKES_SHORTENED },
    };
    ChangeSpec { ladder: scenario.ladder.clone(), budget: Budget::default(), judge, ..ChangeSpec::proxy_upgrade(NEW) }
}
