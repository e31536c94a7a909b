//! A label as an expression over the header `baggage` (W3C Baggage), so that any proxy matches it.

use std::fmt::Write;

/// Matches the whole header if one of its members has this name and value. Values come percent-encoded, and encoders do
/// not agree on which characters need that.
pub fn expression(name: &str, value: &str) -> String {
    let mut expression = r"(?:.*,)?[ \t]*".to_owned();
    name.chars().for_each(|char| put_plain(char, &mut expression));
    expression.push_str(r"[ \t]*=[ \t]*");
    value.bytes().for_each(|byte| put_byte(byte, &mut expression));
    expression.push_str(r"[ \t]*(?:[,;].*)?");
    expression
}

fn put_byte(byte: u8, out: &mut String) {
    // What RFC 3986 calls unreserved needs no encoding anywhere.
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        return put_plain(char::from(byte), out);
    }
    // What may stand for itself in a value; all else is always encoded.
    let itself = byte.is_ascii_graphic() && !b"\",;\\%".contains(&byte);
    out.push_str("(?:");
    if itself {
        put_plain(char::from(byte), out);
        out.push('|');
    }
    for digit in format!("%{byte:02x})").chars() {
        match digit.is_ascii_lowercase() {
            true => _ = write!(out, "[{digit}{}]", digit.to_ascii_uppercase()),
            false => out.push(digit),
        }
    }
}

fn put_plain(char: char, out: &mut String) {
    if !char.is_ascii_alphanumeric() && char != '_' && char != '~' {
        out.push('\\');
    }
    out.push(char);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(name: &str, value: &str, header: &str) -> bool {
        regex::Regex::new(&format!("^(?:{})$", expression(name, value))).expect("is an expression").is_match(header)
    }

    #[test]
    fn a_member_is_found_wherever_it_stands() {
        for header in
            ["lane=gray", "a=b,lane=gray", "a=b;p=q , lane = gray ;x=y,c=d", "lane=gray;p", "lane=blue,lane=gray"]
        {
            assert!(holds("lane", "gray", header), "{header}");
        }
        for header in ["", "lane=grayer", "lane=gra", "xlane=gray", "lane", "a=lane=gray", "lane=gray%20", "Lane=gray"]
        {
            assert!(!holds("lane", "gray", header), "{header}");
        }
    }

    #[test]
    fn values_are_compared_decoded() {
        assert!(holds("user", "a/b c", "user=a/b%20c") && holds("user", "a/b c", "user=a%2Fb%20c"));
        assert!(holds("user", "a/b c", "user=a%2fb%20c") && !holds("user", "a/b c", "user=a/b c"));
        assert!(holds("l.1", "1+(2)*", "l.1=1+(2)*") && !holds("l.1", "1", "lx1=1"));
        assert!(holds("l", "\u{5830}", "l=%E5%A0%B0") && holds("l", "\u{5830}", "l=%e5%a0%b0"));
        assert!(holds("l", "", "l=") && holds("l", "", "a=b,l=;p"));
    }
}
