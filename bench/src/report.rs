//! Medians, the table for people, the JSON for machines.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cases::Case;
use crate::host::Facts;
use crate::rounds::Sample;
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
        let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value).collect());
        let cpu = samples.iter().map(|sample| sample.cpu_us);
        let median = Sample {
            cpu_us: of(|sample| sample.cpu_us),
            user_us: of(|sample| sample.user_us),
            rps: of(|sample| sample.rps),
            rss_mib: of(|sample| sample.rss_mib),
            rss_load_mib: of(|sample| sample.rss_load_mib),
            busy: of(|sample| sample.busy),
            others: of(|sample| sample.others),
        };
        let cpu_range_us = (cpu.clone().fold(f64::MAX, f64::min), cpu.fold(0.0, f64::max));
        Row { case, target, median, cpu_range_us }
    }

    fn json(&self) -> Value {
        let Sample { cpu_us, user_us, rps, rss_mib, rss_load_mib, busy, others } = self.median;
        json!({
            "case": self.case.name(),
            "target": self.target.name(),
            "cpu_us": rounded(cpu_us, 3),
            "user_us": rounded(user_us, 3),
            "rps": rounded(rps, 0),
            "rss_mb": rounded(rss_mib, 2),
            "rss_load_mb": rounded(rss_load_mib, 2),
            "core_busy": rounded(busy, 3),
            "core_others": rounded(others, 3),
            "cpu_us_min": rounded(self.cpu_range_us.0, 3),
            "cpu_us_max": rounded(self.cpu_range_us.1, 3),
        })
    }
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

/// A table per run; ratios are the row's processor time by the peer's in the same case.
pub fn table(rows: &[Row], facts: &Facts) -> String {
    let mut text = format!("\n{facts}\n");
    let _infallible = writeln!(
        text,
        "{:<9} {:<8} {:>8} {:>15} {:>8} {:>9} {:>6} {:>7} {:>7}   CPU against",
        "case", "target", "CPU us", "least..most", "user us", "req/s", "core", "RSS", "loaded"
    );
    for row in rows {
        let Sample { cpu_us, user_us, rps, rss_mib, rss_load_mib, busy, .. } = row.median;
        let range = format!("{:.2}..{:.2}", row.cpu_range_us.0, row.cpu_range_us.1);
        let _infallible = writeln!(
            text,
            "{:<9} {:<8} {cpu_us:>8.2} {range:>15} {user_us:>8.2} {rps:>9.0} {:>5.0}% {rss_mib:>7.1} {rss_load_mib:>7.1}   {}",
            row.case.name(),
            row.target.name(),
            busy * 100.0,
            ratios(row, rows)
        );
    }
    text += &disturbance(rows);
    text + "CPU and user: processor microseconds per request; RSS and loaded: MiB after start and under load.\n"
}

/// Up to this share of the target's core may go to others: the kernel's own work, a timer.
const QUIET: f64 = 0.05;

/// A warning if other programs worked on the target's core.
fn disturbance(rows: &[Row]) -> String {
    let most = rows.iter().map(|row| row.median.others).fold(0.0, f64::max);
    if most <= QUIET {
        return String::new();
    }
    format!("NOT QUIET: up to {:.0} % of the target's core went to other programs; do not quote these.\n", most * 100.0)
}

fn ratios(row: &Row, rows: &[Row]) -> String {
    rows.iter()
        .filter(|other| other.case == row.case && other.target != row.target)
        .map(|other| {
            let ratio = row.median.cpu_us / other.median.cpu_us;
            format!("{} {ratio:.2}", other.target.name())
        })
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

    fn sample(cpu_us: f64) -> Sample {
        Sample { cpu_us, user_us: 1.0, rps: 1e6 / cpu_us, rss_mib: 9.0, rss_load_mib: 9.5, busy: 1.0, others: 0.0 }
    }

    #[test]
    fn medians_are_medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let row = Row::median(Case::H1Small, Target::Weir, &[20.0, 10.0, 40.0].map(sample));
        assert_eq!(row.median.cpu_us, 20.0);
        assert_eq!(row.cpu_range_us, (10.0, 40.0));
    }

    #[test]
    fn a_disturbed_run_is_told() {
        let with = |others| [Row::median(Case::H1Small, Target::Weir, &[Sample { others, ..sample(10.0) }])];
        assert_eq!(disturbance(&with(0.02)), "");
        assert!(disturbance(&with(0.4)).contains("40 %"));
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
