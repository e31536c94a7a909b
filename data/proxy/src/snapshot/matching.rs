//! Conditions on methods, headers and query parameters.

use std::borrow::Cow;

use regex::bytes::Regex;
use weir_config::{ConfigError, HashKey, RouteMatch, StringMatch, UpstreamProtocol, ValueMatch};

/// The fields of a request's head, whichever protocol brought it.
pub(crate) trait Fields {
    /// All values of a field, joined by commas if there are several (RFC 9110 section 5.3).
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// What a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// HTTP, of whichever version.
    Http,
    /// SOFABolt.
    Bolt,
    /// Dubbo 2.
    Dubbo,
}

impl Family {
    /// Whether a request can go to a cluster: HTTP is translated between its versions, nothing else is.
    pub(crate) fn reaches(self, cluster: UpstreamProtocol) -> bool {
        match cluster {
            UpstreamProtocol::Http1 | UpstreamProtocol::Http2 => self == Family::Http,
            UpstreamProtocol::Bolt => self == Family::Bolt,
            UpstreamProtocol::Dubbo => self == Family::Dubbo,
            UpstreamProtocol::SameAsDownstream => true,
        }
    }
}

/// What routing looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a, F> {
    pub(crate) family: Family,
    pub(crate) method: &'a str,
    /// With port, if it was sent.
    pub(crate) host: &'a str,
    /// With query, if there is one.
    pub(crate) path: &'a str,
    pub(crate) fields: &'a F,
    /// The caller has shown a certificate.
    pub(crate) has_certificate: bool,
}

impl<F: Fields> Request<'_, F> {
    /// The path without the query.
    pub(crate) fn path_only(&self) -> &str {
        self.path.split_once('?').map_or(self.path, |(path, _)| path)
    }

    fn field(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match name {
            ":method" => Some(Cow::Borrowed(self.method.as_bytes())),
            ":authority" => Some(Cow::Borrowed(self.host.as_bytes())),
            ":path" => Some(Cow::Borrowed(self.path.as_bytes())),
            ":scheme" => Some(Cow::Borrowed(b"http")),
            _ => self.fields.get(name),
        }
    }

    fn query(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let (_, query) = self.path.split_once('?')?;
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| decoded(key).as_ref() == name.as_bytes()).map(|(_, value)| decoded(value))
    }

    /// The value to hash for one key.
    pub(crate) fn hash_value(&self, key: &HashKey) -> Option<Cow<'_, [u8]>> {
        match key {
            HashKey::Header(name) => self.field(name),
            HashKey::Query(name) => self.query(name),
            HashKey::Cookie(name) => self.cookie(name),
            HashKey::SourceIp => None,
        }
    }

    fn cookie(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let cookies = self.fields.get("cookie")?;
        let mut pairs = cookies.split(|&byte| byte == b';' || byte == b',').map(<[u8]>::trim_ascii);
        let value = pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(Cow::Owned(value.to_vec()))
    }
}

/// Conditions of a route besides the literal path.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    method: Option<String>,
    path: Option<Regex>,
    headers: Vec<Condition>,
    query: Vec<Condition>,
    certificate: Option<bool>,
}

#[derive(Debug)]
struct Condition {
    name: String,
    value: Value,
    invert: bool,
}

#[derive(Debug)]
enum Value {
    Text(StringMatch),
    Regex(Regex),
}

impl Conditions {
    pub(super) fn compile(matches: &RouteMatch) -> Result<Self, ConfigError> {
        let path = match &matches.path {
            weir_config::PathMatch::Regex(pattern) => Some(whole(pattern)?),
            _ => None,
        };
        Ok(Conditions {
            method: matches.method.clone(),
            path,
            headers: matches.headers.iter().map(Condition::compile).collect::<Result<_, _>>()?,
            query: matches.query.iter().map(Condition::compile).collect::<Result<_, _>>()?,
            certificate: matches.certificate,
        })
    }

    pub(super) fn hold<F: Fields>(&self, request: &Request<'_, F>) -> bool {
        self.method.as_ref().is_none_or(|method| method == request.method)
            && self.certificate.is_none_or(|shown| shown == request.has_certificate)
            && self.path.as_ref().is_none_or(|path| path.is_match(request.path_only().as_bytes()))
            && self.headers.iter().all(|condition| condition.holds(request.field(&condition.name).as_deref()))
            && self.query.iter().all(|condition| condition.holds(request.query(&condition.name).as_deref()))
    }
}

impl Condition {
    fn compile(matcher: &ValueMatch) -> Result<Self, ConfigError> {
        let value = match &matcher.value {
            StringMatch::Regex(pattern) => Value::Regex(whole(pattern)?),
            text => Value::Text(text.clone()),
        };
        Ok(Condition { name: matcher.name.clone(), value, invert: matcher.invert })
    }

    fn holds(&self, value: Option<&[u8]>) -> bool {
        let holds = match (&self.value, value) {
            (Value::Text(StringMatch::Present(wanted)), value) => value.is_some() == *wanted,
            (_, None) => false,
            (Value::Regex(regex), Some(value)) => regex.is_match(value),
            (Value::Text(text), Some(value)) => text_matches(text, value),
        };
        holds != self.invert
    }
}

fn text_matches(text: &StringMatch, value: &[u8]) -> bool {
    match text {
        StringMatch::Exact(wanted) => value == wanted.as_bytes(),
        StringMatch::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
        StringMatch::Suffix(wanted) => value.ends_with(wanted.as_bytes()),
        StringMatch::Contains(wanted) => memchr::memmem::find(value, wanted.as_bytes()).is_some(),
        StringMatch::Present(_) | StringMatch::Regex(_) => false,
    }
}

/// A pattern for the whole value.
fn whole(pattern: &str) -> Result<Regex, ConfigError> {
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|error| ConfigError { field: "regex".into(), message: error.to_string() })
}

/// Percent-decoded; what is not an escape stays.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let (bytes, mut at) = (text.as_bytes(), 0);
    let mut out = Vec::with_capacity(bytes.len());
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (out.push(byte), at += 3).1,
            None => (out.push(bytes[at]), at += 1).1,
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoFields;

    impl Fields for NoFields {
        fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
            (name == "cookie").then_some(Cow::Borrowed(b"a=1; user=x"))
        }
    }

    fn request(path: &str) -> Request<'_, NoFields> {
        Request { family: Family::Http, method: "GET", host: "h", path, fields: &NoFields, has_certificate: false }
    }

    #[test]
    fn query_parameters_are_decoded() {
        let request = request("/p?a%62=c%20d&e&%zz=1");
        assert_eq!(request.query("ab").as_deref(), Some(&b"c d"[..]));
        assert_eq!(request.query("e").as_deref(), Some(&b""[..]));
        assert_eq!(request.query("%zz").as_deref(), Some(&b"1"[..]));
        assert_eq!(request.query("x"), None);
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        assert_eq!(request("/").cookie("user").as_deref(), Some(&b"x"[..]));
        assert_eq!(request("/").cookie("use"), None);
    }

    #[test]
    fn inverted_conditions_hold_for_what_is_absent() {
        let matcher = |invert| ValueMatch { name: "x".into(), value: StringMatch::Exact("1".into()), invert };
        assert!(!Condition::compile(&matcher(false)).unwrap().holds(None));
        assert!(Condition::compile(&matcher(true)).unwrap().holds(None));
    }

    #[test]
    fn a_regex_matches_the_whole_value() {
        let value = StringMatch::Regex("a|b".into());
        let condition = Condition::compile(&ValueMatch { name: "x".into(), value, invert: false }).unwrap();
        assert!(condition.holds(Some(b"a")) && !condition.holds(Some(b"ab")));
    }
}
