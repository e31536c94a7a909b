//! Which columns each kind has. They are read from JSON by path, so that an older command shows a newer server's
//! resources as well as it can.

use jiff::Timestamp;
use serde_json::Value;
use weir_model::freeze::Moment;
use weir_model::{FreezeSpec, Kind};

use super::table::{Cell, Mood, Table};
use super::time;

/// How a column's cell comes about.
type Read = fn(&Value, Timestamp) -> Cell;

/// A header, whether it is only for the wide table, and its cell.
struct Column(&'static str, bool, Read);

/// A table of resources of one kind.
pub fn table(objects: &[Value], wide: bool) -> Table {
    let kind = objects.first().and_then(|o| o["kind"].as_str()).and_then(|kind| kind.parse().ok());
    let columns: Vec<Column> = all(kind).into_iter().filter(|column| wide || !column.1).collect();
    let mut table = Table::new(columns.iter().map(|column| column.0));
    let now = Timestamp::now();
    for object in objects {
        table.row(columns.iter().map(|column| column.2(object, now)));
    }
    table
}

/// The columns of one row, for watches.
pub fn row(object: &Value) -> Vec<Cell> {
    let kind = object["kind"].as_str().and_then(|kind| kind.parse().ok());
    all(kind).into_iter().filter(|column| !column.1).map(|column| column.2(object, Timestamp::now())).collect()
}

/// The headers that go with [`row`].
pub fn header(kind: Kind) -> Vec<&'static str> {
    all(Some(kind)).into_iter().filter(|column| !column.1).map(|column| column.0).collect()
}

fn all(kind: Option<Kind>) -> Vec<Column> {
    let mut columns = vec![Column("NAME", false, |o, _| text(o, "/metadata/name"))];
    columns.extend(kind.map(own).unwrap_or_default());
    columns.push(Column("AGE", false, |o, now| time::age(&o["metadata"]["createdAt"], now).into()));
    if matches!(kind, Some(Kind::Instance | Kind::Change | Kind::Workload | Kind::Encryption)) {
        columns.push(Column("MESSAGE", !matches!(kind, Some(Kind::Change)), |o, _| text(o, "/status/message")));
    }
    columns
}

fn own(kind: Kind) -> Vec<Column> {
    match kind {
        Kind::App => vec![
            Column("PROTOCOL", false, |o, _| text(o, "/spec/protocol")),
            Column("TIER", false, |o, _| text(o, "/spec/tier")),
            Column("OWNER", false, |o, _| text(o, "/spec/owner")),
            Column("BALANCE", true, |o, _| text(o, "/spec/balance")),
            Column("TIMEOUT", true, |o, _| text(o, "/spec/timeoutMs").map(|ms| format!("{ms} ms"))),
        ],
        Kind::Unit => vec![
            Column("REGION", false, |o, _| text(o, "/spec/region")),
            Column("ZONES", false, |o, _| list(o, "/spec/zones")),
            Column("CANARY", false, |o, _| text(o, "/spec/canary")),
        ],
        Kind::Instance => instance(),
        Kind::Route => vec![
            Column("APP", false, |o, _| text(o, "/spec/app")),
            Column("HOSTNAMES", false, |o, _| list(o, "/spec/hostnames")),
            Column("RULES", false, |o, _| count(o, "/spec/rules")),
        ],
        Kind::Workload => vec![
            Column("APP", false, |o, _| text(o, "/spec/app")),
            Column("UNIT", false, |o, _| text(o, "/spec/unit")),
            Column("SERVING", false, serving),
            Column("PROXY", false, |o, _| text(o, "/spec/proxyVersion")),
            Column("COMMAND", true, |o, _| list(o, "/spec/command")),
        ],
        Kind::Freeze => vec![
            Column("EFFECT", false, |o, _| text(o, "/spec/effect")),
            Column("HOLDS", false, holds),
            Column("SCHEDULE", false, schedule),
            Column("FROM", true, |o, _| time::clock(&o["spec"]["from"]).into()),
            Column("UNTIL", false, |o, _| time::clock(&o["spec"]["until"]).into()),
            Column("APPS", false, |o, _| everything(list(o, "/spec/apps"))),
            Column("LINES", false, |o, _| everything(list(o, "/spec/lines"))),
            Column("UNITS", false, |o, _| everything(list(o, "/spec/units"))),
            Column("REASON", false, |o, _| text(o, "/spec/reason")),
        ],
        Kind::Change => change(),
        Kind::ChangePolicy => vec![
            Column("MAX LEVEL", false, |o, _| text(o, "/spec/maxLevel")),
            Column("TIERS", false, |o, _| everything(list(o, "/spec/tiers"))),
            Column("APPS", false, |o, _| everything(list(o, "/spec/apps"))),
            Column("LINES", false, |o, _| everything(list(o, "/spec/lines"))),
            Column("UNITS", false, |o, _| everything(list(o, "/spec/units"))),
            Column("REASON", false, |o, _| text(o, "/spec/reason")),
        ],
        Kind::ChangeRecord => vec![
            Column("CHANGE", false, |o, _| text(o, "/spec/change")),
            Column("NUMBER", false, |o, _| text(o, "/spec/number")),
            Column("AT", false, |o, _| time::clock(&o["spec"]["at"]).into()),
            Column("NOTE", false, |o, _| text(o, "/spec/step/notes/0/message")),
        ],
        Kind::Release => vec![
            Column("COMPONENT", false, component),
            Column("VERSION", false, |o, _| text(o, "/spec/version")),
            Column("PATH", false, |o, _| text(o, "/spec/path")),
            Column("COMMIT", false, |o, _| text(o, "/spec/commit")),
            Column("WITHDRAWN", false, |o, _| text(o, "/spec/withdrawn")),
            Column("ARGS", true, |o, _| list(o, "/spec/args")),
            Column("SHA256", true, |o, _| text(o, "/spec/sha256")),
        ],
        Kind::Encryption => vec![
            Column("APP", false, |o, _| text(o, "/spec/app")),
            Column("MODE", false, |o, _| text(o, "/spec/mode")),
            Column("EFFECTIVE", false, effective_mode),
            Column("INSTANCES", false, |o, _| share(o, "/status/instances/ready", "/status/instances/total")),
            Column("CALLERS", false, |o, _| share(o, "/status/callers/ready", "/status/callers/total")),
        ],
        Kind::ReleaseTrain => vec![
            Column("CANARY", false, |o, _| text(o, "/status/canary/version")),
            Column("PRODUCTION", false, |o, _| text(o, "/status/production/version")),
            Column("RELEASED", false, |o, _| text(o, "/status/released")),
            Column("DEPARTS", false, |o, _| time::clock(&o["status"]["nextDeparture"]).into()),
            Column("MESSAGE", true, |o, _| text(o, "/status/message")),
        ],
        Kind::Check => vec![
            Column("CODE", false, |o, _| text(o, "/metadata/name").map(|name| weir_model::check::own_code(&name))),
            Column("AT", false, |o, _| list(o, "/spec/at")),
            Column("SEVERITY", false, |o, _| text(o, "/spec/severity")),
            Column("APPS", true, |o, _| everything(list(o, "/spec/apps"))),
            Column("MEANING", false, |o, _| text(o, "/spec/meaning")),
        ],
        Kind::Slo => vec![
            Column("APP", false, |o, _| text(o, "/spec/app")),
            Column("OBJECTIVE", false, |o, _| text(o, "/spec/objectivePercent").map(|p| format!("{p} %"))),
            Column("DAYS", true, |o, _| text(o, "/spec/windowDays")),
            Column("BUDGET LEFT", false, budget_left),
            Column("ALERT", false, alert),
            Column("MESSAGE", true, |o, _| text(o, "/status/message")),
        ],
        Kind::Token => vec![
            Column("ACTOR", false, |o, _| text(o, "/spec/actor")),
            Column("ROLE", false, |o, _| text(o, "/spec/role")),
            Column("EXPIRES", false, |o, _| time::clock(&o["spec"]["expiresAt"]).into()),
        ],
    }
}

fn instance() -> Vec<Column> {
    vec![
        Column("APP", false, |o, _| text(o, "/spec/app")),
        Column("UNIT", false, |o, _| text(o, "/spec/unit")),
        Column("PHASE", false, |o, _| phase(o)),
        Column("PROXY", false, proxy),
        Column("ADDRESS", false, address),
        Column("ZONE", true, |o, _| text(o, "/spec/zone")),
        Column("GROUP", true, |o, _| text(o, "/spec/group")),
        Column("STACK", true, |o, _| text(o, "/spec/stack")),
        Column("APP VERSION", true, app_version),
        Column("MANAGED BY", true, |o, _| text(o, "/spec/managedBy")),
        Column("SELF-CHECK", true, self_check),
        Column("APP PID", true, |o, _| text(o, "/status/appPid")),
        Column("PROXY PID", true, |o, _| text(o, "/status/proxyPid")),
    ]
}

fn change() -> Vec<Column> {
    vec![
        Column("ACTION", false, action),
        Column("PHASE", false, |o, _| phase(o)),
        Column("DONE", false, |o, _| share(o, "/status/progress/done", "/status/progress/total")),
        Column("BATCH", false, |o, _| share(o, "/status/progress/batch", "/status/progress/batches")),
        Column("LEVEL", true, level),
        Column("REQUESTS", true, |o, _| total(o, "requests")),
        Column("ERRORS", true, |o, _| total(o, "errors")),
        Column("STARTED", true, |o, _| time::clock(&o["status"]["startedAt"]).into()),
        Column("FINISHED", true, |o, _| time::clock(&o["status"]["finishedAt"]).into()),
    ]
}

impl Cell {
    fn map(self, change: impl FnOnce(String) -> String) -> Cell {
        if self.text.is_empty() { self } else { Cell { text: change(self.text), ..self } }
    }
}

fn text(object: &Value, path: &str) -> Cell {
    match object.pointer(path) {
        Some(Value::String(text)) => text.as_str().into(),
        None | Some(Value::Null) => Cell::default(),
        Some(other) => other.to_string().into(),
    }
}

fn list(object: &Value, path: &str) -> Cell {
    let items = object.pointer(path).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).collect::<Vec<_>>().join(",").into()
}

fn everything(cell: Cell) -> Cell {
    if cell.text.is_empty() { "all".into() } else { cell }
}

fn count(object: &Value, path: &str) -> Cell {
    object.pointer(path).and_then(Value::as_array).map_or(0, Vec::len).to_string().into()
}

fn number(object: &Value, path: &str) -> u64 {
    object.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}

fn share(object: &Value, part: &str, whole: &str) -> Cell {
    format!("{}/{}", number(object, part), number(object, whole)).into()
}

fn total(object: &Value, field: &str) -> Cell {
    let batches = object.pointer("/status/batches").and_then(Value::as_array).into_iter().flatten();
    batches.filter_map(|batch| batch[field].as_u64()).sum::<u64>().to_string().into()
}

/// A phase with its mood.
pub fn phase(object: &Value) -> Cell {
    let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending");
    let mood = match phase {
        "Serving" | "Succeeded" => Mood::Good,
        "Failed" | "Blocked" | "RolledBack" | "RollingBack" | "Aborted" => Mood::Bad,
        _ => Mood::Busy,
    };
    let dead = conditions(object).any(|c| c["type"] == "Alive" && c["status"] == "False");
    if dead { Cell { text: format!("{phase} (lost)"), mood: Mood::Bad } } else { Cell { text: phase.to_owned(), mood } }
}

/// Conditions of an object.
pub fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

fn proxy(object: &Value, _: Timestamp) -> Cell {
    let (is, wanted) = (text(object, "/status/proxyVersion"), text(object, "/spec/proxyVersion"));
    let drill = !text(object, "/status/drill").text.is_empty();
    let (is, wanted) = (is.text, wanted.text);
    let suffix = if drill { " (drill)" } else { "" };
    match wanted.is_empty() || is == wanted {
        true => Cell { text: format!("{is}{suffix}"), mood: if drill { Mood::Bad } else { Mood::Plain } },
        false => {
            Cell { text: format!("{} → {wanted}{suffix}", if is.is_empty() { "-" } else { &is }), mood: Mood::Busy }
        }
    }
}

/// The version of the program: the one that runs, and on the way to another one that as well.
fn app_version(object: &Value, _: Timestamp) -> Cell {
    let (is, wanted) = (text(object, "/status/appVersion"), text(object, "/spec/appVersion"));
    match is.text.is_empty() || wanted.text.is_empty() || is.text == wanted.text {
        true => {
            if is.text.is_empty() {
                wanted
            } else {
                is
            }
        }
        false => Cell { text: format!("{} → {}", is.text, wanted.text), mood: Mood::Busy },
    }
}

/// Whether a window holds at this moment.
fn holds(object: &Value, now: Timestamp) -> Cell {
    let spec: Result<FreezeSpec, _> = serde_json::from_value(object["spec"].clone());
    match spec.map(|spec| spec.at(now)) {
        Ok(Moment::Within(_)) => Cell { text: "now".into(), mood: Mood::Busy },
        Ok(Moment::Outside(Some(_))) => "later".into(),
        Ok(Moment::Outside(None)) => "no more".into(),
        Err(_) => Cell::default(),
    }
}

fn schedule(object: &Value, _: Timestamp) -> Cell {
    let cron = text(object, "/spec/schedule/cron");
    let seconds = number(object, "/spec/schedule/durationSeconds");
    let zone = text(object, "/spec/schedule/timeZone").text;
    cron.map(|cron| format!("{cron} for {} {zone}", time::span(i64::try_from(seconds).unwrap_or(i64::MAX))))
}

fn address(object: &Value, _: Timestamp) -> Cell {
    let (ip, port) = (text(object, "/spec/address").text, number(object, "/spec/port"));
    let socket = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    socket.into()
}

fn self_check(object: &Value, _: Timestamp) -> Cell {
    match object.pointer("/status/selfCheck/passed").and_then(Value::as_bool) {
        Some(true) => Cell { text: "passed".into(), mood: Mood::Good },
        Some(false) => Cell { text: "failed".into(), mood: Mood::Bad },
        None => Cell::default(),
    }
}

fn serving(object: &Value, _: Timestamp) -> Cell {
    let (serving, wanted) = (number(object, "/status/serving"), number(object, "/spec/replicas"));
    let mood = if serving == wanted { Mood::Good } else { Mood::Busy };
    Cell { text: format!("{serving}/{wanted}"), mood }
}

fn budget_left(object: &Value, _: Timestamp) -> Cell {
    let Some(left) = object.pointer("/status/budgetLeft").and_then(Value::as_f64) else { return Cell::default() };
    Cell { text: format!("{:.1} %", left * 100.0), mood: if left > 0.0 { Mood::Good } else { Mood::Bad } }
}

fn alert(object: &Value, _: Timestamp) -> Cell {
    let cell = text(object, "/status/alert");
    let mood = if cell.text == "Page" { Mood::Bad } else { Mood::Plain };
    Cell { mood, ..cell }
}

fn effective_mode(object: &Value, _: Timestamp) -> Cell {
    let (is, wanted) = (text(object, "/status/effectiveMode"), text(object, "/spec/mode"));
    let mood = if is.text == wanted.text { Mood::Good } else { Mood::Busy };
    Cell { mood, ..is }
}

fn action(object: &Value, _: Timestamp) -> Cell {
    let part = |name: &str| object.pointer(&format!("/spec/action/{name}")).and_then(Value::as_str);
    let release = || Some((part("appRelease/app")?, part("appRelease/version")?));
    let configuration = || Some(("configuration", part("configPublish/revision")?));
    let encryption = || {
        let apps = object.pointer("/spec/action/encryptionSwitch/apps")?.as_array()?;
        let first = apps.first()?.as_str()?;
        let more = if apps.len() > 1 { format!(" +{}", apps.len() - 1) } else { String::new() };
        Some(format!("TLS of {first}{more} → {}", part("encryptionSwitch/mode")?))
    };
    if let Some(text) = encryption() {
        return text.into();
    }
    let proxy = part("proxyUpgrade/version").map(|version| ("proxy", version));
    match proxy.or_else(release).or_else(configuration) {
        Some((what, to)) => format!("{what} → {to}").into(),
        None => text(object, "/spec/action"),
    }
}

/// The level it runs at, which a policy may hold below the one it asks for.
fn level(object: &Value, _: Timestamp) -> Cell {
    let effective = text(object, "/status/level/level");
    if effective.text.is_empty() { text(object, "/spec/level") } else { effective }
}

fn component(object: &Value, _: Timestamp) -> Cell {
    match object.pointer("/spec/component/app").and_then(Value::as_str) {
        Some(app) => format!("app {app}").into(),
        None => text(object, "/spec/component"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_has_a_table_even_of_nothing() {
        for kind in Kind::ALL {
            let object = json!({"kind": kind.name(), "metadata": {"name": "x"}});
            let text = table(&[object], true).render(None);
            assert!(text.starts_with("NAME") && text.contains("\nx "), "{kind}: {text}");
            assert_eq!(header(kind).len(), row(&json!({"kind": kind.name()})).len());
        }
    }

    #[test]
    fn an_instance_on_its_way_shows_from_where_to_where() {
        let object = json!({
            "kind": "Instance", "metadata": {"name": "x"},
            "spec": {"proxyVersion": "B", "address": "127.0.0.1", "port": 80},
            "status": {"proxyVersion": "A", "phase": "Draining"},
        });
        let cells: Vec<String> = row(&object).into_iter().map(|c| c.text).collect();
        assert!(cells.contains(&"A → B".to_owned()) && cells.contains(&"127.0.0.1:80".to_owned()), "{cells:?}");
    }
}
