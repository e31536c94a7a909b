//! Reading header blocks (RFC 7541 section 6).

use super::huffman;
use super::table::{Entry, Table};

/// Size of the dynamic table that a peer may use: the default, which we leave as it is (bytes).
const TABLE_BYTES: usize = 4096;
/// No number in a header block is larger; names and values are bounded by the block anyway.
const MAX_NUMBER: usize = 1 << 28;

/// What is wrong with a header block. All of them end the connection, since the tables are out of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The block ends in the middle of something.
    #[error("the header block ends too early")]
    Truncated,
    /// A number is too large.
    #[error("a number is too large")]
    Number,
    /// There is no entry at that place.
    #[error("a field refers to an entry that is not there")]
    Place,
    /// A string is not in Huffman code.
    #[error("a string breaks the Huffman code")]
    Huffman,
    /// The table is to be larger than it may, or not at the beginning of the block.
    #[error("the table's size is changed where or to what it may not be")]
    Resize,
}

/// Reads header blocks of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { table: Table::new(TABLE_BYTES) }
    }
}

impl Decoder {
    /// Reads a block and hands its fields to `put`: name, value, and whether the field must never be compressed by
    /// anybody. A block must be read to its end even if its fields are not wanted.
    ///
    /// # Errors
    /// The block is malformed; the connection cannot go on.
    pub fn decode(&mut self, mut block: &[u8], mut put: impl FnMut(&[u8], &[u8], bool)) -> Result<(), HpackError> {
        let mut strings = crate::pool::take();
        let mut begun = false;
        let mut result = Ok(());
        while let (Ok(()), Some(&first)) = (result, block.first()) {
            let resizes = first & 0xe0 == 0x20;
            result = match resizes {
                true if begun => Err(HpackError::Resize),
                true => self.resize(&mut block),
                false => self.field(first, &mut block, &mut strings, &mut put),
            };
            begun |= !resizes;
        }
        crate::pool::put(strings);
        result
    }

    fn resize(&mut self, block: &mut &[u8]) -> Result<(), HpackError> {
        let size = number(block, 5)?;
        if size > TABLE_BYTES {
            return Err(HpackError::Resize);
        }
        self.table.resize(size);
        Ok(())
    }

    #[inline]
    fn field(
        &mut self,
        first: u8,
        block: &mut &[u8],
        strings: &mut Vec<u8>,
        put: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), HpackError> {
        if first & 0x80 != 0 {
            let (name, value) = self.table.get(number(block, 7)?).ok_or(HpackError::Place)?;
            put(name, value, false);
            return Ok(());
        }
        let indexed = first & 0x40 != 0;
        let place = number(block, if indexed { 6 } else { 4 })?;
        strings.clear();
        let name = match place {
            0 => Some(string(block, strings)?),
            _ => None,
        };
        let value = string(block, strings)?;
        let name = match &name {
            Some(name) => name.of(strings),
            None => self.table.get(place).ok_or(HpackError::Place)?.0,
        };
        let value = value.of(strings);
        put(name, value, first & 0x10 != 0 && !indexed);
        if indexed {
            let entry = Entry::new(name, value);
            self.table.insert(entry);
        }
        Ok(())
    }
}

/// A string: as it lies in the block, or decoded.
enum Text<'a> {
    Plain(&'a [u8]),
    Decoded(std::ops::Range<usize>),
}

impl Text<'_> {
    fn of<'s>(&'s self, strings: &'s [u8]) -> &'s [u8] {
        match self {
            Text::Plain(bytes) => bytes,
            Text::Decoded(range) => &strings[range.clone()],
        }
    }
}

fn string<'a>(block: &mut &'a [u8], strings: &mut Vec<u8>) -> Result<Text<'a>, HpackError> {
    let first = *block.first().ok_or(HpackError::Truncated)?;
    let len = number(block, 7)?;
    let (bytes, rest) = block.split_at_checked(len).ok_or(HpackError::Truncated)?;
    *block = rest;
    if first & 0x80 == 0 {
        return Ok(Text::Plain(bytes));
    }
    let start = strings.len();
    huffman::decode(bytes, strings)?;
    Ok(Text::Decoded(start..strings.len()))
}

/// A number whose first bits share a byte with something else (RFC 7541 section 5.1).
#[inline]
fn number(block: &mut &[u8], prefix_bits: u32) -> Result<usize, HpackError> {
    let (&first, mut rest) = block.split_first().ok_or(HpackError::Truncated)?;
    let mask = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(HpackError::Truncated)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return Err(HpackError::Number);
            }
        }
    }
    *block = rest;
    if value > MAX_NUMBER { Err(HpackError::Number) } else { Ok(value) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
