//! Whether a configuration makes sense as a whole. Every problem is reported, not just the first.

use std::collections::{HashMap, HashSet};

use crate::{
    Cluster, Forward, HeaderEdits, HealthCheck, Listener, ListenerProtocol, PathMatch, Probe, ProxyConfig, Redirect,
    Respond, Route, RouteAction, RouteMatch, RouteTable, Secret, ServerNames, StringMatch, UpstreamProtocol,
    ValueMatch, VirtualHost,
};

/// Largest compiled regular expression (bytes): bounds what a configuration can make the proxy hold.
const MAX_REGEX_BYTES: usize = 256 * 1024;

/// Largest frame that can be allowed (bytes): it is held in memory as a whole.
const MAX_FRAME_BYTES: usize = 256 * 1024 * 1024;

/// One problem and where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ConfigError {
    /// Path of the field, e.g. `routeTables[0].hosts[1].domains[0]`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Checks references, uniqueness, ranges and patterns.
///
/// # Errors
/// All problems found.
pub fn validate(config: &ProxyConfig) -> Result<(), Vec<ConfigError>> {
    let mut check = Check { names: Names::of(config), problems: Vec::new() };
    check.unique("listeners", config.listeners.iter().map(|listener| listener.name.as_str()));
    check.unique("routeTables", config.route_tables.iter().map(|table| table.name.as_str()));
    check.unique("clusters", config.clusters.iter().map(|cluster| cluster.name.as_str()));
    check.unique("secrets", config.secrets.iter().map(|secret| secret.name.as_str()));
    check.each("secrets", &config.secrets, Check::secret);
    check.each("listeners", &config.listeners, Check::listener);
    check.unique_binds(&config.listeners);
    check.each("routeTables", &config.route_tables, Check::table);
    check.each("clusters", &config.clusters, Check::cluster);
    if check.problems.is_empty() { Ok(()) } else { Err(check.problems) }
}

struct Names<'a> {
    tables: HashSet<&'a str>,
    clusters: HashSet<&'a str>,
    secrets: HashMap<&'a str, &'a Secret>,
}

impl<'a> Names<'a> {
    fn of(config: &'a ProxyConfig) -> Self {
        Names {
            tables: config.route_tables.iter().map(|table| table.name.as_str()).collect(),
            clusters: config.clusters.iter().map(|cluster| cluster.name.as_str()).collect(),
            secrets: config.secrets.iter().map(|secret| (secret.name.as_str(), secret)).collect(),
        }
    }
}

struct Check<'a> {
    names: Names<'a>,
    problems: Vec<ConfigError>,
}

impl Check<'_> {
    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(ConfigError { field: field.into(), message: message.into() });
    }

    fn require(&mut self, holds: bool, field: impl FnOnce() -> String, message: impl FnOnce() -> String) {
        if !holds {
            self.problem(field(), message());
        }
    }

    fn each<T>(&mut self, field: &str, items: &[T], check: fn(&mut Self, &str, &T)) {
        for (index, item) in items.iter().enumerate() {
            check(self, &format!("{field}[{index}]"), item);
        }
    }

    fn unique<'n>(&mut self, field: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = HashSet::new();
        for (index, name) in names.enumerate() {
            self.require(!name.is_empty(), || format!("{field}[{index}].name"), || "is empty".into());
            self.require(seen.insert(name), || format!("{field}[{index}].name"), || format!("`{name}` is there twice"));
        }
    }

    fn unique_binds(&mut self, listeners: &[Listener]) {
        let mut seen = HashSet::new();
        for (index, bind) in listeners.iter().map(|listener| listener.bind).enumerate() {
            let fresh = bind.port() == 0 || seen.insert(bind);
            self.require(
                fresh,
                || format!("listeners[{index}].bind"),
                || format!("{bind} is taken by another listener"),
            );
        }
    }

    fn listener(&mut self, field: &str, listener: &Listener) {
        let routes = listener.routes.as_str();
        let (known, what) = match listener.protocol {
            ListenerProtocol::Tcp if routes.is_empty() => (!listener.server_names.is_empty(), "cluster"),
            ListenerProtocol::Tcp => (self.names.clusters.contains(routes), "cluster"),
            _ => (self.names.tables.contains(routes), "route table"),
        };
        self.require(known, || format!("{field}.routes"), || format!("there is no {what} `{routes}`"));
        self.passing(field, listener);
        self.listener_limits(field, listener);
        let drain = listener.drain_ms.unwrap_or_default() as usize;
        self.range(|| format!("{field}.drainMs"), drain, 0, 86_400_000);
        if let Some(tls) = &listener.tls {
            self.certificate(&format!("{field}.tls.certificate"), &tls.certificate);
            tls.trust.iter().for_each(|name| self.trust(&format!("{field}.tls.trust"), name));
            self.range(|| format!("{field}.tls.handshakeTimeoutMs"), tls.handshake_timeout_ms as usize, 1, 600_000);
            self.range(|| format!("{field}.tls.maxHandshakes"), tls.max_handshakes, 1, 1_000_000);
        }
    }

    fn secret(&mut self, field: &str, secret: &Secret) {
        let both = secret.certificate.is_some() && secret.trust.is_some();
        self.require(!both, || field.to_owned(), || "is both a certificate and roots of trust: make it two".into());
    }

    fn certificate(&mut self, field: &str, name: &str) {
        let found = self.names.secrets.get(name).copied();
        let fits = found.is_some_and(|secret| secret.trust.is_none());
        self.require(fits, || field.to_owned(), || format!("there is no secret `{name}` with a certificate"));
    }

    fn trust(&mut self, field: &str, name: &str) {
        let found = self.names.secrets.get(name).copied();
        let fits = found.is_some_and(|secret| secret.certificate.is_none());
        self.require(fits, || field.to_owned(), || format!("there is no secret `{name}` with roots of trust"));
    }

    fn listener_limits(&mut self, field: &str, listener: &Listener) {
        let limits = &listener.limits;
        let ranges = [
            ("maxHeadBytes", limits.max_head_bytes, 256, 1024 * 1024),
            ("maxHeaders", limits.max_headers, 1, 1000),
            ("maxConnections", limits.max_connections, 1, 1_000_000),
            ("maxStreams", limits.max_streams as usize, 1, 100_000),
            ("maxRequests", limits.max_requests, 1, 10_000_000),
            ("maxFrameBytes", limits.max_frame_bytes, 1024, MAX_FRAME_BYTES),
            ("bufferBytes", limits.buffer_bytes, 4096, 16 * 1024 * 1024),
            ("detectTimeoutMs", limits.detect_timeout_ms as usize, 1, 600_000),
            ("headTimeoutMs", limits.head_timeout_ms as usize, 1, 3_600_000),
            ("idleTimeoutMs", limits.idle_timeout_ms as usize, 1, 86_400_000),
            ("streamIdleTimeoutMs", limits.stream_idle_timeout_ms.unwrap_or(0) as usize, 0, 86_400_000),
        ];
        for (name, value, least, most) in ranges {
            self.range(|| format!("{field}.limits.{name}"), value, least, most);
        }
    }

    fn range(&mut self, field: impl FnOnce() -> String, value: usize, least: usize, most: usize) {
        let holds = (least..=most).contains(&value);
        self.require(holds, field, || format!("{value} is not between {least} and {most}"));
    }

    fn table(&mut self, field: &str, table: &RouteTable) {
        let mut domains = HashSet::new();
        for (host, virtual_host) in table.hosts.iter().enumerate() {
            for (index, domain) in virtual_host.domains.iter().enumerate() {
                let at = || format!("{field}.hosts[{host}].domains[{index}]");
                self.require(is_domain(domain), at, || format!("`{domain}` is not HOST, *.HOST, HOST.* or *"));
                let fresh = domains.insert(domain.to_ascii_lowercase());
                self.require(fresh, at, || format!("`{domain}` is there twice"));
            }
        }
        self.each(&format!("{field}.hosts"), &table.hosts, Check::host);
    }

    fn host(&mut self, field: &str, host: &VirtualHost) {
        self.require(
            !host.domains.is_empty(),
            || format!("{field}.domains"),
            || "is empty: use `*` for any host".into(),
        );
        self.each(&format!("{field}.routes"), &host.routes, Check::route);
    }

    fn route(&mut self, field: &str, route: &Route) {
        self.matches(&format!("{field}.matches"), &route.matches);
        self.edits(&format!("{field}.requestHeaders"), &route.request_headers);
        self.edits(&format!("{field}.responseHeaders"), &route.response_headers);
        match &route.action {
            RouteAction::Forward(forward) => self.forward(&format!("{field}.action.forward"), forward),
            RouteAction::Redirect(redirect) => self.redirect(&format!("{field}.action.redirect"), redirect),
            RouteAction::Respond(respond) => self.respond(&format!("{field}.action.respond"), respond),
        }
    }

    fn matches(&mut self, field: &str, matches: &RouteMatch) {
        match &matches.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Segments(path) => {
                self.require(
                    path.starts_with('/'),
                    || format!("{field}.path"),
                    || format!("`{path}` does not begin with /"),
                );
            }
            PathMatch::Regex(pattern) => self.regex(|| format!("{field}.path"), pattern),
        }
        if let Some(method) = &matches.method {
            self.require(is_token(method), || format!("{field}.method"), || format!("`{method}` is not a method"));
        }
        self.each(&format!("{field}.headers"), &matches.headers, Check::header_match);
        self.each(&format!("{field}.query"), &matches.query, Check::value_match);
    }

    fn header_match(&mut self, field: &str, matcher: &ValueMatch) {
        let name = &matcher.name;
        let known_pseudo = matches!(name.as_str(), ":authority" | ":method" | ":path" | ":scheme");
        self.require(
            known_pseudo || is_token(name),
            || format!("{field}.name"),
            || format!("`{name}` is not a header name"),
        );
        self.value_match(field, matcher);
    }

    fn value_match(&mut self, field: &str, matcher: &ValueMatch) {
        if let StringMatch::Regex(pattern) = &matcher.value {
            self.regex(|| format!("{field}.value"), pattern);
        }
    }

    fn regex(&mut self, field: impl FnOnce() -> String, pattern: &str) {
        let built = regex::bytes::RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build();
        if let Err(error) = built {
            self.problem(field(), error.to_string());
        }
    }

    fn edits(&mut self, field: &str, edits: &HeaderEdits) {
        let fields = edits.set.iter().chain(&edits.add);
        for (name, value) in fields {
            let holds = is_token(name) && is_value(value) && !is_framing(name);
            self.require(holds, || field.to_owned(), || format!("`{name}: {value}` is not a header that may be set"));
        }
        for name in &edits.remove {
            let holds = is_token(name) && !is_framing(name);
            self.require(holds, || field.to_owned(), || format!("`{name}` is not a header that may be removed"));
        }
    }

    fn forward(&mut self, field: &str, forward: &Forward) {
        self.require(!forward.clusters.is_empty(), || format!("{field}.clusters"), || "is empty".into());
        for (index, target) in forward.clusters.iter().enumerate() {
            let known = self.names.clusters.contains(target.cluster.as_str());
            let at = || format!("{field}.clusters[{index}].cluster");
            self.require(known, at, || format!("there is no cluster `{}`", target.cluster));
        }
        let total: u64 = forward.clusters.iter().map(|target| u64::from(target.weight)).sum();
        let fits = (1..=u64::from(u32::MAX)).contains(&total);
        self.require(
            fits || forward.clusters.is_empty(),
            || format!("{field}.clusters"),
            || "the weights add up to 0 or overflow".into(),
        );
        self.rewrites(field, forward);
        if let Some(retry) = &forward.retry {
            self.range(|| format!("{field}.retry.attempts"), retry.attempts as usize, 0, 10);
            self.range(|| format!("{field}.retry.budgetPercent"), retry.budget_percent as usize, 0, 100);
        }
    }

    fn rewrites(&mut self, field: &str, forward: &Forward) {
        if let Some(prefix) = &forward.prefix_rewrite {
            let holds = prefix.starts_with('/') && is_target(prefix);
            self.require(holds, || format!("{field}.prefixRewrite"), || format!("`{prefix}` is not a path"));
        }
        if let Some(host) = &forward.host_rewrite {
            let holds = !host.is_empty() && is_target(host);
            self.require(holds, || format!("{field}.hostRewrite"), || format!("`{host}` is not a host"));
        }
    }

    fn redirect(&mut self, field: &str, redirect: &Redirect) {
        let known = matches!(redirect.status, 301 | 302 | 303 | 307 | 308);
        let message = || format!("{} is not 301, 302, 303, 307 or 308", redirect.status);
        self.require(known, || format!("{field}.status"), message);
        for part in [&redirect.scheme, &redirect.host, &redirect.path].into_iter().flatten() {
            self.require(is_target(part), || field.to_owned(), || format!("`{part}` cannot stand in a location"));
        }
    }

    fn respond(&mut self, field: &str, respond: &Respond) {
        self.range(|| format!("{field}.status"), usize::from(respond.status), 200, 599);
        self.range(|| format!("{field}.body"), respond.body.len(), 0, 64 * 1024);
    }

    fn cluster(&mut self, field: &str, cluster: &Cluster) {
        self.range(|| format!("{field}.connectTimeoutMs"), cluster.connect_timeout_ms as usize, 1, 600_000);
        self.range(|| format!("{field}.endpoints"), cluster.endpoints.len(), 0, 100_000);
        let contradicts = cluster.original_destination && !cluster.endpoints.is_empty();
        let message = "there may be none: connections go to where their callers were going";
        self.require(!contradicts, || format!("{field}.endpoints"), || message.into());
        self.range(|| format!("{field}.limits.maxConnections"), cluster.limits.max_connections, 1, 1_000_000);
        self.range(|| format!("{field}.limits.maxRequests"), cluster.limits.max_requests, 1, 10_000_000);
        if let Some(tls) = &cluster.tls {
            tls.certificate.iter().for_each(|name| self.certificate(&format!("{field}.tls.certificate"), name));
            self.trust(&format!("{field}.tls.trust"), &tls.trust);
        }
        self.range(|| format!("{field}.limits.maxFrameBytes"), cluster.limits.max_frame_bytes, 1024, MAX_FRAME_BYTES);
        if let Some(interval) = cluster.limits.heartbeat_interval_ms {
            self.range(|| format!("{field}.limits.heartbeatIntervalMs"), interval as usize, 1, 3_600_000);
        }
        if let Some(check) = &cluster.health_check {
            self.health_check(&format!("{field}.healthCheck"), check, cluster.protocol);
        }
        let mut seen = HashSet::new();
        for (index, endpoint) in cluster.endpoints.iter().enumerate() {
            let at = || format!("{field}.endpoints[{index}]");
            let lost = endpoint.tls && cluster.tls.is_none();
            self.require(!lost, || format!("{}.tls", at()), || format!("{field}.tls does not say how"));
            self.require(seen.insert(endpoint.address), at, || format!("{} is there twice", endpoint.address));
            self.range(|| format!("{}.weight", at()), endpoint.weight as usize, 0, 1_000_000);
        }
    }
}

/// Whether endpoints can be asked so.
impl Check<'_> {
    fn health_check(&mut self, field: &str, check: &HealthCheck, protocol: UpstreamProtocol) {
        let ranges = [
            ("intervalMs", check.interval_ms as usize, 3_600_000),
            ("timeoutMs", check.timeout_ms as usize, 600_000),
            ("unhealthyThreshold", check.unhealthy_threshold as usize, 1_000),
            ("healthyThreshold", check.healthy_threshold as usize, 1_000),
        ];
        for (name, value, most) in ranges {
            self.range(|| format!("{field}.{name}"), value, 1, most);
        }
        let at = || format!("{field}.probe");
        match &check.probe {
            Probe::Tcp => {}
            Probe::Http(http) => {
                let fits = http.path.starts_with('/') && is_target(&http.path) && !http.path.contains('#');
                self.require(fits, at, || format!("`{}` is not a path", http.path));
                self.probe_host(at, http.host.as_deref());
            }
            Probe::Grpc(grpc) => {
                let http2 = protocol == UpstreamProtocol::Http2;
                self.require(http2, at, || "grpc is for clusters with protocol Http2".into());
                self.range(at, grpc.service.len(), 0, 1024);
                self.probe_host(at, grpc.host.as_deref());
            }
        }
    }

    fn probe_host(&mut self, field: impl FnOnce() -> String, host: Option<&str>) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let fits = host.is_none_or(|host| !host.is_empty() && host.bytes().all(legal));
        self.require(fits, field, || format!("`{}` is not a host", host.unwrap_or_default()));
    }
}

/// What goes on as bytes, and where connections come from.
impl Check<'_> {
    fn passing(&mut self, field: &str, listener: &Listener) {
        let bound = listener.bind_to_port || !listener.original_destination;
        let message = "has originalDestination, for which it must be bound";
        self.require(bound, || format!("{field}.bindToPort"), || message.into());
        if let Some(cluster) = &listener.tcp_cluster {
            let at = || format!("{field}.tcpCluster");
            self.known_cluster(at, cluster);
            let auto = listener.protocol == ListenerProtocol::Auto;
            self.require(auto, at, || "is for protocol Auto; of a Tcp listener, `routes` names the cluster".into());
        }
        let mut seen = HashSet::new();
        for (index, names) in listener.server_names.iter().enumerate() {
            self.server_names(&format!("{field}.serverNames[{index}]"), names, &mut seen);
        }
    }

    fn server_names(&mut self, field: &str, names: &ServerNames, seen: &mut HashSet<String>) {
        self.known_cluster(|| format!("{field}.cluster"), &names.cluster);
        self.require(!names.names.is_empty(), || format!("{field}.names"), || "is empty".into());
        for (index, name) in names.names.iter().enumerate() {
            let at = || format!("{field}.names[{index}]");
            self.require(is_server_name(name), at, || format!("`{name}` is not HOST, *.HOST or *"));
            self.require(seen.insert(name.to_ascii_lowercase()), at, || format!("`{name}` is there twice"));
        }
    }

    fn known_cluster(&mut self, field: impl FnOnce() -> String, cluster: &str) {
        let known = self.names.clusters.contains(cluster);
        self.require(known, field, || format!("there is no cluster `{cluster}`"));
    }
}

/// A host name as TLS has it (RFC 6066 section 3), or a wildcard for what stands before one.
fn is_server_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    name == "*" || (!host.is_empty() && host.len() <= 253 && host.bytes().all(legal))
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let special = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || special(byte))
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f))
}

/// Visible ASCII: may stand in a request target, host or location.
fn is_target(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Fields which the proxy itself must decide, or messages would become ambiguous.
fn is_framing(name: &str) -> bool {
    ["connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"]
        .iter()
        .any(|framing| framing.eq_ignore_ascii_case(name))
}

fn is_domain(domain: &str) -> bool {
    let inner = domain.strip_prefix('*').unwrap_or(domain);
    let inner = if inner.len() == domain.len() { inner.strip_suffix('*').unwrap_or(inner) } else { inner };
    domain == "*" || (!inner.is_empty() && !inner.contains('*') && is_target(inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightedCluster;

    fn forward_to(cluster: &str) -> Route {
        let clusters = vec![WeightedCluster { cluster: cluster.into(), weight: 1 }];
        Route {
            name: String::new(),
            matches: RouteMatch::default(),
            action: RouteAction::Forward(Forward { clusters, ..Default::default() }),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
        }
    }

    fn table(domains: &[&str], routes: Vec<Route>) -> ProxyConfig {
        let domains = domains.iter().map(|&domain| domain.into()).collect();
        let hosts = vec![VirtualHost { name: "h".into(), domains, routes }];
        ProxyConfig { route_tables: vec![RouteTable { name: "t".into(), hosts }], ..Default::default() }
    }

    fn problems(config: &ProxyConfig) -> Vec<String> {
        validate(config).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn domains_have_at_most_one_star_at_an_end() {
        assert!(problems(&table(&["a.b", "*.b", "a.*", "*", "*-x.b"], vec![])).is_empty());
        for wrong in ["a*b", "*a*", "", "a b", "**"] {
            assert_eq!(problems(&table(&[wrong], vec![])).len(), 1, "{wrong}");
        }
        assert!(problems(&table(&["A.b", "a.B"], vec![]))[0].contains("twice"));
    }

    #[test]
    fn what_encryption_refers_to_must_be_there() {
        let text = |secrets: &str| {
            format!(
                "{{secrets: [{secrets}], clusters: [{{name: c, tls: {{certificate: me, trust: roots}}, \
                 endpoints: [{{address: '127.0.0.1:1', tls: true}}]}}]}}"
            )
        };
        let both = "{name: me, certificate: {chain: {file: a}, key: {file: b}}}, {name: roots, trust: {file: c}}";
        assert!(crate::from_yaml(&text(both)).is_ok(), "{:?}", crate::from_yaml(&text(both)));
        assert!(crate::from_yaml(&text("{name: me}, {name: roots}")).is_ok());
        let error = crate::from_yaml(&text("{name: roots, certificate: {chain: {file: a}, key: {file: b}}}"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`me`") && error.contains("`roots`"), "{error}");
        let error = crate::from_yaml("clusters: [{name: c, endpoints: [{address: '127.0.0.1:1', tls: true}]}]");
        assert!(error.unwrap_err().to_string().contains("clusters[0].endpoints[0].tls"));
    }

    #[test]
    fn bytes_go_only_to_clusters_that_are_there() {
        let text = |listener: &str| {
            format!("{{listeners: [{{name: l, bind: '127.0.0.1:1', {listener}}}], clusters: [{{name: c}}]}}")
        };
        for right in [
            "protocol: Tcp, routes: c",
            "protocol: Tcp, routes: '', serverNames: [{names: [a.b, '*.b', '*'], cluster: c}]",
        ] {
            assert!(crate::from_yaml(&text(right)).is_ok(), "{right}: {:?}", crate::from_yaml(&text(right)));
        }
        for (wrong, told) in [
            ("protocol: Tcp, routes: ''", "listeners[0].routes"),
            ("protocol: Tcp, routes: c, tcpCluster: c", "`routes` names the cluster"),
            ("protocol: Tcp, routes: c, serverNames: [{names: [a], cluster: d}]", "no cluster `d`"),
            ("protocol: Tcp, routes: c, serverNames: [{names: ['a*'], cluster: c}]", "names[0]: `a*`"),
            ("protocol: Tcp, routes: c, serverNames: [{names: [a, A], cluster: c}]", "`A` is there twice"),
            ("protocol: Tcp, routes: c, serverNames: [{names: [], cluster: c}]", "names: is empty"),
            ("protocol: Tcp, routes: c, originalDestination: true, bindToPort: false", "bindToPort"),
        ] {
            let error = crate::from_yaml(&text(wrong)).unwrap_err().to_string();
            assert!(error.contains(told), "{wrong}: {error}");
        }
        let error =
            crate::from_yaml("clusters: [{name: c, originalDestination: true, endpoints: [{address: '127.0.0.1:1'}]}]");
        assert!(error.unwrap_err().to_string().contains("clusters[0].endpoints"));
    }

    #[test]
    fn endpoints_are_asked_only_what_they_can_be_asked() {
        let text = |check: &str, protocol: &str| {
            format!("clusters: [{{name: c, protocol: {protocol}, healthCheck: {{{check}}}}}]")
        };
        for (right, protocol) in [
            ("probe: tcp", "Bolt"),
            ("probe: {http: {path: '/healthz?x'}}, intervalMs: 250", "Http1"),
            ("probe: {grpc: {service: a.B, host: 'b:1'}}, timeoutMs: 10", "Http2"),
        ] {
            let read = crate::from_yaml(&text(right, protocol));
            assert!(read.is_ok(), "{right}: {read:?}");
        }
        for (wrong, told) in [
            ("probe: {grpc: {}}", "protocol Http2"),
            ("probe: {http: {path: healthz}}", "`healthz` is not a path"),
            ("probe: {http: {path: /, host: 'a b'}}", "`a b` is not a host"),
            ("probe: tcp, unhealthyThreshold: 0", "healthCheck.unhealthyThreshold"),
        ] {
            let error = crate::from_yaml(&text(wrong, "Http1")).unwrap_err().to_string();
            assert!(error.contains(told), "{wrong}: {error}");
        }
    }

    #[test]
    fn every_problem_is_reported() {
        let mut route = forward_to("nowhere");
        route.matches.path = PathMatch::Regex("(".into());
        route.request_headers.set.push(("content-length".into(), "1".into()));
        assert_eq!(problems(&table(&["*"], vec![route])).len(), 3);
    }

    #[test]
    fn headers_cannot_smuggle_lines() {
        let mut route = forward_to("nowhere");
        route.response_headers.add.push(("x".into(), "a\r\nb: c".into()));
        assert!(problems(&table(&["*"], vec![route])).iter().any(|problem| problem.contains("responseHeaders")));
    }
}
