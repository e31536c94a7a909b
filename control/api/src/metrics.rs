//! What is counted, in Prometheus's text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weir_model::change::ChangeSpec;
use weir_model::instance::InstanceSpec;
use weir_model::{Change, Instance, Slo, SloSpec};
use weir_store::typed;

use crate::error::Result;
use crate::shared::Shared;

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Counts of requests by method, route and code: all from closed sets, so that no client can grow them.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, &'static str, u16), Series>>,
}

#[derive(Default, Clone)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

impl Metrics {
    /// Counts a request that was answered.
    pub fn request(&self, method: &str, route: &'static str, code: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let series = requests.entry((method.to_owned(), route, code)).or_default();
        let seconds = took.as_secs_f64();
        series.count += 1;
        series.seconds += seconds;
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            series.buckets[bucket] += 1;
        }
    }

    /// Everything there is to tell.
    pub async fn render(&self, shared: &Shared) -> Result<String> {
        let mut out = String::with_capacity(16 << 10);
        family(&mut out, "weir_build_info", "gauge", "The version that runs.");
        sample(&mut out, "weir_build_info", &[("version", &shared.options.version)], 1.0);
        self.render_requests(&mut out);
        render_watches(&mut out, shared);
        render_proxies(&mut out, shared);
        render_instances(&mut out, shared).await?;
        render_changes(&mut out, shared).await?;
        render_slos(&mut out, shared).await?;
        render_process(&mut out);
        shared.options.metrics.iter().for_each(|source| source(&mut out));
        Ok(out)
    }

    fn render_requests(&self, out: &mut String) {
        let name = "weir_api_request_duration_seconds";
        family(out, name, "histogram", "Time to answer a request of the HTTP API (watches: to begin the answer).");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((method, route, code), series) in requests {
            let code = code.to_string();
            let labels = [("method", method.as_str()), ("route", route), ("code", &code)];
            series.render(out, name, &labels);
        }
    }
}

impl Series {
    fn render(&self, out: &mut String, name: &str, labels: &[(&str, &str)]) {
        let mut sum = 0;
        for (bound, count) in BUCKETS.iter().zip(self.buckets) {
            sum += count;
            let bound = bound.to_string();
            sample(out, &format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), sum as f64);
        }
        sample(out, &format!("{name}_bucket"), &[labels, &[("le", "+Inf")]].concat(), self.count as f64);
        sample(out, &format!("{name}_sum"), labels, self.seconds);
        sample(out, &format!("{name}_count"), labels, self.count as f64);
    }
}

fn render_watches(out: &mut String, shared: &Shared) {
    let open = shared.options.limits.watches - shared.watches.available_permits();
    family(out, "weir_api_watches", "gauge", "Watches that are open.");
    sample(out, "weir_api_watches", &[], open as f64);
}

fn render_proxies(out: &mut String, shared: &Shared) {
    let views = shared.observed.proxies.all();
    let mut protocols: BTreeMap<String, u64> = BTreeMap::new();
    for view in &views {
        *protocols.entry(view.protocol.clone()).or_default() += 1;
    }
    family(out, "weir_xds_streams", "gauge", "Proxies with an xDS stream, by protocol.");
    for (protocol, count) in protocols {
        sample(out, "weir_xds_streams", &[("protocol", &protocol)], count as f64);
    }
    let rejected = views.iter().flat_map(|v| v.types.values()).filter(|t| !t.rejected.is_empty()).count();
    family(out, "weir_xds_rejected", "gauge", "Resource types whose last configuration a proxy has rejected.");
    sample(out, "weir_xds_rejected", &[], rejected as f64);
}

async fn render_instances(out: &mut String, shared: &Shared) -> Result<()> {
    let (instances, _): (Vec<Instance>, _) = typed::list::<InstanceSpec>(&*shared.store).await?;
    let mut counts: BTreeMap<(String, String, String, String), u64> = BTreeMap::new();
    for Instance { spec, status, .. } in instances {
        let key = (spec.app, spec.unit, format!("{:?}", status.phase), status.proxy_version);
        *counts.entry(key).or_default() += 1;
    }
    family(out, "weir_instances", "gauge", "Instances by app, unit, phase and the proxy's version.");
    for ((app, unit, phase, version), count) in counts {
        let labels = [("app", &*app), ("unit", &*unit), ("phase", &*phase), ("proxy_version", &*version)];
        sample(out, "weir_instances", &labels, count as f64);
    }
    Ok(())
}

async fn render_changes(out: &mut String, shared: &Shared) -> Result<()> {
    let (changes, _): (Vec<Change>, _) = typed::list::<ChangeSpec>(&*shared.store).await?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for change in changes {
        *counts.entry(format!("{:?}", change.status.phase)).or_default() += 1;
    }
    family(out, "weir_changes", "gauge", "Changes by phase.");
    for (phase, count) in counts {
        sample(out, "weir_changes", &[("phase", &phase)], count as f64);
    }
    Ok(())
}

async fn render_slos(out: &mut String, shared: &Shared) -> Result<()> {
    let (slos, _): (Vec<Slo>, _) = typed::list::<SloSpec>(&*shared.store).await?;
    let measured: Vec<&Slo> = slos.iter().filter(|slo| slo.status.measured_at.is_some()).collect();
    family(
        out,
        "weir_slo_error_budget_left_ratio",
        "gauge",
        "Share of an error budget that is left; below 0: overspent.",
    );
    for slo in &measured {
        if let Some(left) = slo.status.budget_left {
            sample(out, "weir_slo_error_budget_left_ratio", &[("slo", slo.name()), ("app", &slo.spec.app)], left);
        }
    }
    family(out, "weir_slo_burn_rate", "gauge", "How fast an error budget is spent; 1: exactly over its window.");
    for slo in &measured {
        for burn in &slo.status.burns {
            let window = burn.window_seconds.to_string();
            let labels = [("slo", slo.name()), ("app", &*slo.spec.app), ("window_seconds", &*window)];
            sample(out, "weir_slo_burn_rate", &labels, burn.rate);
        }
    }
    Ok(())
}

/// The process's own accounting, under the names that Prometheus's clients use.
fn render_process(out: &mut String) {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<f64>().ok());
    if let Some(kib) = kib {
        family(out, "process_resident_memory_bytes", "gauge", "Resident memory of the control plane.");
        sample(out, "process_resident_memory_bytes", &[], kib * 1024.0);
    }
}

fn family(out: &mut String, name: &str, r#type: &str, help: &str) {
    let _infallible = write!(out, "# HELP {name} {help}\n# TYPE {name} {type}\n");
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
    let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
    let _infallible = writeln!(out, "{name}{labels} {value}");
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative_and_labels_escaped() {
        let metrics = Metrics::default();
        metrics.request("GET", "/a\"b", 200, Duration::from_millis(2));
        metrics.request("GET", "/a\"b", 200, Duration::from_secs(60));
        let mut out = String::new();
        metrics.render_requests(&mut out);
        let line =
            |le: &str, n: u32| format!("_bucket{{method=\"GET\",route=\"/a\\\"b\",code=\"200\",le=\"{le}\"}} {n}\n");
        assert!(
            out.contains(&line("0.001", 0)) && out.contains(&line("5", 1)) && out.contains(&line("+Inf", 2)),
            "{out}"
        );
    }
}
