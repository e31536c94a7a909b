//! What a loop has done, for metrics and checks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counters of one controller's loop.
#[derive(Debug, Default)]
pub struct Stats {
    pub(crate) leading: AtomicBool,
    pub(crate) runs: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) overruns: AtomicU64,
    pub(crate) resyncs: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) running: AtomicU64,
}

/// A reading of [`Stats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// This replica leads.
    pub leading: bool,
    /// Reconciles finished, however they ended.
    pub runs: u64,
    /// Of those, with an error of any kind.
    pub failures: u64,
    /// Of the failures, because somebody else wrote in between or has taken the lease.
    pub conflicts: u64,
    /// Of the failures, by panic.
    pub panics: u64,
    /// Of the failures, by exceeding the time limit.
    pub overruns: u64,
    /// Times that everything was listed.
    pub resyncs: u64,
    /// Keys that wait for their time now.
    pub waiting: u64,
    /// Keys that run now.
    pub running: u64,
}

impl Stats {
    /// The counters now.
    pub fn totals(&self) -> Totals {
        Totals {
            leading: self.leading.load(Relaxed),
            runs: self.runs.load(Relaxed),
            failures: self.failures.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            panics: self.panics.load(Relaxed),
            overruns: self.overruns.load(Relaxed),
            resyncs: self.resyncs.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            running: self.running.load(Relaxed),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
