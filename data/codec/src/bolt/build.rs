//! Frames that a proxy sends on its own.

use std::time::Duration;

use super::{Frame, HESSIAN2, Head, Kind, METHOD, Reject, SERVICE, TARGET_SERVICE, Version, headers, sofa};
use crate::rpc::Failure;

const REQUEST_CLASS: &str = "com.alipay.sofa.rpc.core.request.SofaRequest";

impl Frame {
    /// "Are you there?"
    pub fn heartbeat(version: Version, id: u32) -> Self {
        Self::empty(version, Kind::Heartbeat, id)
    }

    /// The answer to `heartbeat`, in its version and with its id and codec.
    pub fn heartbeat_ack(heartbeat: &Head) -> Self {
        let head =
            Head { codec: heartbeat.codec, ..head(heartbeat.version.of_answer(), Kind::HeartbeatAck, heartbeat.id) };
        Self::assemble(head, &[], &[], &[])
    }

    /// "Send me nothing new." Peers other than MOSN and Weir may not know it.
    pub fn goaway(version: Version, id: u32) -> Self {
        Self::empty(version, Kind::Goaway, id)
    }

    /// The answer to `request` when no server gave one: a status, and an exception with `message`, since that is what
    /// the clients of Java and Node read. Never to be sent for [`Kind::OneWay`].
    pub fn failure(request: &Head, failure: Failure, message: &str) -> Self {
        let head =
            Head { status: failure.bolt_status(), ..head(request.version.of_answer(), Kind::Response, request.id) };
        Self::assemble(head, sofa::ERROR_CLASS.as_bytes(), &[], &sofa::exception(message))
    }

    /// A request as SOFARPC sends it; for load generators and tests.
    ///
    /// # Errors
    /// If the header map would become too long.
    pub fn request(version: Version, call: &Call<'_>) -> Result<Self, Reject> {
        let mut pairs = vec![(SERVICE, call.service), (TARGET_SERVICE, call.service), (METHOD, call.method)];
        pairs.extend_from_slice(call.headers);
        let kind = if call.one_way { Kind::OneWay } else { Kind::Request };
        let head = Head { timeout: Some(call.timeout), ..head(version, kind, call.id) };
        Ok(Self::assemble(head, REQUEST_CLASS.as_bytes(), &headers::encode(&pairs)?, call.content))
    }

    /// A successful response to `request`; for tests' servers.
    pub fn response(request: &Head, class: &[u8], content: &[u8]) -> Self {
        let head = Head { codec: request.codec, ..head(request.version.of_answer(), Kind::Response, request.id) };
        Self::assemble(head, class, &[], content)
    }

    fn empty(version: Version, kind: Kind, id: u32) -> Self {
        Self::assemble(head(version, kind, id), &[], &[], &[])
    }
}

/// What a request says.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Id.
    pub id: u32,
    /// Service, with its version after a colon.
    pub service: &'a str,
    /// Method.
    pub method: &'a str,
    /// Further pairs of the header map.
    pub headers: &'a [(&'a str, &'a str)],
    /// How long the caller waits.
    pub timeout: Duration,
    /// No answer is wanted.
    pub one_way: bool,
    /// The serialised request.
    pub content: &'a [u8],
}

fn head(version: Version, kind: Kind, id: u32) -> Head {
    Head { version, kind, id, codec: HESSIAN2, timeout: None, status: 0, class_len: 0, headers_len: 0, content_len: 0 }
}
