//! Requests to a control plane that is TLS itself, over a connection each.

use std::error::Error;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use reqwest::{Body, Request, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use weir_trust::{Trust, TrustError};

/// The protocol of the API.
const HTTP1: &[u8] = b"http/1.1";
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const HTTPS_PORT: u16 = 443;

/// What went wrong, as the libraries below say it.
type Failed = Box<dyn Error + Send + Sync>;

/// Knows by whom the control plane is known.
#[derive(Clone)]
pub struct Secure(TlsConnector);

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secure")
    }
}

impl Secure {
    /// Trusts as `trust` says.
    ///
    /// # Errors
    /// If its certificates are of no use.
    pub fn new(trust: &Trust) -> Result<Secure, TrustError> {
        trust.client(&[HTTP1]).map(|config| Secure(TlsConnector::from(config)))
    }

    /// Sends a request, and gives what is answered; its body may still be on the way.
    ///
    /// # Errors
    /// If nobody answers, or not the one who is trusted.
    pub async fn send(&self, request: Request) -> Result<Response, Failed> {
        let stream = timeout(CONNECT_PATIENCE, self.connect(&request)).await??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(in_origin_form(request)?).await?;
        Ok(Response::from(answer.map(Body::wrap)))
    }

    async fn connect(&self, request: &Request) -> Result<TlsStream<TcpStream>, Failed> {
        let url = request.url();
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TcpStream::connect((host, url.port().unwrap_or(HTTPS_PORT))).await?;
        stream.set_nodelay(true)?;
        Ok(self.0.connect(name, stream).await?)
    }
}

/// As a server wants it, not a proxy: the host in its header, the path alone as the target.
fn in_origin_form(request: Request) -> Result<http::Request<Body>, Failed> {
    let mut request = http::Request::try_from(request)?;
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str())).transpose()?;
    if let Some(authority) = authority {
        request.headers_mut().insert(HOST, authority);
    }
    let root = || PathAndQuery::from_static("/");
    *request.uri_mut() = Uri::from(request.uri().path_and_query().cloned().unwrap_or_else(root));
    Ok(request)
}
