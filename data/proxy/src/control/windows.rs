//! Health windows in the terms of the control stream, with what the process itself used.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_client::registration::{EndpointTraffic, Health, Traffic as TrafficReport};

use crate::{EndpointWindow, HealthWindow, Proxy, Traffic};

/// Gives the window since the previous call.
pub(super) struct Windows {
    proxy: Proxy,
    sequence: u64,
    began: Instant,
    cpu: Duration,
}

impl Windows {
    /// What happened before does not count.
    pub(super) fn begin(proxy: Proxy) -> Self {
        proxy.take_health_window();
        Windows { proxy, sequence: 0, began: Instant::now(), cpu: cpu_time() }
    }

    pub(super) fn next(&mut self) -> Health {
        let window = self.proxy.take_health_window();
        let length = std::mem::replace(&mut self.began, Instant::now()).elapsed();
        let cpu = cpu_time();
        let used = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        self.sequence += 1;
        Health {
            sequence: self.sequence,
            start_unix_ms: clamp(unix_time().saturating_sub(length).as_millis()),
            duration_ms: clamp(length.as_millis()),
            rss_bytes: resident_bytes(),
            cpu_us: clamp(used.as_micros()),
            ..report(window)
        }
    }
}

fn report(window: HealthWindow) -> Health {
    Health {
        inbound: Some(traffic(window.inbound)),
        outbound: Some(traffic(window.outbound)),
        faults: window.faults.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        loop_delay_us: clamp(window.loop_delay_us.into()),
        active_requests: clamp(window.active_requests.into()),
        active_connections: clamp(window.active_connections.into()),
        endpoints: window.endpoints.into_iter().map(endpoint).collect(),
        ..Default::default()
    }
}

fn traffic(traffic: Traffic) -> TrafficReport {
    TrafficReport { requests: traffic.requests, errors: traffic.errors, latency: traffic.latency.to_vec() }
}

fn endpoint(window: EndpointWindow) -> EndpointTraffic {
    EndpointTraffic {
        cluster: window.cluster.to_string(),
        address: window.address.to_string(),
        requests: window.requests,
        errors: window.errors,
    }
}

/// The number, or the largest that fits.
fn clamp<T: TryFrom<u128> + Bounded>(number: u128) -> T {
    T::try_from(number).unwrap_or(T::MAX)
}

trait Bounded {
    const MAX: Self;
}

impl Bounded for u32 {
    const MAX: u32 = u32::MAX;
}

impl Bounded for u64 {
    const MAX: u64 = u64::MAX;
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// User and system time of all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Second field of `/proc/self/statm`, in pages; 0 where that cannot be read.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}
