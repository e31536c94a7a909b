//! Strings: their length counts UTF-16 units, their bytes are UTF-8 or, for what lies beyond the basic plane, CESU-8.

use std::borrow::Cow;

use super::{Malformed, Reader};

/// One chunk of a string.
struct Chunk<'b> {
    bytes: &'b [u8],
    is_last: bool,
}

pub(super) fn is_text(code: u8) -> bool {
    matches!(code, 0x00..=0x1f | 0x30..=0x33 | b'R' | b'S')
}

impl<'b> Reader<'b> {
    /// Takes a string.
    ///
    /// # Errors
    /// If there is something else, or it is malformed.
    pub fn text(&mut self) -> Result<Cow<'b, str>, Malformed> {
        let first = self.chunk()?;
        let mut text = decode(first.bytes)?;
        let mut is_last = first.is_last;
        while !is_last {
            let chunk = self.chunk()?;
            text.to_mut().push_str(&decode(chunk.bytes)?);
            is_last = chunk.is_last;
        }
        Ok(text)
    }

    /// Steps over a string without looking whether it is well formed within.
    pub(super) fn skip_text(&mut self) -> Result<(), Malformed> {
        while !self.chunk()?.is_last {}
        Ok(())
    }

    fn chunk(&mut self) -> Result<Chunk<'b>, Malformed> {
        let at = self.at;
        let code = self.byte()?;
        let units = match code {
            0x00..=0x1f => usize::from(code),
            0x30..=0x33 => usize::from(code - 0x30) << 8 | usize::from(self.byte()?),
            b'R' | b'S' => self.unsigned(2)? as usize,
            _ => return Err(Malformed::Code { code, at }),
        };
        let rest = &self.bytes[self.at..];
        let bytes = &rest[..encoded_len(rest, units)?];
        self.at += bytes.len();
        Ok(Chunk { bytes, is_last: code != b'R' })
    }
}

/// How many bytes these many UTF-16 units take.
fn encoded_len(bytes: &[u8], mut units: usize) -> Result<usize, Malformed> {
    let mut at = 0;
    loop {
        let run = ascii_run(bytes.get(at..).unwrap_or_default(), units);
        (at, units) = (at + run, units - run);
        if units == 0 {
            return Ok(at);
        }
        let (len, taken) = match *bytes.get(at).ok_or(Malformed::Truncated)? {
            0xc0..=0xdf => (2, 1),
            0xe0..=0xef => (3, 1),
            0xf0..=0xf7 if units > 1 => (4, 2),
            _ => return Err(Malformed::Text),
        };
        (at, units) = (at + len, units - taken);
        if at > bytes.len() {
            return Err(Malformed::Truncated);
        }
    }
}

/// How many of the first `most` bytes are ASCII, looked at in blocks, as most text is nothing else.
fn ascii_run(bytes: &[u8], most: usize) -> usize {
    const BLOCK: usize = 64;
    let bytes = &bytes[..most.min(bytes.len())];
    let blocks = bytes.chunks_exact(BLOCK).take_while(|block| block.is_ascii()).count() * BLOCK;
    blocks + bytes[blocks..].iter().take_while(|byte| byte.is_ascii()).count()
}

fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) => decode_cesu8(bytes).map(Cow::Owned),
    }
}

/// Surrogates that are encoded one by one, three bytes each.
fn decode_cesu8(bytes: &[u8]) -> Result<String, Malformed> {
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let len = match first {
            0x00..=0x7f => 1,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        let (char_bytes, after) = rest.split_at_checked(len).ok_or(Malformed::Text)?;
        push_units(char_bytes, &mut units)?;
        rest = after;
    }
    String::from_utf16(&units).map_err(|_| Malformed::Text)
}

fn push_units(bytes: &[u8], units: &mut Vec<u16>) -> Result<(), Malformed> {
    if let &[0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf] = bytes {
        units.push(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f));
        return Ok(());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Text)?;
    units.extend(text.encode_utf16());
    Ok(())
}

/// Appends `text` as a Hessian string, in the shortest form and, like Java, in CESU-8.
pub fn put_text(text: &str, out: &mut Vec<u8>) {
    /// Java's own chunk, as `writeString` has it.
    const CHUNK_UNITS: usize = 0x8000;
    let mut rest = text;
    loop {
        let (chunk, units, after) = split_units(rest, CHUNK_UNITS);
        put_chunk_head(units, after.is_empty(), out);
        put_cesu8(chunk, out);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

fn put_chunk_head(units: usize, is_last: bool, out: &mut Vec<u8>) {
    let [high, low] = (units as u16).to_be_bytes();
    match units {
        0..=31 if is_last => out.push(low),
        32..=1023 if is_last => out.extend([0x30 + high, low]),
        _ => out.extend([if is_last { b'S' } else { b'R' }, high, low]),
    }
}

/// As many characters as `most` units hold, how many units they are, and the rest.
fn split_units(text: &str, most: usize) -> (&str, usize, &str) {
    let mut units = 0;
    for (at, char) in text.char_indices() {
        if units + char.len_utf16() > most {
            return (&text[..at], units, &text[at..]);
        }
        units += char.len_utf16();
    }
    (text, units, "")
}

fn put_cesu8(text: &str, out: &mut Vec<u8>) {
    for char in text.chars() {
        let mut units = [0; 2];
        match char.encode_utf16(&mut units) {
            [_] => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            pair => pair.iter().for_each(|&unit| put_surrogate(unit, out)),
        }
    }
}

fn put_surrogate(unit: u16, out: &mut Vec<u8>) {
    let low_six = |bits: u16| 0x80 | (bits & 0x3f) as u8;
    out.extend([0xe0 | (unit >> 12) as u8, low_six(unit >> 6), low_six(unit)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(text, &mut out);
        out
    }

    #[test]
    fn every_length_has_its_form_and_comes_back() {
        for (len, start) in [
            (0, &[0][..]),
            (31, &[31]),
            (32, &[0x30, 32]),
            (1023, &[0x33, 0xff]),
            (1024, &[b'S', 4, 0]),
            (0x8000, &[b'S', 0x80, 0]),
            (0x8001, &[b'R', 0x80, 0]),
        ] {
            let text = "x".repeat(len);
            let bytes = encoded(&text);
            assert!(bytes.starts_with(start), "{len}");
            assert_eq!(Reader::new(&bytes).text().as_deref(), Ok(text.as_str()));
        }
    }

    #[test]
    fn beyond_the_basic_plane_both_encodings_are_read() {
        let text = "a\u{1f600}é中";
        let cesu8 = [&[5, b'a', 0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80][..], "é中".as_bytes()].concat();
        assert_eq!(encoded(text), cesu8);
        let utf8 = [&[5][..], text.as_bytes()].concat();
        for bytes in [cesu8, utf8] {
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.text().as_deref(), Ok(text));
            assert_eq!(reader.position(), bytes.len());
        }
    }

    #[test]
    fn a_pair_of_surrogates_is_not_cut() {
        let text = format!("{}\u{1f600}", "x".repeat(0x7fff));
        let bytes = encoded(&text);
        assert!(bytes.starts_with(&[b'R', 0x7f, 0xff]));
        assert_eq!(Reader::new(&bytes).text().as_deref(), Ok(text.as_str()));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for bytes in [&b""[..], b"\x01", b"\x02a", b"\x30", b"S\x00", b"R\x00\x01a", b"\x01\xc3", b"\x01\x80", b"I"] {
            assert!(Reader::new(bytes).text().is_err(), "{bytes:?}");
        }
        assert_eq!(Reader::new(b"\x01\xed\xa0\xbd").text(), Err(Malformed::Text), "half a pair");
        assert_eq!(Reader::new(b"\x01\xf0\x9f\x98\x80").text(), Err(Malformed::Text), "one unit for two");
    }
}
