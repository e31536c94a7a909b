//! Header fields: to and from HTTP/1, without what concerns one hop only.

use std::borrow::Cow;
use std::net::IpAddr;

use weir_codec::http1::{Header, Known, is_nominated, known};
use weir_config::HeaderEdits;
use weir_h2::Fields;

use crate::snapshot;

/// Fields, as routing sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapFields<'a>(pub(crate) &'a Fields);

impl snapshot::Fields for MapFields<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.0.get_all(name);
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |joined, value| Cow::Owned([&joined, &b","[..], value].concat())))
    }
}

/// Removes fields that concern one hop only. `te: trailers` stays, since gRPC wants it end to end.
pub(super) fn remove_hop_by_hop(fields: &mut Fields) {
    fields.retain(|name, value| match name {
        b"connection" | b"transfer-encoding" | b"upgrade" | b"keep-alive" | b"proxy-connection" | b"http2-settings" => {
            false
        }
        b"te" => value == b"trailers",
        _ => true,
    });
}

/// Trailers without fields that frame or route a message, or that say who the caller is: these may not come after it (RFC
/// 9110 section 6.5.1), and a next hop that joins them to the head would believe them.
pub(super) fn may_trail(mut trailers: Fields) -> Fields {
    trailers.retain(|name, _| std::str::from_utf8(name).is_ok_and(|name| known(name) == Known::Other));
    trailers
}

/// Names the caller and its protocol.
pub(super) fn add_forwarded(headers: &mut Fields, peer: Option<IpAddr>) {
    // Who the caller is, is told by its certificate alone.
    headers.remove("x-forwarded-client-cert");
    if let Some(peer) = peer {
        let sent = snapshot::Fields::get(&MapFields(headers), "x-forwarded-for").map(Cow::into_owned);
        let value = match sent {
            Some(sent) => [&sent[..], b", ", peer.to_string().as_bytes()].concat(),
            None => peer.to_string().into_bytes(),
        };
        headers.set("x-forwarded-for", &value);
    }
    if !headers.contains("x-forwarded-proto") {
        headers.append("x-forwarded-proto", "http");
    }
}

/// Removes, sets and adds as configured. Validation has made sure that names and values are sound.
pub(super) fn edit(headers: &mut Fields, edits: &HeaderEdits) {
    if edits.is_empty() {
        return;
    }
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.set(name, value);
    }
    for (name, value) in &edits.add {
        headers.append(name, value);
    }
}

/// The fields of a parsed head, without those of one hop. `None` if one cannot stand in HTTP/2.
pub(super) fn from_http1(fields: &[Header<'_>], nominates: bool) -> Option<Fields> {
    let mut headers = Fields::new();
    for field in fields {
        let known = known(field.name);
        let one_hop = matches!(
            known,
            Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::TransferEncoding | Known::Upgrade
        );
        let nominated = nominates && known != Known::ContentLength && is_nominated(fields, field.name);
        if !one_hop && !nominated && !headers.try_append(field.name.as_bytes(), field.value) {
            return None;
        }
    }
    Some(headers)
}

/// Writes fields as HTTP/1 lines. Cookies that HTTP/2 split are joined again (RFC 9113 section 8.2.3).
/// `te` concerns one hop, and this one is HTTP/1.
pub(super) fn write_http1(out: &mut Vec<u8>, fields: &Fields) {
    let mut cookies = false;
    for (name, value) in fields.iter() {
        match name {
            b"te" => {}
            b"cookie" => cookies = true,
            name => line(out, name, value),
        }
    }
    if cookies {
        let joined: Vec<&[u8]> = fields.get_all("cookie").collect();
        line(out, b"cookie", &joined.join(&b"; "[..]));
    }
}

pub(super) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// A field that frames a body says nothing, or says it in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// The length that a message says its body has. Whatever two readers could take for two lengths is refused, even if it
/// is told twice alike: the next hop may be HTTP/1.
pub(crate) fn content_length(headers: &Fields) -> Result<Option<u64>, Ambiguous> {
    let mut values = headers.get_all("content-length");
    let Some(value) = values.next() else { return Ok(None) };
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(value).ok().filter(|_| digits && values.next().is_none());
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
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), [b"accept"]);
    }

    #[test]
    fn a_length_is_told_once_and_in_digits() {
        let told = |values: &[&str]| {
            let mut headers = Fields::new();
            for value in values {
                headers.append("content-length", value);
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
        let mut trailers = Fields::new();
        for name in ["grpc-status", "content-length", "transfer-encoding", "host", "x-forwarded-for", "checksum"] {
            trailers.append(name, "1");
        }
        let kept = may_trail(trailers);
        assert_eq!(kept.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&b"grpc-status"[..], b"checksum"]);
    }

    #[test]
    fn cookies_are_joined_for_http1() {
        let mut headers = Fields::new();
        headers.append("cookie", "a=1");
        headers.append("te", "trailers");
        headers.append("cookie", "b=2");
        let mut out = Vec::new();
        write_http1(&mut out, &headers);
        assert_eq!(out, b"cookie: a=1; b=2\r\n");
    }
}
