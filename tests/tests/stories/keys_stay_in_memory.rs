//! No private key is anywhere but in memory: with real processes that log everything, under an operator's own authority,
//! neither files nor logs nor what can be asked of control plane and proxies hold one, and no core dump is written.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weir_testkit::{LONG, Process, Signal, TempDir, Weir, binary, eventually, http, net};

use crate::joined::{Caller, joining};

/// What a proxy's admin endpoint shows.
const PAGES: [&str; 5] = ["/config_dump", "/clusters", "/stats/prometheus", "/health", "/ready"];

#[test]
fn no_key_is_in_any_file_log_or_dump() {
    let authority = OperatorsAuthority::make();
    let [certificate, key] = authority.files().map(|path| path.display().to_string());
    let flags = ["--log", "trace", "--cert-ttl", "20s", "--ca-cert", &certificate, "--ca-key", &key];
    let mut weir = Weir::start_with(&flags);
    let front = net::free_address();
    let join = |app: &str, name: &str, calls: &[_]| {
        let mut command = joining(&weir, app, name, "http_server.py", calls);
        Process::spawn(name, command.env("WEIR_LOG", "trace"))
    };
    let mut programs = [join("stock", "stock-a", &[]), join("front", "front-1", &[("stock", front)])];
    weir.apply(
        "apiVersion: weir.dev/v1\nkind: Encryption\nmetadata: {name: stock}\nspec: {app: stock, mode: strict}\n",
    );
    is_strict(&weir);
    let mut caller = Caller::new("stock", front);
    caller.until_answered_by("stock-a");
    // Replaced at least once, so that old ones have been let go.
    programs.iter_mut().for_each(|program| drop(program.wait_line("generation=2")));
    caller.times(20);

    let marks = Marks::of(&authority);
    marks.absent_in_folder(weir.data());
    for admin in admins(&weir) {
        assert!(PAGES.iter().all(|page| marks.absent(page, &body(admin, page))));
    }
    for path in ["/metrics", "/openapi.json", "/apis/weir.dev/v1/instances", "/apis/weir.dev/v1/proxies"] {
        marks.absent(path, weir.get(path).expect("the API answers").text().as_bytes());
    }
    for command in [&["events"][..], &["describe", "encryption/stock"], &["get", "tokens", "-o", "yaml"]] {
        marks.absent(&command.join(" "), weir.ok(command).as_bytes());
    }
    let logs = programs.iter().map(Process::output).chain([weir.process().output()]);
    for line in logs.flatten() {
        marks.absent("a log", line.as_bytes());
    }
}

#[test]
fn no_core_is_dumped() {
    let mut weir = Weir::start();
    let (control, inbound) = (weir.control(), net::free_address().to_string());
    let mut command = Command::new(binary("weir-proxy"));
    command.args(["--control", &control, "--instance", "stock-1", "--app", "stock"]);
    command.args(["--inbound", &inbound, "--app-port", "9"]).env("WEIR_TOKEN", weir.token());
    let mut proxy = Process::spawn("weir-proxy", &mut command);
    proxy.wait_line("a certificate is in use");
    assert_eq!(core_limits(proxy.pid()), ["0", "0"]);
    // The control plane's children inherit its limits, so it does without; not even the highest makes it dump.
    let [_, highest] = core_limits(weir.process().pid());
    let (pid, limit) = (weir.process().pid().to_string(), format!("--core={highest}:{highest}"));
    let raised = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(raised.expect("prlimit can be run: the package util-linux is installed").success());
    for process in [&mut proxy, weir.process()] {
        process.signal(Signal::ABORT);
        let status = process.wait_exit(LONG);
        assert!(status.signal() == Some(6) && !status.core_dumped(), "{status:?}");
    }
}

/// Soft and hard limit of a process's core files.
fn core_limits(pid: u32) -> [String; 2] {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("there is such a limit");
    let mut words = core.split_whitespace().map(str::to_owned);
    [words.next(), words.next()].map(|limit| limit.expect("it has a soft and a hard one"))
}

fn is_strict(weir: &Weir) {
    eventually("calls are strict", LONG, || {
        let shown = weir.ok(&["get", "encryption", "stock", "-o", "json"]);
        let shown: Value = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
        if shown["status"]["effectiveMode"] == "strict" { Ok(()) } else { Err(shown["status"].to_string()) }
    });
}

/// Admin endpoints of all proxies.
fn admins(weir: &Weir) -> Vec<std::net::SocketAddr> {
    let shown: Value = serde_json::from_str(&weir.ok(&["get", "instances", "-o", "json"])).expect("JSON");
    let items = shown["items"].as_array().expect("a list has items");
    let admins: Vec<_> = items.iter().filter_map(|i| i["status"]["proxyAdmin"].as_str()?.parse().ok()).collect();
    assert_eq!(admins.len(), 2, "{shown}");
    admins
}

fn body(admin: std::net::SocketAddr, page: &str) -> Vec<u8> {
    let answer = http::get(admin, page).expect("the admin endpoint answers");
    assert_eq!(answer.status, 200, "{page}");
    answer.text().into_bytes()
}

/// What a private key is known by.
struct Marks(Vec<Vec<u8>>);

/// How a P-256 key in PKCS #8 begins, in DER (RFC 5958, RFC 5480).
const PKCS8_P256: &[u8] = &[
    0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d,
];
/// The same with the three bytes before it, in base64.
const PKCS8_P256_BASE64: &[u8] = b"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0w";
/// Where the number that is the secret stands in it, and its length.
const SECRET: std::ops::Range<usize> = 36..68;

impl Marks {
    /// Of any key, and of the authority's in particular.
    fn of(authority: &OperatorsAuthority) -> Marks {
        let der = authority.key_in_der();
        assert_eq!(&der[3..3 + PKCS8_P256.len()], PKCS8_P256);
        let secret = &der[SECRET];
        let hex = |digit: fn(&u8) -> String| secret.iter().map(digit).collect::<String>().into_bytes();
        let listed = format!("{secret:?}").trim_matches(['[', ']']).as_bytes().to_vec();
        Marks(vec![
            b"PRIVATE KEY".to_vec(),
            PKCS8_P256.to_vec(),
            PKCS8_P256_BASE64.to_vec(),
            secret.to_vec(),
            hex(|byte| format!("{byte:02x}")),
            hex(|byte| format!("{byte:02X}")),
            listed,
        ])
    }

    /// True; it fails if one is there.
    fn absent(&self, place: &str, bytes: &[u8]) -> bool {
        let holds = |mark: &Vec<u8>| bytes.windows(mark.len()).any(|window| window == &mark[..]);
        let found = self.0.iter().position(holds);
        assert!(found.is_none(), "{place} holds a private key (mark {found:?})");
        true
    }

    fn absent_in_folder(&self, folder: &Path) {
        let mut paths = vec![folder.to_owned()];
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
            } else if path.is_file() {
                self.absent(&path.display().to_string(), &fs::read(&path).expect("readable"));
            }
        }
    }
}

/// Made by openssl.
struct OperatorsAuthority(TempDir);

impl OperatorsAuthority {
    fn make() -> OperatorsAuthority {
        let made = OperatorsAuthority(TempDir::new().expect("a temporary folder can be made"));
        made.openssl(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=the operator' \
             -keyout root.key -out root.pem",
        );
        made
    }

    fn files(&self) -> [PathBuf; 2] {
        ["root.pem", "root.key"].map(|file| self.0.path().join(file))
    }

    fn key_in_der(&self) -> Vec<u8> {
        self.openssl("openssl pkcs8 -topk8 -nocrypt -in root.key -outform DER -out root.der");
        fs::read(self.0.path().join("root.der")).expect("openssl writes it")
    }

    fn openssl(&self, command: &str) {
        let output = Command::new("sh").args(["-c", command]).current_dir(self.0.path()).output().expect("a shell");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
