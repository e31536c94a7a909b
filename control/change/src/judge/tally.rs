//! Two ways to count the same events, since errors come in clumps.
//!
//! - **In full** (but for what one window adds beyond everything the other side has shown): harm that is large is found after a
//!   handful of requests.
//! - **Trimmed**: what one instance adds in one window is cut to [`TRIM_EVENTS`] and [`TRIM_USUAL`] times what is usual
//!   for its requests, on both sides alike. A clump (a batch job, a client with a bad payload) then counts for little, so the
//!   windows scatter hardly more than single events would, and small harm is found with half of the evidence.
//!
//! Either reading is weakened by how much the windows of its own other side scatter ([`clumpiness`]); a quarter of the stake is
//! on the first, since what it finds soon pays for that.
//!
//! Seconds in which both sides together fail far more than usual are left out of the second: the app fails by itself then, and
//! small harm can't be told from it. What both sides show together says nothing of how it falls on them, so leaving out by it
//! is fair.

use weir_model::change::{Again, Evidence};

use super::evalue::{self, BETS, Winnings};
use super::{CLUMP, Sample, Seen};

/// Events of one instance in one window that always count.
pub const TRIM_EVENTS: u64 = 2;
/// Beyond them, so many times the usual ones.
pub const TRIM_USUAL: f64 = 2.0;
/// What is usual is known from so many requests on.
const KNOWN_FROM_REQUESTS: f64 = 500.0;
/// Both sides together show more than so many times the usual events ...
pub const UNUSUAL_TIMES: f64 = 2.5;
/// ... and so many more: the app as a whole fails, and tells nothing of small harm.
pub const UNUSUAL_EVENTS: f64 = 10.0;
/// Events counted in full are taken to come so many at a time at least: a clump that the other side has not shown yet is no
/// harm.
pub const CLUMPY_AT_LEAST: f64 = 1.5;
/// Share of the stake on the reading in full.
const IN_FULL: f64 = 0.25;
/// Events' worth of belief that each comes alone.
const SURELY_ONE: f64 = 5.0;
/// Evidence is weakened by this factor at most.
const MOST_CLUMPY: f64 = 20.0;

/// One side of a comparison in one look, under both readings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub full: Seen,
    pub trimmed: Seen,
}

/// How windows are cut in one look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Events that count of a treated window in full.
    most: u64,
    /// Share of requests with events that is usual.
    usual: f64,
    /// Both sides together show far more than is usual.
    unusual: bool,
}

impl Cut {
    pub fn new(evidence: &mut Evidence, sample: &Sample) -> Cut {
        let peak = sample.control.iter().map(|seen| seen.events).max().unwrap_or(0);
        evidence.control_peak = evidence.control_peak.max(peak);
        let most = evidence.control_peak.max(CLUMP * sample.window_seconds);
        let beside = sum(sample.control.iter().copied());
        let all = sum(sample.treated.iter().flat_map(|(_, windows)| windows).chain(&sample.control).copied());
        let (requests, events) = (evidence.trimmed.usual_requests, evidence.trimmed.usual_events);
        let known = (requests >= KNOWN_FROM_REQUESTS).then_some(events / requests.max(1.0));
        let so_far = (events + beside.events as f64) / (requests + beside.requests as f64).max(1.0);
        let bound = |usual: f64, requests: u64| UNUSUAL_TIMES * usual * requests as f64 + UNUSUAL_EVENTS;
        let unusual = known.is_some_and(|usual| all.events as f64 > bound(usual, all.requests));
        let counted = known.map_or(f64::MAX, |usual| bound(usual, beside.requests));
        evidence.trimmed.usual_requests += beside.requests as f64;
        evidence.trimmed.usual_events += (beside.events as f64).min(counted);
        Cut { most, usual: known.unwrap_or(so_far), unusual }
    }

    pub fn trim(&self, window: &Seen) -> Seen {
        let usual = (TRIM_USUAL * self.usual * window.requests as f64).round() as u64;
        Seen { events: window.events.min(TRIM_EVENTS + usual), ..*window }
    }

    /// What a window counts for with clumps trimmed.
    pub fn counted(&self, window: &Seen) -> u64 {
        if self.unusual { 0 } else { self.trim(window).events }
    }

    pub fn treated(&self, sample: &Sample) -> Count {
        let windows = || sample.treated.iter().flat_map(|(_, windows)| windows);
        let in_full = |w: &Seen| Seen { events: w.events.min(self.most), ..*w };
        Count { full: sum(windows().map(in_full)), trimmed: sum(windows().map(|w| self.trim(w))) }
    }

    pub fn control(&self, sample: &Sample) -> Count {
        let trimmed = sample.control.iter().map(|w| self.trim(w));
        Count { full: sum(sample.control.iter().copied()), trimmed: sum(trimmed) }
    }
}

fn sum(windows: impl Iterator<Item = Seen>) -> Seen {
    windows.fold(Seen::default(), Seen::and)
}

/// Counts a look at both sides.
pub(super) fn add(evidence: &mut Evidence, treated: Count, control: Count, cut: Cut, sample: &Sample) {
    let Some((full, mut trimmed)) = won(treated, control, sample.tolerance) else { return };
    if cut.unusual {
        evidence.trimmed.left_out_seconds += sample.seconds;
        trimmed = [0.0; BETS.len()];
    }
    let (hits, others) = if cut.unusual { (0, 0) } else { (treated.trimmed.events, control.trimmed.events) };
    win(&mut evidence.won, evidence.log_e, full);
    win(&mut evidence.trimmed.won, evidence.log_e, trimmed);
    evidence.treated_counted += hits;
    evidence.control_counted += others;
    evidence.log_e = together(evidence, &evidence.won, &evidence.trimmed.won);
    let Some(mut again) = evidence.again.take() else { return };
    if evidence.seconds > again.from {
        win(&mut again.won, again.log_e, full);
        win(&mut again.trimmed_won, again.log_e, trimmed);
        again.treated_counted += hits;
        again.control_counted += others;
        again.log_e = together(evidence, &again.won, &again.trimmed_won);
    }
    evidence.again = Some(again);
}

fn won(treated: Count, control: Count, tolerance: f64) -> Option<(Winnings, Winnings)> {
    let full = evalue::winnings(treated.full, control.full, tolerance)?;
    Some((full, evalue::winnings(treated.trimmed, control.trimmed, tolerance)?))
}

/// Adds what was won. An account that has not been kept yet (the evidence is older) begins with what was known.
fn win(account: &mut Vec<f64>, known: f64, won: Winnings) {
    if account.len() != BETS.len() {
        *account = vec![known; BETS.len()];
    }
    // Evidence is stored as JSON, which knows finite numbers only.
    account.iter_mut().zip(won).filter(|(_, won)| won.is_finite()).for_each(|(account, won)| *account += won);
}

fn together(evidence: &Evidence, full: &[f64], trimmed: &[f64]) -> f64 {
    let ln_e = |won: &[f64]| won.try_into().map_or(0.0, |won: Winnings| evalue::ln_e(&won));
    evalue::ln_mix(ln_e(full) / clumpiness(evidence), IN_FULL, ln_e(trimmed) / clumpiness_trimmed(evidence))
}

/// The test goes on from the second one, `penalty` weaker.
pub(super) fn go_on_from(evidence: &mut Evidence, again: Again, penalty: f64) {
    let less = |won: Vec<f64>| won.into_iter().map(|won| won - penalty).collect();
    (evidence.won, evidence.trimmed.won) = (less(again.won), less(again.trimmed_won));
    evidence.log_e = again.log_e - penalty;
    (evidence.treated_counted, evidence.control_counted) = (again.treated_counted, again.control_counted);
}

/// Notes how much the windows of the other side scatter around their mean, within one look: what the app suffers as a
/// whole moves all of them and is no scatter.
pub(super) fn note_scatter(evidence: &mut Evidence, control: &[Seen], cut: Cut) {
    let (squares, expected) = scatter(control.iter().map(|w| w.events));
    evidence.scatter += squares;
    evidence.scatter_expected += expected;
    if cut.unusual {
        return;
    }
    let (squares, expected) = scatter(control.iter().map(|w| cut.trim(w).events));
    evidence.trimmed.scatter += squares;
    evidence.trimmed.scatter_expected += expected;
}

/// The sum of squares around the mean, and what it would be if each event came alone.
fn scatter(events: impl ExactSizeIterator<Item = u64> + Clone) -> (f64, f64) {
    let windows = events.len() as f64;
    if windows < 2.0 {
        return (0.0, 0.0);
    }
    let mean = events.clone().map(|n| n as f64).sum::<f64>() / windows;
    (events.map(|n| (n as f64 - mean).powi(2)).sum(), (windows - 1.0) * mean)
}

/// Variance of the windows' events over their mean, drawn towards 1 where little is known: 1 where each event comes alone
/// (Poisson), more where they come in clumps, each of which says no more than one event does.
pub(super) fn clumpiness(evidence: &Evidence) -> f64 {
    ratio(evidence.scatter, evidence.scatter_expected).max(CLUMPY_AT_LEAST)
}

/// The same with clumps trimmed.
pub(super) fn clumpiness_trimmed(evidence: &Evidence) -> f64 {
    ratio(evidence.trimmed.scatter, evidence.trimmed.scatter_expected)
}

fn ratio(scatter: f64, expected: f64) -> f64 {
    ((scatter + SURELY_ONE) / (expected + SURELY_ONE)).clamp(1.0, MOST_CLUMPY)
}
