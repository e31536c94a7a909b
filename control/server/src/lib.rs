//! The control plane, put together; wiring only.
//!
//! [`Server::start`] opens the data folder ([`folder`]) and the store in it, settles who may log in ([`access`]), and
//! starts the parts side by side: the HTTP API, the gRPC server with the registry and xDS ([`grpc`]), and the
//! controllers, each under its leader lease ([`controllers`]). The parts never call each other: they meet in the store
//! and in the observed state. When one of them ends by itself, the whole server ends and says which it was.

mod access;
mod config;
mod controllers;
mod error;
mod explain;
mod folder;
mod grpc;
mod identity;
mod incoming;
mod probe;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info};
use weir_api::Api;
use weir_identity::Authority;
use weir_store::SharedStore;
use weir_store::observed::Observed;

pub use config::{Config, Storage, Tls};
pub use error::StartError;
pub use folder::served_by;
pub use identity::AuthorityFiles;
pub use weir_api::login;
pub use weir_identity::Options as IdentityOptions;

use access::authenticate;
use config::Opened;
use folder::Folder;
use incoming::{Connection, incoming};
use tls::OwnTls;

/// A running control plane. Dropped, it ends at once; [`Server::stop`] ends it in order.
pub struct Server {
    api: SocketAddr,
    xds: SocketAddr,
    first_admin_token: Option<String>,
    trust: Option<Trust>,
    stop: watch::Sender<bool>,
    parts: JoinSet<&'static str>,
    instances: Option<controllers::Instances>,
    opened: Opened,
    _folder: Option<Folder>,
}

/// How clients know that these are the right ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Certificates of authorities, in the data folder if there is one.
    pub file: Option<PathBuf>,
    /// `sha256:` and hexadecimal digits.
    pub fingerprint: String,
}

/// What all parts are started with.
struct Base {
    store: SharedStore,
    observed: Arc<Observed>,
    stopped: watch::Receiver<bool>,
}

impl Server {
    /// Starts every part. It is ready when `GET /readyz` says so.
    ///
    /// # Errors
    /// What could not be opened or bound, and what to do about it.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        let folder = folder::open(&config)?;
        let opened = config.storage.open(&config.data).await?;
        match Prepared::new(&opened, &config).await {
            Ok(prepared) => Server::on(prepared, opened, folder, &config).await,
            Err(error) => {
                opened.close().await;
                Err(error)
            }
        }
    }

    async fn on(
        prepared: Prepared,
        opened: Opened,
        folder: Option<Folder>,
        config: &Config,
    ) -> Result<Server, StartError> {
        let Prepared { first_admin_token, api, xds, addresses, authority, tls } = prepared;
        let (stop, stopped) = watch::channel(false);
        let base = Base { store: opened.store.clone(), observed: Arc::new(Observed::default()), stopped };
        let (parts, [at_api, at_xds]) = (JoinSet::new(), addresses);
        let instances = None;
        let trust = tls
            .as_ref()
            .map(|tls| Trust { file: tls.ca_file().map(Path::to_owned), fingerprint: tls.fingerprint().to_owned() });
        let mut server = Server {
            api: at_api,
            xds: at_xds,
            first_admin_token,
            trust,
            stop,
            parts,
            instances,
            opened,
            _folder: folder,
        };
        if let Err(error) = server.start_parts(&base, config, authority, tls, [api, xds]).await {
            server.stop().await;
            return Err(error);
        }
        info!(api = %at_api, xds = %at_xds, "the control plane has started");
        Ok(server)
    }

    async fn start_parts(
        &mut self,
        base: &Base,
        config: &Config,
        authority: Arc<Authority>,
        tls: Option<OwnTls>,
        [api, xds]: [TcpListener; 2],
    ) -> Result<(), StartError> {
        let control = controllers::ControlPlane::new(self.xds, self.trust.as_ref());
        let (loops, instances) = controllers::start(&mut self.parts, base, config, control).await?;
        self.instances = instances;
        let options = weir_api::Options {
            explain: explain::domains(),
            changes: Some(explain::desk()),
            review: weir_change::defence::review,
            probes: probe::all(base, &loops),
            metrics: vec![controllers::metrics(loops)],
            insecure_loopback: config.insecure_loopback,
            ..weir_api::Options::default()
        };
        let http = Api::new(base.store.clone(), base.observed.clone(), options, base.stopped.clone());
        let acceptor = |alpn| tls.as_ref().map(|tls| tls.acceptor(alpn)).transpose();
        let (api, xds) = (incoming(api, acceptor(b"http/1.1")?), incoming(xds, acceptor(b"h2")?));
        grpc::start(&mut self.parts, base, authenticate(http.logins(), config), authority, xds);
        let stopped = base.stopped.clone();
        self.parts.spawn(async move {
            weir_api::serve(api.map(with_peer), http, stopped).await;
            "the HTTP API"
        });
        self.keep_certificate(tls, base.stopped.clone());
        Ok(())
    }

    fn keep_certificate(&mut self, tls: Option<OwnTls>, stopped: watch::Receiver<bool>) {
        let Some(tls) = tls else { return };
        self.parts.spawn(async move {
            tls.keep(stopped).await;
            "the certificate of the control plane's own ports"
        });
    }

    /// Where the HTTP API listens.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where xDS and the control stream listen.
    pub fn xds(&self) -> SocketAddr {
        self.xds
    }

    /// How clients know its ports, if they are TLS.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// The first administrator's token, if it was made just now: show it once, keep it nowhere.
    pub fn first_admin_token(&self) -> Option<&str> {
        self.first_admin_token.as_deref()
    }

    /// Resolves when a part has ended by itself, which none should.
    pub async fn broken(&mut self) -> String {
        match self.parts.join_next().await {
            Some(Ok(part)) => format!("{part} has ended by itself"),
            Some(Err(panic)) => format!("a part of the control plane failed: {panic}"),
            None => "nothing runs".to_owned(),
        }
    }

    /// Ends every part in order: streams are closed, running reconciles finish, leases are released.
    /// Local instances run on, unless the configuration says otherwise.
    pub async fn stop(mut self) {
        if let Some(instances) = &self.instances {
            instances.stop().await;
        }
        self.stop.send_replace(true);
        while let Some(ended) = self.parts.join_next().await {
            match ended {
                Ok(part) => info!(part, "stopped"),
                Err(panic) => error!(%panic, "a part failed while stopping"),
            }
        }
        self.opened.close().await;
    }
}

/// All that can be refused before anything runs.
struct Prepared {
    first_admin_token: Option<String>,
    api: TcpListener,
    xds: TcpListener,
    addresses: [SocketAddr; 2],
    authority: Arc<Authority>,
    tls: Option<OwnTls>,
}

impl Prepared {
    async fn new(opened: &Opened, config: &Config) -> Result<Prepared, StartError> {
        let (api, xds) = (bind("api", config.api).await?, bind("xds", config.xds).await?);
        let first_admin_token = access::settle_admin(&opened.store, config).await?;
        let addresses = [local(&api)?, local(&xds)?];
        let authority = identity::start(config)?;
        let tls = OwnTls::start(config, &authority, addresses)?;
        Ok(Prepared { first_admin_token, api, xds, addresses, authority, tls })
    }
}

fn with_peer(connection: Connection) -> (Connection, SocketAddr) {
    let peer = connection.peer();
    (connection, peer)
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { flag, address, source })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Data { what: "a listener's address".into(), source })
}
