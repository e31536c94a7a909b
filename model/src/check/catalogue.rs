//! The checks that come with Weir. Codes are stable: scripts, audit entries and records name them.

use super::{At, Severity};

/// A check as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its code; never given to another check.
    pub code: &'static str,
    /// When it is asked.
    pub at: &'static [At],
    /// What another answer than yes does.
    pub severity: Severity,
    /// A person may let a change go on without it.
    pub skippable: bool,
    /// What it makes sure of.
    pub meaning: &'static str,
    /// If it can't be skipped: what to do instead.
    pub instead: &'static str,
}

const fn may_be_skipped(code: &'static str, at: &'static [At], severity: Severity, meaning: &'static str) -> Listed {
    Listed { code, at, severity, skippable: true, meaning, instead: "" }
}

const fn stands(code: &'static str, at: &'static [At], meaning: &'static str, instead: &'static str) -> Listed {
    Listed { code, at, severity: Severity::Required, skippable: false, meaning, instead }
}

use At::{After, Batch, Change, Instance};
use Severity::{Advisory, Required};

/// Every check that comes with Weir, in the order in which they are asked.
pub const CATALOGUE: &[Listed] = &[
    stands(
        "C-CONFLICT",
        &[Change],
        "no other change is about the same instances",
        "two changes of one instance would undo each other: let the other one end, or abort it",
    ),
    stands(
        "V-RELEASE",
        &[Change, Batch],
        "there is a Release of what is wanted, and it is not withdrawn",
        "apply the Release",
    ),
    may_be_skipped("V-TESTED", &[Change, Batch], Required, "no test of the Release's own build has failed"),
    may_be_skipped(
        "V-COMPATIBLE",
        &[Change, Batch],
        Required,
        "versions run side by side during a change: they are at most one major version apart",
    ),
    may_be_skipped("F-OWNER", &[Change, Batch], Advisory, "every app in scope has an owner to ask"),
    may_be_skipped("F-VERSION", &[Change, Batch], Advisory, "what the instances in scope run now is known"),
    may_be_skipped("F-REPORTING", &[Change, Batch], Advisory, "the proxies in scope report their health"),
    stands(
        "P-PLAN",
        &[Batch],
        "an independent checker finds that the plan keeps every rule",
        "a finding is a defect of Weir: please report it",
    ),
    may_be_skipped("W-WINDOW", &[Batch, Instance], Required, "no protection window holds what is to change"),
    stands(
        "H-BEFORE",
        &[Batch, Instance],
        "what is to change serves, and its proxy found itself healthy",
        "repair the instances, remove them, or leave them out of the scope of a new change",
    ),
    may_be_skipped("S-BUDGET", &[Batch, Instance], Required, "the apps to change have error budget left"),
    may_be_skipped("S-BURN", &[Batch, Instance, After], Required, "no app burns its error budget at paging speed"),
    stands("L-APPROVAL", &[Batch], "at level L2, a person has approved the batch", "weir change approve NAME"),
    stands(
        "C-CAPACITY",
        &[Instance],
        "enough instances of each app, zone and unit are left while others drain",
        "wait for others to serve, or make a new change with a wider budget",
    ),
    stands(
        "V-CONVERGED",
        &[After],
        "every instance of the batch runs the version wanted",
        "roll back, retry or abort the change",
    ),
    stands(
        "H-STATIC",
        &[After],
        "every instance of the batch serves, and its proxy's self-check passed",
        "roll back, retry or abort the change",
    ),
    stands(
        "H-VERDICT",
        &[After],
        "beside unchanged instances, the changed ones do no harm",
        "roll back, retry or abort the change: what did harm is not passed over",
    ),
    stands(
        "D-CALLERS",
        &[After],
        "callers of the changed instances see no more errors than of the others",
        "roll back, retry or abort the change: what did harm is not passed over",
    ),
];

/// The check of this code.
pub fn listed(code: &str) -> Option<&'static Listed> {
    CATALOGUE.iter().find(|check| check.code == code)
}
