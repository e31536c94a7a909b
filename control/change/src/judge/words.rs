//! Verdicts in words that a person can act on.

use weir_model::change::{Evidence, Verdict};

use super::{reference, spread, strength};

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn ratio(events: u64, requests: u64) -> String {
    format!("{events} of {requests} ({:.2} %)", percent(events, requests))
}

/// E-values as powers of ten: `10^5.3`.
fn power(log_e: f64) -> String {
    format!("10^{:.1}", log_e / std::f64::consts::LN_10)
}

pub(super) fn harm(e: &Evidence, threshold: f64) -> String {
    let (treated, control, with) = sides(e);
    format!(
        "{} rose on changed instances of {}: {} against {} on {}; the evidence for harm is {}, {} suffices",
        e.metric,
        e.stratum,
        ratio(treated.0, treated.1),
        ratio(control.0, control.1),
        with,
        power(strength(e)),
        power(threshold),
    )
}

/// The two sides of what speaks most for harm, as (events, requests), and what the second one is.
fn sides(e: &Evidence) -> ((u64, u64), (u64, u64), &str) {
    let known = reference(e);
    if e.uncompared_log_e > e.log_e {
        let uncompared = (e.uncompared_events, e.uncompared_requests);
        return (uncompared, (known.events, known.requests), "what was seen earlier");
    }
    let with = if e.compared_with.is_empty() { "what they are compared with" } else { &e.compared_with };
    ((e.treated_events, e.treated_requests), (e.control_events, e.control_requests), with)
}

/// Why a comparison that proves nothing holds the batch.
pub(super) fn doubt(e: &Evidence) -> String {
    if reference(e).requests == 0 {
        let failed = ratio(e.treated_events, e.treated_requests);
        return format!("{} on {}: {failed}, and nothing to compare with", e.metric, e.stratum);
    }
    let (treated, control, _) = sides(e);
    let who: Vec<&str> = e.harmed.keys().map(String::as_str).take(3).collect();
    format!(
        "in doubt: {} on changed instances of {} are {} against {}, in {} window(s) on {}; the evidence for harm is {}",
        e.metric,
        e.stratum,
        ratio(treated.0, treated.1),
        ratio(control.0, control.1),
        e.harmed.values().map(|h| h.windows).sum::<u32>(),
        who.join(", "),
        power(strength(e)),
    )
}

pub(super) fn excluded(e: &Evidence) -> String {
    format!("{} of {}: nothing to compare with (no unchanged instance, no reports from before)", e.metric, e.stratum)
}

/// A suspicion on one instance that a second test did not find again.
pub(super) fn burst(e: &Evidence) -> String {
    let (who, harmed) = spread::worst(e);
    format!(
        "{} of {}: a burst on {who} ({} events in {} windows) that did not come again; it is taken for its host's",
        e.metric, e.stratum, harmed.events, harmed.windows,
    )
}

pub(super) fn broken(e: &Evidence) -> String {
    let failed = ratio(e.treated_events, e.treated_requests);
    format!("nearly all requests on changed instances of {} fail: {failed}", e.stratum)
}

pub(super) fn changing(verdict: &Verdict) -> String {
    format!("instances are changing; {}", seen(verdict))
}

pub(super) fn baking(verdict: &Verdict, baked: u64, bake: u64) -> String {
    format!("baking, {baked} of {bake} s; {}", seen(verdict))
}

pub(super) fn too_little(verdict: &Verdict, wanted: u64) -> String {
    let beside: u64 = verdict.evidence.iter().map(|e| e.control_requests).max().unwrap_or(0);
    let lost = if verdict.requests == 0 && beside >= wanted.max(1) {
        format!("; unchanged instances beside them had {beside}, so their callers do not find them")
    } else {
        String::new()
    };
    format!("too little traffic for a verdict: {} of {wanted} requests{lost}", verdict.requests)
}

pub(super) fn pass(verdict: &Verdict, baked: u64) -> String {
    format!("no harm found in {baked} s; {}", seen(verdict))
}

fn seen(verdict: &Verdict) -> String {
    format!("{} requests on changed instances, {} failed", verdict.requests, verdict.errors)
}
