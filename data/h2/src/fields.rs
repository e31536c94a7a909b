//! Header fields of a message, in one piece of memory.

use std::cell::RefCell;
use std::fmt;

/// Lists of fields whose memory a thread keeps.
const MAX_POOLED: usize = 256;
/// A list that has grown larger is freed.
const MAX_POOLED_BYTES: usize = 4096;
const MAX_POOLED_FIELDS: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

/// What a list consists of.
#[derive(Clone, Default)]
struct Memory {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A field: name and value, one behind the other.
#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    name: u32,
    value: u32,
    never_indexed: bool,
}

/// A piece of a list's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

/// Header or trailer fields in the order in which they came. Names are in lower case; looking one up ignores case.
///
/// All of them lie in one piece of memory that the thread uses again for later messages.
pub struct Fields {
    memory: Memory,
}

impl Default for Fields {
    fn default() -> Self {
        Fields::new()
    }
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        let mut copy = Fields::new();
        copy.memory.bytes.extend_from_slice(&self.memory.bytes);
        copy.memory.entries.extend_from_slice(&self.memory.entries);
        copy
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.memory);
        let kept = (1..=MAX_POOLED_BYTES).contains(&memory.bytes.capacity());
        if kept && memory.entries.capacity() <= MAX_POOLED_FIELDS {
            memory.bytes.clear();
            memory.entries.clear();
            // While the thread ends there is nobody to lend it to.
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < MAX_POOLED {
                    pool.push(memory);
                }
            });
        }
    }
}

impl Fields {
    /// No fields.
    #[inline]
    pub fn new() -> Self {
        let pooled = POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
        Fields { memory: pooled.unwrap_or_default() }
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.memory.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.memory.entries.is_empty()
    }

    /// Appends a field. The caller answers for what is in it: a name is a token, a value has no line break.
    #[inline]
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push(name.as_ref(), value.as_ref(), false);
    }

    /// Appends a field if its name is a token and its value may stand in a field; false if not.
    #[must_use]
    pub fn try_append(&mut self, name: &[u8], value: &[u8]) -> bool {
        let sound = crate::headers::is_token(name) && crate::headers::is_value(value);
        if sound {
            self.push(name, value, false);
        }
        sound
    }

    #[inline]
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        let Memory { bytes, entries } = &mut self.memory;
        let start = bytes.len();
        bytes.extend_from_slice(name);
        bytes[start..].make_ascii_lowercase();
        bytes.extend_from_slice(value);
        entries.push(Entry { start: start as u32, name: name.len() as u32, value: value.len() as u32, never_indexed });
    }

    /// Removes all fields of a name; true if there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let Memory { bytes, entries } = &mut self.memory;
        let before = entries.len();
        entries.retain(|entry| !entry.is(bytes, name));
        entries.len() < before
    }

    /// Removes the fields of which `keep`, told name and value, says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let Memory { bytes, entries } = &mut self.memory;
        entries.retain(|entry| {
            let (name, value) = entry.field(bytes);
            keep(name, value)
        });
    }

    /// Puts one field in place of all of its name.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.append(name, value);
    }

    /// The value of the first field of a name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let Memory { bytes, entries } = &self.memory;
        entries.iter().find(|entry| entry.is(bytes, name)).map(|entry| entry.field(bytes).1)
    }

    /// True if there is a field of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The values of all fields of a name.
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let Memory { bytes, entries } = &self.memory;
        entries.iter().filter(move |entry| entry.is(bytes, name)).map(|entry| entry.field(bytes).1)
    }

    /// Names and values.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.memory.entries.iter().map(|entry| entry.field(&self.memory.bytes))
    }

    /// Names, values, and whether nobody may compress the field.
    #[inline]
    pub(crate) fn iter_marked(&self) -> impl Iterator<Item = (&[u8], &[u8], bool)> {
        self.memory.entries.iter().map(|entry| {
            let (name, value) = entry.field(&self.memory.bytes);
            (name, value, entry.never_indexed)
        })
    }

    /// Keeps bytes that belong to no field.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.memory.bytes.len();
        self.memory.bytes.extend_from_slice(bytes);
        Span { start: start as u32, len: bytes.len() as u32 }
    }

    /// What was kept there.
    pub(crate) fn kept(&self, span: Span) -> &[u8] {
        &self.memory.bytes[span.start as usize..][..span.len as usize]
    }
}

impl Entry {
    #[inline]
    fn field(self, bytes: &[u8]) -> (&[u8], &[u8]) {
        let name_end = (self.start + self.name) as usize;
        (&bytes[self.start as usize..name_end], &bytes[name_end..][..self.value as usize])
    }

    #[inline]
    fn is(self, bytes: &[u8], name: &str) -> bool {
        self.name as usize == name.len() && self.field(bytes).0.eq_ignore_ascii_case(name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_changed_and_removed() {
        let mut fields = Fields::new();
        fields.append("X-One", "1");
        fields.append("cookie", "a");
        fields.append("cookie", "b");
        assert_eq!(fields.get("x-one"), Some(&b"1"[..]));
        assert_eq!(fields.get_all("Cookie").collect::<Vec<_>>(), [b"a", b"b"]);
        fields.set("cookie", "c");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [(&b"x-one"[..], &b"1"[..]), (b"cookie", b"c")]);
        assert!(fields.remove("X-ONE") && !fields.remove("x-one"));
        let copy = fields.clone();
        drop(fields);
        assert_eq!(Fields::new().len(), 0, "what is lent again is empty");
        assert_eq!(format!("{copy:?}"), r#"{"cookie": "c"}"#);
    }
}
