//! Verdicts of the judge, with the evidence that they rest on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Has this batch done harm?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verdict {
    /// The answer.
    pub outcome: Outcome,
    /// In words.
    pub reason: String,
    /// What it rests on.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// What was left out, and why.
    #[serde(default)]
    pub excluded: Vec<String>,
    /// Bursts of single instances that did not come again, and are therefore not held against the version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
    /// Of a failed batch: the changes that may have done the harm, the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blame: Vec<Blame>,
    /// Requests seen on the batch's changed instances.
    #[serde(default)]
    pub requests: u64,
    /// Of those, failed.
    #[serde(default)]
    pub errors: u64,
    /// Reports that arrived before this moment are in the evidence; after a restart the judge goes on from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_until: Option<Timestamp>,
    /// Seconds of the bake for which reports of changed instances came in. A control plane that is down watches nothing.
    #[serde(default)]
    pub watched_seconds: u64,
    /// Harm is found when `logE` of a comparison of errors that began with this batch reaches this.
    #[serde(default)]
    pub threshold: f64,
}

/// How likely it is that a change has done the harm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Blame {
    /// Its name.
    pub change: String,
    /// The votes for it; 0: it explains nothing.
    pub score: f64,
    /// Share of the harm on instances that it has touched.
    pub harmed_share: f64,
    /// Share of the instances beside them that it has touched.
    pub beside_share: f64,
    /// Of the change that is judged: share of the harm that its instances showed before it.
    pub there_before: f64,
}

/// An answer of the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// No harm, on enough evidence.
    Pass,
    /// Harm.
    Fail,
    /// Too little data yet.
    Inconclusive,
}

/// Counts of one comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// What was compared, e.g. `errors`, `proxy faults`, `errors seen by callers`.
    pub metric: String,
    /// Which instances: `app=order unit=east stack=demo`.
    pub stratum: String,
    /// Requests on changed instances.
    pub treated_requests: u64,
    /// Events on changed instances.
    pub treated_events: u64,
    /// Requests on unchanged instances, the same seconds.
    pub control_requests: u64,
    /// Events on unchanged instances.
    pub control_events: u64,
    /// Natural logarithm of the E-value; harm when it reaches the verdict's threshold.
    pub log_e: f64,
    /// Events on changed instances with clumps trimmed to what is usual, in windows where both sides had requests.
    #[serde(default)]
    pub treated_counted: u64,
    /// Likewise on unchanged instances.
    #[serde(default)]
    pub control_counted: u64,
    /// The batch in which the test began: what speaks for harm is kept from batch to batch.
    #[serde(default)]
    pub since: u32,
    /// Of all counts, what earlier batches have seen.
    #[serde(default)]
    pub earlier: Earlier,
    /// What each bet on a ratio has won, events counted in full; natural logarithms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub won: Vec<f64>,
    /// The same with clumps trimmed.
    #[serde(default)]
    pub trimmed: Trimmed,
    /// Most events of one unchanged instance in one window.
    #[serde(default)]
    pub control_peak: u64,
    /// Changed instances compared.
    #[serde(default)]
    pub treated_instances: u32,
    /// What the changed instances with most events showed; of many, the first dozens.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub harmed: BTreeMap<String, Harmed>,
    /// Seconds of reports of changed instances.
    #[serde(default)]
    pub seconds: u64,
    /// Relative increase that was tolerated.
    #[serde(default)]
    pub tolerance: f64,
    /// Seconds of reports since a changed instance last had an event.
    #[serde(default)]
    pub quiet_seconds: u64,
    /// What the changed instances were compared with, in words.
    #[serde(default)]
    pub compared_with: String,
    /// The stratum of another comparison of the same instances: only what both show is harm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<String>,
    /// Requests of changed instances in seconds for which nothing was left to compare with.
    #[serde(default)]
    pub uncompared_requests: u64,
    /// Events among them that count, clumps cut.
    #[serde(default)]
    pub uncompared_events: u64,
    /// Looks in which that was so.
    #[serde(default)]
    pub uncompared_looks: u32,
    /// Natural logarithm of what those speak for harm, against the frozen baseline; judged like `logE`.
    #[serde(default)]
    pub uncompared_log_e: f64,
    /// Requests of the changed instances shortly before they changed, kept because telemetry is not; 0 where they are
    /// compared with unchanged instances.
    #[serde(default)]
    pub baseline_requests: u64,
    /// Events among them.
    #[serde(default)]
    pub baseline_events: u64,
    /// Requests that took longer than this (microseconds) are slow: near the 99th percentile of what the changed ones are
    /// compared with. Absent: not known yet, or not a comparison of latencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_above_us: Option<u64>,
    /// Latency histogram of what they are compared with, until that limit is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<u64>,
    /// The test of whether harm that one instance alone has shown comes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
    /// Bursts of one instance that did not come again, after each of which the comparison began anew.
    #[serde(default)]
    pub bursts: u32,
    /// How much the windows of the other side scatter, as a sum of squares, and how much they would if each event came
    /// alone. What they scatter more weakens the evidence.
    #[serde(default)]
    pub scatter: f64,
    /// See `scatter`.
    #[serde(default)]
    pub scatter_expected: f64,
    /// How the evidence has grown; thinned out, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub course: Vec<Point>,
}

/// Counts of a comparison over some of its batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Earlier {
    /// Requests on changed instances.
    pub treated_requests: u64,
    /// Events on changed instances.
    pub treated_events: u64,
    /// The same with clumps trimmed.
    pub treated_counted: u64,
    /// Requests on unchanged instances.
    pub control_requests: u64,
    /// Events on unchanged instances.
    pub control_events: u64,
    /// The same with clumps trimmed.
    pub control_counted: u64,
}

/// A comparison in which no window counts for much more than is usual.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Trimmed {
    /// What each bet on a ratio has won; natural logarithms.
    pub won: Vec<f64>,
    /// How much the trimmed windows of the other side scatter, as a sum of squares.
    pub scatter: f64,
    /// How much they would if each event came alone.
    pub scatter_expected: f64,
    /// Requests on which rests what is usual.
    pub usual_requests: f64,
    /// Events among them.
    pub usual_events: f64,
    /// Seconds that are left out, since the app as a whole failed more than usual.
    pub left_out_seconds: u64,
}

/// What one changed instance showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Harmed {
    /// Windows with events.
    pub windows: u32,
    /// Events.
    pub events: u64,
    /// Events with clumps trimmed.
    #[serde(default)]
    pub counted: u64,
}

/// A second test, which begins some time after the first has become suspicious and knows nothing of what was before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Again {
    /// Second of reports from which it counts.
    pub from: u64,
    /// What each bet on a ratio has won, events counted in full; natural logarithms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub won: Vec<f64>,
    /// The same with clumps trimmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trimmed_won: Vec<f64>,
    /// Natural logarithm of its E-value.
    pub log_e: f64,
    /// Events on changed instances that count.
    pub treated_counted: u64,
    /// Events on unchanged instances.
    pub control_counted: u64,
    /// Requests of changed instances in seconds for which nothing was left to compare with.
    #[serde(default)]
    pub uncompared_requests: u64,
    /// Events among them that count.
    #[serde(default)]
    pub uncompared_events: u64,
    /// Natural logarithm of what those speak for harm, against what is known of before.
    #[serde(default)]
    pub uncompared_log_e: f64,
}

/// The evidence at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Point {
    /// Second of reports.
    pub second: u64,
    /// Natural logarithm of the E-value.
    pub log_e: f64,
}
