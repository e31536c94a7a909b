//! Whole frames.

use bytes::{Bytes, BytesMut};

use super::{Attachments, HEAD_LEN, HESSIAN2, Head, Invocation, MAX_EVENT_BYTES, Outcome, Reject};
use crate::rpc::{Edit, Limits};

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A request that is answered.
    Request,
    /// A request that must not be answered.
    OneWay,
    /// The answer to a request.
    Response,
    /// "Are you there?", to be answered with [`Kind::HeartbeatAck`] if [`Head::wants_answer`].
    Heartbeat,
    /// The answer to a heartbeat.
    HeartbeatAck,
    /// "Send me nothing new": the server is going away.
    ReadOnly,
    /// "Send again": takes [`Kind::ReadOnly`] back.
    Writable,
    /// Any other event, which concerns only the hop it came over.
    OtherEvent,
}

/// A whole frame, as it came or as it was built. Its bytes are those it was decoded from: taking it from the buffer,
/// giving it another id and sending it on copy nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    head: Head,
    bytes: BytesMut,
}

impl Frame {
    /// Takes a frame from the start of `buffer`; `None`, and nothing taken, if it is not complete yet. Reserves nothing.
    ///
    /// # Errors
    /// If this is no frame, or it is longer than the limit. The connection is of no use then; for [`Reject::TooLong`],
    /// [`Head::parse`] still tells which request to answer.
    pub fn decode(buffer: &mut BytesMut, limits: &Limits) -> Result<Option<Self>, Reject> {
        let Some(head) = Head::parse(buffer)? else { return Ok(None) };
        let max = if head.is_event { MAX_EVENT_BYTES.min(limits.max_body_bytes) } else { limits.max_body_bytes };
        if head.body_len > max {
            return Err(Reject::TooLong { len: head.body_len, max });
        }
        if buffer.len() < head.frame_len() {
            return Ok(None);
        }
        Ok(Some(Frame { bytes: buffer.split_to(head.frame_len()), head }))
    }

    /// Puts a frame together. The length in `head` is that of the body.
    pub(super) fn assemble(head: Head, body: &[u8]) -> Self {
        let head = Head { body_len: body.len(), ..head };
        let mut bytes = BytesMut::with_capacity(head.frame_len());
        head.put(&mut bytes);
        bytes.extend_from_slice(body);
        Frame { head, bytes }
    }

    /// The fixed part.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.head {
            Head { is_event: true, is_request: true, .. } => self.event(),
            Head { is_event: true, .. } => Kind::HeartbeatAck,
            Head { is_request: true, is_two_way: true, .. } => Kind::Request,
            Head { is_request: true, .. } => Kind::OneWay,
            _ => Kind::Response,
        }
    }

    /// Serialisations other than Hessian 2 say null in their own ways; theirs are taken for heartbeats.
    fn event(&self) -> Kind {
        match self.body() {
            b"N" | b"" => Kind::Heartbeat,
            b"\x01R" => Kind::ReadOnly,
            b"\x01W" => Kind::Writable,
            _ if self.head.serialization == HESSIAN2 => Kind::OtherEvent,
            _ => Kind::Heartbeat,
        }
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.head.id
    }

    /// Status of a response; 20 if it carries a result.
    pub fn status(&self) -> u8 {
        self.head.status
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEAD_LEN..]
    }

    /// What a request calls. Reads the front of the body only.
    ///
    /// # Errors
    /// If this is no request, it is not serialised as Hessian 2, or the body is malformed. None of that hinders sending
    /// the frame on.
    pub fn invocation(&self) -> Result<Invocation<'_>, Reject> {
        match self.kind() {
            Kind::Request | Kind::OneWay => Invocation::parse(self.hessian_body()?),
            _ => Err(Reject::Kind),
        }
    }

    /// What a response with status 20 carries. Reads the first byte of the body only.
    ///
    /// # Errors
    /// As [`invocation`](Self::invocation).
    pub fn outcome(&self) -> Result<Outcome, Reject> {
        match self.kind() {
            Kind::Response if self.head.status == super::OK => Outcome::parse(self.hessian_body()?),
            _ => Err(Reject::Kind),
        }
    }

    /// The attachments of a request or of a response that has some. Steps over the arguments or the value.
    ///
    /// # Errors
    /// As [`invocation`](Self::invocation).
    pub fn attachments(&self) -> Result<Attachments<'_>, Reject> {
        match self.kind() {
            Kind::Request | Kind::OneWay => self.invocation()?.attachments(),
            _ => self.outcome()?.attachments(self.body()),
        }
    }

    /// Gives it another id, in place.
    pub fn set_id(&mut self, id: u64) {
        self.head.id = id;
        self.bytes[4..12].copy_from_slice(&id.to_be_bytes());
    }

    /// Changes the attachments. Everything else stays byte for byte; if nothing changes, so does all of it.
    ///
    /// # Errors
    /// As [`attachments`](Self::attachments); the frame is then as before.
    pub fn edit(&mut self, edits: &[Edit<'_>]) -> Result<(), Reject> {
        let attachments = self.attachments()?;
        if let Some(changed) = attachments.edited(edits) {
            let range = attachments.range();
            self.replace(HEAD_LEN + range.start..HEAD_LEN + range.end, &changed);
        }
        Ok(())
    }

    fn replace(&mut self, range: std::ops::Range<usize>, part: &[u8]) {
        let mut bytes = BytesMut::with_capacity(self.bytes.len() - range.len() + part.len());
        bytes.extend_from_slice(&self.bytes[..range.start]);
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(&self.bytes[range.end..]);
        self.head.body_len = bytes.len() - HEAD_LEN;
        bytes[12..HEAD_LEN].copy_from_slice(&(self.head.body_len as u32).to_be_bytes());
        self.bytes = bytes;
    }

    fn hessian_body(&self) -> Result<&[u8], Reject> {
        match self.head.serialization {
            HESSIAN2 => Ok(self.body()),
            other => Err(Reject::Serialization(other)),
        }
    }

    /// The whole frame.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole frame, to be sent; copies nothing.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}
