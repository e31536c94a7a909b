//! What gRPC callers expect of a proxy: errors as `grpc-status`, on HTTP status 200.
//!
//! See `PROTOCOL-HTTP2.md` and `http-grpc-status-mapping.md` in grpc/grpc.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::phases::Answer;
use crate::stats::Refusal;

/// True if the message is gRPC's.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc"))
}

/// A response of headers only that tells an answer to a gRPC caller.
pub(super) fn trailers_only(answer: &Answer) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code(answer)));
    if let Ok(message) = HeaderValue::from_str(answer.body.trim_end()) {
        headers.insert("grpc-message", message);
    }
    *response.status_mut() = StatusCode::OK;
    response
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
pub(super) fn tells_server_error(headers: &HeaderMap) -> bool {
    let status = headers.get("grpc-status").map(HeaderValue::as_bytes);
    matches!(status, Some(b"2" | b"4" | b"13" | b"14" | b"15"))
}
