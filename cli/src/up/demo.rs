//! The demo, act by act.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_instance::local::sha256;
use weir_model::change::{Change, ChangePhase};
use weir_model::instance::{Instance, InstancePhase};
use weir_model::{ChangeSpec, InstanceSpec, Kind};

use super::Args;
use super::api::Api;
use super::drive::{Drive, change};
use super::load::{Counts, Load};
use super::mesh;
use super::report::{Bad, Good, Report};
use super::screen::Screen;
use crate::run::args::find;

/// How long the mesh may take until every instance serves.
const MESH_PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(250);
/// Traffic runs so long before the first change, so that there is something to compare with.
const WARM_UP_SECONDS: u32 = 3;
/// The load counts aloud each second; one that is silent for longer has stopped working.
const WARM_UP_PATIENCE: Duration = Duration::from_secs(30);
/// Who writes, for the audit log.
const REASON: &str = "weir up --demo";

/// Programs that the demo runs beside this one.
struct Programs {
    proxy: PathBuf,
    demo: PathBuf,
}

/// Runs all acts. Ends only if the arguments say so, or something goes wrong.
pub async fn run(args: &Args, screen: &mut Screen, api: &Api) -> Result<ExitCode, String> {
    let programs = Programs::find()?;
    let from = make_mesh(args, screen, api, &programs).await?;
    let edges = wait_until_it_serves(args, screen, api).await?;
    finish_old_changes(screen, api).await?;
    let mut load = Load::start(&programs.demo, &edges, args.rate)?;
    let mut report = Report::of(mesh::instances(args.replicas), args.rate);
    let shown = show(args, screen, api, &mut load, &edges, &from, &mut report).await;
    report.stopped = shown.err();
    report.tell(screen);
    if let Some(path) = &args.report {
        report.write(path)?;
    }
    if let Some(reason) = report.stopped {
        load.stop().await;
        return Err(reason);
    }
    if args.demo_exit {
        load.stop().await;
        return Ok(if report.all_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    stay(args, screen, api, &edges, load).await
}

/// Traffic, then the changes.
async fn show(
    args: &Args,
    screen: &mut Screen,
    api: &Api,
    load: &mut Load,
    edges: &[SocketAddr],
    from: &str,
    report: &mut Report,
) -> Result<(), String> {
    warm_up(load).await.map_err(|reason| format!("{reason}\n  -> {}", logs(args)))?;
    screen.line(&format!("traffic         {} requests/s through {}", args.rate, addresses(edges)));
    changes(screen, api, load, from, report).await
}

/// What to look at when the mesh does not do what it should.
fn logs(args: &Args) -> String {
    let data = args.data.display();
    format!("the logs are {data}/control.log and {data}/instances/NAME/supervisor.log")
}

async fn warm_up(load: &mut Load) -> Result<(), String> {
    let late = |_| format!("the load has counted nothing for {} s", WARM_UP_PATIENCE.as_secs());
    let counts = tokio::time::timeout(WARM_UP_PATIENCE, load.seconds(WARM_UP_SECONDS)).await.map_err(late)??;
    answered_well(&counts)
}

/// A mesh that fails by itself shows nothing.
fn answered_well(counts: &Counts) -> Result<(), String> {
    match counts {
        Counts { failed: 0, ok: 1.., .. } => Ok(()),
        Counts { failed: 0, sent, .. } => Err(format!("before any change none of {sent} requests was answered")),
        Counts { failed, sent, reasons, .. } => {
            Err(format!("before any change {failed} of {sent} requests failed: {reasons:?}"))
        }
    }
}

impl Programs {
    fn find() -> Result<Programs, String> {
        let missing =
            |name| format!("cannot find {name} beside this program or in PATH: build it, `cargo xtask up` does");
        let found = |name| find(name).ok_or_else(|| missing(name));
        Ok(Programs { proxy: found("weir-proxy")?, demo: found("weir-demo")? })
    }
}

/// Applies the demo's resources; gives the version that the mesh runs.
async fn make_mesh(args: &Args, screen: &mut Screen, api: &Api, programs: &Programs) -> Result<String, String> {
    let path = programs.proxy.canonicalize().map_err(|error| error.to_string())?;
    let hash = sha256(&path.display().to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    for release in mesh::releases(&path, &hash) {
        api.apply(&release, REASON).await?;
    }
    for unit in mesh::units() {
        api.apply(&unit, REASON).await?;
    }
    for app in mesh::apps() {
        api.apply(&app, REASON).await?;
    }
    let version = version_of(&api.list::<InstanceSpec>().await?);
    let demo = programs.demo.canonicalize().map_err(|error| error.to_string())?;
    for workload in mesh::workloads(&demo, args.replicas, &version) {
        api.apply(&workload, REASON).await?;
    }
    let count = mesh::instances(args.replicas);
    screen.line(&format!("mesh            edge -> front -> order -> stock in units east and west: {count} instances"));
    Ok(version)
}

/// What most instances are to run; A at the very first.
fn version_of(instances: &[Instance]) -> String {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in instances {
        *votes.entry(&instance.spec.proxy_version).or_default() += 1;
    }
    let most = votes.into_iter().max_by_key(|(_, count)| *count);
    most.map_or("A", |(version, _)| version).to_owned()
}

/// Waits until every instance serves; gives the addresses at which the edges offer `front`.
async fn wait_until_it_serves(args: &Args, screen: &mut Screen, api: &Api) -> Result<Vec<SocketAddr>, String> {
    let begin = Instant::now();
    let wanted = mesh::instances(args.replicas);
    loop {
        let mut instances = api.list::<InstanceSpec>().await?;
        instances.retain(|instance| instance.spec.workload.is_some() && !instance.spec.retire);
        let serving = instances.iter().filter(|i| i.status.published()).count();
        screen.now(&format!("    {serving} of {wanted} instances serve"));
        if serving == wanted && instances.len() == wanted {
            screen.line(&format!("serving         after {:.1} s", begin.elapsed().as_secs_f64()));
            return Ok(edges(&instances));
        }
        if begin.elapsed() > MESH_PATIENCE {
            return Err(not_serving(&instances, wanted));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn edges(instances: &[Instance]) -> Vec<SocketAddr> {
    let edges = instances.iter().filter(|instance| instance.spec.app == mesh::EDGE);
    edges.flat_map(|instance| &instance.spec.upstreams).map(|upstream| upstream.listen).collect()
}

fn not_serving(instances: &[Instance], wanted: usize) -> String {
    let waits = instances.iter().find(|instance| instance.status.phase != InstancePhase::Serving);
    let example =
        waits.map_or_else(String::new, |i| format!("; {}: {:?}, {}", i.name(), i.status.phase, i.status.message));
    format!("after {} s there are not {wanted} serving instances{example}", MESH_PATIENCE.as_secs())
}

/// A change that an earlier run left half done goes on by itself, since the control plane is there again. One that waits
/// for a person is stopped where it stands.
async fn finish_old_changes(screen: &mut Screen, api: &Api) -> Result<(), String> {
    loop {
        let changes = api.list::<ChangeSpec>().await?;
        let Some(open) = changes.iter().find(|change| !change.status.phase.ended()) else { return Ok(()) };
        let name = open.name();
        if matches!(open.status.phase, ChangePhase::Blocked | ChangePhase::Paused) {
            screen.line(&format!("change/{name} of an earlier run waits for a person: it is stopped where it stands"));
            api.patch(Kind::Change, name, &json!({ "spec": { "command": "Abort" } }), REASON).await?;
        }
        screen.now(&format!("    change/{name} of an earlier run goes on: {}", open.status.message));
        tokio::time::sleep(LOOK).await;
    }
}

/// The good change, and only if that has succeeded the bad one: beside one that waits for a person nothing else begins.
async fn changes(
    screen: &mut Screen,
    api: &Api,
    load: &mut Load,
    from: &str,
    report: &mut Report,
) -> Result<(), String> {
    let paint = screen.paint;
    let to = if from == "B" { "A" } else { "B" };
    screen.line(&format!("\n{}", paint.bold(format!("Change {from} -> {to}: all proxies, unattended"))));
    let (good, seen) = one_change(screen, api, load, to).await?;
    report.good = Good::of(&good, from, seen);
    succeeded(&good)?;

    screen.line(&format!("\n{}", paint.bold(format!("Change {to} -> C: a bad version"))));
    screen.line(&format!(
        "  C is a drill: the same build with {}; it passes its self-check and fails a fifth of its requests",
        mesh::DRILL
    ));
    let (bad, seen) = one_change(screen, api, load, "C").await?;
    report.bad = Some(Bad::of(&bad, seen));
    Ok(())
}

/// What comes next builds on a change that has succeeded.
fn succeeded(change: &Change) -> Result<(), String> {
    let (name, status) = (change.name(), &change.status);
    if status.phase == ChangePhase::Succeeded {
        return Ok(());
    }
    Err(format!(
        "change/{name}, which should succeed, is {:?}: {}\n  -> the next `weir up` without --demo on the same data folder \
         lets you look: `weir explain change/{name}`",
        status.phase, status.message
    ))
}

/// Runs one change to its end; gives it with what the load counted meanwhile.
async fn one_change(
    screen: &mut Screen,
    api: &Api,
    load: &mut Load,
    version: &str,
) -> Result<(Change, super::load::Difference), String> {
    let name = fresh_name(api, version).await?;
    let before: Counts = load.next().await?;
    api.apply(&change(&name, version), REASON).await?;
    let ended = Drive::new(api, screen).follow(&name, load, &before).await?;
    let after = load.settled().await?;
    Ok((ended, after.since(&before)))
}

/// `demo-b-3`, if there have been two.
async fn fresh_name(api: &Api, version: &str) -> Result<String, String> {
    let changes = api.list::<ChangeSpec>().await?;
    let taken = |name: &String| changes.iter().any(|change| change.name() == name);
    let names = (1..).map(|number| format!("demo-{}-{number}", version.to_lowercase()));
    names.into_iter().find(|name| !taken(name)).ok_or_else(|| "no name is free".to_owned())
}

/// The mesh stays up, under load, until somebody stops it.
async fn stay(
    args: &Args,
    screen: &mut Screen,
    api: &Api,
    edges: &[SocketAddr],
    mut load: Load,
) -> Result<ExitCode, String> {
    screen.line(&format!(
        "\nThe mesh stays up, under load. API and metrics: {base} (/metrics, /openapi.json); edge: {edges}\nTry:\n  \
         export WEIR_SERVER={base} WEIR_TOKEN={token}\n  weir get instances\n  weir proxies\n  \
         weir explain change/demo-c-1\n  curl http://{edge}/\nCtrl-C stops everything.",
        base = api.base(),
        token = api.token(),
        edges = addresses(edges),
        edge = edges.first().map_or_else(|| args.api.to_string(), ToString::to_string),
    ));
    loop {
        let counts = load.next().await?;
        screen.now(&format!(
            "    {}/s · {} sent, {} failed · p99 {:.1} ms",
            counts.answered,
            counts.sent,
            counts.failed,
            counts.p99_us as f64 / 1000.0
        ));
    }
}

fn addresses(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_that_does_not_answer_is_not_changed() {
        let counts = |ok, failed| Counts { sent: 9, ok, failed, ..Counts::default() };
        assert_eq!(answered_well(&counts(9, 0)), Ok(()));
        assert!(answered_well(&counts(8, 1)).unwrap_err().contains("1 of 9 requests failed"));
        assert!(answered_well(&counts(0, 0)).unwrap_err().contains("none of 9"));
    }

    #[test]
    fn nothing_follows_a_change_that_did_not_succeed() {
        let mut good = change("demo-b-1", "B");
        for phase in [ChangePhase::Blocked, ChangePhase::RolledBack, ChangePhase::Aborted] {
            good.status.phase = phase;
            assert!(succeeded(&good).unwrap_err().contains("weir explain change/demo-b-1"), "{phase:?}");
        }
        good.status.phase = ChangePhase::Succeeded;
        assert_eq!(succeeded(&good), Ok(()));
    }
}
