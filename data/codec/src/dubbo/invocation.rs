//! The bodies of requests and responses, as far as a proxy reads them.

use std::borrow::Cow;

use super::{Attachments, Reject};
use crate::hessian::Reader;

/// What a request calls: the front of its body.
#[derive(Debug, Clone)]
pub struct Invocation<'b> {
    /// Version of Dubbo's protocol that the caller speaks, such as `2.0.2`.
    pub dubbo_version: Cow<'b, str>,
    /// Path of the service: its interface, unless it was exported under another name.
    pub path: Cow<'b, str>,
    /// Version of the service; empty if there is none.
    pub service_version: Cow<'b, str>,
    /// Method.
    pub method: Cow<'b, str>,
    /// Types of the parameters, as Java describes them.
    pub descriptor: Cow<'b, str>,
    body: &'b [u8],
    /// At the first argument.
    reader: Reader<'b>,
}

impl<'b> Invocation<'b> {
    pub(super) fn parse(body: &'b [u8]) -> Result<Self, Reject> {
        let mut reader = Reader::new(body);
        let mut text = || reader.text_or_null().map(Option::unwrap_or_default);
        Ok(Invocation {
            dubbo_version: text()?,
            path: text()?,
            service_version: text()?,
            method: text()?,
            descriptor: text()?,
            body,
            reader,
        })
    }

    /// Steps over the arguments to the attachments.
    ///
    /// # Errors
    /// If the descriptor, an argument or the attachments are malformed.
    pub fn attachments(&self) -> Result<Attachments<'b>, Reject> {
        let mut reader = self.reader.clone();
        for _ in 0..parameters(&self.descriptor)? {
            reader.skip()?;
        }
        Attachments::parse(self.body, reader)
    }
}

/// How many types a descriptor such as `Ljava/lang/String;[I` holds.
fn parameters(descriptor: &str) -> Result<usize, Reject> {
    let (mut count, mut rest) = (0, descriptor);
    while !rest.is_empty() {
        rest = after_type(rest).ok_or(Reject::Descriptor)?;
        count += 1;
    }
    Ok(count)
}

fn after_type(descriptor: &str) -> Option<&str> {
    let component = descriptor.trim_start_matches('[');
    match component.as_bytes().first()? {
        b'Z' | b'B' | b'C' | b'D' | b'F' | b'I' | b'J' | b'S' => Some(&component[1..]),
        b'L' => component.split_once(';').map(|(_, rest)| rest),
        _ => None,
    }
}

/// What a response with status 20 carries (`DubboCodec.java`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The application threw.
    Exception {
        /// Attachments follow.
        with_attachments: bool,
    },
    /// A value.
    Value {
        /// Attachments follow.
        with_attachments: bool,
    },
    /// Null, or nothing.
    Null {
        /// Attachments follow.
        with_attachments: bool,
    },
}

impl Outcome {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Reject> {
        let kind = Reader::new(body).integer()?;
        let with_attachments = kind >= 3;
        match kind {
            0 | 3 => Ok(Outcome::Exception { with_attachments }),
            1 | 4 => Ok(Outcome::Value { with_attachments }),
            2 | 5 => Ok(Outcome::Null { with_attachments }),
            _ => Err(Reject::Outcome),
        }
    }

    pub(super) fn attachments(self, body: &[u8]) -> Result<Attachments<'_>, Reject> {
        let mut reader = Reader::new(body);
        reader.integer()?;
        match self {
            Outcome::Exception { with_attachments: true } | Outcome::Value { with_attachments: true } => {
                reader.skip()?;
                Attachments::parse(body, reader)
            }
            Outcome::Null { with_attachments: true } => Attachments::parse(body, reader),
            _ => Err(Reject::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted() {
        for (descriptor, count) in [
            ("", 0),
            ("I", 1),
            ("Ljava/lang/String;", 1),
            ("[[JLjava/util/List;Z", 3),
            ("Ljava/lang/String;[Ljava/lang/String;[Ljava/lang/Object;", 3),
        ] {
            assert_eq!(parameters(descriptor), Ok(count), "{descriptor}");
        }
        for malformed in ["L", "[", "Ljava/lang/String", "V", "I;", "é"] {
            assert_eq!(parameters(malformed), Err(Reject::Descriptor), "{malformed}");
        }
    }
}
