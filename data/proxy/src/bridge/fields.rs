//! Header fields as a map: to and from HTTP/1, without what concerns one hop only.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use weir_codec::http1::{Header, Known, is_nominated, known};
use weir_config::HeaderEdits;

use crate::snapshot::Fields;

/// A header map, as routing sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapFields<'a>(pub(crate) &'a HeaderMap);

impl Fields for MapFields<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.0.get_all(name).iter().map(HeaderValue::as_bytes);
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |joined, value| Cow::Owned([&joined, &b","[..], value].concat())))
    }
}

/// Removes fields that concern one hop only. `te: trailers` stays, since gRPC wants it end to end.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    headers.remove("http2-settings");
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

/// Trailers without fields that frame or route a message, or that say who the caller is: these may not come after it (RFC
/// 9110 section 6.5.1), and a next hop that joins them to the head would believe them.
pub(super) fn may_trail(mut trailers: HeaderMap) -> HeaderMap {
    let barred: Vec<HeaderName> =
        trailers.keys().filter(|name| known(name.as_str()) != Known::Other).cloned().collect();
    for name in barred {
        trailers.remove(name);
    }
    trailers
}

/// Sets a field to a value that is known to be valid.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Names the caller and its protocol.
pub(super) fn add_forwarded(headers: &mut HeaderMap, peer: Option<IpAddr>) {
    // Who the caller is, is told by its certificate alone.
    headers.remove("x-forwarded-client-cert");
    if let Some(peer) = peer {
        let sent = MapFields(headers).get("x-forwarded-for").map(Cow::into_owned);
        let value = match sent {
            Some(sent) => [&sent[..], b", ", peer.to_string().as_bytes()].concat(),
            None => peer.to_string().into_bytes(),
        };
        set(headers, "x-forwarded-for", &value);
    }
    if !headers.contains_key("x-forwarded-proto") {
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    }
}

/// Removes, sets and adds as configured. Validation has made sure that names and values are sound.
pub(super) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    if edits.is_empty() {
        return;
    }
    for name in &edits.remove {
        headers.remove(name.as_str());
    }
    let parse = |(name, value): &(String, String)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    for (name, value) in edits.set.iter().filter_map(parse) {
        headers.insert(name, value);
    }
    for (name, value) in edits.add.iter().filter_map(parse) {
        headers.append(name, value);
    }
}

/// The fields of a parsed head, without those of one hop. `None` if one cannot stand in HTTP/2.
pub(super) fn from_http1(fields: &[Header<'_>], nominates: bool) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len() + 4);
    for field in fields {
        let known = known(field.name);
        let one_hop = matches!(
            known,
            Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::TransferEncoding | Known::Upgrade
        );
        let nominated = nominates && known != Known::ContentLength && is_nominated(fields, field.name);
        if !one_hop && !nominated {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
    }
    Some(headers)
}

/// Writes fields as HTTP/1 lines. Cookies that HTTP/2 split are joined again (RFC 9113 section 8.2.3).
pub(super) fn write_http1(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::COOKIE) {
        line(out, name.as_str(), value.as_bytes());
    }
    let mut cookies = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    if let Some(first) = cookies.next() {
        let joined = cookies.fold(first.to_vec(), |joined, cookie| [&joined, &b"; "[..], cookie].concat());
        line(out, "cookie", &joined);
    }
}

pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// A field that frames a body says nothing, or says it in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// The length that a message says its body has. Whatever two readers could take for two lengths is refused, even if it
/// is told twice alike: the next hop may be HTTP/1.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Ambiguous> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    let length = value.to_str().ok().filter(|_| digits && values.next().is_none());
    length.and_then(|text| text.parse().ok()).map(Some).ok_or(Ambiguous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_hop_do_not_cross() {
        let fields = [
            Header { name: "Connection", value: b"x-hop" },
            Header { name: "X-Hop", value: b"1" },
            Header { name: "Transfer-Encoding", value: b"chunked" },
            Header { name: "Accept", value: b"a" },
        ];
        let headers = from_http1(&fields, true).unwrap();
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn a_length_is_told_once_and_in_digits() {
        let told = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_LENGTH, value.parse().unwrap());
            }
            content_length(&headers)
        };
        assert_eq!((told(&[]), told(&["0"]), told(&["12"])), (Ok(None), Ok(Some(0)), Ok(Some(12))));
        for wrong in
            [&[""][..], &["5", "5"], &["5", "6"], &["5, 5"], &["+5"], &["-1"], &["0x5"], &["18446744073709551616"]]
        {
            assert_eq!(told(wrong), Err(Ambiguous), "{wrong:?}");
        }
    }

    #[test]
    fn what_frames_or_routes_a_message_does_not_trail() {
        let mut trailers = HeaderMap::new();
        for name in ["grpc-status", "content-length", "transfer-encoding", "host", "x-forwarded-for", "checksum"] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        let kept = may_trail(trailers);
        assert_eq!(kept.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status", "checksum"]);
    }

    #[test]
    fn cookies_are_joined_for_http1() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1"));
        headers.append("cookie", HeaderValue::from_static("b=2"));
        let mut out = Vec::new();
        write_http1(&mut out, &headers);
        assert_eq!(out, b"cookie: a=1; b=2\r\n");
    }
}
