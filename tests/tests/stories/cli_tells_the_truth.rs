//! The weir command against a real control plane: what it writes, what it prints, how it fails.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;
use weir_testkit::{Process, TempDir, Weir, net};

const MESH: &str = "\
apiVersion: weir.dev/v1
kind: App
metadata: {name: stock, labels: {team: pay}}
spec: {tier: 2}
---
apiVersion: weir.dev/v1
kind: Unit
metadata: {name: east}
---
apiVersion: weir.dev/v1
kind: Freeze
metadata: {name: sale}
spec: {reason: summer sale, apps: [stock]}
";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs `weir` with something on its standard input.
fn with_input(weir: &Weir, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = weir.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("weir starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn applying_says_what_it_did_and_does_it_once() {
    let weir = Weir::start_with(&["--no-instances"]);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (code, would, _) = with_input(&weir, &["apply", "-f", "-", "--dry-run"], MESH);
    assert_eq!((code, lines(&would)[0].as_str()), (0, "app/stock created (dry run)"));
    assert_eq!(weir.cli(&["get", "app", "stock"]).code, 1, "a dry run writes nothing");

    assert_eq!(lines(&weir.apply(MESH)), ["app/stock created", "unit/east created", "freeze/sale created"]);
    assert_eq!(lines(&weir.apply(MESH)), ["app/stock unchanged", "unit/east unchanged", "freeze/sale unchanged"]);
    let (code, diff, _) = with_input(&weir, &["diff", "-f", "-"], &MESH.replace("tier: 2", "tier: 1"));
    assert_eq!(code, 5, "{diff}");
    assert!(diff.contains("\n-  tier: 2\n+  tier: 1\n"), "{diff}");
    assert_eq!(with_input(&weir, &["diff", "-f", "-"], MESH).0, 0);
    assert_eq!(lines(&weir.apply(&MESH.replace("{tier: 2}", "{}")))[0], "app/stock configured");
    assert_eq!(json(&weir.ok(&["get", "app/stock", "-o", "json"]))["spec"]["tier"], 3, "back to its default");
}

#[test]
fn a_mistake_in_the_last_document_leaves_nothing_half_applied() {
    let weir = Weir::start_with(&["--no-instances"]);
    let wrong = MESH.replace("reason: summer sale", "raeson: summer sale");
    let (code, _, error) = with_input(&weir, &["apply", "-f", "-"], &wrong);
    assert_eq!(code, 1);
    let wanted = "standard input, document 3: spec.raeson: unknown field \"raeson\" (did you mean \"reason\"?)";
    assert!(error.contains(wanted), "{error}");
    let left = json(&weir.ok(&["get", "apps,units,freezes", "-o", "json"]));
    assert_eq!(left["items"], serde_json::json!([]));
}

#[test]
fn resources_are_shown_in_every_form() {
    let weir = Weir::start_with(&["--no-instances"]);
    weir.apply(MESH);
    let table = weir.ok(&["get", "apps", "-l", "team=pay"]);
    assert!(table.starts_with("NAME   PROTOCOL  TIER  OWNER  AGE\nstock  http1     2     -"), "{table}");
    assert_eq!(weir.ok(&["get", "apps,units", "-o", "name"]), "app/stock\nunit/east\n");
    assert_eq!(weir.cli(&["get", "apps", "-l", "team=none"]).stderr, "no apps found\n");
    // What is printed as YAML can be applied again.
    assert_eq!(weir.apply(&weir.ok(&["get", "app/stock", "-o", "yaml"])), "app/stock unchanged\n");

    let described = weir.ok(&["describe", "freeze/sale"]);
    assert!(described.contains("reason: summer sale") && described.contains("Events:"), "{described}");
    assert!(weir.ok(&["explain", "app", "stock"]).contains("takes effect"), "explained without a domain's own words");
    assert_eq!(weir.ok(&["delete", "freeze/sale", "--reason", "over"]), "freeze/sale deleted\n");
    assert_eq!(weir.cli(&["delete", "freeze/sale"]).code, 1);
    assert_eq!(weir.cli(&["delete", "freeze/sale", "--ignore-not-found"]).code, 0);
    let audit = json(&weir.ok(&["events", "--audit", "freeze/sale", "-o", "json"]));
    assert_eq!(audit["items"][1]["author"], serde_json::json!({"actor": "user/admin", "reason": "over"}));
}

#[test]
fn failures_say_what_where_and_what_to_do() {
    let weir = Weir::start_with(&["--no-instances"]);
    let told = |arguments: &[&str]| {
        let answer = weir.cli(arguments);
        (answer.code, answer.stderr)
    };
    let nobody = format!("http://{}", net::closed_address());
    let (code, error) = told(&["get", "apps", "--server", &nobody]);
    assert_eq!(code, 3);
    assert!(error.contains(&nobody) && error.contains("`weir control`"), "{error}");
    let (code, error) = told(&["get", "apps", "--token", "wrong"]);
    assert_eq!(code, 1);
    assert!(error.contains("not known, revoked or expired") && error.contains("weir login"), "{error}");
    let (code, error) = told(&["get", "instanses"]);
    assert_eq!(code, 2);
    assert!(error.contains("did you mean \"Instance\"?") && error.contains("kinds: apps"), "{error}");
    let (code, error) = told(&["wait", "change/none", "--for", "phase=Succeeded", "--timeout", "0s"]);
    assert_eq!(code, 4);
    assert!(error.contains("change/none"), "{error}");
    assert_eq!(told(&["get"]).0, 2);
    let (code, error) = told(&["apply", "-f", "/nowhere.yaml"]);
    assert_eq!(code, 1);
    assert!(error.contains("cannot read /nowhere.yaml"), "{error}");
}

#[test]
fn every_command_has_help_with_examples() {
    let weir = Weir::start_with(&["--no-instances", "--in-memory"]);
    let overview = weir.ok(&["--help"]);
    let listed = overview.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: Vec<&str> = listed.filter(|word| word.chars().all(|c| c.is_ascii_lowercase())).collect();
    let known = ["apply", "check", "wait", "token", "completion"];
    assert!(known.iter().all(|name| commands.contains(name)), "{commands:?}");
    for command in commands.iter().filter(|name| !name.is_empty() && **name != "weir") {
        let help = weir.ok(&[command, "--help"]);
        assert!(help.contains("Examples:"), "weir {command} --help has no examples");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(weir.ok(&["completion", shell]).contains("weir"));
    }
}

#[test]
fn a_login_is_remembered_privately_and_forgotten() {
    let weir = Weir::start_with(&["--no-instances"]);
    let home = TempDir::new().expect("a folder");
    let clean = |arguments: &[&str]| {
        let mut command = weir.command(arguments);
        command.env("HOME", home.path()).env_remove("XDG_CONFIG_HOME");
        command.env_remove("WEIR_TOKEN").env_remove("WEIR_SERVER");
        command
    };
    let server = format!("http://{}", weir.api());
    let token = home.path().join("token");
    fs::write(&token, weir.token()).expect("a file");
    let login = clean(&["login", "--server", &server, "--token-file", token.to_str().expect("a path")]).output();
    let told = String::from_utf8_lossy(&login.expect("weir runs").stdout).into_owned();
    assert!(told.contains("as user/admin (Admin)"), "{told}");
    let kept = home.path().join(".config/weir/login.json");
    assert_eq!(fs::metadata(&kept).expect("it is kept").permissions().mode() & 0o777, 0o600);

    let run = |arguments: &[&str]| clean(arguments).output().expect("weir runs").status.code();
    assert_eq!(run(&["get", "apps"]), Some(0), "server and token are remembered");
    assert_eq!(run(&["get", "apps", "--server", &format!("http://localhost:{}", weir.api().port())]), Some(3));
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).expect("it is ours");
    assert_eq!(run(&["get", "apps"]), Some(1), "a token that others can read is not used");
    assert_eq!(run(&["login", "--forget"]), Some(0));
    assert!(!kept.exists());
}

#[test]
fn tokens_are_made_used_and_revoked() {
    let weir = Weir::start_with(&["--no-instances"]);
    let token = weir.ok(&["token", "create", "ci", "--role", "viewer", "--quiet"]);
    let token = token.trim();
    let code = |arguments: &[&str]| weir.cli(&[arguments, &["--token", token]].concat()).code;
    assert_eq!(code(&["get", "apps"]), 0);
    assert_eq!(code(&["get", "tokens"]), 1, "a viewer sees no tokens");
    assert_eq!(code(&["freeze", "x", "--reason", "y"]), 1, "and writes nothing");
    let listed = weir.ok(&["token", "list"]);
    assert!(listed.contains("user/ci") && !listed.contains(token), "{listed}");
    weir.ok(&["token", "revoke", "ci", "--reason", "over"]);
    assert_eq!(code(&["get", "apps"]), 1);
}

#[test]
fn check_tells_what_works_and_what_does_not() {
    let weir = Weir::start_with(&["--no-instances"]);
    let report = weir.ok(&["check"]);
    let marks = ["√ control plane at", "√ store: answers", "√ no configuration is rejected", "‼ a proxy is connected"];
    assert!(marks.iter().all(|mark| report.contains(mark)), "{report}");
    let report = json(&weir.ok(&["check", "-o", "json", "--only", "api,store"]));
    assert_eq!((&report["success"], report["categories"].as_array().map(Vec::len)), (&Value::Bool(true), Some(2)));
    assert_eq!(weir.cli(&["check", "--only", "proxies", "--fail-on-warning"]).code, 1);

    let answer = weir.cli(&["check", "--server", &format!("http://{}", net::closed_address())]);
    assert_eq!(answer.code, 1);
    assert!(answer.stdout.contains("× control plane at") && answer.stdout.contains("→ start one"), "{answer:?}");
    assert!(!answer.stdout.contains("instances"), "what cannot be looked at is not guessed: {answer:?}");
}

#[test]
fn a_watch_outlives_a_restart_of_the_control_plane() {
    let mut weir = Weir::start_with(&["--no-instances"]);
    weir.apply(MESH);
    let mut watch = Process::spawn("weir watch", &mut weir.command(&["watch", "apps", "-o", "name"]));
    watch.wait_line("ADDED app/stock");
    weir.kill();
    weir.start_again();
    weir.apply(&MESH.replace("name: stock,", "name: second,"));
    watch.wait_line("ADDED app/second");
    let seen = watch.output().into_iter().filter(|line| line == "ADDED app/stock").count();
    assert_eq!(seen, 1, "it went on where it was: {:?}", watch.output());
}

#[test]
fn wait_ends_when_it_is_so() {
    let weir = Weir::start_with(&["--no-instances"]);
    let waiting = ["wait", "app/stock", "--for", "delete", "--timeout", "60s"];
    weir.apply(MESH);
    let mut wait = Process::spawn("weir wait", &mut weir.command(&waiting));
    weir.ok(&["delete", "app/stock"]);
    assert!(wait.wait_exit(weir_testkit::LONG).success());
}
