//! The map of strings at the end of a body.

use std::borrow::Cow;
use std::ops::Range;

use super::{MAX_ATTACHMENTS, Reject};
use crate::hessian::{Reader, Value, put_text};
use crate::rpc::{Edit, last_of_each_key};

/// The attachments of a request or response. A key that is there twice has its last value, as in Java's map.
#[derive(Debug, Clone)]
pub struct Attachments<'b> {
    body: &'b [u8],
    /// The map, from its first byte to behind its `Z`; empty where there is none.
    range: Range<usize>,
    pairs: Vec<Pair<'b>>,
    /// Behind the map's code and type.
    first_pair: usize,
}

#[derive(Debug, Clone)]
struct Pair<'b> {
    /// `None` if it is no string.
    key: Option<Cow<'b, str>>,
    value: Value<'b>,
    range: Range<usize>,
}

impl<'b> Attachments<'b> {
    /// `reader` is behind the arguments.
    pub(super) fn parse(body: &'b [u8], mut reader: Reader<'b>) -> Result<Self, Reject> {
        let start = reader.position();
        let mut pairs = Vec::new();
        let mut first_pair = start;
        match reader.peek() {
            None => {}
            Some(b'N') => _ = reader.take_if(b'N'),
            Some(code @ (b'H' | b'M')) => {
                reader.take_if(code);
                if code == b'M' {
                    reader.type_name()?;
                }
                first_pair = reader.position();
                while !reader.take_if(b'Z') {
                    if pairs.len() == MAX_ATTACHMENTS {
                        return Err(Reject::TooManyAttachments);
                    }
                    pairs.push(pair(&mut reader)?);
                }
            }
            Some(_) => return Err(Reject::Attachments),
        }
        Ok(Attachments { body, range: start..reader.position(), pairs, first_pair })
    }

    /// The value of a key, if it is there and a string.
    pub fn get(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key, whatever it is.
    pub fn value(&self, key: &str) -> Option<&Value<'b>> {
        self.pairs.iter().rfind(|pair| pair.has_key(key)).map(|pair| &pair.value)
    }

    /// The value of a key as a whole number, be it sent as one or as a string.
    pub fn number(&self, key: &str) -> Option<i64> {
        match self.value(key)? {
            Value::Text(text) => text.parse().ok(),
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// All pairs of which both are strings, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().filter_map(|pair| match (&pair.key, &pair.value) {
            (Some(key), Value::Text(value)) => Some((key.as_ref(), value.as_ref())),
            _ => None,
        })
    }

    /// Where the map is in the body.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The map after the edits; `None` if they change nothing.
    ///
    /// What is set comes last. A value that is no plain one may define classes that later values use: it stays, and a
    /// later pair takes its place for whoever builds a map of them.
    pub(super) fn edited(&self, edits: &[Edit<'_>]) -> Option<Vec<u8>> {
        let wanted: Vec<Edit<'_>> = last_of_each_key(edits).filter(|edit| !self.satisfies(*edit)).collect();
        if wanted.is_empty() {
            return None;
        }
        let mut out = self.opening().to_vec();
        for pair in &self.pairs {
            if !pair.is_plain() || !wanted.iter().any(|edit| pair.has_key(edit.key())) {
                out.extend_from_slice(&self.body[pair.range.clone()]);
            }
        }
        wanted.into_iter().for_each(|edit| self.put(edit, &mut out));
        out.push(b'Z');
        Some(out)
    }

    /// Whether the map is as the edit wants it.
    fn satisfies(&self, edit: Edit<'_>) -> bool {
        match edit {
            Edit::Set(key, value) => self.get(key) == Some(value) && self.with_key(key).count() == 1,
            Edit::Remove(key) => matches!(self.value(key), None | Some(Value::Null)),
        }
    }

    fn with_key<'s>(&'s self, key: &'s str) -> impl DoubleEndedIterator<Item = &'s Pair<'b>> {
        self.pairs.iter().filter(move |pair| pair.has_key(key))
    }

    /// The map's code and type; an untyped map where there is none yet.
    fn opening(&self) -> &[u8] {
        if self.first_pair > self.range.start { &self.body[self.range.start..self.first_pair] } else { b"H" }
    }

    fn put(&self, edit: Edit<'_>, out: &mut Vec<u8>) {
        match edit {
            Edit::Set(key, value) => {
                put_text(key, out);
                put_text(value, out);
            }
            Edit::Remove(key) if self.with_key(key).any(|pair| !pair.is_plain()) => {
                put_text(key, out);
                out.push(b'N');
            }
            Edit::Remove(_) => {}
        }
    }
}

impl Pair<'_> {
    fn has_key(&self, key: &str) -> bool {
        self.key.as_deref() == Some(key)
    }

    /// Nothing that comes later can refer to it.
    fn is_plain(&self) -> bool {
        !matches!(self.value, Value::Other(_))
    }
}

fn pair<'b>(reader: &mut Reader<'b>) -> Result<Pair<'b>, Reject> {
    let start = reader.position();
    let key = match reader.value()? {
        Value::Text(text) => Some(text),
        _ => None,
    };
    let value = reader.value()?;
    Ok(Pair { key, value, range: start..reader.position() })
}
