//! The chunked transfer coding (RFC 9112 section 7.1), read byte range by byte range.
//!
//! The decoder tells where data lies in what the peer sent; it copies nothing but trailers. A proxy that passes the
//! coding on unchanged uses the same steps to learn where the body ends.

use super::{Header, Reject};

/// Extensions of all chunks of a body together; peers have no use for more.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
/// Hexadecimal digits of a chunk's size: below 2^60, so that sums cannot overflow.
const MAX_SIZE_DIGITS: u8 = 15;
/// Trailer fields.
const MAX_TRAILERS: usize = 64;

/// Reads a chunked body in pieces of any size.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    remaining: u64,
    size_digits: u8,
    extension_bytes: usize,
    trailers: Vec<u8>,
    max_trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `1f` -> Extension | SizeLf
    Size,
    /// `;a=b` -> SizeLf
    Extension,
    /// The LF of a size line -> Data | Trailers (size 0)
    SizeLf,
    /// -> DataCr
    Data,
    /// -> DataLf
    DataCr,
    /// -> Size
    DataLf,
    /// Lines up to an empty one -> Done
    Trailers,
    /// Nothing more is read.
    Done,
}

/// What a step found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'b> {
    /// Data of the body, and how many bytes of the input were used up to its end.
    Data(&'b [u8], usize),
    /// All input was used; more is needed.
    More,
    /// The body has ended after this many bytes; what follows is not part of it.
    End(usize),
}

impl ChunkDecoder {
    /// A decoder at the start of a body.
    pub fn new(max_trailer_bytes: usize) -> Self {
        ChunkDecoder {
            state: State::Size,
            remaining: 0,
            size_digits: 0,
            extension_bytes: 0,
            trailers: Vec::new(),
            max_trailer_bytes,
        }
    }

    /// Reads on; call again with what is left of the input after each [`Step::Data`].
    ///
    /// # Errors
    /// If the coding is malformed or a bound is passed. The body cannot be read any further then.
    pub fn step<'b>(&mut self, input: &'b [u8]) -> Result<Step<'b>, Reject> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                return Ok(self.data(input, at));
            }
            if self.state == State::Trailers {
                at += self.trailer_bytes(&input[at..])?;
            } else {
                self.byte(input[at])?;
                at += 1;
            }
        }
        Ok(if self.state == State::Done { Step::End(at) } else { Step::More })
    }

    /// Passes over input without looking at data: bytes used, and whether the body has ended there.
    ///
    /// # Errors
    /// As [`ChunkDecoder::step`].
    pub fn skip(&mut self, input: &[u8]) -> Result<(usize, bool), Reject> {
        let mut used = 0;
        loop {
            match self.step(&input[used..])? {
                Step::Data(_, more) => used += more,
                Step::More => return Ok((input.len(), false)),
                Step::End(more) => return Ok((used + more, true)),
            }
        }
    }

    /// True once the whole body has been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer fields of a body that has ended, lent to `each` one by one.
    pub fn trailers(&self, mut each: impl FnMut(&str, &[u8])) {
        let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILERS];
        if let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(&self.trailers, &mut slots) {
            headers.iter().for_each(|header| each(header.name, header.value));
        }
    }

    fn data<'b>(&mut self, input: &'b [u8], at: usize) -> Step<'b> {
        let available = (input.len() - at) as u64;
        let len = available.min(self.remaining);
        self.remaining -= len;
        if self.remaining == 0 {
            self.state = State::DataCr;
        }
        let end = at + len as usize;
        Step::Data(&input[at..end], end)
    }

    fn byte(&mut self, byte: u8) -> Result<(), Reject> {
        self.state = match self.state {
            State::Size => self.size(byte)?,
            State::Extension => self.extension(byte)?,
            State::SizeLf => self.size_line_end(byte)?,
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => self.next_chunk(),
            _ => return Err(Reject::ChunkEnd),
        };
        Ok(())
    }

    fn size(&mut self, byte: u8) -> Result<State, Reject> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if self.size_digits > 0 => return Ok(State::Extension),
            b'\r' if self.size_digits > 0 => return Ok(State::SizeLf),
            _ => return Err(Reject::ChunkSize),
        };
        if self.size_digits == MAX_SIZE_DIGITS {
            return Err(Reject::ChunkSize);
        }
        self.size_digits += 1;
        self.remaining = self.remaining * 16 + u64::from(digit);
        Ok(State::Size)
    }

    fn extension(&mut self, byte: u8) -> Result<State, Reject> {
        self.extension_bytes += 1;
        match byte {
            b'\r' => Ok(State::SizeLf),
            _ if self.extension_bytes > MAX_EXTENSION_BYTES => Err(Reject::ChunkExtension),
            b'\t' | 0x20..=0x7e | 0x80.. => Ok(State::Extension),
            _ => Err(Reject::ChunkExtension),
        }
    }

    fn size_line_end(&mut self, byte: u8) -> Result<State, Reject> {
        match byte {
            b'\n' if self.remaining > 0 => Ok(State::Data),
            b'\n' => Ok(State::Trailers),
            _ => Err(Reject::ChunkSize),
        }
    }

    fn next_chunk(&mut self) -> State {
        self.size_digits = 0;
        State::Size
    }

    /// Takes bytes up to the end of a line, or all; after the empty line the section is checked as a whole.
    fn trailer_bytes(&mut self, input: &[u8]) -> Result<usize, Reject> {
        let line_end = memchr::memchr(b'\n', input);
        let len = line_end.map_or(input.len(), |at| at + 1);
        if self.trailers.len() + len > self.max_trailer_bytes.max(2) {
            return Err(Reject::TrailersTooLong);
        }
        self.trailers.extend_from_slice(&input[..len]);
        if line_end.is_some() && (self.trailers == b"\r\n" || self.trailers.ends_with(b"\n\r\n")) {
            check_trailers(&self.trailers)?;
            self.state = State::Done;
        } else if line_end.is_some() && !self.trailers.ends_with(b"\r\n") {
            return Err(Reject::BareLineEnd);
        }
        Ok(len)
    }
}

fn check_trailers(section: &[u8]) -> Result<(), Reject> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(section, &mut slots) {
        Ok(httparse::Status::Complete((_, headers))) if headers.iter().all(may_trail) => Ok(()),
        Err(httparse::Error::TooManyHeaders) => Err(Reject::TrailersTooLong),
        _ => Err(Reject::Trailer),
    }
}

/// Fields that frame or route a message may not come after it (RFC 9110 section 6.5.1).
fn may_trail(header: &Header<'_>) -> bool {
    super::known(header.name) == super::Known::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8]) -> Result<(Vec<u8>, usize), Reject> {
        let mut decoder = ChunkDecoder::new(1024);
        let (mut body, mut used) = (Vec::new(), 0);
        loop {
            match decoder.step(&input[used..])? {
                Step::Data(data, more) => {
                    body.extend_from_slice(data);
                    used += more;
                }
                Step::End(more) => return Ok((body, used + more)),
                Step::More => panic!("incomplete: {:?}", String::from_utf8_lossy(input)),
            }
        }
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        let input = b"3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\n\r\nGET /";
        assert_eq!(decode(input), Ok((b"abc0123456789".to_vec(), input.len() - 5)));
    }

    #[test]
    fn trailers_are_kept() {
        let mut decoder = ChunkDecoder::new(1024);
        assert_eq!(decoder.skip(b"0\r\na: 1\r\nB:2\r\n\r\n"), Ok((16, true)));
        let mut fields = Vec::new();
        decoder.trailers(|name, value| fields.push((name.to_owned(), value.to_owned())));
        assert_eq!(fields, [("a".to_owned(), b"1".to_vec()), ("B".to_owned(), b"2".to_vec())]);
    }

    #[test]
    fn whatever_two_parsers_could_read_differently_is_refused() {
        let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_EXTENSION_BYTES + 1));
        let long_trailer = format!("0\r\na: {}\r\n\r\n", "x".repeat(2000));
        let cases: [(&[u8], Reject); 22] = [
            (b"\r\n", Reject::ChunkSize),
            (b" 1\r\na\r\n", Reject::ChunkSize),
            (b"1 \r\na\r\n", Reject::ChunkSize),
            (b"0x1\r\na\r\n", Reject::ChunkSize),
            (b"+1\r\na\r\n", Reject::ChunkSize),
            (b"-1\r\na\r\n", Reject::ChunkSize),
            (b"1_0\r\na\r\n", Reject::ChunkSize),
            (b"g\r\n", Reject::ChunkSize),
            (b"1\na\r\n", Reject::ChunkSize),
            (b"1\r\r\n", Reject::ChunkSize),
            (b"1000000000000000\r\n", Reject::ChunkSize),
            (b"0000000000000001\r\na\r\n", Reject::ChunkSize),
            (b"1;a\nb\r\n", Reject::ChunkExtension),
            (b"1;a\0b\r\n", Reject::ChunkExtension),
            (long_extension.as_bytes(), Reject::ChunkExtension),
            (b"1\r\nab\r\n", Reject::ChunkEnd),
            (b"1\r\na\n", Reject::ChunkEnd),
            (b"1\r\na\r0", Reject::ChunkEnd),
            (b"0\r\na: 1\n\r\n", Reject::BareLineEnd),
            (b"0\r\na : 1\r\n\r\n", Reject::Trailer),
            (b"0\r\nContent-Length: 1\r\n\r\n", Reject::Trailer),
            (long_trailer.as_bytes(), Reject::TrailersTooLong),
        ];
        for (input, reject) in cases {
            let found = ChunkDecoder::new(1024).skip(input);
            assert_eq!(found, Err(reject), "{:?}", String::from_utf8_lossy(input));
        }
    }
}
