//! What can go wrong.

use std::path::PathBuf;

/// Why the authority can't work.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// An option is out of its bounds.
    #[error("{0}")]
    Options(String),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operator's certificate or key is of no use.
    #[error("the certificate authority that was given can't be used: {0}")]
    Given(String),
    /// Making or signing a certificate failed.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The system has no randomness to give.
    #[error("the system gives no randomness: {0}")]
    Random(getrandom::Error),
}
