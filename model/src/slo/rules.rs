//! Objectives as Prometheus rules over the proxies' own metrics, for those who alert from Prometheus.
//!
//! Recording rules compute the share of bad requests per window; alerts follow the same thresholds as Weir's own
//! ([`THRESHOLDS`](super::THRESHOLDS)). The scrape configuration must put the label `app` on the proxies' series.

use std::fmt::Write as _;

use super::{Alert, BURN_WINDOWS, Indicator, Slo, THRESHOLDS, Threshold};

/// One rule file for these objectives, in YAML; the same objectives give the same text.
pub fn rules(slos: &[Slo]) -> String {
    let mut text = String::from("groups:\n");
    if slos.is_empty() {
        return "groups: []\n".to_owned();
    }
    slos.iter().for_each(|slo| group(&mut text, slo));
    text
}

fn group(out: &mut String, slo: &Slo) {
    let name = slo.name();
    line(out, &format!("- name: weir-slo-{name}\n  rules:"));
    let long = u64::from(slo.spec.window_days) * 86_400;
    let mut windows: Vec<u64> = BURN_WINDOWS.to_vec();
    if !windows.contains(&long) {
        windows.push(long);
    }
    for window in windows {
        let labels = format!("labels: {{slo: {name}, app: {}, window: {}}}", slo.spec.app, words(window));
        line(out, &format!("  - record: weir:slo_bad:ratio\n    {labels}\n    expr: {}", quoted(&bad(slo, window))));
    }
    let left = format!("1 - weir:slo_bad:ratio{{slo=\"{name}\",window=\"{}\"}} / {}", words(long), budget(slo));
    let labels = format!("labels: {{slo: {name}, app: {}}}", slo.spec.app);
    line(out, &format!("  - record: weir:slo_error_budget:left\n    {labels}\n    expr: {}", quoted(&left)));
    THRESHOLDS.iter().for_each(|threshold| alert(out, slo, threshold));
}

/// The share of bad requests over a window.
fn bad(slo: &Slo, window: u64) -> String {
    let (app, window) = (&slo.spec.app, words(window));
    let series = format!("app=\"{app}\",direction=\"inbound\"");
    match slo.spec.indicator {
        Indicator::Errors => format!(
            "sum(rate(weir_requests_total{{{series},code_class=~\"5xx|none\"}}[{window}])) / \
             sum(rate(weir_requests_total{{{series}}}[{window}]))"
        ),
        Indicator::Latency { threshold_us } => format!(
            "1 - sum(rate(weir_request_duration_seconds_bucket{{{series},le=\"{}\"}}[{window}])) / \
             sum(rate(weir_request_duration_seconds_count{{{series}}}[{window}]))",
            threshold_us as f64 / 1e6
        ),
    }
}

fn alert(out: &mut String, slo: &Slo, threshold: &Threshold) {
    let (name, app) = (slo.name(), &slo.spec.app);
    let Threshold { alert, rate, long, short } = threshold;
    let limit = format!("{rate} * {}", budget(slo));
    let over = |window: &u64| format!("weir:slo_bad:ratio{{slo=\"{name}\",window=\"{}\"}} > {limit}", words(*window));
    let severity = if *alert == Alert::Page { "page" } else { "ticket" };
    line(out, "  - alert: WeirSloBurn");
    line(out, &format!("    expr: {}", quoted(&format!("{} and ignoring(window) {}", over(long), over(short)))));
    // The window tells alerts of one urgency apart, which else were duplicates.
    let labels = format!("severity: {severity}, slo: {name}, app: {app}, window: {}", words(*long));
    line(out, &format!("    labels: {{{labels}}}"));
    let summary = format!("{app} burns the error budget of {name} {rate} times too fast over {}", words(*long));
    line(out, &format!("    annotations:\n      summary: {}", quoted(&summary)));
}

fn budget(slo: &Slo) -> String {
    let text = format!("{:.8}", slo.spec.budget());
    text.trim_end_matches('0').to_owned()
}

/// A duration as Prometheus writes it.
fn words(seconds: u64) -> String {
    match seconds {
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3_600 == 0 => format!("{}h", s / 3_600),
        s => format!("{}m", s / 60),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SloSpec;

    #[test]
    fn every_window_is_recorded_and_every_threshold_alerts() {
        let spec = SloSpec {
            app: "stock".into(),
            objective_percent: 99.9,
            window_days: 30,
            indicator: Indicator::Errors,
            min_requests: 100,
        };
        let text = rules(&[Slo::new("stock-errors", spec)]);
        assert_eq!(text.matches("record: weir:slo_bad:ratio").count(), BURN_WINDOWS.len() + 1);
        assert_eq!(text.matches("alert: WeirSloBurn").count(), THRESHOLDS.len());
        assert!(text.contains("> 14.4 * 0.001 and ignoring(window) weir:slo_bad:ratio"), "{text}");
        let read: serde_json::Value = serde_saphyr::from_str(&text).expect("it is YAML");
        assert_eq!(read["groups"][0]["name"], "weir-slo-stock-errors");
        assert_eq!(rules(&[]), "groups: []\n");
    }
}
