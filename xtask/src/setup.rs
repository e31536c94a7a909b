//! Installs what the tests and benchmarks need; quick when it is there already.
//!
//! Debian packages come from apt and need root (or sudo); Python peers go into a virtual environment from a
//! requirements file with pinned versions and hashes; Node peers come by `npm ci` from a lock file. The last two
//! live under `target/peers` with a copy of the file they were installed from as a stamp: the step is done again
//! exactly when that file changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::root;
use crate::stage::{Outcome, Problem, cargo, run};

/// Debian package and the program by which we tell that it is there.
const PROGRAMS: &[(&str, &str)] = &[
    ("nginx-light", "nginx"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("nghttp2-client", "h2load"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("util-linux", "taskset"),
    ("nftables", "nft"),
    ("iproute2", "ip"),
    ("prometheus", "prometheus"),
];

/// Everything: packages, Python, Node.
pub fn all() -> Outcome {
    packages()?;
    python()?;
    node()
}

/// rustfmt and clippy, which a minimal toolchain lacks.
pub fn components() -> Outcome {
    let missing: Vec<_> = [("rustfmt", "fmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(_, command)| !quiet(&mut cargo(&[command, "--version"])))
        .map(|(component, _)| component)
        .collect();
    if missing.is_empty() {
        eprintln!("rustfmt and clippy: all there");
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add"]).args(&missing);
    run(&mut rustup, "install rustfmt and clippy for this toolchain")
}

/// The Debian packages of [`PROGRAMS`], and Python with its `venv` module.
pub fn packages() -> Outcome {
    let missing = missing_packages();
    if missing.is_empty() {
        eprintln!("Debian packages: all there");
        return Ok(());
    }
    eprintln!("Debian packages: installing {}", missing.join(" "));
    apt_install(&missing)
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<_> =
        PROGRAMS.iter().filter(|(_, program)| !on_path(program)).map(|(package, _)| *package).collect();
    if !Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        missing.push("ca-certificates");
    }
    if !has_venv() {
        missing.extend(["python3", "python3-venv"]);
    }
    missing
}

fn has_venv() -> bool {
    quiet(Command::new("/usr/bin/python3").args(["-c", "import venv, ensurepip"]))
}

/// Whether Debian's folders or PATH have the program; nginx and haproxy live in sbin, which PATH may lack.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .any(|folder| folder.join(program).is_file())
}

fn apt_install(packages: &[&str]) -> Outcome {
    let advice = format!("install by hand: apt-get install -y --no-install-recommends {}", packages.join(" "));
    run(as_root("apt-get").args(["update", "-qq"]), &advice)?;
    let mut install = as_root("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]);
    install.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut install, &advice)
}

fn as_root(program: &str) -> Command {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if root {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--non-interactive").arg(program);
    sudo
}

/// The virtual environment under `target/peers/venv` with Envoy and gRPC in the pinned versions.
pub fn python() -> Outcome {
    let requirements = root::checkout().join("tests/peers/requirements.txt");
    let venv = root::venv();
    stamped("Python peers", &requirements, &venv, || {
        let advice = "check the network and that Debian's python3-venv is installed, then run this again";
        let python = Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&venv).status();
        if !python.is_ok_and(|status| status.success()) {
            return Err(Problem::new("`python3 -m venv` failed", advice));
        }
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--require-hashes", "--only-binary", ":all:", "-r"]);
        run(pip.arg(&requirements), advice)
    })
}

/// The Node modules under `target/peers/node` from `tests/peers/package-lock.json`.
pub fn node() -> Outcome {
    let peers = root::checkout().join("tests/peers");
    let folder = root::peers().join("node");
    stamped("Node peers", &peers.join("package-lock.json"), &folder, || {
        node_packages()?;
        for file in ["package.json", "package-lock.json"] {
            copy(&peers.join(file), &folder.join(file))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
        run(npm.current_dir(&folder), "check the network (npm's registry), then run this again")
    })
}

fn node_packages() -> Outcome {
    if on_path("node") && on_path("npm") {
        return Ok(());
    }
    apt_install(&["nodejs", "npm"])
}

/// Does `install` unless the stamp in `folder` equals `source`.
fn stamped(what: &str, source: &Path, folder: &Path, install: impl FnOnce() -> Outcome) -> Outcome {
    let stamp = folder.join("installed-from");
    let wanted = fs::read(source).map_err(|error| unreadable(source, &error))?;
    if fs::read(&stamp).is_ok_and(|have| have == wanted) {
        eprintln!("{what}: all there");
        return Ok(());
    }
    eprintln!("{what}: installing into {}", folder.display());
    fs::create_dir_all(folder).map_err(|error| unreadable(folder, &error))?;
    install()?;
    fs::write(&stamp, wanted).map_err(|error| unreadable(&stamp, &error))
}

fn copy(from: &Path, to: &Path) -> Outcome {
    fs::copy(from, to).map(drop).map_err(|error| unreadable(from, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(format!("{}: {error}", path.display()), "check that the checkout is whole and target/ is writable")
}

fn quiet(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
