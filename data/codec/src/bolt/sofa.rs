//! The little of SOFARPC's serialisation that a proxy has to know.
//!
//! SOFA's Hessian is a draft of Hessian 2: numbers and short strings are the same, but `O` defines a class and `o` begins
//! an object. The forms here were taken from what sofa-bolt-node sends.

use std::borrow::Cow;

use crate::hessian::{Malformed, Reader};

/// Class of the exception that an answer with an error status carries.
pub(super) const ERROR_CLASS: &str = "com.alipay.remoting.rpc.exception.RpcServerException";
/// The most bytes of a message that are sent.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Content of an error answer: an exception with this message, an empty stack trace and no cause.
///
/// It must be an object: sofa-bolt-node ends the connection, and with it all other calls, if it finds a string here.
pub(super) fn exception(message: &str) -> Vec<u8> {
    let mut out = vec![b'O', 0xc8, ERROR_CLASS.len() as u8];
    out.extend_from_slice(ERROR_CLASS.as_bytes());
    out.push(0x93);
    for field in ["detailMessage", "stackTrace", "cause"] {
        put_text(field, &mut out);
    }
    out.extend_from_slice(&[b'o', 0x90]);
    put_text(cut(message), &mut out);
    out.extend_from_slice(b"Vt\x00\x1c[java.lang.StackTraceElementn\x00z");
    out.push(b'N');
    out
}

/// At most [`MAX_MESSAGE_BYTES`] of it, and nothing that would take two units of UTF-16.
fn cut(message: &str) -> &str {
    let end =
        message.char_indices().find(|&(at, char)| at + char.len_utf8() > MAX_MESSAGE_BYTES || char.len_utf16() > 1);
    &message[..end.map_or(message.len(), |(at, _)| at)]
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    match text.chars().count() {
        units @ ..32 => out.push(units as u8),
        units => out.extend_from_slice(&[b'S', (units >> 8) as u8, units as u8]),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Name of the method in a serialised `SofaRequest`: sofa-bolt-node names it nowhere else.
pub(super) fn method(content: &[u8]) -> Option<&str> {
    match method_field(content) {
        Ok(Some(Cow::Borrowed(name))) => Some(name),
        _ => None,
    }
}

/// The fields before it are strings in both Java's order and sofa-bolt-node's.
fn method_field(content: &[u8]) -> Result<Option<Cow<'_, str>>, Malformed> {
    const MOST_FIELDS: usize = 16;
    let mut reader = Reader::new(content);
    if !reader.take_if(b'O') {
        return Ok(None);
    }
    let class_len = reader.length()?;
    reader.take(class_len)?;
    let mut at = None;
    for field in 0..reader.length()?.min(MOST_FIELDS) {
        if reader.text()? == "methodName" {
            at = Some(field);
        }
    }
    let (Some(at), true) = (at, reader.take_if(b'o')) else { return Ok(None) };
    reader.length()?;
    for _ in 0..at {
        reader.text_or_null()?;
    }
    reader.text_or_null()
}
