//! What a request must look like: paths, headers, query parameters.

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch as Proto};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use weir_config::{PathMatch, RouteMatch, StringMatch, ValueMatch};

use super::error::{ConvertError, Result, Under, each, refuse};

const ABSENT: &str = "is absent or of a kind that this proxy does not know";

pub(super) fn route_match(proto: &Proto) -> Result<RouteMatch> {
    refuse(is_sampled(proto), "runtime_fraction")?;
    refuse(!proto.cookies.is_empty(), "cookies")?;
    refuse(!proto.dynamic_metadata.is_empty(), "dynamic_metadata")?;
    refuse(!proto.filter_state.is_empty(), "filter_state")?;
    let mut headers = each("headers", &proto.headers, header)?;
    let method = take_method(&mut headers);
    if proto.grpc.is_some() {
        headers.push(grpc());
    }
    Ok(RouteMatch {
        path: path(proto)?,
        method,
        headers,
        query: each("query_parameters", &proto.query_parameters, query)?,
        certificate: certificate(proto).under("tls_context")?,
    })
}

/// A certificate that is shown has been verified here: a handshake with another fails.
fn certificate(proto: &Proto) -> Result<Option<bool>> {
    let Some(context) = &proto.tls_context else { return Ok(None) };
    let [presented, validated] = [&context.presented, &context.validated].map(|flag| flag.map(|flag| flag.value));
    refuse(validated == Some(false), "validated")?;
    refuse(presented == Some(false) && validated == Some(true), "presented")?;
    Ok(presented.or(validated))
}

/// True if only a share of the requests is to match.
fn is_sampled(proto: &Proto) -> bool {
    let fraction = proto.runtime_fraction.as_ref().and_then(|fraction| fraction.default_value);
    fraction.is_some_and(|fraction| {
        let whole = match fraction.denominator() {
            DenominatorType::Hundred => 100,
            DenominatorType::TenThousand => 10_000,
            DenominatorType::Million => 1_000_000,
        };
        fraction.numerator < whole
    })
}

/// An exact `:method` has a place of its own, which is cheaper to test.
fn take_method(headers: &mut Vec<ValueMatch>) -> Option<String> {
    let is_method = |matcher: &ValueMatch| {
        matcher.name == ":method" && !matcher.invert && matches!(matcher.value, StringMatch::Exact(_))
    };
    let index = headers.iter().position(is_method)?;
    match headers.swap_remove(index).value {
        StringMatch::Exact(method) => Some(method),
        _ => None,
    }
}

/// Requests of gRPC by their content type, as Envoy tells them.
fn grpc() -> ValueMatch {
    ValueMatch { name: "content-type".into(), value: StringMatch::Prefix("application/grpc".into()), invert: false }
}

fn path(proto: &Proto) -> Result<PathMatch> {
    let exact_case = proto.case_sensitive.is_none_or(|sensitive| sensitive.value);
    match &proto.path_specifier {
        // A kind of a later version reads as absent, and must not match everything.
        None => Err(ConvertError::at("path_specifier", ABSENT)),
        Some(PathSpecifier::Prefix(prefix)) if exact_case => Ok(prefix_match(prefix)),
        Some(PathSpecifier::Path(path)) if exact_case => Ok(PathMatch::Exact(path.clone())),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) if exact_case => Ok(PathMatch::Segments(prefix.clone())),
        Some(PathSpecifier::Prefix(prefix)) => Ok(PathMatch::Regex(format!("{}.*", any_case(prefix)))),
        Some(PathSpecifier::Path(path)) => Ok(PathMatch::Regex(any_case(path))),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => Ok(PathMatch::Regex(format!("{}(/.*)?", any_case(prefix)))),
        Some(PathSpecifier::SafeRegex(regex)) => Ok(PathMatch::Regex(regex.regex.clone())),
        Some(PathSpecifier::ConnectMatcher(_)) => Err(ConvertError::unsupported("connect_matcher")),
        Some(PathSpecifier::PathMatchPolicy(_)) => Err(ConvertError::unsupported("path_match_policy")),
    }
}

/// Envoy takes an empty prefix for "any path".
fn prefix_match(prefix: &str) -> PathMatch {
    PathMatch::Prefix(if prefix.is_empty() { "/".into() } else { prefix.to_owned() })
}

fn any_case(literal: &str) -> String {
    format!("(?i:{})", regex::escape(literal))
}

fn header(proto: &HeaderMatcher) -> Result<ValueMatch> {
    refuse(proto.treat_missing_header_as_empty, "treat_missing_header_as_empty")?;
    Ok(ValueMatch { name: proto.name.clone(), value: header_value(proto)?, invert: proto.invert_match })
}

#[allow(deprecated)] // older control planes still use the fields that StringMatch replaced
fn header_value(proto: &HeaderMatcher) -> Result<StringMatch> {
    match &proto.header_match_specifier {
        None => Err(ConvertError::at("header_match_specifier", ABSENT)),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => Ok(StringMatch::Exact(text.clone())),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => Ok(StringMatch::Prefix(text.clone())),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => Ok(StringMatch::Suffix(text.clone())),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => Ok(StringMatch::Contains(text.clone())),
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => Ok(StringMatch::Regex(regex.regex.clone())),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => Ok(StringMatch::Present(*present)),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => string(matcher).under("string_match"),
        Some(HeaderMatchSpecifier::RangeMatch(_)) => Err(ConvertError::unsupported("range_match")),
    }
}

fn query(proto: &QueryParameterMatcher) -> Result<ValueMatch> {
    let value = match &proto.query_parameter_match_specifier {
        None => return Err(ConvertError::at("query_parameter_match_specifier", ABSENT)),
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => StringMatch::Present(*present),
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => string(matcher).under("string_match")?,
    };
    Ok(ValueMatch { name: proto.name.clone(), value, invert: false })
}

fn string(proto: &StringMatcher) -> Result<StringMatch> {
    let lazy = |text: &String, exact: fn(String) -> StringMatch, pattern: &dyn Fn(String) -> String| {
        if proto.ignore_case { StringMatch::Regex(pattern(any_case(text))) } else { exact(text.clone()) }
    };
    match &proto.match_pattern {
        Some(MatchPattern::Exact(text)) => Ok(lazy(text, StringMatch::Exact, &|text| text)),
        Some(MatchPattern::Prefix(text)) => Ok(lazy(text, StringMatch::Prefix, &|text| format!("{text}.*"))),
        Some(MatchPattern::Suffix(text)) => Ok(lazy(text, StringMatch::Suffix, &|text| format!(".*{text}"))),
        Some(MatchPattern::Contains(text)) => Ok(lazy(text, StringMatch::Contains, &|text| format!(".*{text}.*"))),
        Some(MatchPattern::SafeRegex(regex)) => Ok(StringMatch::Regex(regex.regex.clone())),
        Some(MatchPattern::Custom(_)) => Err(ConvertError::unsupported("custom")),
        None => Err(ConvertError::here("has no pattern that this proxy knows")),
    }
}
