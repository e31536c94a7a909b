//! Writing header blocks (RFC 7541 section 6), with the static table only.

use super::table::{STATIC, static_name};

/// Appends a field. `never_indexed`: nobody on the way may compress it.
#[inline]
pub fn encode(out: &mut Vec<u8>, name: &[u8], value: &[u8], never_indexed: bool) {
    let place = static_name(name);
    if let Some(place) = place.filter(|_| !never_indexed)
        && let Some(whole) = whole_field(place, value)
    {
        out.push(0x80 | whole);
        return;
    }
    let secret = never_indexed || is_secret(name);
    number(out, if secret { 0x10 } else { 0 }, 4, place.unwrap_or(0).into());
    if place.is_none() {
        string(out, name);
    }
    string(out, value);
}

/// Appends a response's status.
pub fn encode_status(out: &mut Vec<u8>, status: u16) {
    let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
    encode(out, b":status", &digits, false);
}

/// Where name and value stand together in the static table. `place`: where the name stands first.
#[inline]
fn whole_field(place: u8, value: &[u8]) -> Option<u8> {
    let places = match place {
        2 => 2..=3,
        4 => 4..=5,
        6 => 6..=7,
        8 => 8..=14,
        16 => 16..=16,
        _ => return None,
    };
    places.into_iter().find(|&place| STATIC[usize::from(place) - 1].1.as_bytes() == value)
}

/// Fields whose values must not be guessed by watching how well they compress (RFC 7541 section 7.1.3).
fn is_secret(name: &[u8]) -> bool {
    matches!(name, b"authorization" | b"proxy-authorization" | b"cookie" | b"set-cookie")
}

#[inline]
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, 0, 7, bytes.len());
    out.extend_from_slice(bytes);
}

/// A number whose first bits share a byte with `first` (RFC 7541 section 5.1).
#[inline]
fn number(out: &mut Vec<u8>, first: u8, prefix_bits: u32, value: usize) {
    let mask = (1_usize << prefix_bits) - 1;
    if value < mask {
        out.push(first | value as u8);
        return;
    }
    out.push(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
