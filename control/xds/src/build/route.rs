//! Route configurations: an app's Route resources in Envoy's terms.
//!
//! Routes with host names become virtual hosts of their own, tried first; the rules of Routes without host names follow
//! in every virtual host, and the app itself comes last, so a request that no rule matches is still answered.
//! Among Routes, the order is that of their names; within a Route, that of its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{DataSource, HeaderValue, HeaderValueOption, data_source};
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Header, PolicySpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HashPolicy, MaxStreamDuration};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf as wkt;
use weir_model::AppSpec;
use weir_model::RouteSpec;
use weir_model::app::{Balance, Protocol};
use weir_model::route::{Backend, PathMatch, PathMatchType, RouteMatch, RouteRetry, Rule, ValueMatch, ValueMatchType};

use super::{baggage, millis, uint};
use crate::names;
use crate::resource::Resource;
use crate::world::Refusal;

/// Failures after which the upstream surely has not processed the request.
const SAFE_RETRIES: &str = "connect-failure,refused-stream";
/// Name of the routes that refuse plaintext, by which metrics tell how much they do.
const PLAINTEXT_REFUSED: &str = "plaintext_refused";
/// Methods that may be repeated (RFC 9110, 9.2.2).
const IDEMPOTENT: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";

/// The route configuration `outbound|APP`.
pub fn outbound(app: &str, spec: &AppSpec, routes: &[&RouteSpec]) -> Arc<Resource> {
    let name = names::outbound(app);
    let builder = Builder { app, spec };
    let hosts = builder.virtual_hosts(routes);
    Resource::new(name.clone(), &configuration(&name, hosts))
}

/// The route configuration `inbound`: everything to the local application; the caller's side times and retries. `refusal`:
/// what is refused of a caller who has not shown a certificate, where that is not the same for all.
pub fn inbound(app_port: u16, refusal: Option<&Refusal>) -> Arc<Resource> {
    let action = route::RouteAction {
        timeout: millis(0),
        cluster_specifier: Some(ClusterSpecifier::Cluster(names::inbound_cluster(app_port))),
        ..Default::default()
    };
    let interfaces = refusal.into_iter().flat_map(|refusal| &refusal.interfaces);
    let mut routes: Vec<_> =
        interfaces.flat_map(|(path, refused)| local_routes(below(path), *refused, &action)).collect();
    routes.extend(local_routes(any_path(), refusal.is_some_and(|refusal| refusal.others), &action));
    let host = virtual_host("local", "*", routes);
    Resource::new(names::INBOUND, &configuration(names::INBOUND, vec![host]))
}

/// To the local application; `refused`: unless the caller has shown no certificate.
fn local_routes(r#match: route::RouteMatch, refused: bool, action: &route::RouteAction) -> Vec<route::Route> {
    if !refused {
        return vec![one_route(r#match, action.clone())];
    }
    let tls_context = route::route_match::TlsContextMatchOptions {
        presented: Some(wkt::BoolValue { value: true }),
        ..Default::default()
    };
    let known = route::RouteMatch { tls_context: Some(tls_context), ..r#match.clone() };
    let body = text("plaintext is refused here\n");
    let refusal = route::DirectResponseAction { status: 403, body, ..Default::default() };
    let refusal = route::Route {
        name: PLAINTEXT_REFUSED.to_owned(),
        r#match: Some(r#match),
        action: Some(Action::DirectResponse(refusal)),
        ..Default::default()
    };
    vec![one_route(known, action.clone()), refusal]
}

fn text(text: &str) -> Option<DataSource> {
    let specifier = data_source::Specifier::InlineString(text.to_owned());
    Some(DataSource { specifier: Some(specifier), ..Default::default() })
}

/// A path and what is below it.
fn below(path: &str) -> route::RouteMatch {
    route::RouteMatch {
        path_specifier: Some(PathSpecifier::PathSeparatedPrefix(path.to_owned())),
        ..Default::default()
    }
}

/// Every cluster that calls of `app` may be sent to.
pub fn clusters_used(app: &str, routes: &[&RouteSpec]) -> BTreeSet<String> {
    let backends = routes.iter().flat_map(|r| &r.rules).flat_map(|rule| &rule.backends);
    let mut used: BTreeSet<String> = backends.map(cluster_name).collect();
    used.insert(app.to_owned());
    used
}

/// The longest timeout that a rule sets, milliseconds; 0: none does.
pub fn longest_timeout(routes: &[&RouteSpec]) -> u64 {
    routes.iter().flat_map(|route| &route.rules).filter_map(|rule| rule.timeout_ms).max().unwrap_or(0)
}

fn cluster_name(backend: &Backend) -> String {
    names::cluster(&backend.app, &backend.group)
}

fn configuration(name: &str, virtual_hosts: Vec<route::VirtualHost>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

fn virtual_host(name: &str, domain: &str, routes: Vec<route::Route>) -> route::VirtualHost {
    route::VirtualHost { name: name.to_owned(), domains: vec![domain.to_owned()], routes, ..Default::default() }
}

fn one_route(r#match: route::RouteMatch, action: route::RouteAction) -> route::Route {
    route::Route { r#match: Some(r#match), action: Some(Action::Route(action)), ..Default::default() }
}

fn any_path() -> route::RouteMatch {
    route::RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

struct Builder<'a> {
    app: &'a str,
    spec: &'a AppSpec,
}

impl Builder<'_> {
    fn virtual_hosts(&self, routes: &[&RouteSpec]) -> Vec<route::VirtualHost> {
        let mut by_host: BTreeMap<&str, Vec<route::Route>> = BTreeMap::new();
        for route in routes {
            for host in &route.hostnames {
                by_host.entry(host).or_default().extend(self.rules(route));
            }
        }
        let mut rest: Vec<route::Route> =
            routes.iter().filter(|r| r.hostnames.is_empty()).flat_map(|r| self.rules(r)).collect();
        rest.push(self.default_route());
        let mut hosts: Vec<route::VirtualHost> = by_host
            .into_iter()
            .filter(|(host, _)| *host != "*")
            .map(|(host, own)| virtual_host(host, host, own.into_iter().chain(rest.clone()).collect()))
            .collect();
        hosts.push(virtual_host(self.app, "*", rest));
        hosts
    }

    fn default_route(&self) -> route::Route {
        let action = self.action(&Rule::default(), ClusterSpecifier::Cluster(self.app.to_owned()));
        one_route(any_path(), action)
    }

    fn rules(&self, route: &RouteSpec) -> Vec<route::Route> {
        route.rules.iter().flat_map(|rule| self.rule(rule)).collect()
    }

    fn rule(&self, rule: &Rule) -> Vec<route::Route> {
        let any = [RouteMatch::default()];
        let matches = if rule.matches.is_empty() { &any[..] } else { &rule.matches[..] };
        let routes = |m: &RouteMatch| -> Vec<route::Route> {
            matchers(m).into_iter().flat_map(|matcher| self.routes_for(rule, m.method.as_deref(), matcher)).collect()
        };
        matches.iter().flat_map(routes).collect()
    }

    /// A retry that is right for idempotent methods only gets a route of its own, before the one for the others:
    /// xDS's retry policy knows no methods.
    fn routes_for(&self, rule: &Rule, method: Option<&str>, matcher: route::RouteMatch) -> Vec<route::Route> {
        let main = self.route(rule, matcher);
        let repeats = rule.retry.as_ref().is_some_and(|r| r.on_reset || r.on_gateway_error);
        match method {
            Some(method) if repeats && is_idempotent(method) => vec![with_repeats(main, rule)],
            None if repeats => vec![idempotent_only(with_repeats(main.clone(), rule)), main],
            _ => vec![main],
        }
    }

    fn route(&self, rule: &Rule, r#match: route::RouteMatch) -> route::Route {
        route::Route {
            request_headers_to_add: rule.set_headers.iter().map(|(name, value)| set_header(name, value)).collect(),
            request_headers_to_remove: rule.remove_headers.clone(),
            ..one_route(r#match, self.action(rule, destination(&rule.backends)))
        }
    }

    fn action(&self, rule: &Rule, to: ClusterSpecifier) -> route::RouteAction {
        let is_grpc = self.spec.protocol == Protocol::Grpc;
        let default_timeout = if is_grpc { 0 } else { self.spec.timeout_ms };
        // A gRPC call carries its own deadline, and a stream may live for days.
        let by_deadline = MaxStreamDuration { grpc_timeout_header_max: millis(0), ..Default::default() };
        route::RouteAction {
            cluster_specifier: Some(to),
            timeout: millis(rule.timeout_ms.unwrap_or(default_timeout)),
            max_stream_duration: is_grpc.then_some(by_deadline),
            retry_policy: Some(retry_policy(rule.retry.as_ref(), SAFE_RETRIES)),
            hash_policy: self.hash_policy(),
            ..Default::default()
        }
    }

    fn hash_policy(&self) -> Vec<HashPolicy> {
        if self.spec.balance != Balance::RingHash {
            return Vec::new();
        }
        let header = &self.spec.hash_header;
        let by_header = Header { header_name: header.clone(), ..Default::default() };
        let by_header = (!header.is_empty()).then_some(PolicySpecifier::Header(by_header));
        let by_address = PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true });
        let policy = |specifier| HashPolicy { policy_specifier: Some(specifier), terminal: true };
        by_header.into_iter().chain([by_address]).map(policy).collect()
    }
}

fn with_repeats(mut route: route::Route, rule: &Rule) -> route::Route {
    if let (Some(Action::Route(action)), Some(retry)) = (&mut route.action, &rule.retry) {
        let mut on = SAFE_RETRIES.to_owned();
        on.push_str(if retry.on_reset { ",reset" } else { "" });
        on.push_str(if retry.on_gateway_error { ",gateway-error" } else { "" });
        action.retry_policy = Some(retry_policy(Some(retry), &on));
    }
    route
}

fn idempotent_only(mut route: route::Route) -> route::Route {
    if let Some(matcher) = &mut route.r#match {
        matcher.headers.push(header(":method", MatchPattern::SafeRegex(regex(IDEMPOTENT))));
    }
    route
}

fn retry_policy(retry: Option<&RouteRetry>, on: &str) -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: on.to_owned(),
        num_retries: uint(retry.map_or(1, |r| r.attempts)),
        per_try_timeout: retry.and_then(|r| r.per_try_timeout_ms).and_then(millis),
        ..Default::default()
    }
}

fn destination(backends: &[Backend]) -> ClusterSpecifier {
    if let [only] = backends {
        return ClusterSpecifier::Cluster(cluster_name(only));
    }
    let weigh = |b: &Backend| ClusterWeight { name: cluster_name(b), weight: uint(b.weight), ..Default::default() };
    let clusters = backends.iter().map(weigh).collect();
    ClusterSpecifier::WeightedClusters(route::WeightedCluster { clusters, ..Default::default() })
}

/// One match; two where a path prefix of whole segments (`/a`) is the path itself or one below it (`/a/`). Envoy has
/// `path_separated_prefix` for that, but gRPC's client does not know it.
fn matchers(r#match: &RouteMatch) -> Vec<route::RouteMatch> {
    let mut headers: Vec<route::HeaderMatcher> = r#match.headers.iter().map(header_matcher).collect();
    if let Some(method) = &r#match.method {
        headers.push(header(":method", MatchPattern::Exact(method.clone())));
    }
    headers.extend(
        r#match
            .labels
            .iter()
            .map(|(name, value)| header("baggage", MatchPattern::SafeRegex(regex(&baggage::expression(name, value))))),
    );
    let query_parameters: Vec<_> = r#match.query_params.iter().map(query_matcher).collect();
    let with_path = |path| route::RouteMatch {
        headers: headers.clone(),
        query_parameters: query_parameters.clone(),
        path_specifier: Some(path),
        ..Default::default()
    };
    paths(r#match.path.as_ref()).into_iter().map(with_path).collect()
}

fn paths(path: Option<&PathMatch>) -> Vec<PathSpecifier> {
    let Some(path) = path else { return vec![PathSpecifier::Prefix("/".to_owned())] };
    match path.r#type {
        PathMatchType::Exact => vec![PathSpecifier::Path(path.value.clone())],
        PathMatchType::RegularExpression => vec![PathSpecifier::SafeRegex(regex(&path.value))],
        PathMatchType::PathPrefix => match path.value.trim_end_matches('/') {
            "" => vec![PathSpecifier::Prefix("/".to_owned())],
            base => vec![PathSpecifier::Path(base.to_owned()), PathSpecifier::Prefix(format!("{base}/"))],
        },
    }
}

fn header_matcher(value: &ValueMatch) -> route::HeaderMatcher {
    match value.r#type {
        ValueMatchType::Exact => header(&value.name, MatchPattern::Exact(value.value.clone())),
        ValueMatchType::RegularExpression => header(&value.name, MatchPattern::SafeRegex(regex(&value.value))),
        ValueMatchType::Present => route::HeaderMatcher {
            name: value.name.clone(),
            header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
            ..Default::default()
        },
    }
}

fn header(name: &str, pattern: MatchPattern) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string(pattern))),
        ..Default::default()
    }
}

fn query_matcher(value: &ValueMatch) -> route::QueryParameterMatcher {
    let pattern = |p| QueryParameterMatchSpecifier::StringMatch(string(p));
    let specifier = match value.r#type {
        ValueMatchType::Exact => pattern(MatchPattern::Exact(value.value.clone())),
        ValueMatchType::RegularExpression => pattern(MatchPattern::SafeRegex(regex(&value.value))),
        ValueMatchType::Present => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    route::QueryParameterMatcher { name: value.name.clone(), query_parameter_match_specifier: Some(specifier) }
}

fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

fn regex(expression: &str) -> RegexMatcher {
    RegexMatcher { regex: expression.to_owned(), ..Default::default() }
}

fn set_header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..Default::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..Default::default()
    }
}

fn is_idempotent(method: &str) -> bool {
    IDEMPOTENT.split('|').any(|m| m == method)
}
