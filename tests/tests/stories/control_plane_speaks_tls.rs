//! The control plane's own ports are TLS: proxies, the `weir` command, Envoy and gRPC's client know it by a file or by a
//! fingerprint, and by nothing else. With its own certificate or the operator's; through a restart with another authority; and
//! with tokens that are good for one app alone.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use weir_testkit::{LONG, Process, TempDir, Weir, binary, eventually, http, net};

use crate::encrypted::{Mesh, Protocol};
use crate::envoy_runs_from_weir::{Envoy, NODE};
use crate::grpc_client_runs_from_weir::Client;
use crate::joined::join;

#[test]
fn a_mesh_joins_over_tls_and_outlives_its_authority() {
    let mut mesh = Mesh::started(Weir::start_with(&["--tls", "--cert-ttl", "40s"]), Protocol::Http1);
    let load = mesh.load(&["stock-a", "stock-b"]);
    mesh.want("strict");
    mesh.is("strict");
    let before = fs::read(mesh.weir.ca_file()).expect("certificates are kept");
    mesh.weir.kill();
    mesh.weir.start_again();
    assert_ne!(fs::read(mesh.weir.ca_file()).expect("certificates are kept"), before, "another authority");
    mesh.want("disabled");
    mesh.is("disabled");
    load.has_lost_nothing();
    let refused = http::get(mesh.weir.api(), "/readyz");
    assert!(refused.is_err(), "no plaintext is spoken: {refused:?}");
}

#[test]
fn whoever_is_not_known_is_not_spoken_to() {
    let (weir, other) = (Weir::start_with(&["--tls"]), Weir::start_with(&["--tls"]));
    let ca = other.ca_file().display().to_string();
    let told = weir.cli(&["get", "apps", "--ca", &ca]);
    assert!(told.code == 3 && told.stderr.contains("UnknownIssuer"), "{told:?}");
    let mut command = weir.command(&["get", "apps"]);
    let told = command.env_remove("WEIR_CA").output().expect("the weir command starts");
    assert!(String::from_utf8_lossy(&told.stderr).contains("nothing says whom to trust"), "{told:?}");
    let flags = ["--control", &weir.control(), "--control-ca", &ca, "--instance", "edge-1", "--app", "edge"];
    let mut proxy = Process::start("weir-proxy", binary("weir-proxy"), &flags);
    assert!(proxy.wait_line("no configuration stream").contains("UnknownIssuer"));
}

#[test]
fn a_fingerprint_is_enough() {
    let mut weir = Weir::start_with(&["--tls"]);
    let line = weir.process().wait_line("sha256:");
    let at = line.find("sha256:").expect("it is told");
    let fingerprint = line[at..].split_whitespace().next().expect("it is told").to_owned();
    weir.ok(&["get", "apps", "--ca", &fingerprint]);
    let flags = ["--control", &weir.control(), "--control-ca", &fingerprint, "--instance", "edge-1", "--app", "edge"];
    let _proxy =
        Process::spawn("weir-proxy", Command::new(binary("weir-proxy")).args(flags).env("WEIR_TOKEN", weir.token()));
    eventually("it joins", LONG, || {
        let shown = weir.ok(&["get", "instances"]);
        if shown.contains("edge-1") { Ok(()) } else { Err(shown) }
    });
    let login = ["login", "--server", &format!("https://{}", weir.api()), "--ca", &fingerprint];
    assert!(weir.ok(&login).contains("logged in"));
    let mut command = weir.command(&["get", "instances"]);
    let command = command.env_remove("WEIR_CA").env_remove("WEIR_SERVER").env_remove("WEIR_TOKEN");
    let output = command.output().expect("the weir command starts");
    assert!(String::from_utf8_lossy(&output.stdout).contains("edge-1"), "the login is remembered: {output:?}");
}

#[test]
fn the_operators_certificate_is_used_and_followed() {
    let pki = Pki::make();
    let (api, xds) = (net::free_address(), net::free_address());
    let (certificate, key) = pki.server("first", api);
    let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
    let weir = Weir::start_at([api, xds], &["--tls-cert", &certificate, "--tls-key", &key]);
    let ca = pki.path("root.pem").display().to_string();
    assert_eq!(weir.cli(&["get", "apps", "--ca", &ca]).code, 0);
    let serial = |pki: &Pki| {
        pki.openssl(&format!(
        "openssl s_client -connect {} -CAfile root.pem -verify_return_error </dev/null 2>/dev/null | openssl x509 -noout -subject",
        weir.api()
    ))
    };
    assert!(serial(&pki).contains("first"));
    let (second, second_key) = pki.server("second", api);
    fs::rename(second_key, key).expect("the key is replaced");
    fs::rename(second, certificate).expect("the certificate is replaced");
    eventually("the new one is used", LONG, || {
        let shown = serial(&pki);
        if shown.contains("second") { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn an_operators_own_authority_signs_what_openssl_verifies() {
    let pki = Pki::make();
    pki.intermediate();
    let [certificates, key] = ["chain.pem", "intermediate.key"].map(|file| pki.path(file).display().to_string());
    let weir = Weir::start_with(&["--tls", "--ca-cert", &certificates, "--ca-key", &key]);
    let mesh = Mesh::started(weir, Protocol::Http1);
    let ports = [mesh.weir.api(), mesh.weir.xds(), mesh.inbound("stock-a"), mesh.inbound("stock-b")];
    for port in ports {
        // A proxy asks for a certificate of the client's too, and ends the connection after it has shown its own.
        let told = pki.openssl(&format!(
            "openssl s_client -connect {port} -CAfile root.pem -verify_return_error </dev/null 2>&1 | grep -E 'Verif|verify'"
        ));
        assert!(told.contains("Verification: OK") && !told.contains("error"), "{port}: {told}");
    }
    let load = mesh.load(&["stock-a", "stock-b"]);
    mesh.want("strict");
    mesh.is("strict");
    load.has_lost_nothing();
}

#[test]
fn envoy_and_grpcs_client_come_over_tls() {
    let weir = Weir::start_with(&["--tls", "--insecure-loopback"]);
    weir.apply("apiVersion: weir.dev/v1\nkind: App\nmetadata: {name: stock}\nspec: {protocol: grpc}\n");
    let _server = join(&weir, "stock", "stock-a", "grpc_server.py");
    let mut client = Client::start(&weir);
    client.wait_answer("stock-a");
    let envoy = Envoy::start(&weir, "DELTA_GRPC");
    eventually("Envoy is served over TLS, with its token", LONG, || {
        let shown: Value = serde_json::from_str(&weir.ok(&["proxies", "-o", "json"])).map_err(|e| e.to_string())?;
        let items = shown["items"].as_array().ok_or("no items")?;
        let envoy = items.iter().find(|item| item["node"] == NODE).ok_or("no Envoy")?;
        let settled = |state: &Value| state["sent"] == state["acknowledged"] && state.get("rejected").is_none();
        let types = envoy["types"].as_object().ok_or("no types")?;
        if types.len() == 4 && types.values().all(settled) { Ok(()) } else { Err(envoy.to_string()) }
    });
    drop(envoy);
}

#[test]
fn a_token_of_one_app_joins_as_no_other() {
    let weir = Weir::start_with(&["--tls"]);
    let token = weir.ok(&["token", "create", "stock", "--role", "proxy", "--app", "stock", "--quiet"]);
    let proxy = |app: &str| {
        let control = weir.control();
        let name = format!("{app}-1");
        let inbound = net::free_address().to_string();
        let mut command = Command::new(binary("weir-proxy"));
        command.args(["--control", &control, "--instance", &name, "--app", app, "--inbound", &inbound]);
        let command =
            command.args(["--app-port", "9"]).env("WEIR_TOKEN", token.trim()).env("WEIR_CONTROL_CA", weir.ca_file());
        Process::spawn(&name, command)
    };
    let (mut stock, mut front) = (proxy("stock"), proxy("front"));
    stock.wait_line("a certificate is in use");
    let told = front.wait_line("is for stock and not for");
    assert!(told.contains("weir token create NAME --role proxy --app front"), "{told}");
    eventually("one has joined, and no other", LONG, || {
        let shown = weir.ok(&["get", "instances"]);
        assert!(!shown.contains("front-1"), "{shown}");
        if shown.contains("stock-1") { Ok(()) } else { Err(shown) }
    });
}

/// An authority that openssl has made, in a folder.
struct Pki(TempDir);

impl Pki {
    fn make() -> Pki {
        let pki = Pki(TempDir::new().expect("a temporary folder can be made"));
        pki.openssl(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=the operator' \
             -keyout root.key -out root.pem",
        );
        pki
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Runs a command of the shell in the folder, and gives what it printed.
    fn openssl(&self, command: &str) -> String {
        let output = Command::new("sh").args(["-c", command]).current_dir(self.0.path()).output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Certificate and key of a server; the root stands behind its own.
    fn server(&self, name: &str, at: SocketAddr) -> (PathBuf, PathBuf) {
        self.sign(name, &format!("subjectAltName=IP:{}", at.ip()));
        self.openssl(&format!("cat root.pem >> {name}.pem"));
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    /// An authority below the root, and both in a chain.
    fn intermediate(&self) {
        self.sign("intermediate", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign");
        let chain = ["intermediate.pem", "root.pem"].map(|file| fs::read_to_string(self.path(file)).expect("PEM"));
        fs::write(self.path("chain.pem"), chain.concat()).expect("a temporary file can be written");
    }

    fn sign(&self, name: &str, extensions: &str) {
        fs::write(self.path("extensions"), extensions).expect("a temporary file can be written");
        let told = self.openssl(&format!(
            "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN={name}' -keyout {name}.key \
             -out {name}.csr && openssl x509 -req -in {name}.csr -CA root.pem -CAkey root.key -CAcreateserial -days 20 \
             -extfile extensions -out {name}.pem"
        ));
        assert!(self.path(&format!("{name}.pem")).is_file(), "{told}");
    }
}
