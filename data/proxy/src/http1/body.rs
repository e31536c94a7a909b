//! A body while it passes: how much of what was read belongs to it.

use weir_codec::http1::{ChunkDecoder, Framing, Reject, Step};

/// Trailer sections are bounded like heads (bytes).
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// What is left of a body.
#[derive(Debug)]
pub(crate) enum Body {
    /// It has ended.
    Done,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Box<ChunkDecoder>),
    /// All that comes.
    UntilClose,
}

impl Body {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Body::Done,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Box::new(ChunkDecoder::new(MAX_TRAILER_BYTES))),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Body::Done)
    }

    /// Takes what belongs to the body from the front of `bytes`, framing included: how much that is.
    pub(crate) fn claim(&mut self, bytes: &[u8]) -> Result<usize, Reject> {
        match self {
            Body::Done => Ok(0),
            Body::UntilClose => Ok(bytes.len()),
            Body::Length(left) => {
                let len = (*left).min(bytes.len() as u64);
                *left -= len;
                if *left == 0 {
                    *self = Body::Done;
                }
                Ok(len as usize)
            }
            Body::Chunked(decoder) => {
                let (len, done) = decoder.skip(bytes)?;
                if done {
                    *self = Body::Done;
                }
                Ok(len)
            }
        }
    }

    /// Like [`Body::claim`], but appends the data without its framing to `out`.
    pub(crate) fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Reject> {
        let Body::Chunked(decoder) = self else {
            let len = self.claim(bytes)?;
            out.extend_from_slice(&bytes[..len]);
            return Ok(len);
        };
        let mut used = 0;
        loop {
            match decoder.step(&bytes[used..])? {
                Step::Data(data, more) => {
                    out.extend_from_slice(data);
                    used += more;
                }
                Step::More => return Ok(bytes.len()),
                Step::End(more) => {
                    *self = Body::Done;
                    return Ok(used + more);
                }
            }
        }
    }

    /// The peer has closed: whether the body is whole.
    pub(crate) fn ends_at_close(&self) -> bool {
        matches!(self, Body::Done | Body::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let mut body = Body::new(Framing::Length(5));
        assert_eq!(body.claim(b"abc"), Ok(3));
        assert_eq!(body.claim(b"defg"), Ok(2));
        assert!(body.is_done());
        let mut body = Body::new(Framing::Chunked);
        assert_eq!(body.claim(b"3\r\nabc\r\n0\r\n\r\nGET"), Ok(13));
        assert!(body.is_done());
        assert!(Body::new(Framing::UntilClose).ends_at_close() && !Body::new(Framing::Chunked).ends_at_close());
    }

    #[test]
    fn decoding_leaves_the_data() {
        let (mut body, mut out) = (Body::new(Framing::Chunked), Vec::new());
        assert_eq!(body.decode(b"3\r\nabc\r\n1\r\n", &mut out), Ok(11));
        assert_eq!(body.decode(b"d\r\n0\r\n\r\nX", &mut out), Ok(8));
        assert!(body.is_done());
        assert_eq!(out, b"abcd");
    }
}
