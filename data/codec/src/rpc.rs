//! What SOFABolt and Dubbo have in common: limits, edits, and the ways in which a call fails.

/// How large a frame may be. Checked as soon as its head is there, before anything is reserved for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that Bolt's content or Dubbo's body may have.
    pub max_body_bytes: usize,
}

impl Default for Limits {
    /// Dubbo's own default payload, 8 MiB.
    fn default() -> Self {
        Limits { max_body_bytes: 8 << 20 }
    }
}

/// One change to Bolt's header map or to Dubbo's attachments. What is not named stays byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit<'a> {
    /// The key has this value afterwards, once.
    Set(&'a str, &'a str),
    /// The key is not there afterwards.
    Remove(&'a str),
}

impl<'a> Edit<'a> {
    /// The key it is about.
    pub fn key(self) -> &'a str {
        match self {
            Edit::Set(key, _) | Edit::Remove(key) => key,
        }
    }

    /// The value there is to be; `None` to remove.
    pub fn value(self) -> Option<&'a str> {
        match self {
            Edit::Set(_, value) => Some(value),
            Edit::Remove(_) => None,
        }
    }
}

/// Of several edits of one key the last counts.
pub(crate) fn last_of_each_key<'s, 'a>(edits: &'s [Edit<'a>]) -> impl Iterator<Item = Edit<'a>> + use<'s, 'a> {
    edits.iter().enumerate().filter_map(|(at, edit)| {
        let is_last = !edits[at + 1..].iter().any(|later| later.key() == edit.key());
        is_last.then_some(*edit)
    })
}

/// Why a call is answered by the proxy and not by the server, and how each protocol says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// A limit was reached: try again later, or elsewhere.
    Overloaded,
    /// No answer came in time.
    Timeout,
    /// There is no server that could take it.
    Unavailable,
    /// The connection to the server ended before the answer came; the server may have acted.
    ConnectionLost,
    /// No route takes this service.
    NoService,
    /// The request is malformed, or larger than allowed.
    BadRequest,
    /// The caller may not do this.
    Denied,
    /// The proxy failed.
    Internal,
}

impl Failure {
    /// All of them.
    pub const ALL: [Failure; 8] = [
        Failure::Overloaded,
        Failure::Timeout,
        Failure::Unavailable,
        Failure::ConnectionLost,
        Failure::NoService,
        Failure::BadRequest,
        Failure::Denied,
        Failure::Internal,
    ];

    /// SOFABolt's response status (`ResponseStatus.java`).
    pub fn bolt_status(self) -> u16 {
        match self {
            Failure::Denied | Failure::Internal => 2,
            Failure::Overloaded => 4,
            Failure::NoService => 6,
            Failure::Timeout => 7,
            Failure::BadRequest => 9,
            Failure::Unavailable | Failure::ConnectionLost => 0x10,
        }
    }

    /// Dubbo's response status (`Response.java`).
    pub fn dubbo_status(self) -> u8 {
        match self {
            Failure::Timeout => 31,
            Failure::Unavailable | Failure::ConnectionLost => 35,
            Failure::BadRequest => 40,
            Failure::NoService => 60,
            Failure::Denied => 70,
            Failure::Internal => 80,
            Failure::Overloaded => 100,
        }
    }
}
