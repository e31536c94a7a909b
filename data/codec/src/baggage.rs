//! W3C Baggage (<https://www.w3.org/TR/baggage/>): `key=value;property, key=value`.
//!
//! The same text travels in HTTP's `baggage` field, in SOFABolt's header map and in Dubbo's attachments. A member that is
//! malformed is not seen when reading; when another is edited, it stays as it is, as do spaces and properties within
//! members.

use std::borrow::Cow;

use crate::rpc::{Edit, last_of_each_key};

/// The most bytes that are read or made.
pub const MAX_BYTES: usize = 8192;
/// The most members that are read or made.
pub const MAX_MEMBERS: usize = 180;

/// Why a baggage is not read or edited. It may go on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// Longer than [`MAX_BYTES`], before or after the edit.
    #[error("{0} bytes are more than the 8192 allowed")]
    TooLong(usize),
    /// More than [`MAX_MEMBERS`], before or after the edit.
    #[error("more than 180 members")]
    TooManyMembers,
    /// Bytes that are not ASCII, or control characters.
    #[error("a character that may not be in baggage")]
    Character,
    /// A key to set that is no token.
    #[error("a key may hold letters, digits and !#$%&'*+-.^_`|~ only")]
    Key,
}

/// A baggage, borrowed from what was received. Of several members with the same key the last counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baggage<'b> {
    text: &'b str,
}

impl<'b> Baggage<'b> {
    /// # Errors
    /// If it is larger than allowed, or no text.
    pub fn parse(value: &'b [u8]) -> Result<Self, Reject> {
        if value.len() > MAX_BYTES {
            return Err(Reject::TooLong(value.len()));
        }
        if !value.iter().all(|&byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
            return Err(Reject::Character);
        }
        let text = std::str::from_utf8(value).map_err(|_| Reject::Character)?;
        let baggage = Baggage { text };
        if baggage.members().count() > MAX_MEMBERS { Err(Reject::TooManyMembers) } else { Ok(baggage) }
    }

    /// The value of a key, with percent-encoding undone.
    pub fn get(&self, key: &str) -> Option<Cow<'b, str>> {
        self.raw().filter(|(found, _)| *found == key).last().map(|(_, value)| decode(value))
    }

    /// All well-formed members: key and value, the latter with percent-encoding undone.
    pub fn iter(&self) -> impl Iterator<Item = (&'b str, Cow<'b, str>)> + use<'b> {
        self.raw().map(|(key, value)| (key, decode(value)))
    }

    /// The baggage after the edits; `None` if they change nothing, and an empty one if nothing is left. What is set takes
    /// the place of the key's first member, and leaves its properties behind.
    ///
    /// # Errors
    /// If it became larger than allowed, or a key that is set is no token.
    pub fn edited(&self, edits: &[Edit<'_>]) -> Result<Option<String>, Reject> {
        let wanted: Vec<Edit<'_>> = last_of_each_key(edits).filter(|edit| !self.satisfies(*edit)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut out = Members::default();
        let mut placed = vec![false; wanted.len()];
        for member in self.members() {
            match wanted.iter().position(|edit| key_and_value(member).is_some_and(|(key, _)| key == edit.key())) {
                None => out.push(member),
                Some(at) => out.set_once(wanted[at], &mut placed[at])?,
            }
        }
        for (edit, placed) in wanted.iter().zip(&mut placed) {
            out.set_once(*edit, placed)?;
        }
        out.finish().map(Some)
    }

    fn satisfies(&self, edit: Edit<'_>) -> bool {
        let mut values = self.raw().filter(|(key, _)| *key == edit.key()).map(|(_, value)| decode(value));
        match edit.value() {
            None => values.next().is_none(),
            Some(wanted) => values.next().is_some_and(|value| value == wanted) && values.next().is_none(),
        }
    }

    /// Members as they stand, without the spaces around them; empty ones are none.
    fn members(&self) -> impl Iterator<Item = &'b str> + use<'b> {
        self.text.split(',').map(trim).filter(|member| !member.is_empty())
    }

    fn raw(&self) -> impl Iterator<Item = (&'b str, &'b str)> + use<'b> {
        self.members().filter_map(key_and_value)
    }
}

/// A baggage in the making.
#[derive(Default)]
struct Members {
    text: String,
    count: usize,
}

impl Members {
    fn push(&mut self, member: &str) {
        if self.count > 0 {
            self.text.push(',');
        }
        self.text.push_str(member);
        self.count += 1;
    }

    /// Adds the member, unless the edit removes it or it is there already.
    fn set_once(&mut self, edit: Edit<'_>, placed: &mut bool) -> Result<(), Reject> {
        let Some(value) = edit.value() else { return Ok(()) };
        if !is_token(edit.key()) {
            return Err(Reject::Key);
        }
        if !std::mem::replace(placed, true) {
            self.push(&format!("{}={}", edit.key(), encode(value)));
        }
        Ok(())
    }

    fn finish(self) -> Result<String, Reject> {
        match self {
            Members { text, .. } if text.len() > MAX_BYTES => Err(Reject::TooLong(text.len())),
            Members { count, .. } if count > MAX_MEMBERS => Err(Reject::TooManyMembers),
            Members { text, .. } => Ok(text),
        }
    }
}

fn key_and_value(member: &str) -> Option<(&str, &str)> {
    let (pair, _properties) = member.split_once(';').unwrap_or((member, ""));
    let (key, value) = pair.split_once('=')?;
    let (key, value) = (trim(key), trim(value));
    (is_token(key) && value.bytes().all(is_baggage_octet)).then_some((key, value))
}

/// Without optional white space (RFC 9110).
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// A token of RFC 9110.
fn is_token(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// What may stand in a value without being percent-encoded.
fn is_baggage_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

/// A `%` that two digits do not follow stands for itself; what is not UTF-8 becomes U+FFFD, as the specification has it.
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return Cow::Borrowed(value);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = if first == b'%' { after.first_chunk().and_then(hex_pair) } else { None };
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex_pair(digits: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(digits[0])? << 4 | digit(digits[1])?) as u8)
}

fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if is_baggage_octet(byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edited(text: &str, edits: &[Edit<'_>]) -> Result<Option<String>, Reject> {
        Baggage::parse(text.as_bytes()).unwrap().edited(edits)
    }

    #[test]
    fn members_are_read() {
        let baggage =
            Baggage::parse(b"userId=Am%C3%A9lie , serverNode = DF%2028;p;q=1,isProduction=false,,=x,b\"d=1,userId=2")
                .unwrap();
        assert_eq!(baggage.get("serverNode").as_deref(), Some("DF 28"));
        assert_eq!(baggage.get("userId").as_deref(), Some("2"), "the last counts");
        assert_eq!(baggage.get("absent"), None);
        let all: Vec<_> = baggage.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        assert_eq!(all, ["userId:Amélie", "serverNode:DF 28", "isProduction:false", "userId:2"]);
    }

    #[test]
    fn percent_signs_that_escape_nothing_stand_for_themselves() {
        for (encoded, decoded) in
            [("100%", "100%"), ("%4", "%4"), ("%zz", "%zz"), ("%41%", "A%"), ("%ff", "\u{fffd}"), ("%+1", "%+1")]
        {
            assert_eq!(decode(encoded), decoded);
        }
    }

    #[test]
    fn edits_keep_the_other_members_byte_for_byte() {
        let text = "a=1;p=%20 ; q , malformed ,b= 2,c=%41, a=3";
        for (edits, expected) in [
            (&[Edit::Set("b", "x y,z")][..], Some("a=1;p=%20 ; q,malformed,b=x%20y%2Cz,c=%41,a=3")),
            (&[Edit::Remove("b")], Some("a=1;p=%20 ; q,malformed,c=%41,a=3")),
            (&[Edit::Set("a", "4")], Some("a=4,malformed,b= 2,c=%41")),
            (&[Edit::Remove("a"), Edit::Set("n", "")], Some("malformed,b= 2,c=%41,n=")),
            (&[Edit::Set("c", "A"), Edit::Set("b", "2"), Edit::Remove("none")], None),
            (&[Edit::Set("n", "1"), Edit::Remove("n")], None),
        ] {
            assert_eq!(edited(text, edits).unwrap().as_deref(), expected);
        }
        assert_eq!(edited("a=1", &[Edit::Remove("a")]).unwrap().as_deref(), Some(""));
        assert_eq!(edited("", &[Edit::Set("a", "100%")]).unwrap().as_deref(), Some("a=100%25"));
        assert_eq!(edited("", &[Edit::Set("a b", "1")]), Err(Reject::Key));
    }

    #[test]
    fn limits_hold_before_and_after() {
        let longest = format!("k={}", "v".repeat(MAX_BYTES - 2));
        assert_eq!(edited(&longest, &[Edit::Set("n", "")]), Err(Reject::TooLong(MAX_BYTES + 3)));
        assert_eq!(Baggage::parse(format!("{longest}v").as_bytes()), Err(Reject::TooLong(MAX_BYTES + 1)));
        let most = (0..MAX_MEMBERS).map(|at| format!("k{at}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(edited(&most, &[Edit::Set("n", "")]), Err(Reject::TooManyMembers));
        assert_eq!(Baggage::parse(format!("{most},n=").as_bytes()), Err(Reject::TooManyMembers));
        for bytes in ["é".as_bytes(), b"a=\0", b"a=\r\nb: c"] {
            assert_eq!(Baggage::parse(bytes), Err(Reject::Character));
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_read(members in prop::collection::vec(("[a-c]", "\\PC{0,9}"), 0..6), text in "[a-c=;,% ]{0,20}") {
            let edits: Vec<_> = members.iter().map(|(key, value)| Edit::Set(key, value)).collect();
            let once = edited(&text, &edits).unwrap().unwrap_or(text);
            let baggage = Baggage::parse(once.as_bytes()).unwrap();
            for (key, _) in &members {
                let (_, last) = members.iter().rfind(|(other, _)| other == key).unwrap();
                let found = baggage.get(key);
                prop_assert_eq!(found.as_deref(), Some(last.as_str()));
            }
            prop_assert_eq!(baggage.edited(&edits), Ok(None), "a second time changes nothing");
        }
    }
}
