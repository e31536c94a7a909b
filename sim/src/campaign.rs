//! Thousands of simulated changes, and what they come to.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use weir_model::FreezeSpec;
use weir_model::change::ChangeSpec;

use crate::background::Background;
use crate::dice::Dice;
use crate::flaw::{Flaw, Version};
use crate::mesh::{NEW, moment};
use crate::peers::Judge;
use crate::run::{Report, Scenario, run, short_ladder};
use crate::shape::Shape;

/// How many changes, and of which chance.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Changes.
    pub changes: usize,
    /// Seed of the first; change number n has one that follows from this and n.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
}

/// Runs `changes` scenarios made by `make` from their seeds, telling `progress` after each how many are done.
pub fn run_all(plan: Plan, make: impl Fn(u64) -> Scenario + Sync, progress: impl Fn(usize) + Sync) -> Vec<Report> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let reports: Mutex<BTreeMap<usize, Report>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= plan.changes {
                        return;
                    }
                    let report = run(&make(seed_of(plan.seed, number)));
                    reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(number, report);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect()
}

fn seed_of(seed: u64, number: usize) -> u64 {
    seed.wrapping_mul(1_000_003).wrapping_add(number as u64)
}

/// An ordinary change: a small fleet (or the one given) on an ordinary bad day, good or bad in some way, perhaps with
/// windows and kills.
pub fn ordinary(seed: u64, judge: Judge, shape: Option<&Shape>) -> Scenario {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let shape = shape.cloned().unwrap_or_else(|| Shape::small(&mut dice));
    let ladder = short_ladder();
    let version = version(Flaw::draw(&mut dice), &shape, ladder[0].bake_seconds, &mut dice);
    let begins = dice.whole(0, 7 * 86_400);
    Scenario {
        seed,
        version,
        background: Background::ordinary(),
        freezes: freezes(&shape, begins, &mut dice),
        dies_once_in: dice.chance(0.5).then(|| dice.whole(20, 400) as u32),
        judge,
        ladder,
        begins,
        shape,
    }
}

/// A version that doubles the errors of one box's app and all others, on a fleet of three hundred instances, with the
/// default ladder.
pub fn doubling(seed: u64) -> Scenario {
    let mut dice = Dice::new(seed ^ 0xd0b1e);
    let shape = Shape::middle(&mut dice);
    let begins = dice.whole(0, 7 * 86_400);
    Scenario {
        seed,
        version: Version { flaw: Flaw::ErrorsTwice, only_app: None, only_stack: None, leak_after: 0 },
        background: Background::ordinary(),
        freezes: Vec::new(),
        dies_once_in: None,
        judge: Judge::Weir,
        ladder: ChangeSpec::proxy_upgrade(NEW).ladder,
        begins,
        shape,
    }
}

/// Some flaws show everywhere, some on one app or stack only.
fn version(flaw: Flaw, shape: &Shape, leak_after: u64, dice: &mut Dice) -> Version {
    let app = dice.whole(0, shape.apps.len() as i64 - 1) as usize;
    let narrow = flaw == Flaw::OneCaller || (flaw != Flaw::OneStack && dice.chance(0.3));
    Version {
        flaw,
        only_app: narrow.then_some(app),
        only_stack: (flaw == Flaw::OneStack).then(|| shape.apps[app].stack),
        leak_after: leak_after as i64,
    }
}

/// Some apps are frozen for up to an hour, some from a later moment on.
fn freezes(shape: &Shape, begins: i64, dice: &mut Dice) -> Vec<FreezeSpec> {
    let frozen: Vec<usize> = (0..shape.apps.len()).filter(|_| dice.chance(0.2)).collect();
    let freeze = |app: &usize| {
        let from = begins + dice.whole(-600, 1_800);
        let until: Timestamp = moment(from + dice.whole(300, 3_600));
        FreezeSpec {
            from: Some(moment(from)),
            until: Some(until),
            apps: vec![shape.apps[*app].name.clone()],
            reason: "busy hour".into(),
            ..FreezeSpec::default()
        }
    };
    frozen.iter().map(freeze).collect()
}
