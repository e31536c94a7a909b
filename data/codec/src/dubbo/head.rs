//! The fixed part of a frame.

use bytes::BufMut;

use super::Reject;

/// Length of the head in bytes.
pub const HEAD_LEN: usize = 16;
/// The first two bytes of every frame.
pub const MAGIC: [u8; 2] = [0xda, 0xbb];

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// A request, or a response.
    pub is_request: bool,
    /// A request that is to be answered.
    pub is_two_way: bool,
    /// A heartbeat or another event, not a call.
    pub is_event: bool,
    /// How the body is serialised; 2 is Hessian 2.
    pub serialization: u8,
    /// Status of a response, 20 if it carries a result; 0 in requests.
    pub status: u8,
    /// Its id: an answer has that of its request.
    pub id: u64,
    /// Length of the body in bytes.
    pub body_len: usize,
}

impl Head {
    const REQUEST: u8 = 0x80;
    const TWO_WAY: u8 = 0x40;
    const EVENT: u8 = 0x20;

    /// Parses the head at the start of `bytes`; `None` if it is not complete yet.
    ///
    /// # Errors
    /// If this is no frame of Dubbo. Limits are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Reject> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(Reject::Magic);
        }
        let Some(&[_, _, flags, status, ref id @ .., l3, l2, l1, l0]) = bytes.first_chunk::<HEAD_LEN>() else {
            return Ok(None);
        };
        let body_len = usize::try_from(i32::from_be_bytes([l3, l2, l1, l0])).map_err(|_| Reject::NegativeLength)?;
        Ok(Some(Head {
            is_request: flags & Self::REQUEST != 0,
            is_two_way: flags & Self::TWO_WAY != 0,
            is_event: flags & Self::EVENT != 0,
            serialization: flags & 0x1f,
            status,
            id: u64::from_be_bytes(*id),
            body_len,
        }))
    }

    /// Length of the whole frame in bytes.
    pub fn frame_len(&self) -> usize {
        HEAD_LEN + self.body_len
    }

    /// Whether the peer waits for an answer.
    pub fn wants_answer(&self) -> bool {
        self.is_request && self.is_two_way
    }

    pub(super) fn put(&self, out: &mut bytes::BytesMut) {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(self.is_request, Self::REQUEST)
            | flag(self.is_two_way, Self::TWO_WAY)
            | flag(self.is_event, Self::EVENT)
            | self.serialization;
        out.put_slice(&MAGIC);
        out.put_slice(&[flags, self.status]);
        out.put_u64(self.id);
        out.put_u32(self.body_len as u32);
    }
}
