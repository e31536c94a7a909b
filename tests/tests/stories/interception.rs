//! `weir-proxy intercept` against the real kernel, in a network namespace of its own: connections of a program that knows
//! nothing of Weir are turned round to the proxy's port, all but those that are excluded, and back again.

use weir_testkit::binary;

use crate::netns::Host;

/// A user that the rules leave alone, as they must the proxy's own.
const EXCLUDED_UID: &str = "64321";

#[test]
fn connections_are_turned_round_but_those_of_the_excluded_user() {
    let host = lonely("turned");
    let port = listener(&host, "0.0.0.0", "proxy");
    host.ok(&[
        &proxy(),
        "intercept",
        "--outbound-port",
        &port,
        "--exclude-uid",
        EXCLUDED_UID,
        "--exclude-outbound",
        "81",
    ]);
    assert_eq!(fetch(&host, "192.0.2.7", "80", None), "proxy", "an address that nobody has is answered by the proxy");
    assert_eq!(fetch(&host, "192.0.2.7", "80", Some(EXCLUDED_UID)), "", "its own connections would come back to it");
    assert_eq!(fetch(&host, "192.0.2.7", "81", None), "", "this port is left alone");
    host.ok(&[&proxy(), "intercept", "--remove"]);
    assert_eq!(fetch(&host, "192.0.2.7", "80", None), "", "and it is as before");
}

#[test]
fn rules_are_replaced_and_removed_whole() {
    let host = lonely("rules");
    let dry = host.ok(&[&proxy(), "intercept", "--inbound-port", "15006", "--dry-run"]);
    assert!(dry.contains("redirect to :15006"), "{dry}");
    assert_eq!(rules(&host), "", "a dry run changes nothing");
    for inbound in ["15006", "15006", "15007"] {
        host.ok(&[&proxy(), "intercept", "--inbound-port", inbound, "--exclude-inbound", "22"]);
        assert_eq!(rules(&host).matches("redirect").count(), 1, "{}", rules(&host));
        assert!(rules(&host).contains(&format!("redirect to :{inbound}")), "{}", rules(&host));
    }
    for _ in 0..2 {
        host.ok(&[&proxy(), "intercept", "--remove"]);
        assert_eq!(rules(&host), "");
    }
}

fn proxy() -> String {
    binary("weir-proxy").display().to_string()
}

/// A host with a way to everywhere that leads nowhere.
fn lonely(name: &str) -> Host {
    let host = Host::new(name);
    host.ok(&["ip", "link", "add", "out", "type", "veth", "peer", "name", "nowhere"]);
    host.ok(&["ip", "link", "set", "nowhere", "up"]);
    host.ok(&["ip", "address", "add", "198.51.100.1/24", "dev", "out"]);
    host.ok(&["ip", "link", "set", "out", "up"]);
    host.ok(&["ip", "route", "add", "default", "dev", "out"]);
    host
}

/// Weir's table, empty if there is none.
fn rules(host: &Host) -> String {
    String::from_utf8_lossy(&host.run(&["nft", "list", "table", "inet", "weir"]).stdout).into_owned()
}

/// Answers each connection with a word; its port.
fn listener(host: &Host, address: &str, word: &str) -> String {
    let program = format!(
        "import socket\ns = socket.create_server(('{address}', 0))\nprint('port', s.getsockname()[1], flush=True)\n\
         while True:\n  c, _ = s.accept()\n  c.sendall(b'{word}')\n  c.close()\n"
    );
    let line = host.start("listener", &mut host.command(&["/usr/bin/python3", "-c", &program]), "port ");
    line.trim_start_matches("port ").trim().to_owned()
}

/// What a program of that user reads from there; nothing if there is no connection within a second.
fn fetch(host: &Host, address: &str, port: &str, user: Option<&str>) -> String {
    let program = format!(
        "import encodings.idna, os, socket\n{}try:\n  print(socket.create_connection(('{address}', {port}), 1).recv(64).decode(), end='')\n\
         except OSError:\n  pass\n",
        user.map(|user| format!("os.setuid({user})\n")).unwrap_or_default()
    );
    host.ok(&["/usr/bin/python3", "-c", &program])
}
