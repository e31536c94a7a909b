//! The frame layer (RFC 9113 section 4 and 6): nine bytes of head, and what each kind holds.

use crate::error::{PROTOCOL, Reason, Violation};

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub(crate) const HEAD_BYTES: usize = 9;
/// The largest payload that a peer may send unless told otherwise, which we never do.
pub(crate) const DEFAULT_MAX_FRAME_BYTES: usize = 16_384;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PUSH_PROMISE: u8 = 0x5;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITISED: u8 = 0x20;

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl FrameHead {
    #[inline]
    pub(crate) fn parse(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        FrameHead { len, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }

    #[inline]
    pub(crate) fn bytes(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = (self.len as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    #[inline]
    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What is inside the padding.
    pub(crate) fn unpadded(self, payload: &[u8]) -> Result<&[u8], Violation> {
        if !self.has(PADDED) {
            return Ok(payload);
        }
        let (&padding, rest) = payload.split_first().ok_or(Violation::Connection(Reason::FRAME_SIZE_ERROR))?;
        let len = rest.len().checked_sub(usize::from(padding)).ok_or(PROTOCOL)?;
        Ok(&rest[..len])
    }
}

/// Appends a frame whose payload is short.
pub(crate) fn put(out: &mut Vec<u8>, (kind, flags, stream): (u8, u8, u32), payload: &[u8]) {
    out.extend_from_slice(&FrameHead { len: payload.len(), kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

pub(crate) fn put_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    put(out, (RST_STREAM, 0, stream), &reason.0.to_be_bytes());
}

pub(crate) fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(out, (WINDOW_UPDATE, 0, stream), &increment.to_be_bytes());
}

pub(crate) fn put_goaway(out: &mut Vec<u8>, last: u32, reason: Reason) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&reason.0.to_be_bytes());
    put(out, (GOAWAY, 0, 0), &payload);
}

/// The payload as one number, as RST_STREAM and WINDOW_UPDATE have it.
pub(crate) fn number(payload: &[u8]) -> Result<u32, Violation> {
    let bytes = payload.try_into().map_err(|_| Violation::Connection(Reason::FRAME_SIZE_ERROR))?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_written() {
        let head = FrameHead { len: 16_384, kind: HEADERS, flags: 5, stream: 0x7fff_fffe };
        assert_eq!(FrameHead::parse(&head.bytes()), head);
    }

    #[test]
    fn padding_is_taken_off_and_never_longer_than_the_frame() {
        let head = FrameHead { len: 0, kind: DATA, flags: PADDED, stream: 1 };
        assert_eq!(head.unpadded(b"\x02ab\0\0"), Ok(&b"ab"[..]));
        assert_eq!(head.unpadded(b"\x02\0\0"), Ok(&b""[..]));
        assert_eq!(head.unpadded(b"\x03\0\0"), Err(PROTOCOL));
        assert_eq!(head.unpadded(b""), Err(Violation::Connection(Reason::FRAME_SIZE_ERROR)));
    }
}
