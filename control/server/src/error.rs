//! Why a control plane does not start, and what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error(
        "cannot listen on {address}: {source}; if another control plane runs there, choose another address with --{flag}"
    )]
    Bind {
        /// The flag that sets it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Another control plane has the data folder.
    #[error("another control plane ({holder}) uses {folder}; stop it, or choose another folder with --data", folder = .folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who holds it, as far as known.
        holder: String,
    },
    /// Something in the data folder can't be used.
    #[error("cannot use {what}: {source}")]
    Data {
        /// What.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The database can't be opened.
    #[error("cannot open the database {path}: {source}", path = .path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: weir_store::Error,
    },
    /// The first reads or writes failed.
    #[error("cannot prepare the store: {0}")]
    Prepare(#[from] weir_store::Error),
    /// The first start needs an administrator's token.
    #[error(
        "there is no administrator yet, and no terminal to show a token on; choose one with WEIR_ADMIN_TOKEN or --admin-token-stdin"
    )]
    NoAdmin,
    /// The certificate authority can't work.
    #[error("no certificates can be issued: {0}")]
    Identity(#[from] weir_identity::IdentityError),
    /// The control plane's own ports can't be TLS.
    #[error("the control plane's own ports can't be TLS: {0}")]
    Tls(String),
    /// A token that was given is not acceptable.
    #[error("the administrator's token {0}")]
    Token(String),
}
