//! What a control plane is started with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use weir_store::SharedStore;
use weir_store::memory::MemoryStore;
use weir_store_sql::SqliteStore;

use crate::error::StartError;
use crate::identity::AuthorityFiles;

/// Options of the control plane.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder for the database and the instances' files; made if it is not there.
    pub data: PathBuf,
    /// Where the HTTP API listens.
    pub api: SocketAddr,
    /// Where xDS and the control stream listen.
    pub xds: SocketAddr,
    /// Where resources are kept.
    pub storage: Storage,
    /// The administrator's token, if the person who starts it chooses it; otherwise one is made at the first start.
    pub admin_token: Option<String>,
    /// Without an administrator, one may be made, to be shown once ([`crate::Server::first_admin_token`]).
    pub may_mint_admin: bool,
    /// Peers on loopback need no token, neither for the API nor to join as a proxy.
    pub insecure_loopback: bool,
    /// The `weir` program that supervises local instances; `None`: this control plane runs no instances.
    pub supervisor: Option<PathBuf>,
    /// Told to stop, it stops the local instances as well. Otherwise they run on, and the next start finds them.
    pub stop_instances: bool,
    /// What identities look like and how long certificates live.
    pub identity: weir_identity::Options,
    /// The operator's own certificate authority; otherwise one is made in memory.
    pub authority: Option<AuthorityFiles>,
    /// Whether its own ports are TLS.
    pub tls: Tls,
}

/// Whether the control plane's own ports, of the API and of the proxies, are TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tls {
    /// They are not.
    #[default]
    Off,
    /// They are, with certificates of the mesh's authority.
    Authority {
        /// Names and addresses by which clients reach them, beside those that are known anyway.
        names: Vec<String>,
    },
    /// They are, with the operator's certificate, which may be replaced while it is in use.
    Files {
        /// PEM: the certificate, and what is between it and its root; the root too where clients know its fingerprint only.
        certificate: PathBuf,
        /// PEM.
        key: PathBuf,
    },
}

/// Where resources are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// `weir.db` in the data folder.
    Sqlite,
    /// In memory: gone at the end. For tests.
    Memory,
}

/// An opened store.
pub(crate) struct Opened {
    pub store: SharedStore,
    sqlite: Option<SqliteStore>,
}

impl Opened {
    /// Finishes what was accepted, and closes the file.
    pub async fn close(self) {
        if let Some(sqlite) = self.sqlite {
            sqlite.close().await;
        }
    }
}

impl Storage {
    pub(crate) async fn open(self, data: &Path) -> Result<Opened, StartError> {
        match self {
            Storage::Memory => Ok(Opened { store: MemoryStore::new().shared(), sqlite: None }),
            Storage::Sqlite => {
                let path = data.join("weir.db");
                let opened = SqliteStore::open(&path).await;
                let sqlite = opened.map_err(|source| StartError::Store { path, source })?;
                Ok(Opened { store: sqlite.clone().shared(), sqlite: Some(sqlite) })
            }
        }
    }
}
