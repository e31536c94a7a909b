//! The tables that header fields are looked up in (RFC 7541 section 2.3).

use std::collections::VecDeque;

/// Entries of the static table.
pub(super) const STATIC_ENTRIES: usize = STATIC.len();
/// What an entry costs besides its bytes (RFC 7541 section 4.1).
const ENTRY_BYTES: usize = 32;

/// The static table (RFC 7541 appendix A).
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Where a name stands first in the static table.
#[inline]
pub(super) fn static_name(name: &[u8]) -> Option<u8> {
    let place = match name {
        b":authority" => 1,
        b":method" => 2,
        b":path" => 4,
        b":scheme" => 6,
        b":status" => 8,
        b"accept-charset" => 15,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"accept" => 19,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"expect" => 35,
        b"expires" => 36,
        b"from" => 37,
        b"host" => 38,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"max-forwards" => 47,
        b"proxy-authenticate" => 48,
        b"proxy-authorization" => 49,
        b"range" => 50,
        b"referer" => 51,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"transfer-encoding" => 57,
        b"user-agent" => 58,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => return None,
    };
    Some(place)
}

/// A field that the peer had us remember.
#[derive(Debug)]
pub(super) struct Entry {
    bytes: Box<[u8]>,
    name_len: usize,
}

impl Entry {
    pub(super) fn new(name: &[u8], value: &[u8]) -> Self {
        Entry { bytes: [name, value].concat().into(), name_len: name.len() }
    }

    fn cost(&self) -> usize {
        self.bytes.len() + ENTRY_BYTES
    }

    fn field(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.name_len)
    }
}

/// The dynamic table.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

impl Table {
    pub(super) fn new(max_size: usize) -> Self {
        Table { entries: VecDeque::new(), size: 0, max_size }
    }

    /// The field at a place, counted from one over both tables.
    pub(super) fn get(&self, place: usize) -> Option<(&[u8], &[u8])> {
        let index = place.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => self.entries.get(index - STATIC_ENTRIES).map(Entry::field),
        }
    }

    /// Remembers a field; the oldest make room. One that is larger than the table empties it (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, entry: Entry) {
        let cost = entry.cost();
        self.shrink_to(self.max_size.saturating_sub(cost));
        if cost <= self.max_size {
            self.size += cost;
            self.entries.push_front(entry);
        }
    }

    pub(super) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.shrink_to(max_size);
    }

    fn shrink_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.cost();
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_stand_first() {
        for (index, (name, _)) in STATIC.iter().enumerate() {
            let first = STATIC.iter().position(|(other, _)| other == name).unwrap();
            let found = usize::from(static_name(name.as_bytes()).unwrap());
            // `:path` and the like stand more than once; the encoder takes the first.
            assert_eq!(found, first + 1, "{index}");
        }
        assert_eq!(static_name(b"x-other"), None);
    }

    #[test]
    fn the_oldest_make_room_and_what_is_too_large_empties_the_table() {
        let mut table = Table::new(100);
        table.insert(Entry::new(b"a", b"1"));
        table.insert(Entry::new(b"b", b"2"));
        table.insert(Entry::new(b"c", b"3"));
        assert_eq!((table.get(62), table.get(63)), (Some((&b"c"[..], &b"3"[..])), Some((&b"b"[..], &b"2"[..]))));
        assert_eq!((table.get(64), table.get(0), table.size()), (None, None, 68));
        table.insert(Entry::new(b"large", &[0; 100]));
        assert_eq!((table.get(62), table.size()), (None, 0));
    }
}
