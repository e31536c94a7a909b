//! Heads of messages.

use crate::fields::{Fields, Span};

/// A request's or a response's head.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its fields, without those that begin with a colon.
    pub fields: Fields,
    pub(crate) status: u16,
    pub(crate) method: Option<Span>,
    pub(crate) scheme: Option<Span>,
    pub(crate) authority: Option<Span>,
    pub(crate) path: Option<Span>,
}

/// What a request to be sent is, besides its fields.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host, and port where it is told.
    pub authority: &'a str,
    /// With query.
    pub path: &'a str,
    /// Length of the body, if it is to be told.
    pub content_length: Option<u64>,
}

impl Head {
    /// A response's status; 0 of a request.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A request's method.
    pub fn method(&self) -> &str {
        self.text(self.method).unwrap_or_default()
    }

    /// A request's scheme. CONNECT has none.
    pub fn scheme(&self) -> Option<&str> {
        self.text(self.scheme)
    }

    /// Host and port of a request; `None` if it has told them in a field `host`, or not at all.
    pub fn authority(&self) -> Option<&str> {
        self.text(self.authority)
    }

    /// A request's path with query. CONNECT has none.
    pub fn path(&self) -> Option<&str> {
        self.text(self.path)
    }

    /// They have been found to be ASCII.
    fn text(&self, span: Option<Span>) -> Option<&str> {
        span.and_then(|span| std::str::from_utf8(self.fields.kept(span)).ok())
    }
}
