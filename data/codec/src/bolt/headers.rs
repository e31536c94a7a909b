//! SOFARPC's header map (`SimpleMapSerializer.java`): a length and a key, a length and a value, and so on; -1 is null.

use super::{MAX_SECTION_BYTES, Reject};
use crate::rpc::{Edit, last_of_each_key};

/// The pairs of a header map, in order. A key that is there twice has its last value, as in Java's map.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'b> {
    bytes: &'b [u8],
}

/// A key and a value; each may be null.
type Pair<'b> = (Option<&'b [u8]>, Option<&'b [u8]>);

impl<'b> Headers<'b> {
    /// # Errors
    /// If the bytes are not whole pairs.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Reject> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = pair(rest).ok_or(Reject::HeaderMap)?;
        }
        Ok(Headers { bytes })
    }

    /// The value of a key; `None` if it is not there, or null.
    pub fn get(&self, key: &str) -> Option<&'b [u8]> {
        self.pairs().filter(|((found, _), _)| *found == Some(key.as_bytes())).last().and_then(|((_, value), _)| value)
    }

    /// As [`get`](Self::get), if it is UTF-8.
    pub fn text(&self, key: &str) -> Option<&'b str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    /// All pairs in which neither key nor value is null.
    pub fn iter(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        self.pairs().filter_map(|((key, value), _)| key.zip(value))
    }

    /// All pairs, each with its encoding.
    fn pairs(&self) -> impl Iterator<Item = (Pair<'b>, &'b [u8])> + use<'b> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (found, after) = pair(rest)?;
            let encoded = &rest[..rest.len() - after.len()];
            rest = after;
            Some((found, encoded))
        })
    }

    /// The map after the edits; `None` if they change nothing. What is set takes the place of the key's first pair.
    ///
    /// # Errors
    /// If it became longer than its length can say.
    pub(super) fn edited(&self, edits: &[Edit<'_>]) -> Result<Option<Vec<u8>>, Reject> {
        let wanted: Vec<Edit<'_>> = last_of_each_key(edits).collect();
        let mut placed = vec![false; wanted.len()];
        let mut out = Vec::with_capacity(self.bytes.len() + wanted.iter().copied().map(encoded_len).sum::<usize>());
        for ((key, _), encoded) in self.pairs() {
            match wanted.iter().position(|edit| key == Some(edit.key().as_bytes())) {
                None => out.extend_from_slice(encoded),
                Some(at) => put_once(wanted[at], &mut placed[at], &mut out),
            }
        }
        for (edit, placed) in wanted.iter().zip(&mut placed) {
            put_once(*edit, placed, &mut out);
        }
        if out == self.bytes { Ok(None) } else { within_limit(out).map(Some) }
    }
}

/// The first pair, and what comes after it.
fn pair(bytes: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let (key, rest) = string(bytes)?;
    let (value, rest) = string(rest)?;
    Some(((key, value), rest))
}

fn string(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    match i32::from_be_bytes(*len) {
        -1 => Some((None, rest)),
        len => rest.split_at_checked(usize::try_from(len).ok()?).map(|(text, rest)| (Some(text), rest)),
    }
}

fn encoded_len(edit: Edit<'_>) -> usize {
    edit.value().map_or(0, |value| 8 + edit.key().len() + value.len())
}

/// Once, however often the key is there: time stays linear in the map.
fn put_once(edit: Edit<'_>, placed: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(placed, true) {
        put(edit, out);
    }
}

fn put(edit: Edit<'_>, out: &mut Vec<u8>) {
    let Some(value) = edit.value() else { return };
    for text in [edit.key(), value] {
        out.extend_from_slice(&(text.len() as u32).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

fn within_limit(map: Vec<u8>) -> Result<Vec<u8>, Reject> {
    if map.len() > MAX_SECTION_BYTES { Err(Reject::HeaderMapTooLong(map.len())) } else { Ok(map) }
}

/// A header map of these pairs.
pub(super) fn encode(pairs: &[(&str, &str)]) -> Result<Vec<u8>, Reject> {
    let mut out = Vec::new();
    pairs.iter().for_each(|&(key, value)| put(Edit::Set(key, value), &mut out));
    within_limit(out)
}
