//! What a proxy says of itself, checked: every string and list is bounded before anything is kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use weir_model::app::Protocol;
use weir_model::health::{CheckResult, SelfCheck};
use weir_model::instance::{InstanceTls, ManagedBy, Upstream};
use weir_model::validate::Validator;
use weir_model::{InstanceSpec, Spec};
use weir_proto::control as wire;

/// Longest short text (names, versions).
const MAX_TEXT: usize = 253;
/// Longest explanation.
const MAX_DETAIL: usize = 2000;
/// Longest identity, as SPIFFE has it.
const MAX_IDENTITY: usize = 2048;
const MAX_UPSTREAMS: usize = 1000;
const MAX_CHECKS: usize = 64;
const MAX_LABELS: usize = 64;
const MAX_PROTOCOLS: usize = 16;

/// A Hello that keeps the rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The instance's name.
    pub instance: String,
    /// What it would be if nobody has declared it.
    pub spec: InstanceSpec,
    /// Importance of its app, 1 to 4, if it says so.
    pub tier: Option<u8>,
    /// Labels of the instance.
    pub labels: BTreeMap<String, String>,
    /// Version of the proxy's binary.
    pub build: String,
    /// Not empty: a drill build, and its fault.
    pub drill: String,
    /// Process id of the proxy; 0: unknown.
    pub pid: u32,
    /// Its start-up self-check.
    pub self_check: Option<SelfCheck>,
    /// What it can do in TLS; `None`: nothing.
    pub tls: Option<InstanceTls>,
    /// It has said goodbye on an earlier stream, and says it again.
    pub leaving: bool,
    /// Its admin endpoint.
    pub admin: Option<SocketAddr>,
    /// Times its supervisor had to start it again.
    pub restarts: u32,
}

impl Hello {
    /// Checks and converts what came over the wire.
    ///
    /// # Errors
    /// Everything that is wrong, in words, one per line.
    pub fn read(hello: wire::Hello) -> Result<Hello, String> {
        let mut v = Validator::new();
        check_sizes(&hello, &mut v);
        v.name("instance", &hello.instance);
        let spec = spec(&hello, &mut v);
        spec.validate(&mut v);
        let labels: BTreeMap<String, String> = hello.labels.into_iter().collect();
        v.labels("labels", &labels);
        v.finish().map_err(|invalid| invalid.to_string())?;
        Ok(Hello {
            instance: hello.instance,
            spec,
            tier: u8::try_from(hello.tier).ok().filter(|t| (1..=4).contains(t)),
            labels,
            build: hello.build,
            drill: hello.drill,
            pid: hello.pid,
            self_check: hello.self_check.map(self_check),
            leaving: !hello.leaving.is_empty(),
            admin: hello.admin.parse().ok(),
            restarts: hello.restarts,
            tls: hello.tls_capable.then(|| hello.tls.map(tls).unwrap_or_default()),
        })
    }
}

impl Hello {
    /// Which proxy this is, in words: what tells it from another one by the same instance name. The actor is what it can't
    /// make up: who joins with another token is another proxy, whatever it says of itself.
    pub fn holder(&self, actor: &str) -> String {
        format!("process {} at {}:{}, {actor}", self.pid, self.spec.address, self.spec.port)
    }
}

fn check_sizes(hello: &wire::Hello, v: &mut Validator) {
    let texts = [
        ("app", &hello.app),
        ("unit", &hello.unit),
        ("zone", &hello.zone),
        ("group", &hello.group),
        ("stack", &hello.stack),
        ("proxyVersion", &hello.proxy_version),
        ("build", &hello.build),
        ("drill", &hello.drill),
        ("appVersion", &hello.app_version),
        ("supervisor", &hello.supervisor),
    ];
    for (field, text) in texts {
        at_most(v, field, text.len(), MAX_TEXT, "characters");
    }
    at_most(v, "upstreams", hello.upstreams.len(), MAX_UPSTREAMS, "entries");
    at_most(v, "labels", hello.labels.len(), MAX_LABELS, "entries");
    at_most(v, "protocols", hello.protocols.len(), MAX_PROTOCOLS, "entries");
    let checks = hello.self_check.as_ref().map_or(0, |c| c.checks.len());
    at_most(v, "selfCheck.checks", checks, MAX_CHECKS, "entries");
}

fn at_most(v: &mut Validator, field: &str, is: usize, limit: usize, what: &str) {
    if is > limit {
        v.error(field, format!("has {is} {what}, at most {limit} are allowed"));
    }
}

fn spec(hello: &wire::Hello, v: &mut Validator) -> InstanceSpec {
    for (field, name) in [("unit", &hello.unit), ("zone", &hello.zone), ("group", &hello.group)] {
        if !name.is_empty() {
            v.name(field, name);
        }
    }
    InstanceSpec {
        app: hello.app.clone(),
        unit: hello.unit.clone(),
        zone: hello.zone.clone(),
        group: hello.group.clone(),
        stack: hello.stack.clone(),
        managed_by: ManagedBy::Itself,
        workload: None,
        address: address(&hello.address, v),
        port: port("port", hello.port, v),
        app_port: port("appPort", hello.app_port, v),
        app_address: None,
        protocol: protocol(&hello.protocols),
        upstreams: upstreams(&hello.upstreams, v),
        proxy_version: hello.proxy_version.clone(),
        app_version: hello.app_version.clone(),
        weight: 100,
        config_revision: String::new(),
        retire: false,
    }
}

fn address(text: &str, v: &mut Validator) -> IpAddr {
    text.parse().unwrap_or_else(|_| {
        v.error("address", format!("{text:?} is no IP address"));
        IpAddr::from([127, 0, 0, 1])
    })
}

fn port(field: &str, value: u32, v: &mut Validator) -> u16 {
    u16::try_from(value).unwrap_or_else(|_| {
        v.error(field, format!("is {value}, must be from 0 to 65535"));
        0
    })
}

fn upstreams(upstreams: &[wire::Upstream], v: &mut Validator) -> Vec<Upstream> {
    let mut read = Vec::with_capacity(upstreams.len().min(MAX_UPSTREAMS));
    for (index, upstream) in upstreams.iter().enumerate().take(MAX_UPSTREAMS) {
        match upstream.listen.parse::<SocketAddr>() {
            Ok(listen) => read.push(Upstream { app: upstream.app.clone(), listen }),
            Err(_) => v.error(
                &format!("upstreams[{index}].listen"),
                format!("{:?} is no address like 127.0.0.1:15001", upstream.listen),
            ),
        }
    }
    read
}

/// The most capable protocol the application is said to speak.
fn protocol(protocols: &[String]) -> Protocol {
    let speaks = |name: &str| protocols.iter().any(|p| p == name);
    if speaks("grpc") {
        Protocol::Grpc
    } else if speaks("http2") {
        Protocol::Http2
    } else if speaks("bolt") {
        Protocol::Bolt
    } else if speaks("dubbo") {
        Protocol::Dubbo
    } else if speaks("tcp") {
        Protocol::Tcp
    } else {
        Protocol::Http1
    }
}

/// A certificate in use. Its identity is told, not relied on: callers verify it themselves.
pub fn tls(state: wire::TlsState) -> InstanceTls {
    InstanceTls {
        ready: true,
        identity: state.identity.chars().take(MAX_IDENTITY).collect(),
        not_after: Timestamp::from_second(state.not_after_unix_s).ok(),
        since: None,
        generation: state.generation,
    }
}

fn self_check(check: wire::SelfCheck) -> SelfCheck {
    let cut = |text: String, to: usize| text.chars().take(to).collect();
    let result = |c: wire::Check| CheckResult {
        name: cut(c.name, MAX_TEXT),
        passed: c.passed,
        detail: cut(c.detail, MAX_DETAIL),
        micros: c.micros,
    };
    SelfCheck { passed: check.passed, checks: check.checks.into_iter().map(result).collect() }
}
