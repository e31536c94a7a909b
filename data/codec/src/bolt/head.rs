//! The fixed part of a frame.

use std::time::Duration;

use super::Reject;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A request that is answered.
    Request,
    /// A request that must not be answered.
    OneWay,
    /// The answer to a request.
    Response,
    /// "Are you there?", to be answered with [`Kind::HeartbeatAck`].
    Heartbeat,
    /// The answer to a heartbeat.
    HeartbeatAck,
    /// "Send me nothing new" (an extension of MOSN).
    Goaway,
}

impl Kind {
    const RESPONSE: u8 = 0;
    const REQUEST: u8 = 1;
    const ONE_WAY: u8 = 2;

    fn read(kind: u8, command: u16) -> Result<Self, Reject> {
        match (kind, command) {
            (Self::RESPONSE, 0) => Ok(Kind::HeartbeatAck),
            (Self::RESPONSE, 2) => Ok(Kind::Response),
            (Self::REQUEST | Self::ONE_WAY, 0) => Ok(Kind::Heartbeat),
            (Self::REQUEST, 1) => Ok(Kind::Request),
            (Self::ONE_WAY, 1) => Ok(Kind::OneWay),
            (Self::REQUEST | Self::ONE_WAY, 100) => Ok(Kind::Goaway),
            (..=Self::ONE_WAY, _) => Err(Reject::Command(command)),
            _ => Err(Reject::Type(kind)),
        }
    }

    /// Type and command on the wire.
    pub(super) fn codes(self) -> (u8, u16) {
        match self {
            Kind::Request => (Self::REQUEST, 1),
            Kind::OneWay => (Self::ONE_WAY, 1),
            Kind::Response => (Self::RESPONSE, 2),
            Kind::Heartbeat => (Self::REQUEST, 0),
            Kind::HeartbeatAck => (Self::RESPONSE, 0),
            Kind::Goaway => (Self::REQUEST, 100),
        }
    }

    /// True for those that bear a status instead of a timeout.
    pub(super) fn is_response(self) -> bool {
        matches!(self, Kind::Response | Kind::HeartbeatAck)
    }
}

/// The protocol's version, which answers have to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// Protocol 1.
    V1,
    /// Protocol 2.
    V2 {
        /// Its minor version: 1 is version 1 with another head, in 2 there can be a checksum.
        minor: u8,
        /// Features that are on; bit 0 is the checksum.
        switches: u8,
    },
}

impl Version {
    /// Whether a CRC-32 follows the content. Java sets the switch in minor version 1 too, without sending one.
    pub fn has_checksum(self) -> bool {
        matches!(self, Version::V2 { minor: 2, switches } if switches & 1 == 1)
    }

    /// Where the id is: one byte later in version 2.
    pub(super) fn id_at(self) -> usize {
        5 + usize::from(self != Version::V1)
    }

    /// The version in which to answer a frame of this one: a switch that means nothing here stays off.
    pub(super) fn of_answer(self) -> Self {
        match self {
            Version::V2 { minor, switches } => {
                Version::V2 { minor, switches: if self.has_checksum() { switches } else { switches & !1 } }
            }
            Version::V1 => Version::V1,
        }
    }
}

/// The fixed part of a frame, with the lengths of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Version.
    pub version: Version,
    /// What the frame is.
    pub kind: Kind,
    /// Its id: an answer has that of its request.
    pub id: u32,
    /// How the content is serialised: 1 Hessian 2, 2 Java, 11 protobuf, 12 JSON.
    pub codec: u8,
    /// How long the caller waits; none if it says zero or less, and in responses.
    pub timeout: Option<Duration>,
    /// Status of a response, 0 for success; 0 in requests.
    pub status: u16,
    /// Length of the class name in bytes.
    pub class_len: usize,
    /// Length of the header map in bytes.
    pub headers_len: usize,
    /// Length of the content in bytes.
    pub content_len: usize,
}

impl Head {
    /// Parses the head at the start of `bytes`; `None` if it is not complete yet.
    ///
    /// # Errors
    /// If this is no frame of SOFABolt. Limits are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Reject> {
        match bytes.first() {
            None => Ok(None),
            Some(1) => Self::after(Version::V1, bytes, 1),
            Some(2) => match (bytes.get(1), bytes.get(11)) {
                (Some(&minor @ (0 | 3..)), _) => Err(Reject::Minor(minor)),
                (Some(&minor), Some(&switches)) => Self::after(Version::V2 { minor, switches }, bytes, 2),
                _ => Ok(None),
            },
            Some(&other) => Err(Reject::Protocol(other)),
        }
    }

    /// `at` is where the type is. The parts of the head are read in order.
    fn after(version: Version, bytes: &[u8], at: usize) -> Result<Option<Self>, Reject> {
        let Some((&kind_code, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else { return Ok(None) };
        let mut fields = Fields(rest);
        let Some(command) = fields.number(2) else { return Ok(None) };
        let kind = Kind::read(kind_code, command as u16)?;
        fields.rest_of_head(version, kind).map(Self::with_checked_lengths).transpose()
    }

    fn with_checked_lengths(self) -> Result<Self, Reject> {
        let most = super::MAX_SECTION_BYTES;
        let fits = self.class_len <= most && self.headers_len <= most && self.content_len <= i32::MAX as usize;
        if fits { Ok(self) } else { Err(Reject::NegativeLength) }
    }

    /// Length of the head in bytes.
    pub fn head_len(&self) -> usize {
        let switches = if self.version == Version::V1 { 0 } else { 2 };
        let timeout_or_status = if self.kind.is_response() { 20 } else { 22 };
        timeout_or_status + switches
    }

    /// Length of the whole frame in bytes.
    pub fn frame_len(&self) -> usize {
        let checksum = if self.version.has_checksum() { 4 } else { 0 };
        self.head_len() + self.class_len + self.headers_len + self.content_len + checksum
    }

    /// Whether the peer waits for an answer.
    pub fn wants_answer(&self) -> bool {
        matches!(self.kind, Kind::Request | Kind::Heartbeat)
    }

    /// Appends the head.
    pub(super) fn put(&self, out: &mut bytes::BytesMut) {
        use bytes::BufMut;
        let (kind, command) = self.kind.codes();
        match self.version {
            Version::V1 => out.put_u8(1),
            Version::V2 { minor, .. } => out.put_slice(&[2, minor]),
        }
        out.put_u8(kind);
        out.put_u16(command);
        out.put_u8(1);
        out.put_u32(self.id);
        out.put_u8(self.codec);
        if let Version::V2 { switches, .. } = self.version {
            out.put_u8(switches);
        }
        if self.kind.is_response() {
            out.put_u16(self.status);
        } else {
            out.put_u32(self.timeout.map_or(0, |timeout| timeout.as_millis().min(i32::MAX as u128) as u32));
        }
        out.put_u16(self.class_len as u16);
        out.put_u16(self.headers_len as u16);
        out.put_u32(self.content_len as u32);
    }
}

/// What is left to read of a head.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn number(&mut self, len: usize) -> Option<u32> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn rest_of_head(mut self, version: Version, kind: Kind) -> Option<Head> {
        self.number(1)?;
        let id = self.number(4)?;
        let codec = self.number(1)? as u8;
        if version != Version::V1 {
            self.number(1)?;
        }
        let (timeout, status) =
            if kind.is_response() { (None, self.number(2)? as u16) } else { (timeout(self.number(4)?), 0) };
        Some(Head {
            version,
            kind,
            id,
            codec,
            timeout,
            status,
            class_len: self.number(2)? as usize,
            headers_len: self.number(2)? as usize,
            content_len: self.number(4)? as usize,
        })
    }
}

fn timeout(millis: u32) -> Option<Duration> {
    let millis = millis as i32;
    (millis > 0).then(|| Duration::from_millis(millis.unsigned_abs().into()))
}
