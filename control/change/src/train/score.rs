//! How well a version has proven itself.
//!
//! ```text
//! score = 50 * min(1, requests / (10 * minRequests))     evidence
//!       + 30 * max(0, 1 - doubt - bursts / 10)           calm
//!       + 20 * min(1, watched / (2 * soak))              time
//! ```
//!
//! `doubt` is how near any comparison came to finding harm (its log E over the judge's threshold). A version that has just
//! enough of everything scores about 45; what is above tells more of it than was asked for.

use weir_model::Change;
use weir_model::change::Verdict;
use weir_model::train::{Proof, RiderEvidence};

/// A score and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// 0 to 100.
    pub points: f64,
    /// Its parts, in words.
    pub terms: Vec<String>,
}

/// Scores what a version has shown.
pub fn score(evidence: &RiderEvidence, proof: &Proof) -> Score {
    let share = |have: u64, of: u64| (have as f64 / of.max(1) as f64).min(1.0);
    let requests = 50.0 * share(evidence.requests, 10 * proof.min_requests);
    let calm = 30.0 * (1.0 - evidence.doubt - f64::from(evidence.bursts) / 10.0).max(0.0);
    let time = 20.0 * share(evidence.watched_seconds, 2 * proof.soak_seconds);
    let terms = vec![
        format!("{requests:.0} of 50 for {} requests", evidence.requests),
        format!("{calm:.0} of 30 for calm (doubt {:.2}, {} bursts)", evidence.doubt, evidence.bursts),
        format!("{time:.0} of 20 for {} s watched", evidence.watched_seconds),
    ];
    Score { points: requests + calm + time, terms }
}

/// Adds up what the batches of a Change have shown.
pub(super) fn gather(change: &Change) -> RiderEvidence {
    let mut sum = RiderEvidence::default();
    for verdict in change.status.batches.iter().filter_map(|batch| batch.verdict.as_ref()) {
        sum.requests += verdict.requests;
        sum.errors += verdict.errors;
        sum.watched_seconds += verdict.watched_seconds;
        sum.doubt = sum.doubt.max(doubt(verdict));
        sum.bursts += verdict.set_aside.len() as u32;
    }
    sum
}

fn doubt(verdict: &Verdict) -> f64 {
    let nearest = verdict.evidence.iter().map(|e| e.log_e.max(e.uncompared_log_e)).fold(0.0, f64::max);
    if verdict.threshold > 0.0 { (nearest / verdict.threshold).clamp(0.0, 1.0) } else { 0.0 }
}
