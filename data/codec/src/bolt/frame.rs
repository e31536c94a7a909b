//! Whole frames.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{HESSIAN2, Head, Headers, Kind, METHOD, Reject, SERVICE, TARGET_SERVICE, Version, sofa};
use crate::rpc::{Edit, Limits};

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
    /// If this is no frame, it is longer than the limit, or its checksum is wrong. The connection is of no use then; for
    /// [`Reject::TooLong`], [`Head::parse`] still tells which request to answer.
    pub fn decode(buffer: &mut BytesMut, limits: &Limits) -> Result<Option<Self>, Reject> {
        let Some(head) = Head::parse(buffer)? else { return Ok(None) };
        if head.content_len > limits.max_body_bytes {
            return Err(Reject::TooLong { len: head.content_len, max: limits.max_body_bytes });
        }
        if buffer.len() < head.frame_len() {
            return Ok(None);
        }
        let frame = Frame { bytes: buffer.split_to(head.frame_len()), head };
        if frame.head.version.has_checksum() && frame.sent_checksum() != frame.checksum() {
            return Err(Reject::Checksum);
        }
        Ok(Some(frame))
    }

    /// Puts a frame together. The lengths in `head` are those of the parts.
    pub(super) fn assemble(head: Head, class: &[u8], headers: &[u8], content: &[u8]) -> Self {
        let head = Head { class_len: class.len(), headers_len: headers.len(), content_len: content.len(), ..head };
        let mut bytes = BytesMut::with_capacity(head.frame_len());
        head.put(&mut bytes);
        for part in [class, headers, content] {
            bytes.extend_from_slice(part);
        }
        let mut frame = Frame { head, bytes };
        if frame.head.version.has_checksum() {
            frame.bytes.put_u32(0);
            frame.put_checksum();
        }
        frame
    }

    /// The fixed part.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.head.kind
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.head.id
    }

    /// Version.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// How long the caller waits, if it says so.
    pub fn timeout(&self) -> Option<Duration> {
        self.head.timeout
    }

    /// Status of a response; 0 is success.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Name of the content's class.
    pub fn class(&self) -> &[u8] {
        &self.bytes[self.head.head_len()..][..self.head.class_len]
    }

    /// The content, as the codec made it.
    pub fn content(&self) -> &[u8] {
        &self.bytes[self.headers_end()..][..self.head.content_len]
    }

    /// The header map.
    ///
    /// # Errors
    /// If it is malformed, which does not hinder sending the frame on.
    pub fn headers(&self) -> Result<Headers<'_>, Reject> {
        Headers::parse(&self.bytes[self.headers_start()..self.headers_end()])
    }

    /// The service that is called, if the header map names one.
    pub fn service(&self) -> Option<&str> {
        let headers = self.headers().ok()?;
        headers.text(TARGET_SERVICE).or_else(|| headers.text(SERVICE))
    }

    /// The method that is called, if the header map names one or the content is a `SofaRequest` in Hessian.
    pub fn method(&self) -> Option<&str> {
        let in_content = || (self.head.codec == HESSIAN2).then(|| sofa::method(self.content())).flatten();
        self.headers().ok()?.text(METHOD).or_else(in_content)
    }

    /// Gives it another id, in place.
    pub fn set_id(&mut self, id: u32) {
        if id != self.head.id {
            self.head.id = id;
            let at = self.head.version.id_at();
            self.bytes[at..at + 4].copy_from_slice(&id.to_be_bytes());
            self.put_checksum();
        }
    }

    /// Changes the header map. Class, content and all other pairs stay as they are; if nothing changes, so does all of it.
    ///
    /// # Errors
    /// If the header map is malformed or would become too long; the frame is then as before.
    pub fn edit(&mut self, edits: &[Edit<'_>]) -> Result<(), Reject> {
        if let Some(headers) = self.headers()?.edited(edits)? {
            self.replace_headers(&headers);
        }
        Ok(())
    }

    /// Copies the frame around a new header map; the head stays byte for byte but for the map's length.
    fn replace_headers(&mut self, headers: &[u8]) {
        let head = Head { headers_len: headers.len(), ..self.head };
        let mut bytes = BytesMut::with_capacity(head.frame_len());
        bytes.extend_from_slice(&self.bytes[..self.headers_start()]);
        bytes.extend_from_slice(headers);
        bytes.extend_from_slice(&self.bytes[self.headers_end()..]);
        let length_at = head.head_len() - 6;
        bytes[length_at..length_at + 2].copy_from_slice(&(headers.len() as u16).to_be_bytes());
        *self = Frame { head, bytes };
        self.put_checksum();
    }

    /// The whole frame.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole frame, to be sent; copies nothing.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }

    fn headers_start(&self) -> usize {
        self.head.head_len() + self.head.class_len
    }

    fn headers_end(&self) -> usize {
        self.headers_start() + self.head.headers_len
    }

    fn checksum(&self) -> [u8; 4] {
        crc32fast::hash(&self.bytes[..self.bytes.len() - 4]).to_be_bytes()
    }

    fn sent_checksum(&self) -> [u8; 4] {
        self.bytes.last_chunk().copied().unwrap_or_default()
    }

    /// Makes the checksum right again, if there is one.
    fn put_checksum(&mut self) {
        if self.head.version.has_checksum() {
            let (at, checksum) = (self.bytes.len() - 4, self.checksum());
            self.bytes[at..].copy_from_slice(&checksum);
        }
    }
}
