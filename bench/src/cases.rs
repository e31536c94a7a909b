//! What is asked of every target.

/// Routes that do not match before the one that does.
pub const DECOYS: usize = 19;
/// Prefix of the route that matches.
pub const PREFIX: &str = "/api/";
/// Bytes of the small body: what a small JSON answer has.
pub const SMALL: usize = 128;
/// Bytes of the large body.
pub const LARGE: usize = 10 * 1024;

/// Prefix of a route that never matches.
pub fn decoy(number: usize) -> String {
    format!("/decoy-{number:02}/")
}

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// HTTP/1.1, 64 kept-alive connections, small bodies.
    H1Small,
    /// The same with bodies of 10 KiB.
    H1Large,
    /// HTTP/2 in clear text from the client, 8 connections with 16 streams each; HTTP/1.1 to the upstream.
    H2ToH1,
}

impl Case {
    /// All, in the order of the report.
    pub const ALL: [Case; 3] = [Case::H1Small, Case::H1Large, Case::H2ToH1];

    /// As written in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Case::H1Small => "h1-small",
            Case::H1Large => "h1-10k",
            Case::H2ToH1 => "h2-h1",
        }
    }

    /// The case of that name.
    pub fn named(name: &str) -> Option<Case> {
        Case::ALL.into_iter().find(|case| case.name() == name)
    }

    /// What is requested.
    pub fn path(self) -> &'static str {
        match self {
            Case::H1Small | Case::H2ToH1 => "/api/small",
            Case::H1Large => "/api/large",
        }
    }
}
