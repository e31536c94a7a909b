//! Answers of the proxy's own.

use std::time::Duration;

use super::body::Body;
use super::head::{Goes, append};
use super::prepare::Facts;
use super::{After, caller_gone, caller_stuck};
use crate::io::Buf;
use crate::phases::Answer;
use crate::worker::{Connection, Ticket};

/// Answers a request that no upstream has answered. Its body, if there is one, is passed over; where not all of it has
/// come yet, the connection ends with the answer.
pub(super) async fn answer(
    connection: &mut Connection,
    buf: &mut Buf,
    facts: &Facts,
    ticket: &Ticket,
    answer: &Answer,
) -> After {
    ticket.answered(answer);
    let mut body = Body::new(facts.framing);
    let claimed = body.claim(buf.filled());
    buf.consume(claimed.unwrap_or(0));
    let whole = claimed.is_ok() && body.is_done();
    let persists = whole && facts.persists && !connection.is_leaving();
    let mut out = connection.worker.buffers.take_vec();
    write_answer(&mut out, answer, Goes::of(facts.version, persists).field(), facts.to_head);
    let idle = Duration::from_millis(ticket.listener.compiled.config.limits.idle_timeout_ms);
    let Connection { stream, timer, .. } = &mut *connection;
    let (_, mut writer) = stream.split();
    let written = timer.within(idle, writer.write_all(&out, b"")).await;
    connection.worker.buffers.put_vec(out);
    match (written, persists) {
        (Ok(Ok(())), true) => After::KeepAlive,
        (Ok(Ok(())), false) => After::Linger,
        (Ok(Err(_)), _) => caller_gone(connection),
        (Err(_), _) => caller_stuck(connection),
    }
}

/// Writes an answer's head, and its body unless it answers HEAD.
pub(crate) fn write_answer(out: &mut Vec<u8>, answer: &Answer, connection: &[u8], to_head: bool) {
    let (status, length) = (answer.status.to_string(), answer.body.len().to_string());
    append(out, &[b"HTTP/1.1 ", status.as_bytes(), b" ", reason_phrase(answer.status).as_bytes(), b"\r\n"]);
    if !answer.body.is_empty() {
        out.extend_from_slice(b"content-type: text/plain\r\n");
    }
    if !matches!(answer.status, 204 | 304) {
        append(out, &[b"content-length: ", length.as_bytes(), b"\r\n"]);
    }
    if let Some(location) = &answer.location {
        append(out, &[b"location: ", location.as_bytes(), b"\r\n"]);
    }
    append(out, &[connection, b"\r\n"]);
    if !to_head && !matches!(answer.status, 204 | 304) {
        out.extend_from_slice(answer.body.as_bytes());
    }
}

/// The usual phrase for a status, or none.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}
