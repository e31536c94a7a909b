//! What speaks for harm is kept from batch to batch, so that rare errors add up over a change.
//!
//! A comparison of a stratum with its unchanged instances goes on where the batch before has left it, as long as it speaks
//! for harm. One that speaks against it begins anew with the batch: harm that shows late must not make up first for all that
//! was well before. Each beginning is a test of its own, which has its batch's share of alpha to spend for as long as it
//! goes on; so the shares of all of them, whatever the batches, still sum to the change's alpha.

use weir_model::change::{Earlier, Evidence, Outcome, Verdict};

use super::gather::Beside;
use super::open_verdict;

/// The verdict with which a batch begins, after the one that was judged before it.
pub fn carried(before: Option<&Verdict>) -> Verdict {
    let Some(before) = before.filter(|v| v.outcome != Outcome::Fail) else { return open_verdict() };
    Verdict { evidence: before.evidence.iter().filter(|e| goes_on(e)).map(carry).collect(), ..open_verdict() }
}

fn goes_on(evidence: &Evidence) -> bool {
    evidence.log_e > 0.0 && evidence.compared_with == Beside::Unchanged.words()
}

fn carry(evidence: &Evidence) -> Evidence {
    Evidence { earlier: counts(evidence), quiet_seconds: 0, ..evidence.clone() }
}

fn counts(evidence: &Evidence) -> Earlier {
    Earlier {
        treated_requests: evidence.treated_requests,
        treated_events: evidence.treated_events,
        treated_counted: evidence.treated_counted,
        control_requests: evidence.control_requests,
        control_events: evidence.control_events,
        control_counted: evidence.control_counted,
    }
}

/// What this batch alone has seen.
pub(super) fn of_this_batch(evidence: &Evidence) -> Earlier {
    let (all, earlier) = (counts(evidence), evidence.earlier);
    Earlier {
        treated_requests: all.treated_requests.saturating_sub(earlier.treated_requests),
        treated_events: all.treated_events.saturating_sub(earlier.treated_events),
        treated_counted: all.treated_counted.saturating_sub(earlier.treated_counted),
        control_requests: all.control_requests.saturating_sub(earlier.control_requests),
        control_events: all.control_events.saturating_sub(earlier.control_events),
        control_counted: all.control_counted.saturating_sub(earlier.control_counted),
    }
}
