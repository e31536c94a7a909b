//! What can go wrong in a store.

use weir_model::{Invalid, Key};

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Only [`Error::Unavailable`] is worth the same try again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such resource.
    #[error("{0} not found")]
    NotFound(Key),
    /// There is one of this name.
    #[error("{0} already exists")]
    AlreadyExists(Key),
    /// Somebody else wrote in between: read again and decide again.
    #[error("{key} was changed by somebody else: it is at resourceVersion {stored}, the write was based on {given}")]
    Conflict {
        /// Which resource.
        key: Key,
        /// What the store has.
        stored: u64,
        /// What the writer had read.
        given: u64,
    },
    /// Changes from there on are no longer known.
    #[error(
        "changes after resourceVersion {from} are no longer known (oldest: {oldest}); list again and watch from there"
    )]
    Gone {
        /// What was asked for.
        from: u64,
        /// The oldest that is known.
        oldest: u64,
    },
    /// The resource breaks a rule of its kind.
    #[error("{0}")]
    Invalid(Invalid),
    /// The writer's lease was taken over; it no longer leads and must stop.
    #[error("lease {lease} was taken over by somebody else; this replica no longer leads and must stop writing")]
    Fenced {
        /// Name of the lease.
        lease: String,
    },
    /// The store can't be reached or failed for now.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Error {
        Error::Invalid(invalid)
    }
}
