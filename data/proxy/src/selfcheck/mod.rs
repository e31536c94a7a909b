//! Static health: what a proxy makes sure of before it takes any traffic.
//!
//! Each check has a name, says what it found in words, and is timed. One failure keeps the proxy from taking traffic; it
//! is shown by `/ready` and told to the control plane, and the checks are run again until they pass. The last of them
//! sends a real request over loopback through a worker to a responder of the proxy's own, so that a build which cannot
//! serve is found before callers find out.

mod request;
mod system;

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Instant;

use weir_client::registration::{Check, SelfCheck};
use weir_config::{Listener, ProxyConfig};

use crate::Proxy;

pub use system::raise_descriptor_limit;

/// What the checks judge by.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    /// Listeners whose sockets the parent process handed over.
    pub inherited: HashSet<String>,
    /// Services which the application calls, and where each must be offered.
    pub upstreams: Vec<(String, SocketAddr)>,
    /// There is an application behind this proxy: it must have an inbound listener.
    pub has_application: bool,
}

/// Runs all checks, also after one has failed: a person wants the whole list.
///
/// `proxy` must not serve yet: it is given a configuration of its own for the request through its pipeline.
pub async fn run(proxy: &Proxy, config: &ProxyConfig, expected: &Expectations) -> SelfCheck {
    let checks = vec![
        timed("config", async { check_config(config, expected) }).await,
        timed("listeners", async { check_listeners(config, expected) }).await,
        timed("upstreams", async { check_upstreams(config, expected) }).await,
        timed("clock", async { system::clock() }).await,
        timed("descriptors", async { system::descriptors() }).await,
        timed("memory", async { system::memory() }).await,
        timed("self-request", request::through(proxy)).await,
    ];
    SelfCheck { passed: checks.iter().all(|check| check.passed), checks }
}

/// The failures in one line.
pub fn failures(report: &SelfCheck) -> String {
    let failed = report.checks.iter().filter(|check| !check.passed);
    failed.map(|check| format!("{}: {}", check.name, check.detail)).collect::<Vec<_>>().join("; ")
}

async fn timed(name: &str, check: impl Future<Output = Result<String, String>>) -> Check {
    let start = Instant::now();
    let result = check.await;
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let passed = result.is_ok();
    let detail = result.unwrap_or_else(|problem| problem);
    Check { name: name.to_owned(), passed, detail, micros }
}

fn check_config(config: &ProxyConfig, expected: &Expectations) -> Result<String, String> {
    if config.listeners.is_empty() {
        return Err("the control plane has no listener for this proxy".into());
    }
    let inbound = |listener: &Listener| listener.direction == weir_config::Direction::Inbound;
    if expected.has_application && !config.listeners.iter().any(inbound) {
        return Err("the control plane has no inbound listener for the application of this proxy".into());
    }
    let endpoints: usize = config.clusters.iter().map(|cluster| cluster.endpoints.len()).sum();
    Ok(format!(
        "{} listeners, {} route tables, {} clusters, {endpoints} endpoints",
        config.listeners.len(),
        config.route_tables.len(),
        config.clusters.len()
    ))
}

fn check_listeners(config: &ProxyConfig, expected: &Expectations) -> Result<String, String> {
    let bound = config.listeners.iter().filter(|listener| listener.bind_to_port);
    let (inherited, own): (Vec<_>, Vec<_>) = bound.partition(|listener| expected.inherited.contains(&listener.name));
    let problems: Vec<_> = own.iter().copied().filter_map(unbindable).collect();
    match problems.is_empty() {
        true => Ok(format!("{} inherited, {} can be bound", inherited.len(), own.len())),
        false => Err(problems.join("; ")),
    }
}

/// Binds without listening, so that no connection can reach a socket which is closed right after.
fn unbindable(listener: &Listener) -> Option<String> {
    let bind = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(listener.bind), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&listener.bind.into())
    };
    bind().err().map(|error| format!("`{}` cannot listen on {}: {error}", listener.name, listener.bind))
}

/// Each service that the application calls is offered where it will look for it. One without endpoints passes: it may
/// start later than this one.
fn check_upstreams(config: &ProxyConfig, expected: &Expectations) -> Result<String, String> {
    let offered: HashSet<SocketAddr> = config.listeners.iter().map(|listener| listener.bind).collect();
    let absent: Vec<_> = expected.upstreams.iter().filter(|(_, listen)| !offered.contains(listen)).collect();
    if let Some((app, listen)) = absent.first() {
        return Err(format!("`{app}` is to be offered at {listen}, but the control plane sent no listener for it"));
    }
    let empty: Vec<_> = config.clusters.iter().filter(|cluster| cluster.endpoints.is_empty()).collect();
    let names = empty.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>().join(", ");
    match empty.is_empty() {
        true => Ok(format!("all {} clusters have endpoints", config.clusters.len())),
        false => Ok(format!("without endpoints yet: {names}")),
    }
}

#[cfg(test)]
mod tests;
