//! RouteConfiguration: virtual hosts, routes and what they do.

mod headers;
mod retry;

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HashPolicy, HostRewriteSpecifier};
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route as RouteProto, RouteAction as RouteActionProto, RouteConfiguration,
    VirtualHost as VirtualHostProto, WeightedCluster as WeightedClusterProto, weighted_cluster::ClusterWeight,
};
use weir_config::{
    Cluster, Forward, HashKey, ProxyConfig, Redirect, Respond, Route, RouteAction, RouteTable, VirtualHost,
    WeightedCluster,
};

use super::error::{ConvertError, Result, Under, each, refuse};
use super::{matcher, optional_millis, validated};

pub(super) fn table(proto: RouteConfiguration) -> Result<Arc<RouteTable>> {
    refuse(proto.vhds.is_some(), "vhds")?;
    refuse(!proto.vhost_header.is_empty(), "vhost_header")?;
    let hosts = each("virtual_hosts", &proto.virtual_hosts, |host| virtual_host(&proto, host))?;
    let table = RouteTable { name: proto.name, hosts };
    validated(&alone(&table))?;
    Ok(Arc::new(table))
}

/// Names of the clusters that a table sends to.
pub(crate) fn clusters_of(table: &RouteTable) -> BTreeSet<&str> {
    let routes = table.hosts.iter().flat_map(|host| &host.routes);
    let forwards = routes.filter_map(|route| match &route.action {
        RouteAction::Forward(forward) => Some(forward),
        _ => None,
    });
    forwards.flat_map(|forward| forward.clusters.iter().map(|target| target.cluster.as_str())).collect()
}

/// A configuration in which every cluster that the table names exists, to judge the table by itself.
fn alone(table: &RouteTable) -> ProxyConfig {
    let clusters = clusters_of(table).into_iter().map(empty_cluster).collect();
    ProxyConfig { route_tables: vec![table.clone()], clusters, ..Default::default() }
}

/// A cluster without endpoints: requests to it are answered 503.
pub(crate) fn empty_cluster(name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        protocol: Default::default(),
        balance: Default::default(),
        endpoints: Vec::new(),
        original_destination: false,
        returning: false,
        connect_timeout_ms: 1_000,
        limits: Default::default(),
        health_check: None,
        tls: None,
    }
}

fn virtual_host(table: &RouteConfiguration, proto: &VirtualHostProto) -> Result<VirtualHost> {
    refuse(proto.require_tls != TlsRequirementType::None as i32, "require_tls")?;
    refuse(proto.matcher.is_some(), "matcher")?;
    let routes = each("routes", &proto.routes, |item| route(table, proto, item))?;
    Ok(VirtualHost { name: proto.name.clone(), domains: proto.domains.clone(), routes })
}

fn route(table: &RouteConfiguration, host: &VirtualHostProto, proto: &RouteProto) -> Result<Route> {
    let matches = match &proto.r#match {
        Some(matches) => matcher::route_match(matches).under("match")?,
        None => return Err(ConvertError::at("match", "is absent")),
    };
    Ok(Route {
        name: proto.name.clone(),
        matches,
        action: action(host, proto)?,
        request_headers: headers::request(table, host, proto)?,
        response_headers: headers::response(table, host, proto)?,
    })
}

fn action(host: &VirtualHostProto, proto: &RouteProto) -> Result<RouteAction> {
    match &proto.action {
        Some(Action::Route(action)) => forward(host, action).under("route").map(RouteAction::Forward),
        Some(Action::Redirect(action)) => redirect(action).under("redirect").map(RouteAction::Redirect),
        Some(Action::DirectResponse(action)) => respond(action).under("direct_response").map(RouteAction::Respond),
        Some(Action::FilterAction(_)) => Err(ConvertError::unsupported("filter_action")),
        Some(Action::NonForwardingAction(_)) => Err(ConvertError::unsupported("non_forwarding_action")),
        None => Err(ConvertError::at("action", "is absent or of a kind that this proxy does not know")),
    }
}

fn forward(host: &VirtualHostProto, proto: &RouteActionProto) -> Result<Forward> {
    refuse(proto.metadata_match.is_some(), "metadata_match")?;
    refuse(proto.regex_rewrite.is_some(), "regex_rewrite")?;
    refuse(proto.path_rewrite_policy.is_some(), "path_rewrite_policy")?;
    refuse(!proto.path_rewrite.is_empty(), "path_rewrite")?;
    refuse(proto.internal_redirect_policy.is_some(), "internal_redirect_policy")?;
    Ok(Forward {
        clusters: targets(proto)?,
        timeout_ms: optional_millis(proto.timeout.as_ref(), "timeout")?,
        retry: retry::retry(host, proto)?,
        prefix_rewrite: Some(proto.prefix_rewrite.clone()).filter(|prefix| !prefix.is_empty()),
        host_rewrite: host_rewrite(proto)?,
        hash_on: each("hash_policy", &proto.hash_policy, hash_key)?.into_iter().flatten().collect(),
        upgrades: upgrades(proto),
    })
}

/// Upgrades pass unless the route switches them off: a sidecar must not break what worked without it.
fn upgrades(proto: &RouteActionProto) -> bool {
    let websocket = |kind: &str| kind.eq_ignore_ascii_case("websocket");
    let config = proto.upgrade_configs.iter().find(|config| websocket(&config.upgrade_type));
    config.and_then(|config| config.enabled).is_none_or(|enabled| enabled.value)
}

fn targets(proto: &RouteActionProto) -> Result<Vec<WeightedCluster>> {
    match &proto.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok(vec![WeightedCluster { cluster: name.clone(), weight: 1 }]),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weights(weighted).under("weighted_clusters"),
        Some(ClusterSpecifier::ClusterHeader(_)) => Err(ConvertError::unsupported("cluster_header")),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => Err(ConvertError::unsupported("cluster_specifier_plugin")),
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(ConvertError::unsupported("inline_cluster_specifier_plugin"))
        }
        None => Err(ConvertError::at("cluster_specifier", "is absent or of a kind that this proxy does not know")),
    }
}

fn weights(proto: &WeightedClusterProto) -> Result<Vec<WeightedCluster>> {
    each("clusters", &proto.clusters, |item: &ClusterWeight| {
        refuse(!item.cluster_header.is_empty(), "cluster_header")?;
        refuse(item.metadata_match.is_some(), "metadata_match")?;
        refuse(!item.request_headers_to_add.is_empty(), "request_headers_to_add")?;
        refuse(!item.request_headers_to_remove.is_empty(), "request_headers_to_remove")?;
        refuse(!item.response_headers_to_add.is_empty(), "response_headers_to_add")?;
        refuse(!item.response_headers_to_remove.is_empty(), "response_headers_to_remove")?;
        refuse(item.host_rewrite_specifier.is_some(), "host_rewrite_literal")?;
        Ok(WeightedCluster { cluster: item.name.clone(), weight: item.weight.map_or(0, |weight| weight.value) })
    })
}

fn host_rewrite(proto: &RouteActionProto) -> Result<Option<String>> {
    match &proto.host_rewrite_specifier {
        None => Ok(None),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Ok(Some(host.clone())),
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) if !auto.value => Ok(None),
        Some(HostRewriteSpecifier::AutoHostRewrite(_)) => Err(ConvertError::unsupported("auto_host_rewrite")),
        Some(HostRewriteSpecifier::HostRewriteHeader(_)) => Err(ConvertError::unsupported("host_rewrite_header")),
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            Err(ConvertError::unsupported("host_rewrite_path_regex"))
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => Err(ConvertError::unsupported("host_rewrite")),
    }
}

/// A key that this build does not know is left out: balancing is less sticky, not wrong.
fn hash_key(proto: &HashPolicy) -> Result<Option<HashKey>> {
    Ok(match &proto.policy_specifier {
        Some(PolicySpecifier::Header(header)) => Some(HashKey::Header(header.header_name.clone())),
        Some(PolicySpecifier::Cookie(cookie)) => Some(HashKey::Cookie(cookie.name.clone())),
        Some(PolicySpecifier::QueryParameter(query)) => Some(HashKey::Query(query.name.clone())),
        Some(PolicySpecifier::ConnectionProperties(connection)) if connection.source_ip => Some(HashKey::SourceIp),
        _ => None,
    })
}

fn redirect(proto: &RedirectAction) -> Result<Redirect> {
    refuse(proto.strip_query, "strip_query")?;
    refuse(proto.port_redirect != 0 && proto.host_redirect.is_empty(), "port_redirect without host_redirect")?;
    let port = if proto.port_redirect == 0 { String::new() } else { format!(":{}", proto.port_redirect) };
    Ok(Redirect {
        status: redirect_status(proto.response_code)?,
        scheme: scheme(proto),
        host: Some(&proto.host_redirect).filter(|host| !host.is_empty()).map(|host| format!("{host}{port}")),
        path: redirect_path(proto)?,
    })
}

/// The enumeration of `RedirectAction.RedirectResponseCode` in its order.
fn redirect_status(code: i32) -> Result<u16> {
    let known = [301, 302, 303, 307, 308];
    let status = usize::try_from(code).ok().and_then(|index| known.get(index));
    status.copied().ok_or_else(|| ConvertError::at("response_code", format!("{code} is not known to this proxy")))
}

fn scheme(proto: &RedirectAction) -> Option<String> {
    match &proto.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.clone()),
        _ => None,
    }
}

fn redirect_path(proto: &RedirectAction) -> Result<Option<String>> {
    match &proto.path_rewrite_specifier {
        None => Ok(None),
        Some(PathRewriteSpecifier::PathRedirect(path)) => Ok(Some(path.clone())),
        Some(PathRewriteSpecifier::PrefixRewrite(_)) => Err(ConvertError::unsupported("prefix_rewrite")),
        Some(PathRewriteSpecifier::RegexRewrite(_)) => Err(ConvertError::unsupported("regex_rewrite")),
        Some(PathRewriteSpecifier::PathRewrite(_)) => Err(ConvertError::unsupported("path_rewrite")),
    }
}

fn respond(proto: &DirectResponseAction) -> Result<Respond> {
    refuse(proto.body_format.is_some(), "body_format")?;
    let status = u16::try_from(proto.status).map_err(|_| ConvertError::at("status", "is not an HTTP status"))?;
    let body = match proto.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        None => String::new(),
        Some(Specifier::InlineString(text)) => text.clone(),
        Some(Specifier::InlineBytes(bytes)) => {
            String::from_utf8(bytes.clone()).map_err(|_| ConvertError::at("body", "is not UTF-8"))?
        }
        Some(_) => return Err(ConvertError::at("body", "must be inline: files and variables are not read")),
    };
    Ok(Respond { status, body })
}
