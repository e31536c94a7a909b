//! The phases and conditions that kinds have, and which phase may follow which.

use serde::de::DeserializeOwned;
use serde_json::Value;
use weir_model::Kind;
use weir_model::change::ChangePhase;
use weir_model::error::nearest;
use weir_model::instance::{ALIVE, InstancePhase, UNPUBLISHED};

use crate::failure::{Failure, USAGE};

const CHANGE: [&str; 8] =
    ["Pending", "Running", "Paused", "Blocked", "RollingBack", "Succeeded", "RolledBack", "Aborted"];
const INSTANCE: [&str; 8] =
    ["Pending", "Starting", "Serving", "Unpublishing", "Draining", "Swapping", "Failed", "Terminating"];

fn phases(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Change => &CHANGE,
        Kind::Instance => &INSTANCE,
        _ => &[],
    }
}

/// Refuses a phase that resources of this kind never have.
pub fn known_phase(kind: Kind, phase: &str) -> Result<(), Failure> {
    let known = phases(kind);
    if known.is_empty() {
        let failure = Failure::new(format!("{} has no phase: nothing to wait for", article(kind))).code(USAGE);
        return Err(match kind {
            Kind::Workload => failure.hint("wait for its instances: --for status.serving=NUMBER"),
            _ => failure
                .hint("instances and changes have one; see `weir get KIND NAME -o yaml`, and --for status.FIELD=VALUE"),
        });
    }
    among(known, phase, &format!("phase of {}", article(kind)))
}

/// Refuses a condition that resources of this kind never have.
pub fn known_condition(kind: Kind, name: &str) -> Result<(), Failure> {
    if kind != Kind::Instance {
        let failure = Failure::new(format!("{} has no conditions: nothing to wait for", article(kind)));
        return Err(failure.code(USAGE).hint("instances have some; for others there is --for status.FIELD=VALUE"));
    }
    among(&[ALIVE, UNPUBLISHED], name, "condition of an Instance")
}

fn among(known: &[&str], given: &str, what: &str) -> Result<(), Failure> {
    if known.iter().any(|name| name.eq_ignore_ascii_case(given)) {
        return Ok(());
    }
    let near = nearest(given, known.iter().copied()).map(|near| format!(", did you mean {near}?")).unwrap_or_default();
    let failure = Failure::new(format!("{given:?} is no {what}{near}")).code(USAGE);
    Err(failure.hint(format!("there are {}", known.join(", "))))
}

/// `an App`, `a Change`.
fn article(kind: Kind) -> String {
    let vowel = kind.name().starts_with(['A', 'E', 'I', 'O']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// True if one of the phases `wanted` can follow `phase`, over whichever others.
pub fn reachable(kind: Kind, phase: &str, wanted: &[String]) -> bool {
    match kind {
        Kind::Change => leads(&CHANGE, phase, wanted, ChangePhase::may_become),
        Kind::Instance => leads(&INSTANCE, phase, wanted, InstancePhase::may_become),
        _ => true,
    }
}

/// A phase that a newer server knows and we do not may lead anywhere.
fn leads<P: DeserializeOwned + Copy>(all: &[&str], from: &str, wanted: &[String], may: fn(P, P) -> bool) -> bool {
    let read = |name: &str| serde_json::from_value::<P>(Value::from(name)).ok();
    let (Some(from), phases) = (read(from), all.iter().filter_map(|name| Some((*name, read(name)?)))) else {
        return true;
    };
    let phases: Vec<(&str, P)> = phases.collect();
    let (mut open, mut seen) = (vec![from], vec![false; phases.len()]);
    while let Some(at) = open.pop() {
        for (index, (_, next)) in phases.iter().enumerate().filter(|(_, (_, next))| may(at, *next)) {
            if !std::mem::replace(&mut seen[index], true) {
                open.push(*next);
            }
        }
    }
    let is = |name: &str| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
    phases.iter().zip(seen).any(|((name, _), seen)| seen && is(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_listed_is_one() {
        let read = |name: &str| serde_json::from_value::<ChangePhase>(Value::from(name)).is_ok();
        assert!(CHANGE.into_iter().all(read));
        let read = |name: &str| serde_json::from_value::<InstancePhase>(Value::from(name)).is_ok();
        assert!(INSTANCE.into_iter().all(read));
    }

    #[test]
    fn an_instance_that_ends_never_serves_again() {
        let serving = ["Serving".to_owned()];
        assert!(reachable(Kind::Instance, "Failed", &serving));
        assert!(!reachable(Kind::Instance, "Terminating", &serving));
        assert!(reachable(Kind::Instance, "SomethingNew", &serving));
    }
}
