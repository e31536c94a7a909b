//! Writing heads for the next hop: what concerns this hop only is left out, the rest goes on as it came.
//!
//! Lines that stay are copied in runs, straight from the receive buffer.

use std::net::IpAddr;

use weir_codec::http1::{Header, Known, RequestHead, ResponseHead, Version, is_nominated, known};
use weir_config::HeaderEdits;

use crate::trace::TraceContext;

/// What the proxy decided about a request's head.
#[derive(Debug)]
pub(super) struct RequestEdits<'a> {
    pub(super) path: &'a str,
    pub(super) host_rewrite: Option<&'a str>,
    /// Host to name where the caller named none.
    pub(super) default_host: &'a str,
    pub(super) edits: &'a HeaderEdits,
    pub(super) trace: Option<&'a TraceContext>,
    pub(super) forwarded_for: Option<IpAddr>,
    pub(super) upgrade: bool,
}

/// Writes a request's head.
pub(super) fn write_request(out: &mut Vec<u8>, bytes: &[u8], head: &RequestHead<'_, '_>, decided: &RequestEdits<'_>) {
    append(out, &[head.method.as_bytes(), b" ", decided.path.as_bytes(), b" HTTP/1.1\r\n"]);
    let mut host_stays = false;
    let mut proto_stays = false;
    copy_fields(out, bytes, head.headers, head.connection.nominates, |header, field| {
        let stays = match field {
            Known::Host => decided.host_rewrite.is_none(),
            Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::Te | Known::Http2Settings => false,
            Known::Upgrade => decided.upgrade,
            Known::Expect => head.expects_continue,
            // Who the caller is, is told by its certificate alone.
            Known::XForwardedClientCert => false,
            Known::XForwardedFor => decided.forwarded_for.is_none(),
            Known::Traceparent => decided.trace.is_none(),
            _ => true,
        };
        host_stays |= stays && field == Known::Host;
        proto_stays |= field == Known::XForwardedProto;
        stays && !is_edited(decided.edits, header.name)
    });
    if !host_stays {
        let sent = if head.host.is_empty() { decided.default_host } else { head.host };
        append(out, &[b"host: ", decided.host_rewrite.unwrap_or(sent).as_bytes(), b"\r\n"]);
    }
    if let Some(peer) = decided.forwarded_for {
        forwarded_for(out, head.headers, peer);
    }
    if !proto_stays {
        out.extend_from_slice(b"x-forwarded-proto: http\r\n");
    }
    if let Some(trace) = decided.trace {
        append(out, &[b"traceparent: ", &trace.value(), b"\r\n"]);
    }
    if decided.upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
    }
    finish(out, decided.edits);
}

/// How the connection to the caller goes on after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    /// It stays, as HTTP/1.1 has it by default.
    On,
    /// It stays, which HTTP/1.0 must be told.
    OnSayingSo,
    /// It is closed.
    Away,
    /// It becomes another protocol.
    Over,
}

impl Goes {
    pub(super) fn of(version: Version, persists: bool) -> Self {
        match (version, persists) {
            (_, false) => Goes::Away,
            (Version::Http11, true) => Goes::On,
            (Version::Http10, true) => Goes::OnSayingSo,
        }
    }

    pub(super) fn field(self) -> &'static [u8] {
        match self {
            Goes::On => b"",
            Goes::OnSayingSo => b"connection: keep-alive\r\n",
            Goes::Away => b"connection: close\r\n",
            Goes::Over => b"connection: upgrade\r\n",
        }
    }
}

/// Writes a response's head. With `keep_coding` false, the body goes on without chunks.
pub(super) fn write_response(
    out: &mut Vec<u8>,
    bytes: &[u8],
    head: &ResponseHead<'_, '_>,
    edits: &HeaderEdits,
    goes: Goes,
    keep_coding: bool,
) {
    let digits =
        [b'0' + (head.status / 100) as u8, b'0' + (head.status / 10 % 10) as u8, b'0' + (head.status % 10) as u8];
    append(out, &[b"HTTP/1.1 ", &digits, b" ", head.reason.as_bytes(), b"\r\n"]);
    copy_fields(out, bytes, head.headers, head.connection.nominates, |header, field| {
        let stays = match field {
            Known::Connection | Known::KeepAlive | Known::ProxyConnection => false,
            Known::Upgrade => goes == Goes::Over,
            // A peer that frames what has no body would be believed by some (RFC 9112 section 6.3, RFC 9110 section 8.6).
            Known::TransferEncoding => keep_coding && !is_bodiless(head.status),
            Known::ContentLength => head.status >= 200 && head.status != 204,
            _ => true,
        };
        stays && !is_edited(edits, header.name)
    });
    out.extend_from_slice(goes.field());
    finish(out, edits);
}

/// A response with this status has no body, whatever its fields say.
pub(crate) fn is_bodiless(status: u16) -> bool {
    matches!(status, 100..200 | 204 | 304)
}

/// Copies the lines of the fields that stay, those next to each other at once. `bytes` is what the head was parsed from.
fn copy_fields(
    out: &mut Vec<u8>,
    bytes: &[u8],
    headers: &[Header<'_>],
    nominates: bool,
    mut stays: impl FnMut(&Header<'_>, Known) -> bool,
) {
    let offset = |header: &Header<'_>| header.name.as_ptr() as usize - bytes.as_ptr() as usize;
    let mut run = None;
    for header in headers {
        let field = known(header.name);
        let nominated = nominates && !is_end_to_end(field) && is_nominated(headers, header.name);
        match (stays(header, field) && !nominated, run) {
            (true, None) => run = Some(offset(header)),
            (false, Some(start)) => {
                out.extend_from_slice(&bytes[start..offset(header)]);
                run = None;
            }
            _ => {}
        }
    }
    if let (Some(start), Some(last)) = (run, headers.last()) {
        let value_end = last.value.as_ptr() as usize - bytes.as_ptr() as usize + last.value.len();
        let line_end = memchr::memchr(b'\n', &bytes[value_end..]).map_or(value_end, |at| value_end + at + 1);
        out.extend_from_slice(&bytes[start..line_end]);
    }
}

/// A `Connection` field cannot take away what frames or addresses the message.
fn is_end_to_end(field: Known) -> bool {
    matches!(field, Known::ContentLength | Known::TransferEncoding | Known::Host | Known::Expect | Known::Upgrade)
}

fn is_edited(edits: &HeaderEdits, name: &str) -> bool {
    let is = |other: &str| other.eq_ignore_ascii_case(name);
    edits.remove.iter().any(|removed| is(removed)) || edits.set.iter().any(|(set, _)| is(set))
}

fn forwarded_for(out: &mut Vec<u8>, headers: &[Header<'_>], peer: IpAddr) {
    out.extend_from_slice(b"x-forwarded-for: ");
    for header in headers.iter().filter(|header| known(header.name) == Known::XForwardedFor) {
        append(out, &[header.value, b", "]);
    }
    write_ip(out, peer);
    out.extend_from_slice(b"\r\n");
}

/// An address as text, without the formatting machinery for the common case.
fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    use std::io::Write;
    // Writing into memory does not fail.
    let _ = write!(out, "{ip}");
}

fn finish(out: &mut Vec<u8>, edits: &HeaderEdits) {
    for (name, value) in edits.set.iter().chain(&edits.add) {
        append(out, &[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    out.extend_from_slice(b"\r\n");
}

#[inline]
pub(super) fn append(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_codec::http1::{parse_request, parse_response, slots};

    fn request(text: &str, change: impl FnOnce(&mut RequestEdits<'_>)) -> String {
        let mut slots = slots::<20>();
        let head = parse_request(text.as_bytes(), &mut slots, 4096).unwrap().unwrap();
        let edits = HeaderEdits::default();
        let mut decided = RequestEdits {
            path: head.path,
            host_rewrite: None,
            default_host: "cluster",
            edits: &edits,
            trace: None,
            forwarded_for: None,
            upgrade: false,
        };
        change(&mut decided);
        let mut out = Vec::new();
        write_request(&mut out, text.as_bytes(), &head, &decided);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_of_one_hop_stay_behind() {
        let sent = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop, content-length\r\nX-Hop: 1\r\n\
                    Keep-Alive: 1\r\nProxy-Connection: x\r\nTE: trailers\r\nUpgrade: x\r\nContent-Length: 0\r\nB:  2 \r\n\r\n";
        let expected = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nB:  2 \r\nx-forwarded-proto: http\r\n\r\n";
        assert_eq!(request(sent, |_| {}), expected);
    }

    #[test]
    fn what_was_decided_is_written() {
        let sent =
            "GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nOld: 1\r\n\r\n";
        let edits = HeaderEdits { set: vec![("New".into(), "2".into())], add: vec![], remove: vec!["old".into()] };
        let written = request(sent, |decided| {
            decided.path = "/b";
            decided.host_rewrite = Some("c");
            decided.forwarded_for = Some([9, 9, 9, 9].into());
            decided.edits = leaked(edits);
        });
        let expected = "GET /b HTTP/1.1\r\nX-Forwarded-Proto: https\r\nhost: c\r\nx-forwarded-for: 1.2.3.4, 9.9.9.9\r\nNew: 2\r\n\r\n";
        assert_eq!(written, expected);
    }

    /// Gives edits the lifetime that a configuration has.
    fn leaked(edits: HeaderEdits) -> &'static HeaderEdits {
        Box::leak(Box::new(edits))
    }

    #[test]
    fn http_1_0_without_host_gets_one() {
        assert!(request("GET / HTTP/1.0\r\n\r\n", |_| {}).contains("\r\nhost: cluster\r\n"));
    }

    #[test]
    fn what_has_no_body_goes_on_without_framing() {
        let both = "Content-Length: 5\r\nA: b\r\n";
        let coded = "Transfer-Encoding: chunked\r\nA: b\r\n";
        for (status, fields, expected) in [
            (100, both, "A: b\r\n"),
            (103, coded, "A: b\r\n"),
            (204, both, "A: b\r\n"),
            (204, coded, "A: b\r\n"),
            (304, both, both),
            (304, coded, "A: b\r\n"),
            (200, coded, coded),
        ] {
            let text = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
            let mut slots = slots::<20>();
            let head = parse_response(text.as_bytes(), &mut slots, 4096, false).unwrap().unwrap();
            let mut out = Vec::new();
            write_response(&mut out, text.as_bytes(), &head, &HeaderEdits::default(), Goes::On, true);
            let expected = format!("HTTP/1.1 {status} x\r\n{expected}\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{fields}");
        }
    }

    #[test]
    fn responses_tell_how_the_connection_goes_on() {
        let text = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n";
        let written = |goes, keep_coding| {
            let mut slots = slots::<20>();
            let head = parse_response(text.as_bytes(), &mut slots, 4096, false).unwrap().unwrap();
            let mut out = Vec::new();
            write_response(&mut out, text.as_bytes(), &head, &HeaderEdits::default(), goes, keep_coding);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(Goes::On, true), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n");
        assert_eq!(written(Goes::Away, false), "HTTP/1.1 200 OK\r\nA: b\r\nconnection: close\r\n\r\n");
    }
}
