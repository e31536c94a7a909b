//! What gRPC callers expect of a proxy: errors as `grpc-status`, on HTTP status 200.
//!
//! See `PROTOCOL-HTTP2.md` and `http-grpc-status-mapping.md` in grpc/grpc.

use weir_h2::Fields;

use super::ResponseHead;
use crate::phases::Answer;
use crate::stats::Refusal;

/// True if the message is gRPC's.
pub(crate) fn is_grpc(fields: &Fields) -> bool {
    fields.get("content-type").is_some_and(|content_type| content_type.starts_with(b"application/grpc"))
}

/// A response of headers only that tells an answer to a gRPC caller.
pub(super) fn trailers_only(answer: &Answer) -> ResponseHead {
    let mut fields = Fields::new();
    fields.append("content-type", "application/grpc");
    fields.append("grpc-status", code(answer).to_string());
    // A message that cannot stand in a field is left out: the status says enough.
    let _ = fields.try_append(b"grpc-message", answer.body.trim_end().as_bytes());
    ResponseHead { status: 200, fields }
}

fn code(answer: &Answer) -> u16 {
    match (answer.refusal, answer.status) {
        (Some(Refusal::RouteTimeout), _) => 4,
        (_, 400) => 13,
        (_, 401) => 16,
        (_, 403) => 7,
        (_, 404) => 12,
        (_, 429 | 502 | 503 | 504) => 14,
        _ => 2,
    }
}

/// True if a status is one of the server's making: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
pub(super) fn tells_server_error(fields: &Fields) -> bool {
    matches!(fields.get("grpc-status"), Some(b"2" | b"4" | b"13" | b"14" | b"15"))
}
