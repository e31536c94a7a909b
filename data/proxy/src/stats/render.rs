//! The counters as Prometheus text (exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use super::histogram::{LATENCY_BOUNDS_US, LATENCY_BUCKETS};
use super::links::{LinkTotal, link_totals};
use super::reasons::{Fault, Refusal};
use super::series::{CLASSES, ClusterStats, RpcKey, Series, SeriesKey};
use super::worker::{HandshakeFailures, WorkerStats};
use crate::tls::{CertificateInfo, HandshakeFailure};

/// Everything that is exported, summed over the workers.
pub(crate) fn render(
    workers: &[Arc<WorkerStats>],
    proxy_faults: impl Fn(Fault) -> u64,
    drill: bool,
    shown: &BTreeMap<String, CertificateInfo>,
) -> String {
    let mut out = String::with_capacity(16 * 1024);
    requests(&mut out, workers);
    reasons(&mut out, workers, proxy_faults);
    clusters(&mut out, workers);
    gauges(&mut out, workers, drill);
    handshakes(&mut out, workers);
    links(&mut out, workers);
    certificates(&mut out, shown);
    out
}

#[derive(Default)]
struct Sum {
    classes: [u64; CLASSES.len()],
    buckets: [u64; LATENCY_BUCKETS],
    sum_us: u64,
}

fn requests(out: &mut String, workers: &[Arc<WorkerStats>]) {
    let all = workers.iter().flat_map(|worker| worker.all_series());
    series(out, "weir_request", "requests", all, labels);
    let all = workers.iter().flat_map(|worker| worker.all_rpc_series());
    series(out, "weir_rpc_request", "Bolt and Dubbo requests", all, rpc_labels);
}

/// A counter and a histogram for each set of labels.
fn series<K: Clone + Ord>(
    out: &mut String,
    name: &str,
    what: &str,
    all: impl Iterator<Item = Arc<Series<K>>>,
    labels: fn(&K) -> String,
) {
    let mut sums: BTreeMap<K, Sum> = BTreeMap::new();
    for series in all {
        let sum = sums.entry(series.key.clone()).or_default();
        sum.sum_us += series.latency.sum_us();
        let counts = series.latency.counts();
        sum.buckets.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        sum.classes.iter_mut().enumerate().for_each(|(class, total)| *total += series.class(class));
    }
    let total = format!("{name}s_total");
    head(out, &total, "counter", &format!("Finished {what} by class of the answer's status."));
    for (key, sum) in &sums {
        for (class, count) in CLASSES.iter().zip(sum.classes).filter(|(_, count)| *count > 0) {
            let _ = writeln!(out, "{total}{{{},code_class=\"{class}\"}} {count}", labels(key));
        }
    }
    let duration = format!("{name}_duration_seconds");
    head(out, &duration, "histogram", "From a request's head to the end of its answer.");
    for (key, sum) in &sums {
        histogram(out, &duration, &labels(key), &sum.buckets, sum.sum_us);
    }
}

fn histogram(out: &mut String, name: &str, labels: &str, buckets: &[u64; LATENCY_BUCKETS], sum_us: u64) {
    let mut total = 0;
    for (count, &bound) in buckets.iter().zip(&LATENCY_BOUNDS_US) {
        total += count;
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {total}", bound as f64 / 1e6);
    }
    total += buckets[LATENCY_BUCKETS - 1];
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", sum_us as f64 / 1e6);
    let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
}

fn reasons(out: &mut String, workers: &[Arc<WorkerStats>], proxy_faults: impl Fn(Fault) -> u64) {
    head(out, "weir_refused_total", "counter", "Requests and connections not served, by reason.");
    for &reason in Refusal::ALL {
        let count: u64 = workers.iter().map(|worker| worker.refused(reason)).sum();
        let _ = writeln!(out, "weir_refused_total{{reason=\"{}\"}} {count}", reason.as_str());
    }
    head(out, "weir_proxy_faults_total", "counter", "The proxy's own faults, by reason.");
    for &fault in Fault::ALL {
        let count = proxy_faults(fault) + workers.iter().map(|worker| worker.faults(fault).get()).sum::<u64>();
        let _ = writeln!(out, "weir_proxy_faults_total{{reason=\"{}\"}} {count}", fault.as_str());
    }
}

/// Name, type, help and value of each per-cluster metric.
type ClusterMetric = (&'static str, &'static str, &'static str, fn(&ClusterStats) -> u64);

const CLUSTER_METRICS: [ClusterMetric; 9] = [
    ("weir_upstream_connects_total", "counter", "Connections opened.", |stats| stats.connects.get()),
    ("weir_upstream_connect_failures_total", "counter", "Connections that could not be opened.", |stats| {
        stats.connect_failures.get()
    }),
    ("weir_upstream_sent_bytes_total", "counter", "Bytes passed on as they are (TCP, upgrades).", |stats| {
        stats.sent_bytes.get()
    }),
    ("weir_upstream_received_bytes_total", "counter", "Bytes passed back as they are.", |stats| {
        stats.received_bytes.get()
    }),
    ("weir_upstream_retries_total", "counter", "Further attempts made.", |stats| stats.retries.get()),
    ("weir_upstream_endpoints_unhealthy", "gauge", "Endpoints found not well, summed over workers.", |stats| {
        stats.unhealthy.get()
    }),
    ("weir_upstream_connections", "gauge", "Connections open.", |stats| stats.connections.get()),
    ("weir_upstream_requests_active", "gauge", "Requests in flight.", |stats| stats.requests.get()),
    ("weir_upstream_requests_pending", "gauge", "Requests waiting for a connection.", |stats| stats.pending.get()),
];

fn clusters(out: &mut String, workers: &[Arc<WorkerStats>]) {
    let all: Vec<_> = workers.iter().flat_map(|worker| worker.clusters()).collect();
    for (name, kind, help, value) in CLUSTER_METRICS {
        head(out, name, kind, help);
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for stats in &all {
            *sums.entry(&stats.name).or_default() += value(stats);
        }
        for (cluster, sum) in sums {
            let _ = writeln!(out, "{name}{{cluster=\"{}\"}} {sum}", escape(cluster));
        }
    }
}

fn gauges(out: &mut String, workers: &[Arc<WorkerStats>], drill: bool) {
    let sum = |value: fn(&WorkerStats) -> u64| workers.iter().map(|worker| value(worker)).sum::<u64>();
    let rows = [
        ("weir_connections_total", "counter", "Connections accepted.", sum(|stats| stats.connections.get())),
        ("weir_active_connections", "gauge", "Callers' connections open.", sum(|stats| stats.active_connections.get())),
        ("weir_active_requests", "gauge", "Requests in flight.", sum(|stats| stats.active_requests.get())),
        (
            "weir_late_answers_total",
            "counter",
            "Bolt and Dubbo answers that nobody waited for any more.",
            sum(|stats| stats.late_answers.get()),
        ),
        ("weir_workers", "gauge", "Worker threads.", workers.len() as u64),
        ("weir_drill_active", "gauge", "1 while a deliberate fault is switched on.", u64::from(drill)),
    ];
    for (name, kind, help, value) in rows {
        head(out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    }
}

/// Name of a direction, and its counters.
type Side = (&'static str, fn(&WorkerStats) -> &HandshakeFailures);

fn handshakes(out: &mut String, workers: &[Arc<WorkerStats>]) {
    head(out, "weir_tls_handshake_failures_total", "counter", "TLS handshakes that failed, by reason.");
    let sides: [Side; 2] =
        [("inbound", |stats| &stats.inbound_handshakes), ("outbound", |stats| &stats.outbound_handshakes)];
    for (side, failures) in sides {
        for &reason in HandshakeFailure::ALL {
            let count: u64 = workers.iter().map(|worker| failures(worker).get(reason)).sum();
            let labels = format!("direction=\"{side}\",reason=\"{}\"", reason.as_str());
            let _ = writeln!(out, "weir_tls_handshake_failures_total{{{labels}}} {count}");
        }
    }
}

/// Name, type, help, further label and value of each per-peer metric.
type LinkMetric = (&'static str, &'static str, &'static str, &'static str, fn(&LinkTotal) -> u64);

const LINK_METRICS: [LinkMetric; 4] = [
    ("weir_peer_connections", "gauge", "Connections open, by peer.", ",security=\"tls\"", |total| total.tls),
    ("weir_peer_connections", "gauge", "", ",security=\"plain\"", |total| total.plain),
    ("weir_peer_handshakes_total", "counter", "TLS handshakes done, by peer.", "", |total| total.handshakes),
    ("weir_peer_refused_total", "counter", "Connections refused for want of TLS or a good certificate.", "", |total| {
        total.refused
    }),
];

fn links(out: &mut String, workers: &[Arc<WorkerStats>]) {
    let totals = link_totals(workers);
    for (name, kind, help, label, value) in LINK_METRICS {
        if !help.is_empty() {
            head(out, name, kind, help);
        }
        for (key, total) in &totals {
            let side = if key.inbound { "inbound" } else { "outbound" };
            let (cluster, peer) = (escape(&key.cluster), escape(&key.identity));
            let labels = format!("direction=\"{side}\",cluster=\"{cluster}\",peer=\"{peer}\"{label}");
            let _ = writeln!(out, "{name}{{{labels}}} {}", value(total));
        }
    }
}

fn certificates(out: &mut String, shown: &BTreeMap<String, CertificateInfo>) {
    let name = "weir_tls_certificate_not_after_seconds";
    head(out, name, "gauge", "When the certificate ends, in seconds since 1970.");
    for (secret, certificate) in shown {
        let identity = escape(&certificate.identity);
        let labels = format!("secret=\"{}\",identity=\"{identity}\"", escape(secret));
        let _ = writeln!(out, "{name}{{{labels}}} {}", certificate.not_after_unix_s);
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn labels(key: &SeriesKey) -> String {
    format!(
        "listener=\"{}\",direction=\"{}\",route=\"{}\",cluster=\"{}\"",
        escape(&key.listener),
        key.direction,
        escape(&key.route),
        escape(&key.cluster)
    )
}

fn rpc_labels(key: &RpcKey) -> String {
    format!(
        "listener=\"{}\",direction=\"{}\",protocol=\"{}\",service=\"{}\",method=\"{}\"",
        escape(&key.listener),
        key.direction,
        key.protocol,
        escape(&key.service),
        escape(&key.method)
    )
}

/// A label value: backslash, quote and newline are escaped.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed_and_buckets_cumulate() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerStats::default())).collect();
        let key =
            SeriesKey { listener: "in".into(), direction: "inbound", route: "a\"b".into(), cluster: "local".into() };
        for worker in &workers {
            worker.series(key.clone()).record(200, 300);
        }
        let text = render(&workers, |_| 0, true, &BTreeMap::new());
        let labels = r#"listener="in",direction="inbound",route="a\"b",cluster="local""#;
        assert!(text.contains(&format!("weir_requests_total{{{labels},code_class=\"2xx\"}} 2\n")), "{text}");
        assert!(text.contains(&format!("weir_request_duration_seconds_bucket{{{labels},le=\"0.00025\"}} 0\n")));
        assert!(text.contains(&format!("weir_request_duration_seconds_bucket{{{labels},le=\"0.0005\"}} 2\n")));
        assert!(text.contains("weir_drill_active 1\n"));
    }
}
