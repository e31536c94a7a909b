//! Two hosts with a proxy each, and programs that know nothing of it: curl, Python's HTTP server, nginx with TLS, OpenSSL's
//! client, a server that speaks first. What they say to each other passes through both proxies, but for what is excluded;
//! and once the rules are gone it is as before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use weir_testkit::{LONG, TempDir, binary, eventually, peers};

use crate::netns::Host;

/// Programs run as this user, proxies as root, whom the rules leave alone.
const PROGRAMS: [&str; 4] = ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups"];
const PROXY_UID: &str = "0";
/// The administrator's; what the test makes forgets it.
const TOKEN: &str = "weir-story-admin-token-0123456789abcdef";

#[test]
fn programs_that_know_nothing_speak_through_both_proxies() {
    let hosts = Hosts::start("a");
    hosts.intercept(&["--exclude-outbound", "8081", "--exclude-range", "10.77.0.3", "--exclude-inbound", "8082"]);
    for host in [1, 2] {
        let other = 3 - host;
        assert_eq!(hosts.seen(host, &format!("10.77.0.{other}:8080")), ["known", "in"], "a known endpoint");
        assert_eq!(hosts.seen(host, &format!("[fd77::{other}]:8080")), ["out", "in"], "an unknown address");
    }
    assert_eq!(hosts.seen(1, "10.77.0.2:8081"), ["in"], "a port that is left alone on the caller's side");
    assert_eq!(hosts.seen(1, "10.77.0.2:8082"), ["out"], "and on the server's");
    assert_eq!(hosts.seen(1, "10.77.0.3:8080"), ["in"], "a range");
    assert_eq!(hosts.seen_by_root(1, "10.77.0.2:8080"), ["in"], "a user");
    assert_eq!(hosts.greeting(1, "10.77.0.2"), "220 welcome", "the server speaks first");
    hosts.intercept(&["--remove"]);
    assert_eq!(hosts.seen(1, "10.77.0.2:8080"), [""; 0], "and it is as before");
    for host in [1, 2] {
        assert!(hosts.metric(host, "weir_refused_total{reason=\"loop\"}") == "0");
    }
}

#[test]
fn tls_passes_through_by_the_server_it_asks_for() {
    let hosts = Hosts::start("b");
    hosts.nginx();
    hosts.intercept(&[]);
    assert_eq!(hosts.https("stays.test"), "stays", "where it was going");
    assert_eq!(hosts.https("moved.test"), "moved", "where its name leads");
    assert_eq!(hosts.s_client("moved.test"), "moved");
    assert_eq!(hosts.s_client("stays.test"), "stays");
    let passed = |cluster: &str| hosts.metric(1, &format!("weir_upstream_connects_total{{cluster=\"{cluster}\"}}"));
    assert_eq!((passed("moved").as_str(), passed("passthrough").as_str()), ("2", "2"));
    assert_eq!(hosts.metric(2, "weir_upstream_connects_total{cluster=\"passthrough\"}"), "4");
}

#[test]
fn a_rule_that_forgets_the_proxy_makes_no_loop() {
    let hosts = Hosts::start("c");
    let proxy = binary("weir-proxy").display().to_string();
    hosts.one.ok(&[&proxy, "intercept", "--outbound-port", "15001", "--exclude-uid", "4242"]);
    let answer = hosts.answer(1, "10.77.0.2:8080");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(hosts.metric(1, "weir_refused_total{reason=\"loop\"}"), "1");
    hosts.intercept(&[]);
    assert_eq!(hosts.seen(1, "10.77.0.2:8080"), ["known", "in"], "once it is mended all is well");
}

/// The listeners come from the control plane, and what is called is an instance's own address.
#[test]
fn in_a_mesh_programs_that_know_nothing_go_by_its_routes() {
    let hosts = Hosts::bare("d");
    hosts.http_server(2, "8080");
    let data = text(&hosts.folder.path().join("data"));
    let mut control = hosts.one.command(&[&text(&binary("weir")), "control", "--data", &data]);
    control.args(["--api", "127.0.0.1:15000", "--xds", "10.77.0.1:15010"]).env("WEIR_ADMIN_TOKEN", TOKEN);
    hosts.one.start("weir control", &mut control, "15010");
    hosts
        .join(2, &["--app=stock", "--inbound=10.77.0.2:15020", "--app-port=8080", "--intercept-inbound=0.0.0.0:15006"]);
    hosts.join(1, &["--app=edge", "--upstream=stock=127.0.0.1:8001", "--intercept-outbound=0.0.0.0:15001"]);
    eventually("edge knows where stock is", LONG, || {
        let clusters = hosts.one.ok(&["curl", "--silent", "http://127.0.0.1:9901/clusters"]);
        if clusters.contains("10.77.0.2:15020") { Ok(()) } else { Err(clusters) }
    });
    hosts.intercept(&[]);
    let calls = |host: usize, listener: &str| {
        let metrics = hosts.host(host).ok(&["curl", "--silent", "http://127.0.0.1:9901/stats/prometheus"]);
        let line = format!("weir_requests_total{{listener=\"{listener}\"");
        metrics.lines().filter(|found| found.starts_with(&line)).count()
    };
    assert!(hosts.answer(1, "10.77.0.2:8080").ends_with("hello"));
    assert_eq!((calls(1, "outbound|stock"), calls(2, "inbound"), calls(2, "inbound|8080")), (1, 1, 0));
    // One that does not go through a proxy of its own.
    let direct = fetch("10.77.0.2:8080");
    assert!(hosts.one.ok(&direct.each_ref().map(String::as_str)).ends_with("hello"));
    assert_eq!((calls(1, "outbound|stock"), calls(2, "inbound"), calls(2, "inbound|8080")), (1, 1, 1));
}

struct Hosts {
    one: Host,
    two: Host,
    folder: TempDir,
}

impl Hosts {
    /// With nothing but a folder that all can read.
    fn bare(name: &str) -> Hosts {
        let (one, two) = Host::pair(name);
        let hosts = Hosts { one, two, folder: TempDir::new().expect("a temporary folder can be made") };
        // The programs' user reads there.
        let readable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(hosts.folder.path(), readable).expect("the folder is ours");
        fs::write(hosts.folder.path().join("hello"), "hello").expect("a temporary file can be written");
        hosts
    }

    /// With a proxy and the servers on both.
    fn start(name: &str) -> Hosts {
        let hosts = Hosts::bare(name);
        hosts.two.ok(&["ip", "address", "add", "10.77.0.3/24", "dev", "wire"]);
        for host in [1, 2] {
            hosts.proxy(host);
            for port in ["8080", "8081", "8082"] {
                hosts.http_server(host, port);
            }
        }
        hosts.greeter();
        hosts
    }

    fn host(&self, number: usize) -> &Host {
        if number == 1 { &self.one } else { &self.two }
    }

    fn proxy(&self, number: usize) {
        let file = self.folder.path().join("weir.yaml");
        let other = 3 - number;
        fs::write(&file, config(&format!("10.77.0.{other}"))).expect("a temporary file can be written");
        let (host, proxy) = (self.host(number), text(&binary("weir-proxy")));
        let command = [proxy.as_str(), "--config", &text(&file), "--admin", "127.0.0.1:9901"];
        host.start("weir-proxy", &mut host.command(&command), "admin http");
    }

    /// A proxy that gets its configuration from the control plane on the first host.
    fn join(&self, number: usize, flags: &[&str]) {
        let (host, proxy) = (self.host(number), text(&binary("weir-proxy")));
        let name = format!("--instance=host-{number}");
        let always = ["--control=http://10.77.0.1:15010", &name, "--admin=127.0.0.1:9901"];
        let mut command = host.command(&[&[proxy.as_str()], &always[..], flags].concat());
        host.start("weir-proxy", command.env("WEIR_TOKEN", TOKEN), "admin http");
        eventually("the proxy is ready", LONG, || {
            let output = host.run(&["curl", "--silent", "--fail", "http://127.0.0.1:9901/ready"]);
            if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
        });
    }

    /// Serves the folder, by both versions of IP.
    fn http_server(&self, host: usize, port: &str) {
        let folder = text(self.folder.path());
        let arguments = ["/usr/bin/python3", "-u", "-m", "http.server", "--bind", "::", "--directory", &folder, port];
        let host = self.host(host);
        host.start("http.server", &mut host.command(&arguments), "Serving");
    }

    /// Speaks first, on the second host.
    fn greeter(&self) {
        let program = "import socket\ns = socket.create_server(('0.0.0.0', 2525))\nprint('greets', flush=True)\n\
                       while True:\n  c, _ = s.accept()\n  c.sendall(b'220 welcome')\n  c.close()\n";
        self.two.start("greeter", &mut self.two.command(&["/usr/bin/python3", "-c", program]), "greets");
    }

    /// Two servers with TLS, on the second host.
    fn nginx(&self) {
        let (key, certificate) =
            (text(&self.folder.path().join("key.pem")), text(&self.folder.path().join("cert.pem")));
        let names = "subjectAltName=DNS:stays.test,DNS:moved.test";
        let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let about = ["-subj", "/CN=test", "-addext", names, "-keyout", &key, "-out", &certificate];
        let openssl = text(&peers::program("openssl", "openssl"));
        self.two.ok(&[&[openssl.as_str()], &request[..], &about[..]].concat());
        let file = self.folder.path().join("nginx.conf");
        fs::write(&file, nginx_config(self.folder.path())).expect("a temporary file can be written");
        let nginx = text(&peers::program("nginx", "nginx-light"));
        let command = [nginx.as_str(), "-c", &text(&file), "-g", "daemon off;"];
        self.two.start("nginx", &mut self.two.command(&command), "start worker process");
    }

    /// Sets the rules on both, or removes them.
    fn intercept(&self, flags: &[&str]) {
        let proxy = binary("weir-proxy").display().to_string();
        let sides = ["--inbound-port", "15006", "--outbound-port", "15001", "--exclude-uid", PROXY_UID];
        let sides = if flags == ["--remove"] { &[][..] } else { &sides };
        for host in [&self.one, &self.two] {
            host.ok(&[&[proxy.as_str(), "intercept"], sides, flags].concat());
        }
    }

    /// Which listeners a program's request has passed on its way, the nearest first.
    fn seen(&self, host: usize, at: &str) -> Vec<String> {
        seen(&self.answer(host, at))
    }

    /// What a program is answered, with its head.
    fn answer(&self, host: usize, at: &str) -> String {
        self.host(host).ok(&[&PROGRAMS, &fetch(at).each_ref().map(String::as_str)[..]].concat())
    }

    fn seen_by_root(&self, host: usize, at: &str) -> Vec<String> {
        seen(&self.host(host).ok(&fetch(at).each_ref().map(String::as_str)))
    }

    fn greeting(&self, host: usize, address: &str) -> String {
        let program = format!(
            "import encodings.idna, socket\nprint(socket.create_connection(('{address}', 2525), 20).recv(64).decode(), end='')"
        );
        self.host(host).ok(&[&PROGRAMS[..], &["/usr/bin/python3", "-c", &program]].concat())
    }

    /// What the server at port 8443 of the second host answers to who asks for this name.
    fn https(&self, name: &str) -> String {
        let (roots, to) = (text(&self.folder.path().join("cert.pem")), format!("{name}:8443:10.77.0.2"));
        let url = format!("https://{name}:8443/");
        let curl = ["curl", "--silent", "--show-error", "--max-time", "20", "--cacert", &roots, "--resolve", &to, &url];
        self.one.ok(&[&PROGRAMS[..], &curl].concat())
    }

    fn s_client(&self, name: &str) -> String {
        let roots = text(&self.folder.path().join("cert.pem"));
        let client = ["openssl", "s_client", "-quiet", "-ign_eof", "-verify_return_error", "-servername", name];
        let to = ["-connect", "10.77.0.2:8443", "-CAfile", &roots];
        let mut command = self.one.command(&[&PROGRAMS[..], &client, &to].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("openssl starts");
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        std::io::Write::write_all(&mut stdin, request.as_bytes()).expect("openssl takes the request");
        let output = child.wait_with_output().expect("openssl ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.rsplit("\r\n").next().unwrap_or_default().to_owned()
    }

    fn metric(&self, host: usize, name: &str) -> String {
        let all = self.host(host).ok(&["curl", "--silent", "http://127.0.0.1:9901/stats/prometheus"]);
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{all}")).to_owned()
    }
}

fn fetch(at: &str) -> [String; 7] {
    let url = format!("http://{at}/hello");
    ["curl", "--silent", "--show-error", "--include", "--max-time", "20", &url].map(str::to_owned)
}

/// Each listener adds its name to the answer, the farthest first.
fn seen(answer: &str) -> Vec<String> {
    let names = answer.lines().filter_map(|line| line.strip_prefix("x-seen: ")).map(|name| name.trim().to_owned());
    let mut names: Vec<String> = names.collect();
    names.reverse();
    names
}

/// The same on both hosts, but for the endpoint on the other that is known.
fn config(other: &str) -> String {
    let route = |name: &str, cluster: &str| {
        format!(
            "{{name: {name}, hosts: [{{name: any, domains: ['*'], routes: [{{responseHeaders: {{add: [[x-seen, {name}]]}}, \
             action: {{forward: {{clusters: [{{cluster: {cluster}}}]}}}}}}]}}]}}"
        )
    };
    format!(
        "listeners:
- {{name: out, bind: '[::]:15001', originalDestination: true, routes: out, tcpCluster: passthrough, limits: {{detectTimeoutMs: 200}},
   serverNames: [{{names: [moved.test], cluster: moved}}]}}
- {{name: in, bind: '[::]:15006', direction: Inbound, originalDestination: true, routes: in, tcpCluster: passthrough,
   limits: {{detectTimeoutMs: 200}}}}
- {{name: known, bind: '127.0.0.1:9080', routes: known}}
routeTables: [{}, {}, {}]
clusters:
- {{name: passthrough, originalDestination: true, protocol: SameAsDownstream}}
- {{name: known, endpoints: [{{address: '{other}:8080'}}]}}
- {{name: moved, endpoints: [{{address: '10.77.0.2:8444'}}]}}
",
        route("out", "passthrough"),
        route("in", "passthrough"),
        route("known", "known")
    )
}

fn nginx_config(folder: &Path) -> String {
    let folder = folder.display();
    let server = |port: u16, says: &str| {
        format!(
            "  server {{ listen {port} ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; \
             location / {{ return 200 {says}; }} }}\n"
        )
    };
    format!(
        "master_process on;\npid {folder}/pid;\nerror_log stderr notice;\nevents {{ worker_connections 64; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n  \
         fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n{}{}}}\n",
        server(8443, "stays"),
        server(8444, "moved")
    )
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
