//! The demo's resources: three apps that call each other in two units, an edge, and three releases of the proxy.

use std::collections::BTreeMap;
use std::path::Path;

use weir_model::app::Protocol;
use weir_model::release::Component;
use weir_model::{App, AppSpec, Release, ReleaseSpec, Unit, UnitSpec, Workload, WorkloadSpec};

/// Units; the first is where changes begin.
pub const UNITS: [&str; 2] = ["east", "west"];
/// The app through which requests come in: a proxy without an application.
pub const EDGE: &str = "edge";
/// The switch of the drill, and what it does: a fifth of the requests to an instance fail in its proxy.
pub const DRILL: &str = "fail-ratio=0.2";

/// Apps, their tiers (4: changed first), and what they call.
const APPS: [(&str, u8, &[&str]); 4] =
    [("stock", 4, &[]), ("order", 3, &["stock"]), ("front", 2, &["order"]), (EDGE, 1, &["front"])];

/// A, B and C: the same build, but for C's announced fault.
pub fn releases(proxy: &Path, sha256: &str) -> Vec<Release> {
    let release = |version: &str, args: &[&str]| {
        let spec = ReleaseSpec {
            sha256: Some(sha256.to_owned()),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..ReleaseSpec::new(Component::Proxy, version, proxy.display().to_string())
        };
        Release::new(format!("proxy-{}", version.to_lowercase()), spec)
    };
    vec![release("A", &[]), release("B", &[]), release("C", &["--drill", DRILL])]
}

/// The two units.
pub fn units() -> Vec<Unit> {
    let unit = |name: &&str| {
        let zones = zones();
        Unit::new(*name, UnitSpec { region: "this machine".into(), zones, canary: *name == UNITS[0] })
    };
    UNITS.iter().map(unit).collect()
}

/// The apps.
pub fn apps() -> Vec<App> {
    let app = |(name, tier, _): (&str, u8, &[&str])| {
        let spec = AppSpec { owner: "demo".into(), tier, protocol: Protocol::Http1, ..AppSpec::default() };
        App::new(name, spec)
    };
    APPS.into_iter().map(app).collect()
}

/// An app's instances in each unit.
pub fn workloads(demo: &Path, replicas: u32, version: &str) -> Vec<Workload> {
    let mut workloads = Vec::new();
    for (app, _, calls) in APPS {
        for unit in UNITS {
            let name = format!("{app}-{unit}");
            workloads.push(Workload::new(name, workload(demo, app, unit, calls, replicas, version)));
        }
    }
    workloads
}

/// Instances that [`workloads`] make.
pub fn instances(replicas: u32) -> usize {
    let edges = UNITS.len();
    (APPS.len() - 1) * UNITS.len() * replicas as usize + edges
}

fn workload(demo: &Path, app: &str, unit: &str, calls: &[&str], replicas: u32, version: &str) -> WorkloadSpec {
    let edge = app == EDGE;
    WorkloadSpec {
        app: app.to_owned(),
        unit: unit.to_owned(),
        zones: zones(),
        group: String::new(),
        stack: "demo".to_owned(),
        replicas: if edge { 1 } else { replicas },
        command: if edge { Vec::new() } else { command(demo, app, calls) },
        env: BTreeMap::new(),
        calls: calls.iter().map(|call| (*call).to_owned()).collect(),
        proxy_version: version.to_owned(),
        app_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn command(demo: &Path, app: &str, calls: &[&str]) -> Vec<String> {
    let demo = demo.display().to_string();
    let mut command: Vec<String> =
        [&demo, "service", "--name", app, "--listen", "{address}:{port}"].map(Into::into).into();
    for call in calls {
        command.extend(["--call".to_owned(), format!("{call}={{upstream:{call}}}")]);
    }
    command
}

fn zones() -> Vec<String> {
    ["a", "b", "c"].map(Into::into).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_valid() {
        let path = Path::new("/bin/true");
        for release in releases(path, &"0".repeat(64)) {
            release.to_object().validate().unwrap();
        }
        units().iter().for_each(|unit| unit.to_object().validate().unwrap());
        apps().iter().for_each(|app| app.to_object().validate().unwrap());
        let workloads = workloads(path, 3, "A");
        workloads.iter().for_each(|workload| workload.to_object().validate().unwrap());
        let count: u32 = workloads.iter().map(|workload| workload.spec.replicas).sum();
        assert_eq!(count as usize, instances(3));
    }
}
