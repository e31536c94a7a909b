//! Real Envoy takes its certificate from Weir and speaks TLS with it: as a caller of `weir-proxy`, and as a server.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;
use weir_testkit::{LONG, Process, TempDir, Weir, eventually, http, net, peers};

use crate::envoy_runs_from_weir::{NODE, bootstrap};
use crate::joined::{Caller, join};

#[test]
fn as_a_caller_of_weirs_own_proxies() {
    for api_type in ["GRPC", "DELTA_GRPC"] {
        let weir = Weir::start_with(&["--cert-ttl", "40s"]);
        let _server = join(&weir, "stock", "stock-a", "http_server.py");
        let envoy = Envoy::start(&weir, api_type, None);
        let mut caller = Caller::new("stock", envoy.stock);
        caller.until_answered_by("stock-a");
        for mode in ["permissive", "strict", "disabled"] {
            encrypt(&weir, "stock", mode);
            // Each request goes over what is spoken at that moment; none may fail.
            caller.until_only("stock-a");
        }
        is_shown_as_acknowledging(&weir);
    }
}

#[test]
fn as_a_server_with_an_identity() {
    let weir = Weir::start();
    let program = net::free_address_on_localhost();
    let mut server = Process::spawn(
        "program",
        Command::new(peers::python()).arg(peers::script("http_server.py")).args([&program.to_string(), "behind"]),
    );
    server.wait_line("serving");
    let envoy = Envoy::start(&weir, "DELTA_GRPC", Some(program.port()));
    let plain = || http::send(envoy.inbound, "GET", "/", &[("Host", "front")], b"");
    eventually("plaintext is taken", LONG, || match plain() {
        Ok(answer) if answer.text() == "behind" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    eventually("TLS is taken, with the identity", LONG, || {
        let shown = certificate(envoy.inbound);
        let all = ["URI:spiffe://weir/app/front/unit/default", "TLSv1.3"];
        if all.iter().all(|part| shown.contains(part)) { Ok(()) } else { Err(shown) }
    });
    encrypt(&weir, "front", "strict");
    eventually("plaintext is refused", LONG, || match plain() {
        Err(_) => Ok(()),
        Ok(answer) => Err(format!("{answer:?}")),
    });
    encrypt(&weir, "front", "disabled");
    eventually("plaintext is taken again", LONG, || plain().map(drop).map_err(|e| e.to_string()));
    is_shown_as_acknowledging(&weir);
}

/// A running Envoy of the app `front`, which offers `stock` locally.
struct Envoy {
    _process: Process,
    _folder: TempDir,
    stock: SocketAddr,
    inbound: SocketAddr,
}

impl Envoy {
    /// `program`: the port of the application behind it.
    fn start(weir: &Weir, api_type: &str, program: Option<u16>) -> Envoy {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let (stock, inbound) = (net::free_address(), net::free_address());
        let token = weir.ok(&["token", "create", "envoy", "--role", "proxy", "--quiet"]);
        let mut config = bootstrap(weir.xds(), token.trim(), api_type, stock, inbound);
        let about = &mut config["node"]["metadata"]["weir"];
        about["tls"] = Value::Bool(true);
        about["appPort"] = program.unwrap_or(0).into();
        let file = folder.path().join("envoy.json");
        fs::write(&file, config.to_string()).expect("a temporary file can be written");
        let file = file.to_string_lossy();
        let flags = ["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart", "-c", &file];
        let process = Process::start("envoy", peers::envoy(), &flags);
        Envoy { _process: process, _folder: folder, stock, inbound }
    }
}

fn encrypt(weir: &Weir, app: &str, mode: &str) {
    weir.apply(&format!(
        "apiVersion: weir.dev/v1\nkind: Encryption\nmetadata: {{name: {app}}}\nspec: {{app: {app}, mode: {mode}}}\n"
    ));
    eventually(&format!("calls of {app} are {mode}"), LONG, || {
        let shown: Value =
            serde_json::from_str(&weir.ok(&["get", "encryption", app, "-o", "json"])).map_err(|e| e.to_string())?;
        if shown["status"]["effectiveMode"] == mode { Ok(()) } else { Err(shown["status"].to_string()) }
    });
}

/// What the server at an address shows of itself, in openssl's words.
fn certificate(at: SocketAddr) -> String {
    let script = format!(
        "openssl s_client -connect {at} -alpn http/1.1 </dev/null 2>&1 | tee /dev/stderr | openssl x509 -noout -ext subjectAltName"
    );
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().expect("a shell starts");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Envoy has taken everything that it was sent, secrets too, and rejected nothing.
fn is_shown_as_acknowledging(weir: &Weir) {
    eventually("Envoy has acknowledged everything", LONG, || {
        let shown: Value = serde_json::from_str(&weir.ok(&["proxies", "-o", "json"])).map_err(|e| e.to_string())?;
        let items = shown["items"].as_array().ok_or("no items")?;
        let envoy = items.iter().find(|item| item["node"] == NODE).ok_or("no Envoy")?;
        let types = envoy["types"].as_object().ok_or("no types")?;
        let settled = |state: &Value| state["sent"] == state["acknowledged"] && state.get("rejected").is_none();
        if types.contains_key("SDS") && types.values().all(settled) { Ok(()) } else { Err(envoy.to_string()) }
    });
}
