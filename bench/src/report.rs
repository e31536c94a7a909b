//! Medians, the table for people, the JSON for machines.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cases::Case;
use crate::host::Facts;
use crate::latency::Percentiles;
use crate::rounds::{Cost, IdleMemory, Sample};
use crate::targets::Target;

/// The median of the rounds for one target in one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    case: Case,
    target: Target,
    /// Each value is the median of that value.
    median: Sample,
    /// Least and most processor time per request of any round, microseconds.
    cpu_range_us: (f64, f64),
}

impl Row {
    /// From the samples of all rounds.
    pub fn median(case: Case, target: Target, samples: &[Sample]) -> Row {
        let costs: Vec<_> = samples.iter().filter_map(|sample| sample.cost).collect();
        let added: Vec<_> = samples.iter().filter_map(|sample| sample.added).collect();
        let idle: Vec<_> = samples.iter().filter_map(|sample| sample.idle).collect();
        let cpu = costs.iter().map(|cost| cost.cpu_us);
        let cpu_range_us = (cpu.clone().fold(f64::MAX, f64::min), cpu.fold(0.0, f64::max));
        let median = Sample {
            cost: (!costs.is_empty()).then(|| median_cost(&costs)),
            added: (!added.is_empty()).then(|| Percentiles {
                p50_us: median_of(&added, |added| added.p50_us),
                p99_us: median_of(&added, |added| added.p99_us),
                p999_us: median_of(&added, |added| added.p999_us),
            }),
            idle: (!idle.is_empty()).then(|| IdleMemory {
                kib_per_conn: median_of(&idle, |idle| idle.kib_per_conn),
                kept: median_of(&idle, |idle| idle.kept),
            }),
        };
        Row { case, target, median, cpu_range_us }
    }

    /// What the case compares: processor time, latency added at the 99th percentile, or memory per connection.
    fn figure(&self) -> f64 {
        let Sample { cost, added, idle } = self.median;
        let cost = cost.map(|cost| cost.cpu_us);
        cost.or(added.map(|added| added.p99_us)).or(idle.map(|idle| idle.kib_per_conn)).unwrap_or(f64::NAN)
    }

    fn json(&self) -> Value {
        let mut row = Map::new();
        row.insert("case".into(), self.case.name().into());
        row.insert("target".into(), self.target.name().into());
        let mut put = |name: &str, value: f64, digits| row.insert(name.into(), json!(rounded(value, digits)));
        if let Some(Cost { cpu_us, user_us, rps, rss_mib, rss_load_mib, busy, others }) = self.median.cost {
            put("cpu_us", cpu_us, 3);
            put("user_us", user_us, 3);
            put("rps", rps, 0);
            put("rss_mb", rss_mib, 2);
            put("rss_load_mb", rss_load_mib, 2);
            put("core_busy", busy, 3);
            put("core_others", others, 3);
            put("cpu_us_min", self.cpu_range_us.0, 3);
            put("cpu_us_max", self.cpu_range_us.1, 3);
            if self.case == Case::TlsHandshake {
                put("handshakes_per_cpu_s", 1e6 / cpu_us, 0);
            }
        }
        if let Some(Percentiles { p50_us, p99_us, p999_us }) = self.median.added {
            put("p50_us", p50_us, 1);
            put("p99_us", p99_us, 1);
            put("p999_us", p999_us, 1);
        }
        if let Some(IdleMemory { kib_per_conn, kept }) = self.median.idle {
            put("kib_per_conn", kib_per_conn, 3);
            put("kept", kept, 3);
        }
        Value::Object(row)
    }
}

fn median_cost(costs: &[Cost]) -> Cost {
    Cost {
        cpu_us: median_of(costs, |cost| cost.cpu_us),
        user_us: median_of(costs, |cost| cost.user_us),
        rps: median_of(costs, |cost| cost.rps),
        rss_mib: median_of(costs, |cost| cost.rss_mib),
        rss_load_mib: median_of(costs, |cost| cost.rss_load_mib),
        busy: median_of(costs, |cost| cost.busy),
        others: median_of(costs, |cost| cost.others),
    }
}

fn median_of<T>(values: &[T], value: fn(&T) -> f64) -> f64 {
    median(values.iter().map(value).collect())
}

/// The middle one, or the mean of the two in the middle. At least one value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// The rows by what was measured; ratios are the row's figure by the peer's in the same case.
pub fn table(rows: &[Row], facts: &Facts) -> String {
    let of = |has: fn(&Sample) -> bool| rows.iter().filter(|row| has(&row.median)).collect::<Vec<_>>();
    let mut text = format!("\n{facts}");
    text += &costs(&of(|sample| sample.cost.is_some()), rows);
    text += &latencies(&of(|sample| sample.added.is_some()), rows);
    text += &memory(&of(|sample| sample.idle.is_some()), rows);
    text + &disturbance(rows)
}

fn costs(of: &[&Row], rows: &[Row]) -> String {
    if of.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n{:<15} {:<8} {:>8} {:>17} {:>8} {:>9} {:>6} {:>7} {:>7}   CPU against\n",
        "case", "target", "CPU us", "least..most", "user us", "req/s", "core", "RSS", "loaded"
    );
    for row in of {
        let Cost { cpu_us, user_us, rps, rss_mib, rss_load_mib, busy, .. } = row.median.cost.unwrap_or_default();
        let range = format!("{:.2}..{:.2}", row.cpu_range_us.0, row.cpu_range_us.1);
        let _infallible = writeln!(
            text,
            "{:<15} {:<8} {cpu_us:>8.2} {range:>17} {user_us:>8.2} {rps:>9.0} {:>5.0}% {rss_mib:>7.1} {rss_load_mib:>7.1}   {}",
            row.case.name(),
            row.target.name(),
            busy * 100.0,
            ratios(row, rows)
        );
    }
    text + "CPU and user: processor microseconds per request or handshake; RSS and loaded: MiB after start and under load.\n"
}

fn latencies(of: &[&Row], rows: &[Row]) -> String {
    if of.is_empty() {
        return String::new();
    }
    let mut text =
        format!("\n{:<15} {:<8} {:>8} {:>8} {:>8}   p99 against\n", "case", "target", "p50 us", "p99 us", "p99.9 us");
    for row in of {
        let Percentiles { p50_us, p99_us, p999_us } = row.median.added.unwrap_or_default();
        let (case, target, ratios) = (row.case.name(), row.target.name(), ratios(row, rows));
        let _infallible =
            writeln!(text, "{case:<15} {target:<8} {p50_us:>8.0} {p99_us:>8.0} {p999_us:>8.0}   {ratios}");
    }
    text + "Microseconds added to what the same requests take direct, 4,000 a second on 32 connections.\n"
}

fn memory(of: &[&Row], rows: &[Row]) -> String {
    if of.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{:<15} {:<8} {:>8} {:>6}   memory against\n", "case", "target", "KiB", "kept");
    for row in of {
        let IdleMemory { kib_per_conn, kept } = row.median.idle.unwrap_or_default();
        let (case, target, ratios) = (row.case.name(), row.target.name(), ratios(row, rows));
        let _infallible =
            writeln!(text, "{case:<15} {target:<8} {kib_per_conn:>8.2} {:>5.0}%   {ratios}", kept * 100.0);
    }
    text + "KiB of resident memory per idle connection (5,000), and the share still there after they have gone.\n"
}

/// Up to this share of the target's core may go to others: the kernel's own work, a timer.
const QUIET: f64 = 0.05;

/// A warning if other programs worked on the target's core.
fn disturbance(rows: &[Row]) -> String {
    let most = rows.iter().filter_map(|row| row.median.cost).map(|cost| cost.others).fold(0.0, f64::max);
    if most <= QUIET {
        return String::new();
    }
    format!("NOT QUIET: up to {:.0} % of the target's core went to other programs; do not quote these.\n", most * 100.0)
}

fn ratios(row: &Row, rows: &[Row]) -> String {
    let peers = rows.iter().filter(|other| other.case == row.case && other.target != row.target);
    let peers = peers.map(|other| (other.target.name(), other));
    // Bolt and Dubbo have no peer here, but HTTP/1.1 through the same proxy.
    let own = rows
        .iter()
        .filter(|other| matches!(row.case, Case::Rpc(_)) && other.case == Case::H1Small && other.target == row.target);
    peers
        .chain(own.map(|other| (other.case.name(), other)))
        .map(|(name, other)| format!("{name} {:.2}", row.figure() / other.figure()))
        .collect::<Vec<_>>()
        .join("  ")
}

/// `{"rows": [...], "host": {...}}`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(file: &Path, rows: &[Row], facts: &Facts) -> Result<(), String> {
    let mut document = Map::new();
    document.insert("rows".into(), rows.iter().map(Row::json).collect());
    document.insert("host".into(), facts.json());
    let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
    fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Idle;

    fn sample(cpu_us: f64) -> Sample {
        Sample { cost: Some(Cost { cpu_us, user_us: 1.0, busy: 1.0, ..Cost::default() }), ..Sample::default() }
    }

    #[test]
    fn medians_are_medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let row = Row::median(Case::H1Small, Target::Weir, &[20.0, 10.0, 40.0].map(sample));
        assert_eq!(row.figure(), 20.0);
        assert_eq!(row.cpu_range_us, (10.0, 40.0));
    }

    #[test]
    fn a_disturbed_run_is_told() {
        let with = |others| {
            let cost = Some(Cost { others, ..Cost::default() });
            [Row::median(Case::H1Small, Target::Weir, &[Sample { cost, ..Sample::default() }])]
        };
        assert_eq!(disturbance(&with(0.02)), "");
        assert!(disturbance(&with(0.4)).contains("40 %"));
    }

    #[test]
    fn a_row_has_what_its_case_measures() {
        let idle = Some(IdleMemory { kib_per_conn: 1.25, kept: 0.1 });
        let row = Row::median(Case::Idle(Idle::Plain), Target::Weir, &[Sample { idle, ..Sample::default() }]);
        assert_eq!(row.json()["kib_per_conn"], 1.25);
        assert!(row.json().get("cpu_us").is_none() && row.json().get("p50_us").is_none());
        let added = Some(Percentiles { p50_us: 1.0, p99_us: 2.0, p999_us: 3.0 });
        let row = Row::median(Case::Latency, Target::Weir, &[Sample { added, ..Sample::default() }]);
        assert_eq!((row.json()["p999_us"].as_f64(), row.figure()), (Some(3.0), 2.0));
    }

    #[test]
    fn ratios_compare_within_a_case() {
        let row = |case, target, cpu| Row::median(case, target, &[sample(cpu)]);
        let rows = [
            row(Case::H1Small, Target::Nginx, 20.0),
            row(Case::H1Small, Target::Weir, 15.0),
            row(Case::H1Large, Target::Nginx, 1.0),
        ];
        assert_eq!(ratios(&rows[1], &rows), "nginx 0.75");
        assert_eq!(rows[1].json()["target"], "weir");
        assert_eq!(rows[1].json()["cpu_us"], 15.0);
    }
}
