//! ReleaseTrain: brings versions of a component from CI through the canary units to production, by itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::change::{Budget, JudgeSpec, Level, Rung, Scope};
use crate::freeze::Schedule;
use crate::kind::Kind;
use crate::object::{Resource, Spec};
use crate::release::Component;
use crate::validate::Validator;

/// Versions that a train remembers; of those that are done with, the oldest are forgotten first.
pub const MAX_RIDERS: usize = 100;

/// A release train.
pub type ReleaseTrain = Resource<ReleaseTrainSpec>;

/// What rides, where it proves itself, and when it departs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseTrainSpec {
    /// Whose Releases ride.
    pub component: Component,
    /// Where a nightly proves itself.
    pub canary: Stage,
    /// What it must have shown there.
    #[serde(default)]
    pub proof: Proof,
    /// Where the best proven one goes.
    #[serde(default)]
    pub production: Stage,
    /// When the train departs: `cron` and `timeZone`; `durationSeconds` has no meaning here. Absent: only when a person
    /// picks a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub departures: Option<Departures>,
    /// The train picks what departs (level L5); otherwise a person does (`pick`).
    #[serde(default = "yes")]
    pub automatic: bool,
    /// A proven version that is to depart now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pick: Option<String>,
    /// Nothing new begins; what runs goes on.
    #[serde(default)]
    pub paused: bool,
}

/// A part of the fleet and how carefully it is changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Stage {
    /// Which instances.
    pub scope: Scope,
    /// Steps of its Change; empty: for the canary one box, then all of it watched as `proof` says; for production the
    /// default of a Change.
    pub ladder: Vec<Rung>,
    /// Bounds of its Change.
    pub budget: Budget,
    /// How its Change is judged.
    pub judge: JudgeSpec,
    /// Level of its Change.
    pub level: Level,
}

/// What a version must have shown in the canary before it may depart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Proof {
    /// Watched so long with all of the canary on it (seconds).
    pub soak_seconds: u64,
    /// Over so many requests.
    pub min_requests: u64,
}

impl Default for Proof {
    fn default() -> Self {
        Proof { soak_seconds: 24 * 3600, min_requests: 100_000 }
    }
}

/// A calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Departures {
    /// Minute, hour, day of month, month, day of week, as in `crontab(5)`.
    pub cron: String,
    /// IANA name of the time zone in which `cron` is meant.
    #[serde(default = "utc")]
    pub time_zone: String,
}

fn yes() -> bool {
    true
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Departures {
    /// As a schedule of moments.
    pub fn schedule(&self) -> Schedule {
        Schedule { cron: self.cron.clone(), duration_seconds: 60, time_zone: self.time_zone.clone() }
    }
}

/// What is observed of a train.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrainStatus {
    /// The spec's generation this was observed of.
    pub observed_generation: u64,
    /// What it does or waits for, in a sentence.
    pub message: String,
    /// Versions by name, with what became of them.
    pub riders: BTreeMap<String, Rider>,
    /// The version that is proving itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Leg>,
    /// The version on its way to production.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub production: Option<Leg>,
    /// The way back from a version that was withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawal: Option<Leg>,
    /// The version that last reached production.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released: Option<String>,
    /// The train departs then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_departure: Option<Timestamp>,
    /// A departure that is due and waits, since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
}

/// A Change that the train makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Leg {
    /// What is brought.
    pub version: String,
    /// Name of the Change.
    pub change: String,
    /// Decided then.
    pub since: Timestamp,
    /// The Change has been seen: if it is gone, somebody has deleted it.
    #[serde(default)]
    pub seen: bool,
}

/// A version on the train.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rider {
    /// Where it is.
    pub state: RiderState,
    /// Why, in a sentence.
    pub why: String,
    /// Its Release appeared then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Timestamp>,
    /// Its commit was made then, as CI says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<Timestamp>,
    /// All of the canary ran it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_at: Option<Timestamp>,
    /// It was proven then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Timestamp>,
    /// All of production ran it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Timestamp>,
    /// What it has shown in the canary.
    pub evidence: RiderEvidence,
    /// 0 to 100; see the guide for how it is made up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What the score is made of, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<String>,
}

impl Rider {
    /// Seconds from its commit (or, if CI did not say, its registration) to `moment`.
    pub fn delay_seconds(&self, moment: Option<Timestamp>) -> Option<i64> {
        let from = self.committed_at.or(self.registered_at)?;
        Some(moment?.duration_since(from).as_secs().max(0))
    }
}

impl Proof {
    /// What is still missing from `evidence`, in words; `None`: nothing.
    pub fn missing(&self, evidence: &RiderEvidence) -> Option<String> {
        let enough = evidence.requests >= self.min_requests && evidence.watched_seconds >= self.soak_seconds;
        (!enough).then(|| {
            format!(
                "{} of {} requests and {} of {} s were seen",
                evidence.requests, self.min_requests, evidence.watched_seconds, self.soak_seconds
            )
        })
    }
}

/// What a version has shown in the canary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RiderEvidence {
    /// Requests on instances that ran it.
    pub requests: u64,
    /// Of those, failed.
    pub errors: u64,
    /// Seconds in which it was watched.
    pub watched_seconds: u64,
    /// The nearest that any comparison came to finding harm: 0 not at all, 1 found.
    pub doubt: f64,
    /// Bursts of single instances that were set aside.
    pub bursts: u32,
}

/// Life of a version on the train.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RiderState {
    /// It waits for the canary.
    #[default]
    Waiting,
    /// A newer one came first, or a person stopped it.
    Superseded,
    /// Its canary ended without the evidence that was asked for.
    Unproven,
    /// It proves itself.
    Canary,
    /// It may depart.
    Proven,
    /// It goes to production.
    Departed,
    /// It reached production.
    Released,
    /// It did harm, or a person took it off.
    Withdrawn,
}

impl RiderState {
    /// The legal transitions.
    pub fn may_become(self, next: RiderState) -> bool {
        use RiderState::*;
        match self {
            _ if self == next => true,
            Waiting => matches!(next, Superseded | Canary | Withdrawn),
            Canary => matches!(next, Proven | Unproven | Superseded | Withdrawn),
            Proven => matches!(next, Departed | Superseded | Withdrawn),
            Departed => matches!(next, Released | Superseded | Withdrawn),
            Released => matches!(next, Withdrawn),
            Superseded | Unproven => matches!(next, Withdrawn),
            Withdrawn => false,
        }
    }
}

impl Spec for ReleaseTrainSpec {
    const KIND: Kind = Kind::ReleaseTrain;
    type Status = TrainStatus;

    fn validate(&self, v: &mut Validator) {
        v.within("proof", |v| {
            v.range("soakSeconds", self.proof.soak_seconds, 0, crate::change::MAX_SECONDS);
        });
        if let Some(departures) = &self.departures {
            v.within("departures", |v| departures.schedule().validate(v));
        }
        let narrow = self.canary.scope != Scope::default();
        v.require(narrow, "canary.scope", "must name the canary: with an empty scope it would be the whole fleet");
        let proxy = self.component == Component::Proxy;
        v.require(proxy, "component", "must be proxy: versions of apps do not ride yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ReleaseTrainSpec {
        let scope = Scope { units: vec!["canary".into()], ..Scope::default() };
        ReleaseTrainSpec {
            component: Component::Proxy,
            canary: Stage { scope, ..Stage::default() },
            proof: Proof::default(),
            production: Stage::default(),
            departures: Some(Departures { cron: "0 10 * * 2".into(), time_zone: "Asia/Shanghai".into() }),
            automatic: true,
            pick: None,
            paused: false,
        }
    }

    fn wrong(spec: ReleaseTrainSpec) -> Vec<String> {
        let wrong = ReleaseTrain::new("proxy", spec).to_object().validate().err();
        wrong.map(|invalid| invalid.0.into_iter().map(|e| e.path).collect()).unwrap_or_default()
    }

    #[test]
    fn a_canary_is_a_part_of_the_fleet() {
        assert_eq!(wrong(spec()), [] as [&str; 0]);
        assert_eq!(wrong(ReleaseTrainSpec { canary: Stage::default(), ..spec() }), ["spec.canary.scope"]);
    }

    #[test]
    fn departures_are_moments_that_come() {
        let departures = |cron: &str, zone: &str| Some(Departures { cron: cron.into(), time_zone: zone.into() });
        let paths = wrong(ReleaseTrainSpec { departures: departures("tuesday", "Nowhere"), ..spec() });
        assert_eq!(paths, ["spec.departures.timeZone", "spec.departures.cron"]);
    }

    #[test]
    fn delays_count_from_the_commit() {
        let at = |second| Timestamp::from_second(second).ok();
        let rider = Rider { registered_at: at(100), committed_at: at(40), ..Rider::default() };
        assert_eq!(rider.delay_seconds(at(160)), Some(120));
        assert_eq!(Rider { committed_at: None, ..rider.clone() }.delay_seconds(at(160)), Some(60));
        assert_eq!(rider.delay_seconds(None), None);
    }
}
