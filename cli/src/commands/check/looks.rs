//! What is looked at.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::Value;
use weir_model::Kind;

use super::{Category, Finding, Level};
use crate::client::{BASE, Client};
use crate::commands::{get, proxies};
use crate::failure::{Failure, UNREACHABLE};
use crate::output::columns;
use crate::target::called;

/// Checks of one category; one that could not be made is a failed one.
pub async fn category(client: &Client, category: Category) -> Vec<Finding> {
    let looked = match category {
        Category::Api => Ok(api(client).await),
        Category::Store => store(client).await,
        Category::Xds => xds(client).await,
        Category::Proxies => connected(client).await,
        Category::Instances => instances(client).await,
        Category::Changes => changes(client).await,
        Category::Certificates => super::certificates::look(client).await,
    };
    looked.unwrap_or_else(|failure| vec![failed("can be looked at", failure)])
}

fn failed(check: &str, failure: Failure) -> Finding {
    let hint = failure.hint.unwrap_or_else(|| "see the log of `weir control`".to_owned());
    Finding::not(Level::Error, check, failure.message, hint)
}

/// It answers, speaks our version, and knows us.
pub async fn api(client: &Client) -> Vec<Finding> {
    let version = match client.get("/version", &[]).await {
        Ok(version) => version,
        Err(failure) => return vec![failed(&format!("control plane at {} answers", client.server()), failure)],
    };
    let mut findings = vec![Finding::ok(format!("control plane at {} answers", client.server()))];
    findings.push(same_version(version["version"].as_str().unwrap_or("unknown")));
    findings.push(match client.get(&format!("{BASE}/whoami"), &[]).await {
        Ok(me) if me["role"] == "Proxy" => {
            Finding::not(Level::Error, "you may read resources", "the token is a proxy's", "log in with `weir login`")
        }
        Ok(me) => Finding::ok(format!("you are known as {} ({})", text(&me, "/actor"), text(&me, "/role"))),
        Err(failure) => failed("you are known", failure),
    });
    findings
}

fn same_version(server: &str) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    if server == own {
        return Finding::ok(format!("command and control plane are of the same version ({own})"));
    }
    let detail = format!("command {own}, control plane {server}");
    let hint = "install the version of `weir` that the control plane has";
    Finding::not(Level::Warning, "command and control plane are of the same version", detail, hint)
}

/// `/readyz`, the store's part and the controllers'.
async fn store(client: &Client) -> Result<Vec<Finding>, Failure> {
    let (status, body) = client.probe("/readyz").await?;
    let parts = body["checks"].as_array().map_or(&[][..], Vec::as_slice);
    let mut findings: Vec<Finding> = parts.iter().map(part).collect();
    if findings.is_empty() && status != StatusCode::OK {
        let failure = Failure::new(format!("/readyz answered {status}")).code(UNREACHABLE);
        findings.push(failed("control plane is ready", failure));
    }
    let (written, audit) =
        ("writes are audited", client.get(&format!("{BASE}/audit"), &[("limit", "1".to_owned())]).await);
    findings.push(audit.map_or_else(|failure| failed(written, failure), |_| Finding::ok(written)));
    Ok(findings)
}

fn part(part: &Value) -> Finding {
    let (name, detail) = (text(part, "/name"), text(part, "/detail"));
    match part["ok"].as_bool() {
        Some(true) => Finding::ok(format!("{name}: {detail}")),
        _ => Finding::not(Level::Error, format!("{name} works"), detail, "see the log of `weir control`"),
    }
}

/// Nothing is rejected, nothing lags.
async fn xds(client: &Client) -> Result<Vec<Finding>, Failure> {
    let proxies = proxies::fetch(client).await?;
    let (mut rejected, mut behind) = (Vec::new(), Vec::new());
    for (proxy, _) in &proxies {
        for (name, state) in &proxy.types {
            if state.refused() {
                rejected.push(format!("{} rejected {name}: {}", proxy.node, state.error));
            } else if !state.current() {
                behind.push(format!("{} has not acknowledged {name}", proxy.node));
            }
        }
    }
    let hint = "see `weir proxies`; the proxies serve on with the configuration before";
    Ok(vec![
        Finding::none(Level::Error, "no configuration is rejected", &rejected, hint),
        Finding::none(
            Level::Warning,
            "all configuration is acknowledged",
            &behind,
            "look again in a moment; see `weir proxies`",
        ),
        routes(client).await?,
    ])
}

/// Every serving instance has a stream, and no proxy reports faults of its own.
async fn connected(client: &Client) -> Result<Vec<Finding>, Failure> {
    let proxies = proxies::fetch(client).await?;
    let instances = get::list(client, Kind::Instance, "", "").await?;
    let known = |name: &str| proxies.iter().any(|(proxy, _)| proxy.node == name);
    let serving = instances.iter().filter(|i| text(i, "/status/phase") == "Serving");
    let without: Vec<String> = serving.filter(|i| !known(text(i, "/metadata/name"))).map(called).collect();
    let faults = |(proxy, item): &(proxies::Proxy, Value)| {
        let faults = item.pointer("/health/faults")?.as_object()?;
        let told: Vec<String> =
            faults.iter().filter(|(_, n)| n.as_u64() > Some(0)).map(|(k, n)| format!("{n} {k}")).collect();
        (!told.is_empty()).then(|| format!("{}: {} in the last second", proxy.node, told.join(", ")))
    };
    let faulty: Vec<String> = proxies.iter().filter_map(faults).collect();
    let drills: Vec<String> = instances
        .iter()
        .filter(|i| !text(i, "/status/drill").is_empty())
        .map(|i| format!("{}: {}", called(i), text(i, "/status/drill")))
        .collect();
    let mut findings = vec![
        Finding::none(
            Level::Warning,
            "every serving instance has a configuration stream",
            &without,
            "see the log of its proxy",
        ),
        Finding::none(Level::Warning, "no proxy reports faults of its own", &faulty, "see `weir proxies -o wide`"),
        Finding::none(
            Level::Warning,
            "no drill build is running",
            &drills,
            "it does harm on purpose: change back with a Change",
        ),
    ];
    if proxies.is_empty() {
        findings.push(Finding::not(
            Level::Warning,
            "a proxy is connected",
            "none is",
            "start a program with `weir run`, or apply a Workload",
        ));
    }
    Ok(findings)
}

/// None has failed, is lost, or runs something else than wanted.
async fn instances(client: &Client) -> Result<Vec<Finding>, Failure> {
    let instances = get::list(client, Kind::Instance, "", "").await?;
    let told = |wrong: &dyn Fn(&Value) -> bool| -> Vec<String> {
        instances
            .iter()
            .filter(|i| wrong(i))
            .map(|i| format!("{}: {}", called(i), text(i, "/status/message")))
            .collect()
    };
    let failed = told(&|i| text(i, "/status/phase") == "Failed");
    let lost = instances.iter().filter_map(|i| Some(format!("{}: {}", called(i), lost(i)?))).collect::<Vec<_>>();
    let unchecked = told(&|i| i.pointer("/status/selfCheck/passed") == Some(&Value::Bool(false)));
    let hint = "see `weir explain instance/NAME`";
    let mut findings = vec![
        Finding::none(Level::Error, "no instance has failed", &failed, hint),
        Finding::none(Level::Warning, "no instance is lost", &lost, hint),
        Finding::none(Level::Error, "every proxy has passed its self-check", &unchecked, hint),
    ];
    findings.push(missing(client).await?);
    Ok(findings)
}

/// Why an instance is lost, if it is.
fn lost(instance: &Value) -> Option<&str> {
    let alive = columns::conditions(instance).find(|c| c["type"] == "Alive" && c["status"] == "False")?;
    Some(
        ["/message", "/reason"]
            .map(|path| text(alive, path))
            .into_iter()
            .find(|told| !told.is_empty())
            .unwrap_or("no reason told"),
    )
}

async fn missing(client: &Client) -> Result<Finding, Failure> {
    let workloads = get::list(client, Kind::Workload, "", "").await?;
    let number = |o: &Value, path: &str| o.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let short = |o: &&Value| number(o, "/status/serving") < number(o, "/spec/replicas");
    let told = |o: &Value| {
        let (serving, wanted) = (number(o, "/status/serving"), number(o, "/spec/replicas"));
        format!("{}: {serving} of {wanted} serve", called(o))
    };
    let wrong: Vec<String> = workloads.iter().filter(short).map(told).collect();
    Ok(Finding::none(Level::Warning, "every workload has its instances", &wrong, "see `weir get instances`"))
}

/// None is blocked.
async fn changes(client: &Client) -> Result<Vec<Finding>, Failure> {
    let changes = get::list(client, Kind::Change, "", "").await?;
    let blocked: Vec<String> = changes
        .iter()
        .filter(|c| text(c, "/status/phase") == "Blocked")
        .map(|c| format!("{}: {}", called(c), text(c, "/status/message")))
        .collect();
    let releases = get::list(client, Kind::Release, "", "").await?;
    let instances = get::list(client, Kind::Instance, "", "").await?;
    let withdrawn: Vec<String> = releases.iter().filter_map(|release| outlived(release, &instances)).collect();
    let hint = "see `weir explain change/NAME`; then `weir change retry|rollback|abort NAME`";
    let running = changes.iter().filter(|c| ["Running", "RollingBack"].contains(&text(c, "/status/phase"))).count();
    Ok(vec![
        Finding::none(Level::Error, "no change is blocked", &blocked, hint),
        Finding::none(
            Level::Warning,
            "no withdrawn version runs",
            &withdrawn,
            "a Change to another version takes it off: `weir change undo NAME`",
        ),
        Finding::ok(format!("changes: {} known, {running} running", changes.len())),
    ])
}

/// That a withdrawn version of a Release still runs, if it does.
fn outlived(release: &Value, instances: &[Value]) -> Option<String> {
    let why = Some(text(release, "/spec/withdrawn")).filter(|why| !why.is_empty())?;
    let version = text(release, "/spec/version");
    let app = text(release, "/spec/component/app");
    let runs = |i: &&Value| match app.is_empty() {
        true => text(i, "/spec/managedBy") == "Weir" && text(i, "/status/proxyVersion") == version,
        false => text(i, "/spec/app") == app && text(i, "/status/appVersion") == version,
    };
    let count = instances.iter().filter(runs).count();
    let what = if app.is_empty() { "proxy" } else { app };
    let instances = if count == 1 { "1 instance runs" } else { &format!("{count} instances run") };
    (count > 0).then(|| format!("{instances} {what} {version}, which was withdrawn: {why}"))
}

/// Apps that routes speak of and that nobody knows.
async fn routes(client: &Client) -> Result<Finding, Failure> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (kind, field) in [(Kind::App, "/metadata/name"), (Kind::Instance, "/spec/app"), (Kind::Workload, "/spec/app")] {
        known.extend(get::list(client, kind, "", "").await?.iter().map(|object| text(object, field).to_owned()));
    }
    let routes = get::list(client, Kind::Route, "", "").await?;
    let wrong: Vec<String> = routes.iter().flat_map(|route| lost_apps(route, &known)).collect();
    let hint = "requests that match find no instance: correct the Route, or start the app";
    Ok(Finding::none(Level::Warning, "every app of a route is known", &wrong, hint))
}

fn lost_apps(route: &Value, known: &BTreeSet<String>) -> Vec<String> {
    let rules = route.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
    let backends = rules.filter_map(|rule| rule["backends"].as_array()).flatten();
    let named = backends.map(|backend| text(backend, "/app")).chain([text(route, "/spec/app")]);
    let unknown: BTreeSet<&str> = named.filter(|app| !known.contains(*app)).collect();
    unknown.into_iter().map(|app| format!("{}: nothing is known of app {app}", called(route))).collect()
}

pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_withdrawn_version_that_runs_is_told() {
        let release = json!({"spec": {"component": "proxy", "version": "C", "withdrawn": "leaks"}});
        let instance = |version: &str| json!({"spec": {"managedBy": "Weir"}, "status": {"proxyVersion": version}});
        let told = outlived(&release, &[instance("C"), instance("B")]);
        assert_eq!(told.as_deref(), Some("1 instance runs proxy C, which was withdrawn: leaks"));
        assert_eq!(outlived(&release, &[instance("B")]), None);
    }

    #[test]
    fn a_route_to_nobody_is_told() {
        let route = json!({"kind": "Route", "metadata": {"name": "r"}, "spec": {
            "app": "stock", "rules": [{"backends": [{"app": "stokc"}, {"app": "stock"}]}],
        }});
        let known = BTreeSet::from(["stock".to_owned()]);
        assert_eq!(lost_apps(&route, &known), ["route/r: nothing is known of app stokc"]);
    }

    #[test]
    fn a_lost_instance_says_why() {
        let instance = |alive: Value| json!({"status": {"message": "", "conditions": [alive]}});
        let silent =
            json!({"type": "Alive", "status": "False", "reason": "LeaseExpired", "message": "silent for 12 s"});
        assert_eq!(lost(&instance(silent)), Some("silent for 12 s"));
        assert_eq!(lost(&instance(json!({"type": "Alive", "status": "False", "reason": "Gone"}))), Some("Gone"));
        assert_eq!(lost(&instance(json!({"type": "Alive", "status": "True", "message": "x"}))), None);
    }
}
