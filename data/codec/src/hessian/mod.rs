//! As much of Hessian 2 as a proxy needs: strings and numbers are read, everything else is stepped over.
//!
//! Format: <http://hessian.caucho.com/doc/hessian-serialization.html>, with what Java's `Hessian2Input` and hessian.js
//! do where that page is silent (medium binary `0x34..=0x37`, strings in CESU-8). No value is built: an argument of any
//! shape costs one pass over its bytes and a stack bounded by [`MAX_DEPTH`].

mod skip;
mod text;

pub use text::put_text;

use std::borrow::Cow;

/// How deep values may be nested. Java's own reader recurses, and runs out of stack in the same order of magnitude.
pub const MAX_DEPTH: usize = 4096;
/// How many classes one body may define.
pub const MAX_CLASSES: usize = 4096;

/// Why bytes are not Hessian 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The bytes end within a value.
    #[error("the bytes end within a value")]
    Truncated,
    /// A byte that begins no value, or not one of the kind which must be here.
    #[error("unexpected code 0x{code:02x} at byte {at}")]
    Code {
        /// The byte.
        code: u8,
        /// Where it is, counted from where reading began.
        at: usize,
    },
    /// A negative length, or more fields than there are bytes.
    #[error("a length that cannot be")]
    Length,
    /// A string that is neither UTF-8 nor CESU-8.
    #[error("a string is not UTF-8")]
    Text,
    /// An object of a class that was not defined.
    #[error("an object of an undefined class")]
    Class,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("values are nested too deeply")]
    TooDeep,
    /// More classes than [`MAX_CLASSES`].
    #[error("too many classes are defined")]
    TooManyClasses,
}

/// A place in a body. Values must be taken in order, since classes defined in one are used in later ones.
#[derive(Debug, Clone)]
pub struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    /// For each class defined so far, how many fields it has.
    classes: Vec<usize>,
}

/// A value as far as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'b> {
    /// `N`.
    Null,
    /// A string.
    Text(Cow<'b, str>),
    /// An int or a long.
    Integer(i64),
    /// Anything else, as it is encoded.
    Other(&'b [u8]),
}

impl<'b> Reader<'b> {
    /// At the start of `bytes`.
    pub fn new(bytes: &'b [u8]) -> Self {
        Reader { bytes, at: 0, classes: Vec::new() }
    }

    /// How many bytes have been taken.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next byte, which is left where it is.
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Takes the next byte if it is this one.
    pub fn take_if(&mut self, code: u8) -> bool {
        let found = self.peek() == Some(code);
        self.at += usize::from(found);
        found
    }

    /// Takes a string or `N`.
    ///
    /// # Errors
    /// If there is something else, or it is malformed.
    pub fn text_or_null(&mut self) -> Result<Option<Cow<'b, str>>, Malformed> {
        if self.take_if(b'N') { Ok(None) } else { self.text().map(Some) }
    }

    /// Takes a value; what is neither null, text nor integer is returned as it is encoded.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn value(&mut self) -> Result<Value<'b>, Malformed> {
        match self.peek().ok_or(Malformed::Truncated)? {
            b'N' => {
                self.at += 1;
                Ok(Value::Null)
            }
            code if text::is_text(code) => self.text().map(Value::Text),
            code if is_int(code) || is_long(code) => self.integer().map(Value::Integer),
            _ => {
                let start = self.at;
                self.skip()?;
                Ok(Value::Other(&self.bytes[start..self.at]))
            }
        }
    }

    /// Takes an int or a long.
    ///
    /// # Errors
    /// If there is something else.
    pub fn integer(&mut self) -> Result<i64, Malformed> {
        let start = self.at;
        let code = self.byte()?;
        let offset = |code: u8, zero: u8| i64::from(code) - i64::from(zero);
        match code {
            0x80..=0xbf => Ok(offset(code, 0x90)),
            0xc0..=0xcf => Ok((offset(code, 0xc8) << 8) + self.unsigned(1)?),
            0xd0..=0xd7 => Ok((offset(code, 0xd4) << 16) + self.unsigned(2)?),
            0xd8..=0xef => Ok(offset(code, 0xe0)),
            0xf0..=0xff => Ok((offset(code, 0xf8) << 8) + self.unsigned(1)?),
            0x38..=0x3f => Ok((offset(code, 0x3c) << 16) + self.unsigned(2)?),
            b'I' | 0x59 => Ok(i64::from(self.unsigned(4)? as u32 as i32)),
            b'L' => self.unsigned(8),
            _ => Err(Malformed::Code { code, at: start }),
        }
    }

    pub(crate) fn length(&mut self) -> Result<usize, Malformed> {
        match self.peek() {
            Some(code) if is_int(code) => usize::try_from(self.integer()?).map_err(|_| Malformed::Length),
            Some(code) => Err(Malformed::Code { code, at: self.at }),
            None => Err(Malformed::Truncated),
        }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.peek().ok_or(Malformed::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next bytes as a big-endian number; all eight make it two's complement.
    fn unsigned(&mut self, bytes: usize) -> Result<i64, Malformed> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().fold(0, |number, &byte| number << 8 | i64::from(byte)))
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'b [u8], Malformed> {
        let end = self.at.checked_add(len).ok_or(Malformed::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed::Truncated)?;
        self.at = end;
        Ok(taken)
    }
}

fn is_int(code: u8) -> bool {
    matches!(code, b'I' | 0x80..=0xd7)
}

fn is_long(code: u8) -> bool {
    matches!(code, b'L' | 0x59 | 0x38..=0x3f | 0xd8..=0xff)
}
