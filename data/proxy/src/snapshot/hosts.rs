//! Finding the virtual host of a request: exact names first, then `*.suffix` and `prefix.*`, the longest first.
//!
//! Each kind is a hash map, so the cost depends on how many *lengths* of wildcards there are, not on how many hosts.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

type Map = HashMap<Box<str>, usize, RandomState>;

/// Virtual hosts by domain.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: Map,
    suffixes: ByLength,
    prefixes: ByLength,
    any: Option<usize>,
}

/// Names by their length, the longest first.
#[derive(Debug, Default)]
struct ByLength(BTreeMap<std::cmp::Reverse<usize>, Map>);

impl ByLength {
    fn insert(&mut self, name: &str, host: usize) {
        self.0.entry(std::cmp::Reverse(name.len())).or_default().insert(name.into(), host);
    }

    fn find<'h>(&self, part: impl Fn(usize) -> Option<&'h str>) -> Option<usize> {
        self.0.iter().find_map(|(len, names)| names.get(part(len.0)?).copied())
    }
}

impl Hosts {
    /// Adds a domain, which validation has found well formed and unique.
    pub(super) fn insert(&mut self, domain: &str, host: usize) {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            self.any = Some(host);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.insert(suffix, host);
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.insert(prefix, host);
        } else {
            self.exact.insert(domain.as_str().into(), host);
        }
    }

    /// The virtual host for a request's host, with or without port.
    pub(super) fn find(&self, host: &str) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.0.is_empty() && self.prefixes.0.is_empty() {
            return self.any;
        }
        let host = lowercase(without_port(host));
        // A wildcard stands for at least one character.
        let suffix = |len: usize| (len < host.len()).then(|| host.get(host.len() - len..)).flatten();
        let prefix = |len: usize| (len < host.len()).then(|| host.get(..len)).flatten();
        let exact = self.exact.get(host.as_ref()).copied();
        exact.or_else(|| self.suffixes.find(suffix)).or_else(|| self.prefixes.find(prefix)).or(self.any)
    }
}

fn lowercase(host: &str) -> Cow<'_, str> {
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

/// The host without `:port`; a colon inside the brackets of an IPv6 address is not one.
fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_domain_wins() {
        let mut hosts = Hosts::default();
        let domains = ["a.b.c", "*.b.c", "*.c", "a.*", "a.b.*", "*", "*-x.c", "[::1]"];
        domains.iter().enumerate().for_each(|(index, domain)| hosts.insert(domain, index));
        for (host, domain) in [
            ("a.b.c", "a.b.c"),
            ("A.B.C:80", "a.b.c"),
            ("x.b.c", "*.b.c"),
            ("x.y.b.c", "*.b.c"),
            ("b.c", "*.c"),
            (".c", "*"),
            ("y-x.c", "*-x.c"),
            ("a.b.d", "a.b.*"),
            ("a.x", "a.*"),
            ("[::1]:80", "[::1]"),
            ("other", "*"),
            ("", "*"),
        ] {
            assert_eq!(domains[hosts.find(host).unwrap()], domain, "{host}");
        }
    }

    #[test]
    fn without_a_catch_all_others_are_not_found() {
        let mut hosts = Hosts::default();
        hosts.insert("a", 0);
        assert_eq!((hosts.find("a:1"), hosts.find("b")), (Some(0), None));
    }
}
