//! Frames that a proxy sends on its own.

use super::{Frame, HESSIAN2, Head, OK};
use crate::hessian::put_text;
use crate::rpc::Failure;

impl Frame {
    /// "Are you there?"
    pub fn heartbeat(id: u64) -> Self {
        let head = Head { is_two_way: true, is_event: true, ..request(id) };
        Self::assemble(head, b"N")
    }

    /// The answer to `heartbeat`, with its id, and null as its own serialisation says it.
    pub fn heartbeat_ack(heartbeat: &Frame) -> Self {
        let head =
            Head { is_event: true, serialization: heartbeat.head().serialization, ..response(heartbeat.id(), OK) };
        Self::assemble(head, heartbeat.body())
    }

    /// "Send me nothing new": what a server says before it goes away. Nobody answers it.
    pub fn read_only(id: u64) -> Self {
        Self::assemble(Head { is_event: true, ..request(id) }, b"\x01R")
    }

    /// The answer to `request` when no server gave one: a status and `message`. Never to be sent for
    /// [`Kind::OneWay`](super::Kind::OneWay).
    pub fn failure(request: &Head, failure: Failure, message: &str) -> Self {
        let mut body = Vec::new();
        put_text(message, &mut body);
        Self::assemble(response(request.id, failure.dubbo_status()), &body)
    }

    /// A request as Dubbo sends it; for load generators and tests.
    pub fn request(call: &Call<'_>) -> Self {
        let mut body = Vec::new();
        for text in ["2.0.2", call.path, call.version, call.method, call.descriptor] {
            put_text(text, &mut body);
        }
        body.extend_from_slice(call.arguments);
        body.push(b'H');
        for (key, value) in call.attachments {
            put_text(key, &mut body);
            put_text(value, &mut body);
        }
        body.push(b'Z');
        Self::assemble(Head { is_two_way: !call.one_way, ..request(call.id) }, &body)
    }

    /// A response with status 20 to `request`; `value` is one Hessian value. For tests' servers.
    pub fn response(request: &Head, value: &[u8]) -> Self {
        const VALUE: u8 = 0x91;
        Self::assemble(response(request.id, OK), &[&[VALUE], value].concat())
    }
}

/// What a request says.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Id.
    pub id: u64,
    /// Path of the service.
    pub path: &'a str,
    /// Version of the service.
    pub version: &'a str,
    /// Method.
    pub method: &'a str,
    /// Types of the parameters, as Java describes them.
    pub descriptor: &'a str,
    /// The arguments, one Hessian value for each type.
    pub arguments: &'a [u8],
    /// Attachments.
    pub attachments: &'a [(&'a str, &'a str)],
    /// No answer is wanted.
    pub one_way: bool,
}

fn request(id: u64) -> Head {
    Head { is_request: true, is_two_way: false, is_event: false, serialization: HESSIAN2, status: 0, id, body_len: 0 }
}

fn response(id: u64, status: u8) -> Head {
    Head { is_request: false, status, ..request(id) }
}
